"""Radial: rings around a centre, from the inside out, a whole ring at a time.

RadAR, "From Sequential to Spatial" (arXiv 2512.24639), abstract: an initial token is the centre, all others are grouped
into concentric rings by their distance from it, and a ring is decoded in parallel. Metric, rounding and the choice of
the centre are not in the abstract, and no code is public. Every unknown is an option here. With the defaults a 16x16
grid takes the 13 steps of the abstract. This is a reconstruction, not a reproduction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from orderbench.orders.errors import BenchError
from orderbench.orders.lattice import FloatArray, Grid, IntArray
from orderbench.orders.order import register_order
from orderbench.orders.ranking import Ranking
from orderbench.orders.spelling import spell

MIN_WIDTH = 0.001  # a narrower ring holds one distance only, as this one does
_EPSILON = 1e-9  # so that rounding does not put equal distances into two rings


@dataclass(frozen=True)
class Center:
    """Where the rings are centred: a named place, or a point in coordinates of cell centres."""

    place: str
    row: float = 0.0
    col: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Center | None:
        """'cell', 'middle', 'corner', 'random', or 'RxC' (zero-based, fractions allowed); None for anything else."""
        if text in ("cell", "middle", "corner", "random"):
            return cls(text)
        match = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,9})?)x([0-9]{1,7}(?:\.[0-9]{1,9})?)", text)
        return cls("point", float(match[1]), float(match[2])) if match else None

    def __str__(self) -> str:
        return f"{spell(self.row)}x{spell(self.col)}" if self.place == "point" else self.place

    def on(self, grid: Grid, rng: np.random.Generator | None) -> tuple[float, float]:
        """Row and column on a grid; BenchError if the point lies outside."""
        if self.place == "cell":
            return grid.rows // 2, grid.cols // 2
        if self.place == "middle":
            return (grid.rows - 1) / 2, (grid.cols - 1) / 2
        if self.place == "corner":
            return 0, 0
        if self.place == "random":
            if rng is None:
                raise BenchError(
                    "radial:center=random draws its centre and was given no generator; make_plan gives one"
                )
            return divmod(int(rng.integers(grid.n_cells)), grid.cols)
        if self.row > grid.rows - 1 or self.col > grid.cols - 1:
            raise BenchError(
                f"the centre {self} lies outside a {grid} grid; rows 0 to {grid.rows - 1} and columns 0 to "
                f"{grid.cols - 1} would do, as in radial:center={(grid.rows - 1) // 2}x{(grid.cols - 1) // 2}"
            )
        return self.row, self.col


@register_order(
    "radial",
    paper="RadAR (reconstructed), arXiv 2512.24639",
    idea="rings around a centre, inside out, a ring at a time",
)
def radial(
    grid: Grid,
    *,
    rng: np.random.Generator | None = None,
    center: Annotated[Center, "cell, middle, corner, random, or RxC"] = Center("cell"),
    metric: Literal["euclid", "chebyshev", "manhattan"] = "euclid",
    rounding: Literal["ceil", "floor", "round"] = "ceil",
    width: Annotated[float, "a ring's width in cells, 0.001 or more"] = 1.0,
    rings: Annotated[int | None, "how many rings of equal width, in place of width and rounding"] = None,
) -> Ranking:
    """Ring = rounded distance / width. Within a ring the walk goes clockwise from the top, nearer cells first.

    >>> from orderbench.orders import Grid, draw
    >>> print(draw("radial", Grid(5, 5)))
    3 3 2 3 3
    3 2 1 2 3
    2 1 0 1 2
    3 2 1 2 3
    3 3 2 3 3
    >>> print(draw("radial@one", Grid(3, 3)))
    8 1 5
    4 0 2
    7 3 6
    """
    center_row, center_col = center.on(grid, rng)
    down, right = grid.row_L - center_row, grid.col_L - center_col
    distance = {
        "euclid": np.hypot(down, right),
        "chebyshev": np.maximum(abs(down), abs(right)),
        "manhattan": abs(down) + abs(right),
    }[metric]
    if rings is not None:
        if width != 1.0 or rounding != "ceil":
            raise BenchError("radial takes rings, or width and rounding, not both; leave one of them out")
        ring = _in_rings(distance, rings, grid)
    elif width < MIN_WIDTH:
        raise BenchError(
            f"radial:width={spell(width)} is not served; a ring's width is {MIN_WIDTH} or more, as in radial:width=2"
        )
    else:
        scaled = distance / width
        ring = {
            "ceil": np.ceil(scaled - _EPSILON),
            "floor": np.floor(scaled + _EPSILON),
            "round": np.floor(scaled + 0.5 + _EPSILON),
        }[rounding].astype(np.int64)
    clockwise = np.round(np.arctan2(right, -down) % (2 * np.pi), 9) % np.round(2 * np.pi, 9)
    walk = np.lexsort((np.round(distance, 9), clockwise))
    return Ranking(ring, np.argsort(walk))


def _in_rings(distance: FloatArray, rings: int, grid: Grid) -> IntArray:
    """(L,): the ring of each cell when the span of distances is cut into `rings` equal widths."""

    def at(n: int) -> IntArray:
        span = max(float(np.ptp(distance)), _EPSILON)
        cut: IntArray = np.minimum((distance - distance.min()) / span * n + _EPSILON, n - 1).astype(np.int64)
        return cut

    def served(n: int) -> bool:
        return n >= 1 and len(np.unique(at(n))) == n

    if not served(rings):
        distances = len(np.unique(np.round(distance, 9)))
        nearest = min((n for n in range(1, distances + 1) if served(n)), key=lambda n: abs(n - rings))
        raise BenchError(
            f"radial:rings={rings} is not served on a {grid} grid around this centre: a ring must hold a cell; "
            f"the nearest number that would do is {nearest}, as in radial:rings={nearest}"
        )
    return at(rings)
