"""Cuts: at which pace an order takes a number of steps, where only the number is asked for.

Knows two reasons: the model was trained so, or a Gaussian field predicts the least parallel tax. Refuses to know arms,
and to measure: a pace that was never trained is a guess, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from orderbench.models.mixtures import trained_pace
from orderbench.models.model import Model
from orderbench.models.objective import ObjectiveConfig
from orderbench.orders import BenchError, Plan
from orderbench.orders.order import BoundOrder
from orderbench.orders.pace import Pace
from orderbench.orders.tax import plans_in, predicted_taxes

TRAINED, LEAST_TAX, UNKNOWN = "trained", "least predicted tax", "no prediction"
NEARLY_BITS = 0.005  # of tax, per token: what two paces may differ by and count as nearly equal


@dataclass(frozen=True)
class Cut:
    """One choice. steps: what was asked. pace: what was chosen. why: one of the three texts above. taxes_bits: bits per
    token that the field predicts for every pace that could have been chosen, where the least one decided."""

    steps: int
    pace: str
    why: str
    taxes_bits: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as run.json holds them with an arm."""
        return asdict(self)


def choose(
    order: BoundOrder | None, steps: Sequence[int], model: Model, objective: ObjectiveConfig | None
) -> list[Cut]:
    """How an order takes each of these numbers of steps with a model.

    A pace in which the model was trained in exactly so many steps, the one of most batches. Else the pace of least
    predicted tax, among all that give so many steps and that the model serves; equal ones in the order of `paces_in`. A
    pace whose name hides its steps, as `ear-shells` does, gives way to one that is nearly as good and says them.
    An order that is built for its step sizes is searched anew for every pace, so only three are tried. Where nothing
    is predicted, the cosine law: for pyramids, lattices of more than 1024 cells, and decoders that choose their cells
    as they go (order is None).

    BenchError for more steps than the lattice has cells, and where the order can be cut into no such steps.
    """
    lattice = model.lattice
    for count in steps:
        if count > lattice.n_cells:
            raise BenchError(
                f"--steps {count} asks for more steps than {lattice} has cells, {lattice.n_cells}; fewer would do, as "
                f"in --steps {min(lattice.n_cells, 13)}"
            )
    if order is None:
        return [Cut(count, f"cosine:{count}", UNKNOWN) for count in steps]
    trained = {
        count: None if objective is None else trained_pace(objective, str(order), lattice, count) for count in steps
    }
    plans = {count: _plans(order, count, model) for count in steps if trained[count] is None}
    tried = [plan for by_pace in plans.values() for plan in by_pace.values()]
    bits = dict(zip(tried, predicted_taxes(tried), strict=True))  # together, since they share their walk
    cuts = []
    for count in steps:
        if (pace := trained[count]) is not None:
            cuts.append(Cut(count, str(Pace.parse(pace)), TRAINED))
            continue
        taxes = {pace: round(tax, 12) for pace, plan in plans[count].items() if (tax := bits[plan]) is not None}
        familiar = f"cosine:{count}"
        if taxes:
            cuts.append(Cut(count, _least(taxes), LEAST_TAX, taxes))
        else:
            cuts.append(Cut(count, familiar if familiar in plans[count] else next(iter(plans[count])), UNKNOWN))
    return cuts


def _least(taxes: Mapping[str, float]) -> str:
    """The pace of the least tax; one whose name hides its steps only where no other is near."""
    least = min(taxes.values())
    near = [pace for pace, tax in taxes.items() if tax <= least + NEARLY_BITS]
    said = [pace for pace in near if Pace.parse(pace).steps is not None or pace in ("native", "one")]
    return min(said or near, key=lambda pace: taxes[pace])


def _plans(order: BoundOrder, steps: int, model: Model) -> dict[str, Plan]:
    """Every pace that gives so many steps, with its plan; those that the model refuses only where it refuses all."""
    plans = plans_in(order, steps, model.lattice)
    return {pace: plan for pace, plan in plans.items() if not model.refuses(plan)} or plans
