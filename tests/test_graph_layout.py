"""Where the steps of generated workflows stand when they are drawn."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Page

from browser import Visitor

SEED = 20
NEAR = 0.1  # pixels: places are rounded to tenths

Layout = dict[str, Any]


@pytest.fixture
async def page(guest: Visitor) -> Page:
    await guest.page.goto(guest.url)
    return guest.page


@pytest.mark.parametrize("down", [False, True])
async def test_steps_do_not_overlap_and_edges_point_forward_around_them(
    page: Page, down: bool
) -> None:
    graphs = [generated(random.Random(SEED + size), size) for size in range(1, 70, 4)]
    for steps, laid in zip(graphs, await laid_out(page, graphs, down=down), strict=True):
        nodes = {node["name"]: node for node in laid["nodes"]}
        assert len(nodes) == len(steps) == len(laid["nodes"])
        for node in nodes.values():
            assert node["x"] >= 0
            assert node["y"] >= 0
            assert node["x"] + node["width"] <= laid["width"] + NEAR
            assert node["y"] + node["height"] <= laid["height"] + NEAR
        for one, other in itertools.combinations(nodes.values(), 2):
            assert not overlap(one, other), (one, other)
        wanted = {(parent, step["name"]) for step in steps for parent in step["depends_on"]}
        assert {(edge["from"], edge["to"]) for edge in laid["edges"]} == wanted
        for edge in laid["edges"]:
            assert nodes[edge["from"]]["layer"] < nodes[edge["to"]]["layer"]
            along = [point["y" if down else "x"] for point in edge["points"]]
            assert along == sorted(along)
            for name in nodes.keys() - {edge["from"], edge["to"]}:
                assert not any(overlap(spot, nodes[name]) for spot in spots(edge)), (edge, name)


async def test_a_chain_is_straight_and_a_fan_has_no_crossing(page: Page) -> None:
    chain = [step(str(index), *([str(index - 1)] if index else [])) for index in range(5)]
    # The arms are written in another order than their ends.
    fan = [step("a"), step("b", "a"), step("c", "a"), step("d", "c"), step("e", "b")]
    straight, spread = await laid_out(page, [chain, fan], down=False)
    assert len({node["y"] for node in straight["nodes"]}) == 1
    at = {node["name"]: node["y"] for node in spread["nodes"]}
    assert (at["b"] < at["c"]) == (at["e"] < at["d"])


def step(name: str, *parents: str) -> dict[str, Any]:
    return {"name": name, "depends_on": list(parents)}


def generated(dice: random.Random, size: int) -> list[dict[str, Any]]:
    """Return a graph of so many steps; each depends on up to three before it."""
    return [
        step(
            f"s{index}",
            *(f"s{each}" for each in dice.sample(range(index), min(index, dice.randrange(4)))),
        )
        for index in range(size)
    ]


async def laid_out(page: Page, graphs: list[list[dict[str, Any]]], *, down: bool) -> list[Layout]:
    found: list[Layout] = await page.evaluate(
        """async ({ graphs, down }) => {
             const { layout } = await import("/dashboard/js/graph.js");
             return graphs.map((steps) => layout(steps, { down }));
           }""",
        {"graphs": graphs, "down": down},
    )
    return found


def overlap(one: Layout, other: Layout) -> bool:
    return bool(
        one["x"] + NEAR < other["x"] + other["width"]
        and other["x"] + NEAR < one["x"] + one["width"]
        and one["y"] + NEAR < other["y"] + other["height"]
        and other["y"] + NEAR < one["y"] + one["height"]
    )


def spots(edge: Layout) -> Iterator[Layout]:
    """Yield where an edge runs straight through a layer that it passes."""
    inner = edge["points"][1:-1]
    for start, end in zip(inner[::2], inner[1::2], strict=True):
        yield {
            "x": start["x"],
            "y": start["y"],
            "width": end["x"] - start["x"] + 2 * NEAR,
            "height": end["y"] - start["y"] + 2 * NEAR,
        }
