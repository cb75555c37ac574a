"""Every query about how trainings go. A worker's write carries its attempt number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from psycopg.types.json import Jsonb

from imageloom.domain.adapters import Loss, Pace, Sample, TrainingState
from imageloom.domain.tasks import AdapterFile, OutputImage
from imageloom.store.pool import Connection


async def get_state(conn: Connection, task_id: str) -> TrainingState:
    """Return how a training stands; an empty state before its first step."""
    row = await conn.execute("select training from task where id = %s", (task_id,))
    found = await row.fetchone()
    return _state(found["training"]) if found and found["training"] else TrainingState()


async def put_state(
    conn: Connection, task_id: str, *, attempt: int, progress: float, state: TrainingState
) -> bool:
    """Write how a training stands; False where the attempt is no longer the task's."""
    cursor = await conn.execute(
        "update task set training = %(state)s, progress = greatest(progress, %(progress)s)"
        " where id = %(id)s and status = 'running' and attempt = %(attempt)s",
        {"id": task_id, "attempt": attempt, "progress": progress, "state": Jsonb(asdict(state))},
    )
    return cursor.rowcount == 1


async def add_losses(conn: Connection, task_id: str, losses: Sequence[Loss]) -> None:
    """Add the losses of steps, in the place of what an earlier attempt noted for them."""
    await conn.execute(
        "insert into loss (task_id, step, loss, learning_rate)"
        " select %s, step, loss, learning_rate"
        " from unnest(%s::integer[], %s::float8[], %s::float8[]) as new (step, loss, learning_rate)"
        " on conflict (task_id, step)"
        " do update set loss = excluded.loss, learning_rate = excluded.learning_rate",
        (
            task_id,
            [loss.step for loss in losses],
            [loss.loss for loss in losses],
            [loss.learning_rate for loss in losses],
        ),
    )


async def forget_losses_after(conn: Connection, task_id: str, step: int) -> None:
    """Forget what was lost with an attempt: the steps after its last checkpoint."""
    await conn.execute("delete from loss where task_id = %s and step > %s", (task_id, step))


async def list_losses(conn: Connection, task_id: str) -> list[Loss]:
    """Return the losses of a training by step. Uses the primary key."""
    rows = await conn.execute(
        "select step, loss, learning_rate from loss where task_id = %s order by step", (task_id,)
    )
    return [Loss(**row) for row in await rows.fetchall()]


async def list_paces(conn: Connection, base_model: str) -> list[Pace]:
    """Return how fast the last trainings of a base model went, whoever's, the newest first.

    Nothing else of them is told. Uses the index training_by_base.
    """
    rows = await conn.execute(
        "select training->'pace' as pace from task where type = 'training'"
        " and params->>'base_model' = %s and training->'pace'->>'images_per_second' is not null"
        " order by created_at desc limit 20",
        (base_model,),
    )
    return [Pace(**row["pace"]) for row in await rows.fetchall()]


def _state(stored: dict[str, Any]) -> TrainingState:
    return TrainingState(
        metrics=stored["metrics"],
        samples=tuple(
            Sample(**{**sample, "image": OutputImage(**sample["image"])})
            for sample in stored["samples"]
        ),
        lineage=stored["lineage"],
        checkpoint=stored["checkpoint"],
        checkpoint_step=stored["checkpoint_step"],
        best=_file(stored["best"]),
        last=_file(stored["last"]),
        pace=None if stored.get("pace") is None else Pace(**stored["pace"]),
    )


def _file(stored: dict[str, Any] | None) -> AdapterFile | None:
    return None if stored is None else AdapterFile(**stored)
