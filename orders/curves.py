"""Space-filling curves: neighbours on the curve are neighbours, or nearly, on the grid."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from orderbench.orders.lattice import Grid, IntArray
from orderbench.orders.order import register_order
from orderbench.orders.ranking import Ranking


def interleave_bits(high: IntArray, low: IntArray, bits: int) -> IntArray:
    """The bits of two whole numbers, taken in turn; of each pair the bit of `high` comes first.

    >>> interleave_bits(np.array([0b10]), np.array([0b11]), bits=2).tolist() == [0b1101]
    True
    """
    merged = np.zeros_like(high)
    for bit in range(bits):
        merged |= (high >> bit & 1) << (2 * bit + 1) | (low >> bit & 1) << (2 * bit)
    return merged


@register_order(
    "z-curve",
    paper="Morton, IBM 1966; ablated in ARPG, arXiv 2503.10568",
    idea="quadrant by quadrant, recursively, in the shape of a Z",
)
def z_curve(grid: Grid) -> Ranking:
    """
    >>> from orderbench.orders import Grid, draw
    >>> print(draw("z-curve", Grid(4, 4)))
     0  1  4  5
     2  3  6  7
     8  9 12 13
    10 11 14 15
    """
    return Ranking(interleave_bits(grid.row_L, grid.col_L, max(grid.rows, grid.cols).bit_length()))


@register_order(
    "hilbert",
    paper="Hilbert, Math. Ann. 1891",
    idea="a Hilbert curve, drawn to fit any rectangle: every step to a neighbour",
)
def hilbert(grid: Grid) -> Ranking:
    """Hilbert's recursion with halves rounded to whole cells, after Cerveny's generalised curve. Every step goes to a
    side neighbour, but for a single diagonal one that some odd sizes force.

    >>> from orderbench.orders import Grid, draw
    >>> print(draw("hilbert", Grid(4, 4)))
     0  1 14 15
     3  2 13 12
     4  7  8 11
     5  6  9 10
    """
    right, down = complex(grid.cols, 0), complex(0, grid.rows)
    curve = np.array(list(_fill(0j, right, down) if grid.cols >= grid.rows else _fill(0j, down, right)))
    rank_L = np.empty(grid.n_cells, np.int64)
    rank_L[(curve.imag * grid.cols + curve.real).astype(np.int64)] = np.arange(grid.n_cells)
    return Ranking(rank_L)


def _fill(corner: complex, along: complex, across: complex) -> Iterator[complex]:
    """Every cell (column + row i) of the block at `corner` with the sides `along` and `across`; the last cell is at the
    far end of `along`. Sides are whole numbers of cells, along one axis, with a sign."""
    length, depth = int(abs(along)), int(abs(across))
    step, side_step = along / length, across / depth
    if depth == 1:
        yield from (corner + i * step for i in range(length))
    elif length == 1:
        yield from (corner + i * side_step for i in range(depth))
    elif 2 * length > 3 * depth:  # long: two blocks, end to end
        half = _half(length, step)
        yield from _fill(corner, half, across)
        yield from _fill(corner + half, along - half, across)
    else:  # out over the near half of `along`, along the far half of `across`, and back
        half, side_half = length // 2 * step, _half(depth, side_step)
        yield from _fill(corner, side_half, half)
        yield from _fill(corner + side_half, along, across - side_half)
        yield from _fill(corner + along - step + side_half - side_step, -side_half, half - along)


def _half(length: int, step: complex) -> complex:
    """About half, rounded up to an even number if length > 2, so that the curve leaves a block at the required
    corner."""
    half = length // 2
    return (half + (half % 2 if length > 2 else 0)) * step
