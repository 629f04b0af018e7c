"""Trials: what a run measures, one thing at a time, and in which order.

Knows kinds by their names, seeds and settings. Refuses to know how anything is measured and what it takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from orderbench.models.guidance import parse_guidance
from orderbench.models.sampling import Sampling
from orderbench.models.systems import SYSTEMS
from orderbench.orders import BenchError
from orderbench.orders.errors import listed
from orderbench.orders.profile import use_profile
from orderbench.runs.arms import Lineup, line_up
from orderbench.runs.device import doubt_threads
from orderbench.runs.fitting import profile_of
from orderbench.runs.record import file_name
from orderbench.runs.spec import SAMPLING, TUNING_SEED, RunSpec
from orderbench.runs.subject import PLAIN_SYSTEM, Subject, Subjects, asked_systems, plain_arm


@dataclass(frozen=True)
class Trial:
    """One thing that is measured and recorded as a whole.

    kind: 'likelihood' (bits of held-out images), 'floor' (a set of images that no arm made), 'tuning' and 'quality'
    (samples of an arm under a setting), 'repair' (injected errors), 'latency' (all arms in turns at one batch).
    arm: its canonical spelling, or the name of a floor. setting: 'fixed', 'tuned' (the best of this arm's tuning), or,
    when tuning, the values tried. model: whose arm or floor it is; '' is the run's own.
    """

    kind: str
    arm: str = ""
    seed: int = 0
    setting: str = "fixed"
    batch: int = 0
    model: str = ""

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
    """What a run is going to do: everything that was asked of its models, as arms and trials. notes: what cannot be
    measured on one of them, a sentence each."""

    spec: RunSpec
    subjects: Subjects
    lineup: Lineup
    trials: tuple[Trial, ...]
    notes: tuple[str, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is worth saying before anything is measured: arms that are left out, the notes, and threads."""
        refused = [f"{arm} is left out: {why}" for arm, why in self.lineup.refused.items()]
        return (*refused, *self.notes, *filter(None, [self.subjects.threads]))

    def doubts(self) -> str:
        """Why times will vary, as this machine is now; empty where nothing is timed, or was said already."""
        timed = any(trial.kind == "latency" for trial in self.trials)
        return doubt_threads(self.subjects.device) if timed and not self.subjects.threads else ""


def make_agenda(spec: RunSpec, subjects: Subjects) -> Agenda:
    """The arms that were asked for on their models' lattices, and every trial of them.

    Raises BenchError where no arm can be served, and as `plan_trials` does.
    """
    use_profile(profile_of(spec.profile, subjects.own))
    own = subjects.called(subjects.own)
    objectives = {own: subjects.own.objective, **{name: one.objective for name, one in subjects.by_name.items()}}
    lineup = line_up(
        spec.orders, spec.pace, spec.correction, subjects.models,
        own="" if own else subjects.own.name, with_baseline=not spec.no_baseline, steps=spec.steps,
        objectives=objectives, systems=[system.arm for system in asked_systems(spec)], plain=plain_arm(spec),
    )  # fmt: skip
    return Agenda(spec, subjects, lineup, plan_trials(spec, lineup, subjects), tuple(_notes(spec, lineup, subjects)))


def plan_trials(spec: RunSpec, lineup: Lineup, subjects: Subjects) -> tuple[Trial, ...]:
    """Every trial of a run, in the order in which they are measured.

    Raises BenchError where what was asked cannot be measured on these models.
    """
    subject_of = {arm.name: subjects.of(arm.model) for arm in lineup.arms}
    used = list({subject.name: subject for subject in subject_of.values()}.values())
    tried = tried_settings(spec)
    for subject in used:  # what is out of range is said now
        for values in ({}, *tried.values()):
            sampling_of(spec, subject.recommended, values)
    trials: list[Trial] = []
    if "likelihood" in spec.only:
        trials += [Trial("likelihood", arm.name, model=arm.model) for arm in lineup.arms
                   if arm.has_likelihood and subject_of[arm.name].held_out_source is not None]  # fmt: skip
    if "quality" in spec.only and subjects.judges:
        trials += _floors(subjects, used)
        sampled = [arm for arm in lineup.arms if subject_of[arm.name].codec is not None]
        trials += [
            Trial("tuning", arm.name, TUNING_SEED + seed, name, model=arm.model)
            for arm in sampled for name in tried for seed in range(spec.seeds)
        ]  # fmt: skip
        for seed in spec.replicates:
            for arm in sampled:
                settings = ("fixed", "tuned") if tried else ("fixed",)
                trials += [Trial("quality", arm.name, seed, setting, model=arm.model) for setting in settings]
        trials += [Trial("repair", arm.name, model=arm.model) for arm in sampled
                   if "rewrites" in arm.traits and subject_of[arm.name].held_out_source is not None]  # fmt: skip
    if "latency" in spec.only:
        trials += [Trial("latency", batch=batch) for batch in spec.batches]
    asked = {arm.name for arm in lineup.arms} - set(lineup.added)
    if not any(trial.kind == "latency" or trial.arm in asked for trial in trials):
        why = "; ".join(_skipped(spec, lineup, subjects)) or (
            "arms that are corrected or choose their cells have no likelihood; ask for plain ones too, as in "
            "--orders radial"
        )
        raise BenchError(f"nothing of {', '.join(spec.only)} can be measured: {why}")
    return tuple(trials)


def _floors(subjects: Subjects, used: Sequence[Subject]) -> list[Trial]:
    """Images that no arm made: real ones once, and for every tokenizer real ones through it and random codes."""
    floors = [Trial("floor", "real")] if any(judge.real is not None for judge in subjects.judges) else []
    seen: list[object] = []
    for subject in used:
        if subject.codec is None or any(subject.codec is codec for codec in seen):
            continue
        seen.append(subject.codec)
        model = subjects.called(subject)
        for what in ("reconstructed", "noise") if subject.held_out_source is not None else ("noise",):
            floors.append(Trial("floor", f"{what}~{model}" if model else what, model=model))
    return floors


def _notes(spec: RunSpec, lineup: Lineup, subjects: Subjects) -> Iterator[str]:
    """What a reader should know of the models; what nobody said of one and was taken for granted; what is left out of a
    run, and what would bring it in."""
    for subject in subjects.by_name.values():
        yield from subject.notes
    if {"quality", "likelihood"} & set(spec.only):
        used = {arm.model: subjects.of(arm.model) for arm in lineup.arms}
        yield from (subject.assumed for subject in used.values() if subject.assumed)
    yield from _skipped(spec, lineup, subjects)
    if spec.systems and not (spec.no_baseline or plain_arm(spec)):
        yield (
            f"{SYSTEMS.get(PLAIN_SYSTEM).arm} is not added, so systems are not measured against one another: the "
            f"shipped weights of {PLAIN_SYSTEM} may be of other codes than the weights that were given; "
            f"--model {PLAIN_SYSTEM}=FILE adds it"
        )
    for judge, name in product(subjects.judges, dict.fromkeys(arm.model for arm in lineup.arms)):
        known, subject = judge.space.classes, subjects.of(name)
        if subject.codec is not None and known not in (None, subject.model.n_classes):
            yield (
                f"{subject.name}: agreement is skipped, since the space {judge.space.name} knows {known} classes and "
                f"the model {subject.model.n_classes}"
            )


def _skipped(spec: RunSpec, lineup: Lineup, subjects: Subjects) -> Iterator[str]:
    """What is asked for and cannot be measured on a model, a sentence a model."""
    for name in dict.fromkeys(arm.model for arm in lineup.arms):
        subject = subjects.of(name)
        if subject.held_out_source is not None:
            continue
        skipped: list[str] = [what for what in ("quality", "likelihood") if what in spec.only]
        if "quality" in skipped and any(arm.model == name and "rewrites" in arm.traits for arm in lineup.arms):
            skipped.append("repair")
        if subject.codec is not None and "quality" in skipped:
            skipped.remove("quality")
        if skipped:
            verb = "is" if len(skipped) == 1 else "are"
            yield f"{subject.name}: {listed(skipped)} {verb} skipped, since {subject.no_codec or subject.no_held_out}"


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


def is_done(record: Mapping[str, Any]) -> bool:
    """Whether a recorded trial is not measured again: it is done, and no arm in it failed by itself."""
    return record.get("status") == "done" and is_whole(record)


def is_whole(body: Mapping[str, Any] | None) -> bool:
    """Whether no arm failed by itself, where one trial measures many."""
    return not (body or {}).get("failed_arms")
