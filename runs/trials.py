"""Trials: what a run measures, one thing at a time, and in which order.

Knows kinds by their names, seeds and settings. Refuses to know how anything is measured and what it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from orderbench.models.sampling import Sampling, parse_guidance
from orderbench.orders import BenchError
from orderbench.runs.arms import Arm, expand_arms
from orderbench.runs.record import file_name
from orderbench.runs.spec import SAMPLING, TUNING_SEED, RunSpec
from orderbench.runs.subject import Subject

FLOORS = ("real", "reconstructed", "noise")


@dataclass(frozen=True)
class Trial:
    """One thing that is measured and recorded as a whole.

    kind: 'likelihood' (bits of held-out images), 'floor' (a set of images that no arm made), 'tuning' and 'quality'
    (samples of an arm under a setting), 'repair' (injected errors), 'latency' (all arms in turns at one batch).
    setting: 'fixed', 'tuned' (the best of this arm's tuning), or, when tuning, the values tried.
    """

    kind: str
    arm: str = ""
    seed: int = 0
    setting: str = "fixed"
    batch: int = 0

    @property
    def id(self) -> str:
        """A name for files."""
        setting = "" if self.setting == "fixed" else self.setting
        return file_name(self.kind, self.arm, setting, f"b{self.batch}" if self.batch else f"s{self.seed}")

    def head(self) -> dict[str, Any]:
        """What its record begins with."""
        return {"trial": self.id, "kind": self.kind, "arm": self.arm, "seed": self.seed, "setting": self.setting}


@dataclass(frozen=True)
class Agenda:
    """What a run is going to do: everything that was asked of one subject, as arms and trials."""

    spec: RunSpec
    subject: Subject
    arms: tuple[Arm, ...]
    trials: tuple[Trial, ...]


def make_agenda(spec: RunSpec, subject: Subject) -> Agenda:
    """The arms that were asked for on the subject's grid, and every trial of them.

    Raises BenchError where an arm cannot be served, and as `plan_trials` does.
    """
    arms = expand_arms(spec.orders, spec.paces, spec.correction, subject.model.lattice)
    return Agenda(spec, subject, arms, plan_trials(spec, arms, subject))


def plan_trials(spec: RunSpec, arms: Sequence[Arm], subject: Subject) -> tuple[Trial, ...]:
    """Every trial of a run, in the order in which they are measured.

    Raises BenchError where what was asked cannot be measured on this subject.
    """
    sampling_of(spec, subject.recommended)  # what is out of range is said now
    trials: list[Trial] = []
    if "likelihood" in spec.only and subject.held_out_source is not None:
        trials += [Trial("likelihood", arm.name) for arm in arms if arm.has_likelihood]
    if "quality" in spec.only and subject.judges:
        there = {
            "real": any(judge.real is not None for judge in subject.judges),
            "reconstructed": subject.held_out_source is not None,
            "noise": True,
        }
        trials += [Trial("floor", name) for name in FLOORS if there[name]]
        tried = tried_settings(spec)
        for values in tried.values():
            sampling_of(spec, subject.recommended, values)
        trials += [
            Trial("tuning", arm.name, TUNING_SEED + seed, name)
            for arm in arms for name in tried for seed in range(spec.seeds)
        ]  # fmt: skip
        for seed in spec.replicates:
            for arm in arms:
                trials += [Trial("quality", arm.name, seed)]
                trials += [Trial("quality", arm.name, seed, "tuned")] if tried else []
        if subject.held_out_source is not None:
            trials += [Trial("repair", arm.name) for arm in arms if arm.correction != "off"]
    if "latency" in spec.only:
        trials += [Trial("latency", batch=batch) for batch in dict.fromkeys((1, spec.batch))]
    if not trials:
        raise BenchError(
            f"nothing of {', '.join(spec.only)} can be measured on this model: quality needs a tokenizer, as in "
            f"--tokenizer FILE, and likelihood held-out images too, as in --data FOLDER"
        )
    return tuple(trials)


def tried_settings(spec: RunSpec) -> dict[str, dict[str, Any]]:
    """The settings that tuning tries: every combination, by its spelling."""
    axes = spec.tune or {}
    combinations = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())] if axes else []
    return {",".join(f"{name}={value}" for name, value in values.items()): values for values in combinations}


def sampling_of(spec: RunSpec, recommended: Mapping[str, Any], over: Mapping[str, Any] | None = None) -> Sampling:
    """The fixed setting: what was asked, else what the weights' card recommends, else plain; `over` replaces."""
    asked = {name: getattr(spec, name) for name in SAMPLING}
    values = {**recommended, **{name: value for name, value in asked.items() if value is not None}, **(over or {})}
    typed: dict[str, Any] = {name: kind(values[name]) for name, kind in SAMPLING.items() if name in values}
    if "guidance" in typed:
        typed["guidance"] = parse_guidance(typed["guidance"])
    return Sampling(**typed)


def describe_sampling(sampling: Sampling) -> dict[str, Any]:
    """A setting as it stands in records."""
    values = {name: getattr(sampling, name) for name in SAMPLING}
    return {**values, "guidance": str(sampling.guidance)}


def is_done(record: Mapping[str, Any]) -> bool:
    """Whether a recorded trial is not measured again: it is done, and no arm in it failed by itself."""
    return record.get("status") == "done" and is_whole(record)


def is_whole(body: Mapping[str, Any] | None) -> bool:
    """Whether no arm failed by itself, where one trial measures many."""
    return not (body or {}).get("failed_arms")
