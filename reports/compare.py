"""Comparison: what one run says of two arms, or two runs of one arm, and whether they may be compared at all.

Knows results and verdicts. Refuses to call a difference real that its interval does not, and to compare what
`conditions` calls apart: then the reason takes the place of a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from orderbench.orders import BenchError
from orderbench.orders.spelling import split_arm
from orderbench.reports.conditions import Conditions, What, apart, changed, conditions_of
from orderbench.reports.results import (
    BETTER,
    METRICS,
    SMALL_N,
    Floor,
    Results,
    Row,
    held_out_words,
    is_fid,
    likelihood_of,
    own_model,
    paired_difference,
    quality_of,
    repeated_arm,
    round_times,
    times_seeds,
    too_small,
)
from orderbench.reports.statistics import Interval, paired_mean
from orderbench.runs.record import Run
from orderbench.runs.schema import QualityResult

ComparisonVerdict = Literal["better", "worse", "no difference shown", "no interval", "not judged", "same", "changed",
                  "not comparable", "floor"]  # fmt: skip
FLOORS = ("real", "reconstructed")
TOO_SMALL, BUSY, MEANS = "too small n", "the machine was busy", "a mean over samples"  # wrap well in a narrow column


@dataclass(frozen=True)
class Comparison:
    """One metric of one arm. before, after: its two sides; difference: after minus before, paired where noise is
    shared; why: the reason, where they are not comparable or not judged; n: images of the two sides, for quality and
    likelihood; space: of quality."""

    arm: str
    metric: str
    before: Interval | float | None
    after: Interval | float | None
    difference: Interval | None
    verdict: ComparisonVerdict
    why: str = ""
    n: tuple[int | None, int | None] | None = None
    space: str | None = None


# What is compared


def named_arm(run: Run, text: str, spell: Callable[[str], str] = str) -> str:
    """The name of an arm in a run, from any of its spellings; the text as it is where the run has no such arm.

    spell: makes the canonical spelling, which needs the registered decoders and so torch.
    """
    names = [arm["name"] for arm in run.about["arms"]]
    if text in names:
        return text
    spelled = spell(text)
    parts = split_arm(spelled)
    if parts.model == own_model(run.about):
        parts = parts._replace(model=None)
    if parts.pace == "one" and str(parts) not in names:
        native = str(parts._replace(pace=None))
        if any(arm["name"] == native and set(arm["sizes"]) == {1} for arm in run.about["arms"]):
            return native
    return str(parts) if str(parts) in names else spelled


def baseline_arm(run: Run, asked: str | None = None, spell: Callable[[str], str] = str) -> str | None:
    """The one arm that the others of a run are compared with: the arm asked for, else the run's own baseline. Where
    that was timed but is no arm of the run, it is the first arm. None where there are several models that do not share
    a baseline, and for a run without arms."""
    if asked is not None:
        return named_arm(run, asked, spell)
    models = {arm["model"] for arm in run.about["arms"]}
    baselines = {run.about["models"][model]["baseline"] for model in models}
    if len(baselines) > 1 or (len(models) > 1 and None in baselines):
        return None
    names = [arm["name"] for arm in run.about["arms"]]
    own = repeated_arm(run.about)
    return own if own in names else next(iter(names), None)


# Whether a number may be judged


def busy(run: Run) -> str:
    """In words, that other programs were running during the timings; empty where no load above the run's own is
    recorded.

    Arms are slowed unequally once their threads share the cores with others. Neither taking turns nor A/A shows it.
    """
    for trial in run.done("latency"):
        cpu, threads = trial["device"].get("cpu") or {}, trial["device"].get("threads") or {}
        own = max(cpu.get("cores_logical") or 0, threads.get("torch") or 0)
        states = [trial["clock_after"], *(one.get("clock") for one in run.about["environments"])]
        load = max((loads[0] for one in states if one and (loads := one.get("load_average"))), default=0.0)
        if own and load > own + 1:
            return f"other programs were running (load {load:.1f} on {own} cores)"
    return ""


def judged(metric: str, difference: Interval) -> ComparisonVerdict:
    """Better or worse, if the whole interval lies on one side of 0."""
    if difference.low is None or difference.high is None:
        return "no interval"
    if difference.low <= 0 <= difference.high:
        return "no difference shown"
    return "better" if (difference.high < 0) == (BETTER[metric] == "low") else "worse"


def judged_arm(results: Results, row: Row, metric: str) -> tuple[ComparisonVerdict, str]:
    """The verdict on an arm's paired difference from its baseline, and why where it is withheld."""
    if metric == "fd" and too_small(results, row):
        return "not judged", TOO_SMALL  # two arms are biased by different amounts
    verdict = judged(metric, row.against[metric])
    return verdict, _no_interval(metric) if verdict == "no interval" else ""


def judged_speed(results: Results, ratio: Interval) -> tuple[ComparisonVerdict, str]:
    """The verdict on a speed-up within a run, and why where it is withheld."""
    if ratio.low is None or ratio.high is None:
        return "no interval", "under 3 rounds"
    if busy(results.run):
        return "not judged", BUSY
    return "better" if ratio.low > 1 else "worse" if ratio.high < 1 else "no difference shown", ""


def _no_interval(metric: str) -> str:
    return "never resampled" if metric in ("precision", "recall") else "too few samples"


def anything_judged(lines: Sequence[Comparison]) -> bool:
    """Whether any measured number was judged; counters are no measurement."""
    return any(line.verdict in ("better", "worse", "no difference shown") for line in lines)


# The arms of one run


def compare_arms(results: Results) -> list[Comparison]:
    """Every arm of a run against its baseline, then the floors."""
    rows = {row.arm: row for row in results.arms if row.setting == "fixed"}
    lines = []
    for row in rows.values():
        if row.arm == row.baseline or row.baseline is None:
            continue
        baseline = rows.get(row.baseline)
        for metric in (*METRICS, "bits"):
            if metric in row.figures:
                lines.append(_against(results, baseline, row, metric))
        for trial in sorted(results.run.done("latency"), key=lambda trial: trial["batch"]):
            metric, ratio = f"x, batch {trial['batch']}", row.speedup.get(trial["batch"])
            why = _arms_apart(results, baseline, row, "speed-up")
            if ratio is not None and not why:
                lines.append(Comparison(row.arm, metric, Interval(1.0), ratio, None, *judged_speed(results, ratio)))
            elif round_times(trial, row.arm) and not round_times(trial, row.baseline):
                why = f"{row.baseline} was not timed"
                lines.append(Comparison(row.arm, metric, None, None, None, "not comparable", why))
            elif why and round_times(trial, row.arm):
                lines.append(Comparison(row.arm, metric, None, None, None, "not comparable", why))
    if not lines:
        raise BenchError(
            f"the run has nothing to compare with '{results.baseline}'; it has one arm, or none finished"
            if results.baselines
            else "the run has no baseline; name an arm to compare with, as in --baseline ARM"
        )
    return lines + _floors(None, results)


def _against(results: Results, baseline: Row | None, row: Row, metric: str) -> Comparison:
    a, b = None if baseline is None else baseline.figures.get(metric), row.figures[metric]
    about = _about(metric, results, baseline, results, row)
    if a is None:
        return Comparison(row.arm, metric, None, b, None, "not comparable", f"{row.baseline} has none", *about)
    why = _arms_apart(results, baseline, row, _what(metric))
    if not why and metric not in row.against:
        why = "no seeds or images in common"
    if why:
        return Comparison(row.arm, metric, a, b, None, "not comparable", why, *about)
    return Comparison(row.arm, metric, a, b, row.against[metric], *judged_arm(results, row, metric), *about)


def _arms_apart(results: Results, baseline: Row | None, row: Row, what: What) -> str:
    """Why numbers of two arms of a run may not be compared; arms of one model always may."""
    if baseline is None or baseline.model == row.model:
        return ""
    one, two = (conditions_of(results.run, side.about, space=results.space).of_any_arm() for side in (baseline, row))
    return apart(replace(one, baseline=None), two, what)


def _what(metric: str) -> What:
    """The kind of number that a metric is."""
    return "bits" if metric == "bits" else "kernel distance" if metric == "kd" else "quality"


def _about(
    metric: str, before: Results, one: Row | None, after: Results, two: Row
) -> tuple[tuple[int | None, int | None] | None, str | None]:
    """n and space of a number; both None for speeds."""
    if metric == "bits":
        return (_images(before, one), _images(after, two)), None
    return ((None if one is None else one.n, two.n), before.space) if metric in METRICS else (None, None)


def _images(results: Results, row: Row | None) -> int | None:
    found = (trial["n"] for trial in results.run.done("likelihood") if row is not None and trial["arm"] == row.arm)
    return next(found, None)


def _floors(before: Results | None, after: Results) -> list[Comparison]:
    """What real images and reconstructions reach, as a scale for the rest; of two runs also how far they are apart, or
    why that is not said."""
    lines = []
    for name in FLOORS:
        both = [_floor(name, before), _floor(name, after)]
        why = "" if before is None else _floors_apart(before, after, *both)
        for metric in METRICS:
            a, b = (side.figures.get(metric) for side in both)
            if a is None and b is None:
                continue
            difference, reason = None, "" if before is None else _one_sided(a, b) or why
            if before is not None and not reason:
                difference = paired_difference(metric, *([floor.result] for floor in both if floor.result is not None))
                reason = "" if difference is not None else "groups of samples cannot be paired"
            n = (both[0].n, both[1].n)
            lines.append(Comparison(f"({name})", metric, a, b, difference, "floor", reason, n, after.space))
    return lines


def _floors_apart(before: Results, after: Results, one: Floor, two: Floor) -> str:
    """Why floors of two runs have no difference: they are not of the same images in one space."""
    if before.space != after.space or before.reference != after.reference:
        return "another space or reference"
    return "" if one.n == two.n else f"n = {one.n} and {two.n}"


def _floor(name: str, results: Results | None) -> Floor:
    """A floor of a run's own model; an empty one where there is none."""
    floors = () if results is None else results.floors
    return next((floor for floor in floors if floor.arm == name and floor.own), Floor(name))


# Two runs


def compare_runs(before: Results, after: Results) -> list[Comparison]:
    """What the second run says differently from the first, arm by arm, then the floors.

    Quality and likelihood are paired, since equal seeds mean equal noise. Speed-ups are compared as ratios within each
    run. What may be compared is said by `conditions`; what one side alone has is not comparable.
    """
    lines: list[Comparison] = []
    for row in before.arms:
        if row.setting != "fixed":
            continue
        if not _has(after, row.arm):
            lines.append(Comparison(row.arm, "arm", None, None, None, "not comparable", "the second run has none"))
            continue
        pair = _Pair(before, after, row, after.row(row.arm))
        lines += [*_counters(pair), *_quality(pair), *_likelihood(pair), *_times(pair)]
    for row in after.arms:
        if row.setting == "fixed" and not _has(before, row.arm):
            lines.append(Comparison(row.arm, "arm", None, None, None, "not comparable", "the first run has none"))
    return lines + _floors(before, after)


@dataclass(frozen=True)
class _Pair:
    """One arm in two runs."""

    before: Results
    after: Results
    one: Row
    two: Row

    @cached_property
    def conditions(self) -> tuple[Conditions, Conditions]:
        """Of both sides, at the batch of throughput."""
        one, two = (
            conditions_of(results.run, row.about, space=results.space, batch=_timed_batch(results, row))
            for results, row in ((self.before, self.one), (self.after, self.two))
        )
        return one, two

    def apart(self, what: What, a: Any, b: Any, *, latency: bool = False) -> str:
        """Why two numbers of this arm are not comparable: one side has none, or other conditions. latency: at batch 1,
        whatever the other batch."""
        one, two = self.conditions
        return _one_sided(a, b) or apart(replace(one, batch=None) if latency else one, two, what)


def _timed_batch(results: Results, row: Row) -> int | None:
    """The batch above 1 at which an arm was timed."""
    batches = [trial["batch"] for trial in results.run.done("latency") if round_times(trial, row.arm)]
    return next((batch for batch in reversed(batches) if batch != 1), None)


def _has(results: Results, arm: str) -> bool:
    return any(row.arm == arm and row.setting == "fixed" for row in results.arms)


def _one_sided(a: Any, b: Any) -> str:
    """The reason if one side has no value; empty if both have."""
    return "the first run has none" if a is None else "the second run has none" if b is None else ""


def _counters(pair: _Pair) -> list[Comparison]:
    lines = []
    exact = pair.one.counters_exact and pair.two.counters_exact
    for name in pair.one.counters | pair.two.counters:
        a, b = pair.one.counters.get(name), pair.two.counters.get(name)
        why = pair.apart("counters", a, b)
        verdict: ComparisonVerdict = "not comparable" if why else "same" if a == b else "changed"
        if not why and not exact:
            verdict, why = "not judged", MEANS
        lines.append(Comparison(pair.one.arm, name, a, b, None, verdict, why))
    return lines


def _quality(pair: _Pair) -> list[Comparison]:
    # One arm of one model under one setting is biased by about the same amount on both sides, which cancels.
    biased = too_small(pair.after, pair.two) and bool(changed(*pair.conditions, "quality"))
    lines = []
    for metric in METRICS:
        a, b = pair.one.figures.get(metric), pair.two.figures.get(metric)
        if a is None and b is None:
            continue
        about = _about(metric, pair.before, pair.one, pair.after, pair.two)
        difference = paired_difference(metric, *_shared_seeds(pair))
        why = pair.apart(_what(metric), a, b)
        if not why and difference is None:
            why = "seeds and groups of samples cannot be paired"
        if why or difference is None:
            lines.append(Comparison(pair.one.arm, metric, a, b, None, "not comparable", why, *about))
            continue
        verdict = judged(metric, difference)
        withheld = _no_interval(metric) if verdict == "no interval" else ""
        if metric == "fd" and biased:
            verdict, withheld = "not judged", TOO_SMALL
        lines.append(Comparison(pair.one.arm, metric, a, b, difference, verdict, withheld, *about))
    return lines


def _changes(before: Results, after: Results) -> list[str]:
    """What was changed on purpose between two runs, and still leaves them comparable."""
    found: dict[str, None] = {}
    for row in before.arms:
        if row.setting == "fixed" and _has(after, row.arm):
            found |= dict.fromkeys(changed(*_Pair(before, after, row, after.row(row.arm)).conditions, "quality"))
    return list(found)


def _shared_seeds(pair: _Pair) -> tuple[list[QualityResult], list[QualityResult]]:
    """The quality of an arm in both runs, under the seeds that both have."""
    sides = [quality_of(results.run, pair.one.arm, "fixed", results.space) for results in (pair.before, pair.after)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    return [sides[0][s] for s in seeds], [sides[1][s] for s in seeds]


def _likelihood(pair: _Pair) -> list[Comparison]:
    a, b = pair.one.figures.get("bits"), pair.two.figures.get("bits")
    if a is None and b is None:
        return []
    about = _about("bits", pair.before, pair.one, pair.after, pair.two)
    why = pair.apart("bits", a, b)
    sides_N = [likelihood_of(results.run, pair.one.arm)[0] for results in (pair.before, pair.after)]
    if why or sides_N[0] is None or sides_N[1] is None:
        return [Comparison(pair.one.arm, "bits", a, b, None, "not comparable", why, *about)]
    difference = paired_mean(sides_N[0], sides_N[1])
    verdict = judged("bits", difference)
    withheld = _no_interval("bits") if verdict == "no interval" else ""
    return [Comparison(pair.one.arm, "bits", a, b, difference, verdict, withheld, *about)]


def _times(pair: _Pair) -> list[Comparison]:
    one, two = pair.one, pair.two
    doubt = BUSY if busy(pair.before.run) or busy(pair.after.run) else ""
    lines = []
    for batch in sorted(one.speedup | two.speedup):
        a, b = one.speedup.get(batch), two.speedup.get(batch)
        why = pair.apart("speed-up", a, b, latency=True)  # of one batch on both sides
        lines.append(_ratio(one.arm, f"x, batch {batch}", a, b, why, doubt))
    for name in ("latency_s", "images_per_s"):
        a, b = one.figures.get(name), two.figures.get(name)
        if a is not None or b is not None:
            why = pair.apart("time", a, b, latency=name == "latency_s")
            lines.append(_ratio(one.arm, name, a, b, why, doubt, lower=name == "latency_s"))
    return lines


def _ratio(
    arm: str, metric: str, a: Interval | None, b: Interval | None, why: str, doubt: str, lower: bool = False
) -> Comparison:
    """Two figures of two runs: different if their intervals do not overlap."""
    if a is None or b is None or why:
        return Comparison(arm, metric, a, b, None, "not comparable", why)
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Comparison(arm, metric, a, b, None, "no interval", "under 3 rounds")
    if doubt:
        return Comparison(arm, metric, a, b, None, "not judged", doubt)
    verdict: ComparisonVerdict = "no difference shown"
    if b.low > a.high:
        verdict = "worse" if lower else "better"
    elif b.high < a.low:
        verdict = "better" if lower else "worse"
    return Comparison(arm, metric, a, b, None, verdict)


# What is shown


def notes(lines: Sequence[Comparison], before: Results, after: Results | None = None) -> list[str]:
    """What the lines rest on, a sentence each; `after` where two runs were compared."""
    found = []
    about = before.run.about
    if after is None:
        names, own = [arm["name"] for arm in about["arms"]], repeated_arm(about)
        taken = "" if own in names or own is None else f"; the run's own baseline, {own}, is no arm of it"
        each = ", each model's own" if len(before.baselines) > 1 else ""
        found.append(f"Against {' and '.join(before.baselines)}{each}{taken}. --baseline ARM takes another.")
    elif _changes(before, after):
        found.append(f"The runs differ in their {' and '.join(_changes(before, after))}.")
    if any(line.metric in METRICS for line in lines):
        texts = [_caption(side) for side in (before, after) if side is not None]
        found.append("Quality: " + "; then ".join(dict.fromkeys(texts)) + ". Differences are paired, level 0.95.")
    held_out = {n for line in lines if line.metric == "bits" and line.n for n in line.n if n is not None}
    if held_out:
        found.append(f"Bits per token: of {' and '.join(map(str, sorted(held_out)))} {held_out_words(before)}.")
    if any(line.why == TOO_SMALL for line in lines):
        found.append(
            f"FD is not judged between arms, models or settings below {SMALL_N} samples a dimension: it is mostly bias "
            f"there, and not by the same amount; read KD."
        )
    for which, side in (("" if after is None else " first", before), (" second", after)):
        if side is not None and busy(side.run) and any(line.why == BUSY for line in lines):
            found.append(f"Speeds are not judged: the{which} run was timed while {busy(side.run)}.")
    return found


def _caption(results: Results) -> str:
    """Space, reference and n of a run's quality."""
    entries = results.run.about["spaces"]
    dimensions = next((str(entry["dimensions"]) for entry in entries if entry["space"] == results.space), "?")
    n = sorted({row.n for row in results.arms if row.n is not None and row.setting == "fixed"})
    return (
        f"n = {' and '.join(map(str, n)) or 'none'}{times_seeds(results.arms)} in the space {results.space} "
        f"({dimensions} dimensions) against {results.reference}" + ("" if is_fid(results) else ", not FID")
    )


def to_json(lines: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The lines as plain values."""

    def side(value: Interval | float | None) -> Any:
        return value.plain() if isinstance(value, Interval) else value

    return [
        {
            "arm": line.arm,
            "metric": line.metric,
            "before": side(line.before),
            "after": side(line.after),
            "difference": side(line.difference),
            "verdict": line.verdict,
            "why": line.why,
            "n": line.n and list(line.n),
            "space": line.space,
        }
        for line in lines
    ]
