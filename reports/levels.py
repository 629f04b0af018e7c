"""Levels: values of a lattice's cells as one rectangle to draw, whatever the lattice.

Knows lattices. Refuses to know what is drawn. The levels of a pyramid are put side by side, coarse to fine, a cell as
large as any other; a grid is itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from orderbench.orders import Lattice

GAP = 1  # cells between two levels


def extent_of(lattice: Lattice) -> tuple[int, int]:
    """Rows and columns of the rectangle that holds all levels.

    >>> from orderbench.orders import parse_lattice
    >>> extent_of(parse_lattice("4x6")), extent_of(parse_lattice("1/2/4"))
    ((4, 6), (4, 9))
    """
    levels = lattice.levels
    return max(grid.rows for grid in levels), sum(grid.cols for grid in levels) + GAP * (len(levels) - 1)


def place_of_cell(lattice: Lattice) -> npt.NDArray[np.int64]:
    """(L,) int64: where every cell is in that rectangle, as row * columns + column; smaller levels are at its top."""
    columns, left, places = extent_of(lattice)[1], 0, []
    for grid in lattice.levels:
        places.append(grid.row_L * columns + grid.col_L + left)
        left += grid.cols + GAP
    return np.concatenate(places)


def drawn(lattice: Lattice, values_L: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values by cell index as that rectangle; masked where there is no cell."""
    rows, columns = extent_of(lattice)
    if len(lattice.levels) == 1:
        return lattice.split(values_L)[0]
    flat, hidden = np.zeros(rows * columns, values_L.dtype), np.ones(rows * columns, bool)
    flat[place_of_cell(lattice)], hidden[place_of_cell(lattice)] = values_L, False
    picture: npt.NDArray[Any] = np.ma.MaskedArray(flat, hidden).reshape(rows, columns)
    return picture
