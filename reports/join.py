"""Joining: which records of several runs may share one table, and why the others may not.

Knows runs. Refuses to bring together what was not measured alike: `conditions` says what that means. What may not be
joined gets a part of its own, with the reason in words.

Records are of three kinds that are judged apart: samples and their quality, likelihood, and timings. A trial that two
runs have, the same arm under the same seed, counts once, since it is no second sample; rounds of timings are pooled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from orderbench.orders import BenchError
from orderbench.reports.conditions import Conditions, What, conditions_of, unlike
from orderbench.reports.results import own_model, round_times
from orderbench.runs.record import Run
from orderbench.runs.schema import ArmAbout, ModelAbout, RunAbout

RECORD_KINDS = {
    "samples": ("quality", "tuning", "floor", "repair"),
    "likelihood": ("likelihood",),
    "timings": ("latency",),
}
_ASKED: dict[str, tuple[What, ...]] = {
    "samples": ("quality", "kernel distance"),
    "likelihood": ("bits",),
    "timings": ("speed-up", "time"),
}
_NOTHING = frozenset[int]()
# conditions that only records of one kind say, with the value for a run that has no such records
_SAID_OF: dict[str, dict[str, Any]] = {
    "samples": {"space": None, "reference": None, "n": None, "groups": _NOTHING, "kernel": _NOTHING},
    "likelihood": {"images": None, "n_images": None},
    "timings": {"device": None, "batch": None},
}


@dataclass(frozen=True, repr=False)
class JoinedRun(Run):
    """Trials of several runs as if one had measured them. sources: by trial here, the run that has it and its id
    there."""

    sources: Mapping[str, tuple[Run, str]] = field(default_factory=dict)

    def arrays(self, trial: str, what: str) -> dict[str, np.ndarray]:
        """The arrays of one trial, from the run that has them."""
        run, name = self.sources[trial]
        return run.arrays(name, what)


@dataclass(frozen=True)
class Part:
    """What one section of a page shows. runs: whose records; has: which kinds of them, by run name; notes: what counts
    once, or is in another part and why, a sentence each."""

    run: Run
    runs: tuple[str, ...]
    has: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def join(runs: Sequence[Run]) -> tuple[Part, ...]:
    """The parts that some runs fall into: one, if all of their records may be joined.

    Raises BenchError where no run holds a finished trial, and for a folder that is named twice.
    """
    names = run_names(runs)
    empty = [name for name, run in zip(names, runs, strict=True) if not run.done()]
    if len(empty) == len(runs):
        raise BenchError(
            f"no trial of {', '.join(empty)} is finished, so there is nothing to report; go on with "
            f"bench run --resume --out {runs[0].folder}"
        )
    if len(runs) == 1:
        has = tuple((kind, names[0]) for kind in RECORD_KINDS if _of_kind(runs[0], kind))
        return (Part(runs[0], tuple(names), has, ()),)
    parts: list[_Part] = []
    apart: dict[tuple[int, int, str, str], list[str]] = {}
    for name, run in zip(names, runs, strict=True):
        for kind in RECORD_KINDS:
            if not _of_kind(run, kind):
                continue
            refused = []
            for number, part in enumerate(parts):
                why = part.refuses(run, kind)
                if not why:
                    home = number
                    break
                refused.append((number, why))
            else:
                home = len(parts)
                parts.append(_Part(run))
            parts[home].add(name, run, kind)
            for number, why in refused:
                apart.setdefault((number, home, name, why), []).append(kind)
    for (number, home, name, why), kinds in apart.items():
        sentence = f"{' and '.join(kinds)} of {name} are kept apart from {parts[number].names[0]}: {why}"
        for part in (parts[number], parts[home]):
            part.notes.append(sentence[0].upper() + sentence[1:])
    return tuple(part.joined() for part in parts)


def run_names(runs: Sequence[Run]) -> list[str]:
    """What runs are called: the last part of their folders, or as much as tells them apart."""
    paths = [run.folder.resolve() for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise BenchError(f"the run '{path.name}' is named twice; name it once")
    deep = next(n for n in range(1, 1 + max(len(path.parts) for path in paths))
                if len({path.parts[-n:] for path in paths}) == len(paths))  # fmt: skip
    return ["/".join(path.parts[-deep:]) for path in paths]


def _of_kind(run: Run, kind: str) -> list[dict[str, Any]]:
    return [trial for trial in run.trials.values() if trial["kind"] in RECORD_KINDS[kind]]


@dataclass
class _Part:
    """A part under construction. The order of its trials matters: of two timings of one batch, readers take the
    last."""

    head: Run
    names: list[str] = field(default_factory=list)
    has: list[tuple[str, str]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, tuple[Run, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def refuses(self, run: Run, kind: str) -> str:
        """Why the records of a run may not join; empty if they may."""
        for name, other in self.runs.items():
            why = _runs_unlike(other, [one for one, of in self.has if of == name], run, kind)
            if why:
                return why
        return self._other_work(run) if kind == "timings" else ""

    def _other_work(self, run: Run) -> str:
        """Which arm's exact counters differ: then its timings are of other work."""
        ours = [trial for trial in self.trials.values() if trial["kind"] == "latency"]
        for one in ours:
            for two in run.done("latency"):
                counted = one.get("counters", {}), two["counters"]
                for name in counted[0].keys() & counted[1].keys():
                    exact = one["counters_exact"].get(name, True) and two["counters_exact"].get(name, True)
                    if one["batch"] == two["batch"] and exact and counted[0][name] != counted[1][name]:
                        return f"{name} did other work (its counters differ)"
        return ""

    def add(self, name: str, run: Run, kind: str) -> None:
        if name not in self.names:
            self.names.append(name)
            self.runs[name] = run
        self.has.append((kind, name))
        repeated: list[str] = []
        changed: list[str] = []
        for trial in _of_kind(run, kind):
            key = trial["trial"]
            if kind == "timings":
                self._add_timing(name, run, trial)
            elif key not in self.trials or self.trials[key]["status"] != "done":
                self.trials[key], self.sources[key] = trial, (run, key)
            elif trial["status"] == "done" and trial["kind"] in ("quality", "likelihood"):
                repeated.append(trial["arm"])
                if trial.get("tokens_digest") != self.trials[key].get("tokens_digest"):
                    changed.append(trial["arm"])
        if repeated:
            arms = _some(list(dict.fromkeys(repeated)))
            note = f"{kind} of {arms} under the same seeds are in {name} too; they count once"
            if changed:
                note += (
                    f" (codes of {_some(list(dict.fromkeys(changed)))} differ there: other machines round otherwise)"
                )
            self.notes.append(note[0].upper() + note[1:])

    def _add_timing(self, name: str, run: Run, trial: dict[str, Any]) -> None:
        same = [t for t in self.trials.values() if t["kind"] == "latency" and t["batch"] == trial["batch"]]
        match = next((t for t in same if _contenders(t) == _contenders(trial)), None)
        if trial["status"] != "done":
            return
        if match is not None:
            pooled = {**match, "rounds": [*match["rounds"], *trial["rounds"]]}
            self.trials[match["trial"]] = pooled
            self.notes.append(
                f"Batch {trial['batch']}: {len(trial['rounds'])} rounds of {name} are pooled with the others"
            )
            return
        key = trial["trial"] + "~" * len(same)
        renamed = {**trial, "trial": key}
        # Before the others: for an arm in both, the first run's timings are the ones that readers keep.
        self.trials = {key: renamed, **self.trials}
        self.sources[key] = (run, trial["trial"])
        if same:
            self.notes.append(
                f"Batch {trial['batch']}: {name} timed other arms in turns; their ratios are to its own baseline"
            )

    def joined(self) -> Part:
        kept = {trial["arm"] for trial in self.trials.values() if trial["arm"]}
        for trial in self.trials.values():
            kept |= _contenders(trial)
        about: RunAbout = {
            **self.head.about,
            "arms": [],
            "environments": [one for run in self.runs.values() for one in run.about["environments"]],
            "trials": list(self.trials),
        }
        for run in self.runs.values():
            _add_about(about, run, kept)
        run = JoinedRun(self.head.folder, about, self.trials, self.sources)
        return Part(run, tuple(self.names), tuple(self.has), tuple(self.notes))


def _add_about(about: RunAbout, run: Run, kept: set[str]) -> None:
    """What a run says of its models, spaces and arms is added; what is there already stays."""
    own = {own_model(run.about): own_model(about)}
    for name, model in run.about["models"].items():
        name = own.get(name, name)
        known: ModelAbout = about["models"].get(name, model)
        about["models"] = {**about["models"], name: {**model, **known}}
    about["refused"] = {**run.about["refused"], **about["refused"]}
    spaces = {entry["space"] for entry in about["spaces"]}
    about["spaces"] = [*about["spaces"], *(entry for entry in run.about["spaces"] if entry["space"] not in spaces)]
    names = {arm["name"] for arm in about["arms"]}
    about["arms"] += [
        {**arm, "model": own.get(arm["model"], arm["model"])}
        for arm in run.about["arms"]
        if arm["name"] in kept and arm["name"] not in names
    ]


# Whether two runs were measured alike


def _runs_unlike(one: Run, kinds: Sequence[str], two: Run, kind: str) -> str:
    """Why records of a kind of a second run may not join those of some kinds of a first; empty if they may.

    Numbers of both share one table, so every kind of number in it is asked about. What only timings say, such as the
    machine, is asked of timings alone.
    """
    asked: list[What] = [*_ASKED[kind], *(what for other in kinds for what in _ASKED[other] if other != kind)]
    pairs = list(_pairs(one, kinds, two, kind))
    for what in asked:
        for where, before, after in pairs:
            why = unlike(before, after, what)
            if why:
                return f"{where}{why}"
    return ""


def _pairs(one: Run, kinds: Sequence[str], two: Run, kind: str) -> Iterator[tuple[str, Conditions, Conditions]]:
    """What is held against each other: one arm of every model that both have, in every space; then every arm that both
    have. First which arm it is, where its plan is meant."""
    firsts = [next((entry["space"] for entry in run.about["spaces"]), None) for run in (one, two)]
    shared = {entry["space"] for entry in one.about["spaces"]} & {entry["space"] for entry in two.about["spaces"]}
    spaces = [(firsts[0], firsts[1]), *((space, space) for space in sorted(shared - {*firsts}))]
    models = [(own_model(one.about), own_model(two.about))]
    models += [(name, name) for name in one.about["models"] if name in two.about["models"]]
    for names in dict.fromkeys(models):
        before, after = _some_arm(one, names[0], kinds), _some_arm(two, names[1], [kind])
        if before is not None and after is not None:
            for space in spaces:
                yield (
                    "",
                    _said(one, before, kinds, space[0]).of_any_arm(),
                    _said(two, after, [kind], space[1]).of_any_arm(),
                )
    theirs = {arm["name"]: arm for arm in two.about["arms"]}
    for arm in one.about["arms"]:
        name = arm["name"]
        if name in theirs:
            sides = [_said(one, arm, kinds, firsts[0]), _said(two, theirs[name], [kind], firsts[1])]
            yield f"for {name}, ", _without_seeds(sides[0]), _without_seeds(sides[1])
            if "samples" in kinds and kind == "samples" and _is_tuned(one, name) and _is_tuned(two, name):
                sides = [_said(one, arm, kinds, None, "tuned"), _said(two, theirs[name], [kind], None, "tuned")]
                yield f"for {name} at its best setting, ", _without_seeds(sides[0]), _without_seeds(sides[1])


def _without_seeds(conditions: Conditions) -> Conditions:
    """Samples of other seeds add up."""
    return replace(conditions, seeds=_NOTHING)


def _some_arm(run: Run, model: str, kinds: Sequence[str]) -> ArmAbout | None:
    """An arm of a model with records of these kinds; without any, just one."""
    arms = [arm for arm in run.about["arms"] if arm["model"] == model]
    measured = {t["arm"] for kind in kinds for t in _of_kind(run, kind) if t["status"] == "done"}
    measured |= {name for trial in run.done("latency") if "timings" in kinds for name in _contenders(trial)}
    return next((arm for arm in arms if arm["name"] in measured), next(iter(arms), None))


def _is_tuned(run: Run, arm: str) -> bool:
    return any((trial["arm"], trial["setting"]) == (arm, "tuned") for trial in run.done("quality"))


def _said(run: Run, arm: ArmAbout, kinds: Sequence[str], space: str | None, setting: str = "fixed") -> Conditions:
    """The conditions of an arm, without those that only records of other kinds say."""
    batches = {trial["batch"] for trial in run.done("latency") if round_times(trial, arm["name"])} - {1}
    conditions = conditions_of(run, arm, space=space, batch=max(batches, default=None), setting=setting)
    absent = {name: value for kind, said in _SAID_OF.items() if kind not in kinds for name, value in said.items()}
    return replace(conditions, **absent)


def _contenders(trial: Mapping[str, Any]) -> set[str]:
    return {sample["name"] for one in trial.get("rounds", []) for sample in one}


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
