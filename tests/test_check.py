"""`bench check`: it fails where something got worse, says so where it cannot tell, and cries no wolf."""

import copy
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from test_cli import bench

from orderbench.orders import BenchError
from orderbench.reports.check import (
    Finding,
    Rules,
    check,
    exit_code,
    read_rules,
    read_snapshot,
    snapshot,
    to_json,
    to_junit,
    to_markdown,
)
from orderbench.reports.results import Results, results_of
from orderbench.reports.statistics import Interval, quotient
from orderbench.runs.record import Run, write_arrays, write_json

DEVICE = {"cpu": "a", "gpu": None, "threads": 2, "device": "cpu"}


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
        "schema": 1, "kind": "orderbench run", "created": "2026-11-23T00:00:00+00:00", "baseline": "raster",
        "setting": {"guidance": "none", "temperature": 1.0, "top_k": 0, "top_p": 1.0}, "config": {}, "environments": [],
        "subject": {"model": {"name": "toy", "sha256": "m"}, "tokenizer": {"sha256": "t"},
                    "spaces": [{"space": "toy-1", "dimensions": 4, "reference": "toy"}]},
        "arms": [{"name": name, "plan_digest": name, "n_steps": n, "sizes": [16 // n] * n, "training_share": None}
                 for name, n in (("raster", 16), ("radial", 4))],
    }  # fmt: skip
    per = {"raster": 0.8, "A/A": 0.8, "radial": 0.1 * slower}
    times = [
        [{"name": name, "repeats": 1, "tokens_s": t * float(np.exp(noise * rng.standard_normal())), "pixels_s": None}
         for name, t in per.items()]
        for _ in range(rounds)
    ]  # fmt: skip
    trials: dict[str, dict[str, Any]] = {
        "latency": {"trial": "latency", "kind": "latency", "arm": "", "seed": 0, "setting": "fixed", "status": "done",
                    "batch": 1, "rounds": times, "device": DEVICE,
                    "counters": {name: {**counters, **more.get("counters", {})} for name in per}},
    }  # fmt: skip
    for arm in ("raster", "radial"):
        base = 10 + (fd / 10 if arm == "radial" else 0)
        left = [base + 0.02 * float(np.sin(g)) for g in range(20)]
        trials[f"q-{arm}"] = {
            "trial": f"q-{arm}", "kind": "quality", "arm": arm, "seed": 0, "setting": "fixed", "status": "done",
            "n": 400, "sampling": {}, "counters": counters,
            "quality": [{"space": "toy-1", "n": 400, "fd": {"value": base, "left_out": left}}],
        }  # fmt: skip
        trials[f"l-{arm}"] = {"trial": f"l-{arm}", "kind": "likelihood", "arm": arm, "seed": 0, "setting": "fixed",
                              "status": "done", "n": 100}  # fmt: skip
        bits = np.linspace(1, 3, 100) + more.get("bits", 0.0)
        write_arrays(folder / "data" / f"l-{arm}.bits.npz", {"bits_N": bits, "singly_N": bits})
    about["trials"] = list(trials)
    write_json(folder / "run.json", about)
    for name, trial in trials.items():
        write_json(folder / "trials" / f"{name}.json", trial)
    return results_of(Run(folder, about, trials))


def verdicts(findings: list[Finding]) -> dict[tuple[str, str], str]:
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
    baseline = snapshot(made(tmp_path / "before"))
    for seed in range(1, 21):
        assert exit_code(check(made(tmp_path / f"same-{seed}", seed), baseline, Rules())) in (0, 4)
        findings = check(made(tmp_path / f"slow-{seed}", seed, slower=1.25), baseline, Rules())
        assert verdicts(findings)["max-speedup-loss", "radial"] == "regressed"
        assert exit_code(findings) == 3
    faster = check(made(tmp_path / "fast", slower=0.7), baseline, Rules())
    assert verdicts(faster)["max-speedup-loss", "radial"] == "improved"


def test_counters_are_exact(tmp_path: Path) -> None:
    baseline = snapshot(made(tmp_path / "before"))
    assert verdicts(check(made(tmp_path / "same"), baseline, Rules()))["counters", "radial"] == "pass"
    more = check(made(tmp_path / "more", counters={"passes": 17}), baseline, Rules())
    assert verdicts(more)["counters", "radial"] == "regressed"
    assert "passes 16 -> 17" in next(f.says for f in more if f.rule == "counters")
    fewer = check(made(tmp_path / "fewer", counters={"passes": 15}), baseline, Rules())
    assert verdicts(fewer)["counters", "radial"] == "improved"


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
        ({"device": {**DEVICE, "cpu": "b"}}, "max-speedup-loss", "the hardware or its threads differ"),
        ({"space": "other"}, "max-fd-increase", "the space differs"),
        ({"setting": {}}, "max-fd-increase", "the setting differs"),
        ({"tokenizer": "u"}, "max-bits-increase", "the tokenizers differ"),
    ):
        other = {**copy.deepcopy(baseline), **change}
        findings = check(results, other, Rules(max_fd_increase=5, max_bits_increase=5))
        found = next(f for f in findings if f.rule.startswith(rule) and f.arm == "radial")
        assert found.verdict == "not comparable"
        assert why in found.says
    other = copy.deepcopy(baseline)
    other["arms"]["radial"]["plan_digest"] = "another"
    other["arms"]["spiral"] = other["arms"]["raster"]
    findings = check(results, other, Rules())
    assert {f.verdict for f in findings if f.arm in ("radial", "spiral")} == {"not comparable"}
    assert exit_code([f for f in findings if f.arm == "spiral"]) == 4
    missing = check(results, None, Rules(min_speedup={"halton/raster": 2}))
    assert (missing[0].verdict, missing[0].says) == ("not comparable", "the run did not time halton")
    at_64 = check(results, None, Rules(min_speedup={"radial/raster": 2}, batch=64))
    assert at_64[0].says == "the run measured no speed at batch 64"


def test_absolute_times_only_if_asked(tmp_path: Path) -> None:
    baseline = snapshot(made(tmp_path / "before"))
    after = made(tmp_path / "after", slower=1.5)
    assert not any(f.rule.startswith("max-slowdown") for f in check(after, baseline, Rules()))
    found = verdicts(check(after, baseline, Rules(max_slowdown=20)))
    assert found["max-slowdown", "radial"] == "regressed"
    assert found["max-slowdown", "raster"] == "pass"


def test_a_failed_arm_is_a_regression(tmp_path: Path) -> None:
    results = made(tmp_path)
    results.run.trials["q-radial"].update(status="failed", reason="out of memory")
    findings = check(results_of(results.run), None, Rules(min_speedup={"radial/raster": 3}))
    assert exit_code(findings) == 3
    assert findings[1].says == "failed: out of memory"


def test_nothing_asked_is_refused_and_rules_are_strict(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="nothing was asked of the run; give a baseline"):
        check(made(tmp_path), None, Rules())
    file = tmp_path / "check.toml"
    file.write_text('max-fd-increase = 5\n[min-speedup]\n"radial/raster" = 3\n')
    assert read_rules(str(file), {"max_fd_increase": 7.0, "batch": None}) == Rules(
        max_fd_increase=7.0, min_speedup={"radial/raster": 3}
    )
    for text, sentence in (
        ("max-fd-increese = 5", "did you mean 'max_fd_increase'"),
        ("max-fd-increase = -5", "percent, 0 or more"),
        ('min-speedup = {"radial" = 3}', "is no pair of arms"),
        ('min-speedup = {"radial/raster" = 0}', "a speed-up of 0 is not served"),
        ("max-fd-increase = [", "could not be read"),
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


def test_quotients_add_their_widths_as_squares() -> None:
    one = quotient(Interval(2.0, 1.8, 2.2), Interval(1.0, 0.9, 1.1))
    assert one.value == 2
    assert one.low is not None
    assert 1 < one.low < 1.8
    assert quotient(Interval(2.0), Interval(1.0, 0.9, 1.1)).low is None
