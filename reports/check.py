"""The gate: did anything really get worse?

Knows rules, snapshots of two runs and verdicts. Refuses to guess: counters compare exactly, everything else through its
interval, and what neither passes nor fails is called inconclusive. A number that was not measured alike, by
`conditions`, gets its reason instead.

Refuses to let pass, too: whatever the baseline holds must have been measured again, and alike, or have been left out by
whoever asks (`Rules.only`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from orderbench.orders import BenchError
from orderbench.orders.documents import read_document
from orderbench.orders.errors import printable, unknown
from orderbench.orders.spelling import split_arm
from orderbench.reports.compare import busy, named_arm
from orderbench.reports.conditions import Conditions, What, unlike, unsaid
from orderbench.reports.results import Results, failures, images_words, replicate, round_times
from orderbench.reports.snapshot import conditions_in, counters_in, noise_factor, rounded, snapshot
from orderbench.reports.statistics import Interval, Replicates, correspond, jackknife_percent, paired_ratio, quotient
from orderbench.runs.record import Run

SPEEDUP_LOSS = 10.0  # percent, where no other was asked for
FEWEST_ROUNDS = 5  # that fail a speed: the interval of three or four holds less than its level
GATED = ("counters", "latency", "likelihood", "quality")  # what a baseline holds
_MOST = 1000.0  # percent: what grows more than elevenfold is another number, and a limit beyond would be none
CheckVerdict = Literal["pass", "improved", "regressed", "inconclusive", "not comparable"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is asked of a run.

    min_speedup: 'ARM/ARM' to how many times faster the first must be within the run, at `batch`. counters: exact.
    max_speedup_loss: percent that a speed-up may lose against the baseline's. Both run by default, where they are None.
    max_fd_increase, max_bits_increase: percent of the baseline's value; None asks nothing of its size. max_slowdown:
    percent of absolute latency, same hardware only. any_model: a baseline of other weights will do, for counters and
    speed; quality is then not comparable, and not asked for.

    only: which of `GATED` are asked for; empty: all that the baseline holds. What is asked for and was not measured, or
    not alike, makes the check exit with 4, whether or not a rule limits it.
    """

    min_speedup: Mapping[str, float] = field(default_factory=dict)
    batch: int = 1
    counters: bool | None = None
    max_speedup_loss: float | None = None
    max_fd_increase: float | None = None
    max_bits_increase: float | None = None
    max_slowdown: float | None = None
    any_model: bool = False
    only: tuple[str, ...] = ()

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
            if not 0 < least < 1e6:
                raise BenchError(f"a speed-up of {least:g} is not served; it is above 0, as in radial/raster=3")
        for name in ("max_speedup_loss", "max_fd_increase", "max_bits_increase", "max_slowdown"):
            value = getattr(self, name)
            if value is not None and not _is_number(value):
                raise _other_type(name, value, "a number of percent, as in 5")
            most = 100.0 if name == "max_speedup_loss" else _MOST
            if value is not None and not 0 <= value < most:
                raise BenchError(
                    f"{name.replace('_', '-')} of {value:g} is not served; percent, 0 or more and below {most:g}, as "
                    f"in {SPEEDUP_LOSS:g}"
                )
        given = [self.only] if isinstance(self.only, str) else self.only
        if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
            raise _other_type("only", self.only, 'a list of names, as in ["counters", "quality"],')
        object.__setattr__(self, "only", tuple(given))
        for one in self.only:
            if one not in GATED:
                raise unknown("part of a baseline", one, GATED, "as in --only counters,quality")
        for name, part in _PART_OF.items():
            if getattr(self, name) not in (None, False) and not self.asks(part):
                raise BenchError(
                    f"{name.replace('_', '-')} asks of {part}, which --only leaves out; give one of them, or "
                    f"--only {','.join([*self.only, part])}"
                )

    def asks(self, part: str) -> bool:
        """Whether what the baseline holds of one of `GATED` must have been measured, and alike."""
        if self.only:
            return part in self.only
        return not self.any_model or part in ("counters", "latency") or self._limits(part)

    def _limits(self, part: str) -> bool:
        return any(of == part and getattr(self, name) is not None for name, of in _PART_OF.items())


_PART_OF = {"counters": "counters", "max_speedup_loss": "latency", "max_slowdown": "latency",
            "max_bits_increase": "likelihood", "max_fd_increase": "quality"}  # fmt: skip


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
            value = read_document(Path(file), toml=True)
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
    known = _known_arms(results)
    least_of: dict[tuple[str, str], float] = {}  # two spellings of one pair are one rule, the later's
    for pair, least in rules.min_speedup.items():
        named = [arm if arm in known else named_arm(results.run, arm, spell) for arm in _pair(pair)]
        if named[0] == named[1]:
            raise BenchError(
                f"min-speedup of {pair} sets an arm against itself, which proves nothing; name two, as in "
                f"radial/raster=3"
            )
        least_of[named[0], named[1]] = least
    findings = [_least_speedup(results, *pair, least, rules.batch) for pair, least in least_of.items()]
    findings += _trials(results.run)
    if baseline is not None:
        now = snapshot(results)
        findings += _against(_Sides(now, baseline, rules.any_model), rules)
        findings += _nothing_but_counters(findings, rules)
    return findings


def _known_arms(results: Results) -> set[str]:
    """The names that may stand in a rule on speed: arms, baselines and what was timed besides."""
    timed = {s["name"] for trial in results.run.done("latency") for one in trial["rounds"] for s in one}
    return {row.arm for row in results.arms} | {*results.baselines, "A/A"} | timed


def _nothing_but_counters(findings: Sequence[CheckFinding], rules: Rules) -> list[CheckFinding]:
    """A check that judged counters alone says nothing of speed and quality. It must have been meant."""
    judged = {f.rule for f in findings if f.verdict != "not comparable"}
    if judged != {"counters"} or rules.counters is True or rules.only:
        return []
    says = "nothing but counters was judged; limit more, as by --max-fd-increase 5, or ask for --only counters"
    return [CheckFinding("rules", "(run)", "not comparable", says, asked=True)]


@dataclass(frozen=True)
class _Sides:
    """The snapshot of a run and that of its baseline. any_model: other weights are forgiven where a rule allows it."""

    now: Mapping[str, Any]
    then: Mapping[str, Any]
    any_model: bool

    def arms(self, arm: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """What is known of an arm, before and after."""
        return self.then["arms"][arm], self.now["arms"][arm]

    def conditions(self, arm: str, batch: str = "1") -> tuple[Conditions, Conditions]:
        """Before and after. BenchError where its model is another one and not forgiven."""
        one, two = conditions_in(self.then, arm, batch), conditions_in(self.now, arm, batch)
        if one.model.differs(two.model) and not self.any_model:
            raise BenchError(
                f"the baseline was made with another model ({one.model}) than the run ({two.model}); write a new one "
                f"with bench baseline, or check counters and speed alone with --any-model"
            )
        return one, two

    def unlike(self, arm: str, what: What, batch: str = "1") -> str:
        """Why the two were not measured alike, or nobody can tell; for quality and likelihood, other weights are never
        forgiven. batch: of speeds."""
        forgive = "model" if self.any_model and what in ("counters", "speed-up", "time") else ""
        both = self.conditions(arm, batch)
        return unlike(*both, what, forgive) or unsaid(*both, what, forgive)


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
        if arm not in _known_arms(results):
            return found("not comparable", str(unknown("arm", arm, _known_arms(results), "those of the run")))
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
        if rules.counters is not False and rules.asks("counters"):
            findings.append(_counters(arm, sides, rules.counters is True))
        if rules.asks("latency"):
            findings += _speedups(arm, sides, rules.max_speedup_loss)
        for name, most in (("fd", rules.max_fd_increase), ("bits", rules.max_bits_increase),
                           ("latency", rules.max_slowdown)):  # fmt: skip
            if most is not None:
                judge = _slowdown if name == "latency" else _fd if name == "fd" else _likelihood
                findings.append(replace(judge(arm, sides, most), asked=_binds(arm, name, sides)))
        findings += _not_again(arm, sides, rules, findings)
    if rules.max_speedup_loss is not None and not any(f.rule.startswith("max-speedup-loss") for f in findings):
        says = "neither has a speed-up over its baseline arm"
        rule = f"max-speedup-loss {rules.max_speedup_loss:g} %"
        findings.append(CheckFinding(rule, "(run)", "not comparable", says, asked=True))
    if rules.asks("latency"):
        for batch in sides.then["rounds"]:
            if not sides.now["rounds"].get(batch) and not any(f.rule.endswith(f"at batch {batch}") for f in findings):
                says = f"the baseline was timed at batch {batch} and the run was not"
                findings.append(CheckFinding("latency", "(run)", "not comparable", says, asked=True))
    return findings


def _not_again(arm: str, sides: _Sides, rules: Rules, judged: Sequence[CheckFinding]) -> Iterator[CheckFinding]:
    """What the baseline holds of an arm, that no rule speaks of, and that was not measured again, or not alike."""
    then, now = sides.arms(arm)

    def lost(part: str, says: str) -> CheckFinding:
        return CheckFinding(part, arm, "not comparable", says, asked=True)

    spoken = {f.rule.split()[0] for f in judged if f.arm == arm}
    if rules.asks("latency") and then["latency_s"] and not spoken & {"max-speedup-loss", "max-slowdown"}:
        why = _missing(arm, "latency", sides) or sides.unlike(arm, "time")
        if why:
            yield lost("latency", why)
    if rules.asks("likelihood") and then["bits"] and "max-bits-increase" not in spoken:
        why = _missing(arm, "bits", sides) or sides.unlike(arm, "bits")
        if why:
            yield lost("likelihood", why)
    if rules.asks("quality") and then["quality"]:
        lacking = [
            f"the run has no {METRIC_NAMES.get(metric, metric)} of it under seed {seed}"
            for metric, by_seed in then["quality"].items()
            for seed in by_seed
            if seed not in now["quality"].get(metric, {})
        ]
        why = next(iter(lacking), "")
        if not why and "max-fd-increase" not in spoken:
            why = sides.unlike(arm, "quality")
        if why:
            yield lost("quality", why)


METRIC_NAMES = {"fd": "Frechet distance", "kd": "kernel distance", "agreement": "agreement with its labels"}
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
    before, after = counters_in(one), counters_in(two)
    same = before.keys() & after.keys() or after  # an older baseline does not say which trials counted
    trials = [(before.get(name, one["counters"]), after[name], name) for name in after if name in same]
    lacking = [f"{name} of {where}" for was, found, where in trials for name in was if name not in found]
    if one.get("counters_by"):  # equal counters are as good from any trial, others are not
        lacking += [f"any of {where}" for where in before if where not in after]
    moves = {  # the same in all trials is said once
        f"{name} {was[name]} -> {found[name]}": found[name] < was[name]
        for was, found, _ in trials
        for name in was
        if name in found and was[name] != found[name]
    }
    moved = ", ".join(moves)

    def found(verdict: CheckVerdict, says: str, asked: bool = True) -> CheckFinding:
        return CheckFinding("counters", arm, verdict, says, asked=asked)

    has, have = any(before.values()), any(after.values())
    if not has and not have:
        return found("not comparable", "neither has any", asked=asked)
    if not has or not have:
        return found("not comparable", "one of the two has none", asked=asked or has)
    why = sides.unlike(arm, "counters")
    if why:
        return found("not comparable", why)
    if not (one["counters_exact"] and two["counters_exact"]):
        says = f"they are means over samples, which depend on what is drawn{f'; {moved}' if moved else ''}"
        return found("not comparable", says, asked=one["counters_exact"])
    if moves and not all(moves.values()):
        return found("regressed", moved)
    if lacking:
        return found("not comparable", f"the run did not count {lacking[0]}")
    return found("improved", moved) if moves else found("pass", f"{len(one['counters'])} counters are equal")


def _speedups(arm: str, sides: _Sides, asked: float | None) -> list[CheckFinding]:
    loss = SPEEDUP_LOSS if asked is None else asked
    then, now = (side["speedup"] for side in sides.arms(arm))
    findings = []
    for batch in then if then or asked is None else now:  # of what the run alone timed, only if asked
        rule = f"max-speedup-loss {loss:g} % at batch {batch}"
        stored, timed = then.get(batch), now.get(batch)
        lacks = "" if stored and timed else f"the {'run' if stored else 'baseline'} did not time it"
        reason = lacks or sides.unlike(arm, "speed-up", batch)
        if reason:
            asks = bool(stored) or asked is not None
            findings.append(CheckFinding(rule, arm, "not comparable", reason, asked=asks))
            continue
        ratio = quotient(Interval(*timed), Interval(*stored))
        says = f"{_said(ratio)} of the baseline's {stored[0]:.3g} times"
        least = 1 - loss / 100
        verdict = _verdict_above(ratio, least, 1 + loss / 100)
        beyond = least / (ratio.high or ratio.value)
        found = _left_open(verdict, says, sides, batch, beyond)
        findings.append(CheckFinding(rule, arm, *found, ratio, asked=True))
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
    now = sides.now["arms"][arm]
    n, unseen = (now["bits"] or {}).get("n"), sides.now["models"][now["model"]]["images"].get("unseen", True)
    return replace(_increase(arm, "bits", most, why, (before, after), f"{n} {images_words(not unseen)}"), n=n)


def _increase(
    arm: str, metric: str, most: float, why: str, pairs: tuple[list[Replicates], list[Replicates]], of: str
) -> CheckFinding:
    """How many percent more than the baseline's a metric is, of which less is better."""
    rule = f"max-{metric}-increase {most:g} %"
    if not why and not correspond(*pairs):
        why = "seeds and groups of samples cannot be paired"
    if why:
        return CheckFinding(rule, arm, "not comparable", why)
    try:
        percent = jackknife_percent(*pairs)
    except BenchError as problem:  # of nothing
        return CheckFinding(rule, arm, "not comparable", str(problem))
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
        arm, rule, says = _in_markdown(f.arm, code=True), _in_markdown(f.rule), _in_markdown(f.says)
        lines.append(f"| {_SIGNS[f.verdict]} {f.verdict} | {arm} | {rule} | {says} |")
    return "\n".join(lines)


def _in_markdown(text: str, code: bool = False) -> str:
    """A text in a cell of a table, shown as it is: no link, no tag, no end of the cell. code: as program text."""
    line = " ".join(printable(text).split())
    if code:
        return "`" + line.replace("`", "'").replace("|", "\\|") + "`"
    return re.sub(r"[\\`*_<>&|]|\](?=[(\[:])|(?<=:)//", lambda found: "".join(f"&#{ord(c)};" for c in found[0]), line)


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
