"""Lattices: one grid, or a pyramid of them; and what orders, paces and plans make of a pyramid."""

import json

import numpy as np
import pytest

from orderbench.orders import (
    BenchError,
    Field,
    Grid,
    Plan,
    Pyramid,
    make_plan,
    order_names,
    parse_lattice,
    predicted_tax,
)
from orderbench.orders.contract import check_on, check_order
from orderbench.orders.lattice import lattice_from_json
from orderbench.orders.order import get_order
from orderbench.orders.pace import Pace

PYRAMID = Pyramid.parse("1/2/4/8")


def test_a_lattice_is_spelled_as_it_is_read() -> None:
    for text in ("16x12", "1/2/4/8", "1/2x3/4x6"):
        assert str(parse_lattice(text)) == text
        assert lattice_from_json(json.loads(json.dumps(parse_lattice(text).to_json()))) == parse_lattice(text)


def test_cells_of_a_pyramid_follow_level_by_level() -> None:
    coords = Pyramid.parse("1/2/2x3").coords
    assert coords[:, 0].tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert coords[5:].tolist() == [[2, 0, 0], [2, 0, 1], [2, 0, 2], [2, 1, 0], [2, 1, 1], [2, 1, 2]]
    parts = Pyramid.parse("1/2/2x3").split(np.arange(11))
    assert [part.shape for part in parts] == [(1, 1), (2, 2), (2, 3)]
    assert parts[2].tolist() == [[5, 6, 7], [8, 9, 10]]


@pytest.mark.parametrize("text", ["", "1/", "1//2", "1/0", "1/2/2000"])
def test_what_is_no_lattice_is_refused(text: str) -> None:
    with pytest.raises(BenchError):
        parse_lattice(text)


@pytest.mark.parametrize("value", [{"kind": "pyramid", "levels": [[1]]}, {"kind": "pyramid", "levels": 3}, {}, 7])
def test_what_is_no_lattice_in_json_is_refused(value: object) -> None:
    with pytest.raises(BenchError, match="is not a lattice"):
        lattice_from_json(value)


def test_scales_takes_a_level_a_step() -> None:
    assert make_plan("scales", PYRAMID).sizes == (1, 4, 16, 64)


def test_an_order_of_grids_is_lifted_level_by_level() -> None:
    plan = make_plan("radial", PYRAMID)
    by_level = [make_plan("radial", grid) for grid in PYRAMID.levels]
    assert plan.sizes == tuple(size for level in by_level for size in level.sizes)
    steps, before = PYRAMID.split(plan.step_of_cell()), 0
    for part, level in zip(steps, by_level, strict=True):
        assert (part.ravel() - before).tolist() == level.step_of_cell().tolist()
        before += level.n_steps


def test_every_order_serves_a_pyramid_or_says_why_not() -> None:
    for name in order_names():
        if get_order(name).sized:
            with pytest.raises(BenchError, match="built for step sizes on one grid and does not serve the pyramid"):
                make_plan(name, PYRAMID, "cosine:5")
        else:
            plan = make_plan(name, Pyramid.parse("2/4/8"), "cosine:5")
            assert sorted(plan.cells_for([0])[0].tolist()) == list(range(84))


def test_paces_of_one_grid_are_taken_level_by_level() -> None:
    assert Pace.parse("ear-shells").sizes(Pyramid.parse("1/2/3")) == (1, 1, 3, 1, 3, 5)
    assert Pace.parse("cosine:5").sizes(PYRAMID) == Pace.parse("cosine:5").sizes(Grid(1, 85))


def test_the_plan_of_a_pyramid_survives_json_with_its_digest() -> None:
    for order in ("scales", "random", "halton@cosine:6"):
        plan = make_plan(order, PYRAMID)
        assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert make_plan("scales", PYRAMID).digest != make_plan("scales", Pyramid.parse("1/2/8/4")).digest


def test_the_predicted_tax_of_a_pyramid_is_none_and_not_zero() -> None:
    assert predicted_tax(make_plan("scales", PYRAMID)) is None
    with pytest.raises(BenchError, match="says nothing of the pyramid 1/2/4/8"):
        Field().covariance(PYRAMID)


def test_a_level_of_regions_that_cannot_be_is_refused_as_on_a_grid() -> None:
    with pytest.raises(BenchError, match="does not divide a 1x1 grid"):
        make_plan("regions", PYRAMID)
    check_on("regions", Pyramid.parse("2/4"), [Pace("native"), Pace("even", 3)])


def test_scales_keeps_the_contract_of_orders() -> None:
    verdict = check_order("scales")
    assert verdict.findings == ()
    assert all(isinstance(lattice, Pyramid) for lattice in verdict.served)


@pytest.mark.parametrize("text", ["1/", "/", "1/a", "1//4"])
def test_a_pyramid_that_cannot_be_read_is_named_whole(text: str) -> None:
    with pytest.raises(BenchError) as refused:
        parse_lattice(text)
    assert str(refused.value) == (
        f"'{text}' is not a pyramid; give a side or ROWSxCOLS for each level, coarse to fine, as in --grid 1/2/4/8"
    )
