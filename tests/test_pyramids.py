"""Pyramids in reports: levels are drawn side by side, and a tax that nobody predicts is none, not zero."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kept import Text, changed, only, own
from PIL import Image
from rich.console import Console

from orderbench.orders import Field, make_plan, parse_lattice, predicted_tax
from orderbench.reports import figures, queries
from orderbench.reports.canvas import Sheet
from orderbench.reports.listing import print_plan
from orderbench.reports.maps import levels_beside, save_map
from orderbench.reports.page import place_of_cell, write_report
from orderbench.reports.results import results_of
from orderbench.reports.table import to_csv
from orderbench.reports.tables import tables_of
from orderbench.reports.terminal import step_map
from orderbench.runs.record import Run

PYRAMID = parse_lattice("1/2/4/8")
SIXTEEN = parse_lattice("2/2x6")  # as many cells as the kept record has


def test_levels_are_put_side_by_side() -> None:
    picture = levels_beside(PYRAMID, np.arange(PYRAMID.n_cells))
    assert picture.shape == (8, 18)
    assert int((~picture.mask).sum()) == PYRAMID.n_cells
    for level, left in enumerate((0, 2, 5, 10)):
        side = 2**level
        assert np.array_equal(picture[:side, left : left + side], PYRAMID.split(np.arange(PYRAMID.n_cells))[level])
        assert left + side == 18 or picture.mask[:, left + side].all()
    assert np.array_equal(picture.filled(-1).flat[place_of_cell(PYRAMID)], np.arange(PYRAMID.n_cells))
    grid = parse_lattice("3x4")
    assert not np.ma.is_masked(levels_beside(grid, np.arange(12)))
    assert place_of_cell(grid).tolist() == list(range(12))


@pytest.mark.parametrize("kind", ["png", "svg", "gif"])
def test_a_pyramid_is_mapped(kind: str, tmp_path: Path) -> None:
    plans = [(arm, make_plan(arm, PYRAMID)) for arm in ("scales", "raster@even:5")]
    file = save_map(tmp_path / f"map.{kind}", plans)
    if kind == "svg":
        assert "1/2/4/8" in file.read_text()
    else:
        with Image.open(file) as opened:
            picture = np.asarray(opened.convert("RGB"))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 4


def test_a_pyramid_in_a_terminal_is_one_block_a_level() -> None:
    plan = make_plan("scales", PYRAMID)
    blocks = step_map(plan, width=80).plain.rstrip("\n").split("\n\n")
    assert [block.split() for block in blocks] == [[str(level)] * 4**level for level in range(4)]
    console = Console(width=80, file=io.StringIO())
    print_plan(console, "scales", plan, Field(), 0, None)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1/2/4/8 pyramid, 4 steps" in shown
    assert "tax     none, since a field is of one grid" in shown


@pytest.fixture(scope="module")
def pyramid(record: Run) -> Run:
    """The kept record as if its cells lay on two levels."""

    def about(about: dict[str, Any]) -> None:
        own(about)["lattice"] = str(SIXTEEN)
        for arm in about["arms"]:
            plan = make_plan("scales" if arm["order"] != "raster" else "raster", SIXTEEN)
            arm.update(plan=plan.to_json(), plan_digest=plan.digest, n_steps=plan.n_steps, sizes=list(plan.sizes))
            arm.update(predicted_tax_bits=predicted_tax(plan))

    return changed(only(record, "quality", "likelihood", "floor", arms=("raster", "radial", "radial+nested")),
                   "pyramid", about)  # fmt: skip


@pytest.fixture(scope="module")
def html(pyramid: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report([pyramid], tmp_path_factory.mktemp("pyramid")).read_text()


def test_a_run_on_a_pyramid_has_its_page_and_figures(pyramid: Run, html: str) -> None:
    results = results_of(pyramid)
    assert queries.lattice(results, results.row("radial")) == SIXTEEN
    assert figures.changes_by_ring(results, Sheet()) is None  # rings are of one grid
    found = figures.changes_by_cell(results, Sheet())
    assert found is not None
    assert found.axes[0].images[0].get_array().shape == (2, 9)  # type: ignore[union-attr]
    words = " ".join(" ".join(Text(html).words).split())
    assert "2/2x6 cells" in words
    assert "2 on 2/2x6" in words
    places = re.search(r'"places": \[([0-9, ]+)\]', html)
    assert places is not None
    assert [int(place) for place in places[1].split(",")] == place_of_cell(SIXTEEN).tolist()


def test_a_tax_that_nobody_predicts_is_none_and_not_zero(pyramid: Run, html: str) -> None:
    results = results_of(pyramid)
    assert {row.predicted_tax for row in results.arms} == {None}
    assert figures.tax(results, Sheet()) is None
    quality = next(table for table in tables_of(results) if table.name == "quality")
    assert not any(column.key == "predicted_tax_bits" for column in quality.columns)
    assert "predicted" not in to_csv(quality)
    words = " ".join(" ".join(Text(html).words).split())
    assert "(none predicted)" in words
    assert "0.000 predicted" not in words
