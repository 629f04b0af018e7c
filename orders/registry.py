"""The registry: names of orders, and where they come from.

Knows functions and their signatures. Refuses to know any order in particular. Registering is what puts an order under
test: the property suite runs over every registered name.

An order comes from this package, from another distribution's entry point (group `orderbench.orders`) or from a file
(`--include my_order.py`). A name taken twice is an error.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from orderbench.orders.errors import BenchError, OrderFault, unknown
from orderbench.orders.lattice import Grid
from orderbench.orders.ranking import Ranking
from orderbench.orders.spelling import NAME, Option, bind_options, read_options, spell_call, split_call

ENTRY_POINTS = "orderbench.orders"
_ASK = "`bench orders` lists them"

OrderFunction = TypeVar("OrderFunction", bound=Callable[..., Ranking])


@dataclass(frozen=True, kw_only=True)
class Order:
    """A registered order.

    seeded: the function names `rng`. sized: it names `sizes`, so it is built for given step sizes and has no native
    groups. per_sample: every sample draws its own ranking, unless `shared=true`.
    """

    name: str
    paper: str
    idea: str
    per_sample: bool
    function: Callable[..., Ranking]
    options: tuple[Option, ...]
    seeded: bool
    sized: bool
    origin: str


@dataclass(frozen=True)
class BoundOrder:
    """An order with every option set; its `str` is canonical, so equal orders are spelled alike."""

    order: Order
    values: dict[str, Any] = field(hash=False)

    def __str__(self) -> str:
        return spell_call(self.order.name, self.order.options, self.values)

    @property
    def per_sample(self) -> bool:
        """Whether each sample has a ranking of its own."""
        return self.order.per_sample and not self.values["shared"]

    def rank(
        self, grid: Grid, *, rng: np.random.Generator | None = None, sizes: tuple[int, ...] | None = None
    ) -> Ranking:
        """Call the order's function and check what it returns.

        Raises BenchError if the order cannot serve the grid or the options; OrderFault, with the cause attached, if its
        function raises anything else or returns something that does not rank this grid.
        """
        keywords = {name: value for name, value in self.values.items() if not self._is_ours(name)}
        if self.order.seeded:
            keywords["rng"] = rng
        if self.order.sized:
            keywords["sizes"] = sizes
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                ranking = self.order.function(grid, **keywords)
        except OrderFault as fault:
            raise OrderFault(f"the order '{self}' of {self.order.origin} on a {grid} grid: {fault}") from fault
        except BenchError:
            raise
        except (Exception, SystemExit) as problem:
            raise OrderFault(
                f"the order '{self}' of {self.order.origin} raised {type(problem).__name__}: {problem} on a {grid} "
                f"grid; --debug shows its traceback"
            ) from problem
        if not isinstance(ranking, Ranking):
            raise OrderFault(
                f"the order '{self}' of {self.order.origin} returned a {type(ranking).__name__}; "
                f"return Ranking(rank_L), one whole number per cell"
            )
        if len(ranking.cells_L) != grid.n_cells:
            raise OrderFault(
                f"the order '{self}' of {self.order.origin} ranked {len(ranking.cells_L)} cells of a {grid} grid; "
                f"rank_L must hold {grid.n_cells}, one per cell"
            )
        return ranking

    def _is_ours(self, name: str) -> bool:
        return self.order.per_sample and name == "shared"


_ORDERS: dict[str, Order] = {}
_BROKEN: dict[str, str] = {}  # entry points that failed to load: name -> why
_loaded_entry_points = False

_SHARED = Option("shared", bool, False, False, "true, false: one draw for all samples")


def register_order(
    name: str, *, paper: str, idea: str, per_sample: bool = False
) -> Callable[[OrderFunction], OrderFunction]:
    """Decorator: put `order(grid, *, rng=None, sizes=None, <typed options>) -> Ranking` under a name.

    Naming `rng` (a numpy Generator) makes the order seeded: one draw a plan, or with `per_sample` one a sample, which
    also adds the option `shared`. Naming `sizes` makes it an order built for given step sizes. All other keywords are
    the order's options (see `spelling.read_options`).

    Raises BenchError for a name that is taken or misspelt, and for a signature that cannot be read.
    """

    def decorate(function: OrderFunction) -> OrderFunction:
        if not NAME.fullmatch(name):
            raise BenchError(f"'{name}' cannot name an order; use lower-case words joined by -, as in z-curve")
        if not (isinstance(paper, str) and isinstance(idea, str)):
            raise BenchError(f"the order '{name}' must say its paper and its idea in words, as in paper='none'")
        origin = getattr(function, "__module__", "?")
        if name in _ORDERS:
            raise BenchError(
                f"two orders want the name '{name}', one of {_ORDERS[name].origin} and one of {origin}; "
                f"register the second under another name"
            )
        options = read_options(function, reserved=("rng", "sizes"))
        named = inspect.signature(function).parameters
        if per_sample and ("rng" not in named or "shared" in named):
            raise BenchError(f"the order '{name}' is per sample: its function must name `rng`, and not `shared`")
        _ORDERS[name] = Order(
            name=name,
            paper=paper,
            idea=idea,
            per_sample=per_sample,
            function=function,
            options=(*options, _SHARED) if per_sample else options,
            seeded="rng" in named,
            sized="sizes" in named,
            origin=origin,
        )
        return function

    return decorate


def order_names() -> tuple[str, ...]:
    """Every registered name, this package's first, in the order of its table of contents."""
    load_entry_points()
    return tuple(_ORDERS)


def get_order(name: str) -> Order:
    """The order of that name; BenchError with the nearest name if there is none."""
    if name not in _ORDERS:
        load_entry_points()
    if name not in _ORDERS:
        if name in _BROKEN:
            raise BenchError(f"the order '{name}' is installed but did not load: {_BROKEN[name]}")
        raise unknown("order", name, _ORDERS, _ASK)
    return _ORDERS[name]


def parse_order(text: str) -> BoundOrder:
    """An order with its options, as it is typed: 'radial:center=3x4:width=2'."""
    name, given = split_call(text)
    order = get_order(name)
    return BoundOrder(order, bind_options(name, order.options, given, f"`bench orders {name}` lists its options"))


def load_entry_points() -> None:
    """Load the orders of other installed distributions, once. One that fails is kept aside, with its reason."""
    global _loaded_entry_points
    if _loaded_entry_points:
        return
    _loaded_entry_points = True
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            with contextlib.redirect_stdout(sys.stderr):
                point.load()
        except (Exception, SystemExit) as problem:  # a stranger's module may do anything; the suite still works
            _BROKEN[point.name] = f"{point.value}: {type(problem).__name__}: {problem}"


def broken_entry_points() -> dict[str, str]:
    """Installed orders that failed to load: name -> why."""
    load_entry_points()
    return dict(_BROKEN)


def include_file(path: str | Path) -> tuple[str, ...]:
    """Run a Python file that registers orders; the names it registered. The file is code and is run as such."""
    file = Path(path)
    if not file.is_file():
        raise BenchError(f"there is no file '{path}' to include; give a Python file that registers an order")
    before = set(_ORDERS)
    spec = importlib.util.spec_from_file_location(f"orderbench_included_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise BenchError(f"'{path}' is not a Python file; give one that ends in .py and registers an order")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except BenchError as problem:
        raise BenchError(f"'{path}' could not be included: {problem}") from problem
    except (Exception, SystemExit) as problem:
        raise BenchError(
            f"'{path}' could not be included: it raised {type(problem).__name__}: {problem}; "
            f"--debug shows its traceback"
        ) from problem
    names = tuple(name for name in _ORDERS if name not in before)
    if not names:
        raise BenchError(f"'{path}' registers no order; decorate a function with @register_order('my-name', ...)")
    return names
