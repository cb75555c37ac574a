"""`imageloom workflow` and `process` against a small server, and the files that they read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from fake_api import BASE, JPEG, KEY, FakeServer
from imageloom.cli import _workflow_display, workflow
from imageloom.cli._workflow_file import WorkflowFileError, read_workflow_file
from imageloom.cli.main import app
from imageloom.client import Client, Workflow

Run = Callable[..., Any]

EXAMPLES = Path(__file__).resolve().parents[1] / "workflows"
TWO_STEPS = """\
name: product-to-model
input:
  headline: summer
steps:
  - name: base
    type: generation
    config: {prompt: a dress, num_outputs: 3}
  - name: upscale
    type: processing
    depends_on: [base]
    config:
      operation: upscale
      scale: 2
"""
WITH_APPROVAL = """\
name: lookbook
steps:
  - name: drafts
    type: generation
    config: {prompt: a dress, num_outputs: 3}
  - name: choose
    type: approval
    depends_on: [drafts]
    config: {message: "Which ones?"}
  - name: upscale
    type: processing
    depends_on: [choose]
    config: {operation: upscale}
"""
GOES_ON = (
    "wf_1 goes on; look: imageloom workflow watch wf_1; stop it: imageloom workflow cancel wf_1\n"
)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def run(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line against the fake server, in a folder with two workflows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.yaml").write_text(TWO_STEPS)
    (tmp_path / "choice.yaml").write_text(WITH_APPROVAL)

    def invoke(*args: str, **options: Any) -> Any:
        def connect(*, base_url: str | None, api_key: str | None) -> Client:
            return Client.from_env(
                base_url=base_url,
                api_key=api_key,
                environment={"IMAGELOOM_URL": BASE, "IMAGELOOM_API_KEY": KEY},
                transport=httpx.MockTransport(server),
                **{"sleep": server.clock.sleep, "clock": server.clock} | options,
            )

        return CliRunner().invoke(app, list(args), obj=connect, catch_exceptions=False)

    return invoke


@pytest.fixture
def someone_there(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Have somebody at the terminal who gives these answers; returns what was asked."""

    def answer(*answers: str | type[BaseException]) -> list[str]:
        asked: list[str] = []
        waiting = iter(answers)

        def prompt(text: str, **options: Any) -> str:
            asked.append(text)
            given = next(waiting)
            if isinstance(given, str):
                return given
            raise given

        monkeypatch.setattr(workflow, "_someone_there", lambda: True)
        monkeypatch.setattr(workflow.typer, "prompt", prompt)
        return asked

    return answer


def asked_with(server: FakeServer, id_: str = "wf_1") -> dict[str, Any]:
    """Return the body that started the latest run."""
    asked: dict[str, Any] = server.workflows.runs[id_][-1]["asked"]
    return asked


# --- running a file


def test_run_tells_each_step_and_writes_the_last_steps_pictures(run: Run, tmp_path: Path) -> None:
    done = run("workflow", "run", "two.yaml", "--out", "made")
    assert done.stderr.splitlines() == [
        "wf_1 product-to-model",
        "base running 50%",
        "base completed",
        "upscale running 50%",
        "upscale completed",
    ]
    assert done.stdout.splitlines() == [f"made/upscale_{i}.jpg  seed {7 + i}" for i in range(3)]
    assert done.exit_code == 0
    assert (tmp_path / "made" / "upscale_2.jpg").read_bytes() == JPEG


def test_run_without_a_folder_prints_the_urls(run: Run) -> None:
    done = run("workflow", "run", "two.yaml")
    assert done.stdout.splitlines()[0] == "https://cdn.test/img0?signature=abc  seed 7"


def test_run_json_is_one_object(run: Run) -> None:
    done = run("workflow", "run", "two.yaml", "--out", "made", "--json")
    answer = json.loads(done.stdout)
    assert (answer["id"], answer["status"], done.stderr) == ("wf_1", "completed", "")
    assert [file["path"] for file in answer["files"]] == [f"made/upscale_{i}.jpg" for i in range(3)]
    assert "files" not in json.loads(run("workflow", "run", "two.yaml", "--json").stdout)


def test_cached_step_tells_what_it_saved(run: Run, server: FakeServer) -> None:
    server.workflows.cached = {"base": 8.25, "upscale": 132.0}
    done = run("workflow", "run", "two.yaml")
    assert done.stderr.splitlines()[1:] == [
        "base cached, 8.2 s saved",
        "upscale cached, 2 min 12 s saved",
    ]


def test_input_joins_that_of_the_file(run: Run, server: FakeServer) -> None:
    run("workflow", "run", "two.yaml", "--no-wait")
    assert asked_with(server) == {"input": {"headline": "summer"}}
    options = ["--input", "headline=a = b", "--input", "seed=7", "--input", "names=[1]"]
    run("workflow", "run", "two.yaml", *options, "--input", "none=NaN", "--no-cache", "--no-wait")
    assert asked_with(server, "wf_2") == {
        "input": {"headline": "a = b", "seed": 7, "names": [1], "none": "NaN"},
        "cache": False,
    }


def test_local_files_of_the_input_are_uploaded(
    run: Run, server: FakeServer, tmp_path: Path
) -> None:
    for name in ("a.jpg", "b.jpg", "c.png"):
        (tmp_path / name).write_bytes(name.encode())
    uploaded = [f"{BASE}/files/file_{n}?signature=abc" for n in range(1, 8)]
    run("workflow", "run", "two.yaml", "--image", "c.png", "--no-wait")
    assert asked_with(server)["input"] == {"headline": "summer", "image_url": uploaded[0]}
    run("workflow", "run", "two.yaml", "-i", "*.jpg", "-i", "https://a.test/d", "--no-wait")
    assert asked_with(server, "wf_2")["input"]["image_urls"] == [
        *uploaded[1:3],
        "https://a.test/d",
    ]
    options = ["--input", "image_urls=a.jpg", "--input", "image_urls=b.jpg"]
    run("workflow", "run", "two.yaml", *options, "--input", "backdrop_url=c.png", "--no-wait")
    given = asked_with(server, "wf_3")["input"]
    assert (given["image_urls"], given["backdrop_url"]) == (uploaded[3:5], uploaded[5])
    contents = [content for _, _, content in server.uploads]
    assert contents == [b"c.png", b"a.jpg", b"b.jpg", b"a.jpg", b"b.jpg", b"c.png"]


def test_local_files_of_the_file_are_beside_it(
    run: Run, server: FakeServer, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "dress.jpg").write_bytes(JPEG)
    text = TWO_STEPS.replace("headline: summer", "image_urls: ['*.jpg', 'https://a.test/1']")
    (folder / "w.yaml").write_text(text)
    assert run("workflow", "run", "shop/w.yaml", "--no-wait").exit_code == 0
    assert [name for name, _, _ in server.uploads] == ["dress.jpg"]
    assert asked_with(server)["input"]["image_urls"][1] == "https://a.test/1"
    run("workflow", "run", "shop/w.yaml", "-i", "https://a.test/2", "--no-wait")
    assert asked_with(server, "wf_2")["input"] == {"image_url": "https://a.test/2"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--input", "headline"], "'headline' is not KEY=VALUE"),
        (["--input", "a=1", "--input", "a=2"], "'a' is given twice"),
        (["-i", "https://a.test/1", "--input", "image_url=https://a.test/2"], "not both"),
    ],
)
def test_wrong_input_is_usage(run: Run, server: FakeServer, args: list[str], message: str) -> None:
    done = run("workflow", "run", "two.yaml", *args)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", "").split())
    assert server.requests == []


def test_missing_picture_is_one_line(run: Run) -> None:
    done = run("workflow", "run", "two.yaml", "-i", "none.jpg")
    assert (done.exit_code, done.stderr) == (1, "error: none.jpg: No such file or directory\n")
    done = run("workflow", "run", "two.yaml", "-i", "*.gif")
    assert (done.exit_code, done.stderr) == (1, "error: *.gif: no file matches\n")


def test_refused_step_is_told_with_its_place_in_the_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(TWO_STEPS.replace("scale: 2", "scale: 3"))
    done = run("workflow", "run", "two.yaml")
    assert done.exit_code == 1
    assert done.stderr == (
        "error: two.yaml, line 13 (step 'upscale'): steps.1.config.scale: 3 is neither 2 nor 4"
        " (422 workflow_invalid, request req_1)\n"
    )
    error = json.loads(run("workflow", "run", "two.yaml", "--json").stdout)["error"]
    assert (error["type"], error["param"]) == ("workflow_invalid", "steps.1.config.scale")


def test_failed_run_is_one_line_and_says_how_to_go_on(run: Run, server: FakeServer) -> None:
    server.workflows.ends = {"base": {"status": "failed", "error": "CUDA out of memory\n2 GB"}}
    done = run("workflow", "run", "two.yaml")
    assert done.exit_code == 1
    *steps, error = done.stderr.splitlines()[2:]
    assert steps == ["base failed: CUDA out of memory 2 GB", "upscale skipped"]
    assert error == (
        "error: workflow wf_1 failed: step 'base': CUDA out of memory 2 GB; to redo what did not"
        " complete: imageloom workflow resume wf_1"
    )
    server.workflows.ends = {"base": {"status": "failed", "error": "no"}}
    done = run("workflow", "run", "two.yaml", "--json")
    assert (done.exit_code, json.loads(done.stdout)["status"]) == (1, "failed")


def test_interrupt_leaves_the_workflow_running(run: Run, server: FakeServer) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    done = run("workflow", "run", "two.yaml", sleep=interrupt)
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr.endswith(GOES_ON)
    assert server.workflows.runs["wf_1"][0]["status"] == "running"
    done = run("workflow", "watch", "wf_1", "--json", sleep=interrupt)
    assert (done.exit_code, json.loads(done.stdout)["status"]) == (130, "running")
    assert run("workflow", "watch", "wf_1", "--out", "x").stdout.startswith("x/upscale_0.jpg")


def test_timeout_says_that_it_goes_on(run: Run) -> None:
    done = run("workflow", "run", "two.yaml", "--timeout", "0.1")
    assert done.exit_code == 1
    assert done.stderr.endswith(
        "error: workflow wf_1 is still running after 0.1 s; it goes on: imageloom workflow watch"
        " wf_1\n"
    )


# --- running by id


def test_workflow_of_the_server_is_started_then_run_again(run: Run, server: FakeServer) -> None:
    made = server.client().workflows.create(name="a", steps=[{"name": "s", "type": "processing"}])
    start = ["--image", "https://a.test/1", "--input", "headline=new"]
    assert run("workflow", "run", made.id, *start).exit_code == 0
    assert len(server.workflows.runs["wf_1"]) == 1
    assert run("workflow", "run", made.id, "--input", "headline=old", "--no-cache").exit_code == 0
    assert asked_with(server) == {
        "input": {"image_url": "https://a.test/1", "headline": "old"},
        "cache": False,
    }
    both = ["--image", "https://a.test/2", "--image", "https://a.test/3"]
    run("workflow", "run", made.id, *both)
    assert asked_with(server)["input"] == {
        "image_urls": ["https://a.test/2", "https://a.test/3"],
        "headline": "old",
    }
    assert [each["run"]["number"] for each in server.workflows.runs["wf_1"]] == [1, 2, 3]


def test_unknown_workflow_and_missing_file_exit_1(run: Run) -> None:
    done = run("workflow", "run", "wf_none")
    assert (done.exit_code, "404 not_found" in done.stderr) == (1, True)
    done = run("workflow", "run", "none.yaml")
    assert (done.exit_code, done.stderr) == (1, "error: none.yaml: No such file or directory\n")


# --- approval


def test_approval_without_a_terminal_says_how_to_choose(run: Run) -> None:
    done = run("workflow", "run", "choice.yaml")
    assert done.exit_code == 3
    assert done.stdout.splitlines() == [
        f"  {i}  https://cdn.test/img{i}?signature=abc  seed {7 + i}  64 x 64" for i in range(3)
    ]
    assert done.stderr.splitlines()[-3:] == [
        "choose waits for a choice of 3",
        "choose: Which ones?",
        "wf_1 is paused; to choose, for example: imageloom workflow resume wf_1 --select 0,2",
    ]
    done = run("workflow", "run", "choice.yaml", "--json")
    answer = json.loads(done.stdout)
    assert (done.exit_code, answer["status"]) == (3, "paused")
    assert len(answer["steps"][1]["candidates"]) == 3


def test_approval_on_a_terminal_asks_until_it_understands(
    run: Run, server: FakeServer, someone_there: Callable[..., list[str]]
) -> None:
    asked = someone_there("the red one", "7", "2, 0")
    done = run("workflow", "run", "choice.yaml", "--out", "made")
    assert (done.exit_code, len(asked)) == (0, 3)
    assert "'the red one' is no choice; give indices such as 0,2, or all\n" in done.stderr
    assert "there is no candidate 7; they are 0 to 2\n" in done.stderr
    assert server.workflows.runs["wf_1"][0]["resumed"] == {"select": [2, 0], "step": "choose"}
    assert len(done.stdout.splitlines()) == 3 + 2


def test_choice_that_is_not_made_leaves_it_waiting(
    run: Run, server: FakeServer, someone_there: Callable[..., list[str]]
) -> None:
    someone_there(" ")
    done = run("workflow", "run", "choice.yaml")
    assert (done.exit_code, "imageloom workflow resume wf_1" in done.stderr) == (3, True)
    someone_there(workflow.typer.Abort)
    done = run("workflow", "watch", "wf_1")
    assert (done.exit_code, done.stderr.endswith(GOES_ON)) == (130, True)
    assert server.workflows.runs["wf_1"][0]["status"] == "paused"


def test_several_approvals_are_asked_one_after_the_other(
    run: Run, server: FakeServer, tmp_path: Path, someone_there: Callable[..., list[str]]
) -> None:
    second = "  - {name: again, type: approval, depends_on: [drafts]}\n"
    (tmp_path / "choice.yaml").write_text(WITH_APPROVAL + second)
    done = run("workflow", "run", "choice.yaml")
    assert done.stderr.splitlines()[-1].endswith("--select 0,2 --step choose")
    assert len(done.stdout.splitlines()) == 6
    asked = someone_there("all", "1")
    assert run("workflow", "watch", "wf_1").exit_code == 0
    assert len(asked) == 2
    counts = [len(each["output"]["images"]) for each in server.workflows.runs["wf_1"][0]["steps"]]
    assert counts == [3, 3, 3, 1]


def test_resume_carries_choice_step_and_changes(run: Run, server: FakeServer) -> None:
    run("workflow", "run", "choice.yaml")
    options = ["--select", "2,0", "--step", "choose", "--set", "upscale.scale=4"]
    done = run("workflow", "resume", "wf_1", *options)
    assert (done.exit_code, done.stdout) == (0, "wf_1 running\n")
    assert server.workflows.runs["wf_1"][0]["resumed"] == {
        "select": [2, 0],
        "step": "choose",
        "edits": {"upscale": {"scale": 4}},
    }


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--select", "x"], 2, "'x' is no choice"),
        (["--select", ","], 2, "',' is no choice"),
        (["--select", "3"], 2, "there is no candidate 3; they are 0 to 2"),
        (["--select", "0", "--step", "none"], 1, "nothing waits"),
        (["--set", "scale=4"], 2, "is not STEP.PARAMETER=VALUE"),
    ],
)
def test_wrong_choice_is_told(run: Run, args: list[str], code: int, message: str) -> None:
    run("workflow", "run", "choice.yaml")
    done = run("workflow", "resume", "wf_1", *args)
    assert (done.exit_code, message in done.stderr) == (code, True)


def test_all_takes_every_candidate(run: Run, server: FakeServer) -> None:
    run("workflow", "run", "choice.yaml")
    assert json.loads(run("workflow", "resume", "wf_1", "--select", "all", "--json").stdout)
    assert server.workflows.runs["wf_1"][0]["resumed"]["select"] == [0, 1, 2]


# --- looking and acting


def test_list_and_show(run: Run, server: FakeServer) -> None:
    run("workflow", "run", "two.yaml", "--no-wait")
    run("workflow", "run", "choice.yaml")
    done = run("workflow", "list")
    assert done.stdout == (
        "wf_2\tlookbook\t1\tpaused\t33%\t2024-01-15 10:30:00Z\n"
        "wf_1\tproduct-to-model\t1\trunning\t0%\t2024-01-15 10:30:00Z\n"
    )
    answer = json.loads(run("workflow", "list", "--status", "paused", "--json").stdout)
    assert [each["id"] for each in answer["items"]] == ["wf_2"]
    shown = run("workflow", "show", "wf_1").stdout.splitlines()
    assert shown[:4] == [
        "id        wf_1",
        "name      product-to-model",
        "run       1",
        "status    running",
    ]
    assert shown[-2:] == [
        "base\tgeneration\t0/3\trunning 50%",
        "upscale\tprocessing\t\tpending",
    ]
    assert "https://cdn.test/img2" in run("workflow", "show", "wf_2").stdout
    assert json.loads(run("workflow", "show", "wf_2", "--json").stdout)["status"] == "paused"


def test_show_tells_error_and_pictures(run: Run, server: FakeServer) -> None:
    server.workflows.ends = {"upscale": {"status": "failed", "error": "no"}}
    run("workflow", "run", "two.yaml")
    assert "error     a step failed" in run("workflow", "show", "wf_1").stdout
    assert run("workflow", "resume", "wf_1").stdout == "wf_1 running\n"
    run("workflow", "watch", "wf_1")
    assert "seed 9" in run("workflow", "show", "wf_1").stdout


def test_pause_resume_cancel_and_cleanup(run: Run) -> None:
    run("workflow", "run", "two.yaml", "--no-wait")
    assert run("workflow", "pause", "wf_1").stdout == "wf_1 paused\n"
    done = run("workflow", "watch", "wf_1")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (
        3,
        "wf_1 is paused; to go on: imageloom workflow resume wf_1",
    )
    refused = run("workflow", "cleanup", "wf_1")
    assert (refused.exit_code, "409 conflict" in refused.stderr) == (1, True)
    assert run("workflow", "resume", "wf_1").stdout == "wf_1 running\n"
    assert run("workflow", "cancel", "wf_1").stdout == "wf_1 cancelled\n"
    assert run("workflow", "watch", "wf_1").exit_code == 1
    assert run("workflow", "cleanup", "wf_1").stdout == "wf_1 cleaned up\n"
    assert json.loads(run("workflow", "cleanup", "wf_1", "--json").stdout)["cleaned_at"]


def test_no_wait_prints_id_and_status(run: Run) -> None:
    assert run("workflow", "run", "two.yaml", "--no-wait").stdout == "wf_1 running\n"
    done = run("workflow", "run", "two.yaml", "--no-wait", "--json")
    assert json.loads(done.stdout)["status"] == "running"


# --- the file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml: is not a workflow, which has a name and steps"),
        ("- a\n", "f.yaml: is not a workflow, which has a name and steps"),
        ("name: a\nsteps: [\n", "f.yaml, line 3: expected the node content"),
        ("name: a\nsteps:\n\t- b\n", "f.yaml, line 3: found character '\\\\t'"),
        ("name: a\nsteps:\n  - {}\n", "f.yaml, line 3: step 0 needs a name and a type"),
        ("name: a\nsteps:\n- name: b\n", "f.yaml, line 3: step 'b' needs a name and a type"),
        ("name: a\nsteps:\n- b\n", "f.yaml, line 3: step 0 is no mapping"),
        ("name: a\nsteps: []\n", "f.yaml, line 2: steps: give a list of steps"),
        ("steps: []\n", "f.yaml, line 1: name: give the workflow a name"),
        ("name: 12\nsteps: []\n", "f.yaml, line 1: name: give the workflow a name"),
        ("name: a\nstep: []\n", "f.yaml, line 2: unknown field 'step'; there are name, desc"),
        ("name: a\nname: b\n", "f.yaml, line 2: 'name' stands here twice"),
        ("name: a\n[b]: c\n", "f.yaml, line 2: a key must be text"),
        ("name: a\nsteps: *b\n", "f.yaml, line 2: found undefined alias 'b'"),
        ("name: !!python/object:os.system a\n", "f.yaml, line 1: could not determine"),
        (
            "name: a\nsteps: [{name: b, type: c}]\ninput: d\n",
            "f.yaml, line 3: input: give names and values",
        ),
        ("name: \x00\n", "f.yaml: unacceptable character"),
        ("name: " + "[" * 3000, "f.yaml: nests too deep"),
    ],
)
def test_file_that_is_no_workflow_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.yaml").write_text(text)
    with pytest.raises(WorkflowFileError) as caught:
        read_workflow_file(Path("f.yaml"))
    assert message.replace("\\\\", "\\") in str(caught.value)


def test_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(JPEG)
    with pytest.raises(WorkflowFileError, match="is not UTF-8 text"):
        read_workflow_file(tmp_path / "f.yaml")


def test_mistake_in_the_file_exits_2(run: Run, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("name: [")
    done = run("workflow", "run", "two.yaml")
    assert (done.exit_code, done.stderr.count("\n"), server.requests) == (2, 1, [])
    assert "two.yaml, line 1: " in done.stderr


def test_values_are_what_they_look_like(tmp_path: Path) -> None:
    config = """\
    aspect_ratio: 4:5
    word: no
    day: 2024-01-31
    number: 007
    seed: 12
    factor: 1.5
    small: 1e-3
    negative: -2
    nothing: ~
    yes_indeed: true
    quoted: "12"
"""
    text = "name: a\nsteps:\n- name: b\n  type: processing\n  config:\n" + config
    (tmp_path / "f.yaml").write_text(text)
    (step,) = read_workflow_file(tmp_path / "f.yaml").steps
    assert step["config"] == {
        "aspect_ratio": "4:5",
        "word": "no",
        "day": "2024-01-31",
        "number": "007",
        "seed": 12,
        "factor": 1.5,
        "small": 0.001,
        "negative": -2,
        "nothing": None,
        "yes_indeed": True,
        "quoted": "12",
    }


def test_place_is_as_near_as_the_file_has_it(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(TWO_STEPS)
    file = read_workflow_file(tmp_path / "f.yaml")
    places = {
        "steps.1.config.scale": "line 13 (step 'upscale')",
        "steps.1.config.model": "line 11 (step 'upscale')",
        "steps.0.config.prompt": "line 7 (step 'base')",
        "steps.7.name": "line 4",
        "steps": "line 4",
        "name": "line 1",
        "webhook_url": "line 1",
    }
    found = {param: file.place(param) for param in places}
    assert found == {param: f"{file.path}, {place}" for param, place in places.items()}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_example_runs(run: Run, path: Path) -> None:
    file = read_workflow_file(path)
    assert file.name == path.stem
    assert run("workflow", "run", str(path)).exit_code == (3 if "approval" in path.stem else 0)


def test_there_are_examples() -> None:
    assert len(list(EXAMPLES.glob("*.yaml"))) >= 3


# --- process


def test_process_writes_the_results(run: Run, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    done = run("process", "upscale", "a.jpg", "--scale", "4", "--out", "made")
    assert (done.exit_code, done.stdout) == (0, "made/output_0.jpg  seed 7\n")
    (body,) = server.bodies.values()
    assert body == {
        "operation": "upscale",
        "scale": 4,
        "input_image_url": f"{BASE}/files/file_1?signature=abc",
    }
    done = run("process", "crop", "a.jpg", "https://a.test/1", "--aspect-ratio", "4:5", "--json")
    assert len(json.loads(done.stdout)["files"]) == 2
    assert server.bodies["task_2"]["input_image_urls"][1] == "https://a.test/1"


def test_process_passes_every_option_on(run: Run, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "studio.jpg").write_bytes(JPEG)
    options = (
        "--scale 2 --width 10 --height 20 --fit pad --left 0 --top 1 --aspect-ratio 1:1 "
        "--gravity top --background-color white --background-image studio.jpg --quality 90 "
        "--brightness 1.1 --contrast 1.2 --saturation 1.3 --sharpness 1.4 --model lanczos "
        "--priority 2 --format webp --no-wait"
    )
    done = run("process", "resize", "https://a.test/1", *options.split())
    assert (done.exit_code, done.stdout) == (0, "task_1\n")
    assert server.bodies["task_1"] == {
        "operation": "resize",
        "input_image_url": "https://a.test/1",
        "priority": 2,
        "scale": 2,
        "width": 10,
        "height": 20,
        "fit": "pad",
        "left": 0,
        "top": 1,
        "aspect_ratio": "1:1",
        "gravity": "top",
        "background_color": "white",
        "background_image_url": f"{BASE}/files/file_1?signature=abc",
        "quality": 90,
        "brightness": 1.1,
        "contrast": 1.2,
        "saturation": 1.3,
        "sharpness": 1.4,
        "model": "lanczos",
        "output_format": "webp",
    }


def test_interrupt_cancels_the_processing(run: Run, server: FakeServer) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    done = run("process", "upscale", "https://a.test/1", sleep=interrupt)
    assert (done.exit_code, server.tasks["task_1"]["status"]) == (130, "cancelled")


# --- the living table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STANDING: list[dict[str, Any]] = [
    {
        "name": "generate-base",
        "type": "generation",
        "status": "completed",
        "progress": 1.0,
        "cache": "hit",
        "seconds_saved": 12.3,
        "output": {"images": [{"url": "u"}] * 12},
    },
    {
        "name": "a-step-with-a-name-that-is-much-too-long",
        "type": "processing",
        "status": "running",
        "progress": 0.5,
        "tasks": [
            {"id": "t1", "status": "completed", "progress": 1.0},
            {"id": "t2", "status": "running", "progress": 0.5},
        ],
    },
    {"name": "choose", "type": "approval", "status": "paused", "candidates": [{"url": "u"}] * 4},
    {
        "name": "upscale",
        "type": "processing",
        "status": "failed",
        "error": "CUDA out of memory\n\x1b[31m" + "and so on " * 20,
    },
    {"name": "jpeg", "type": "processing", "status": "skipped"},
    {"name": "webp", "type": "processing", "status": "pending"},
]


def standing(server: FakeServer, steps: list[dict[str, Any]] = STANDING) -> Workflow:
    raw = {"id": "wf_1", "name": "product-to-model", "status": "running", "progress": 0.42}
    server.next = [httpx.Response(200, json=raw | {"steps": steps})]
    return server.client().workflows.get("wf_1")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_table_shows_each_step_on_one_line(server: FakeServer, width: int) -> None:
    console = Console(file=Terminal(), width=width, force_terminal=True, color_system=None)
    table = _workflow_display.StepsTable(console, clock=iter([0.0, 83.2]).__next__)
    table.changed(standing(server))
    with console.capture() as captured:
        console.print(table.drawn())
    head, *lines = captured.get().splitlines()
    assert head.split() == ["product-to-model", "running", "42%", "83", "s", "wf_1"]
    assert [line[0] for line in lines] == ["✓", "⠋", "?", "✗", "–", "·"]
    assert max(len(line) for line in lines) <= width
    assert "12/12  cached" in lines[0]
    assert "1/2  running 50%" in lines[1]
    assert "\x1b" not in lines[3]
    if width >= 80:
        assert lines[0].rstrip().endswith("cached, 12 s saved")
        assert lines[2].rstrip().endswith("waits for a choice of 4")


def test_pictures_of_a_task_with_several_outputs_are_counted(server: FakeServer) -> None:
    step = {"name": "a", "type": "generation", "status": "running", "config": {"num_outputs": 3}}
    tasks = [{"id": "t1", "status": "completed"}, {"id": "t2", "progress": 0.99}]
    (found,) = standing(server, [step | {"tasks": tasks}]).steps
    assert _workflow_display.pictures(found) == (3, 6)


def test_table_lives_and_stays(server: FakeServer) -> None:
    terminal = Terminal()
    console = Console(file=terminal, width=80, force_terminal=True, color_system=None)
    with _workflow_display.table_on(console) as table:
        table.changed(standing(server))
    assert "generate-base" in terminal.getvalue()


def test_display_fits_where_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setattr("sys.stderr", stream)
        for as_json in (False, True):
            with _workflow_display.workflow_shown(as_json=as_json) as display:
                kinds.append(type(display).__name__)
    assert kinds == ["Lines", "Silence", "StepsTable", "Silence"]


def test_completed_step_tells_how_long_it_took(server: FakeServer) -> None:
    times = {"started_at": "2024-01-15T10:30:00Z", "completed_at": "2024-01-15T10:30:03.5Z"}
    step: dict[str, Any] = {"name": "a", "status": "completed", "tasks": [{"id": "t1"}], **times}
    computed, chosen = standing(server, [step, step | {"tasks": []}]).steps
    assert _workflow_display.told(computed) == "completed in 3.5 s"
    assert _workflow_display.told(chosen) == "completed"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (12.4, "12 s"), (132.0, "2 min 12 s"), (7260.0, "2 h 1 min")],
)
def test_duration_is_told_in_what_fits(server: FakeServer, seconds: float, text: str) -> None:
    step = {"name": "a", "status": "completed", "cache": "hit", "seconds_saved": seconds}
    (found,) = standing(server, [step]).steps
    assert _workflow_display.told(found) == f"cached, {text} saved"
