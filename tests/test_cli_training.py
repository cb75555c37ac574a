"""`imageloom train` against a small server, and how a training looks while it goes on."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from fake_api import ADAPTER, BASE, CDN, JPEG, KEY, FakeServer, refusal
from imageloom.cli import _training_display
from imageloom.cli.main import app
from imageloom.client import Client, Training

Run = Callable[..., Any]

UPLOADED = f"{BASE}/files/file_1?signature=abc"
ZIP_URL = "https://a.test/pictures.zip"
ADAPTER_URL = f"{CDN}/adapter?signature=abc"
HOW_TO_USE = 'to use it: imageloom generate "…" --lora my-dress:1'


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def run(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line against the fake server, in a folder that has one of pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for index in range(4):
        (tmp_path / "pictures" / f"{index}.jpg").write_bytes(JPEG)
        (tmp_path / "pictures" / f"{index}.txt").write_text("a dress")

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


def interrupt(seconds: float) -> None:
    raise KeyboardInterrupt


# --- training


def test_train_tells_what_is_there_then_how_it_goes(run: Run) -> None:
    done = run("train", "pictures/", "--name", "my-dress")
    size, *lines = done.stderr.splitlines()
    assert size.startswith("uploaded ")
    assert lines == [
        "4 pictures: 3 of 64x64, 1 of 48x80; 240 steps, about 96 s, about 1.2 GB of memory",
        "left out: tiny.png: is 8 x 8 pixels",
        "note: smaller than 64 pixels: 1 picture; enlarged, without fine detail",
        "train_1 my-dress pending",
        "train_1 my-dress running",
        "epoch 1/2, step 1/8, loss 1.0000, 3.2 images/s, 84 s left",
        "epoch 2/2, step 8/8, loss 0.1250, held out 0.2500, 3.2 images/s",
        f"sample after 8 steps: {CDN}/img0?signature=abc",
        "train_1 my-dress completed",
        HOW_TO_USE,
    ]
    assert done.stdout == f"my-dress  version 1  {ADAPTER_URL}\n"
    assert done.exit_code == 0


def test_pictures_go_up_once(run: Run, server: FakeServer) -> None:
    options = "--name my-dress --trigger sks --epochs 2 --priority 3 --no-wait"
    run("train", "pictures", *options.split())
    config = {"epochs": 2, "trigger_word": "sks", "sample_prompts": ["sks"]}
    assert server.trainings.preflights == [{"dataset_url": UPLOADED, "config": config}]
    assert server.trainings.bodies["train_1"] == {
        "dataset_url": UPLOADED,
        "output_name": "my-dress",
        "priority": 3,
        "config": config,
    }
    assert len(server.uploads) == 1


def test_first_caption_is_drawn_unless_something_else_is_asked_for(
    run: Run, server: FakeServer
) -> None:
    server.trainings.report["pictures"][0]["caption"] = "a sks dress"

    def drawn(*options: str, source: str = "pictures") -> Any:
        run("train", source, "--name", "d", "--no-wait", "--new-version", *options)
        *_, body = server.trainings.bodies.values()
        return body["config"].get("sample_prompts")

    assert drawn() == ["a sks dress"]
    assert drawn("--sample", "a hat") == ["a hat"]
    assert drawn("--set", "sample_prompts=[]") == []
    assert drawn("--trigger", "sks", source=ZIP_URL) == ["sks"]
    assert drawn(source=ZIP_URL) is None
    looked = [each["config"].get("sample_prompts") for each in server.trainings.preflights]
    assert [len(prompts) for prompts in looked] == [1, 1, 0]


def test_every_option_arrives_by_its_name_in_the_api(run: Run, server: FakeServer) -> None:
    options = {
        "--base-model": "sd-xl-base",
        "--learning-rate": "1e-4",
        "--batch-size": "2",
        "--rank": "8",
        "--resolution": "512",
        "--seed": "7",
        "--checkpoint-every": "50",
    }
    words = [word for option in options.items() for word in option]
    samples = ["--sample", "a dress", "--sample", "sks on a beach"]
    sets = ["--set", "publish=last", "--set", "flip=true", "--set", "min_snr_gamma=null"]
    done = run(
        "train", ZIP_URL, "--name", "d", "--no-wait", "--new-version", *words, *samples, *sets
    )
    assert done.stdout == "train_1 pending\n"
    assert server.trainings.bodies["train_1"] == {
        "dataset_url": ZIP_URL,
        "base_model": "sd-xl-base",
        "output_name": "d",
        "config": {
            "learning_rate": 1e-4,
            "batch_size": 2,
            "rank": 8,
            "resolution": 512,
            "seed": 7,
            "checkpoint_every": 50,
            "sample_prompts": ["a dress", "sks on a beach"],
            "version": True,
            "publish": "last",
            "flip": True,
            "min_snr_gamma": None,
        },
    }


def test_files_of_no_use_stay_here_and_are_named(run: Run, tmp_path: Path) -> None:
    for index in range(12):
        (tmp_path / "pictures" / f"{index:02}.heic").write_bytes(b"raw")
    done = run("train", "pictures", "--name", "my-dress", "--no-wait")
    names = ", ".join(f"{index:02}.heic" for index in range(10))
    assert done.stderr.splitlines()[0] == (
        f"not uploaded, neither pictures nor captions: {names} and 2 more"
    )


def test_archive_elsewhere_is_not_looked_at_before(run: Run, server: FakeServer) -> None:
    done = run("train", ZIP_URL, "--name", "my-dress")
    assert (done.exit_code, server.trainings.preflights, server.uploads) == (0, [], [])


def test_out_writes_adapter_and_samples(run: Run, tmp_path: Path) -> None:
    done = run("train", "pictures", "--name", "my-dress", "--out", "made")
    assert done.stdout == "made/my-dress.safetensors\nmade/sample_8_0.jpg\n"
    assert (tmp_path / "made" / "my-dress.safetensors").read_bytes() == ADAPTER


def test_json_is_one_object(run: Run) -> None:
    done = run("train", "pictures", "--name", "my-dress", "--out", "made", "--json")
    answer = json.loads(done.stdout)
    assert (answer["status"], done.stderr) == ("completed", "")
    assert [file["path"] for file in answer["files"]] == [
        "made/my-dress.safetensors",
        "made/sample_8_0.jpg",
    ]
    assert "files" not in json.loads(run("train", "train_1", "--json").stdout)


def test_training_is_watched_again_by_its_id(run: Run, server: FakeServer) -> None:
    run("train", "pictures", "--name", "my-dress", "--no-wait")
    done = run("train", "train_1", "--out", "made")
    assert done.stderr.splitlines()[0] == "train_1 my-dress running"
    assert done.stdout == "made/my-dress.safetensors\nmade/sample_8_0.jpg\n"
    assert len(server.trainings.trainings) == 1


# --- looking only


def test_preflight_prints_the_report_and_trains_nothing(run: Run, server: FakeServer) -> None:
    done = run("train", "pictures", "--preflight", "--epochs", "2")
    assert done.stdout.splitlines() == [
        "pictures  4",
        "sizes     3 of 64x64, 1 of 48x80",
        "training  240 steps, about 96 s, about 1.2 GB of memory",
        "rests on  time measured by 1 training of imageloom-tiny on x86_64",
        f"url       {UPLOADED}",
        "note      smaller than 64 pixels: 1 picture; enlarged, without fine detail",
        "",
        "tiny.png\tis 8 x 8 pixels",
    ]
    assert (done.exit_code, server.trainings.trainings) == (0, {})


def test_preflight_json_is_the_report(run: Run, server: FakeServer) -> None:
    done = run("train", "pictures", "--preflight", "--json")
    assert json.loads(done.stdout) == server.trainings.report | {"dataset_url": UPLOADED}
    assert done.stderr == ""


def test_short_report_is_told_calmly(run: Run, server: FakeServer) -> None:
    server.trainings.report = {"usable": 4, "estimate": {"steps": 60}}
    done = run("train", "pictures", "--name", "my-dress", "--no-wait")
    assert done.stderr.splitlines()[1:] == ["4 pictures; 60 steps"]


# --- what goes wrong


def test_refused_data_set_is_told_and_nothing_is_trained(run: Run, server: FakeServer) -> None:
    message = "dataset_url: 3 usable pictures; at least 4 are needed"
    uploaded = {"id": "file_1", "url": UPLOADED}
    server.next = [
        httpx.Response(201, json=uploaded),
        refusal(422, "invalid_input", message, param="dataset_url"),
    ]
    done = run("train", "pictures", "--name", "my-dress")
    assert done.stderr.splitlines()[1].startswith(f"error: {message}")
    assert (done.exit_code, server.trainings.trainings) == (1, {})


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["pictures"], 2, "say with --name what requests will call the adapter"),
        (["empty", "--name", "d"], 2, "empty holds no pictures"),
        (["missing", "--name", "d"], 1, "missing: No such file or directory"),
        (["train_9"], 1, "there is no training train_9"),
        (["pictures", "--set", "flip"], 2, "'flip' is not KEY=VALUE"),
        (["pictures", "--set", "epochs=2", "--epochs", "2"], 2, "'epochs' is given twice"),
        (["pictures", "--set", "progress=1"], 2, "'progress' is no part of `config`"),
    ],
)
def test_mistake_is_told(
    run: Run, server: FakeServer, tmp_path: Path, args: list[str], code: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    done = run("train", *args)
    assert message in done.stderr
    assert (done.exit_code, server.trainings.trainings) == (code, {})


def test_failed_training_is_one_line(run: Run, server: FakeServer) -> None:
    server.trainings.ends = {"status": "failed", "error": "CUDA out of memory"}
    done = run("train", ZIP_URL, "--name", "my-dress")
    assert done.stderr.splitlines()[-1] == "error: task train_1 failed: CUDA out of memory"
    assert done.exit_code == 1


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_interrupt_leaves_it_running_and_says_what_to_do(
    run: Run, server: FakeServer, options: list[str]
) -> None:
    done = run("train", ZIP_URL, "--name", "my-dress", *options, sleep=interrupt)
    assert done.stderr.splitlines()[-4:] == [
        "train_1 goes on",
        "to look: imageloom train train_1",
        "to stop it: imageloom tasks cancel train_1",
        "and to publish its last checkpoint then: --keep",
    ]
    assert (done.exit_code, server.trainings.trainings["train_1"]["status"]) == (130, "pending")
    assert (json.loads(done.stdout)["id"] == "train_1") if options else not done.stdout


def test_timeout_says_that_it_goes_on(run: Run) -> None:
    done = run("train", ZIP_URL, "--name", "my-dress", "--timeout", "0.5")
    assert done.stderr.endswith("; it goes on: imageloom train train_1\n")
    assert done.exit_code == 1


# --- the other commands


def test_tasks_show_tells_how_a_training_goes(run: Run) -> None:
    run("train", ZIP_URL, "--name", "my-dress", "--no-wait")
    before, lines = (run("tasks", "show", "train_1").stdout.splitlines() for _ in range(2))
    assert before[0] == "id        train_1"
    assert lines[len(before) :] == [
        "training  epoch 1/2, step 1/8, loss 1.0000, 3.2 images/s, 84 s left"
    ]


@pytest.mark.parametrize(
    ("reads", "stdout", "stderr"),
    [
        (1, f"my-dress  version 1  {ADAPTER_URL}\n", HOW_TO_USE + "\n"),
        (0, "train_1 cancelled\n", "it had no checkpoint to keep\n"),
    ],
)
def test_cancel_keeps_the_last_checkpoint_where_there_is_one(
    run: Run, server: FakeServer, reads: int, stdout: str, stderr: str
) -> None:
    client = server.client()
    training = client.train(ZIP_URL, name="my-dress")
    for _ in range(reads):
        training.refresh()
    done = run("tasks", "cancel", "train_1", "--keep")
    assert (done.stdout, done.stderr, done.exit_code) == (stdout, stderr, 0)


def test_cancel_without_keep_keeps_nothing(run: Run, server: FakeServer) -> None:
    server.client().train(ZIP_URL, name="my-dress").refresh()
    assert run("tasks", "cancel", "train_1").stdout == "train_1 cancelled\n"
    assert server.trainings.adapters == {}


def test_keep_is_for_trainings(run: Run, server: FakeServer) -> None:
    server.client().generate("a dress")
    done = run("tasks", "cancel", "task_1", "--keep")
    assert (done.exit_code, server.tasks["task_1"]["status"]) == (2, "pending")


def test_result_of_a_training_is_its_adapter(run: Run, server: FakeServer) -> None:
    server.client().train(ZIP_URL, name="my-dress")
    done = run("tasks", "result", "train_1")
    assert done.stderr == "error: training train_1 is running, at 0%: it published no adapter\n"
    assert done.exit_code == 1
    server.client().training("train_1").wait()
    done = run("tasks", "result", "train_1", "--out", "made")
    assert done.stdout == "made/my-dress.safetensors\nmade/sample_8_0.jpg\n"


# --- plain lines


def test_lines_are_told_at_each_twentieth_and_sample(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _training_display.Lines()
    training = standing(server)
    for step in range(1201):
        training.raw["progress"] = step / 1200
        training.raw["output"]["metrics"]["step"] = step
        drawn = [{"url": f"{CDN}/{done}", "step": done} for done in (400, 800) if done <= step]
        training.raw["output"]["samples"] = drawn
        lines.changed(training)
    first, *told = capsys.readouterr().err.splitlines()
    assert first == "train_1 my-dress [31m running"
    steps = [line.split(", ")[1] for line in told if line.startswith("epoch")]
    assert steps == [f"step {step}/1200" for step in range(60, 1201, 60)]
    assert [line for line in told if not line.startswith("epoch")] == [
        f"sample after {step} steps: {CDN}/{step}" for step in (400, 800)
    ]


# --- the living view


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def standing(server: FakeServer, **metrics: Any) -> Training:
    """Return a training of which 540 of 1200 steps are done."""
    training: Training = server.client().train(ZIP_URL, name="my-dress\x1b[31m")
    known = {
        "current_epoch": 45,
        "epochs": 100,
        "step": 540,
        "steps": 1200,
        "loss": 0.02312,
        "held_out_loss": 0.0251,
        "images_per_second": 3.2,
        "eta_seconds": 100.2,
    }
    training.raw |= {"status": "running", "progress": 0.45}
    training.raw["output"]["metrics"] = known | metrics
    return training


def view_of(width: int) -> tuple[_training_display.TrainingView, Console, Terminal]:
    terminal = Terminal()
    console = Console(file=terminal, width=width, force_terminal=True, color_system=None)
    clock = iter([0.0, 83.2, 84.2]).__next__
    return _training_display.TrainingView(console, clock=clock, fetch=refuse), console, terminal


def refuse(url: str) -> bytes | None:
    raise AssertionError(f"{url} is not asked for where it cannot be shown")


def losses(count: int) -> httpx.Response:
    items = [{"step": step, "loss": math.exp(-step / 100)} for step in range(1, count + 1)]
    return httpx.Response(200, json={"items": items})


@pytest.mark.parametrize("width", [60, 80, 120])
def test_view_shows_curve_and_numbers_in_the_width_there_is(server: FakeServer, width: int) -> None:
    view, console, terminal = view_of(width)
    training = standing(server)
    server.next = [losses(540)]
    view.changed(training)
    console.print(view.drawn())
    above, *lines = (line.rstrip() for line in terminal.getvalue().splitlines())
    head, drawn, numbers = lines
    assert above == "train_1"
    assert head.split() == ["⠋", "my-dress", "[31m", "running", "45%", "83", "s"]
    assert drawn.endswith("  loss 0.0231  held out 0.0251")
    blocks = drawn.split()[0]
    assert (blocks[0], blocks[-1]) == ("█", "▁")
    assert len(blocks) == min(40, width - 34)
    assert numbers == "  epoch 45/100  step 540/1200  3.2 images/s  1 min 40 s left"
    assert max(len(line) for line in (head, drawn, numbers)) <= width


def test_view_is_a_head_alone_before_the_first_step(server: FakeServer) -> None:
    view, console, terminal = view_of(80)
    console.print(view.drawn())
    view.changed(server.client().train(ZIP_URL, name="my-dress"))
    console.print(view.drawn())
    assert terminal.getvalue().split() == ["train_1", "⠋", "my-dress", "pending", "0%", "83", "s"]


def test_view_says_what_goes_on_before_the_first_step(server: FakeServer) -> None:
    view, console, terminal = view_of(80)
    training = standing(server, step=0, loss=None)
    view.changed(training)
    console.print(view.drawn())
    assert terminal.getvalue().splitlines()[-1].strip() == _training_display.BEFORE_STEPS


@pytest.mark.parametrize("width", [24, 40])
def test_view_keeps_its_sign_where_there_is_little_room(server: FakeServer, width: int) -> None:
    view, console, terminal = view_of(width)
    training = standing(server)
    training.raw |= {"status": "completed", "progress": 1.0}
    training.raw["params"] = {"output_name": "a-dress-with-a-very-long-name"}
    server.next = [losses(540)]
    view.changed(training)
    console.print(view.drawn())
    head, *lines = terminal.getvalue().splitlines()[1:]
    assert head.startswith("✓ a-dress-with-")
    assert max(map(len, [head, *lines])) <= width


# --- the newest sample in a terminal of colours


def sample_png(*, size: tuple[int, int] = (64, 64)) -> bytes:
    """Red above, blue below."""
    image = Image.new("RGB", size, "red")
    image.paste("blue", (0, size[1] // 2, *size))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def coloured_view(
    server: FakeServer, data: bytes | None, *, height: int = 40, colours: str = "truecolor"
) -> tuple[list[str], list[str]]:
    """Show a training with a sample; return what was fetched and the lines of blocks drawn."""
    fetched: list[str] = []

    def fetch(url: str) -> bytes | None:
        fetched.append(url)
        return data

    terminal = Terminal()
    console = Console(
        file=terminal,
        width=80,
        height=height,
        force_terminal=True,
        color_system=colours,  # type: ignore[arg-type]
        legacy_windows=False,
    )
    view = _training_display.TrainingView(console, clock=lambda: 0.0, fetch=fetch)
    training = standing(server)
    training.raw["output"]["samples"] = [{"url": f"{CDN}/new", "step": 400}]
    server.next = [losses(540)]
    for _ in range(2):
        view.changed(training)
    console.print(view.drawn())
    return fetched, [line for line in terminal.getvalue().splitlines() if "▀" in line]


def test_newest_sample_is_drawn_in_half_blocks(server: FakeServer) -> None:
    fetched, lines = coloured_view(server, sample_png())
    assert fetched == [f"{CDN}/new"]
    assert [line.count("▀") for line in lines] == [28] * 14
    red, blue = "38;2;255;0;0;48;2;255;0;0m", "38;2;0;0;255;48;2;0;0;255m"
    assert red in lines[0]
    assert blue not in lines[0]
    assert blue in lines[-1]
    assert red not in lines[-1]


def test_sample_keeps_its_proportions_and_leaves_room(server: FakeServer) -> None:
    _, wide = coloured_view(server, sample_png(size=(512, 128)))
    assert [line.count("▀") for line in wide] == [78] * 10
    _, low = coloured_view(server, sample_png(), height=22)
    assert [line.count("▀") for line in low] == [20] * 10


@pytest.mark.parametrize("options", [{"height": 18}, {"colours": "256"}, {"colours": "standard"}])
def test_sample_is_not_fetched_where_it_cannot_be_shown(
    server: FakeServer, options: dict[str, Any]
) -> None:
    assert coloured_view(server, sample_png(), **options) == ([], [])


@pytest.mark.parametrize("data", [None, b"", b"no picture", sample_png()[:80]])
def test_sample_that_cannot_be_had_leaves_the_rest(server: FakeServer, data: bytes | None) -> None:
    assert coloured_view(server, data) == ([f"{CDN}/new"], [])


def test_view_of_a_training_that_is_over_has_its_sign(server: FakeServer) -> None:
    view, console, terminal = view_of(80)
    view.changed(server.client().train(ZIP_URL, name="my-dress").wait())
    console.print(view.drawn())
    assert "✓ my-dress  completed 100%" in terminal.getvalue()


def test_view_prints_each_sample_once_and_in_one_piece(server: FakeServer) -> None:
    view, _, terminal = view_of(80)
    training = standing(server)
    samples = [
        {"url": f"{CDN}/{step}-{index}?signature={'ab12' * 30}", "step": step}
        for step in (200, 400)
        for index in (0, 1)
    ]
    server.next = [losses(540)]
    for count in (2, 2, 4, 4):
        training.raw["output"]["samples"] = samples[:count]
        view.changed(training)
    assert terminal.getvalue().splitlines()[1:] == [
        f"sample after {each['step']} steps: {each['url']}" for each in samples[::2]
    ]


def test_losses_are_asked_for_at_most_once_a_column(server: FakeServer) -> None:
    curve = _training_display.LossCurve()
    training = standing(server)
    before = len(server.requests)
    for step in range(1201):
        training.raw["output"]["metrics"]["step"] = step
        server.next = [losses(step)]
        curve.take(training)
    assert len(server.requests) - before == 40
    assert len(curve.losses) == 1200
    training.raw["status"] = "completed"
    curve.take(training)
    assert len(server.requests) - before == 40


def test_last_losses_are_asked_for_at_the_end(server: FakeServer) -> None:
    curve = _training_display.LossCurve()
    training = standing(server)
    for step, status in ((1180, "running"), (1181, "running"), (1182, "completed")):
        training.raw["status"] = status
        training.raw["output"]["metrics"]["step"] = step
        server.next = [losses(step)]
        curve.take(training)
    assert len(curve.losses) == 1182
    assert len(server.requests) == 3


def test_losses_that_cannot_be_read_leave_the_curve_as_it_was(server: FakeServer) -> None:
    curve = _training_display.LossCurve()
    training = standing(server)
    server.next = [refusal(500, "internal_error", "no")]
    curve.take(training)
    assert curve.losses == []
    server.next = [losses(540)]
    curve.take(training)
    assert len(curve.losses) == 540


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 8, ""),
        ([0.5], 8, "▁"),
        ([0.5, 0.5, 0.5], 8, "▁▁▁"),
        ([7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 8, "█▇▆▅▄▃▂▁"),
        ([3.0, 1.0, 1.0, 1.0, 0.0, 0.0], 3, "█▅▁"),
        ([0.0] * 999 + [1.0], 4, "▁▁▁█"),
    ],
)
def test_curve_is_means_from_lowest_to_highest(values: list[float], width: int, drawn: str) -> None:
    assert _training_display.curve(values, width=width) == drawn


def test_view_lives_and_stays(server: FakeServer) -> None:
    _, console, terminal = view_of(80)
    with _training_display.view_on(console) as view:
        view.changed(server.client().train(ZIP_URL, name="my-dress"))
    assert "my-dress  pending" in terminal.getvalue()


def test_display_fits_where_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds, uploads = [], []
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setattr("sys.stderr", stream)
        for as_json in (False, True):
            with _training_display.training_shown(as_json=as_json) as display:
                kinds.append(type(display).__name__)
            before = len(stream.getvalue())
            with _training_display.upload_shown(as_json=as_json) as told:
                told(65_536, 1_234_000)
                told(1_234_000, 1_234_000)
            uploads.append(stream.getvalue()[before:])
    assert kinds == ["Lines", "Silence", "TrainingView", "Silence"]
    assert (uploads[0], uploads[1], uploads[3]) == ("uploaded 1.2 MB\n", "", "")
    assert "1.2/1.2 MB" in uploads[2]
