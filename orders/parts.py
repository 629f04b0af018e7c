"""Parts decoded side by side: diagonals, wavefronts, regions, the two colours of a checkerboard.

NAR (arXiv 2503.10696) decodes all cells at equal distance from the corner at once, so that every cell already has its
neighbours; ZipAR (arXiv 2412.04062) begins a row as soon as the row above is some cells ahead; PAR (arXiv 2412.15119)
decodes the same inner cell of distant regions at once, so that cells decoded together hardly depend on each other.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from orderbench.orders.errors import BenchError
from orderbench.orders.lattice import Grid
from orderbench.orders.order import register_order
from orderbench.orders.ranking import Ranking


@register_order(
    "diagonal", paper="NAR, arXiv 2503.10696", idea="anti-diagonals from the top left, a diagonal at a time"
)
def diagonal(grid: Grid) -> Ranking:
    """Within a diagonal by increasing row, as NAR lists them.

    >>> from orderbench.orders import Grid, draw
    >>> print(draw("diagonal", Grid(3, 4)))
    0 1 2 3
    1 2 3 4
    2 3 4 5
    """
    return Ranking(grid.row_L + grid.col_L, grid.row_L)


@register_order(
    "wavefront",
    paper="ZipAR, arXiv 2412.04062",
    idea="all rows at once, left to right, each w cells behind the row above",
)
def wavefront(grid: Grid, *, w: Annotated[int, "cells that a row is ahead of the next; 1 or more"] = 4) -> Ranking:
    """ZipAR decides at run time when a row may begin: once the row above has w cells. With one cell a row and step that
    is a fixed order. One cell ahead it is `diagonal`, as many as there are columns it is raster.

    >>> from orderbench.orders import Grid, draw
    >>> print(draw("wavefront:w=2", Grid(3, 4)))
    0 1 2 3
    2 3 4 5
    4 5 6 7
    """
    if w < 1:
        raise BenchError(f"wavefront:w={w} is not served; 1 or more would do, as in wavefront:w=4")
    return Ranking(min(w, grid.cols) * grid.row_L + grid.col_L, grid.row_L)


@register_order(
    "regions",
    paper="PAR, arXiv 2412.15119",
    idea="m x m regions: their corners one by one, then the same inner cell of all",
)
def regions(grid: Grid, *, m: Annotated[int, "regions a side; it must divide rows and columns"] = 2) -> Ranking:
    """
    >>> from orderbench.orders import Grid, draw
    >>> print(draw("regions", Grid(4, 4)))
    0 4 1 4
    5 6 5 6
    2 4 3 4
    5 6 5 6
    >>> print(draw("regions@one", Grid(4, 4)))
     0  4  1  5
     8 12  9 13
     2  6  3  7
    10 14 11 15
    """
    shared = math.gcd(grid.rows, grid.cols)
    if m < 1 or shared % m:
        served = [str(d) for d in range(1, shared + 1) if shared % d == 0]
        raise BenchError(
            f"regions:m={m} does not divide a {grid} grid; m={', '.join(served)} would do, as in regions:m={served[-1]}"
        )
    rows, cols = grid.rows // m, grid.cols // m  # of one region
    region = grid.row_L // rows * m + grid.col_L // cols
    inner = grid.row_L % rows * cols + grid.col_L % cols
    corners = m * m
    return Ranking(np.where(inner == 0, region, corners + inner), region)


@register_order("checkerboard", paper="a control", idea="all cells of one colour, then all of the other")
def checkerboard(grid: Grid) -> Ranking:
    """
    >>> from orderbench.orders import Grid, draw
    >>> print(draw("checkerboard", Grid(2, 4)))
    0 1 0 1
    1 0 1 0
    """
    return Ranking((grid.row_L + grid.col_L) % 2)
