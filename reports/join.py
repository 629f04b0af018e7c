"""Joining: which records of several runs may stand in one table, and why the others may not.

Knows runs. Refuses to bring together what was not measured alike: another model, plan, feature space, number of samples
or setting gives other numbers, and another machine other times. What may not be joined stands in a part of its own,
with the reason in words.

Records are of three kinds that are judged apart: samples and their quality, likelihood, and timings. A trial that two
runs have, the same arm under the same seed, counts once, since it is no second sample; rounds of timings are pooled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orderbench.orders import BenchError
from orderbench.reports.results import differ, images_of, kernel_sizes, reference_of, tokenizer_of
from orderbench.runs.record import Run

KINDS = {
    "samples": ("quality", "tuning", "floor", "repair"),
    "likelihood": ("likelihood",),
    "timings": ("latency",),
}


@dataclass(frozen=True)
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
    once, or stands elsewhere and why, a sentence each."""

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
        has = tuple((kind, names[0]) for kind in KINDS if _of_kind(runs[0], kind))
        return (Part(runs[0], tuple(names), has, ()),)
    parts: list[_Part] = []
    apart: dict[tuple[int, int, str, str], list[str]] = {}
    for name, run in zip(names, runs, strict=True):
        for kind in KINDS:
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
        sentence = f"{' and '.join(kinds)} of {name} stand apart from {parts[number].names[0]}: {why}"
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
    return [trial for trial in run.trials.values() if trial["kind"] in KINDS[kind]]


@dataclass
class _Part:
    """A part under construction. order matters: of two timings of one batch, readers take the later."""

    head: Run
    names: list[str] = field(default_factory=list)
    has: list[tuple[str, str]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, tuple[Run, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def holds(self, kind: str) -> bool:
        return any(trial["kind"] in KINDS[kind] for trial in self.trials.values())

    def refuses(self, run: Run, kind: str) -> str:
        """Why the records of a run may not join; empty if they may."""
        for other in self.runs.values():
            why = _subjects_differ(other.about, run.about)
            if why:
                return why
        ours = [trial for trial in self.trials.values() if trial["kind"] in KINDS[kind]]
        theirs = _of_kind(run, kind)
        if not ours:
            return ""
        if kind == "timings":
            return _timings_differ(ours, theirs)
        counts = [sorted({t["n"] for t in side if "n" in t and t["kind"] in ("quality", "likelihood")})
                  for side in (ours, theirs)]  # fmt: skip
        if all(counts) and counts[0] != counts[1]:
            return f"n differs ({', '.join(map(str, counts[0]))}; {', '.join(map(str, counts[1]))})"
        if kind == "likelihood" and any(differ(images_of(r.about), images_of(run.about)) for r in self._with(kind)):
            return "the held-out images differ"
        if kind == "samples":
            if _groups(ours) and _groups(theirs) and _groups(ours) != _groups(theirs):
                return "the groups of samples that are left out in turn differ; an older orderbench made them otherwise"
            sizes = [kernel_sizes(side) for side in (ours, theirs)]
            if all(sizes) and sizes[0] != sizes[1]:
                return "kernel distances are to other numbers of reference images, as of an older orderbench"
            tuned = [_tuned(side) for side in (ours, theirs)]
            for arm in tuned[0].keys() & tuned[1].keys():
                if tuned[0][arm] != tuned[1][arm]:
                    return f"{arm} was tuned to another setting"
            spaces = [
                next((_spaces(r.about) for r in side if _spaces(r.about)), [])
                for side in ([*self.runs.values()], [run])
            ]
            if all(spaces) and spaces[0] != spaces[1]:
                return f"the feature spaces or references differ ({_listed(spaces[0])}; {_listed(spaces[1])})"
            for other in self._with(kind):
                for entry in run.about["subject"].get("spaces", []):
                    if differ(reference_of(other.about, entry["space"]), reference_of(run.about, entry["space"])):
                        return f"the references in the space {entry['space']} differ, though not by name"
        return ""

    def _with(self, kind: str) -> list[Run]:
        """The runs whose records of a kind are here."""
        return [self.runs[name] for one, name in self.has if one == kind]

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
                f"Batch {trial['batch']}: {name} timed other arms in turns; its arms stand by their ratio to its own "
                f"{run.about['baseline']}"
            )

    def joined(self) -> Part:
        arms: dict[str, dict[str, Any]] = {}
        subject: dict[str, Any] = {}
        environments: list[dict[str, Any]] = []
        kept = {trial["arm"] for trial in self.trials.values() if trial["arm"]}
        for trial in self.trials.values():
            kept |= _contenders(trial)
        for run in self.runs.values():
            subject = {**run.about["subject"], **subject}
            environments += run.about["environments"]
            for arm in run.about["arms"]:
                if arm["name"] in kept:
                    arms.setdefault(arm["name"], arm)
        about = {
            **self.head.about,
            "subject": subject,
            "arms": list(arms.values()),
            "environments": environments,
            "trials": list(self.trials),
        }
        run = JoinedRun(self.head.folder, about, self.trials, self.sources)
        return Part(run, tuple(self.names), tuple(self.has), tuple(self.notes))


def _subjects_differ(one: dict[str, Any], two: dict[str, Any]) -> str:
    models = [about["subject"]["model"] for about in (one, two)]
    if any(models[0].get(key) != models[1].get(key) for key in ("sha256", "grid", "codes")) or (
        models[0].get("sha256") is None and models[0]["name"] != models[1]["name"]
    ):
        return f"the models differ ({', '.join(_model_name(model) for model in models)})"
    if tokenizer_of(one) != tokenizer_of(two):
        return "the tokenizers differ, and with them the codes, or only one of the two has any"
    types = [about["config"].get("dtype") for about in (one, two)]
    if types[0] != types[1]:
        return f"the weights were {types[0]} and {types[1]}"
    if one["setting"] != two["setting"]:
        apart = [
            f"{key} {one['setting'].get(key)} and {two['setting'].get(key)}"
            for key in one["setting"]
            if one["setting"].get(key) != two["setting"].get(key)
        ]
        return f"the sampling settings differ ({', '.join(apart)})"
    if one["baseline"] != two["baseline"]:
        return f"the baselines differ ({one['baseline']}, {two['baseline']})"
    plans = [{arm["name"]: arm["plan_digest"] for arm in about["arms"]} for about in (one, two)]
    for name in plans[0].keys() & plans[1].keys():
        if plans[0][name] != plans[1][name]:
            return f"the plans of {name} differ ({str(plans[0][name])[:8]}, {str(plans[1][name])[:8]})"
    return ""


def _model_name(model: Mapping[str, Any]) -> str:
    return f"{model['name']} {(model.get('sha256') or '')[:8]} on {model.get('grid')}"


def _timings_differ(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> str:
    devices = [next((t["device"] for t in side if "device" in t), None) for side in (ours, theirs)]
    if None not in devices and devices[0] != devices[1]:
        return f"the hardware or its threads differ ({describe_device(devices[0])}; {describe_device(devices[1])})"
    batches = [{t["batch"] for t in side if t["batch"] != 1} for side in (ours, theirs)]
    if all(batches) and batches[0] != batches[1]:
        return f"the throughput batches differ ({_listed(batches[0])}; {_listed(batches[1])})"
    for one in ours:
        for two in theirs:
            if one["batch"] == two["batch"]:
                counters = one.get("counters", {}), two.get("counters", {})
                for name in counters[0].keys() & counters[1].keys():
                    if counters[0][name] != counters[1][name]:
                        return f"{name} did other work (its counters differ)"
    return ""


def describe_device(device: Any) -> str:
    """A machine in words, from a timing's `device` or an environment."""
    cpu, gpu, threads = (device.get(key) or {} for key in ("cpu", "gpu", "threads"))
    name = gpu.get("name") if isinstance(gpu, Mapping) else None
    if name is None:
        cores = cpu.get("cores_usable") or cpu.get("cores_logical")
        name = f"{cpu.get('model') or 'processor'}" + (f", {cores} cores" if cores else "")
    n = threads.get("torch")
    return name + (f", {n} thread{'s' * (n != 1)}" if n else "")


def _contenders(trial: dict[str, Any]) -> set[str]:
    return {sample["name"] for one in trial.get("rounds", []) for sample in one}


def _spaces(about: dict[str, Any]) -> list[str]:
    return [f"{entry['space']} against {entry['reference']}" for entry in about["subject"].get("spaces", [])]


def _groups(trials: Sequence[dict[str, Any]]) -> set[int]:
    return {len(left) for trial in trials for result in trial.get("quality", [])
            if trial["kind"] == "quality" and (left := (result.get("fd") or {}).get("left_out"))}  # fmt: skip


def _tuned(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The best setting that was found for each arm."""
    return {
        t["arm"]: t["sampling"]
        for t in trials
        if t["kind"] == "quality" and t["setting"] == "tuned" and "sampling" in t
    }


def _listed(values: Any) -> str:
    return ", ".join(map(str, sorted(values)))


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
