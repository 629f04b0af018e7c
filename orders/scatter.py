"""Scattered orders: cells decoded after each other lie far apart.

Halton-MaskGIT (arXiv 2503.17076) spreads them by a low-discrepancy sequence; ordered dithering (Bayer, 1973) by a
recursive threshold matrix; ARPG (arXiv 2503.10568) and RandAR (arXiv 2412.01827) train on uniform random orders.
Progressive checkerboards (arXiv 2602.03811) decode such a matrix in groups that grow; GtR (arXiv 2510.17171) spends its
steps on one colour of a checkerboard and fills in the other at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from orderbench.orders.curves import interleave_bits
from orderbench.orders.errors import BenchError
from orderbench.orders.lattice import Grid, IntArray
from orderbench.orders.order import register_order
from orderbench.orders.ranking import Ranking


@register_order(
    "random",
    paper="RandAR, arXiv 2412.01827; ARPG, arXiv 2503.10568",
    idea="a uniform random permutation, one a sample",
    per_sample=True,
)
def random(grid: Grid, *, rng: np.random.Generator) -> Ranking:
    """ARPG's release draws one permutation a call, shared by the batch: that is `random:shared=true`."""
    return Ranking(rng.permutation(grid.n_cells))


@register_order(
    "halton", paper="Halton-MaskGIT, arXiv 2503.17076", idea="first visits of the Halton sequence, bases 2 and 3"
)
def halton(grid: Grid) -> Ranking:
    """Point i = 1, 2, ... lies in row floor(R phi_2(i)) and column floor(C phi_3(i)), phi_b the radical inverse; the
    points go on until every cell was visited (the release stops after 10,000 points, which misses six cells of 64x64).

    >>> from orderbench.orders import Grid, draw
    >>> print(draw("halton", Grid(4, 4)))
    10  3 13  7
     5  9  1 11
     8  0 15  4
     2 12  6 14
    """
    return Ranking(_first_visit(grid))


def _first_visit(grid: Grid) -> IntArray:
    """(L,): the first of the Halton points 1, 2, ... that lies in each cell."""
    first_visit = np.full(grid.n_cells, -1, np.int64)
    start, count = 1, 4 * grid.n_cells
    while (first_visit < 0).any():
        i = np.arange(start, start + count, dtype=np.int64)
        cell = radical_inverse(i, 2, grid.rows) * grid.cols + radical_inverse(i, 3, grid.cols)
        visited, first = np.unique(cell, return_index=True)
        new = first_visit[visited] < 0
        first_visit[visited[new]] = i[first[new]]
        start += count
    return first_visit


def radical_inverse(i: IntArray, base: int, scale: int) -> IntArray:
    """floor(scale * phi_base(i)), in whole numbers, so that no cell border is missed by rounding."""
    mirrored, weight = np.zeros_like(i), 1
    while i.any():
        i, digit = np.divmod(i, base)
        mirrored, weight = mirrored * base + digit, weight * base
    return scale * mirrored // weight


@register_order(
    "dither", paper="Bayer, ICC 1973", idea="thresholds of ordered dithering: every next cell far from those before"
)
def dither(grid: Grid) -> Ranking:
    """The Bayer matrix of the smallest power of two that covers the grid, clipped to it.

    >>> from orderbench.orders import Grid, draw
    >>> print(draw("dither", Grid(4, 4)))
     0  8  2 10
    12  4 14  6
     3 11  1  9
    15  7 13  5
    """
    return Ranking(_thresholds(grid))


def _thresholds(grid: Grid) -> IntArray:
    """(L,): the Bayer matrix."""
    bits = max(grid.rows - 1, grid.cols - 1).bit_length()
    interleaved = interleave_bits(grid.row_L, grid.row_L ^ grid.col_L, bits)
    threshold = np.zeros_like(interleaved)
    for bit in range(2 * bits):  # reversed: the lowest bits of a place decide first
        threshold = threshold << 1 | (interleaved >> bit & 1)
    return threshold


@register_order(
    "quadtree",
    paper="progressive checkerboards (reconstructed), arXiv 2602.03811",
    idea="checkerboards, from coarse to fine; every step takes as many cells of each quarter, and of its quarters",
)
def quadtree(
    grid: Grid, *, grow: Annotated[Literal[2, 4], "2, 4: by which factor the decoded cells grow each step"] = 2
) -> Ranking:
    """The balanced order of a quadtree is that of ordered dithering: of every 4**k cells in a row, each of the 4**k
    quarters holds one. Its native groups end where the decoded cells are the first 1, 2, 4, 8, ... of them, a
    checkerboard upright or turned; with grow=4 where they are 1, 4, 16, ..., the levels of the tree. The paper, of
    which we know the abstract, does this within every scale of a pyramid.

    >>> from orderbench.orders import Grid, draw
    >>> print(draw("quadtree", Grid(4, 4)))
    0 4 2 4
    4 3 4 3
    2 4 1 4
    4 3 4 3
    """
    threshold = _thresholds(grid)
    doublings = np.ceil(np.log2(threshold + 1)).astype(np.int64)  # exact: powers of two are
    return Ranking(-(-doublings // (grow // 2)), threshold)


@register_order(
    "skeleton",
    paper="GtR, arXiv 2510.17171",
    idea="one colour of a checkerboard slowly, scattered; then the other colour at once",
)
def skeleton(grid: Grid, *, group: Annotated[int, "cells of it that go together; 1 or more"] = 1) -> Ranking:
    """GtR generates a skeleton and then reconstructs the rest, whose cells have neighbours on all sides. It takes the
    skeleton in a random order, as its network (MAR) does; here it is Halton's, the same for all samples.

    >>> from orderbench.orders import Grid, draw
    >>> print(draw("skeleton", Grid(3, 4)))
    5 6 1 6
    6 0 6 3
    2 6 4 6
    """
    if group < 1:
        raise BenchError(f"skeleton:group={group} is not served; 1 or more would do, as in skeleton:group=4")
    rest = (grid.row_L + grid.col_L) % 2 == 1
    walk = np.argsort(np.argsort(np.where(rest, np.inf, _first_visit(grid)), kind="stable"), kind="stable")
    return Ranking(np.where(rest, grid.n_cells, walk // group), _first_visit(grid))
