"""What a run will take, before it is run: seconds of every trial.

Knows the agenda. Refuses to know what each kind of trial costs: the table of kinds does.
"""

from __future__ import annotations

from collections.abc import Mapping

from orderbench.models.counting import count, expect, misses
from orderbench.models.decode import TILE, Counters, uncached_steps
from orderbench.models.model import serves
from orderbench.orders import Plan
from orderbench.runs.cost import Cost, Workload, calibrate
from orderbench.runs.kinds import kind_of
from orderbench.runs.trials import Agenda, sampling_of


def estimate_s(agenda: Agenda) -> dict[str, float]:
    """Seconds of every trial, by id; within a factor of two on an idle machine. Empty where a model cannot decode:
    its trials will find out why, and record it. BenchError for an arm whose decoder refuses its options."""
    spec, subjects, lineup = agenda.spec, agenda.subjects, agenda.lineup
    arms = {arm.name: arm for arm in lineup.arms}
    plans = {name: arm.plan(subjects.of(arm.model).model.lattice) for name, arm in arms.items()}
    counters = {name: count(plans[name], arm.decoder) for name, arm in arms.items()}
    by_model: dict[str, Cost] = {}
    for arm in arms.values():
        if arm.model not in by_model:
            subject = subjects.of(arm.model)
            cost = calibrate(subject, sampling_of(spec, subject.recommended))
            if cost is None:
                return {}
            by_model[arm.model] = cost
    again, uncached = lineup.again, None
    if again is not None and serves(subjects.of(again.model).model, "masks"):
        uncached = count(plans[again.name], uncached_steps)
    singly = {name: count(plan.singly()) for name, plan in plans.items()}
    costs = {name: by_model[arm.model] for name, arm in arms.items()}
    exact = frozenset(name for name, arm in arms.items() if "exact" in arm.traits)
    work = Workload(
        spec, counters, singly, costs, "" if again is None else again.name, uncached, _expected(agenda, plans), exact
    )
    return {trial.id: kind_of(trial).seconds(trial, work) for trial in agenda.trials}


def supposed(agenda: Agenda) -> str:
    """Which arms' passes were not counted but expected, in a sentence; '' where there are none."""
    names = [arm.name for arm in agenda.lineup.arms if "drafts" in arm.traits]
    if not names:
        return ""
    return (
        f"how many passes {', '.join(names)} will take depends on what is drawn; from the tax that is predicted for "
        f"the order, as many were supposed as the shipped weights need (docs/exact.md)"
    )


def _expected(agenda: Agenda, plans: Mapping[str, Plan]) -> dict[str, dict[int, Counters]]:
    """Counters by batch of the arms that draft. Arms that are alike for this purpose are counted once."""
    batches = sorted({1, *agenda.spec.batch, TILE})
    known: dict[tuple[object, ...], Counters] = {}
    found: dict[str, dict[int, Counters]] = {}
    for arm in agenda.lineup.arms:
        if "drafts" not in arm.traits:
            continue
        plan = plans[arm.name]
        noise = sampling_of(agenda.spec, agenda.subjects.of(arm.model).recommended).noise
        wrong = round(misses(plan, noise), 2)
        for batch in batches:
            key = plan.lattice, arm.decoder_name, wrong, batch
            if key not in known:
                known[key] = expect(plan, arm.decoder, batch, wrong)
            found.setdefault(arm.name, {})[batch] = known[key]
    return found
