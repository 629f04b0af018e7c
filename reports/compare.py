"""Comparison: what one run says of two arms, or two runs of one arm, and whether they may be compared at all.

Knows results and reasons. Refuses to call a difference real that its interval does not, and to compare what is not
comparable: then the reason stands in place of a number. `bench compare`, `bench check` and the report share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orderbench.orders import BenchError
from orderbench.orders.spelling import split_arm
from orderbench.reports.results import (
    BETTER,
    METRICS,
    SMALL_N,
    Results,
    Row,
    differ,
    images_of,
    is_fid,
    kernel_sizes,
    model_of,
    quality_replicates,
    reference_of,
    round_times,
    times_seeds,
    tokenizer_of,
    too_small,
)
from orderbench.reports.statistics import Interval, Replicates, correspond, jackknife_difference, paired_mean
from orderbench.runs.record import Run

ComparisonVerdict = Literal["better", "worse", "no difference shown", "no interval", "not judged", "same", "changed",
                  "not comparable", "floor"]  # fmt: skip
FLOORS = ("real", "reconstructed")
TOO_SMALL, BUSY = "too small n", "the machine was busy"  # words that wrap well in a narrow column


@dataclass(frozen=True)
class Comparison:
    """One metric of one arm. before, after: its two sides; difference: after minus before, paired where noise is
    shared; why: the reason, where they are not comparable or not judged; n: images of the two sides, for quality and
    likelihood; space: of quality."""

    arm: str
    metric: str
    before: Interval | int | None
    after: Interval | int | None
    difference: Interval | None
    verdict: ComparisonVerdict
    why: str = ""
    n: tuple[int | None, int | None] | None = None
    space: str | None = None


# What is compared


def named_arm(run: Run, text: str, spell: Callable[[str], str] = str) -> str:
    """What a run calls an arm: its very name, or another spelling of it; where it has none, the text as it is.

    spell: to the canonical spelling, for which reports lack the networks.
    """
    names = [arm["name"] for arm in run.about["arms"]]
    if text in names:
        return text
    spelled = spell(text)
    order, pace, correction = split_arm(spelled)
    native = order + (f"+{correction}" if correction else "")
    singly = any(arm["name"] == native and set(arm["sizes"]) == {1} for arm in run.about["arms"])
    return native if pace == "one" and singly and spelled not in names else spelled


def baseline_arm(run: Run, asked: str | None = None, spell: Callable[[str], str] = str) -> str | None:
    """The arm that a run's others are compared with: the one asked for, else the run's own baseline, else, where that
    was timed but is no arm, the first; None for a run without arms."""
    if asked is not None:
        return named_arm(run, asked, spell)
    names = [arm["name"] for arm in run.about["arms"]]
    own: str = run.about["baseline"]
    return own if own in names else next(iter(names), None)


# Whether a number may be judged


def busy(run: Run) -> str:
    """In words, that others computed beside the timings; empty where no recorded load was above the run's own.

    Threads that wait for each other slow arms unequally once they share their cores, and neither turns nor A/A show it.
    """
    for trial in run.done("latency"):
        cpu, threads = (trial["device"].get(key) or {} for key in ("cpu", "threads"))
        own = max(cpu.get("cores_logical") or 0, threads.get("torch") or 0)
        states = [trial.get("clock_after"), *(one.get("clock") or one for one in run.about["environments"])]
        load = max((state["load_average"][0] for state in states if (state or {}).get("load_average")), default=0.0)
        if own and load > own + 1:
            return f"others computed beside it (load {load:.1f} on {own} cores)"
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
    baseline = results.row(results.baseline)
    lines = []
    for row in results.arms:
        if row.arm == results.baseline or row.setting != "fixed":
            continue
        for metric in (*METRICS, "bits"):
            if metric in row.figures:
                lines.append(_against(results, baseline, row, metric))
        for trial in sorted(results.run.done("latency"), key=lambda trial: trial["batch"]):
            metric, ratio = f"x, batch {trial['batch']}", row.speedup.get(trial["batch"])
            if ratio is not None:
                lines.append(Comparison(row.arm, metric, Interval(1.0), ratio, None, *judged_speed(results, ratio)))
            elif round_times(trial, row.arm):
                why = f"{baseline.arm} was not timed"
                lines.append(Comparison(row.arm, metric, None, None, None, "not comparable", why))
    if not lines:
        raise BenchError(f"the run has nothing to compare with '{results.baseline}'; it has one arm, or none finished")
    return lines + _floors(None, results)


def _against(results: Results, baseline: Row, row: Row, metric: str) -> Comparison:
    a, b = baseline.figures.get(metric), row.figures[metric]
    about = _about(metric, results, baseline, results, row)
    if a is None:
        return Comparison(row.arm, metric, None, b, None, "not comparable", f"{baseline.arm} has none", *about)
    if metric not in row.against:
        return Comparison(row.arm, metric, a, b, None, "not comparable", "no seeds or images in common", *about)
    return Comparison(row.arm, metric, a, b, row.against[metric], *judged_arm(results, row, metric), *about)


def _about(
    metric: str, before: Results, one: Row, after: Results, two: Row
) -> tuple[tuple[int | None, int | None] | None, str | None]:
    """n and space of a number; both None for speeds."""
    if metric == "bits":
        return (_images(before, one.arm), _images(after, two.arm)), None
    return ((one.n, two.n), before.space) if metric in METRICS else (None, None)


def _images(results: Results, arm: str) -> int | None:
    return next((trial.get("n") for trial in results.run.done("likelihood") if trial["arm"] == arm), None)


def _floors(before: Results | None, after: Results) -> list[Comparison]:
    """What real images and reconstructions reach, as a scale for the rest."""
    lines = []
    for name in FLOORS:
        both = [before.floors if before else (), after.floors]
        sides = [next((row for row in floors if row.arm == name), Row(name)) for floors in both]
        for metric in METRICS:
            a, b = (side.figures.get(metric) for side in sides)
            if a is not None or b is not None:
                n = (sides[0].n, sides[1].n)
                lines.append(Comparison(f"({name})", metric, a, b, None, "floor", "", n, after.space))
    return lines


# Two runs


def compare_runs(before: Results, after: Results) -> list[Comparison]:
    """What the second run says differently from the first, arm by arm, then the floors.

    Quality and likelihood are paired, since equal seeds mean equal noise. Speed-ups are compared as ratios within each
    run; they and absolute times only under one plan and setting and on the same hardware. What one side alone has is
    not comparable.
    """
    lines: list[Comparison] = []
    for row in before.arms:
        if row.setting != "fixed":
            continue
        if not _has(after, row.arm):
            lines.append(Comparison(row.arm, "arm", None, None, None, "not comparable", "the second run has none"))
            continue
        one, two = row, after.row(row.arm)
        why = "" if one.about["plan_digest"] == two.about["plan_digest"] else "the plans differ"
        lines += _counters(one, two, why)
        lines += _quality(before, after, one, two, why)
        lines += _likelihood(before, after, one, two, why)
        lines += _times(before, after, one, two, why)
    for row in after.arms:
        if row.setting == "fixed" and not _has(before, row.arm):
            lines.append(Comparison(row.arm, "arm", None, None, None, "not comparable", "the first run has none"))
    return lines + _floors(before, after)


def _has(results: Results, arm: str) -> bool:
    return any(row.arm == arm and row.setting == "fixed" for row in results.arms)


def _one_sided(a: Any, b: Any) -> str:
    """The reason if one side has no value; empty if both have."""
    return "the first run has none" if a is None else "the second run has none" if b is None else ""


def _counters(one: Row, two: Row, why: str) -> list[Comparison]:
    lines = []
    for name in one.counters | two.counters:
        a, b = one.counters.get(name), two.counters.get(name)
        reason = _one_sided(a, b) or why
        verdict: ComparisonVerdict = "not comparable" if reason else "same" if a == b else "changed"
        lines.append(Comparison(one.arm, name, a, b, None, verdict, reason))
    return lines


def _quality(before: Results, after: Results, one: Row, two: Row, why: str) -> list[Comparison]:
    if not why and before.space != after.space:
        why = f"the feature spaces differ ({before.space}, {after.space})"
    if not why and differ(*(reference_of(side.run.about, side.space) for side in (before, after))):
        why = f"the references differ ({before.reference}, {after.reference})"
    if not why and one.n != two.n:
        why = f"n differs ({one.n}, {two.n})"
    if not why and tokenizer_of(before.run.about) != tokenizer_of(after.run.about):
        why = "the tokenizers differ, and with them the images"
    # One arm of one model under one setting is biased by about the same amount on both sides, which cancels.
    biased = too_small(after, two) and bool(_changes(before, after))
    lines = []
    for metric in METRICS:
        a, b = one.figures.get(metric), two.figures.get(metric)
        if a is None and b is None:
            continue
        about = _about(metric, before, one, after, two)
        pairs = _shared_seeds(before, after, one.arm, metric)
        reason = _one_sided(a, b) or why or ("" if pairs is not None else "the seeds differ")
        if not reason and metric == "kd" and kernel_sizes(before.run.done()) != kernel_sizes(after.run.done()):
            reason = "they are to other numbers of reference images, as of an older orderbench"
        if not reason and pairs is not None and not correspond(*pairs):
            reason = "the groups of samples that are left out in turn differ"
        if reason or pairs is None:
            lines.append(Comparison(one.arm, metric, a, b, None, "not comparable", reason, *about))
            continue
        difference = jackknife_difference(*pairs)
        verdict = judged(metric, difference)
        withheld = _no_interval(metric) if verdict == "no interval" else ""
        if metric == "fd" and biased:
            verdict, withheld = "not judged", TOO_SMALL
        lines.append(Comparison(one.arm, metric, a, b, difference, verdict, withheld, *about))
    return lines


def _changes(before: Results, after: Results) -> list[str]:
    """What was changed on purpose between two runs, and still leaves them comparable."""
    one, two = before.run.about, after.run.about
    changes = []
    if differ(model_of(one), model_of(two)):
        changes.append(f"models ({model_of(one)['name']}, {model_of(two)['name']})")
    if one["setting"] != two["setting"]:
        changes.append("sampling settings")
    if one["config"].get("dtype") != two["config"].get("dtype"):
        changes.append(f"weights' types ({one['config'].get('dtype')}, {two['config'].get('dtype')})")
    return changes


def _shared_seeds(
    before: Results, after: Results, arm: str, metric: str
) -> tuple[list[Replicates], list[Replicates]] | None:
    sides = [quality_replicates(r.run, arm, "fixed", r.space, metric) for r in (before, after)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    return ([sides[0][s] for s in seeds], [sides[1][s] for s in seeds]) if seeds else None


def _likelihood(before: Results, after: Results, one: Row, two: Row, why: str) -> list[Comparison]:
    a, b = one.figures.get("bits"), two.figures.get("bits")
    if a is None and b is None:
        return []
    about = _about("bits", before, one, after, two)
    if a is None or b is None:
        return [Comparison(one.arm, "bits", a, b, None, "not comparable", _one_sided(a, b), *about)]
    sides = [_bits(results, one.arm) for results in (before, after)]
    if not why and tokenizer_of(before.run.about) != tokenizer_of(after.run.about):
        why = "the tokenizers differ, and with them the codes"
    if not why and differ(images_of(before.run.about), images_of(after.run.about)):
        why = "the held-out images differ"
    if not why and len(sides[0]) != len(sides[1]):
        why = f"the numbers of held-out images differ ({len(sides[0])}, {len(sides[1])})"
    if why:
        return [Comparison(one.arm, "bits", a, b, None, "not comparable", why, *about)]
    difference = paired_mean(*sides)
    verdict = judged("bits", difference)
    withheld = _no_interval("bits") if verdict == "no interval" else ""
    return [Comparison(one.arm, "bits", a, b, difference, verdict, withheld, *about)]


def _bits(results: Results, arm: str) -> Any:
    trial = next(t["trial"] for t in results.run.done("likelihood") if t["arm"] == arm)
    return results.run.arrays(trial, "bits")["bits_N"]


def _times(before: Results, after: Results, one: Row, two: Row, why: str) -> list[Comparison]:
    hardware = [results.run.done("latency") for results in (before, after)]
    if not why and all(hardware) and hardware[0][0]["device"] != hardware[1][0]["device"]:
        why = "the hardware or its threads differ"
    if not why and before.run.about["setting"] != after.run.about["setting"]:
        why = "the settings differ, and guidance is part of what is timed"
    if not why and bool(tokenizer_of(before.run.about)) != bool(tokenizer_of(after.run.about)):
        why = "one of the two decodes pixels within its times and the other does not"
    batches = [{trial["batch"] for trial in side} - {1} for side in hardware]
    doubt = "" if why or not (busy(before.run) or busy(after.run)) else BUSY
    lines = []
    for batch in sorted(one.speedup | two.speedup):
        sides = one.speedup.get(batch), two.speedup.get(batch)
        lines.append(_ratio(one.arm, f"x, batch {batch}", *sides, why, doubt))
    for name in ("latency_s", "images_per_s"):
        a, b = one.figures.get(name), two.figures.get(name)
        if a is not None or b is not None:
            other = name == "images_per_s" and batches[0] != batches[1]
            reason = why or ("the batches differ" if other else "")
            lines.append(_ratio(one.arm, name, a, b, reason, doubt, lower=name == "latency_s"))
    return lines


def _ratio(
    arm: str, metric: str, a: Interval | None, b: Interval | None, why: str, doubt: str, lower: bool = False
) -> Comparison:
    """Two figures of two runs: different if their intervals do not overlap."""
    if a is None or b is None or why:
        return Comparison(arm, metric, a, b, None, "not comparable", _one_sided(a, b) or why)
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
        names = [arm["name"] for arm in about["arms"]]
        taken = "" if about["baseline"] in names else f"; the run's own baseline, {about['baseline']}, is no arm of it"
        found.append(f"Against {before.baseline}{taken}. --baseline ARM takes another.")
    elif _changes(before, after):
        found.append(f"The runs differ in their {' and '.join(_changes(before, after))}.")
    if any(line.metric in METRICS for line in lines):
        texts = [_caption(side) for side in (before, after) if side is not None]
        found.append("Quality: " + "; then ".join(dict.fromkeys(texts)) + ". Differences are paired, level 0.95.")
    held_out = {n for line in lines if line.metric == "bits" and line.n for n in line.n if n is not None}
    if held_out:
        found.append(f"Bits per token: of {' and '.join(map(str, sorted(held_out)))} held-out images.")
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
    entries = results.run.about["subject"].get("spaces", [])
    dimensions = next((entry["dimensions"] for entry in entries if entry["space"] == results.space), "?")
    n = sorted({row.n for row in results.arms if row.n is not None and row.setting == "fixed"})
    return (
        f"n = {' and '.join(map(str, n)) or 'none'}{times_seeds(results.arms)} in the space {results.space} "
        f"({dimensions} dimensions) against {results.reference}" + ("" if is_fid(results) else ", not FID")
    )


def to_json(lines: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The lines as plain values."""

    def side(value: Interval | int | None) -> Any:
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
