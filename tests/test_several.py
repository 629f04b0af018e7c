"""Several models in one run: every arm is held against its own model's baseline, and everything says whose it is."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from kept import Text, changed, model, only, own, printed, several, without_baseline

from orderbench.orders import BenchError
from orderbench.reports import figures, summary
from orderbench.reports.canvas import Sheet
from orderbench.reports.check import Rules, check, exit_code
from orderbench.reports.compare import baseline_arm, compare_arms, compare_runs, named_arm, notes
from orderbench.reports.figures import PLOTS
from orderbench.reports.frame import frame_of
from orderbench.reports.join import join
from orderbench.reports.page import write_report
from orderbench.reports.results import Results, own_model, results_of, to_json
from orderbench.reports.snapshot import snapshot
from orderbench.reports.table import to_csv
from orderbench.reports.tables import tables_of
from orderbench.runs.record import Run

HALTON, HILBERT = "halton@cosine:4~par", "hilbert@cosine:4~par"


@pytest.fixture(scope="module")
def both(record: Run) -> Results:
    return results_of(several(record))


def test_a_row_knows_its_model_and_is_measured_against_its_baseline(both: Results, results: Results) -> None:
    assert [(row.model, row.own, row.baseline, row.ratio) for row in (both.row("radial"), both.row(HILBERT))] == [
        ("toy-model", True, "raster", True), ("par", False, HALTON, False),
    ]  # fmt: skip
    assert both.row("radial").against == results.row("radial").against
    assert both.row("radial").speedup == results.row("radial").speedup
    hilbert, halton = both.row(HILBERT), both.row(HALTON)
    apart = hilbert.figures["fd"].value - halton.figures["fd"].value
    assert hilbert.against["fd"].value == pytest.approx(apart)
    assert hilbert.speedup == halton.against == {}
    assert (both.baseline, both.baselines, both.models) == ("raster", ("raster", HALTON), ("toy-model", "par"))
    assert [(floor.name, floor.model) for floor in both.floors] == [
        ("real", ""), ("reconstructed", "toy-model"), ("noise~par", "par"),
    ]  # fmt: skip


def test_tables_have_a_column_for_the_model_and_no_ratio_where_there_is_none(both: Results, results: Results) -> None:
    for table in tables_of(both):
        assert any(column.key == "model" for column in table.columns)
    assert not any(column.key == "model" for table in tables_of(results) for column in table.columns)
    speed = {table.name: table for table in tables_of(both)}["speed"]
    rows = {row["arm"]: row for row in csv.DictReader(io.StringIO(to_csv(speed)))}
    assert (rows[HILBERT]["model"], rows[HILBERT]["speedup_batch_1"], rows[HILBERT]["step_ratio"]) == ("par", "", "")
    assert rows[HILBERT]["uncached_speedup"] == rows[HALTON]["speedup_batch_1"] == ""
    assert float(rows["radial"]["speedup_batch_1"]) > 1
    assert "the baseline of its own model" in speed.caption
    heads = [column.head for column in speed.columns]
    assert "\N{MULTIPLICATION SIGN} its model's baseline, batch 1" in heads


@pytest.fixture(scope="module")
def page(both: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole report."""
    return write_report([both.run], tmp_path_factory.mktemp("several"))


def figures_of(page: Path) -> set[str]:
    return {file.stem for file in (page.parent / "figures").glob("*.svg")}


def test_figures_and_summary_say_whose_an_arm_is(both: Results, page: Path) -> None:
    absent = {"fd-by-steps-tuned", "passes-by-tax"}  # no arm is tuned, and none is decoded in drafts
    assert figures_of(page) == {plot.name for plot in PLOTS} - absent
    assert {row.line for row in both.arms} == {"raster", "radial", "radial+nested", "hilbert~par", "halton~par"}
    drawn = figures.quality_by_steps("fd")(both, Sheet())
    assert drawn is not None
    said = {text.get_text() for axes in drawn.axes for text in axes.texts}
    said |= {text.get_text() for legend in drawn.legends for text in legend.get_texts()}
    assert any("halton~par" in text for text in said)
    for width in (80, 120):
        shown = printed(summary.summary(both, width), width)
        assert "model" in shown
        assert "refused: raster~par: par does not serve this plan: it decodes groups" in " ".join(shown.split())
        assert "\u2026" not in shown
    assert to_json(both)["refused"] == both.run.about["refused"] != {}
    assert {row["model"] for row in to_json(both)["arms"]} == {"toy-model", "par"}


def test_the_page_says_which_models(both: Results, page: Path) -> None:
    words = " ".join(" ".join(Text(page.read_text()).words).split())
    for said in (
        "toy-model.safetensors, 4x4 cells; par.safetensors, 4x4 cells", "Several networks", "Against its model's",
        f"SHA-256 {'1' * 64}", "weights par", "What the weights of par saw in training", "noise codes~par",
        "Refused: raster~par: par does not serve this plan", "raster against itself at batch 1",
    ):  # fmt: skip
        assert said in words, said
    frame = frame_of(both.run)
    assert set(frame.query("model == 'par'")["arm"]) == {HALTON, HILBERT}


def test_arms_of_two_models_are_compared_where_they_may_be(both: Results) -> None:
    found = {(line.arm, line.metric): (line.verdict, line.why) for line in compare_arms(both)}
    assert (HALTON, "fd") not in found
    assert found[HILBERT, "kd"][0] in ("better", "worse", "no difference shown")
    assert (HILBERT, "x, batch 1") not in found  # no ratio to a native arm
    assert notes(compare_arms(both), both)[0].startswith(f"Against raster and {HALTON}, each model's own.")
    assert baseline_arm(both.run) is None
    assert named_arm(both.run, "radial~toy-model") == "radial"
    asked = results_of(both.run, None, "radial")
    found = {(line.arm, line.metric): (line.verdict, line.why) for line in compare_arms(asked)}
    assert found[HALTON, "kd"][0] in ("better", "worse", "no difference shown")
    assert found[HALTON, "x, batch 1"][0] in ("better", "worse", "no difference shown")

    def other_tokens(about: dict[str, Any]) -> None:
        about["models"]["par"]["tokenizer"] = {"name": "other", "code_sizes": [5], "sha256": "2" * 64}

    other = results_of(changed(both.run, "other", other_tokens), None, "radial")
    found = {(line.arm, line.metric): (line.verdict, line.why) for line in compare_arms(other)}
    assert found[HALTON, "bits"] == ("not comparable", "the tokenizers differ, and with them the codes")
    assert found[HALTON, "kd"] == ("not comparable", "the tokenizers differ, and with them the images")


def test_models_without_any_baseline_have_no_one_arm_that_all_are_compared_with(record: Run) -> None:
    def none(about: dict[str, Any]) -> None:
        for one in about["models"].values():
            one.update(baseline=None, ratio=False)

    alone = changed(several(record), "none", none)
    assert baseline_arm(alone) is None
    assert baseline_arm(alone, HALTON) == HALTON
    with pytest.raises(BenchError, match="the run has no baseline; name an arm"):
        compare_arms(results_of(alone))


def test_floors_of_the_runs_own_model_stay_where_all_arms_are_of_others(record: Run) -> None:
    def others(about: dict[str, Any]) -> None:
        about["arms"] = [arm for arm in about["arms"] if arm["model"] == "par"]

    found = results_of(changed(several(record), "others", others))
    assert [(floor.name, floor.model, floor.own) for floor in found.floors] == [
        ("real", "", True), ("reconstructed", "toy-model", True), ("noise~par", "par", False),
    ]  # fmt: skip
    assert not any(row.own for row in found.arms)
    assert own_model({**found.run.about, "config": {"systems": ["par"]}}) == ""


def test_a_decoder_whose_work_varies_shows_the_steps_it_took(record: Run, tmp_path: Path) -> None:
    def trial(trial: dict[str, Any]) -> None:
        if (trial["kind"], trial["arm"]) == ("quality", "radial"):
            trial.update(n_steps=2.5 + trial["seed"], counters_exact=False)

    def about(about: dict[str, Any]) -> None:
        about["arms"][2]["traits"] = ["exact", "varies"]

    results = results_of(changed(only(record, "quality"), "varies", about, trial))
    assert (results.row("radial").n_steps, results.row("radial+nested").n_steps) == (3.0, 4)
    assert not results.row("radial").counters_exact
    halves = results_of(changed(results.run, "halves", trial=lambda trial: trial.update(n_steps=3.25)))
    assert halves.row("radial").n_steps == 3.25
    assert [row["n_steps"] for row in csv.DictReader(io.StringIO(to_csv(tables_of(halves)[0])))][2] == "3.25"
    page = write_report([only(halves.run, "quality", arms=("radial",))], tmp_path)
    assert "3.2 on 4x4" in Text(page.read_text()).words


def test_runs_of_several_models_are_joined_checked_and_compared(both: Results, record: Run) -> None:
    halves = [only(both.run, "quality", "floor"), changed(only(both.run, "likelihood", "latency", "repair"), "half")]
    (part,) = join(halves)
    assert list(part.run.about["models"]) == ["toy-model", "par"]
    assert results_of(part.run).row(HILBERT).against == both.row(HILBERT).against
    (mixed,) = join([only(record, "quality"), changed(only(both.run, "likelihood"), "second")])
    assert {arm["model"] for arm in mixed.run.about["arms"]} == {"toy-model", "par"}
    parts = join([record, changed(record, "other", model)])
    assert "the models differ" in parts[0].notes[0]
    assert exit_code(check(both, snapshot(both), Rules(max_fd_increase=5))) in (0, 4)
    stored = json.loads(json.dumps(snapshot(both)))
    stored["models"]["par"]["sha256"] = "3" * 64
    with pytest.raises(BenchError, match=r"another model \(par.safetensors 33333333\) than the run \(par.*11111111\)"):
        check(both, stored, Rules())
    changed_par = results_of(changed(both.run, "again", lambda about: about["models"]["par"].update(sha256="4" * 64)))
    lines = compare_runs(both, changed_par)
    assert notes(lines, both, changed_par)[0] == (
        "The runs differ in their models (par.safetensors 11111111, par.safetensors 44444444)."
    )


def test_a_run_without_a_baseline_lacks_ratios_and_nothing_else(record: Run, tmp_path: Path) -> None:
    alone = results_of(without_baseline(record))
    assert (alone.baseline, alone.baselines, alone.noise, alone.uncached) == (None, (), {}, None)
    named = {table.name: table for table in tables_of(alone)}
    assert set(named) == {"main", "quality", "speed", "correction"}
    for table in named.values():
        if table.name != "correction":  # with correction against without, whatever the baseline
            assert not any(key in column.key for column in table.columns for key in ("speedup", "difference", "ratio"))
    assert not any(row.arm == "A/A" for row in named["speed"].rows)
    for width in (80, 120):
        shown = printed(summary.summary(alone, width), width)
        assert "times faster" not in shown
        assert "None" not in shown
    page = write_report([only(alone.run, "likelihood", "latency")], tmp_path)
    assert figures_of(page) == {
        "bits-by-steps", "tax", "latency-by-step", "cells-over-time", "memory", "orders",
    }  # fmt: skip
    assert "None" not in " ".join(Text(page.read_text()).words)
    with pytest.raises(BenchError, match="the run has no baseline; name an arm to compare with, as in --baseline ARM"):
        compare_arms(alone)
    asked = results_of(alone.run, None, baseline_arm(alone.run))
    assert asked.baseline == "raster"
    assert asked.row("radial").speedup
    judged = check(alone, snapshot(alone), Rules())
    assert exit_code(judged) == 4
    assert [f.says for f in judged if f.verdict != "pass"] == [
        "nothing but counters was judged; limit more, as by --max-fd-increase 5, or ask for --only counters"
    ]
    assert exit_code(check(alone, snapshot(alone), Rules(only=("counters",)))) == 0


def test_a_native_baseline_in_groups_gives_differences_and_no_ratio(record: Run, tmp_path: Path) -> None:
    run = changed(record, "native", lambda about: own(about).update(baseline="radial", ratio=False, native="radial"))
    results = results_of(run)
    assert results.row("halton@cosine:4").against
    assert not any(row.speedup for row in results.arms)
    assert "bits - radial" in [column.head for table in tables_of(results) for column in table.columns]
    words = " ".join(" ".join(Text(write_report([only(run, "likelihood")], tmp_path).read_text()).words).split())
    assert "Against radial " in words
    assert "Against radial, one cell at a time" not in words
    shown = printed(summary.summary(results, 120), 120)
    assert "Speed" in [line.strip() for line in shown.splitlines()]
    assert not any(words in shown for words in ("times faster", "A/A", "x, batch 1"))
