"""What a worker can be given: the models that it may serve, has the weights of, and can hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from imageloom.domain.catalog import Model, is_method
from imageloom.domain.runnable import least_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """The models that tasks of a worker may need (`able`), and what keeps the others from it.

    Of those that it is `lacking`, it takes what no other worker has: to say so at once, in the
    error of the task, with the command that gets them.
    `serves` are those that its operator named, None where it was not said.
    """

    able: tuple[str, ...] = ()
    serves: tuple[str, ...] | None = None
    lacking: tuple[str, ...] = ()
    too_large: tuple[str, ...] = ()


def abilities(
    models: Iterable[Model],
    *,
    serves: tuple[str, ...] | None,
    lacking: Collection[str],
    elsewhere: Collection[str],
    memory_bytes: int | None,
) -> Abilities:
    """Sort the models of the catalog by whether a worker can be given what needs them.

    What needs no weights is served by everybody. `elsewhere` are models that other workers can be
    given. None for `memory_bytes` holds anything.
    """
    known = list(models)
    too_large = {
        each.name
        for each in known
        if memory_bytes is not None and least_bytes(each, None) > memory_bytes
    }
    return Abilities(
        able=tuple(
            each.name
            for each in known
            if (serves is None or each.name in serves or is_method(each))
            and (each.name not in lacking or each.name not in elsewhere)
            and each.name not in too_large
        ),
        serves=serves,
        lacking=tuple(sorted(lacking)),
        too_large=tuple(sorted(too_large)),
    )
