"""Spirals: from the centre outwards, cell by cell, as EAR does, and the same walk backwards.

EAR: "Expanding Autoregressive Representation", arXiv 2511.15499. The walk starts in the upper left of the central
cells and turns right, down, left, up with straight runs of 1, 1, 2, 2, 3, 3, ... cells, so that the first k * k cells
are a square. On an oblong grid the walk is the same, and places outside of the grid are skipped. EAR's groups (whole
shells, whole sides) are paces: `spiral@ear-shells`, `spiral@ear-sides`.
"""

from __future__ import annotations

import numpy as np

from orderbench.orders.lattice import Grid, IntArray
from orderbench.orders.order import register_order
from orderbench.orders.ranking import Ranking


def _shells(grid: Grid) -> tuple[IntArray, IntArray, IntArray]:
    """(L,) each: side k of the smallest square of the walk that holds the cell; whether it is on the second of the
    shell's two sides; its place on that side."""
    row = grid.row_L - (grid.rows - 1) // 2
    col = grid.col_L - (grid.cols - 1) // 2
    # The square of side k reaches k // 2 to the right and below, (k - 1) // 2 to the left and above.
    k = np.maximum.reduce([2 * col, 2 * row, -2 * col + 1, -2 * row + 1, np.ones_like(row)])
    half = k // 2
    even = k % 2 == 0  # an even shell is a right column, then a bottom row; an odd one a left column, then a top row
    second = np.where(even, row == half, row == -half) & (k > 1)
    first_place = np.where(even, row + half - 1, half - row)
    second_place = np.where(even, half - col, col + half)
    return k, second.astype(np.int64), np.where(second, second_place, first_place) * (k > 1)


def shells_and_sides(grid: Grid) -> tuple[IntArray, IntArray]:
    """(L,) each, by cell index, increasing along the walk: the shell (1, 2, ..., G on a square grid) and the side."""
    k, second, _ = _shells(grid)
    return k, 2 * k + second


def _walk(grid: Grid) -> IntArray:
    k, second, place = _shells(grid)
    return (k - 1) ** 2 + second * (k - 1) + place


@register_order("spiral", paper="EAR, arXiv 2511.15499", idea="a square spiral from the centre: right, down, left, up")
def spiral(grid: Grid) -> Ranking:
    """
    >>> from orderbench.orders import Grid, draw
    >>> print(draw("spiral", Grid(4, 4)))
     6  7  8  9
     5  0  1 10
     4  3  2 11
    15 14 13 12
    """
    return Ranking(_walk(grid))


@register_order(
    "spiral-in", paper="ablated in ARPG, arXiv 2503.10568", idea="the spiral walked backwards, from the rim inwards"
)
def spiral_in(grid: Grid) -> Ranking:
    """
    >>> from orderbench.orders import Grid, draw
    >>> print(draw("spiral-in", Grid(4, 4)))
     9  8  7  6
    10 15 14  5
    11 12 13  4
     0  1  2  3
    """
    return Ranking(-_walk(grid))
