"""`bench compare`: what may be judged is judged, and for what may not, or has no other side, it says why."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kept import RECORD, changed, fewer_groups, hardware, own, plan, printed, setting
from test_cli import bench

from orderbench.orders import BenchError
from orderbench.reports.compare import (
    Comparison,
    anything_judged,
    baseline_arm,
    busy,
    compare_arms,
    compare_runs,
    judged,
    named_arm,
    notes,
    to_json,
)
from orderbench.reports.join import join
from orderbench.reports.results import Results, results_of
from orderbench.reports.snapshot import snapshot
from orderbench.reports.statistics import Interval
from orderbench.reports.summary import comparison
from orderbench.reports.words import bounds
from orderbench.runs.arms import parse_arm
from orderbench.runs.record import Run, load_run

ARMS = {"raster", "raster@even:4", "radial", "radial+nested", "hilbert@cosine:4", "halton@cosine:4"}


def kept(folder: Path, change: Callable[[dict[str, Any], dict[str, dict[str, Any]]], object]) -> Run:
    """The kept record in a folder of its own, after a change to `run.json` and its trials, by kind and arm."""
    shutil.copytree(RECORD, folder)
    about = json.loads((folder / "run.json").read_text())
    files = {file: json.loads(file.read_text()) for file in (folder / "trials").iterdir()}
    change(about, {f"{t['kind']} {t['arm'] or t['batch']} {t['seed']}": t for t in files.values() if "arm" in t})
    for file, trial in {folder / "run.json": about, **files}.items():
        file.write_text(json.dumps(trial))
    return load_run(folder)


def plainly(about: dict[str, Any]) -> None:
    """Dimensions so few that n is not small."""
    about["subject"]["spaces"][0]["dimensions"] = 4


def cooler(about: dict[str, Any], trials: dict[str, dict[str, Any]]) -> None:
    for one in (about["setting"], *(trial["sampling"] for trial in trials.values() if "sampling" in trial)):
        one["temperature"] = 0.5


def only_arms(about: dict[str, Any], *arms: str) -> None:
    about["arms"] = [arm for arm in about["arms"] if arm["name"] in arms]


def without(about: dict[str, Any], *kinds: str) -> None:
    about["trials"] = [trial for trial in about["trials"] if not trial.startswith(kinds)]


def found(lines: list[Comparison], arm: str) -> dict[str, tuple[str, str]]:
    return {line.metric: (line.verdict, line.why) for line in lines if line.arm == arm}


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(load_run(RECORD))


# One run


def test_a_busy_machine_leaves_speeds_unjudged(results: Results, tmp_path: Path) -> None:
    loaded = kept(
        tmp_path / "busy", lambda about, _: about["environments"][0].update(clock={"load_average": [9.5] * 3})
    )
    assert busy(results.run) == ""
    assert busy(loaded) == snapshot(results_of(loaded))["busy"] == "other programs were running (load 9.5 on 2 cores)"
    quiet, said = found(compare_arms(results), "radial"), found(compare_arms(results_of(loaded)), "radial")
    assert quiet["x, batch 1"] == ("better", "")
    assert said["x, batch 1"] == said["x, batch 2"] == ("not judged", "the machine was busy")
    assert said["bits"] == quiet["bits"]
    for sides in ((results, results_of(loaded)), (results_of(loaded), results)):
        lines = compare_runs(*sides)
        assert found(lines, "radial")["latency_s"] == ("not judged", "the machine was busy")
        assert any("other programs were running (load 9.5" in note for note in notes(lines, *sides))
    assert found(compare_runs(results, results), "radial")["latency_s"] == ("no difference shown", "")


def test_a_run_without_its_own_baseline_is_compared_with_its_first_arm(tmp_path: Path) -> None:
    def change(about: dict[str, Any], _: Any) -> None:
        only_arms(about, "radial", "radial+nested")

    run = kept(tmp_path / "run", change)
    assert (baseline_arm(run), baseline_arm(run, "radial+nested")) == ("radial", "radial+nested")
    assert baseline_arm(load_run(RECORD)) == "raster"
    done = bench("compare", str(run.folder), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["baseline"] == "radial"
    assert {line["arm"] for line in document["lines"]} == {"radial+nested", "(real)", "(reconstructed)"}
    shown = bench("compare", str(run.folder), "--baseline", "radial@native+nested:margin=1")
    assert shown.returncode == 0, shown.stderr
    assert "Against radial+nested; the run's own baseline, raster, is no arm of it." in " ".join(shown.stdout.split())
    wrong = bench("compare", str(run.folder), "--baseline", "raster")
    assert wrong.returncode == 2
    assert "the run has no arm 'raster' to compare with; it has radial, radial+nested" in wrong.stderr


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("radial", "radial"),
        ("radial:width=1.0@native", "radial"),
        ("radial+nested:margin=1", "radial+nested"),
        ("raster@one", "raster"),
        ("radial@one", "radial@one"),  # another plan than its rings
        ("rim-first", "rim-first"),  # an order that is not known here
    ],
)
def test_arms_have_more_than_one_spelling(text: str, name: str) -> None:
    def spell(arm: str) -> str:
        try:
            return parse_arm(arm).name
        except BenchError:
            return arm

    run = load_run(RECORD)
    assert named_arm(run, text, spell) == name
    own = replace(run, about={**run.about, "arms": [*run.about["arms"], {"name": "rim-first", "sizes": [4]}]})
    assert named_arm(own, "rim-first", lambda _: "never asked") == "rim-first"


def test_no_interval_is_a_verdict_of_its_own(results: Results, tmp_path: Path) -> None:
    assert judged("fd", Interval(-5.0)) == "no interval"
    assert judged("fd", Interval(-5.0, -6.0, 1.0)) == "no difference shown"

    def change(about: dict[str, Any], trials: dict[str, dict[str, Any]]) -> None:
        plainly(about)
        for name, trial in trials.items():
            if name.startswith("quality radial "):
                trial["quality"][0]["fd"]["left_out"] = None
            if name.startswith("latency"):
                trial["rounds"] = trial["rounds"][:2]

    once = results_of(kept(tmp_path / "once", change))
    said = found(compare_arms(once), "radial")
    assert said["fd"] == ("no interval", "too few samples")
    assert said["precision"] == said["recall"] == ("no interval", "never resampled")
    assert said["x, batch 1"] == ("no interval", "under 3 rounds")
    both = found(compare_runs(results, once), "radial")
    assert both["fd"][0] == both["precision"][0] == both["latency_s"][0] == both["x, batch 1"][0] == "no interval"


def test_n_space_and_floors_stand_beside_quality(results: Results) -> None:
    for lines, sides in ((compare_arms(results), (results,)), (compare_runs(results, results), (results, results))):
        by = {(line["arm"], line["metric"]): line for line in to_json(lines)}
        assert (by["radial", "fd"]["n"], by["radial", "fd"]["space"]) == ([48, 48], results.space)
        assert (by["radial", "bits"]["n"], by["radial", "bits"]["space"]) == ([24, 24], None)
        for floor in ("real", "reconstructed"):
            line = by[f"({floor})", "fd"]
            assert line["verdict"] == "floor"
            assert line["after"]["value"] == next(r for r in results.floors if r.arm == floor).figures["fd"].value
        text = " ".join(notes(lines, *sides))
        assert f"n = 48 x 2 seeds in the space {results.space} (8 dimensions) against toy.npz/train" in text
        assert "of 24 held-out images" in text


def agreeing(right: dict[str, str]) -> Callable[[dict[str, Any]], None]:
    """Which of the images of an arm agree, in both seeds."""

    def trial(trial: dict[str, Any]) -> None:
        if trial["kind"] == "quality" and trial["arm"] in right:
            packed = bytes.fromhex(right[trial["arm"]])
            share = sum(byte.bit_count() for byte in packed) / 48
            trial["quality"][0]["agreement"].update(value=share, right=right[trial["arm"]])

    return trial


def test_agreement_is_judged_by_the_images_that_differ(record: Run) -> None:
    """Two of 48 images in each seed: a share's interval holds 0, however the groups fall."""
    few = results_of(changed(record, "few", trial=agreeing({"raster": "ff" * 6, "radial": "ff" * 5 + "fc"})))
    many = results_of(changed(record, "many", trial=agreeing({"raster": "ff" * 6, "radial": "ff" * 5 + "00"})))
    for results, verdict, value in ((few, "no difference shown", -2 / 48), (many, "worse", -8 / 48)):
        line = next(one for one in compare_arms(results) if (one.arm, one.metric) == ("radial", "agreement"))
        assert line.difference is not None
        assert (line.verdict, line.difference.value) == (verdict, pytest.approx(value))
        row = results.row("raster").figures["agreement"]
        assert row.high == row.value == 1
        assert 0.9 < row.low < 1  # type: ignore[operator]
    older = next(one for one in compare_arms(results_of(record)) if (one.arm, one.metric) == ("radial", "agreement"))
    assert older.difference is not None  # the number alone is known: as wide as of two samples that share nothing
    assert older.difference.value == 0
    assert older.difference.high == -older.difference.low > 0.1  # type: ignore[operator]


def test_floors_of_two_runs_have_a_difference_or_a_reason(record: Run, results: Results) -> None:
    def fewer(trial: dict[str, Any]) -> None:
        if trial["kind"] == "floor":
            trial["quality"][0]["n"] = 40

    other = results_of(changed(record, "fewer", trial=fewer))
    for after, why in ((results, ""), (other, "n = 48 and 40")):
        floors = [line for line in compare_runs(results, after) if line.verdict == "floor"]
        assert {line.arm for line in floors} == {"(real)", "(reconstructed)"}
        for line in floors:
            if line.metric in ("fd", "kd", "agreement"):
                assert line.why == why
                assert (line.difference is None) == bool(why)
        shown = printed(comparison(floors, ("one", "two")), 100)
        assert "floor: n = 48 and 40" in shown or not why
        fd = next(line for line in floors if line.metric == "fd")
        assert fd.difference is None or fd.difference.value == 0
        assert bounds(fd.before).partition(" ")[2] not in shown  # type: ignore[arg-type] # no interval of one run's own


def test_a_seed_that_failed_lifts_no_ban(tmp_path: Path) -> None:
    def fail(_: dict[str, Any], trials: dict[str, dict[str, Any]]) -> None:
        failed = trials["quality radial 0"]
        failed.update(status="failed", reason="no memory")
        del failed["n"], failed["quality"]

    lines = compare_arms(results_of(kept(tmp_path / "failed", fail)))
    assert found(lines, "radial")["fd"] == ("not judged", "too small n")


def test_what_another_tokenizer_made_is_not_compared(results: Results, tmp_path: Path) -> None:
    def another(about: dict[str, Any], _: Any) -> None:
        about["subject"]["tokenizer"]["sha256"] = "other"

    def none(about: dict[str, Any], _: Any) -> None:
        del about["subject"]["tokenizer"]

    pixels = "one of the two decodes pixels within its times and the other does not"
    for name, change, speed in (("another", another, ""), ("none", none, pixels)):
        said = found(compare_runs(results, results_of(kept(tmp_path / name, change))), "radial")
        assert said["fd"] == ("not comparable", "the tokenizers differ, and with them the images")
        assert said["latency_s"][1] == speed


def test_kernel_distances_to_other_numbers_of_images_are_not_compared(results: Results, tmp_path: Path) -> None:
    def whole(_: dict[str, Any], trials: dict[str, dict[str, Any]]) -> None:
        for trial in trials.values():
            for entry in trial.get("quality", ()):
                entry["kd"] = {**entry["kd"], "n_reference": 60}

    said = found(compare_runs(results, results_of(kept(tmp_path / "whole", whole))), "radial")
    assert said["kd"] == (
        "not comparable",
        "the numbers of reference images differ (48, 60), as of an older orderbench",
    )
    assert said["fd"] == ("no difference shown", "")


def test_a_frechet_distance_of_few_samples_is_not_judged_between_arms(results: Results, tmp_path: Path) -> None:
    lines = compare_arms(results)  # 48 samples in 8 dimensions
    assert found(lines, "radial")["fd"] == ("not judged", "too small n")
    assert found(lines, "radial")["kd"][0] == "no difference shown"
    assert any("FD is not judged" in note for note in notes(lines, results))
    enough = results_of(kept(tmp_path / "enough", lambda about, _: plainly(about)))
    assert found(compare_arms(enough), "radial")["fd"][0] in ("better", "worse", "no difference shown")
    assert found(compare_runs(results, results), "radial")["fd"] == ("no difference shown", "")  # one arm, one bias
    for name, change in (
        ("model", lambda about, _: about["subject"]["model"].update(sha256="other")),
        ("setting", cooler),
        ("dtype", lambda about, _: about["config"].update(dtype="bf16")),
    ):
        other = results_of(kept(tmp_path / name, change))
        lines = compare_runs(results, other)
        assert found(lines, "radial")["fd"] == ("not judged", "too small n")
        assert any(note.startswith("The runs differ in their ") for note in notes(lines, results, other))


def test_what_the_baseline_lacks_is_said(tmp_path: Path) -> None:
    def change(about: dict[str, Any], trials: dict[str, dict[str, Any]]) -> None:
        without(about, "quality-radial-", "likelihood-radial-")
        for name, trial in trials.items():
            if name.startswith("latency"):
                trial["rounds"] = [[s for s in one if s["name"] != "radial"] for one in trial["rounds"]]

    said = found(compare_arms(results_of(kept(tmp_path / "run", change), None, "radial")), "raster")
    assert said["fd"] == said["bits"] == ("not comparable", "radial has none")
    assert said["x, batch 1"] == ("not comparable", "radial was not timed")


# Two runs


def test_what_one_side_alone_has_is_listed(results: Results, tmp_path: Path) -> None:
    def change(about: dict[str, Any], _: Any) -> None:
        without(about, "latency", "likelihood", "quality-hilbert")
        only_arms(about, *ARMS - {"halton@cosine:4"})

    less = results_of(kept(tmp_path / "less", change))
    none = ("not comparable", "the second run has none")
    lines = compare_runs(results, less)
    said = found(lines, "radial")
    assert [said[m] for m in ("bits", "latency_s", "images_per_s", "x, batch 1", "x, batch 2")] == [none] * 5
    assert said["fd"][0] == "no difference shown"
    assert found(lines, "hilbert@cosine:4")["fd"] == none
    assert found(lines, "halton@cosine:4") == {"arm": none}
    back = compare_runs(less, results)
    assert found(back, "halton@cosine:4") == {"arm": ("not comparable", "the first run has none")}
    assert found(back, "radial")["bits"] == ("not comparable", "the first run has none")
    assert {line.arm for line in back} == {line.arm for line in lines} == ARMS | {"(real)", "(reconstructed)"}


def test_other_batches_are_other_throughputs(results: Results, tmp_path: Path) -> None:
    other = kept(tmp_path / "other", lambda _, trials: trials["latency 2 0"].update(batch=4))
    said = found(compare_runs(results, results_of(other)), "radial")
    assert said["images_per_s"] == ("not comparable", "the batches differ (2, 4)")
    assert said["x, batch 4"] == ("not comparable", "the first run has none")
    assert said["latency_s"][0] == "no difference shown"


def test_counters_that_are_means_are_shown_and_not_judged(record: Run) -> None:
    def means(trial: dict[str, Any]) -> None:
        if trial["kind"] == "latency":
            trial["counters"]["radial"]["passes"] = 3.5
            trial["counters_exact"]["radial"] = False

    one, two = results_of(record), results_of(changed(record, "means", trial=means))
    (line,) = (line for line in compare_runs(one, two) if (line.arm, line.metric) == ("radial", "passes"))
    assert (line.before, line.after, line.verdict, line.why) == (4, 3.5, "not judged", "a mean over samples")
    assert "3.5" in printed(comparison([line], ("before", "after")))
    raster = [line for line in compare_runs(one, two) if (line.arm, line.metric) == ("raster", "passes")]
    assert [line.verdict for line in raster] == ["same"]


def test_nothing_measured_alike_is_exit_code_4(tmp_path: Path) -> None:
    quality = kept(tmp_path / "quality", lambda about, _: without(about, "latency", "likelihood"))
    speed = kept(tmp_path / "speed", lambda about, _: without(about, "quality", "likelihood", "floor"))
    done = bench("compare", str(quality.folder), str(speed.folder))
    assert done.returncode == 4, done.stderr
    assert "counters are the same" in done.stdout  # exact, and no measurement
    assert anything_judged(compare_runs(results_of(quality), results_of(quality)))
    others = kept(tmp_path / "others", lambda about, _: only_arms(about, "radial"))
    apart = kept(tmp_path / "apart", lambda about, _: only_arms(about, "raster"))
    done = bench("compare", str(others.folder), str(apart.folder), "--json")
    assert done.returncode == 4, done.stderr
    document = json.loads(done.stdout)
    assert document["exit_code"] == 4
    assert [(one["arm"], one["why"]) for one in document["lines"] if one["verdict"] == "not comparable"] == [
        ("radial", "the second run has none"), ("raster", "the first run has none"),
    ]  # fmt: skip


# Two runs, and whether they may be compared


def compared(record: Run, about: Any = None, trial: Any = None) -> dict[str, str]:
    """By metric of radial, why it is not comparable with the same run after a change."""
    other = results_of(changed(record, "other", about or (lambda _: None), trial or (lambda _: None)))
    lines = compare_runs(results_of(record), other)
    return {line.metric: line.why for line in lines if line.arm == "radial" and line.verdict == "not comparable"}


SPEEDS = {"x, batch 1", "x, batch 2", "latency_s", "images_per_s"}


@pytest.mark.parametrize(
    ("about", "trial", "metrics", "why"),
    [
        (plan, None, SPEEDS, "the plans differ"),
        (setting, None, SPEEDS,
         "the sampling settings differ (guidance none and linear:scale=3), and sampling is part of what is timed"),
        (None, hardware, SPEEDS, "the hardware or its threads differ"),
        (lambda about: about["config"].update(data="other"), None, {"bits"}, "the held-out images differ"),
        (lambda about: about["spaces"][0].update(reference="other"), None, {"fd", "kd"},
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
        own(about)["held_out"] = {"images": 24, "sha256": digest}
        about["spaces"][0]["reference_sha256"] = digest

    one = changed(record, "one", digested)
    assert {"fd", "kd", "bits"} <= compared(one, lambda about: digested(about, "b")).keys()
    assert compared(one, lambda about: about["config"].update(data="renamed")) == {}
    assert compared(record, digested) == {}
    parts = join([one, changed(record, "two", lambda about: digested(about, "b"))])
    notes = " ".join(note for part in parts for note in part.notes)
    assert "the held-out images differ" in notes
    assert "differ, though not by name" in notes
