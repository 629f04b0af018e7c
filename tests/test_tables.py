"""Tables: four writers of one value, and captions that say what the numbers rest on."""

import csv
import io
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kept import ARMS, busy_machine, changed, only, own, printed

import orderbench.reports
from orderbench.reports import summary, words
from orderbench.reports.results import Results, extrapolates_from, is_fid, results_of, round_times, row_against
from orderbench.reports.statistics import Interval
from orderbench.reports.table import Column, Table, TableRow, to_csv, to_json, to_latex, to_markdown
from orderbench.reports.tables import tables_of
from orderbench.runs.record import Run


def table_of(*values: float | None) -> Table:
    lines = tuple(
        TableRow(f"a{i}", "o", {"arm": f"a{i}", "fd": None if v is None else Interval(v, v - 1, v + 1)})
        for i, v in enumerate(values)
    )
    return Table("t", "T", "n = 3", (Column("arm", "arm"), Column("fd", "FD", "low")), lines)


def test_best_is_bold_and_second_underlined_where_they_are_shown_to_be() -> None:
    table = table_of(9, 1, None, 5)
    assert table.places(table.columns[1]) == {1: 1, 3: 2}
    latex = to_latex(table)
    assert r"\textbf{1.0 $\pm$1.0}" in latex
    assert r"\underline{5.0 $\pm$1.0}" in latex
    assert r"FD $\downarrow$" in latex
    assert "FD \N{DOWNWARDS ARROW}" in to_markdown(table)
    assert table_of(1, 2, 9).places(table.columns[1]) == {}  # the best two meet
    assert table_of(1, 5, 6).places(table.columns[1]) == {0: 1}  # the second and the third do
    assert replace(table, shown=lambda key, one, two: (key, one, two) == ("fd", 1, 3)).places(table.columns[1]) == {
        1: 1
    }
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule", "n = 3"))
    assert "| a1 | **1.0 ±1.0** |" in to_markdown(table)
    assert "| a2 | - |" in to_markdown(table)


def test_a_latex_table_is_no_wider_than_a_page_and_loses_nothing(record: Run) -> None:
    table = next(one for one in tables_of(results_of(record)) if one.name == "speed")
    parts = to_latex(table).split(r"\begin{tabular}")[1:]
    assert len(parts) > 1
    rows = [[line[4:-3].split(" & ") for line in part.splitlines() if " & " in line] for part in parts]
    heads = [re.sub(r"\\shortstack\[r\]\{(.*)\}", r"\1", head).replace(r"\\", " ") for part in rows for head in part[0]]
    signs = {"\N{MULTIPLICATION SIGN}": r"$\times$", "\N{DOWNWARDS ARROW}": r"$\downarrow$",
             "\N{UPWARDS ARROW}": r"$\uparrow$"}  # fmt: skip
    spelled = ["".join(signs.get(sign, sign) for sign in column.title) for column in table.columns]
    assert "latency (ms/image) $\\downarrow$" in spelled
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


def test_ties_and_one_alone_have_no_place() -> None:
    assert table_of(1, 1, 9).places(table_of(1, 1, 9).columns[1]) == {}
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
    (line,) = table.rows  # floors have nothing that is compared here
    assert (line.cells["arm"], line.cells["plain"]) == ("radial+nested", "radial")
    difference = line.cells["fd_difference"]
    assert isinstance(difference, Interval)
    apart = results.row("radial+nested").figures["fd"].value - results.row("radial").figures["fd"].value
    assert difference.value == pytest.approx(apart)
    repaired = line.cells["repaired"]
    assert isinstance(repaired, Interval)
    assert 0 <= repaired.low < repaired.value < repaired.high <= 100  # type: ignore[operator]


def test_a_place_is_what_the_paired_interval_shows(record: Run, results: Results) -> None:
    """KD of radial against the next one, however much their own intervals overlap; FD of so few samples never."""
    main = tables_of(results)[0]
    columns = {column.key: column for column in main.columns}
    assert main.places(columns["fd"]) == {}
    assert "Bold: the best" in main.caption
    for key, metric in (("kd", "kd"), ("bits_per_token", "bits")):
        ranked = sorted(
            (row for row in results.arms if metric in row.figures), key=lambda row: row.figures[metric].value
        )
        best, following = (next(i for i, line in enumerate(main.rows) if line.arm == row.arm) for row in ranked[:2])
        difference = row_against(results, ranked[0], ranked[1].arm).against[metric]
        assert (main.places(columns[key]).get(best) == 1) == (difference.high < 0)  # type: ignore[operator]
        assert main.places(columns[key]).get(following, 2) == 2
    ahead = results_of(changed(record, "ahead", trial=faster))
    times = {table.name: table for table in tables_of(ahead)}["speed"]
    latency = next(column for column in times.columns if column.key == "latency_ms")
    assert [times.rows[place].arm for place in times.places(latency)] == ["halton@cosine:4"]
    loaded = results_of(changed(record, "loaded", trial=lambda trial: (faster(trial), busy_machine(trial))[0]))
    assert {table.name: table for table in tables_of(loaded)}["speed"].places(latency) == {}


def faster(trial: dict[str, Any]) -> None:
    for sample in [sample for one in trial.get("rounds", []) for sample in one]:
        if sample["name"] == "halton@cosine:4":
            sample["tokens_s"] /= 10


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
        assert table.places(column) == {}  # n is too small for a best FD
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
            about["spaces"][0] |= {"space": name, "dimensions": dimensions}

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
    cut = results_of(changed(record, "cut", lambda about: own(about)["setting"].update(top_k=8, top_p=0.95)))
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
        about["spaces"][0]["dimensions"] = dimensions
        own(about)["classes"] = classes

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


def test_a_null_among_the_left_out_is_no_interval(record: Run) -> None:
    def null(trial: dict[str, Any]) -> None:
        if trial["kind"] == "quality" and trial["arm"] == "radial":
            trial["quality"][0]["fd"]["left_out"][1] = None

    run = changed(only(record, "quality"), "null", trial=null)
    assert results_of(run).row("radial").figures["fd"].low is None
    table = orderbench.reports.load(run)
    assert table.query("metric == 'fd' and arm == 'radial'")["low"].isna().all()


def test_a_floor_of_another_n_says_so(record: Run) -> None:
    """A Frechet distance depends on n: 60 test images are no floor of 256 samples."""

    def fewer(trial: dict[str, Any]) -> None:
        if (trial["kind"], trial["arm"]) == ("floor", "real"):
            for result in trial["quality"]:
                result["n"] = 7

    for run, marked in ((record, False), (changed(record, "fewer", trial=fewer), True)):
        results = results_of(run)
        table = tables_of(results)[0]
        shown = "(real n=7)" if marked else "(real)"
        assert shown in [row.cells["arm"] for row in table.rows]
        assert shown in printed(summary.summary(results, 120), 120)


def test_images_that_may_have_been_seen_are_not_called_held_out(record: Run) -> None:
    def doubt(about: dict[str, Any]) -> None:
        own(about)["held_out"] = {"images": 24, "sha256": "0" * 64, "source": "a tenth of the images of x",
                                  "unseen": False}  # fmt: skip

    table = tables_of(results_of(changed(record, "seen", about=doubt)))[0]
    assert "images that the weights may have seen" in table.caption
    assert "held-out" not in table.caption
