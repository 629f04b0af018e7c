"""Figures: readable, in one look an order, and no more of them than there is to show."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kept import RECORD, changed, only, setting
from matplotlib.figure import Figure

from orderbench.reports import canvas, figures, queries
from orderbench.reports.canvas import ONE_COLUMN, SMALLEST, TWO_COLUMNS, Sheet, looks_of
from orderbench.reports.figures import PLOTS, Plot
from orderbench.reports.queries import pareto
from orderbench.reports.results import Results, results_of
from orderbench.reports.table import to_csv, to_latex, to_markdown
from orderbench.reports.tables import tables_of
from orderbench.runs.record import Run, load_run


@pytest.mark.parametrize(
    ("kinds", "arms", "drawn"),
    [
        (("latency",), (), {"speedups", "latency-by-step", "cells-over-time", "memory", "orders"}),
        (("likelihood",), (), {"bits-by-steps", "bits-by-image", "tax", "orders"}),
        (("likelihood",), ("raster",), {"bits-by-steps", "orders"}),
        (("quality",), ("radial",),
         {"fd-by-steps", "kd-by-steps", "agreement-by-steps", "orders", "samples"}),
        (("floor",), (), {"orders", "samples"}),
        (("repair",), (), {"repair", "orders"}),
        (("quality", "latency"), ("radial+nested",),
         {"fd-by-steps", "kd-by-steps", "agreement-by-steps", "fd-by-latency", "fd-by-throughput", "speedups",
          "latency-by-step", "cells-over-time", "memory", "changes-by-ring", "changes-by-cell", "orders", "samples"}),
    ],
)  # fmt: skip
def test_a_run_that_measured_less_has_fewer_figures(
    record: Run, kinds: tuple[str, ...], arms: tuple[str, ...], drawn: set[str]
) -> None:
    results = results_of(only(record, *kinds, arms=arms))
    assert {plot.name for plot in PLOTS if plot.draw(results, Sheet()) is not None} == drawn
    assert [to_latex(table) + to_markdown(table) + to_csv(table) for table in tables_of(results)]


def test_pictures_that_are_gone_are_left_out(record: Run, tmp_path: Path) -> None:
    shutil.copytree(RECORD, tmp_path / "run")
    for file in (tmp_path / "run" / "data").glob("*pictures*"):
        file.unlink()
    results = results_of(load_run(tmp_path / "run"))
    draws = {plot.name: plot.draw for plot in PLOTS}
    assert draws["samples"](results, Sheet()) is None
    assert draws["orders"](results, Sheet()) is not None


@pytest.fixture(scope="module", params=[ONE_COLUMN, TWO_COLUMNS])
def drawn(results: Results, request: pytest.FixtureRequest) -> list[tuple[Plot, Figure]]:
    """All figures of the kept record, at one width."""
    sheet = Sheet(request.param, looks_of([results]))
    return [(plot, figure) for plot in PLOTS if (figure := plot.draw(results, sheet)) is not None]


def test_figures_are_readable_and_say_what_they_rest_on(results: Results, drawn: list[tuple[Plot, Figure]]) -> None:
    for plot, figure in drawn:
        assert figure.get_figwidth() in (ONE_COLUMN, TWO_COLUMNS)
        frame = figure.bbox.padded(1)
        said = []
        ticks = {
            id(tick.label1)
            for axes in figure.axes
            for axis in (axes.xaxis, axes.yaxis)
            for tick in (*axis.majorTicks, *axis.minorTicks)
        }  # those beyond the axes are never drawn
        for text in figure.findobj(lambda artist: hasattr(artist, "get_fontsize")):
            if text.get_text() and text.get_visible():
                assert text.get_fontsize() >= SMALLEST
                said.append(text.get_text())
                box = text.get_window_extent()
                if id(text) not in ticks:
                    assert frame.x0 <= box.x0, (plot.name, text.get_text())
                    assert box.x1 <= frame.x1, (plot.name, text.get_text())
        if plot.name.startswith(("fd", "kd", "agreement", "changes")):
            assert "n = 48 x 2 seeds: a first look" in said
            assert any(results.space in word for word in said if results.space)
        if plot.name in ("bits-by-steps", "tax", "repair"):
            assert any("held-out images" in word and "n = " in word for word in said)


def test_labels_do_not_cover_each_other(drawn: list[tuple[Plot, Figure]]) -> None:
    for plot, figure in drawn:
        if plot.section == "samples":
            continue
        boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts if text.get_text()]
        for place, one in enumerate(boxes):
            assert not any(one.overlaps(other) for other in boxes[:place]), plot.name


def test_solid_is_without_correction_and_hollow_with(results: Results) -> None:
    figure = figures.quality_by_steps("fd")(results, Sheet())
    assert figure is not None
    (axes,) = figure.axes
    look = looks_of([results])["radial"]
    fills = {line.get_markerfacecolor() for line in axes.lines if line.get_gid() == f"o{look.number}" and
             line.get_marker() == look.marker}  # fmt: skip
    assert fills == {look.color, "white"}
    assert {"real images", "reconstructed", "noise codes"} <= {text.get_text() for text in axes.texts}


def test_orders_keep_their_look_and_none_share_one(results: Results) -> None:
    looks = looks_of([results])
    assert looks[results.row("raster").about["order"]].color == canvas.COLORS[0]
    assert len({(look.color, look.marker) for look in looks.values()}) == len(looks)
    many = {f"order{i}": canvas.Look(i, canvas.COLORS[i % 7], canvas.MARKERS[i % 8]) for i in range(56)}
    assert len({(look.color, look.marker) for look in many.values()}) == 56


def test_pareto_keeps_what_nothing_beats() -> None:
    assert pareto([(1, 3), (2, 2), (3, 3), (3, 1), (1, 4)]) == [0, 1, 3]
    assert pareto([(1, 1), (1, 1)]) == [0, 1]


def test_samples_side_by_side_have_one_seed(record: Run, one_seed_less: Run) -> None:
    assert queries.shown_seed(results_of(record), "quality") == 0
    results = results_of(one_seed_less)
    assert queries.shown_seed(results, "quality") == 1
    for arm in ("raster", "radial"):
        trial = next(t for t in record.done("quality") if (t["arm"], t["seed"]) == (arm, 1))
        shown = queries.pictures_of(results, "quality", arm)
        assert shown is not None
        assert np.array_equal(shown, record.arrays(trial["trial"], "pictures")["images_Nhwc"])


def test_memory_counts_the_cache_of_both_branches(record: Run) -> None:
    def widest(run: Run) -> float:
        figure = figures.memory(results_of(run), Sheet())
        assert figure is not None
        return max(float(line.get_xdata()[0]) for line in figure.axes[0].lines if len(line.get_xdata()) == 2)  # type: ignore[index, arg-type]

    assert widest(changed(record, "guided", setting)) == pytest.approx(2 * widest(record))


def test_maps_that_find_no_room_are_counted(record: Run) -> None:
    results = results_of(record)
    row = results.row("radial+nested")
    many = replace(results, arms=(*results.arms, *[row] * 7))
    figure = figures.changes_by_cell(many, Sheet())
    assert figure is not None
    assert "2 more arms are not shown" in " ".join(text.get_text() for text in figure.texts)


def test_bits_by_image_are_paired_with_the_baselines(record: Run, results: Results) -> None:
    bits = {t["arm"]: record.arrays(t["trial"], "bits")["bits_N"].astype(float) for t in record.done("likelihood")}
    found = {row.arm: apart_N for row, apart_N in queries.bits_apart(results)}
    assert found.keys() == bits.keys() - {"raster"}
    figure = figures.bits_by_image(results, Sheet())
    assert figure is not None
    (axes,) = figure.axes
    looks = looks_of([results])
    for place, (arm, apart_N) in enumerate(found.items()):
        assert apart_N.mean() == pytest.approx(results.row(arm).against["bits"].value)
        assert np.array_equal(apart_N, bits[arm] - bits["raster"])
        gid = f"o{looks[results.row(arm).about['order']].number}"
        medians = [line.get_xdata()[0] for line in axes.lines  # type: ignore[index]
                   if line.get_gid() == gid and round(float(np.mean(line.get_ydata()))) == place]  # type: ignore[arg-type]  # fmt: skip
        assert medians == [pytest.approx(np.median(apart_N))]
    assert queries.bits_apart(results_of(only(record, "likelihood", arms=("radial",)))) == []
