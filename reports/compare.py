"""Comparison: what one run says of two arms, or two runs of one arm, and whether they may be compared at all.

Knows results and reasons. Refuses to call a difference real that its interval does not, and to compare what is not
comparable: then the reason stands in place of a number. `bench compare`, `bench check` and the report share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from orderbench.orders import BenchError
from orderbench.reports.results import (
    BETTER,
    METRICS,
    Replicates,
    Results,
    Row,
    differ,
    images_of,
    quality_replicates,
    reference_of,
)
from orderbench.reports.statistics import Interval, correspond, jackknife_difference, paired_mean

Verdict = Literal["better", "worse", "no difference shown", "same", "changed", "not comparable"]


@dataclass(frozen=True)
class Line:
    """One metric of one arm. before, after: its two sides; difference: after minus before, paired where noise is
    shared; why: the reason, where they are not comparable."""

    arm: str
    metric: str
    before: Interval | int | None
    after: Interval | int | None
    difference: Interval | None
    verdict: Verdict
    why: str = ""


def judged(metric: str, difference: Interval) -> Verdict:
    """Better or worse, if the whole interval lies on one side of 0."""
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return "no difference shown"
    return "better" if (difference.high < 0) == (BETTER[metric] == "low") else "worse"


def compare_arms(results: Results) -> list[Line]:
    """Every arm of a run against its baseline."""
    baseline = results.row(results.baseline)
    lines = []
    for row in results.arms:
        if row.arm == results.baseline or row.setting != "fixed":
            continue
        for metric, difference in row.against.items():
            lines.append(
                Line(row.arm, metric, baseline.figures.get(metric), row.figures.get(metric), difference,
                     judged(metric, difference))
            )  # fmt: skip
        for batch, ratio in row.speedup.items():
            lines.append(_speed(row.arm, f"x, batch {batch}", Interval(1.0), ratio))
    if not lines:
        raise BenchError(f"the run has nothing to compare with '{results.baseline}'; it has one arm, or none finished")
    return lines


def _speed(arm: str, metric: str, before: Interval, ratio: Interval) -> Line:
    verdict: Verdict = "no difference shown"
    if ratio.low is not None and ratio.high is not None:
        verdict = "better" if ratio.low > 1 else "worse" if ratio.high < 1 else verdict
    return Line(arm, metric, before, ratio, None, verdict)


def compare_runs(before: Results, after: Results) -> list[Line]:
    """What the second run says differently from the first, arm by arm.

    Quality and likelihood are paired, since equal seeds mean equal noise. Speed-ups are compared as ratios within each
    run; they and absolute times only under one plan and setting and on the same hardware. Raises BenchError
    where no arm is in both.
    """
    shared = [row.arm for row in before.arms if row.setting == "fixed" and _has(after, row.arm)]
    if not shared:
        raise BenchError(
            f"the runs share no arm: one has {', '.join(sorted({r.arm for r in before.arms}))}, the other "
            f"{', '.join(sorted({r.arm for r in after.arms}))}"
        )
    lines: list[Line] = []
    for arm in shared:
        one, two = before.row(arm), after.row(arm)
        why = "" if one.about["plan_digest"] == two.about["plan_digest"] else "the plans differ"
        lines += _counters(one, two, why)
        lines += _quality(before, after, one, two, why)
        lines += _likelihood(before, after, one, two, why)
        lines += _times(before, after, one, two, why)
    return lines


def _has(results: Results, arm: str) -> bool:
    return any(row.arm == arm and row.setting == "fixed" for row in results.arms)


def _counters(one: Row, two: Row, why: str) -> list[Line]:
    lines = []
    for name in one.counters:
        a, b = one.counters[name], two.counters.get(name)
        if b is not None:
            verdict: Verdict = "not comparable" if why else "same" if a == b else "changed"
            lines.append(Line(one.arm, name, a, b, None, verdict, why))
    return lines


def _quality(before: Results, after: Results, one: Row, two: Row, why: str) -> list[Line]:
    if not why and before.space != after.space:
        why = f"the feature spaces differ ({before.space}, {after.space})"
    if not why and differ(*(reference_of(side.run.about, side.space) for side in (before, after))):
        why = f"the references differ ({before.reference}, {after.reference})"
    if not why and one.n != two.n:
        why = f"n differs ({one.n}, {two.n})"
    lines = []
    for metric in METRICS:
        a, b = one.figures.get(metric), two.figures.get(metric)
        if a is None or b is None:
            continue
        pairs = _shared_seeds(before, after, one.arm, metric)
        reason = why or ("" if pairs is not None else "the seeds differ")
        if not reason and pairs is not None and not correspond(*pairs):
            reason = "the groups of samples that are left out in turn differ"
        if reason or pairs is None:
            lines.append(Line(one.arm, metric, a, b, None, "not comparable", reason))
        else:
            difference = jackknife_difference(*pairs)
            lines.append(Line(one.arm, metric, a, b, difference, judged(metric, difference)))
    return lines


def _shared_seeds(before: Results, after: Results, arm: str, metric: str) -> tuple[Replicates, Replicates] | None:
    sides = [quality_replicates(r.run, arm, "fixed", r.space, metric) for r in (before, after)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    return ([sides[0][s] for s in seeds], [sides[1][s] for s in seeds]) if seeds else None


def _likelihood(before: Results, after: Results, one: Row, two: Row, why: str) -> list[Line]:
    a, b = one.figures.get("bits"), two.figures.get("bits")
    if a is None or b is None:
        return []
    sides = [_bits(results, one.arm) for results in (before, after)]
    if not why and before.run.about["subject"].get("tokenizer") != after.run.about["subject"].get("tokenizer"):
        why = "the tokenizers differ, and with them the codes"
    if not why and differ(images_of(before.run.about), images_of(after.run.about)):
        why = "the held-out images differ"
    if not why and len(sides[0]) != len(sides[1]):
        why = f"the numbers of held-out images differ ({len(sides[0])}, {len(sides[1])})"
    if why:
        return [Line(one.arm, "bits", a, b, None, "not comparable", why)]
    difference = paired_mean(*sides)
    return [Line(one.arm, "bits", a, b, difference, judged("bits", difference))]


def _bits(results: Results, arm: str) -> Any:
    trial = next(t["trial"] for t in results.run.done("likelihood") if t["arm"] == arm)
    return results.run.arrays(trial, "bits")["bits_N"]


def _times(before: Results, after: Results, one: Row, two: Row, why: str) -> list[Line]:
    hardware = [results.run.done("latency") for results in (before, after)]
    if not why and all(hardware) and hardware[0][0]["device"] != hardware[1][0]["device"]:
        why = "the hardware or its threads differ"
    if not why and before.run.about["setting"] != after.run.about["setting"]:
        why = "the settings differ, and guidance is part of what is timed"
    lines = []
    for batch, ratio in one.speedup.items():
        if batch in two.speedup:
            lines.append(_ratio(one.arm, f"x, batch {batch}", ratio, two.speedup[batch], why))
    for name in ("latency_s", "images_per_s"):
        a, b = one.figures.get(name), two.figures.get(name)
        if a is not None and b is not None:
            lines.append(_ratio(one.arm, name, a, b, why, lower=name == "latency_s"))
    return lines


def _ratio(arm: str, metric: str, a: Interval, b: Interval, why: str, lower: bool = False) -> Line:
    """Two figures of two runs: different if their intervals do not overlap."""
    if why:
        return Line(arm, metric, a, b, None, "not comparable", why)
    verdict: Verdict = "no difference shown"
    if None not in (a.low, a.high, b.low, b.high):
        assert a.low is not None and a.high is not None and b.low is not None and b.high is not None  # noqa: S101, PT018
        if b.low > a.high:
            verdict = "worse" if lower else "better"
        elif b.high < a.low:
            verdict = "better" if lower else "worse"
    return Line(arm, metric, a, b, None, verdict)


def to_json(lines: list[Line]) -> list[dict[str, Any]]:
    """The lines as plain values."""

    def side(value: Interval | int | None) -> Any:
        return {"value": value.value, "low": value.low, "high": value.high} if isinstance(value, Interval) else value

    return [
        {
            "arm": line.arm,
            "metric": line.metric,
            "before": side(line.before),
            "after": side(line.after),
            "difference": side(line.difference),
            "verdict": line.verdict,
            "why": line.why,
        }
        for line in lines
    ]
