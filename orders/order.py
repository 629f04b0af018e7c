"""Orders by name: what a registered order is, and how it ranks a lattice.

Knows the signature of an order, and how an order of grids is lifted to a pyramid. Refuses to know any order in
particular.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from orderbench.orders.errors import BenchError, OrderFault, said
from orderbench.orders.lattice import Grid, IntArray, Lattice, Pyramid
from orderbench.orders.ranking import Ranking
from orderbench.orders.registry import Bound, Entry, Registry, broken_plugins
from orderbench.orders.spelling import Option, read_options

ENTRY_POINTS = "orderbench.orders"

OrderFunction = TypeVar("OrderFunction", bound=Callable[..., Ranking])
JointDesign = Callable[..., tuple[IntArray, tuple[int, ...]]]  # (grid, steps, **options) -> cells_L and step sizes


@dataclass(frozen=True, kw_only=True)
class Order(Entry):
    """A registered order.

    seeded: the function names `rng`. sized: it names `sizes`; it is built for given step sizes and has no native
    groups. per_sample: every sample draws its own ranking, unless `shared=true`. whole: its first parameter is
    annotated `Lattice`; it ranks a whole pyramid at once, where any other order ranks a pyramid level by level. joint:
    designs walk and step sizes together, for paces that fit sizes to walks; None for most.
    """

    per_sample: bool
    seeded: bool
    sized: bool
    whole: bool
    joint: JointDesign | None = None


ORDERS: Registry[Order] = Registry("an order", "`bench orders` lists them", ENTRY_POINTS)


@dataclass(frozen=True)
class BoundOrder(Bound[Order]):
    """An order with every option set."""

    @property
    def order(self) -> Order:
        """The registered order, without options."""
        return self.entry

    @property
    def per_sample(self) -> bool:
        """Whether each sample has a ranking of its own."""
        return self.order.per_sample and not self.values["shared"]

    def rank(
        self, lattice: Lattice, *, rng: np.random.Generator | None = None, sizes: tuple[int, ...] | None = None
    ) -> Ranking:
        """Call the order's function and check what it returns; a pyramid is ranked level by level, coarse to fine.

        Raises BenchError if the order cannot serve the lattice or the options; OrderFault, with the cause attached, if
        its function raises anything else or returns something that does not rank this lattice.
        """
        if self.order.whole or not isinstance(lattice, Pyramid):
            return self._rank(lattice, rng, sizes)
        if self.order.sized:
            raise BenchError(
                f"'{self.order.name}' is built for step sizes on one grid and does not serve the pyramid {lattice}; "
                f"scales, raster or halton would do"
            )
        ranks, walks, before = [], [], 0
        for grid in lattice.levels:
            ranking = self._rank(grid, rng, None)
            place_L = np.empty(grid.n_cells, np.int64)
            place_L[ranking.cells_L] = np.arange(grid.n_cells)
            ranks.append(ranking.rank_L + before)
            walks.append(place_L)
            before += len(ranking.native_sizes)
        return Ranking(np.concatenate(ranks), np.concatenate(walks))

    def _rank(self, lattice: Lattice, rng: np.random.Generator | None, sizes: tuple[int, ...] | None) -> Ranking:
        keywords = {name: value for name, value in self.values.items() if not self._is_ours(name)}
        if self.order.seeded:
            keywords["rng"] = rng
        if self.order.sized:
            keywords["sizes"] = sizes
        kind = "grid" if isinstance(lattice, Grid) else "pyramid"
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                ranking = self.order.function(lattice, **keywords)
        except OrderFault as fault:
            raise OrderFault(f"the order '{self}' of {self.order.origin} on a {lattice} {kind}: {fault}") from fault
        except BenchError:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as problem:
            raise OrderFault(
                f"the order '{self}' of {self.order.origin} raised {said(problem)} on a {lattice} {kind}; --debug "
                f"shows its traceback"
            ) from problem
        if not isinstance(ranking, Ranking):
            raise OrderFault(
                f"the order '{self}' of {self.order.origin} returned a {type(ranking).__name__}; "
                f"return Ranking(rank_L), one whole number per cell"
            )
        if len(ranking.cells_L) != lattice.n_cells:
            raise OrderFault(
                f"the order '{self}' of {self.order.origin} ranked {len(ranking.cells_L)} cells of a {lattice} {kind}; "
                f"rank_L must hold {lattice.n_cells}, one per cell"
            )
        return ranking

    def design(self, lattice: Lattice, steps: int) -> dict[str, Any]:
        """The cells and the sizes of a plan of `steps` steps, designed together. BenchError for a pyramid."""
        if self.order.joint is None or not isinstance(lattice, Grid):
            raise BenchError(
                f"'{self.order.name}' designs its step sizes on one grid and does not serve {lattice}; give it a pace "
                f"such as cosine:{steps}, or a grid, as in --grid 16"
            )
        cells_L, sizes = self.order.joint(lattice, steps, **self.values)
        return {"cells": cells_L, "sizes": sizes}

    def _is_ours(self, name: str) -> bool:
        return self.order.per_sample and name == "shared"


_SHARED = Option("shared", bool, False, False, "true, false: one draw for all samples")


def register_order(
    name: str, *, paper: str, idea: str, per_sample: bool = False, joint: JointDesign | None = None
) -> Callable[[OrderFunction], OrderFunction]:
    """Decorator: put `order(grid, *, rng=None, sizes=None, <typed options>) -> Ranking` under a name.

    Naming `rng` (a numpy Generator) makes the order seeded: one draw a plan, or with `per_sample` one a sample, which
    also adds the option `shared`. Naming `sizes` makes it an order built for given step sizes. Annotating the first
    parameter `Lattice` makes it an order of whole lattices, pyramids included. All other keywords are the order's
    options (see `spelling.read_options`). joint: `design(grid, steps, **options) -> (cells_L, sizes)` of an order that
    is built for step sizes, where it can design them too.

    Raises BenchError for a name that is taken or misspelt, and for a signature that cannot be read.
    """

    def decorate(function: OrderFunction) -> OrderFunction:
        options = read_options(function, reserved=("rng", "sizes"))
        named = inspect.signature(function).parameters
        if per_sample and ("rng" not in named or "shared" in named):
            raise BenchError(f"the order '{name}' is per sample: its function must name `rng`, and not `shared`")
        ORDERS.add(
            Order(
                name=name,
                paper=paper,
                idea=idea,
                per_sample=per_sample,
                function=function,
                options=(*options, _SHARED) if per_sample else options,
                seeded="rng" in named,
                sized="sizes" in named,
                joint=joint,
                whole=typing.get_type_hints(function).get(next(iter(named))) == Lattice,
                origin=getattr(function, "__module__", "?"),
            )
        )
        return function

    return decorate


def order_names() -> tuple[str, ...]:
    """Every registered name, this package's first, in the order of its table of contents."""
    return ORDERS.names()


def get_order(name: str) -> Order:
    """The order of that name; BenchError with the nearest name if there is none."""
    return ORDERS.get(name)


def parse_order(text: str) -> BoundOrder:
    """An order with its options, as it is typed: 'radial:center=3x4:width=2'."""
    name = text.partition(":")[0]
    return BoundOrder(*ORDERS.read(text, f"`bench orders {name}` lists its options"))


def broken_orders() -> dict[str, str]:
    """Installed orders that failed to load: name -> why."""
    return broken_plugins(ENTRY_POINTS)
