"""Scan lines: row by row, column by column, forwards, backwards, there and back.

LlamaGen (arXiv 2406.06525) and nearly all autoregressive image models decode in raster order; the others are controls
for its direction. None of them has ties, so their native pace is one cell a step.
"""

from __future__ import annotations

import numpy as np

from orderbench.orders.lattice import Grid
from orderbench.orders.order import register_order
from orderbench.orders.ranking import Ranking


@register_order("raster", paper="LlamaGen, arXiv 2406.06525", idea="row by row, left to right")
def raster(grid: Grid) -> Ranking:
    """
    >>> from orderbench.orders import Grid, draw
    >>> print(draw("raster", Grid(2, 3)))
    0 1 2
    3 4 5
    """
    return Ranking(np.arange(grid.n_cells))


@register_order("raster-reverse", paper="a control", idea="raster backwards, from the last cell to the first")
def raster_reverse(grid: Grid) -> Ranking:
    """
    >>> from orderbench.orders import Grid, draw
    >>> print(draw("raster-reverse", Grid(2, 3)))
    5 4 3
    2 1 0
    """
    return Ranking(-np.arange(grid.n_cells))


@register_order("column", paper="a control", idea="column by column, top to bottom")
def column(grid: Grid) -> Ranking:
    """
    >>> from orderbench.orders import Grid, draw
    >>> print(draw("column", Grid(2, 3)))
    0 2 4
    1 3 5
    """
    return Ranking(grid.col_L * grid.rows + grid.row_L)


@register_order(
    "snake", paper="'alternate' in ARPG, arXiv 2503.10568", idea="row by row, every second row right to left"
)
def snake(grid: Grid) -> Ranking:
    """
    >>> from orderbench.orders import Grid, draw
    >>> print(draw("snake", Grid(3, 3)))
    0 1 2
    5 4 3
    6 7 8
    """
    backwards = grid.row_L % 2 == 1
    return Ranking(grid.row_L * grid.cols + np.where(backwards, grid.cols - 1 - grid.col_L, grid.col_L))
