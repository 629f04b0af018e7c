"""The field: what an order costs before any training, as the parallel tax of its steps.

Knows a stationary Gaussian field over a lattice, as a stand-in for the dependence between an image's tokens, and walks
that are cut into steps. Refuses to know plans, orders, images, models and measurements; `tax` applies it to plans.

A parallel step treats its cells as independent, given everything decoded before it. What that assumption costs is the
divergence between their joint law and the product of their single laws. On a Gaussian field both are Gaussian and the
cost has a closed form: half the sum of the log conditional variances, minus half the log-determinant of the
conditional covariance, all given the earlier steps. Summed over steps, in bits, divided by the number of cells, it is
the parallel tax in bits per token. One cell at a time pays none.

A step of a walk that reaches from place a to place b costs G[a, b], whatever the other steps are. So the step sizes of
least tax follow by dynamic programming.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from orderbench.orders.errors import BenchError
from orderbench.orders.lattice import FloatArray, Grid, IntArray, Lattice
from orderbench.orders.spelling import spell

NUGGET = 1e-6  # on the diagonal: keeps the covariance well above rounding on 32x32 and beyond
MAX_CELLS = 4096  # the covariance is dense: (L, L) float64, factored in L**3 / 3


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
    return block_taxes(factored(covariance, cells_L), sizes)


def factored(covariance: FloatArray, cells_L: IntArray) -> FloatArray:
    """(L, L) Cholesky factor of the covariance in decoding order."""
    return np.asarray(np.linalg.cholesky(covariance[np.ix_(cells_L, cells_L)]))


def block_taxes(factor: FloatArray, sizes: Sequence[int]) -> FloatArray:
    """`step_taxes` of a walk that is factored already."""
    taxes = np.zeros(len(sizes))
    start = 0
    for step, size in enumerate(sizes):
        if size > 1:  # a single cell pays exactly 0
            block = factor[start : start + size, start : start + size]
            taxes[step] = 0.5 * np.log((block**2).sum(axis=1)).sum() - np.log(block.diagonal()).sum()
        start += size
    return taxes


def span_taxes(factor: FloatArray) -> FloatArray:
    """(L, L + 1) nats that a step from place a up to before place b costs: G[a, b]; infinity unless a < b.

    With the covariance in decoding order and its Cholesky factor F, the variance of the cell at place i, given those
    before place a, is the sum of F[i, k]**2 over k from a to i.
    """
    n = len(factor)
    squares = factor**2
    given_ia = np.cumsum(squares[:, ::-1], axis=1)[:, ::-1]  # (i, a): from a on; F is 0 beyond i
    lost_ai = 0.5 * np.log(np.maximum(given_ia, np.finfo(float).tiny)).T - np.log(factor.diagonal())
    spans = np.full((n, n + 1), np.inf)
    upper = np.triu(np.ones((n, n), bool))
    spans[:, 1:][upper] = np.cumsum(np.where(upper, lost_ai, 0), axis=1)[upper]
    return spans


def least_tax(spans: FloatArray, steps: int) -> tuple[int, ...]:
    """The sizes of `steps` steps whose costs G[a, b] have the least sum, by dynamic programming in O(T L**2).

    spans: of `span_taxes`, or the mean of several. steps: 1 to L. Costs are compared as whole multiples of 1e-10 nats,
    and the first of equal cuts is taken, so that rounding makes no other sizes on another machine.
    """
    n = len(spans)
    slack = n - steps  # a place can be reached by step t only from t to t + slack
    costs_ba = np.full((n + 1, n), np.iinfo(np.int64).max // 4)
    finite = np.isfinite(spans.T)
    costs_ba[finite] = np.round(spans.T[finite] * 1e10).astype(np.int64)
    least_a = costs_ba[1 : slack + 2, 0].copy()  # after the first step, at places 1 to 1 + slack
    cuts = []
    for step in range(2, steps + 1):
        totals_ba = costs_ba[step : step + slack + 1, step - 1 : step + slack] + least_a
        cut_b = totals_ba.argmin(axis=1)
        least_a = np.take_along_axis(totals_ba, cut_b[:, None], axis=1)[:, 0]
        cuts.append(cut_b + step - 1)
    edges = [n]
    for step in range(steps, 1, -1):
        edges.append(int(cuts[step - 2][edges[-1] - step]))
    return tuple(np.diff([0, *reversed(edges)]).tolist())


def optimal(lattice: Lattice, walks_NL: Sequence[IntArray], steps: int) -> tuple[int, ...]:
    """The sizes of `steps` steps that cost the given walks the least tax on the default field, on average.

    Raises BenchError where the field says nothing of the lattice.
    """
    return _fitted(lattice, tuple(np.asarray(walk_L, np.int64).tobytes() for walk_L in walks_NL), steps)


@lru_cache(maxsize=512)  # a run asks for the plan of an arm many times
def _fitted(lattice: Lattice, walks: tuple[bytes, ...], steps: int) -> tuple[int, ...]:
    covariance = DEFAULT_FIELD.covariance(lattice)
    spans = sum(span_taxes(factored(covariance, np.frombuffer(walk, np.int64))) for walk in walks)
    return least_tax(np.asarray(spans) / len(walks), steps)
