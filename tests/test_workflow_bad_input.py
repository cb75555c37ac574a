"""Workflows that cannot run are refused before anything of them is written, by name."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api_helpers import picture, refusal
from imageloom.core.services import Services
from imageloom.settings import Limits
from workflow_helpers import IMAGE_URL, STEPS, made, said, step

UPSCALE = {"operation": "upscale"}


def processing(config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "p", "type": "processing", "config": config, **fields}


def with_step(**fields: Any) -> list[dict[str, Any]]:
    return [step("a"), {**step("b", "a"), **fields}]


CYCLE = [step("a", "c"), step("b", "a"), step("c", "b"), step("d")]
BAD_STEPS: list[tuple[str, list[Any], str, str]] = [
    ("a cycle", CYCLE, "steps", "a -> c -> b -> a"),
    ("itself", [step("a", "a")], "steps.0.depends_on", "depends on itself"),
    ("unknown dependency", [step("a"), step("b", "x")], "steps.1.depends_on", "no step 'x'"),
    ("twice", [step("a"), step("b", "a", "a")], "steps.1.depends_on", "twice"),
    ("duplicate name", [step("a"), step("a")], "steps.1.name", "already a step 'a'"),
    ("empty name", [step("")], "steps.0.name", "at least 1 character"),
    ("blank name", [step(" ")], "steps.0.name", "pattern"),
    ("long name", [step("x" * 65)], "steps.0.name", "at most 64"),
    ("no name", [{"type": "generation", "config": {"prompt": "x"}}], "steps.0.name", "required"),
    ("two names", [{**step("a"), "id": "b"}], "steps.0.id", "give one of them"),
    ("no steps", [], "steps", "at least 1"),
    ("ten thousand steps", [step(f"s{i}") for i in range(10_000)], "steps", "at most 100"),
    ("not a step", ["generate"], "steps.0", "dictionary"),
    ("no type", [{"name": "a"}], "steps.0.type", "required"),
    ("unknown type", [{**step("a"), "type": "training"}], "steps.0.type", "generation, processing"),
    ("unknown field", [{**step("a"), "confg": {}}], "steps.0.confg", "did you mean config"),
    ("no config", [{"name": "a", "type": "generation"}], "steps.0.config.prompt", "required"),
    (
        "unknown field of a config",
        with_step(config={"operation": "adjust", "brightnes": 1.0, "contrast": 1.0}),
        "steps.1.config.brightnes",
        "did you mean brightness",
    ),
    ("no operation", with_step(config={}), "steps.1.config.operation", "one of upscale"),
    (
        "unknown operation",
        with_step(config={"operation": "rotate"}),
        "steps.1.config.operation",
        "'rotate'",
    ),
    ("scale 3", with_step(config={**UPSCALE, "scale": 3}), "steps.1.config.scale", "found 3"),
    ("priority", with_step(config={**UPSCALE, "priority": 11}), "steps.1.config.priority", "11"),
    ("scale 64", with_step(config={**UPSCALE, "scale": 64}), "steps.1.config.scale", "found 64"),
    (
        "unknown model",
        with_step(config={**UPSCALE, "model": "none"}),
        "steps.1.config.model",
        "no model 'none'",
    ),
    (
        "a model of another kind",
        with_step(config={**UPSCALE, "model": "grabcut"}),
        "steps.1.config.model",
        "segmenter",
    ),
    (
        "a URL that cannot be fetched",
        with_step(config={**UPSCALE, "input_image_url": "http://127.0.0.1/x.png"}),
        "steps.1.config.input_image_url",
        "127.0.0.1",
    ),
    (
        "a picture inside our storage",
        with_step(config={**UPSCALE, "input_image_url": "output:outputs/t/1/0.png"}),
        "steps.1.config.input_image_url",
        "",
    ),
    (
        "retries without end",
        with_step(retry={"max_attempts": 21}),
        "steps.1.retry.max_attempts",
        "20",
    ),
    (
        "a backoff of a day",
        with_step(retry={"backoff_seconds": 86_400}),
        "steps.1.retry.backoff_seconds",
        "3600",
    ),
    ("cache as text", with_step(cache="no"), "steps.1.cache", "boolean"),
    (
        "a mapping from nowhere",
        with_step(input_mappings={"brightness": "steps.z.images"}),
        "steps.1.input_mappings.brightness",
        "names no step that comes before",
    ),
    (
        "a mapping from a step beside",
        [step("a"), step("b"), {**step("c", "a"), "input_mappings": {"image_url": "steps.b"}}],
        "steps.2.input_mappings.image_url",
        "names no step that comes before",
    ),
    (
        "a mapping to a parameter that is none",
        with_step(input_mappings={"brightnes": "steps.a.images[0].width"}),
        "steps.1.config.brightnes",
        "no such field",
    ),
    (
        "a picture for a number",
        with_step(input_mappings={"brightness": "steps.a.images[0]"}),
        "steps.1.input_mappings.brightness",
        "takes no picture",
    ),
    (
        "a picture that will not be there",
        with_step(input_mappings={"input_image_url": "steps.a.images[1]"}),
        "steps.1.input_mappings.input_image_url",
        "makes 1 pictures",
    ),
    (
        "an approval of nothing",
        [{"name": "a", "type": "approval"}],
        "steps.0.depends_on",
        "name one",
    ),
    (
        "an approval with half a timeout",
        [step("a"), {"name": "b", "type": "approval", "depends_on": ["a"],
                     "config": {"timeout_seconds": 60}}],
        "steps.1.config.default",
        "both or neither",
    ),
    (
        "an approval that waits a second",
        [step("a"), {"name": "b", "type": "approval", "depends_on": ["a"],
                     "config": {"timeout_seconds": 1, "default": "all"}}],
        "steps.1.config.timeout_seconds",
        "10",
    ),
    (
        "a fan-out that is too large",
        [
            {"name": f"g{level}", "type": "generation", "depends_on": parents,
             "config": {"prompt": "x", "num_outputs": 16}}
            for level, parents in enumerate([[], ["g0"], ["g1"], ["g2"]])
        ],
        "steps",
        "with 'g3' a run has 4369 tasks and 69904 pictures, over the limit of 10000",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "param", "text"),
    [case[1:] for case in BAD_STEPS],
    ids=[case[0] for case in BAD_STEPS],
)
async def test_a_workflow_that_cannot_run_is_refused_by_name(
    tenant: httpx.AsyncClient, steps: list[Any], param: str, text: str
) -> None:
    answer = await tenant.post("/workflows", json={"name": "bad", "steps": steps})
    assert refusal(answer)[0] == 422
    assert refusal(answer)[2] == param
    assert text in answer.json()["error"]["message"]
    assert (await tenant.get("/workflows")).json()["total"] == 0


BAD_BODIES: list[tuple[dict[str, Any], str]] = [
    ({"steps": STEPS}, "name"),
    ({"name": "", "steps": STEPS}, "name"),
    ({"name": "x"}, "steps"),
    ({"name": "x", "steps": {}}, "steps"),
    ({"name": "x", "steps": STEPS, "stpes": []}, "stpes"),
    ({"name": "x", "steps": STEPS, "input": {"image": IMAGE_URL}}, "input.image"),
    ({"name": "x", "steps": STEPS, "input": {"image_url": 1}}, "input.image_url"),
    ({"name": "x", "steps": STEPS, "input": {"image_url": None}}, "input.image_url"),
    ({"name": "x", "steps": STEPS, "input": {"image_urls": IMAGE_URL}}, "input.image_urls"),
    ({"name": "x", "steps": STEPS, "input": {"image_urls": [1]}}, "input.image_urls"),
    ({"name": "x", "steps": STEPS, "input": {"image_url": "ftp://x/y"}}, "input.image_url"),
]


@pytest.mark.parametrize(("body", "param"), BAD_BODIES)
async def test_a_bad_body_is_refused_by_name(
    tenant: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    answer = await tenant.post("/workflows", json=body)
    assert refusal(answer)[0] == 422
    assert refusal(answer)[2] == param


@pytest.mark.parametrize("query", ["start=yes", "dry=true"])
async def test_a_query_that_is_not_understood_is_refused(
    tenant: httpx.AsyncClient, query: str
) -> None:
    answer = await tenant.post(f"/workflows?{query}", json={"name": "x", "steps": STEPS})
    assert refusal(answer)[::2] == (422, query.partition("=")[0])


FIRST = [processing(UPSCALE)]
BAD_STARTS: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
    (FIRST, {}, "input.image_url"),
    (FIRST, {"input": {}}, "input.image_url"),
    (FIRST, {"input": {"image_url": "http://10.0.0.1/x.png"}}, "input.image_url"),
    (FIRST, {"input": {"image_url": IMAGE_URL, "strength": 1}}, "input.strength"),
    (FIRST, {"inputs": {"image_url": IMAGE_URL}}, "inputs"),
    (FIRST, {"input": [IMAGE_URL]}, "input"),
    (FIRST, {"input": {"image_url": IMAGE_URL}, "cache": 1}, "cache"),
    (
        [processing(UPSCALE, input_mappings={"scale": "input.scale"})],
        {"input": {"image_url": IMAGE_URL, "scale": 3}},
        "steps.0.config.scale",
    ),
    (
        [processing(UPSCALE, input_mappings={"scale": "input.scale"})],
        {"input": {"image_url": IMAGE_URL}},
        "steps.0.input_mappings.scale",
    ),
]


@pytest.mark.parametrize(("steps", "body", "param"), BAD_STARTS)
async def test_a_start_that_does_not_fit_is_refused_and_can_be_put_right(
    tenant: httpx.AsyncClient, steps: list[dict[str, Any]], body: dict[str, Any], param: str
) -> None:
    workflow = await made(tenant, *steps)
    for verb in ("start", "runs"):
        answer = await tenant.post(f"/workflows/{workflow['id']}/{verb}", json=body)
        assert refusal(answer)[0] == 422, verb
        assert refusal(answer)[2] == param, verb
    good = {"input": {"image_url": IMAGE_URL}}
    if "input_mappings" in steps[0]:
        good["input"]["scale"] = 4  # type: ignore[assignment]
    assert (await said(tenant, workflow, "start", good))["run"]["number"] == 1


async def test_a_run_is_priced_by_what_it_starts_with(tenant: httpx.AsyncClient) -> None:
    steps = [
        {"name": "a", "type": "generation", "config": {"prompt": "x", "num_outputs": 16}},
        {**step("b", "a"), "type": "generation", "config": {"prompt": "x", "num_outputs": 16}},
    ]
    workflow = await made(tenant, *steps)
    urls = [IMAGE_URL] * 50  # 50 x 16 x 16 pictures
    answer = await tenant.post(
        f"/workflows/{workflow['id']}/start", json={"input": {"image_urls": urls}}
    )
    assert refusal(answer)[::2] == (422, "steps")
    assert "over the limit of 10000" in answer.json()["error"]["message"]


async def test_an_operator_can_lower_what_a_run_may_cost(
    api: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(services.settings), "limits", Limits(run_tasks=5), raising=False)
    object.__setattr__(services.settings, "limits", Limits(run_tasks=5))
    answer = await api.post("/workflows", json={"name": "x", "steps": STEPS})
    assert refusal(answer)[::2] == (422, "steps")


async def test_the_file_of_another_tenant_is_no_input(
    tenant: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    url = (await stranger.post("/files", files={"file": picture()})).json()["url"]
    workflow = await made(tenant, *FIRST)
    answer = await tenant.post(
        f"/workflows/{workflow['id']}/start", json={"input": {"image_url": url}}
    )
    assert refusal(answer) == (422, "invalid_input", "input.image_url")
    body = {"name": "x", "steps": [processing({**UPSCALE, "input_image_url": url})]}
    answer = await tenant.post("/workflows", json=body)
    assert refusal(answer) == (422, "invalid_input", "steps.0.config.input_image_url")


async def test_a_body_that_is_no_json_is_refused(tenant: httpx.AsyncClient) -> None:
    workflow = await made(tenant, *FIRST)
    for verb in ("start", "runs", "resume"):
        answer = await tenant.post(f"/workflows/{workflow['id']}/{verb}", content=b"{")
        assert refusal(answer)[0] == 415, verb
    answer = await tenant.post("/workflows", content=b"{}")
    assert refusal(answer)[0] == 415
