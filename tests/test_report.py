"""The report: a pure function of the records, honest about what it shows, and a page that works in a browser."""

import base64
import contextlib
import csv
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from test_cli import bench

import orderbench.reports
from orderbench.orders import BenchError
from orderbench.reports import canvas, figures, queries, summary, words
from orderbench.reports import page as report_page
from orderbench.reports.canvas import ONE_COLUMN, SMALLEST, TWO_COLUMNS, Sheet, looks_of
from orderbench.reports.compare import compare_arms, compare_runs
from orderbench.reports.figures import PLOTS, Plot
from orderbench.reports.join import join
from orderbench.reports.page import inline_svg, write_report
from orderbench.reports.queries import pareto
from orderbench.reports.results import Results, extrapolates_from, is_fid, results_of, round_times
from orderbench.reports.statistics import Interval
from orderbench.reports.summary import comparison
from orderbench.reports.table import Column, Table, TableRow, to_csv, to_json, to_latex, to_markdown
from orderbench.reports.tables import tables_of
from orderbench.runs.record import Run, load_run

RECORD = Path(__file__).parent / "records" / "schema-1"
ARMS = ["raster", "raster@even:4", "radial", "radial+nested", "hilbert@cosine:4", "halton@cosine:4"]


@pytest.fixture(scope="module")
def record() -> Run:
    return load_run(RECORD)


@pytest.fixture(scope="module")
def results(record: Run) -> Results:
    return results_of(record)


@pytest.fixture(scope="module")
def page(record: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole report of the kept record."""
    return write_report([record], tmp_path_factory.mktemp("report"))


def only(run: Run, *kinds: str, arms: tuple[str, ...] = ()) -> Run:
    """A run that measured less."""
    trials = {
        name: t for name, t in run.trials.items()
        if t["kind"] in kinds and (not arms or t["arm"] in arms or t["kind"] in ("floor", "latency"))
    }  # fmt: skip
    about = {**run.about, "trials": list(trials)}
    if arms:
        about["arms"] = [arm for arm in about["arms"] if arm["name"] in arms]
    return replace(run, about=about, trials=trials)


def changed(run: Run, folder: str, about: Callable[[dict[str, Any]], None] = lambda _: None,
            trial: Callable[[dict[str, Any]], None] = lambda _: None) -> Run:  # fmt: skip
    """Another run, in another folder: the same records but for what is changed."""
    documents = json.loads(json.dumps([run.about, run.trials]))
    about(documents[0])
    for one in documents[1].values():
        trial(one)

    class Elsewhere(Run):
        def arrays(self, trial: str, what: str) -> dict[str, np.ndarray]:
            return run.arrays(trial, what)

    return Elsewhere(Path(folder), documents[0], documents[1])


# The page and its files


class Text(HTMLParser):
    """What a reader sees, tags aside; and every address that something is loaded from."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.skipped = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.skipped += tag in ("script", "style")
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag: str) -> None:
        self.skipped -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.words.append(data)


def test_the_page_holds_everything_and_loads_nothing(page: Path) -> None:
    html = page.read_text()
    read = Text(html)
    words = " ".join(" ".join(read.words).split())
    for arm in ARMS:
        assert arm in words
    for said in ("n = 48: a first look", "n = 48 x 2 seeds", "toy-features-", "(not FID)", "never trained", "A/A",
                 "50 % of batches", "bench run --orders raster,radial", "with a cache", "real images",
                 "noise codes"):  # fmt: skip
        assert said in words, said
    assert all(address.startswith(("data:", "#")) for address in read.addresses)
    assert not re.search(r"https?://(?!www\.w3\.org/)", html)
    assert "default-src 'none'" in html
    assert html.count('<figure class="plot"') == len(list((page.parent / "figures").glob("*.svg"))) - 2  # not samples
    assert "prefers" not in words
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for used in re.findall(r'(?:href="#|url\(#)([^")]+)', html):
        assert used in ids


def test_the_same_records_give_the_same_bytes(page: Path, record: Run, tmp_path: Path) -> None:
    small = only(record, "repair")
    one, two = (write_report([small], tmp_path / name) for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    files = sorted(path.relative_to(one.parent) for path in one.parent.rglob("*.*"))
    assert files
    for file in files:
        assert (one.parent / file).read_bytes() == (two.parent / file).read_bytes(), file


def test_every_figure_comes_as_png_and_svg_and_every_table_in_three_forms(page: Path) -> None:
    drawn = {plot.name for plot in PLOTS} - {"fd-by-steps-tuned"}
    for kind in ("png", "svg"):
        assert {path.stem for path in (page.parent / "figures").glob(f"*.{kind}")} == drawn
    for kind in ("csv", "md", "tex"):
        assert {path.stem for path in (page.parent / "tables").glob(f"*.{kind}")} == {
            "main", "quality", "speed", "correction",
        }  # fmt: skip
    document = json.loads((page.parent / "tables.json").read_text())
    assert [table["name"] for table in document["parts"][0]["tables"]] == ["main", "quality", "speed", "correction"]
    assert not list(page.parent.rglob(".part-*"))


HOSTILE = "</script><script>alert(1)</script>$\\frac{&%_#](javascript:x)|*"


def test_what_records_say_is_escaped_everywhere(record: Run, tmp_path: Path) -> None:
    def poison(about: dict[str, Any]) -> None:
        about["arms"][1] |= {"name": HOSTILE, "order": HOSTILE}
        about["subject"]["model"]["name"] = HOSTILE
        about["environments"][0]["argv"] = ["bench", HOSTILE]
        about["trials"].append("x")

    def rename(trial: dict[str, Any]) -> None:
        if trial["arm"] == "radial":
            trial["arm"] = HOSTILE

    run = changed(only(record, "likelihood", arms=("raster", "radial")), "<b>run</b>", poison, rename)
    failed = {"trial": "x", "kind": "quality", "arm": HOSTILE, "seed": 9, "setting": "fixed", "status": "failed",
              "reason": HOSTILE}  # fmt: skip
    run.trials["x"] = failed
    page = write_report([run], tmp_path / "out")
    html = page.read_text()
    assert "<script>alert" not in html
    assert "<b>run" not in html
    assert html.count("<script") == 2
    assert HOSTILE in "".join(Text(html).words)
    latex = (tmp_path / "out" / "tables" / "main.tex").read_text()
    assert r"\$\textbackslash{}frac\{\&\%\_\#" in latex
    markdown = (tmp_path / "out" / "tables" / "main.md").read_text()
    assert r"\<script\>" in markdown
    assert "](j" not in markdown.replace(r"\](", "")
    assert "alert" in (tmp_path / "out" / "figures" / "bits-by-steps.svg").read_text()


def test_failed_and_missing_trials_are_said(record: Run, tmp_path: Path) -> None:
    run = only(record, "likelihood")
    run.about["trials"].append("quality-lost")
    words = " ".join(Text(write_report([run], tmp_path).read_text()).words)
    assert "1 trial, such as quality-lost" in " ".join(words.split())


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


# Figures


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


def test_an_order_has_a_class_in_the_page_that_hides_it() -> None:
    groups = '<g id="o3"/><g id="a"/><use xlink:href="#a"/>'
    svg = f'<?xml?><svg a="1" viewBox="0 0 2 2" x="y"><style>*{{}}</style>{groups}</svg>'
    assert inline_svg(svg, "f1-") == (
        '<svg viewBox="0 0 2 2" role="img"><g class="o3"/><g id="f1-a"/><use href="#f1-a"/></svg>'
    )


# Tables


def table_of(*values: float | None) -> Table:
    lines = tuple(
        TableRow(f"a{i}", "o", {"arm": f"a{i}", "fd": None if v is None else Interval(v, v - 1, v + 1)})
        for i, v in enumerate(values)
    )
    return Table("t", "T", "n = 3", (Column("arm", "arm"), Column("fd", "FD", "low")), lines)


def test_best_is_bold_and_second_underlined() -> None:
    table = table_of(3, 1, None, 2)
    assert table.places(table.columns[1]) == {1: 1, 3: 2}
    latex = to_latex(table)
    assert r"\textbf{1.0 $\pm$1.0}" in latex
    assert r"\underline{2.0 $\pm$1.0}" in latex
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule", "n = 3"))
    assert "| a1 | **1.0 ±1.0** |" in to_markdown(table)
    assert "| a2 | - |" in to_markdown(table)


def test_a_latex_table_is_no_wider_than_a_page_and_loses_nothing(record: Run) -> None:
    table = next(one for one in tables_of(results_of(record)) if one.name == "speed")
    parts = to_latex(table).split(r"\begin{tabular}")[1:]
    assert len(parts) > 1
    rows = [[line[4:-3].split(" & ") for line in part.splitlines() if " & " in line] for part in parts]
    heads = [re.sub(r"\\shortstack\[r\]\{(.*)\}", r"\1", head).replace(r"\\", " ") for part in rows for head in part[0]]
    spelled = [column.head.replace("\N{MULTIPLICATION SIGN}", r"$\times$") for column in table.columns]
    assert [head for head in heads if head != "arm"] == [head for head in spelled if head != "arm"]
    for part in rows:
        assert [row[0] for row in part[1:]][: len(ARMS)] == list(ARMS)
        for row in part[1:]:
            plain = [re.sub(r"\\(textbf|underline)\{(.*)\}", r"\2", cell).replace(r"$\pm$", "±") for cell in row]
            assert sum(len(cell) + 1.5 for cell in plain) <= 92


def test_a_narrow_latex_table_is_one_part_in_one_column() -> None:
    latex = to_latex(table_of(3, 1, None))
    assert latex.count(r"\begin{tabular}") == 1
    assert latex.startswith(r"\begin{table}")
    assert "    a2 & -" in latex


def test_ties_share_a_place_and_one_alone_has_none() -> None:
    assert table_of(1, 1, 2).places(table_of(1, 1, 2).columns[1]) == {0: 1, 1: 1, 2: 2}
    assert table_of(1, None).places(table_of(1, None).columns[1]) == {}
    assert table_of(1, 1).places(table_of(1, 1).columns[1]) == {}


def test_small_numbers_keep_their_digits() -> None:
    tiny = Interval(1.234e-5, 1e-5, 1.5e-5)
    assert words.plus_minus_tiny(tiny) == "1.23e-05 ±2.5e-06"
    assert words.bounds(tiny) == "1.23e-05 [1.0e-05, 1.5e-05]"
    assert words.plus_minus_tiny(Interval(0.0, 0.0, 0.0)) == "0 ±0"
    assert words.plus_minus_tiny(Interval(0.0123, 0.012, 0.0126)) == "0.01230 ±0.00030"


def test_floors_are_never_the_best(results: Results) -> None:
    main = tables_of(results)[0]
    for column in main.columns:
        assert all(main.rows[number].competes for number in main.places(column))


def test_csv_and_json_hold_every_number_unrounded(results: Results) -> None:
    main = tables_of(results)[0]
    rows = list(csv.DictReader(io.StringIO(to_csv(main))))
    document = to_json(main)
    for row, plain, line in zip(rows, document["rows"], main.rows, strict=True):
        fd = line.cells.get("fd")
        assert isinstance(fd, Interval)
        assert float(row["fd"]) == fd.value == plain["fd"]["value"]
        assert float(row["fd_low"]) == fd.low
    assert [row["arm"] for row in rows][:2] == ["raster", "raster@even:4"]


def test_captions_say_n_space_and_level(results: Results) -> None:
    for table in tables_of(results):
        assert "0.95" in table.caption
        if table.name != "speed":
            assert "n = 48 x 2 seeds" in table.caption
            assert str(results.space) in table.caption


def test_speed_says_every_speedup_of_one_decode(results: Results) -> None:
    speed = {table.name: table for table in tables_of(results)}["speed"]
    heads = [column.head for column in speed.columns]
    for head in ("raster, batch 1", "raster, batch 2", "raster, network alone", "raster without cache", "fewer steps"):
        assert any(head in one for one in heads), head
    row = next(line for line in speed.rows if line.arm == "radial")
    uncached, cached = row.cells["uncached_speedup"], row.cells["speedup_batch_1"]
    assert isinstance(uncached, Interval)
    assert isinstance(cached, Interval)
    assert uncached.value > cached.value
    assert row.cells["step_ratio"] == 16 / results.row("radial").about["n_steps"]


def test_correction_is_compared_with_the_same_arm_without(results: Results) -> None:
    table = {table.name: table for table in tables_of(results)}["correction"]
    line, *floors = table.rows
    assert [floor.arm for floor in floors] == ["real", "reconstructed", "noise"]
    assert all(isinstance(floor.cells["fd"], Interval) and not floor.competes for floor in floors)
    assert (line.cells["arm"], line.cells["plain"]) == ("radial+nested", "radial")
    difference = line.cells["fd_difference"]
    assert isinstance(difference, Interval)
    apart = results.row("radial+nested").figures["fd"].value - results.row("radial").figures["fd"].value
    assert difference.value == pytest.approx(apart)
    assert line.cells["repaired"] is not None


# What tables rest on


def test_a_tuned_run_has_a_table_for_each_kind_of_setting(record: Run) -> None:
    run = changed(only(record, "quality", "floor", "likelihood"), "tuned", lambda about: about["config"].update(
        tune={"temperature": [0.5, 1.0], "top_k": [0.0, 4.0]}))  # fmt: skip
    for name, trial in list(run.trials.items()):
        if trial["kind"] == "quality":
            best = {**trial["sampling"], "temperature": 0.5, "top_k": 4 * (trial["arm"] == "radial")}
            again = {**json.loads(json.dumps(trial)), "trial": f"{name}-tuned", "setting": "tuned", "sampling": best}
            again["quality"][0]["fd"]["value"] /= 2  # all of them before all fixed ones
            run.trials[again["trial"]] = again
    results = results_of(run)
    named = {table.name: table for table in tables_of(results)}
    fixed, tuned = named["quality"], named["quality-tuned"]
    for table in (fixed, tuned):
        column = next(column for column in table.columns if column.key == "fd")
        assert sorted(set(table.places(column).values())) == [1, 2]
        assert [line.arm for line in table.rows if line.competes] == ARMS
    assert "guidance none, temperature 1." in fixed.caption
    assert "temperature 1." not in tuned.caption
    assert "of temperature 0.5, 1; top-k all, 4." in tuned.caption
    rows = {row["arm"]: row for row in csv.DictReader(io.StringIO(to_csv(tuned)))}
    keys = ("guidance", "temperature", "top_k", "top_p")
    assert [rows["radial"][key] for key in keys] == ["none", "0.5", "4", "1"]
    assert [rows["raster"][key] for key in keys] == ["none", "0.5", "all", "1"]
    for width in (80, 120):
        shown = " ".join(printed(summary.summary(results, width), width).split())
        assert "Quality, the best setting of each arm" in shown
        assert "temperature 0.5" in shown
        assert "…" not in shown
    assert "the same setting: guidance none, temperature 1. Not FID." in " ".join(summary.notes(results))


def test_only_a_distance_in_inceptions_space_is_called_fid(record: Run) -> None:
    def space(name: str, dimensions: int) -> Results:
        def judged(trial: dict[str, Any]) -> None:
            for result in trial.get("quality", []):
                result["space"] = name

        def about(about: dict[str, Any]) -> None:
            about["subject"]["spaces"][0] |= {"space": name, "dimensions": dimensions}

        return results_of(changed(only(record, "quality"), "other", about, judged))

    inception = space("inception-0123abcd", 2048)
    assert is_fid(inception)
    said = [*(table.caption for table in tables_of(inception)), *summary.notes(inception)]
    assert sum("FD is FID as torch-fidelity computes it" in one for one in said) == 4
    assert not any("not fid" in one.lower() for one in said)
    for name, dimensions in (("inception-0123abcd", 64), ("my-inception-0123abcd", 2048), ("lite0-0123abcd", 1280)):
        results = space(name, dimensions)
        assert all("(not FID)" in table.caption for table in tables_of(results))
        assert any(note.endswith(" Not FID.") for note in summary.notes(results))


def test_captions_name_the_whole_setting(record: Run, results: Results) -> None:
    cut = results_of(changed(record, "cut", lambda about: about["setting"].update(top_k=8, top_p=0.95)))
    for text in (*(table.caption for table in tables_of(cut)), next(iter(summary.notes(cut)))):
        assert "guidance none, temperature 1, top-k 8, top-p 0.95" in text
    assert not any("top-" in text for text in (*(t.caption for t in tables_of(results)), *summary.notes(results)))


def test_floors_have_an_extrapolated_distance_too_and_where_there_is_none_the_table_says_why(
    record: Run, results: Results
) -> None:
    def extrapolated(trial: dict[str, Any]) -> None:
        for result in trial.get("quality", []):
            result["fd_extrapolated"] = 0.5

    def quality(results: Results) -> Table:
        return {table.name: table for table in tables_of(results)}["quality"]

    table = quality(results_of(changed(record, "large", trial=extrapolated)))
    assert [line.cells["fd_extrapolated"] for line in table.rows] == [Interval(0.5)] * 9
    assert "extrapolated" not in table.caption
    assert not any(column.key == "fd_extrapolated" for column in quality(results).columns)
    assert f"needs n of at least {extrapolates_from(results)} here" in quality(results).caption


@pytest.mark.parametrize(("dimensions", "classes"), [(4, 3), (3, 1), (2, 10)])
def test_the_least_n_to_extrapolate_from_is_that_of_the_measurement(record: Run, dimensions: int, classes: int) -> None:
    from orderbench.runs.metrics import measure

    def about(about: dict[str, Any]) -> None:
        about["subject"]["spaces"][0]["dimensions"] = dimensions
        about["subject"]["model"]["classes"] = classes

    least = extrapolates_from(results_of(changed(only(record, "quality"), "other", about)))
    features_ND = np.random.default_rng(0).normal(size=(least, dimensions))
    for n, found in ((least, True), (least - classes, False)):
        result = measure(features_ND[:n], None, None, features_ND, classes=classes)
        assert (result["fd_extrapolated"] is not None) == found


def test_speed_says_how_far_its_rounds_lie_apart(record: Run, results: Results) -> None:
    speed = {table.name: table for table in tables_of(results)}["speed"]
    row = next(row for row in csv.DictReader(io.StringIO(to_csv(speed))) if row["arm"] == "radial")
    trial = next(trial for trial in record.done("latency") if trial["batch"] == 1)
    times_ms = 1000 * np.array(round_times(trial, "radial"))
    low, high, p90 = np.quantile(times_ms, [0.25, 0.75, 0.9])
    for key, value in (("p90_ms", p90), ("iqr_ms", high - low), ("min_ms", times_ms.min()), ("rounds", 4)):
        assert float(row[key]) == pytest.approx(value), key


def busy(trial: dict[str, Any]) -> None:
    if trial["kind"] == "latency":
        trial["clock_after"] = {"load_average": [9.5, 9, 9]}


def test_a_busy_machine_is_told_wherever_speeds_are(record: Run, results: Results, tmp_path: Path) -> None:
    said = "others computed beside it (load 9.5 on 2 cores)"
    loaded = results_of(changed(record, "loaded", trial=busy))
    captions = {table.name: table.caption for table in tables_of(loaded)}
    assert {name for name, caption in captions.items() if said in caption} == {"main", "speed", "correction"}
    assert any(said in note for note in summary.notes(loaded))
    assert not any("others computed" in text for text in (*(t.caption for t in tables_of(results)),
                                                          *summary.notes(results)))  # fmt: skip
    for draw in (figures.speedups, figures.quality_by_speed("latency_s")):
        figure = draw(loaded, Sheet())
        assert figure is not None
        assert any("others computed beside the timing" in text.get_text() for text in figure.texts)
    page = write_report([only(loaded.run, "latency")], tmp_path)
    html = page.read_text()
    assert re.search(rf'<p class="note">[^<]*{re.escape(said)}', html)
    assert re.search(rf'id="f-speedups">.*?<figcaption>[^<]*{re.escape(said)}', html, re.S)


def test_no_verdict_is_given_on_a_distance_of_too_few_samples(record: Run, results: Results) -> None:
    def verdicts(results: Results) -> dict[str, str]:
        answer = report_page._answer(results, results.row("radial"), looks_of([results]))
        return {line["name"]: line["verdict"] for line in answer["lines"]}

    few = verdicts(results)
    assert few["FD"].startswith("not judged: ")
    assert few["KD"] in ("better", "worse", "no difference shown")
    enough = verdicts(results_of(changed(record, "other", lambda about: about["subject"]["spaces"][0].update(
        dimensions=4))))  # fmt: skip
    assert enough["FD"] in ("better", "worse", "no difference shown")
    assert "KD" not in enough


# Several runs


def test_alike_runs_become_one(record: Run) -> None:
    halves = [only(record, "quality", "floor"), changed(only(record, "likelihood", "latency", "repair"), "other")]
    (part,) = join(halves)
    assert part.notes == ()
    whole, joined = results_of(record), results_of(part.run)
    assert to_csv(tables_of(joined)[1]) == to_csv(tables_of(whole)[1])
    assert joined.row("radial").speedup == whole.row("radial").speedup


def test_seeds_of_two_runs_add_up(record: Run) -> None:
    def seed(run: Run, *seeds: int) -> Run:
        kept = {name: t for name, t in only(run, "quality").trials.items() if t["seed"] in seeds}
        return replace(run, about={**run.about, "trials": list(kept)}, trials=kept)

    one, two = seed(record, 0), changed(seed(record, 1), "other")
    (part,) = join([one, two])
    assert results_of(part.run).row("radial").seeds == 2
    (again,) = join([one, changed(one, "again")])
    assert results_of(again.run).row("radial").seeds == 1
    assert "count once" in again.notes[0]


def test_rounds_on_one_machine_are_pooled_and_other_arms_stand_by_their_own_baseline(record: Run) -> None:
    timed = only(record, "latency")
    (part,) = join([timed, changed(timed, "friday")])
    assert all(len(trial["rounds"]) == 8 for trial in part.run.done("latency"))
    assert "4 rounds of friday are pooled" in part.notes[0]

    def drop(trial: dict[str, Any]) -> None:
        trial["rounds"] = [[s for s in one if s["name"] not in ("radial", "radial+nested")] for one in trial["rounds"]]

    fewer = changed(timed, "fewer", trial=drop)
    (mixed,) = join([fewer, changed(timed, "more")])
    results = results_of(mixed.run)
    assert results.row("radial").speedup == results_of(timed).row("radial").speedup
    assert "timed other arms in turns" in mixed.notes[0]
    assert tables_of(results)


def model(about: dict[str, Any]) -> None:
    about["subject"]["model"]["sha256"] = "0" * 64


def space(about: dict[str, Any]) -> None:
    about["subject"]["spaces"][0]["space"] = "inception-0000"


def plan(about: dict[str, Any]) -> None:
    about["arms"][2]["plan_digest"] = "f" * 64


def setting(about: dict[str, Any]) -> None:
    about["setting"]["guidance"] = "linear:scale=3"


def fewer_samples(trial: dict[str, Any]) -> None:
    if trial["kind"] == "quality":
        trial["n"] = 24


def hardware(trial: dict[str, Any]) -> None:
    if trial["kind"] == "latency":
        trial["device"]["gpu"] = {"name": "NVIDIA H100"}


@pytest.mark.parametrize(
    ("about", "trial", "why", "parts"),
    [
        (model, None, "Samples and likelihood and timings of other stand apart from schema-1: the models differ", 2),
        (space, None, "the feature spaces or references differ (toy-features", 2),
        (plan, None, "the plans of radial differ", 2),
        (setting, None, "the sampling settings differ (guidance none and linear:scale=3)", 2),
        (None, fewer_samples, "Samples of other stand apart from schema-1: n differs (48; 24)", 2),
        (
            None,
            hardware,
            "the hardware or its threads differ (a processor, 2 cores, 1 thread; NVIDIA H100, 1 thread)",
            2,
        ),
    ],
)
def test_what_may_not_be_joined_stands_apart_with_the_reason(
    record: Run, about: Any, trial: Any, why: str, parts: int
) -> None:
    other = changed(record, "other", about or (lambda _: None), trial or (lambda _: None))
    found = join([record, other])
    assert len(found) == parts
    for part in (found[0], found[-1]):
        assert any(why in note for note in part.notes), part.notes
    for part in found:
        assert tables_of(results_of(part.run))


def test_two_parts_are_two_sections_with_the_reason_on_the_page(record: Run, tmp_path: Path) -> None:
    one = only(record, "likelihood")
    page = write_report([one, changed(one, "other", model)], tmp_path)
    words = " ".join(" ".join(Text(page.read_text()).words).split())
    assert "Part 2: other" in words
    assert words.count("the models differ (toy-model") == 2
    assert (tmp_path / "tables" / "part2-main.csv").exists()
    assert (tmp_path / "figures" / "part1-tax.svg").exists()


def test_a_run_named_twice_and_a_run_of_nothing_are_refused(record: Run) -> None:
    with pytest.raises(BenchError, match="named twice"):
        join([record, record])
    with pytest.raises(BenchError, match=r"no trial of schema-1 is finished.*--resume"):
        join([replace(record, trials={})])


# After a failed seed


@pytest.fixture
def one_seed_less(record: Run) -> Run:
    """Raster failed under seed 0: the only seed that all arms have is 1."""

    def fail(trial: dict[str, Any]) -> None:
        if (trial["kind"], trial["arm"], trial["seed"]) == ("quality", "raster", 0):
            trial.update(status="failed", reason="[/red] out of memory")

    return changed(record, "less", trial=fail)


def test_samples_side_by_side_have_one_seed(record: Run, one_seed_less: Run) -> None:
    assert queries.shown_seed(results_of(record), "quality") == 0
    results = results_of(one_seed_less)
    assert queries.shown_seed(results, "quality") == 1
    for arm in ("raster", "radial"):
        trial = next(t for t in record.done("quality") if (t["arm"], t["seed"]) == (arm, 1))
        shown = queries.pictures_of(results, "quality", arm)
        assert shown is not None
        assert np.array_equal(shown, record.arrays(trial["trial"], "pictures")["images_Nhwc"])


def test_captions_say_where_seeds_are_missing(one_seed_less: Run) -> None:
    results = results_of(one_seed_less)
    assert "n = 48 x 1 to 2 seeds an arm" in tables_of(results)[0].caption
    assert any("n = 48 x 1 to 2 seeds;" in note for note in summary.notes(results))
    figure = figures.quality_by_steps("fd")(results, Sheet())
    assert figure is not None
    assert "n = 48 x 1 to 2 seeds: a first look" in [text.get_text() for text in figure.texts]
    assert ("samples", "n = 48 an arm and seed, 1 to 2 seeds") in list(report_page._facts(results))


# In a terminal


def printed(shown: Any, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_comparison_shows_its_numbers_in_80_columns(results: Results) -> None:
    lines = compare_runs(results, results)
    shown = printed(comparison(lines, ("20261123-061234-raster-radial", "20261123-071234-raster-radial")))
    latency = results.row("radial").figures["latency_s"]
    assert latency.low is not None
    assert f"{latency.value:.4f}" in shown
    assert f"[{latency.low:.4f}, " in shown
    assert "none shown" in shown
    assert "…" not in shown
    tiny = compare_arms(results)[0]
    assert "-0.0000" not in printed(comparison([tiny], ("raster", "arm")))


def test_a_summary_points_at_what_it_shows(results: Results) -> None:
    narrow, wide = (printed(summary.summary(results, width), width) for width in (80, 120))
    ratio = "Ratio of steps, raster's to theirs: 4.0 for raster@even:4, radial, "
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow
    assert "KD  " not in narrow
    assert "read KD (in the report), and" in narrow
    assert ratio in narrow
    assert " KD  " in wide
    assert "read KD, and" in wide
    assert "x steps" in wide
    assert ratio not in wide


def test_reasons_and_names_are_no_markup(one_seed_less: Run, results: Results) -> None:
    assert "failed: raster: [/red] out of memory" in printed(summary.summary(results_of(one_seed_less), 80))
    named = replace(results.arms[1], arm="mine[/cyan]", failed="[/red] x")
    other = replace(results, arms=(results.arms[0], named), baseline="raster")
    assert "mine[/cyan]" in printed(summary.summary(other, 120), 120)
    line = compare_arms(results)[0]
    assert "[/green]" in printed(comparison([replace(line, arm="[/green]", why="[/bold]")], ("[/a]", "[/b]")), 120)


# Two runs compared


def compared(record: Run, about: Any = None, trial: Any = None) -> dict[str, str]:
    """By metric of radial, why it is not comparable with the same run after a change."""
    other = results_of(changed(record, "other", about or (lambda _: None), trial or (lambda _: None)))
    lines = compare_runs(results_of(record), other)
    return {line.metric: line.why for line in lines if line.arm == "radial" and line.verdict == "not comparable"}


def fewer_groups(trial: dict[str, Any]) -> None:
    for result in trial.get("quality", []):
        for metric in ("fd", "kd"):
            result[metric]["left_out"] = result[metric]["left_out"][:-1]


SPEEDS = {"x, batch 1", "x, batch 2", "latency_s", "images_per_s"}


@pytest.mark.parametrize(
    ("about", "trial", "metrics", "why"),
    [
        (plan, None, SPEEDS, "the plans differ"),
        (setting, None, SPEEDS, "the settings differ, and guidance is part of what is timed"),
        (None, hardware, SPEEDS, "the hardware or its threads differ"),
        (lambda about: about["config"].update(data="other"), None, {"bits"}, "the held-out images differ"),
        (lambda about: about["subject"]["spaces"][0].update(reference="other"), None, {"fd", "kd"},
         "the references differ"),
        (None, fewer_groups, {"fd", "kd"}, "the groups of samples that are left out"),
    ],
)  # fmt: skip
def test_two_runs_are_compared_only_where_they_can_be(
    record: Run, about: Any, trial: Any, metrics: set[str], why: str
) -> None:
    assert compared(record) == {}
    found = compared(record, about, trial)
    assert metrics <= found.keys()
    assert all(found[metric].startswith(why) for metric in metrics)


def test_digests_tell_images_and_references_apart(record: Run) -> None:
    def digested(about: dict[str, Any], digest: str = "a") -> None:
        about["subject"]["held_out"] = {"images": 24, "sha256": digest}
        about["subject"]["spaces"][0]["reference_sha256"] = digest

    one = changed(record, "one", digested)
    assert {"fd", "kd", "bits"} <= compared(one, lambda about: digested(about, "b")).keys()
    assert compared(one, lambda about: about["config"].update(data="renamed")) == {}
    assert compared(record, digested) == {}
    parts = join([one, changed(record, "two", lambda about: digested(about, "b"))])
    notes = " ".join(note for part in parts for note in part.notes)
    assert "the held-out images differ" in notes
    assert "differ, though not by name" in notes


def test_samples_of_other_groups_do_not_join(record: Run) -> None:
    parts = join([record, changed(record, "older", trial=fewer_groups)])
    assert len(parts) == 2
    assert any("groups of samples that are left out in turn differ" in note for note in parts[0].notes)


def test_a_long_name_takes_no_digit_from_a_number(record: Run) -> None:
    long = "radial+nested:margin=0.3:rule=sample:every=12:window=3"

    def renamed(about: dict[str, Any]) -> None:
        for arm in about["arms"]:
            arm["name"] = long if arm["name"] == "radial+nested" else arm["name"]

    def trial(trial: dict[str, Any]) -> None:
        if trial["arm"] == "radial+nested":
            trial["arm"] = long

    shown = printed(summary.summary(results_of(changed(record, "long", renamed, trial)), 80))
    assert "\u2026" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_arms_that_were_tuned_to_other_settings_do_not_join(record: Run) -> None:
    def tuned(guidance: str) -> Any:
        def trial(trial: dict[str, Any]) -> None:
            if (trial["kind"], trial["arm"]) == ("quality", "radial"):
                trial |= {"setting": "tuned", "sampling": {**trial["sampling"], "guidance": guidance}}

        return trial

    one, same, other = (changed(record, n, trial=tuned(g)) for n, g in (("a", "2"), ("b", "2"), ("c", "3")))
    assert len(join([one, same])) == 1
    parts = join([one, other])
    assert len(parts) == 2
    assert any("radial was tuned to another setting" in note for note in parts[0].notes)


def test_an_arm_that_could_not_be_timed_leaves_the_others(record: Run, tmp_path: Path) -> None:
    def untimed(trial: dict[str, Any]) -> None:
        if trial["kind"] == "latency":
            trial["failed_arms"] = {"A/A": "out of memory"}
            trial["rounds"] = [[s for s in one if s["name"] != "A/A"] for one in trial["rounds"]]

    results = results_of(changed(only(record, "latency"), "untimed", trial=untimed))
    assert results.noise == {}
    assert results.row("radial").speedup
    assert "failed: A/A: out of memory" in printed(summary.summary(results, 80))
    words = " ".join(Text(write_report([results.run], tmp_path).read_text()).words)
    assert "out of memory" in words


def test_a_null_among_the_left_out_is_no_interval(record: Run) -> None:
    def null(trial: dict[str, Any]) -> None:
        if trial["kind"] == "quality" and trial["arm"] == "radial":
            trial["quality"][0]["fd"]["left_out"][1] = None

    run = changed(only(record, "quality"), "null", trial=null)
    assert results_of(run).row("radial").figures["fd"].low is None
    table = orderbench.reports.load(run)
    assert table.query("metric == 'fd' and arm == 'radial'")["low"].isna().all()


# What the page says of itself


def test_captions_claim_no_more_than_they_know(page: Path, record: Run, tmp_path: Path) -> None:
    words = " ".join(" ".join(Text(page.read_text()).words).split())
    assert "not by the same amount for every arm" in words
    assert "alike for all arms" not in words
    assert "nearly unbiased" in words
    assert "distance is unbiased" not in words
    assert "Both axes come from one run." in words
    assert "come from one run" in words
    assert "in the folder that holds the run:" in words
    halves = [only(record, "quality"), changed(only(record, "latency"), "timed")]
    joined = " ".join(" ".join(Text(write_report(halves, tmp_path).read_text()).words).split())
    assert "Samples come from schema-1, times from timed." in joined
    assert "come from one run" not in joined


def test_a_tax_is_said_to_be_none_only_where_cells_come_one_at_a_time(record: Run, tmp_path: Path) -> None:
    run = changed(only(record, "likelihood"), "unpredicted", lambda about: [
        arm.update(predicted_tax_bits=None) for arm in about["arms"]
    ])  # fmt: skip
    words = " ".join(" ".join(Text(write_report([run], tmp_path).read_text()).words).split())
    assert words.count("none: one cell a step") == 1  # raster alone


def test_training_sorts_by_share() -> None:
    cells = ["9 %", "50 %*", "never", "12 %"]
    assert sorted(cells, key=lambda cell: float(report_page._sort_key(cell, "trained"))) == [
        "never", "9 %", "12 %", "50 %*",
    ]  # fmt: skip
    assert report_page._sort_key("never", "arm") == "never"


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


# The data frame


def test_load_gives_one_tidy_frame(record: Run) -> None:
    table = orderbench.reports.load(RECORD)
    medians = table.query("metric == 'tokens_s' and batch == 1").groupby("arm")["value"].median()
    assert set(ARMS) < set(medians.index)
    fd = table.query("metric == 'fd' and arm == 'radial'")
    assert fd["seed"].tolist() == [0, 1]
    assert (fd["low"] < fd["value"]).all()
    assert set(fd["n"]) == {48}
    assert set(fd["order"]) == {"radial"}
    assert set(zip(fd["guidance"], fd["temperature"], fd["top_k"], fd["top_p"], strict=True)) == {("none", 1, 0, 1)}
    assert table.query("kind == 'floor'")["guidance"].isna().all()
    bits = table.query("metric == 'bits' and arm == 'radial'").iloc[0]
    assert bits["value"] == pytest.approx(results_of(record).row("radial").figures["bits"].value)
    assert not table["metric"].isna().any()
    assert not table["unit"].isna().any()
    assert set(table["kind"]) == {"likelihood", "floor", "quality", "repair", "latency"}


def test_importing_reports_stays_light() -> None:
    program = "import orderbench.reports, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pandas", "matplotlib", "jinja2", "seaborn"} & set(loaded)


# The command


def test_the_command_writes_a_page_without_torch(tmp_path: Path) -> None:
    shutil.copytree(RECORD, tmp_path / "run")
    for file in (tmp_path / "run" / "trials").glob("[qfl]*"):  # less to draw
        file.unlink()
    program = (
        "import sys\nfrom orderbench.runs.cli import main\n"
        "sys.argv = ['bench', 'report', 'run', '--paper', '--json']\n"
        "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch" not in done.stderr.split()
    document = json.loads(done.stdout)
    assert document["page"] == "run/report/report.html"
    assert (tmp_path / document["page"]).is_file()
    pdfs = sorted(path.name for path in (tmp_path / "run" / "report" / "figures").glob("*.pdf"))
    assert pdfs == ["orders-1col.pdf", "orders-2col.pdf", "repair-1col.pdf", "repair-2col.pdf"]


def test_several_runs_get_a_page_beside_each_ones_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(RECORD, tmp_path / name)
        for file in (tmp_path / name / "trials").glob("[qfl]*"):  # less to draw
            file.unlink()
    done = bench("report", "one", "two", cwd=tmp_path)
    assert done.stdout == "wrote one/report-with-two/report.html\n", done.stderr
    assert (tmp_path / "one" / "report-with-two" / "report.html").is_file()
    assert not (tmp_path / "one" / "report").exists()


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shutil.copytree(RECORD, tmp_path / "run")
    for folder, said in ((tmp_path / "none", "there is no folder"), (tmp_path / "file", "there is no folder"),
                         (tmp_path, "there is no '")):  # fmt: skip
        done = bench("report", str(folder))
        assert done.returncode == 2
        assert done.stderr.startswith(f"bench: {said}")
        assert done.stderr.count("\n") == 1
    done = bench("report", str(tmp_path / "run"), "--out", str(tmp_path / "file" / "x"))
    assert done.returncode == 2
    assert "could not be written" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_has_examples() -> None:
    assert "bench report bench-runs/my-run --paper" in bench("report", "--help").stdout


# In a browser


class Browser:
    """Headless Chromium, driven over the WebDriver protocol."""

    def __init__(self, driver: str, chromium: str, width: int, height: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen([driver, f"--port={self.port}"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)  # fmt: skip
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        metrics = {"width": width, "height": height, "pixelRatio": 1, "mobile": width < 600}
        options = {"binary": chromium, "args": arguments, "mobileEmulation": {"deviceMetrics": metrics}}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        self.session = self._when_up({"capabilities": wanted})["sessionId"]

    def _when_up(self, body: dict[str, Any]) -> Any:
        for attempt in range(100):
            with contextlib.suppress(ConnectionError, urllib.error.URLError):
                return self._post("session", body)
            time.sleep(0.1 + 0.01 * attempt)
        raise AssertionError("chromedriver did not come up")

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.loads(answer.read())["value"]

    def open(self, page: Path) -> None:
        self._post(f"session/{self.session}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str) -> Any:
        return self._post(f"session/{self.session}/execute/sync", {"script": script, "args": []})

    def log(self) -> list[dict[str, Any]]:
        return self._post(f"session/{self.session}/se/log", {"type": "browser"})  # type: ignore[no-any-return]

    def pdf(self) -> bytes:
        return base64.b64decode(self._post(f"session/{self.session}/print", {}))

    def close(self) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/session/{self.session}", method="DELETE")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(request, timeout=30).close()  # noqa: S310
        self.process.terminate()
        self.process.wait(timeout=30)


DRIVER = shutil.which("chromedriver")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(params=[1200, 400])
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    if DRIVER is None or CHROMIUM is None:
        pytest.skip("no chromium and chromedriver here: apt-get install chromium chromium-driver")
    one = Browser(DRIVER, CHROMIUM, request.param, 900)
    try:
        yield one
    finally:
        one.close()


@pytest.mark.browser
def test_the_page_works_in_a_browser(page: Path, browser: Browser) -> None:
    browser.open(page)
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    seen = "[...document.querySelectorAll('.o1')].filter((e) => e.getClientRects().length).length"
    before = browser.run(f"return {seen}")
    assert before > 20
    assert browser.run(f"document.querySelector('.chip[data-order=\"1\"]').click(); return {seen}") == 0
    assert browser.run("return document.querySelector('.chip[data-order=\"1\"]').ariaPressed") == "false"
    assert browser.run(f"document.querySelector('.chip[data-order=\"1\"]').click(); return {seen}") == before

    column = "[...document.querySelectorAll('#t-main tbody tr')].map((row) => row.cells[3].dataset.v)"
    head = "document.querySelectorAll('#t-main th button')[3].click();"
    for down in (False, True):
        values = [float(v) for v in browser.run(f"{head} return {column}")]
        assert values[:6] == sorted(values[:6], reverse=down)

    browser.run(
        "const seek = document.querySelector('.seek'); seek.value = 400; seek.dispatchEvent(new Event('input'))"
    )
    counts = browser.run("return [...document.querySelectorAll('.count')].map((e) => e.textContent)")
    assert re.fullmatch(r"step \d+ of 16, \d+ of 16 cells", counts[0])
    assert browser.run("return !document.querySelector('canvas').hidden")
    browser.run("document.querySelector('.play').click()")
    time.sleep(0.4)
    assert browser.run("return document.querySelector('.play').textContent") == "Pause"
    later = browser.run("return document.querySelector('.count').textContent")
    assert later != counts[0]
    browser.run(
        "const pace = document.querySelector('.pace'); pace.value = 'time'; pace.dispatchEvent(new Event('change'))"
    )
    assert re.fullmatch(
        r"\d+ ms, [1-9][\d.]* times slowed", browser.run("return document.querySelector('.clock').textContent")
    )
    assert browser.pdf().startswith(b"%PDF")
    assert browser.log() == []


def test_ci_tries_the_page_in_a_browser_where_it_can() -> None:
    script = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    assert "chromium-driver" in script
    assert "not browser" in script
