"""Figures: readable, in one look an order, and no more of them than there is to show."""

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kept import RECORD, changed, only, own, setting, several
from matplotlib.figure import Figure

from orderbench.orders import Grid, common_pace, make_plan, order_names, parallel_tax, walk_tax
from orderbench.reports import figures, looks, queries
from orderbench.reports.canvas import ONE_COLUMN, SMALLEST, TWO_COLUMNS, Sheet, front_of, said, save_figure
from orderbench.reports.figures import PLOTS, Plot
from orderbench.reports.looks import looks_of, own_look
from orderbench.reports.queries import pareto, passes_words
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
    fills = {line.get_markerfacecolor() for line in axes.lines if line.get_gid() == "order:radial" and
             line.get_marker() == look.marker}  # fmt: skip
    assert fills == {look.color, "white"}
    assert {"real images", "reconstructed", "noise codes"} <= {text.get_text() for text in axes.texts}


def test_an_order_has_the_look_of_its_name_in_every_run(record: Run, results: Results) -> None:
    found = looks_of([results])
    fewer = looks_of([results_of(only(record, "latency", arms=("halton@cosine:4", "radial")))])
    for order, look in (*found.items(), *fewer.items()):
        assert (look.color, look.marker) == own_look(order)
    assert next(iter(found)) == "raster"  # the baseline's comes first, and that changes no look


def test_no_two_orders_share_a_look() -> None:
    names = [*order_names(), "confidence"]
    assert len({own_look(name) for name in names}) == len(names)
    assert all(name in looks._BUILT_IN for name in names)
    often = ["raster", "radial", "random", "halton", "designed", "spiral", "hilbert", "locality"]
    assert len({own_look(name)[0] for name in often}) == len({own_look(name)[1] for name in often}) == 8
    many = [*names, *(f"plugin-{i}" for i in range(30)), *(f"radial:width={i}" for i in range(2, 9))]
    found = looks.apart(many)
    assert len(set(found.values())) == len(many)
    assert found == looks.apart(many[::-1])
    assert all(found[name] == own_look(name) for name in names)
    wide = looks.apart([*names, *(f"radial:width={i}" for i in range(2, 8))])
    assert len({pair for order, pair in wide.items() if pair[0] == own_look("radial")[0]}) == 8  # with snake
    assert len(looks.apart([f"plugin-{i}" for i in range(100)])) == 100


def test_a_plugin_has_the_same_look_whoever_stands_beside_it() -> None:
    assert own_look("my-order") == looks.apart(["raster", "my-order", "radial"])["my-order"]
    assert own_look("my-order") not in {own_look(name) for name in order_names()}


def test_models_differ_by_dash_and_only_theirs(record: Run) -> None:
    results = results_of(several(record))
    dashes = looks.dashes_of(results)
    assert {line: dash == "-" for line, dash in dashes.items()} == {
        "raster": True, "radial": True, "radial+nested": True, "hilbert~par": False, "halton~par": False,
    }  # fmt: skip
    both = replace(results, arms=(*results.arms, replace(results.row("radial"), model="par", own=False)))
    assert looks.dashes_of(both)["radial~par"] == dashes["halton~par"] != "-"
    look = looks.line_look(looks_of([results]), results, results.row("radial+nested"))
    assert (look.hollow, look.color, look.gid) == (True, own_look("radial")[0], "order:radial")


def test_no_line_runs_where_nothing_was_measured(results: Results) -> None:
    def styles(n_steps: int) -> set[str]:
        few = replace(results.row("raster@even:4"), about={**results.row("raster@even:4").about, "n_steps": n_steps})
        figure = figures.quality_by_steps("fd")(replace(results, arms=(results.row("raster"), few)), Sheet())
        assert figure is not None
        joins = [line for line in figure.axes[0].lines if line.get_gid() == "order:raster" and line.get_zorder() == 2.8]
        assert all(len(line.get_xdata()) == 2 for line in joins)  # type: ignore[arg-type]
        return {str(line.get_linestyle()) for line in joins}

    assert styles(4) == {"-"}
    assert styles(3) == {"--"}  # more than four times as many steps: dots


def test_a_page_can_draw_the_front_again(results: Results, tmp_path: Path) -> None:
    for name, better in (("latency_s", "left"), ("images_per_s", "right")):
        figure = figures.quality_by_speed(name)(results, Sheet())
        assert figure is not None
        told = front_of(figure)
        assert told is not None
        assert told["better"] == better
        orders = [row.about["order"] for row in results.arms]
        assert sorted(point["order"] for point in told["points"]) == sorted(orders)
        sign = 1 if better == "left" else -1
        best = pareto([(sign * point["x"], -point["y"]) for point in told["points"]])
        corners = sorted((sign * told["points"][i]["x"], -told["points"][i]["y"]) for i in best)
        (line,) = (line for line in figure.axes[0].lines if line.get_gid() == "front")
        values = [(sign * row.figures[name].value, row.figures["fd"].value) for row in results.arms]
        assert len(corners) == len(pareto(values))
        assert len(line.get_xdata()) == 2 * len(corners) + 2  # type: ignore[arg-type]
        save_figure(figure, tmp_path / "front.svg")
        svg = (tmp_path / "front.svg").read_text()
        (found,) = re.findall(r'<g id="front" data-front="([^"]*)">\s*<path d="([^"]*)"', svg)
        assert json.loads(html.unescape(found[0])) == told
        drawn = [float(number) for number in re.findall(r"-?[0-9.]+", found[1])]
        x, ends = corners[0][0], drawn[-2:]
        assert (drawn[0], drawn[1]) == pytest.approx((sign * x, told["worst"][1]), abs=0.02)
        assert ends == pytest.approx([told["worst"][0], -corners[-1][1]], abs=0.02)
        assert 'id="front-label"' in svg or "Pareto front" in svg


def test_what_finds_no_place_stands_in_the_legend(results: Results) -> None:
    """Twenty-eight arms in one column: every line has its name and its numbers of steps, whatever fits."""
    few = [row for row in results.arms if not row.rewrites]
    many = [
        replace(row, arm=f"{order}@even:{steps}", about={**row.about, "order": order, "n_steps": steps})
        for order in order_names()[:14] for row, steps in zip(few, (8, 16), strict=False)
    ]  # fmt: skip
    figure = figures.quality_by_speed("latency_s")(replace(results, arms=tuple(many)), Sheet())
    assert figure is not None
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"{order}: 8, 16" for order in order_names()[:14]]
    assert {text.get_gid() for text in legend.get_texts()} == {f"order:{order}" for order in order_names()[:14]}
    (axes,) = figure.axes
    steps = [text.get_text() for text in axes.texts if text.get_text() in ("8", "16")]
    assert 0 < len(steps) < 28
    assert "Pareto front" in {text.get_text() for text in axes.texts}
    assert legend.get_window_extent().y1 < axes.get_tightbbox().y0  # type: ignore[union-attr]
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in legend.get_texts())


def test_many_curves_of_steps_have_a_panel_a_line(record: Run, results: Results) -> None:
    names = {row.arm: f"{row.arm}-again" for row in results.arms if row.arm.startswith("radial")}

    def about(about: dict[str, Any]) -> None:
        about["arms"] += [{**arm, "name": names[arm["name"]], "order": "spiral"} for arm in about["arms"]
                          if arm["name"] in names]  # fmt: skip

    def trial(trial: dict[str, Any]) -> None:
        for values in (trial.get("step_s", {}), trial.get("counters", {}), trial.get("flops_per_image") or {}):
            values.update({names[name]: value for name, value in list(values.items()) if name in names})
        for one in trial.get("rounds", []):
            one += [{**sample, "name": names[sample["name"]]} for sample in one if sample["name"] in names]

    many = results_of(changed(only(record, "latency"), "many", about, trial))
    figure = figures.latency_by_step(many, Sheet())
    assert figure is not None
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title("left") for axes in shown] == list(dict.fromkeys(row.line for row in many.arms))
    assert sum(bool(axes.get_xlabel()) for axes in shown) == 2  # below each column
    ends = sorted(text.get_text() for axes in shown for text in axes.texts)
    assert ends == sorted(str(row.about["n_steps"]) for row in many.arms)


def test_figures_of_single_steps_say_how_many_passes_there_were(record: Run, results: Results) -> None:
    def cut(trial: dict[str, Any]) -> None:
        trial.update(step_s={name: passes[:1] for name, passes in trial.get("step_s", {}).items()})

    quick = results_of(changed(only(record, "latency"), "quick", trial=cut))
    assert (passes_words(quick), passes_words(results)) == ("one pass", "median of 3 passes")


def test_hollow_means_correction_in_every_figure(results: Results, drawn: list[tuple[Plot, Figure]]) -> None:
    for plot, figure in drawn:
        fills = {
            line.get_markerfacecolor() for axes in figure.axes for line in axes.lines
            if line.get_gid() == "order:radial" and line.get_marker() not in ("None", "", "|")
        }  # fmt: skip
        color, alone = own_look("radial")[0], plot.name in ("repair", "changes-by-ring")
        assert fills <= ({"white"} if alone else {"white", color}), plot.name


def test_axes_are_named_and_made_for_what_they_hold(results: Results, drawn: list[tuple[Plot, Figure]]) -> None:
    named = {plot.name: figure for plot, figure in drawn}
    for name, figure in named.items():
        if name not in ("orders", "samples", "changes-by-cell"):
            assert all(axes.get_xlabel() for axes in figure.axes), name
    assert named["fd-by-latency"].axes[0].get_xlabel() == "latency (ms/image), batch 1"
    agreement = named["agreement-by-steps"].axes[0]
    low, high = agreement.get_ylim()
    assert (low, high) != pytest.approx((0, 1), abs=0.1)
    for axes in named["speedups"].axes:
        numbers = [text.get_text() for text in axes.texts if "[" in text.get_text()]
        assert numbers
        assert all(text.startswith(("1: ", "2: ")) for text in numbers)
    assert {"batch 1", "batch 2", "its cache alone"} == {
        text.get_text() for text in named["memory"].legends[0].get_texts()
    }
    orders = named["orders"]
    assert {"first step", "last step"} <= {text.get_text() for axes in orders.axes for text in axes.texts}
    assert max(axes.get_position().x1 for axes in orders.axes) > 0.95


def drafting(run: Run, passes: dict[str, float], decoder: str = "exact") -> Results:
    """The kept run, as if these of its arms had decoded one cell at a time in so many passes."""

    def about(about: dict[str, Any]) -> None:
        for arm in about["arms"]:
            if arm["name"] in passes:
                arm.update(decoder=decoder, traits=["varies", "drafts"])

    def trial(trial: dict[str, Any]) -> None:
        if trial["kind"] == "quality" and trial["arm"] in passes:
            trial["counters"]["passes"] = passes[trial["arm"]]

    return results_of(changed(run, "drafting", about, trial))


def test_passes_stand_against_the_tax_of_the_walk_with_their_correlation(record: Run) -> None:
    grid = Grid(*map(int, own(record.about)["lattice"].split("x")))
    taxes = {order: walk_tax(make_plan(f"{order}@one", grid)) for order in ("raster", "radial", "hilbert", "halton")}
    assert taxes["raster"] == pytest.approx(parallel_tax(make_plan(f"raster@{common_pace(grid)}", grid)))
    arms = {"raster": 9.0, "radial": 7.0, "hilbert@cosine:4": 12.0, "halton@cosine:4": 6.0}
    for passes, sentence in (
        (arms, "exact: rank correlation 1.00 over 4 orders"),
        ({**arms, "hilbert@cosine:4": 5.0}, "exact: rank correlation -0.20 over 4 orders"),
        ({arm: arms[arm] for arm in ("raster", "radial")}, ""),
    ):
        results = drafting(record, passes)
        figure = figures.passes_by_tax(results, Sheet())
        assert figure is not None
        drawn = {line.get_gid(): (line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].lines}
        assert drawn == {
            f"order:{arm.partition('@')[0]}": (taxes[arm.partition("@")[0]], count) for arm, count in passes.items()
        }
        words = said(figure).words or " ".join(text.get_text() for text in figure.texts)
        assert ("rank correlation" in words) == bool(sentence)
        assert sentence in words
        assert "n = 48 x 2 seeds an arm" in words
        assert f"one cell at a time: {grid.n_cells} passes" in words
    assert figures.passes_by_tax(results_of(record), Sheet()) is None  # no arm of it drafts
    assert figures.passes_by_tax(drafting(record, {"raster": 9.0}), Sheet()) is None  # one point says nothing


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
    for place, (arm, apart_N) in enumerate(found.items()):
        assert apart_N.mean() == pytest.approx(results.row(arm).against["bits"].value)
        assert np.array_equal(apart_N, bits[arm] - bits["raster"])
        gid = f"order:{results.row(arm).about['order']}"
        medians = [line.get_xdata()[0] for line in axes.lines  # type: ignore[index]
                   if line.get_gid() == gid and round(float(np.mean(line.get_ydata()))) == place]  # type: ignore[arg-type]  # fmt: skip
        assert medians == [pytest.approx(np.median(apart_N))]
    assert queries.bits_apart(results_of(only(record, "likelihood", arms=("radial",)))) == []
