"""`bench check`: it fails where something got worse, says so where it cannot tell, and cries no wolf."""

import copy
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np
import pytest
from kept import RECORD, blank, own
from rich.console import Console
from test_cli import BENCH, bench
from typer.testing import CliRunner

from orderbench.orders import BenchError
from orderbench.reports.check import (
    CheckFinding,
    CheckVerdict,
    Rules,
    check,
    exit_code,
    read_rules,
    to_json,
    to_junit,
    to_markdown,
)
from orderbench.reports.results import Results, results_of
from orderbench.reports.snapshot import read_snapshot, snapshot
from orderbench.reports.statistics import Interval, jackknife, quotient
from orderbench.reports.summary import findings_table
from orderbench.runs.arms import parse_arm
from orderbench.runs.cli import app
from orderbench.runs.record import Run, load_run, write_arrays, write_json
from orderbench.runs.schema import TRIALS, RunAbout

GUIDED = {"guidance": "linear:scale=3", "temperature": 1.0, "top_k": 0, "top_p": 1.0}
SETTING = {"guidance": "none", "temperature": 1.0, "top_k": 0, "top_p": 1.0}
DEVICE = {"cpu": {"model": "a", "cores_logical": 2}, "gpu": None, "threads": {"torch": 2}, "device": "cpu"}


def made(
    folder: Path,
    seed: int = 0,
    slower: float = 1.0,
    noise: float = 0.03,
    fd: float = 0.0,
    rounds: int = 12,
    **more: Any,
) -> Results:
    """A run of raster and radial: radial eight times faster, `slower` times slower than that; its Frechet distance
    `fd` percent above 10."""
    rng = np.random.default_rng(seed)
    counters = {"passes": 16, "content_tokens": 16, "query_tokens": 16, "cache_bytes": 512}
    about = {
        "schema": 2, "kind": "orderbench run", "created": "2026-11-23T00:00:00+00:00", "refused": {}, "device": "cpu",
        "config": {"data": more.get("data"), "dtype": more.get("dtype", "fp32")},
        "environments": [{"clock": {"load_average": [more.get("load", 1.0), 1.0, 1.0]}}],
        "models": {"toy": {"name": "toy", "sha256": more.get("model", "m"), "lattice": "4x4", "code_sizes": [7],
                           "classes": 1, "native": "raster", "setting": SETTING, "baseline": "raster", "ratio": True,
                           "tokenizer": {"name": "toy", "code_sizes": [7], "sha256": "t"}}},
        "spaces": [{"space": "toy-1", "dimensions": 4, "reference": "toy", "reference_sha256": None}],
        "arms": [{"name": name, "order": name, "pace": "native", "decoder": "off", "model": "toy", "traits": [],
                  "plan": None, "plan_digest": name, "per_sample": False, "n_steps": n, "sizes": [16 // n] * n,
                  "training_share": None, "training_share_at_pace": None, "predicted_tax_bits": None}
                 for name, n in (("raster", 16), ("radial", 4))],
    }  # fmt: skip
    per = {"raster": 0.8, "A/A": 0.8 * more.get("apart", 1.0), "radial": 0.1 * slower}
    times = [
        [{"name": name, "repeats": 1, "tokens_s": t * float(np.exp(noise * rng.standard_normal())), "pixels_s": None}
         for name, t in per.items()]
        for _ in range(rounds)
    ]  # fmt: skip
    trials: dict[str, dict[str, Any]] = {
        "latency": {"trial": "latency", "kind": "latency", "arm": "", "seed": 0, "setting": "fixed", "status": "done",
                    "batch": 1, "rounds": times, "device": DEVICE, "clock_after": {"load_average": [2.0, 2.0, 2.0]},
                    "counters": {name: {**counters, **more.get("counters", {})} for name in per},
                    "counters_exact": {name: more.get("exact", True) for name in per}, "flops_per_image": {},
                    "sampling": SETTING},
    }  # fmt: skip
    for arm in ("raster", "radial"):
        base = 10 + (fd / 10 if arm == "radial" else 0)
        left = [base + 0.02 * float(np.sin(g)) for g in range(more.get("groups", 20))]
        trials[f"q-{arm}"] = {
            "trial": f"q-{arm}", "kind": "quality", "arm": arm, "seed": 0, "setting": "fixed", "status": "done",
            "n": 400, "sampling": SETTING, "counters": counters, "counters_exact": True, "flops_per_image": None,
            "plan_digest": arm,
            "quality": [{"space": "toy-1", "reference": "toy", "n": 400, "fd": {"value": base, "left_out": left}}],
        }  # fmt: skip
        trials[f"l-{arm}"] = {"trial": f"l-{arm}", "kind": "likelihood", "arm": arm, "seed": 0, "setting": "fixed",
                              "status": "done", "n": 100, "plan_digest": arm}  # fmt: skip
        bits = more.get("bits_N", np.linspace(1, 3, 100)) + more.get("bits", 0.0)
        write_arrays(folder / "data" / f"l-{arm}.bits.npz", {"bits_N": bits, "singly_N": bits})
    about["trials"] = list(trials)
    write_json(folder / "run.json", about)
    for name, trial in trials.items():
        write_json(folder / "trials" / f"{name}.json", {**blank(TRIALS[trial["kind"]]), **trial})
    return results_of(Run(folder, cast(RunAbout, about), trials))


def varied(stored: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A snapshot after a change to itself or, where that is where a thing is said, to its model."""
    other = copy.deepcopy(stored)
    for name, value in changes.items():
        (other["models"]["toy"] if name in other["models"]["toy"] else other)[name] = value
    return other


def verdicts(findings: list[CheckFinding]) -> dict[tuple[str, str], str]:
    return {(f.rule.split()[0], f.arm): f.verdict for f in findings}


def test_a_least_speedup_passes_fails_or_stays_open(tmp_path: Path) -> None:
    results = made(tmp_path)
    for least, verdict, code in ((3, "pass", 0), (8, "inconclusive", 4), (12, "regressed", 3)):
        findings = check(results, None, Rules(min_speedup={"radial/raster": least}))
        assert [f.verdict for f in findings] == [verdict]
        assert exit_code(findings) == code
    few = made(tmp_path / "few", rounds=2)
    (open_one,) = check(few, None, Rules(min_speedup={"radial/raster": 3}))
    assert open_one.verdict == "inconclusive"
    assert "three rounds or more" in open_one.says


def test_unchanged_code_passes_and_a_slower_arm_is_caught(tmp_path: Path) -> None:
    baseline = snapshot(made(tmp_path / "before", rounds=15))
    caught = 0
    for seed in range(1, 21):
        assert exit_code(check(made(tmp_path / f"same-{seed}", seed, rounds=15), baseline, Rules())) in (0, 4)
        findings = check(made(tmp_path / f"slow-{seed}", seed, slower=1.25, rounds=15), baseline, Rules())
        assert exit_code(findings) in (3, 4)
        caught += verdicts(findings)["max-speedup-loss", "radial"] == "regressed"
    assert caught >= 18
    faster = check(made(tmp_path / "fast", slower=0.7), baseline, Rules())
    assert verdicts(faster)["max-speedup-loss", "radial"] == "improved"


def test_what_another_tokenizer_made_is_not_compared(tmp_path: Path) -> None:
    before = snapshot(made(tmp_path / "before"))
    asked = Rules(max_fd_increase=5.0, max_speedup_loss=10.0)
    for tokenizer, speed in (("another", "pass"), ("", "not comparable")):
        found = verdicts(check(made(tmp_path / "after"), varied(before, tokenizer=tokenizer), asked))
        assert found["max-fd-increase", "radial"] == "not comparable"
        assert found["max-speedup-loss", "radial"] == speed


def test_counters_are_exact(tmp_path: Path) -> None:
    baseline = snapshot(made(tmp_path / "before"))
    assert verdicts(check(made(tmp_path / "same"), baseline, Rules()))["counters", "radial"] == "pass"
    more = check(made(tmp_path / "more", counters={"passes": 17}), baseline, Rules())
    assert verdicts(more)["counters", "radial"] == "regressed"
    assert "passes 16 -> 17" in next(f.says for f in more if f.rule == "counters")
    fewer = check(made(tmp_path / "fewer", counters={"passes": 15}), baseline, Rules())
    assert verdicts(fewer)["counters", "radial"] == "improved"


def test_counters_that_are_means_are_shown_and_bind_nobody(tmp_path: Path) -> None:
    baseline = snapshot(made(tmp_path / "before", exact=False, counters={"passes": 14.25}))
    after = made(tmp_path / "after", exact=False, counters={"passes": 14.5})
    for rules in (Rules(), Rules(counters=True)):
        findings = check(after, baseline, rules)
        (found,) = (f for f in findings if f.rule == "counters" and f.arm == "radial")
        assert (found.verdict, found.asked) == ("not comparable", False)
        assert found.says == "they are means over samples, which depend on what is drawn; passes 14.25 -> 14.5"
        assert exit_code(findings) == 0
    exact = made(tmp_path / "exact", counters={"passes": 14})
    assert verdicts(check(exact, baseline, Rules()))["counters", "radial"] == "not comparable"


@pytest.mark.parametrize(("fd", "verdict"), [(0.0, "pass"), (3.0, "pass"), (20.0, "regressed"), (-20.0, "improved")])
def test_quality_is_judged_by_its_paired_interval(tmp_path: Path, fd: float, verdict: str) -> None:
    baseline = snapshot(made(tmp_path / "before"))
    findings = check(made(tmp_path / "after", fd=fd), baseline, Rules(max_fd_increase=5))
    assert verdicts(findings)["max-fd-increase", "radial"] == verdict
    worse = check(made(tmp_path / "bits", bits=0.5), baseline, Rules(max_bits_increase=5))
    assert verdicts(worse)["max-bits-increase", "radial"] == "regressed"


def test_what_may_not_be_compared_says_why(tmp_path: Path) -> None:
    results = made(tmp_path)
    baseline = snapshot(results)
    for change, rule, why in (
        ({"device": {**DEVICE, "gpu": {}}}, "max-speedup-loss", "the hardware or its threads differ"),
        ({"device": {**DEVICE, "gpu": {}}}, "max-slowdown", "the hardware or its threads differ"),
        (
            {"setting": GUIDED},
            "max-speedup-loss",
            "the sampling settings differ (guidance linear:scale=3 and none), and sampling is part of what is timed",
        ),
        ({"space": "other"}, "max-fd-increase", "the feature spaces differ (other, toy-1)"),
        ({"reference": {"name": "other", "sha256": None}}, "max-fd-increase", "the references differ (other, toy)"),
        ({"setting": GUIDED}, "max-fd-increase", "the sampling settings differ (guidance linear:scale=3 and none)"),
        ({"tokenizer": "u"}, "max-bits-increase", "the tokenizers differ"),
        ({"images": {"name": "other", "sha256": None}}, "max-bits-increase", "the held-out images differ"),
        ({"baseline": "radial"}, "max-speedup-loss", "the baselines differ (radial, raster)"),
        ({"lattice": "8x8"}, "counters", "the lattices differ (8x8, 4x4)"),
    ):
        other = varied(baseline, **change)
        findings = check(results, other, Rules(max_fd_increase=5, max_bits_increase=5, max_slowdown=5))
        found = next(f for f in findings if f.rule.startswith(rule) and f.arm == "radial")
        assert found.verdict == "not comparable"
        assert why in found.says
    other = copy.deepcopy(baseline)
    other["arms"]["radial"]["plan_digest"] = "another"
    other["arms"]["spiral"] = other["arms"]["raster"]
    findings = check(results, other, Rules())
    assert {f.verdict for f in findings if f.arm in ("radial", "spiral")} == {"not comparable"}
    assert exit_code([f for f in findings if f.arm == "spiral"]) == 4
    (absent,) = check(results, None, Rules(min_speedup={"radail/raster": 2}))
    assert absent.says == "no arm named 'radail'; did you mean 'radial'? (those of the run)"
    assert (absent.verdict, exit_code([absent])) == ("not comparable", 4)
    trial = results.run.trials["latency"]
    trial["rounds"] = [[s for s in one if s["name"] != "radial"] for one in trial["rounds"]]
    missing = check(results, None, Rules(min_speedup={"radial/raster": 2, "raster/A/A": 0.5}))
    assert (missing[0].verdict, missing[0].says) == ("not comparable", "the run did not time radial")
    assert missing[1].verdict == "pass"
    at_64 = check(results, None, Rules(min_speedup={"radial/raster": 2}, batch=64))
    assert at_64[0].says == "the run measured no speed at batch 64"


def kinds(results: Results, *wanted: str) -> Results:
    """What a run would have that measured these alone."""
    trials = {name: trial for name, trial in results.run.trials.items() if trial["kind"] in wanted}
    return results_of(Run(results.run.folder, {**results.run.about, "trials": list(trials)}, trials))


def test_a_rule_that_was_asked_for_and_cannot_be_judged_does_not_pass(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole")
    baseline = snapshot(whole)
    quality, speed = kinds(whole, "quality", "likelihood"), kinds(whole, "latency")
    for now, then, rules in (
        (quality, baseline, Rules(max_slowdown=5)),
        (quality, snapshot(quality), Rules(max_slowdown=5)),
        (quality, snapshot(quality), Rules(min_speedup={"radial/raster": 2})),
        (quality, baseline, Rules(max_speedup_loss=10)),
        (quality, snapshot(quality), Rules(max_speedup_loss=10)),
        (whole, snapshot(quality), Rules(max_speedup_loss=10)),
        (speed, baseline, Rules(max_fd_increase=5)),
        (speed, baseline, Rules(max_bits_increase=5)),
        (speed, snapshot(speed), Rules(max_bits_increase=5)),
        (whole, varied(baseline, space="other"), Rules(max_fd_increase=5)),
    ):
        findings = check(now, then, rules)
        assert "pass" in verdicts(findings).values()  # counters
        assert exit_code(findings) == 4, rules
        assert exit_code(check(now, then, Rules(only=("counters",)))) == 0  # who asks for less says so
        alike = now is speed and then == snapshot(speed)
        assert exit_code(check(now, then, Rules())) == (0 if alike else 4)
        assert any(f.asked and f.verdict == "not comparable" for f in findings)
    text = "max-slowdown = 5\n"
    (tmp_path / "check.toml").write_text(text)
    assert exit_code(check(quality, baseline, read_rules(str(tmp_path / "check.toml"), {}))) == 4


# Every way in which a check could end with 0 though something that the baseline holds was not measured again, or not
# alike. Each is one change to a run that passes against itself.

Documents = tuple[dict[str, Any], dict[str, dict[str, Any]]]


def of_timing(change: Callable[[dict[str, Any]], object], batch: int = 16) -> Callable[[Documents], object]:
    return lambda run: change(run[1][f"latency-{batch}" if batch > 1 else "latency"])


def of_samples(change: Callable[[dict[str, Any]], object]) -> Callable[[Documents], object]:
    return lambda run: change(run[1]["q-radial"])


def of_model(**changes: Any) -> Callable[[Documents], object]:
    return lambda run: run[0]["models"]["toy"].update(changes)


def of_arm(**changes: Any) -> Callable[[Documents], object]:
    return lambda run: run[0]["arms"][1].update(changes)


def setting(**changes: Any) -> Callable[[Documents], object]:
    return of_model(setting={**SETTING, **changes})


def without_trial(*names: str) -> Callable[[Documents], object]:
    def change(run: Documents) -> None:
        for name in names:
            del run[1][name]
            run[0]["trials"].remove(name)

    return change


def untimed(trial: dict[str, Any]) -> None:
    trial["rounds"] = [[sample for sample in one if sample["name"] != "radial"] for one in trial["rounds"]]


WAYS: dict[str, Callable[[Documents], object]] = {
    "another plan, as of 64 steps for 8": of_arm(plan_digest="another"),
    "a plan that is not said": of_arm(plan_digest=None),
    "another decoder": of_arm(decoder="nested"),
    "an arm less": lambda run: run[0]["arms"].pop(),
    "another temperature": setting(temperature=0.5),
    "another guidance": setting(guidance="linear:scale=3"),
    "another top-k": setting(top_k=5),
    "another top-p": setting(top_p=0.9),
    "another lattice": of_model(lattice="8x8"),
    "weights that are not said": of_model(sha256=None),
    "another tokenizer": of_model(tokenizer={"name": "toy", "code_sizes": [7], "sha256": "u"}),
    "no tokenizer": lambda run: run[0]["models"]["toy"].pop("tokenizer"),
    "another baseline of the speed-ups": of_model(baseline="radial"),
    "another type of the weights": lambda run: run[0]["config"].update(dtype="bf16"),
    "a type of the weights that is not said": lambda run: run[0]["config"].update(dtype=None),
    "no latency at all": without_trial("latency", "latency-16"),
    "no latency at one batch": without_trial("latency-16"),
    "no throughput": without_trial("latency"),
    "another batch": of_timing(lambda trial: trial.update(batch=64)),
    "an arm that was not timed": of_timing(untimed),
    "another arm's times alone": of_timing(untimed, batch=1),
    "other threads": of_timing(lambda trial: trial.update(device={**DEVICE, "threads": {"torch": 1}}), batch=1),
    "other threads at one batch": of_timing(lambda trial: trial.update(device={**DEVICE, "threads": {"torch": 1}})),
    "a quota": of_timing(lambda t: t.update(device={**DEVICE, "cpu": {**DEVICE["cpu"], "quota_cores": 0.1}}), batch=1),
    "another machine": of_timing(lambda t: t.update(device={**DEVICE, "gpu": {"name": "H100"}}), batch=1),
    "a machine that is not said": of_timing(lambda trial: trial.update(device={}), batch=1),
    "timings that were cut off": of_timing(lambda trial: trial.update(status="partial")),
    "no counters": of_timing(lambda trial: trial["counters"].update(radial={}), batch=1),
    "a counter less": of_timing(lambda trial: trial["counters"]["radial"].pop("query_tokens"), batch=1),
    "a counter less in one trial": of_timing(lambda trial: trial["counters"]["radial"].pop("cache_bytes")),
    "counters that became means": of_timing(lambda trial: trial["counters_exact"].update(radial=False)),
    "no samples": without_trial("q-radial"),
    "fewer samples": of_samples(lambda trial: trial.update(n=100)),
    "another seed": of_samples(lambda trial: trial.update(seed=1)),
    "other groups": of_samples(lambda trial: trial["quality"][0]["fd"]["left_out"].pop()),
    "a metric less": of_samples(lambda trial: trial["quality"][0].pop("kd")),
    "a metric that is not finite": of_samples(lambda trial: trial["quality"][0]["fd"].update(value=None)),
    "another space": lambda run: [run[0]["spaces"][0].update(space="other-1")] + [
        trial["quality"][0].update(space="other-1") for trial in run[1].values() if trial["kind"] == "quality"],
    "another reference": lambda run: run[0]["spaces"][0].update(reference_sha256="b"),
    "a reference that is not said": lambda run: run[0]["spaces"][0].update(reference_sha256=None),
    "no likelihood": without_trial("l-radial"),
    "fewer held-out images": lambda run: run[1]["l-radial"].update(n=50),
    "other held-out images": of_model(held_out={"images": 100, "sha256": "b"}),
    "held-out images that are not said": lambda run: run[0]["models"]["toy"].pop("held_out"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole_gate(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of everything that a baseline holds: two batches, two metrics, likelihood, and digests of all of them."""
    run = made(tmp_path_factory.mktemp("gate")).run
    timing = run.trials["latency"]
    run.trials["latency-16"] = copy.deepcopy({**timing, "trial": "latency-16", "batch": 16})
    run.about["trials"].append("latency-16")
    own(run.about)["held_out"] = {"images": 100, "sha256": "a"}
    run.about["spaces"][0]["reference_sha256"] = "a"
    for trial in run.trials.values():
        if trial["kind"] == "quality":
            trial["quality"][0]["kd"] = copy.deepcopy(trial["quality"][0]["fd"])
    return run


def judged_after(run: Run, change: Callable[[Documents], object], rules: Rules) -> list[CheckFinding]:
    about, trials = copy.deepcopy((run.about, run.trials))
    change((cast(dict[str, Any], about), trials))
    return check(results_of(Run(run.folder, about, trials)), json.loads(json.dumps(snapshot(results_of(run)))), rules)


LIMITED = Rules(max_fd_increase=5, max_bits_increase=5, max_slowdown=900, max_speedup_loss=50)


@pytest.mark.parametrize("rules", [Rules(), LIMITED], ids=["no rule", "all rules"])
@pytest.mark.parametrize("way", WAYS)
def test_what_the_baseline_holds_is_measured_again_and_alike(whole_gate: Run, way: str, rules: Rules) -> None:
    findings = judged_after(whole_gate, WAYS[way], rules)
    assert exit_code(findings) == 4
    open_ones = [f for f in findings if f.verdict in ("not comparable", "inconclusive")]
    assert open_ones
    assert all(f.says for f in open_ones)


def test_what_is_measured_again_and_alike_passes(whole_gate: Run) -> None:
    for rules in (Rules(), LIMITED, Rules(only=("counters", "quality"))):
        findings = judged_after(whole_gate, lambda run: None, rules)
        assert exit_code(findings) == 0, [f for f in findings if f.verdict != "pass"]
    renamed = judged_after(whole_gate, of_model(name="elsewhere"), Rules())
    assert exit_code(renamed) == 0  # the same weights


def test_counters_of_every_trial_are_compared(whole_gate: Run) -> None:
    for batch in (1, 16):
        more = of_timing(lambda trial: trial["counters"]["radial"].update(query_tokens=17), batch)
        findings = judged_after(whole_gate, more, Rules())
        (found,) = (f for f in findings if (f.rule, f.arm) == ("counters", "radial"))
        assert (found.verdict, found.says) == ("regressed", "query_tokens 16 -> 17")
        assert exit_code(findings) == 3
    sampled = judged_after(whole_gate, of_samples(lambda trial: trial["counters"].update(passes=17)), Rules())
    assert exit_code(sampled) == 3


def test_counters_of_one_trial_alone_are_measured_again(whole_gate: Run) -> None:
    about, trials = copy.deepcopy((whole_gate.about, whole_gate.trials))
    trials["latency-16"]["counters"]["radial"]["passes"] = 40
    baseline = snapshot(results_of(Run(whole_gate.folder, about, trials)))
    del trials["latency-16"]
    about["trials"].remove("latency-16")
    findings = check(results_of(Run(whole_gate.folder, about, trials)), baseline, Rules(only=("counters",)))
    assert ("radial", "the run did not count any of batch 16") in [(f.arm, f.says) for f in findings if f.asked]
    assert exit_code(findings) == 4


def test_less_is_asked_only_in_words(whole_gate: Run, tmp_path: Path) -> None:
    lost = without_trial("latency", "latency-16")
    assert exit_code(judged_after(whole_gate, lost, Rules(only=("counters", "quality", "likelihood")))) == 0
    assert exit_code(judged_after(whole_gate, of_samples(lambda t: t.update(n=9)), Rules(only=("latency",)))) == 0
    with pytest.raises(BenchError, match="no part of a baseline named 'speed'; known: counters, latency"):
        Rules(only=("speed",))
    with pytest.raises(BenchError, match="max-fd-increase asks of quality, which --only leaves out; give one of them"):
        Rules(only=("counters",), max_fd_increase=5)
    (tmp_path / "rules.toml").write_text('only = ["counters"]\n')
    assert read_rules(str(tmp_path / "rules.toml"), {"only": None}).only == ("counters",)


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"max_speedup_loss": 150.0}, "max-speedup-loss of 150 is not served; percent, 0 or more and below 100"),
        ({"max_speedup_loss": 100.0}, "max-speedup-loss of 100 is not served"),
        ({"max_fd_increase": 1e300}, "max-fd-increase of 1e[+]300 is not served; percent, 0 or more and below 1000"),
        ({"max_bits_increase": float("nan")}, "max-bits-increase of nan is not served"),
        ({"max_slowdown": float("inf")}, "max-slowdown of inf is not served"),
        ({"min_speedup": {"radial/raster": float("inf")}}, "a speed-up of inf is not served"),
        ({"min_speedup": {"radial/raster": float("nan")}}, "a speed-up of nan is not served"),
    ],
)
def test_a_limit_that_nothing_passes_is_none(rules: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        Rules(**rules)


@pytest.mark.parametrize("pair", ["radial/radial", "raster/raster@one", "A/A/A/A", "radial/radial:width=1.0@native"])
def test_an_arm_is_not_set_against_itself(tmp_path: Path, pair: str) -> None:
    with pytest.raises(BenchError, match="sets an arm against itself, which proves nothing; name two"):
        check(made(tmp_path), None, Rules(min_speedup={pair: 1}), lambda arm: parse_arm(arm).name)


@pytest.mark.parametrize("least", ["1e999", "\uff13", "1_0", "nan", "inf", "", "\u0663"])
def test_a_least_speedup_is_a_plain_number(least: str) -> None:
    result = CliRunner().invoke(app, ["check", str(RECORD), "--min-speedup", f"radial/raster={least}"])
    assert "is no least speed-up; it is spelled ARM/ARM=X" in str(result.exception)


def test_a_verdict_is_kept_when_its_reader_leaves(tmp_path: Path) -> None:
    made(tmp_path / "slow", slower=2)
    write_json(tmp_path / "b.json", snapshot(made(tmp_path / "run")))
    words = [
        "check",
        str(tmp_path / "slow"),
        "--baseline",
        str(tmp_path / "b.json"),
        "--junit",
        str(tmp_path / "j.xml"),
    ]
    with subprocess.Popen([*BENCH, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()  # as `| head -0` does
        assert process.wait() == 3
    assert ElementTree.parse(tmp_path / "j.xml").getroot().get("failures") == "1"  # noqa: S314 (our own)


def test_an_arm_that_the_run_lacks_does_not_pass(tmp_path: Path) -> None:
    results = made(tmp_path)
    baseline = snapshot(results)
    baseline["arms"]["spiral"] = baseline["arms"]["radial"]
    findings = check(results, baseline, Rules())
    assert verdicts(findings)["counters", "radial"] == "pass"
    assert verdicts(findings)["arms", "spiral"] == "not comparable"
    assert exit_code(findings) == 4


def test_bits_bind_only_arms_that_can_have_them(tmp_path: Path) -> None:
    """Arms with correction have no likelihood, on neither side."""
    results = made(tmp_path)
    trials = {name: trial for name, trial in results.run.trials.items() if name != "l-radial"}
    without = results_of(Run(results.run.folder, {**results.run.about, "trials": list(trials)}, trials))
    rules = Rules(max_bits_increase=5)
    findings = check(without, snapshot(without), rules)
    assert verdicts(findings)["max-bits-increase", "raster"] == "pass"
    (open_one,) = (f for f in findings if f.verdict == "not comparable")
    assert (open_one.arm, open_one.says) == ("radial", "the baseline and the run have no likelihood of it")
    assert exit_code(findings) == 0
    for now, then, which in ((without, results, "the run"), (results, without, "the baseline")):
        findings = check(now, snapshot(then), rules)
        assert next(f.says for f in findings if f.verdict == "not comparable") == f"{which} has no likelihood of it"
        assert exit_code(findings) == 4


@pytest.mark.parametrize(
    "asked",
    [
        {"counters": True},
        {"max_fd_increase": 5.0},
        {"max_bits_increase": 5.0},
        {"max_slowdown": 5.0},
        {"max_speedup_loss": 5.0},
        {"any_model": True},
    ],
)
def test_what_needs_a_baseline_asks_for_one(tmp_path: Path, asked: dict[str, Any]) -> None:
    (name,) = (key.replace("_", "-") for key in asked)
    with pytest.raises(BenchError, match=rf"{name} compares with a baseline; .*--baseline FILE\|RUN"):
        check(made(tmp_path), None, Rules(min_speedup={"radial/raster": 2}, **asked))


def test_a_batch_without_its_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BenchError, match=r"batch 16 says where --min-speedup is asked; .*--min-speedup radial/raster=3"
    ):
        check(made(tmp_path), None, Rules(batch=16))


def test_weights_of_another_type_are_not_comparable(tmp_path: Path) -> None:
    fp32, bf16 = (made(tmp_path / dtype, dtype=dtype) for dtype in ("fp32", "bf16"))
    for trial in bf16.run.trials.values():
        if trial["kind"] == "latency":
            trial["counters"] = {
                name: {**c, "cache_bytes": c["cache_bytes"] // 2} for name, c in trial["counters"].items()
            }
    findings = check(results_of(bf16.run), snapshot(fp32), Rules(max_fd_increase=5))
    assert {f.verdict for f in findings} == {"not comparable"}
    assert {f.says for f in findings} == {"the weights' types differ (fp32, bf16)"}
    assert exit_code(findings) == 4
    earlier = varied(snapshot(fp32), dtype=None)
    assert exit_code(check(fp32, earlier, Rules())) == 0


def test_arms_are_taken_by_any_of_their_spellings(tmp_path: Path) -> None:
    results = made(tmp_path)
    named = {"radial:width=1.0@native/raster@one": 3.0, "radial/raster": 2.0}
    findings = check(results, None, Rules(min_speedup=named), lambda arm: parse_arm(arm).name)
    assert [(f.rule, f.verdict) for f in findings] == [("min-speedup radial/raster=2", "pass")]
    absent = Rules(min_speedup={"radial@one/raster": 3})
    (found,) = check(results, None, absent, lambda arm: parse_arm(arm).name)
    assert found.says.startswith("no arm named 'radial@one'; did you mean")
    done = bench("check", str(tmp_path), "--min-speedup", "radial+nested:margin=1/raster=3", "--json")
    assert done.returncode == 4
    assert "no arm named 'radial+nested'" in json.loads(done.stdout)["findings"][0]["says"]
    for arm, sentence in (("radail", "no order named 'radail'; did you mean 'radial'"),
                          ("raster@one", "sets an arm against itself, which proves nothing; name two")):  # fmt: skip
        done = bench("check", str(tmp_path), "--min-speedup", f"{arm}/raster=1")
        assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
    done = bench("check", str(tmp_path), "--min-speedup", "radial@native/raster@one=3", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["findings"][0]["rule"] == "min-speedup radial/raster=3"


def test_quality_says_of_how_many_and_in_what_space(tmp_path: Path) -> None:
    results = made(tmp_path)
    findings = check(results, snapshot(results), Rules(max_fd_increase=5, max_bits_increase=5))
    fd, bits = (
        next(f for f in to_json(findings)["findings"] if f["rule"].startswith(f"max-{m}")) for m in ("fd", "bits")
    )
    assert (fd["n"], fd["space"], fd["asked"]) == (400, "toy-1", True)
    assert fd["says"].endswith("; n = 400 in toy-1")
    assert (bits["n"], bits["space"]) == (100, None)
    assert bits["says"].endswith("; 100 held-out images")
    own(results.run.about)["held_out"] = {"images": 100, "sha256": "a", "unseen": False}
    seen = to_json(check(results, snapshot(results), Rules(max_bits_increase=5)))["findings"]
    said = [one["says"] for one in seen if one["rule"].startswith("max-bits")]
    assert said
    assert all(one.endswith("; 100 images that the weights may have seen") for one in said)


def test_a_run_that_measured_no_arm_is_no_baseline(tmp_path: Path) -> None:
    results = made(tmp_path / "run")
    for name, trial in results.run.trials.items():
        write_json(tmp_path / "run" / "trials" / f"{name}.json", {**trial, "status": "failed", "reason": "no memory"})
    sentence = "no trial of an arm of 'run' is finished, so it is no baseline; go on with bench run --resume"
    for arguments in (["baseline", "--out", str(tmp_path / "b.json")], ["check", "--baseline", str(tmp_path / "run")]):
        done = bench(arguments[0], str(tmp_path / "run"), *arguments[1:])
        assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "b.json").exists()


def test_absolute_times_only_if_asked(tmp_path: Path) -> None:
    baseline = snapshot(made(tmp_path / "before"))
    after = made(tmp_path / "after", slower=1.5)
    assert not any(f.rule.startswith("max-slowdown") for f in check(after, baseline, Rules()))
    found = verdicts(check(after, baseline, Rules(max_slowdown=20)))
    assert found["max-slowdown", "radial"] == "regressed"
    assert found["max-slowdown", "raster"] == "pass"


@pytest.mark.parametrize(
    ("trial", "change", "arm", "verdict", "says"),
    [
        ("q-radial", {"status": "failed", "reason": "\x1b[31mout of\x00 memory"}, "radial", "regressed",
         "failed: out of memory"),
        ("latency", {"status": "failed", "reason": "out of memory"}, "latency", "regressed", "failed: out of memory"),
        ("latency", {"failed_arms": {"radial": "out of memory"}}, "radial", "regressed", "failed: out of memory"),
        ("latency", {"status": "partial"}, "(run)", "inconclusive", "1 of 5 trials are not finished, such as latency"),
        ("q-raster", None, "(run)", "inconclusive", "1 of 5 trials are not finished, such as q-raster"),
    ],
)  # fmt: skip
def test_a_run_that_failed_or_was_cut_off_does_not_pass(
    tmp_path: Path, trial: str, change: dict[str, Any] | None, arm: str, verdict: CheckVerdict, says: str
) -> None:
    results = made(tmp_path)
    baseline = snapshot(results)
    if change is None:
        del results.run.trials[trial]
    else:
        results.run.trials[trial].update(change)
    for before, rules in ((baseline, Rules()), (None, Rules(min_speedup={"radial/raster": 3}))):
        findings = check(results_of(results.run), before, rules)
        found = next(f for f in findings if f.rule == "trials")
        assert (found.arm, found.verdict) == (arm, verdict)
        assert found.says.startswith(says)
        assert exit_code(findings) == (3 if verdict == "regressed" else 4)


def test_a_busy_machine_leaves_speed_open_and_nothing_else(tmp_path: Path) -> None:
    quiet, asked = made(tmp_path / "quiet"), Rules(min_speedup={"radial/raster": 3}, max_slowdown=50)
    busy = made(tmp_path / "busy", load=4.2)
    late = made(tmp_path / "late")
    late.run.trials["latency"]["clock_after"]["load_average"][0] = 3.5
    for now, then in ((busy, quiet), (late, quiet), (quiet, busy)):
        findings = verdicts(check(now, snapshot(then), asked))
        assert findings["max-speedup-loss", "radial"] == findings["max-slowdown", "radial"] == "inconclusive"
        assert findings["min-speedup", "radial"] == ("pass" if now is quiet else "inconclusive")
        assert findings["counters", "radial"] == "pass"
    (said, *_) = check(busy, None, Rules(min_speedup={"radial/raster": 3}))
    assert "other programs were running (load 4.2 on 2 cores)" in said.says
    assert exit_code(check(quiet, snapshot(quiet), asked)) == 0


def test_too_few_rounds_fail_nothing(tmp_path: Path) -> None:
    baseline, asked = snapshot(made(tmp_path / "before")), Rules(min_speedup={"radial/raster": 12}, max_slowdown=5)
    for rounds, verdict in ((4, "inconclusive"), (5, "regressed")):
        slow = made(tmp_path / f"{rounds}", rounds=rounds, slower=2, noise=0.003)
        assert [f.verdict for f in check(slow, baseline, asked) if "radial" in f.arm and f.rule != "counters"] == (
            [verdict] * 3
        )
    few = snapshot(made(tmp_path / "few", rounds=3, noise=0.003))
    found = verdicts(check(made(tmp_path / "slow", slower=2), few, Rules()))
    assert found["max-speedup-loss", "radial"] == "inconclusive"


def test_less_than_an_arm_differs_from_itself_fails_nothing(tmp_path: Path) -> None:
    quiet, noisy = snapshot(made(tmp_path / "quiet")), snapshot(made(tmp_path / "noisy", apart=1.2))
    slower = made(tmp_path / "slower", 1, slower=1.3)
    (caught,) = (f for f in check(slower, quiet, Rules()) if f.rule.startswith("max-speedup") and f.arm == "radial")
    assert caught.verdict == "regressed"
    for run, baseline in ((slower, noisy), (made(tmp_path / "both", 1, slower=1.3, apart=1.2), quiet)):
        (left,) = (f for f in check(run, baseline, Rules()) if f.rule.startswith("max-speedup") and f.arm == "radial")
        assert left.verdict == "inconclusive"
        assert "one arm timed twice differs by up to 2" in left.says
    least = Rules(min_speedup={"radial/raster": 8.8})
    assert [f.verdict for f in check(made(tmp_path / "one", 2), None, least)] == ["regressed"]
    assert [f.verdict for f in check(made(tmp_path / "two", 2, apart=1.2), None, least)] == ["inconclusive"]
    earlier = varied(quiet, noise={})
    assert exit_code(check(slower, earlier, Rules())) == 3


def test_a_baseline_of_another_model_is_refused_unless_any_will_do(tmp_path: Path) -> None:
    results, baseline = made(tmp_path / "now"), snapshot(made(tmp_path / "before", model="other"))
    with pytest.raises(BenchError, match=r"another model \(toy other\) than the run \(toy m\); .*--any-model"):
        check(results, baseline, Rules())
    file = tmp_path / "rules.toml"
    file.write_text("any-model = true\nmax-fd-increase = 5\nmax-bits-increase = 5\n")
    found = verdicts(check(results, baseline, read_rules(str(file), {"any_model": None})))
    assert found["counters", "radial"] == found["max-speedup-loss", "radial"] == "pass"
    assert found["max-fd-increase", "radial"] == found["max-bits-increase", "radial"] == "not comparable"
    named = varied(baseline, sha256=None)
    assert verdicts(check(results, named, Rules(max_fd_increase=5)))["max-fd-increase", "radial"] == "pass"


def test_the_same_images_are_told_by_their_digest_and_else_by_name(tmp_path: Path) -> None:
    def judged(change: Any) -> str:
        results = made(tmp_path / "now", data="there")
        baseline = snapshot(results)
        now: dict[str, Any] = {"model": own(results.run.about), "spaces": results.run.about["spaces"]}
        change(now, baseline)
        return verdicts(check(results, baseline, Rules(max_bits_increase=5, max_fd_increase=5)))[rule, "radial"]

    rule = "max-bits-increase"
    here = {"held_out": {"images": 100, "sha256": "a"}}
    assert (
        judged(lambda now, then: now["model"].update(here)) == "pass"
    )  # the baseline has no digest; the data is the same
    alike = {"name": "elsewhere", "sha256": "a", "images": 100}
    assert judged(lambda now, then: (now["model"].update(here), own(then).update(images=alike))) == "pass"
    other = {"name": "there", "sha256": "b", "images": 100}
    assert judged(lambda now, then: (now["model"].update(here), own(then).update(images=other))) == "not comparable"
    more = {"name": "there", "sha256": "b", "images": 200}  # as many as were needed, of the same data
    assert judged(lambda now, then: (now["model"].update(here), own(then).update(images=more))) == "pass"
    rule = "max-fd-increase"
    swapped = {"name": "toy", "sha256": "b"}
    assert judged(lambda now, then: then.update(reference=swapped)) == "not comparable"  # the run does not say its own
    assert judged(lambda now, then: now["spaces"][0].update(reference_sha256="a")) == "pass"  # nor the baseline
    assert judged(
        lambda now, then: (now["spaces"][0].update(reference_sha256="a"), then.update(reference=swapped))
    ) == "not comparable"  # fmt: skip


def test_groups_of_bits_hold_all_classes(tmp_path: Path) -> None:
    """Ten classes in turn, one of them dear: that is no noise, since every set of images has as many of it."""
    rng = np.random.default_rng(0)
    bits_N = np.where(np.arange(1000) % 10 == 3, 6.0, 1.0) + 0.1 * rng.standard_normal(1000)
    left_out = snapshot(made(tmp_path, bits_N=bits_N))["arms"]["radial"]["bits"]["left_out"]
    assert jackknife([(float(bits_N.mean()), left_out)]).error == pytest.approx(0.1 / 1000**0.5, rel=0.5)


def test_other_groups_are_not_comparable_and_a_null_is_no_group(tmp_path: Path) -> None:
    results, asked = made(tmp_path / "now"), Rules(max_fd_increase=5)
    other = snapshot(made(tmp_path / "other", groups=12))
    (found,) = (f for f in check(results, other, asked) if f.rule.startswith("max-fd") and f.arm == "radial")
    assert (found.verdict, found.says) == ("not comparable", "the groups of samples that are left out in turn differ")
    results.run.trials["q-radial"]["quality"][0]["fd"]["left_out"][3] = None
    again = results_of(results.run)
    assert verdicts(check(again, snapshot(again), asked))["max-fd-increase", "radial"] == "inconclusive"
    stored = snapshot(made(tmp_path / "again"))
    stored["arms"]["radial"]["quality"]["fd"]["0"]["left_out"][3] = None
    assert verdicts(check(made(tmp_path / "once"), stored, asked))["max-fd-increase", "radial"] == "inconclusive"


def test_nothing_asked_is_refused_and_rules_are_strict(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="nothing was asked of the run; give a baseline"):
        check(made(tmp_path), None, Rules())
    file = tmp_path / "check.toml"
    file.write_text('max-fd-increase = 5\n[min-speedup]\n"radial/raster" = 3\n')
    assert read_rules(str(file), {"max_fd_increase": 7.0, "batch": None}) == Rules(
        max_fd_increase=7.0, min_speedup={"radial/raster": 3}
    )
    for text, sentence in (
        ("max-fd-increese = 5", "did you mean 'max-fd-increase'"),
        ("max-fd-increase = -5", "percent, 0 or more"),
        ('min-speedup = {"radial" = 3}', "is no pair of arms"),
        ('min-speedup = {"radial/raster" = 0}', "a speed-up of 0 is not served"),
        ("max-fd-increase = [", "could not be read"),
        ("min-speedup = 3", "min-speedup of 3 is not served; a table, as in"),
        ('min-speedup = {"radial/raster" = "3"}', "a number, as in 3 would do"),
        ('batch = "1"', "batch of '1' is not served; a whole number of 1 or more"),
        ("max-slowdown = true", "max-slowdown of True is not served; a number of percent"),
        ("counters = 1", "counters of 1 is not served; true or false would do"),
        ("any-model = 1", "any-model of 1 is not served; true or false would do"),
    ):
        file.write_text(text)
        with pytest.raises(BenchError, match=sentence):
            read_rules(str(file), {})


def test_every_output_says_the_same(tmp_path: Path) -> None:
    findings = check(made(tmp_path), None, Rules(min_speedup={"radial/raster": 12, "raster/radial": 0.1}))
    assert to_json(findings)["exit_code"] == 3
    assert "| ❌ regressed | `radial` |" in to_markdown(findings).splitlines()[2]
    suite = ElementTree.fromstring(to_junit(findings))  # noqa: S314 (our own)
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert suite[0].find("failure") is not None
    hostile = [CheckFinding("trials", "radial", "regressed", "failed: \x1b[31m[/red] a \x00\ud800 |")]
    assert ElementTree.fromstring(to_junit(hostile))[0][0].get("message") == "failed: [/red] a  |"  # noqa: S314
    console = Console(width=80, file=io.StringIO())
    console.print(findings_table(hostile))
    assert "[/red] a" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_commands(tmp_path: Path) -> None:
    made(tmp_path / "run")
    written = bench("baseline", str(tmp_path / "run"), "--out", str(tmp_path / "b.json"))
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "b.json").stat().st_size < 10_000
    asked = ["check", str(tmp_path / "run"), "--baseline", str(tmp_path / "b.json"), "--max-fd-increase", "5"]
    done = bench(*asked, "--json", "--junit", str(tmp_path / "junit.xml"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["exit_code"] == 0
    assert (tmp_path / "junit.xml").read_text().startswith("<?xml")
    made(tmp_path / "slow", slower=2)
    slow = bench("check", str(tmp_path / "slow"), "--baseline", str(tmp_path / "run"), "--markdown")
    assert slow.returncode == 3
    assert "regressed | `radial`" in slow.stdout
    refused = bench("check", str(tmp_path / "run"), "--min-speedup", "radial/raster")
    assert refused.returncode == 2
    assert "it is spelled ARM/ARM=X, as in radial/raster=3" in refused.stderr
    assert bench("check", "--help").stdout.count("bench check ") >= 4
    with pytest.raises(BenchError, match="is no baseline of this suite"):
        read_snapshot(tmp_path / "run" / "run.json")


def test_a_file_that_is_not_whole_is_one_sentence(tmp_path: Path) -> None:
    whole = snapshot(made(tmp_path / "run"))
    file = tmp_path / "baseline.json"

    def changed(name: str, value: Any) -> dict[str, Any]:
        return {**whole, "arms": {**whole["arms"], "radial": {**whole["arms"]["radial"], name: value}}}

    for content, sentence in (
        ({"kind": "orderbench baseline", "schema": 1}, "has schema 1 and this orderbench reads 3; write it anew"),
        ({"kind": "orderbench baseline", "schema": 4}, "has schema 4 and .* reads 3: install a newer one, or write it"),
        ({**whole, "arms": {}}, "holds no arm; write it anew with bench baseline"),
        ({"kind": "orderbench baseline", "schema": 2}, r"has schema 2 and lacks part of what that .* 'model'\); write"),
        ({"kind": "orderbench baseline", "schema": 3}, "is no whole baseline: it lacks models, space"),
        ({**whole, "models": {}}, "says nothing of the model of raster"),
        ({**whole, "arms": {"radial": {}}}, "it lacks model, decoder, plan_digest, .* in arms.radial; write it anew"),
        ({**whole, "arms": 3}, "it gives arms as 3, and a table of names and values would do; write it anew"),
        (changed("latency_s", ["fast", 1, 2]), r"it gives arms.radial.latency_s\[0\] as 'fast', and a number would"),
        (
            changed("latency_s", [0, 1, 2]),
            r"it gives arms.radial.latency_s\[0\] as 0, and a number above 0 would",
        ),
        (
            changed("counters", {"passes": "many"}),
            r"it gives arms.radial.counters.passes as 'many', and a number would",
        ),
        (changed("counters", {"passes": -1}), r"it gives arms.radial.counters.passes as -1, and a number of 0 or more"),
        (changed("quality", {"fd": {"0": 7}}), r"it gives arms.radial.quality.fd.'0' as 7, and a table of names"),
    ):
        write_json(file, content)
        with pytest.raises(BenchError, match=sentence):
            read_snapshot(file)
    with pytest.raises(
        BenchError, match=r"no baseline '.*none.json'; --baseline takes .* `bench baseline RUN --out none"
    ):
        read_snapshot(tmp_path / "none.json")
    write_json(file, whole)
    assert read_snapshot(file) == json.loads(json.dumps(whole))
    for name in ("arms", "trials", "models", "config", "spaces"):
        about = json.loads((tmp_path / "run" / "run.json").read_text())
        write_json(tmp_path / "broken" / "run.json", {**about, name: None})
        wanted = "a list" if isinstance(about[name], list) else "a table of names and values"
        with pytest.raises(BenchError, match=f"run.json' gives {name} as null, and {wanted} would do; it is no whole"):
            load_run(tmp_path / "broken")


def test_our_own_gate_asks_what_the_docs_say() -> None:
    script = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    for words in ("--threads 1", "--any-model", "--max-speedup-loss 60", "--min-speedup radial/raster=2"):
        assert words in script


def test_quotients_add_their_widths_as_squares() -> None:
    one = quotient(Interval(2.0, 1.8, 2.2), Interval(1.0, 0.9, 1.1))
    assert one.value == 2
    assert one.low is not None
    assert 1 < one.low < 1.8
    assert quotient(Interval(2.0), Interval(1.0, 0.9, 1.1)).low is None
