"""Designed: an order built to have the least parallel tax for its step sizes. It is this project's own.

The idea. On a Gaussian field (`orderbench.orders.field`) the tax of a step grows, with every cell that joins it, by
exactly what the cells already in the step tell about the newcomer. Greedy design takes as each next cell the one that
they tell least about; ties go to the cell that is still least certain, the largest conditional variance.

Greedy design never looks back, so its result is improved by exchange. By the chain rule the sum of all taxes is, up to
a constant of the field, the sum over cells of half the log variance given the steps before the cell's own. Trading a
cell of one step for a cell of the next changes that sum in these two steps only. Trades are made while they gain. The
exchange starts from the greedy design and from two good scattered orders, and the best result is kept.

At the pace `optimal:T` sizes are designed too. A walk has best sizes (`field.least_tax`), sizes have a best exchange,
and the two take turns while the tax falls.

Nothing is trained and nothing is random: the plan follows from the grid, the step sizes and the field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np

from orderbench.orders.errors import BenchError
from orderbench.orders.field import Field, factored, least_tax, span_taxes, step_taxes
from orderbench.orders.lattice import FloatArray, Grid, IntArray
from orderbench.orders.order import register_order
from orderbench.orders.ranking import Ranking
from orderbench.orders.scatter import dither, halton
from orderbench.orders.spelling import spell

FieldKind = Literal["exp", "power"]
Sizes = tuple[int, ...]

MAX_CELLS = 1024  # the work grows with the cube of the cells
_EQUAL = 1e-9  # scores (nats) that differ by less are ties, so that rounding does not break them
_GAIN = 1e-7  # the least gain (nats) worth a trade
_WORK = 5 * 10**7  # trades weighed per start, in matrix entries: counted, not timed, so that every machine stops alike


@lru_cache(maxsize=64)  # a run asks for the plan of an arm many times, and a design takes a second
def design_jointly(grid: Grid, steps: int, *, field: FieldKind, length: float, power: float) -> tuple[IntArray, Sizes]:
    """(L,) cells and `steps` sizes that cost little together: sizes of least tax and exchange take turns.

    They start from two scattered orders at their best sizes, and from greedy designs for these sizes. BenchError above
    1024 cells.
    """
    _check(grid, length, power)
    covariance = Field(field, length, power).covariance(grid)
    scattered = [halton(grid).cells_L, dither(grid).cells_L]
    fitted = [least_tax(span_taxes(factored(covariance, walk_L)), steps) for walk_L in scattered]
    starts = [*zip(scattered, fitted, strict=True), *((greedy(covariance, sizes), sizes) for sizes in fitted)]
    ends = [_alternate(covariance, cells_L, sizes) for cells_L, sizes in starts]
    costs = np.array([step_taxes(covariance, cells_L, sizes).sum() for cells_L, sizes in ends])
    cells_L, sizes = ends[int(np.argmax(costs <= costs.min() + _EQUAL))]
    cells_L.setflags(write=False)  # it is kept
    return cells_L, sizes


def _alternate(covariance: FloatArray, cells_L: IntArray, sizes: Sizes) -> tuple[IntArray, Sizes]:
    """Cells and sizes after exchange and best sizes took turns, until neither gains."""
    cost = math.inf
    while True:
        traded_L = exchange(covariance, cells_L, sizes)
        cut = least_tax(span_taxes(factored(covariance, traded_L)), len(sizes))
        now = float(step_taxes(covariance, traded_L, cut).sum())
        if now > cost - _GAIN:
            return cells_L, sizes
        cells_L, sizes, cost = traded_L, cut, now


@register_order(
    "designed",
    paper="orderbench, docs/designed.md",
    idea="built for its step sizes, to lose least to parallel steps on a Gaussian field",
    joint=design_jointly,
)
def designed(
    grid: Grid,
    *,
    sizes: Sizes,
    field: Annotated[FieldKind, "exp, power"] = "exp",
    length: Annotated[float, "the field's length in cells, above 0"] = 4.0,
    power: Annotated[float, "the power of field=power, above 0"] = 1.0,
) -> Ranking:
    """Greedy conditional design on the field, then exchange between neighbouring steps.

    Raises BenchError above 1024 cells (32x32 takes seconds; the work grows with the cube of the cells).
    """
    _check(grid, length, power)
    covariance = Field(field, length, power).covariance(grid)
    starts = [greedy(covariance, sizes), halton(grid).cells_L, dither(grid).cells_L]
    ends = [exchange(covariance, start, sizes) for start in starts]
    costs = np.array([step_taxes(covariance, end, sizes).sum() for end in ends])
    best = ends[int(np.argmax(costs <= costs.min() + _EQUAL))]
    return Ranking(np.argsort(best))


def _check(grid: Grid, length: float, power: float) -> None:
    if grid.n_cells > MAX_CELLS:
        raise BenchError(
            f"designed serves up to {MAX_CELLS} cells, such as 32x32, and a {grid} grid has {grid.n_cells}; "
            f"dither and locality serve it and are the next best, as in dither@cosine:13"
        )
    for name, value in (("length", length), ("power", power)):
        if not value > 0:
            raise BenchError(
                f"designed:{name}={spell(value)} is not served; {name} is above 0, as in designed:{name}=2"
            )


def greedy(covariance: FloatArray, sizes: Sequence[int]) -> IntArray:
    """(L,) cells, each the one that the cells already in its step tell least about.

    A pivoted Cholesky factor grows by a row a cell, so the variance given all chosen cells is always at hand; what the
    step itself told is the log ratio to the variance at the step's start.
    """
    n = len(covariance)
    factor = np.zeros((n, n))
    variance = covariance.diagonal().copy()
    free_L = np.ones(n, bool)
    order: list[int] = []
    for size in sizes:
        log_start = np.log(variance)
        for _ in range(size):
            told = np.where(free_L, 0.5 * (log_start - np.log(variance)), np.inf)
            log_unsure = np.where(told <= told.min() + _EQUAL, log_start, -np.inf)
            cell = int(np.argmax(log_unsure >= log_unsure.max() - _EQUAL))
            done = len(order)
            column = covariance[cell] - np.einsum("k,kc->c", factor[:done, cell], factor[:done])
            factor[done] = column / math.sqrt(variance[cell])
            variance = np.maximum(variance - factor[done] ** 2, 1e-12)  # chosen cells reach 0 but for rounding
            free_L[cell] = False
            order.append(cell)
    return np.array(order, np.int64)


def exchange(covariance: FloatArray, cells_L: IntArray, sizes: Sequence[int]) -> IntArray:
    """(L,) cells after trades between neighbouring steps, made until none gains or the work is spent.

    Trades inside one pair of steps do not change what other pairs are conditioned on. So one factorisation serves all
    pairs that do not overlap.
    """
    cells_L = cells_L.copy()
    edges = np.concatenate([[0], np.cumsum(sizes)])
    work, idle, parity = _WORK, 0, 0
    while work > 0 and idle < 2:
        factor = np.linalg.cholesky(covariance[np.ix_(cells_L, cells_L)])
        traded = False
        for step in range(parity, len(sizes) - 1, 2):
            start, middle, end = edges[step : step + 3]
            if end - start <= 2:  # two single cells: no tax to save
                continue
            block = factor[start:end, start:end]
            places, spent = _trade(block @ block.T, int(middle - start))
            cells_L[start:end] = cells_L[start:end][places]
            traded |= not np.array_equal(places, np.arange(end - start))
            work -= spent
        idle = 0 if traded else idle + 1
        parity = 1 - parity
    return cells_L


def _trade(joint: FloatArray, first: int) -> tuple[IntArray, int]:
    """(m,) new places of two steps' cells, the first step's `first` cells in front, and the work it took.

    joint: (m, m) covariance of both steps' cells given all earlier ones. The covariance of the second step given the
    first is the inverse of its block of the joint precision; a cell that changes sides changes it by rank one. The many
    small products avoid BLAS: its threads wait for each other on a busy machine.
    """
    places = np.arange(len(joint))
    precision, variance = np.linalg.inv(joint), joint.diagonal()
    rest = np.linalg.inv(precision[first:, first:])
    work = 0
    for i in range(first):
        ours, theirs = places[i], places[first:]
        # Take our cell out of the first step: its variance, its covariance with theirs, and theirs, without it.
        pull = np.einsum("ij,j->i", rest, precision[theirs, ours])
        own = 1 / (precision[ours, ours] - precision[theirs, ours] @ pull)
        between = -own * pull
        without = rest + own * np.outer(pull, pull)
        # Put each of theirs in its place: the others' variances shrink by 1 - correlation**2.
        diagonal = without.diagonal()
        shrunk = 1 - without**2 / np.outer(diagonal, diagonal)
        np.fill_diagonal(shrunk, 1.0)
        log_second = np.log(diagonal).sum() - np.log(diagonal) + np.log(own - between**2 / diagonal)
        log_second += np.log(np.maximum(np.multiply.reduce(shrunk, axis=0), np.finfo(float).tiny))
        log_before = np.log(rest.diagonal()).sum() + math.log(variance[ours])
        gain = 0.5 * (log_before - log_second - np.log(variance[theirs]))
        work += len(theirs) ** 2
        if gain.max() > _GAIN:
            j = int(np.argmax(gain >= gain.max() - _EQUAL))
            told = without[j].copy()  # what their cell, now in the first step, tells about the second
            told[j], moved_variance = between[j], diagonal[j]
            without[j], without[:, j], without[j, j] = between, between, own  # our cell takes the place of theirs
            rest = without - np.outer(told, told) / moved_variance
            places[i], places[first + j] = places[first + j], places[i]
    return places, work
