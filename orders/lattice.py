"""Lattices: where the cells of an image's tokens are.

Knows cells and coordinates. Refuses to know what a cell holds and when it is decoded. Whoever consumes a lattice
reads `coords` (level, row, column) and assumes neither a square nor a single level, so that a pyramid of grids
can take a grid's place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from orderbench.orders.errors import BenchError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

MAX_CELLS = 1 << 20  # a plan is a table of cells: past a 1024x1024 lattice a typing slip is the likelier cause


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
                raise BenchError(f"a grid's sides are whole numbers, not {side!r}; say for instance Grid(16, 16)")
        if self.rows < 1 or self.cols < 1:
            raise BenchError(f"a {self} grid holds no cell; both sides must be 1 or more, as in --grid 16x12")
        if self.n_cells > MAX_CELLS:
            raise BenchError(f"a {self} grid has {self.n_cells} cells; up to {MAX_CELLS} are served, as in --grid 64")

    @classmethod
    def parse(cls, text: str) -> Grid:
        """'16' (square) or '16x12' (rows x columns)."""
        match = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", text.strip())
        if match is None:
            raise BenchError(f"'{text}' is not a grid; give a side or ROWSxCOLS, as in --grid 16 or --grid 16x12")
        return cls(int(match[1]), int(match[2] or match[1]))

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"

    @property
    def n_cells(self) -> int:
        """L, the number of cells."""
        return self.rows * self.cols

    @cached_property
    def coords(self) -> IntArray:
        """(L, 3) int64: level, row and column of every cell, in order of the cell index. Read-only."""
        coords = np.zeros((self.n_cells, 3), np.int64)
        coords[:, 1], coords[:, 2] = np.divmod(np.arange(self.n_cells), self.cols)
        coords.setflags(write=False)
        return coords

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

    @classmethod
    def from_json(cls, value: object) -> Grid:
        """The inverse of `to_json`; BenchError for anything else."""
        if not (isinstance(value, Mapping) and set(value) == {"kind", "rows", "cols"} and value["kind"] == "grid"):
            raise BenchError(f'{value!r} is not a lattice; expected {{"kind": "grid", "rows": R, "cols": C}}')
        return cls(value["rows"], value["cols"])
