"""What an order costs before any training: the parallel tax of a plan on a Gaussian field.

Knows a stationary Gaussian field over a lattice, as a stand-in for the dependence between an image's tokens. Refuses to
know any image, model or measurement.

A parallel step treats its cells as independent, given everything decoded before it. What that assumption costs is the
divergence between their joint law and the product of their single laws. On a Gaussian field both are Gaussian and the
cost has a closed form: half the sum of the log conditional variances, minus half the log-determinant of the
conditional covariance, all given the earlier steps. Summed over steps, in bits, divided by the number of cells, it is
the parallel tax in bits per token. One cell at a time pays none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orderbench.orders.errors import BenchError, OrderFault
from orderbench.orders.lattice import FloatArray, Grid, IntArray, Lattice
from orderbench.orders.order import get_order, order_names
from orderbench.orders.pace import Pace
from orderbench.orders.plan import Plan, make_plan
from orderbench.orders.spelling import spell

NUGGET = 1e-6  # on the diagonal: keeps the covariance well above rounding on 32x32 and beyond
MAX_CELLS = 4096  # the covariance is dense: (L, L) float64, factored in L**3 / 3
PREDICTED_CELLS = 1024  # the largest plan whose tax is computed as part of something else


@dataclass(frozen=True)
class Field:
    """A stationary, isotropic Gaussian field of unit variance.

    kind 'exp': correlation exp(-d / length); 'power': (1 + d / length) ** -power; d Euclidean, in cells.

    Raises BenchError unless length and power are above 0.
    """

    kind: Literal["exp", "power"] = "exp"
    length: float = 4.0
    power: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("exp", "power"):
            raise BenchError(f"no field named '{self.kind}'; exp or power would do, as in --field exp")
        for name, value in (("length", self.length), ("power", self.power)):
            if not (math.isfinite(value) and value > 0):
                raise BenchError(f"the field's {name} is {value:g}; it must be above 0, as in --{name} 2")

    def __str__(self) -> str:
        if self.kind == "exp":
            return f"exp(-d/{spell(self.length)})"
        return f"(1+d/{spell(self.length)})^-{spell(self.power)}"

    def covariance(self, grid: Lattice) -> FloatArray:
        """(L, L) covariance of the cells, by cell index. BenchError above 4096 cells, and for a pyramid."""
        if not isinstance(grid, Grid):
            raise BenchError(
                f"the field is defined on one grid and says nothing of the pyramid {grid}; give a grid, as in --grid 16"
            )
        if grid.n_cells > MAX_CELLS:
            raise BenchError(
                f"a {grid} grid has {grid.n_cells} cells; the field serves up to {MAX_CELLS}, as in --grid 64"
            )
        row_L, col_L = grid.row_L.astype(float), grid.col_L.astype(float)
        d = np.hypot(row_L[:, None] - row_L, col_L[:, None] - col_L)
        covariance = np.exp(-d / self.length) if self.kind == "exp" else (1 + d / self.length) ** -self.power
        covariance[np.diag_indices_from(covariance)] += NUGGET
        return np.asarray(covariance)


DEFAULT_FIELD = Field()


def step_taxes(covariance: FloatArray, cells_L: IntArray, sizes: Sequence[int]) -> FloatArray:
    """(n_steps,) nats that each step of `cells_L`, cut into `sizes`, loses by treating its cells as independent.

    With the covariance in decoding order and its Cholesky factor F, a step's conditional covariance is B B^T, where B
    is the step's diagonal block of F: one factorisation serves all steps.
    """
    return _block_taxes(_factor(covariance, cells_L), sizes)


def _factor(covariance: FloatArray, cells_L: IntArray) -> FloatArray:
    return np.asarray(np.linalg.cholesky(covariance[np.ix_(cells_L, cells_L)]))


def _block_taxes(factor: FloatArray, sizes: Sequence[int]) -> FloatArray:
    taxes = np.zeros(len(sizes))
    start = 0
    for step, size in enumerate(sizes):
        if size > 1:  # a single cell pays exactly 0
            block = factor[start : start + size, start : start + size]
            taxes[step] = 0.5 * np.log((block**2).sum(axis=1)).sum() - np.log(block.diagonal()).sum()
        start += size
    return taxes


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


def predicted_taxes(
    plans: Sequence[Plan], field: Field = DEFAULT_FIELD, samples: Sequence[int] = range(4)
) -> list[float | None]:
    """`predicted_tax` of several plans. One order at many paces is one walk, which is factored once."""
    covariances = {lattice: field.covariance(lattice) for lattice in {plan.lattice for plan in plans if _covers(plan)}}
    factors: dict[tuple[Lattice, bytes], FloatArray] = {}

    def bits(plan: Plan, cells_L: IntArray) -> float:
        key = plan.lattice, cells_L.tobytes()
        if key not in factors:
            factors[key] = _factor(covariances[plan.lattice], cells_L)
        return float(_block_taxes(factors[key], plan.sizes).sum() / math.log(2) / plan.lattice.n_cells)

    return [
        float(np.mean([bits(plan, cells_L) for cells_L in plan.cells_for(samples if plan.per_sample else samples[:1])]))
        if _covers(plan)
        else None
        for plan in plans
    ]


def _covers(plan: Plan) -> bool:
    return isinstance(plan.lattice, Grid) and plan.lattice.n_cells <= PREDICTED_CELLS


@dataclass(frozen=True)
class Ranked:
    """One row of `rank_orders`. tax_bits: per token, the mean over `plans` plans. spread_bits: the standard deviation
    over seeds, None for one plan. refusal: why there is no tax."""

    order: str
    tax_bits: float | None
    spread_bits: float | None
    plans: int
    refusal: str | None = None


def rank_order(name: str, grid: Lattice, pace: str, field: Field = DEFAULT_FIELD, seeds: int = 8) -> Ranked:
    """One order with its default options at one pace; the mean over seeds 0, 1, ... where it draws."""
    draws = range(seeds if get_order(name).seeded else 1)
    try:
        plans = {make_plan(name, grid, pace, seed): None for seed in draws}  # one, if it names rng but does not draw
    except OrderFault:
        raise
    except BenchError as refusal:
        return Ranked(name, None, None, 0, str(refusal))
    taxes = [parallel_tax(plan, field) for plan in plans]
    spread = float(np.std(taxes, ddof=1)) if len(taxes) > 1 else None
    return Ranked(name, float(np.mean(taxes)), spread, len(taxes))


def rank_orders(
    grid: Lattice,
    pace: str,
    field: Field = DEFAULT_FIELD,
    seeds: int = 8,
    names: Sequence[str] | None = None,
    each: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> list[Ranked]:
    """Orders at one pace, least tax first; one that cannot serve the grid comes last, with its reason.

    names: which; default every registered one. each: walks the names; a progress bar, for instance.
    """
    Pace.parse(pace).sizes(grid)  # a pace that fits no order is refused once, not in every row
    field.covariance(grid)
    ranked = [rank_order(name, grid, pace, field, seeds) for name in each(names or order_names())]
    return sorted(ranked, key=lambda line: (line.tax_bits is None, line.tax_bits or 0.0))
