"""What a run will take, before it is run: seconds of every trial.

Knows the agenda. Refuses to know what each kind of trial costs: the table of kinds does.
"""

from __future__ import annotations

from orderbench.models.counting import count
from orderbench.runs.cost import Cost, Workload, calibrate
from orderbench.runs.kinds import kind_of
from orderbench.runs.trials import Agenda, sampling_of


def estimate_s(agenda: Agenda) -> dict[str, float]:
    """Seconds of every trial, by id; within a factor of two on an idle machine. Empty where a model cannot decode:
    its trials will find out why, and record it."""
    spec, subjects = agenda.spec, agenda.subjects
    arms = {arm.name: arm for arm in (*(b.arm for b in agenda.lineup.baselines.values()), *agenda.lineup.arms)}
    counters, singly, costs = {}, {}, {}
    by_model: dict[str, Cost] = {}
    for name, arm in arms.items():
        subject = subjects.of(arm.model)
        if arm.model not in by_model:
            cost = calibrate(subject, sampling_of(spec, subject.recommended))
            if cost is None:
                return {}
            by_model[arm.model] = cost
        plan = arm.plan(subject.model.lattice)
        costs[name] = by_model[arm.model]
        counters[name], singly[name] = count(plan, arm.decoder), count(plan.singly())
    work = Workload(spec, counters, singly, costs)
    return {trial.id: kind_of(trial).seconds(trial, work) for trial in agenda.trials}
