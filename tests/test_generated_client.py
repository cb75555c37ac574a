"""A client that a public generator makes from docs/openapi.json works without a hand on it."""

from __future__ import annotations

import compileall
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from conftest import wait_for

if TYPE_CHECKING:
    from conftest import Live

DOCUMENT = Path(__file__).parent.parent / "docs" / "openapi.json"
NAME = "generated_imageloom"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package that openapi-python-client makes, on the path; it had nothing to complain of."""
    folder = tmp_path_factory.mktemp("generated")
    config = folder / "config.yml"
    config.write_text("post_hooks: []\n")  # without formatting what nobody reads
    made = subprocess.run(
        [
            *(sys.executable, "-c", "from openapi_python_client.cli import app; app()"),
            *("generate", "--path", str(DOCUMENT), "--output-path", str(folder / NAME)),
            *("--meta", "none", "--config", str(config), "--fail-on-warning"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    said = made.stdout + made.stderr
    assert made.returncode == 0, said
    assert "warning" not in said.lower(), said
    sys.path.insert(0, str(folder))
    yield folder / NAME
    sys.path.remove(str(folder))


def module(name: str) -> Any:
    return importlib.import_module(f"{NAME}.{name}")


def test_every_module_compiles_and_there_is_one_for_every_operation(
    generated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compileall.compile_dir(generated, quiet=1), capsys.readouterr().out
    names = [found.name for found in pkgutil.walk_packages([str(generated)], f"{NAME}.")]
    calls = {name.rpartition(".")[2] for name in names if ".api." in name}
    document = json.loads(DOCUMENT.read_text("utf-8"))
    operations = {
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    }
    assert operations <= calls
    for name in names:
        importlib.import_module(name)


def test_main_flow_runs_by_the_generated_client(generated: Path, live: Live) -> None:
    body = module("models").CreateGenerationTaskGenerationParams
    view = module("models").TaskView
    tasks = "api.tasks"
    create = module(f"{tasks}.create_generation_task").sync
    get, cancel = module(f"{tasks}.get_task").sync, module(f"{tasks}.cancel_task").sync
    list_tasks = module(f"{tasks}.list_tasks").sync
    queues = module("api.monitoring.list_queues").sync

    with module("client").AuthenticatedClient(base_url=live.url, token=live.key) as client:
        asked = body(prompt="a red dress", num_outputs=2, steps=2, seed=5)
        task = create(client=client, body=asked, idempotency_key="generated-1")
        assert isinstance(task, view)
        assert create(client=client, body=asked, idempotency_key="generated-1").id == task.id

        def over() -> Any:
            now = get(client=client, task_id=task.id)
            return now if now.status in ("completed", "failed") else None

        done = wait_for(over, what="the generated client's task")
        assert (done.status, [image.seed for image in done.output.images]) == ("completed", [5, 6])
        assert httpx.get(done.output.images[0].url).headers["content-type"] == "image/jpeg"

        listed = list_tasks(client=client, search=task.id)
        assert [(each.id, each.created_at) for each in listed.items] == [(task.id, done.created_at)]

        other = create(client=client, body=body(prompt="a hat", steps=100, num_outputs=16))
        assert cancel(client=client, task_id=other.id).status == "cancelled"
        refused = cancel(client=client, task_id=task.id)
        assert (refused.error.type_, refused.error.param) == ("conflict", None)
        names = [queue.name for queue in queues(client=client).queues]
        assert names == ["generation", "processing", "training"]
