"""The parallel tax of plans and orders: what their steps cost on a Gaussian field.

Knows plans, and orders by name. Refuses to know how the tax of a step is computed (`field`), and any measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orderbench.orders.errors import BenchError, OrderFault
from orderbench.orders.field import DEFAULT_FIELD, Field, block_taxes, factored, step_taxes
from orderbench.orders.lattice import FloatArray, Grid, IntArray, Lattice
from orderbench.orders.order import BoundOrder, get_order, order_names, parse_order
from orderbench.orders.pace import Pace, paces_in
from orderbench.orders.plan import Plan, cut, make_plan

PREDICTED_CELLS = 1024  # the largest plan whose tax is computed as part of something else


def tax_by_step(plan: Plan, field: Field = DEFAULT_FIELD, sample: int = 0) -> FloatArray:
    """(n_steps,) bits that each step of one sample's plan loses by treating its cells as independent."""
    return step_taxes(field.covariance(plan.lattice), plan.cells_for([sample])[0], plan.sizes) / math.log(2)


def parallel_tax(plan: Plan, field: Field = DEFAULT_FIELD, samples: Sequence[int] = (0,)) -> float:
    """Bits per token lost to decoding in parallel; the mean over `samples` where each has cells of its own."""
    chosen = samples if plan.per_sample else samples[:1]
    return float(np.mean([tax_by_step(plan, field, sample).sum() for sample in chosen]) / plan.lattice.n_cells)


def predicted_tax(plan: Plan, field: Field = DEFAULT_FIELD, samples: Sequence[int] = range(4)) -> float | None:
    """The parallel tax of a plan, or None where there is no prediction: for pyramids, which the field does not cover,
    and above 1024 cells, where it would take seconds. None does not mean a tax of zero.
    """
    return parallel_tax(plan, field, samples) if _covers(plan) else None


def common_pace(lattice: Grid) -> Pace:
    """The pace at which walks are set against each other: cosine, with as many steps as the radial order has rings.

    >>> str(common_pace(Grid(16, 16)))
    'cosine:13'
    """
    return Pace.parse(f"cosine:{make_plan('radial', lattice).n_steps}")


def walk_tax(plan: Plan, field: Field = DEFAULT_FIELD, samples: Sequence[int] = range(8)) -> float | None:
    """What the walk of a plan would pay at the common pace, whatever its own steps are; None as of `predicted_tax`."""
    if not isinstance(plan.lattice, Grid) or not _covers(plan):
        return None
    return parallel_tax(replace(plan, sizes=common_pace(plan.lattice).sizes(plan.lattice)), field, samples)


def predicted_taxes(
    plans: Sequence[Plan], field: Field = DEFAULT_FIELD, samples: Sequence[int] = range(4)
) -> list[float | None]:
    """`predicted_tax` of several plans. One order at many paces is one walk, which is factored once."""
    bits = iter(_taxes([plan for plan in plans if _covers(plan)], field, samples))
    return [next(bits) if _covers(plan) else None for plan in plans]


def _taxes(plans: Sequence[Plan], field: Field, samples: Sequence[int] = (0,)) -> list[float]:
    covariances = {lattice: field.covariance(lattice) for lattice in {plan.lattice for plan in plans}}
    factors: dict[tuple[Lattice, bytes], FloatArray] = {}

    def bits(plan: Plan, cells_L: IntArray) -> float:
        key = plan.lattice, cells_L.tobytes()
        if key not in factors:
            factors[key] = factored(covariances[plan.lattice], cells_L)
        return float(block_taxes(factors[key], plan.sizes).sum() / math.log(2) / plan.lattice.n_cells)

    return [
        float(np.mean([bits(plan, cells_L) for cells_L in plan.cells_for(samples if plan.per_sample else samples[:1])]))
        for plan in plans
    ]


def _covers(plan: Plan) -> bool:
    return isinstance(plan.lattice, Grid) and plan.lattice.n_cells <= PREDICTED_CELLS


_TRIED_IF_SIZED = ("cosine", "even", "optimal")


def plans_in(order: BoundOrder, steps: int, lattice: Lattice, seed: int = 0) -> dict[str, Plan]:
    """Every pace that cuts an order into so many steps, with its plan, the best known pace first.

    An order that is built for its step sizes is searched anew for every pace, so only three are tried. BenchError where
    no pace cuts it so.
    """
    plans, problem = {}, None
    for pace in paces_in(steps):
        if order.order.sized and pace.name not in _TRIED_IF_SIZED:
            continue
        try:
            plan = cut(order, pace, lattice, seed)
        except OrderFault:
            raise
        except BenchError as refused:
            problem = refused
            continue
        if plan.n_steps == steps:
            plans[str(pace)] = plan
    if not plans:
        raise problem or BenchError(f"no pace cuts '{order}' into {steps} steps; name one, as in --pace even:13")
    return plans


@dataclass(frozen=True)
class Ranked:
    """One row of `rank_orders`. tax_bits: per token, the mean over `plans` plans at the common pace. spread_bits: the
    standard deviation over seeds, None for one plan. best_pace, best_bits: the pace of as many steps at which it pays
    least, and that tax, the mean over the same seeds. refusal: why there is no tax."""

    order: str
    tax_bits: float | None
    spread_bits: float | None
    plans: int
    best_pace: str | None = None
    best_bits: float | None = None
    refusal: str | None = None


def rank_order(name: str, grid: Lattice, pace: str, field: Field = DEFAULT_FIELD, seeds: int = 8) -> Ranked:
    """One order with its default options at one pace and at its best; the mean over seeds 0, 1, ... where it draws."""
    order, draws = parse_order(name), range(seeds if get_order(name).seeded else 1)
    try:
        plans = {make_plan(name, grid, pace, seed): None for seed in draws}  # one, if it names rng but does not draw
        best_pace, best = _least(order, next(iter(plans)).n_steps, grid, field, range(len(plans)))
    except OrderFault:
        raise
    except BenchError as refusal:
        return Ranked(name, None, None, 0, refusal=str(refusal))
    taxes = [parallel_tax(plan, field) for plan in plans]
    spread = float(np.std(taxes, ddof=1)) if len(taxes) > 1 else None
    return Ranked(name, float(np.mean(taxes)), spread, len(taxes), best_pace, best)


def _least(order: BoundOrder, steps: int, grid: Lattice, field: Field, draws: Sequence[int]) -> tuple[str, float]:
    """The pace of least tax in so many steps, and its tax; the mean over seeds."""
    by_seed = [plans_in(order, steps, grid, seed) for seed in draws]
    paces = [pace for pace in by_seed[0] if all(pace in plans for plans in by_seed)]
    bits = np.reshape(_taxes([plans[pace] for plans in by_seed for pace in paces], field), (len(by_seed), len(paces)))
    taxes = dict(zip(paces, bits.mean(0).tolist(), strict=True))
    best = min(taxes, key=lambda pace: round(taxes[pace], 12))
    return best, taxes[best]


def rank_orders(
    grid: Lattice,
    pace: str,
    field: Field = DEFAULT_FIELD,
    seeds: int = 8,
    names: Sequence[str] | None = None,
    each: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> list[Ranked]:
    """Orders by the tax at the best pace that each has in as many steps as `pace`, the least first; one that cannot
    serve the grid comes last, with its reason.

    pace: the common one, whose tax stands beside the best. names: which; default every registered one. each: walks the
    names; a progress bar, for instance.
    """
    Pace.parse(pace).check(grid)  # a pace that fits no order is refused once, not in every row
    field.covariance(grid)
    ranked = [rank_order(name, grid, pace, field, seeds) for name in each(names or order_names())]
    return sorted(ranked, key=lambda line: (line.best_bits is None, round(line.best_bits or 0.0, 12)))
