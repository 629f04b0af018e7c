"""Lattices: where the cells of an image's tokens are.

Knows cells and coordinates. Refuses to know what a cell holds and when it is decoded.

A lattice is a `Grid`, one rectangle, or a `Pyramid`, several grids from coarse to fine (VAR, arXiv 2404.02905). Whoever
reads one uses what both have: `n_cells`, `coords` (level, row, column), `levels` and `split`, which parts values by
cell into one rectangle a level. Nothing downstream assumes a square or a single level.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from orderbench.orders.errors import BenchError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

MAX_CELLS = 1 << 20  # a plan is a table of cells; more than 1024x1024 is more likely a typing mistake

_SIDES = re.compile(r"([0-9]{1,9})(?:x([0-9]{1,9}))?")  # of a square, or of any grid


@dataclass(frozen=True)
class Grid:
    """`rows` x `cols` cells, one level; the index of a cell is row * cols + col.

    >>> Grid(2, 3).coords.tolist()
    [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 1], [0, 1, 2]]

    Raises BenchError for sizes below 1 or more than 2**20 cells.
    """

    rows: int
    cols: int

    def __post_init__(self) -> None:
        for side in (self.rows, self.cols):
            if isinstance(side, bool) or not isinstance(side, int):
                raise BenchError(f"a grid's sides are whole numbers, not {side!r}; as in Grid(16, 16)")
        if self.rows < 1 or self.cols < 1:
            raise BenchError(f"a {self} grid holds no cell; both sides must be 1 or more, as in --grid 16x12")
        if self.n_cells > MAX_CELLS:
            raise BenchError(f"a {self} grid has {self.n_cells} cells; up to {MAX_CELLS} are served, as in --grid 64")

    @classmethod
    def parse(cls, text: str) -> Grid:
        """'16' (square) or '16x12' (rows x columns)."""
        match = _SIDES.fullmatch(text.strip())
        if match is None:
            raise BenchError(f"'{text}' is not a grid; give a side or ROWSxCOLS, as in --grid 16 or --grid 16x12")
        return cls(int(match[1]), int(match[2] or match[1]))

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"

    @property
    def n_cells(self) -> int:
        """L, the number of cells."""
        return self.rows * self.cols

    @property
    def levels(self) -> tuple[Grid, ...]:
        """The one grid there is."""
        return (self,)

    @cached_property
    def coords(self) -> IntArray:
        """(L, 3) int64: level, row and column of every cell, in order of the cell index. Read-only."""
        coords = np.zeros((self.n_cells, 3), np.int64)
        coords[:, 1], coords[:, 2] = np.divmod(np.arange(self.n_cells), self.cols)
        coords.setflags(write=False)
        return coords

    def split(self, values_L: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """Values by cell index as one (rows, cols) array."""
        return (values_L.reshape(self.rows, self.cols),)

    @property
    def row_L(self) -> IntArray:
        """(L,) int64: the row of every cell."""
        return self.coords[:, 1]

    @property
    def col_L(self) -> IntArray:
        """(L,) int64: the column of every cell."""
        return self.coords[:, 2]

    def to_json(self) -> dict[str, object]:
        """A plain value: {"kind": "grid", "rows": R, "cols": C}."""
        return {"kind": "grid", "rows": self.rows, "cols": self.cols}


@dataclass(frozen=True)
class Pyramid:
    """Grids from coarse to fine; the cells of a level follow those of the levels before it.

    >>> str(Pyramid.parse("1/2/4")), Pyramid.parse("1/2/4").n_cells
    ('1/2/4', 21)

    Raises BenchError for no level, and for more than 2**20 cells in all.
    """

    levels: tuple[Grid, ...]

    def __post_init__(self) -> None:
        if not self.levels or not all(isinstance(level, Grid) for level in self.levels):
            raise BenchError(f"a pyramid has one grid or more, not {self.levels!r}; as in --grid 1/2/4/8")
        if self.n_cells > MAX_CELLS:
            raise BenchError(
                f"a {self} pyramid has {self.n_cells} cells; up to {MAX_CELLS} are served, as in --grid 1/2/4/8"
            )

    @classmethod
    def parse(cls, text: str) -> Pyramid:
        """'1/2/4/8': a side or ROWSxCOLS a level, coarse to fine."""
        parts = text.split("/")
        if not all(_SIDES.fullmatch(part.strip()) for part in parts):
            raise BenchError(
                f"'{text}' is not a pyramid; give a side or ROWSxCOLS for each level, coarse to fine, as in "
                f"--grid 1/2/4/8"
            )
        return cls(tuple(Grid.parse(part) for part in parts))

    def __str__(self) -> str:
        return "/".join(str(grid.rows) if grid.rows == grid.cols else str(grid) for grid in self.levels)

    @property
    def n_cells(self) -> int:
        """L, the number of cells of all levels."""
        return sum(grid.n_cells for grid in self.levels)

    @cached_property
    def coords(self) -> IntArray:
        """(L, 3) int64: level, row and column of every cell, in order of the cell index. Read-only."""
        parts = [grid.coords + np.array([level, 0, 0]) for level, grid in enumerate(self.levels)]
        coords = np.concatenate(parts)
        coords.setflags(write=False)
        return coords

    def split(self, values_L: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """Values by cell index as one (rows, cols) array a level, coarse to fine."""
        parts = np.split(values_L, np.cumsum([grid.n_cells for grid in self.levels])[:-1])
        return tuple(part.reshape(grid.rows, grid.cols) for part, grid in zip(parts, self.levels, strict=True))

    def to_json(self) -> dict[str, object]:
        """A plain value: {"kind": "pyramid", "levels": [[R, C], ...]}."""
        return {"kind": "pyramid", "levels": [[grid.rows, grid.cols] for grid in self.levels]}


Lattice: TypeAlias = Grid | Pyramid


def parse_lattice(text: str) -> Lattice:
    """'16' or '16x12', a grid; '1/2/4/8', a pyramid.

    >>> parse_lattice("16x12"), parse_lattice("1/2x3").n_cells
    (Grid(rows=16, cols=12), 7)
    """
    return Pyramid.parse(text) if "/" in text else Grid.parse(text)


def lattice_from_json(value: object) -> Lattice:
    """The inverse of `to_json`; BenchError for anything else."""
    if isinstance(value, Mapping):
        kind, keys = value.get("kind"), set(value)
        if kind == "grid" and keys == {"kind", "rows", "cols"}:
            return Grid(value["rows"], value["cols"])
        levels = value.get("levels")
        pairs = isinstance(levels, list) and all(isinstance(sides, list) and len(sides) == 2 for sides in levels)
        if kind == "pyramid" and keys == {"kind", "levels"} and pairs:
            return Pyramid(tuple(Grid(*sides) for sides in value["levels"]))
    raise BenchError(
        f'{value!r} is not a lattice; expected {{"kind": "grid", "rows": R, "cols": C}} or {{"kind": "pyramid", '
        f'"levels": [[R, C], ...]}}'
    )
