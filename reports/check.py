"""The gate: did anything really get worse?

Knows rules, snapshots of two runs and verdicts. Refuses to guess: counters compare exactly, everything else through its
interval, and what neither passes nor fails is called inconclusive. A number that was not measured alike, by
`conditions`, gets its reason instead.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from orderbench.orders import BenchError
from orderbench.orders.errors import unknown
from orderbench.orders.spelling import split_arm
from orderbench.reports.compare import busy, named_arm
from orderbench.reports.conditions import Conditions, What, unlike
from orderbench.reports.results import Results, failures, printable, replicate, round_times
from orderbench.reports.snapshot import conditions_in, noise_factor, rounded, snapshot
from orderbench.reports.statistics import Interval, Replicates, correspond, jackknife_percent, paired_ratio, quotient
from orderbench.runs.record import Run

SPEEDUP_LOSS = 10.0  # percent, where no other was asked for
FEWEST_ROUNDS = 5  # that fail a speed: the interval of three or four holds less than its level
CheckVerdict = Literal["pass", "improved", "regressed", "inconclusive", "not comparable"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is asked of a run.

    min_speedup: 'ARM/ARM' to how many times faster the first must be within the run, at `batch`. counters: exact.
    max_speedup_loss: percent that a speed-up may lose against the baseline's. Both run by default, where they are None.
    If set explicitly, an arm they cannot judge makes the check exit with 4. max_fd_increase,
    max_bits_increase: percent of the baseline's value; None asks nothing. max_slowdown: percent of absolute latency,
    same hardware only. any_model: a baseline of other weights will do, for counters and speed; quality is then not
    comparable.
    """

    min_speedup: Mapping[str, float] = field(default_factory=dict)
    batch: int = 1
    counters: bool | None = None
    max_speedup_loss: float | None = None
    max_fd_increase: float | None = None
    max_bits_increase: float | None = None
    max_slowdown: float | None = None
    any_model: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.min_speedup, Mapping):
            raise _other_type("min-speedup", self.min_speedup, 'a table, as in [min-speedup] and "radial/raster" = 3')
        for name in ("counters", "any_model"):
            if not isinstance(getattr(self, name), bool) and (name, self.counters) != ("counters", None):
                raise _other_type(name, getattr(self, name), "true or false")
        if not isinstance(self.batch, int) or isinstance(self.batch, bool) or self.batch < 1:
            raise _other_type("batch", self.batch, "a whole number of 1 or more, such as 16,")
        for pair, least in self.min_speedup.items():
            for arm in _pair(pair):
                split_arm(arm)
            if not _is_number(least):
                raise _other_type(f"min-speedup of {pair}", least, "a number, as in 3")
            if not least > 0:
                raise BenchError(f"a speed-up of {least:g} is not served; it is above 0, as in radial/raster=3")
        for name in ("max_speedup_loss", "max_fd_increase", "max_bits_increase", "max_slowdown"):
            value = getattr(self, name)
            if value is not None and not _is_number(value):
                raise _other_type(name, value, "a number of percent, as in 5")
            if value is not None and not 0 <= value < float("inf"):
                raise BenchError(f"{name.replace('_', '-')} of {value:g} is not served; percent, 0 or more")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _other_type(name: str, value: Any, wanted: str) -> BenchError:
    return BenchError(f"{name.replace('_', '-')} of {value!r} is not served; {wanted} would do")


def _pair(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"(A/A|[^/]+)/(A/A|[^/]+)", text)
    if found is None:
        raise BenchError(f"'{text}' is no pair of arms; a speed-up is spelled radial/raster=3")
    return found[1], found[2]


def read_rules(file: str | None, given: Mapping[str, Any]) -> Rules:
    """Rules from a .toml file, overridden by what was given; BenchError for keys that are not known."""
    value: dict[str, Any] = {}
    if file is not None:
        try:
            value = tomllib.loads(Path(file).read_text())
        except (OSError, ValueError) as problem:
            why = getattr(problem, "strerror", None) or problem
            raise BenchError(f"the rules '{file}' could not be read: {why}; name a .toml file") from problem
    known = [f.name.replace("_", "-") for f in fields(Rules)]
    for name in value:
        if name.replace("_", "-") not in known:
            raise unknown(f"rule in '{file}'", name, known, "docs/checks.md lists them")
    value = {name.replace("-", "_"): entry for name, entry in value.items()}
    merged = {**value, **{name: entry for name, entry in given.items() if entry is not None}}
    if isinstance(value.get("min_speedup"), Mapping):
        merged["min_speedup"] = {**value["min_speedup"], **given.get("min_speedup", {})}
    elif "min_speedup" in value:
        merged["min_speedup"] = value["min_speedup"]  # refused there, with what would do
    return Rules(**merged)


@dataclass(frozen=True)
class CheckFinding:
    """One rule on one arm. says: the numbers, in words; interval: where there is one; asked: whether it was asked for,
    so that it may not go unjudged; n: images behind it, of quality and likelihood; space: of quality."""

    rule: str
    arm: str
    verdict: CheckVerdict
    says: str
    interval: Interval | None = None
    asked: bool = False
    n: int | None = None
    space: str | None = None


def check(
    results: Results, baseline: Mapping[str, Any] | None, rules: Rules, spell: Callable[[str], str] = str
) -> list[CheckFinding]:
    """Every rule on every arm that it speaks of; `spell` as for `compare.named_arm`.

    Raises BenchError where nothing was asked (without a baseline and without a least speed-up there is no rule), for a
    rule that needs a baseline where there is none, for a batch without the rule that it belongs to, for an arm that
    the run has not, and for a baseline of another model, unless any will do.
    """
    needing = ("counters", "max_fd_increase", "max_bits_increase", "max_slowdown", "max_speedup_loss", "any_model")
    idle = [name.replace("_", "-") for name in needing if getattr(rules, name) not in (None, False)]
    if baseline is None and idle:
        raise BenchError(f"{idle[0]} compares with a baseline; give one too, as in --baseline FILE|RUN")
    if rules.batch != 1 and not rules.min_speedup:
        raise BenchError(
            f"batch {rules.batch} says where --min-speedup is asked; give that too, as in --min-speedup radial/raster=3"
        )
    if baseline is None and not rules.min_speedup:
        raise BenchError(
            "nothing was asked of the run; give a baseline, as in --baseline baseline.json, or a speed-up, as in "
            "--min-speedup radial/raster=3"
        )
    known = {row.arm for row in results.arms} | {*results.baselines, "A/A"}
    known |= {s["name"] for trial in results.run.done("latency") for one in trial["rounds"] for s in one}
    least_of: dict[tuple[str, str], float] = {}  # two spellings of one pair are one rule, the later's
    for pair, least in rules.min_speedup.items():
        named = [arm if arm in known else named_arm(results.run, arm, spell) for arm in _pair(pair)]
        for given, arm in zip(_pair(pair), named, strict=True):
            if arm not in known:
                raise unknown("arm", given, known, "--min-speedup takes arms of the run")
        least_of[named[0], named[1]] = least
    findings = [_least_speedup(results, *pair, least, rules.batch) for pair, least in least_of.items()]
    findings += _trials(results.run)
    if baseline is not None:
        now = snapshot(results)
        findings += _against(_Sides(now, baseline, rules.any_model), rules)
    return findings


@dataclass(frozen=True)
class _Sides:
    """The snapshot of a run and that of its baseline. any_model: other weights are forgiven where a rule allows it."""

    now: Mapping[str, Any]
    then: Mapping[str, Any]
    any_model: bool

    def arms(self, arm: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """What is known of an arm, before and after."""
        return self.then["arms"][arm], self.now["arms"][arm]

    def conditions(self, arm: str) -> tuple[Conditions, Conditions]:
        """Before and after. BenchError where its model is another one and not forgiven."""
        one, two = conditions_in(self.then, arm), conditions_in(self.now, arm)
        if one.model.differs(two.model) and not self.any_model:
            raise BenchError(
                f"the baseline was made with another model ({one.model}) than the run ({two.model}); write a new one "
                f"with bench baseline, or check counters and speed alone with --any-model"
            )
        return one, two

    def unlike(self, arm: str, what: What) -> str:
        """Why the two were not measured alike; for quality and likelihood, other weights are never forgiven."""
        forgive = "model" if what in ("counters", "speed-up", "time") else ""
        return unlike(*self.conditions(arm), what, forgive)


def _trials(run: Run) -> list[CheckFinding]:
    """What failed got worse; what was never finished leaves the run open."""
    findings = [CheckFinding("trials", arm, "regressed", f"failed: {reason}") for arm, reason in failures(run)]
    planned = run.about["trials"]
    unfinished = [name for name in planned if run.trials.get(name, {}).get("status") not in ("done", "failed")]
    if unfinished:
        says = f"{len(unfinished)} of {len(planned)} trials are not finished, such as {unfinished[0]}; --resume goes on"
        findings.append(CheckFinding("trials", "(run)", "inconclusive", says))
    return findings


def _speed_verdict(
    verdict: CheckVerdict, says: str, others: Sequence[str], rounds: int, beyond: float, noise: float
) -> tuple[CheckVerdict, str]:
    """A verdict on a speed, left open where it cannot be trusted: where a machine was busy, and where it would fail on
    too few rounds or by less than one arm timed twice differs from itself. others: that a machine was busy, in words;
    empty texts do not count. beyond: the factor by which the whole interval lies beyond the limit."""
    for one in filter(None, others):
        return "inconclusive", f"{says}; {one}"
    if verdict == "regressed" and rounds < FEWEST_ROUNDS:
        return "inconclusive", f"{says}; {rounds} rounds fail nothing, {FEWEST_ROUNDS} would"
    if verdict == "regressed" and beyond <= noise:
        return "inconclusive", f"{says}; one arm timed twice differs by up to {100 * (noise - 1):.2g} %"
    return verdict, says


def _least_speedup(results: Results, fast: str, slow: str, least: float, batch: int) -> CheckFinding:
    rule = f"min-speedup {fast}/{slow}={least:g}"

    def found(verdict: CheckVerdict, says: str, interval: Interval | None = None) -> CheckFinding:
        return CheckFinding(rule, fast, verdict, says, interval, asked=True)

    trial = next((t for t in results.run.done("latency") if t["batch"] == batch), None)
    if trial is None:
        return found("not comparable", f"the run measured no speed at batch {batch}")
    times = {arm: round_times(trial, arm) for arm in (fast, slow)}
    for arm, samples in times.items():
        if not samples:
            return found("not comparable", f"the run did not time {arm}")
    ratio = paired_ratio(times[slow], times[fast])
    says = f"{_said(ratio)} times faster at batch {batch}, at least {least:g} asked"
    if ratio.low is None or ratio.high is None:
        return found("inconclusive", f"{says}; three rounds or more give an interval", ratio)
    verdict: CheckVerdict = "pass" if ratio.low >= least else "regressed" if ratio.high < least else "inconclusive"
    noise = noise_factor(results.noise.get(batch))
    return found(
        *_speed_verdict(verdict, says, [busy(results.run)], len(times[fast]), least / ratio.high, noise), ratio
    )


def _said(interval: Interval, unit: str = "") -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3g}{unit}"
    return f"{interval.value:.3g}{unit} [{interval.low:.3g}, {interval.high:.3g}]"


def _against(sides: _Sides, rules: Rules) -> list[CheckFinding]:
    findings = []
    for arm in sides.then["arms"]:
        if arm not in sides.now["arms"]:
            says = "the baseline has this arm and the run has not"
            findings.append(CheckFinding("arms", arm, "not comparable", says, asked=True))
            continue
        if rules.counters is not False:
            findings.append(_counters(arm, sides, rules.counters is True))
        asked = rules.max_speedup_loss is not None
        findings += [replace(one, asked=asked) for one in _speedups(arm, sides, rules.max_speedup_loss)]
        for name, most in (("fd", rules.max_fd_increase), ("bits", rules.max_bits_increase),
                           ("latency", rules.max_slowdown)):  # fmt: skip
            if most is not None:
                judge = _slowdown if name == "latency" else _fd if name == "fd" else _likelihood
                findings.append(replace(judge(arm, sides, most), asked=_binds(arm, name, sides)))
    if rules.max_speedup_loss is not None and not any(f.rule.startswith("max-speedup-loss") for f in findings):
        says = "neither has a speed-up over its baseline arm"
        rule = f"max-speedup-loss {rules.max_speedup_loss:g} %"
        findings.append(CheckFinding(rule, "(run)", "not comparable", says, asked=True))
    return findings


_NUMBERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "fd": ("Frechet distance", lambda arm: arm["quality"].get("fd")),
    "bits": ("likelihood", lambda arm: arm["bits"]),
    "latency": ("latency", lambda arm: arm["latency_s"]),
}


def _missing(arm: str, name: str, sides: _Sides) -> str:
    """Which side has no such number of an arm; empty if both have it."""
    what, get = _NUMBERS[name]
    lack = [which for which, side in zip(("the baseline", "the run"), sides.arms(arm), strict=True) if not get(side)]
    return f"{' and '.join(lack)} {'have' if len(lack) == 2 else 'has'} no {what} of it" if lack else ""


def _binds(arm: str, name: str, sides: _Sides) -> bool:
    """Whether a rule must be judged for an arm: not where neither side has its number and other arms do, as arms with
    correction have no likelihood."""
    have = [one for side in (sides.now, sides.then) for one, about in side["arms"].items() if _NUMBERS[name][1](about)]
    return arm in have or not have


def _left_open(verdict: CheckVerdict, says: str, sides: _Sides, batch: str, beyond: float) -> tuple[CheckVerdict, str]:
    now, then = sides.now, sides.then
    others = [now["busy"], then["busy"] and f"the baseline: {then['busy']}"]
    rounds = min(side["rounds"].get(batch, 0) for side in (now, then))
    noise = max(side["noise"].get(batch, 1.0) for side in (now, then))
    return _speed_verdict(verdict, says, others, rounds, beyond, noise)


def _counters(arm: str, sides: _Sides, asked: bool) -> CheckFinding:
    """Exact counts compare exactly; means over samples are shown and bind nobody."""
    one, two = sides.arms(arm)
    before, after = one["counters"], two["counters"]
    shared = [name for name in before if name in after]
    changed = [name for name in shared if before[name] != after[name]]
    moved = ", ".join(f"{name} {before[name]} -> {after[name]}" for name in changed)

    def found(verdict: CheckVerdict, says: str, asked: bool = asked) -> CheckFinding:
        return CheckFinding("counters", arm, verdict, says, asked=asked)

    if not shared:
        return found("not comparable", "one of the two has none")
    why = sides.unlike(arm, "counters")
    if why:
        return found("not comparable", why)
    if not (one["counters_exact"] and two["counters_exact"]):
        says = f"they are means over samples, which depend on what is drawn{f'; {moved}' if moved else ''}"
        return found("not comparable", says, asked=False)
    if not changed:
        return found("pass", f"{len(shared)} counters are equal")
    return found("improved" if all(after[name] < before[name] for name in changed) else "regressed", moved)


def _speedups(arm: str, sides: _Sides, asked: float | None) -> list[CheckFinding]:
    loss = SPEEDUP_LOSS if asked is None else asked
    then, now = (side["speedup"] for side in sides.arms(arm))
    findings = []
    for batch in then if then or asked is None else now:  # of what the run alone timed, only if asked
        rule = f"max-speedup-loss {loss:g} % at batch {batch}"
        stored, timed = then.get(batch), now.get(batch)
        lacks = "" if stored and timed else f"the {'run' if stored else 'baseline'} did not time it"
        reason = lacks or sides.unlike(arm, "speed-up")
        if reason:
            findings.append(CheckFinding(rule, arm, "not comparable", reason))
            continue
        ratio = quotient(Interval(*timed), Interval(*stored))
        says = f"{_said(ratio)} of the baseline's {stored[0]:.3g} times"
        least = 1 - loss / 100
        verdict = _verdict_above(ratio, least, 1 + loss / 100)
        beyond = least / (ratio.high or ratio.value)
        findings.append(CheckFinding(rule, arm, *_left_open(verdict, says, sides, batch, beyond), ratio))
    return findings


def _verdict_above(ratio: Interval, least: float, better: float) -> CheckVerdict:
    """Where more is better: pass above `least`, improved above `better`."""
    if ratio.low is None or ratio.high is None:
        return "inconclusive"
    if ratio.low > better:
        return "improved"
    return "pass" if ratio.low >= least else "regressed" if ratio.high < least else "inconclusive"


def _fd(arm: str, sides: _Sides, most: float) -> CheckFinding:
    stored = [side["quality"].get("fd", {}) for side in sides.arms(arm)]
    seeds = sorted(stored[0].keys() & stored[1].keys())
    pairs = ([replicate(stored[0][s]) for s in seeds], [replicate(stored[1][s]) for s in seeds])
    n, space = sides.now["arms"][arm]["n"], sides.now["space"]
    of = f"n = {n}{f' x {len(seeds)} seeds' if len(seeds) > 1 else ''} in {space}"
    why = _missing(arm, "fd", sides) or sides.unlike(arm, "quality")
    return replace(_increase(arm, "fd", most, why, pairs, of), n=n, space=space)


def _likelihood(arm: str, sides: _Sides, most: float) -> CheckFinding:
    why = _missing(arm, "bits", sides) or sides.unlike(arm, "bits")
    before, after = ([] if why else [replicate(side["bits"])] for side in sides.arms(arm))
    n = (sides.now["arms"][arm]["bits"] or {}).get("n")
    return replace(_increase(arm, "bits", most, why, (before, after), f"{n} held-out images"), n=n)


def _increase(
    arm: str, metric: str, most: float, why: str, pairs: tuple[list[Replicates], list[Replicates]], of: str
) -> CheckFinding:
    """How many percent more than the baseline's a metric is, of which less is better."""
    rule = f"max-{metric}-increase {most:g} %"
    if not why and not correspond(*pairs):
        why = "seeds and groups of samples cannot be paired"
    if why:
        return CheckFinding(rule, arm, "not comparable", why)
    percent = jackknife_percent(*pairs)
    says = f"{_said(percent, ' %')} more than the baseline's, at most {most:g} % asked; {of}"
    if percent.low is None or percent.high is None:
        return CheckFinding(rule, arm, "inconclusive", f"{says}; more samples give an interval", percent)
    if percent.high < 0:
        return CheckFinding(rule, arm, "improved", says, percent)
    verdict: CheckVerdict = "pass" if percent.high <= most else "regressed" if percent.low > most else "inconclusive"
    return CheckFinding(rule, arm, verdict, says, percent)


def _slowdown(arm: str, sides: _Sides, most: float) -> CheckFinding:
    rule = f"max-slowdown {most:g} %"
    before, after = (side["latency_s"] for side in sides.arms(arm))
    why = _missing(arm, "latency", sides) or sides.unlike(arm, "time")
    if why:
        return CheckFinding(rule, arm, "not comparable", why)
    slower = quotient(Interval(*after), Interval(*before))
    says = f"{_said(slower)} times the baseline's {1000 * before[0]:.3g} ms"
    if slower.low is None or slower.high is None:
        return CheckFinding(rule, arm, "inconclusive", says, slower)
    limit = 1 + most / 100
    verdict: CheckVerdict = "pass" if slower.high <= limit else "regressed" if slower.low > limit else "inconclusive"
    verdict = "improved" if slower.high < 1 / limit else verdict
    return CheckFinding(rule, arm, *_left_open(verdict, says, sides, "1", slower.low / limit), slower)


def exit_code(findings: Sequence[CheckFinding]) -> int:
    """3 if anything regressed, 4 if anything stays open, or was asked for and could not be compared, or nothing could
    be compared, else 0."""
    verdicts = {finding.verdict for finding in findings}
    if "regressed" in verdicts:
        return 3
    unjudged = any(finding.asked and finding.verdict == "not comparable" for finding in findings)
    return 4 if unjudged or "inconclusive" in verdicts or not verdicts & {"pass", "improved"} else 0


def to_json(findings: Sequence[CheckFinding]) -> dict[str, Any]:
    """The findings and the exit code, as plain values."""
    return {
        "exit_code": exit_code(findings),
        "findings": [
            {
                "rule": f.rule,
                "arm": f.arm,
                "verdict": f.verdict,
                "says": f.says,
                "interval": None if f.interval is None else rounded(f.interval),
                "asked": f.asked,
                "n": f.n,
                "space": f.space,
            }
            for f in findings
        ],
    }


_SIGNS = {"pass": "✅", "improved": "🎉", "regressed": "❌", "inconclusive": "❔", "not comparable": "⬜"}


def to_markdown(findings: Sequence[CheckFinding]) -> str:
    """A table for a job summary, the worst first."""
    order = ("regressed", "inconclusive", "not comparable", "improved", "pass")
    lines = ["| | arm | rule | |", "| --- | --- | --- | --- |"]
    for f in sorted(findings, key=lambda f: order.index(f.verdict)):
        says = f.says.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {_SIGNS[f.verdict]} {f.verdict} | `{f.arm}` | {f.rule} | {says} |")
    return "\n".join(lines)


def to_junit(findings: Sequence[CheckFinding]) -> str:
    """JUnit's XML: what regressed is a failure, what is open or not comparable is skipped."""
    suite = ElementTree.Element("testsuite", name="bench check", tests=str(len(findings)))
    suite.set("failures", str(sum(f.verdict == "regressed" for f in findings)))
    suite.set("skipped", str(sum(f.verdict in ("inconclusive", "not comparable") for f in findings)))
    for f in findings:
        case = ElementTree.SubElement(suite, "testcase", classname=printable(f.arm), name=printable(f.rule))
        says = printable(f.says)
        if f.verdict == "regressed":
            ElementTree.SubElement(case, "failure", message=says)
        elif f.verdict in ("inconclusive", "not comparable"):
            ElementTree.SubElement(case, "skipped", message=f"{f.verdict}: {says}")
        else:
            ElementTree.SubElement(case, "system-out").text = says
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode")
