"""Registries: names, options, papers, and where the things behind the names come from.

Knows functions, their signatures and plugins. Refuses to know what is registered: orders, decoders, guidance laws,
objective terms, corruptions, model families, tokenizers and feature spaces are all registered and spelled in this one
way. Registering an order or a decoder puts it under test: the property suites run over every registered name.

An entry comes from this package, from another distribution's entry point (group `orderbench.orders` for orders,
`orderbench.plugins` for all else) or from a file (`--include my_order.py`). A name taken twice is an error.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from orderbench.orders.errors import BenchError, said, unknown
from orderbench.orders.spelling import NAME, Option, bind_options, spell_call, split_call

PLUGINS = "orderbench.plugins"  # the group of entry points for all but orders


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered thing. paper: where it is published, 'none' or 'a control'. idea: a line for lists. origin: the
    module that registered it."""

    name: str
    paper: str
    idea: str
    function: Callable[..., Any]
    options: tuple[Option, ...] = ()
    origin: str = ""


SomeEntry = TypeVar("SomeEntry", bound=Entry)


@dataclass(frozen=True)
class Bound(Generic[SomeEntry]):
    """An entry with every option set; its `str` is canonical, so equal things are spelled alike."""

    entry: SomeEntry
    values: dict[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """The entry's name, without options."""
        return self.entry.name

    def __str__(self) -> str:
        return spell_call(self.entry.name, self.entry.options, self.values)


class Registry(Generic[SomeEntry]):
    """The entries of one kind, by name, this package's first.

    kind: what one is called, with its article, as in 'an order'. ask: where a list of them is found, for error
    sentences. group: the entry points that plugins use.
    """

    def __init__(self, kind: str, ask: str, group: str = PLUGINS) -> None:
        self.article, _, self.kind = kind.partition(" ")
        self.ask, self.group = ask, group
        self.entries: dict[str, SomeEntry] = {}
        _REGISTRIES.append(self)

    def add(self, entry: SomeEntry) -> None:
        """Put an entry under its name. BenchError for a name that is taken or misspelt, and for missing words."""
        name = entry.name
        if not NAME.fullmatch(name):
            raise BenchError(
                f"'{name}' cannot name {self.article} {self.kind}; use lower-case words joined by -, as in z-curve"
            )
        if not (isinstance(entry.paper, str) and isinstance(entry.idea, str)):
            raise BenchError(f"the {self.kind} '{name}' must say its paper and its idea in words, as in paper='none'")
        if name in self.entries:
            raise BenchError(
                f"two {_plural(self.kind)} want the name '{name}', one of {self.entries[name].origin} and one of "
                f"{entry.origin}; register the second under another name"
            )
        self.entries[name] = entry

    def names(self) -> tuple[str, ...]:
        """Every registered name, those of plugins last."""
        load_plugins(self.group)
        return tuple(self.entries)

    def get(self, name: str) -> SomeEntry:
        """The entry of that name; BenchError with the nearest name if there is none."""
        if name not in self.entries:
            load_plugins(self.group)
        if name not in self.entries:
            if name in _BROKEN:
                raise BenchError(f"the {self.kind} '{name}' is installed but did not load: {_BROKEN[name]}")
            raise unknown(self.kind, name, self.entries, self.ask)
        return self.entries[name]

    def read(self, text: str, ask: str = "") -> tuple[SomeEntry, dict[str, Any]]:
        """The entry that a call such as 'radial:center=3x4:width=2' names, and the value of each of its options."""
        name, given = split_call(text)
        entry = self.get(name)
        return entry, bind_options(name, entry.options, given, ask or self.ask)

    def parse(self, text: str) -> Bound[SomeEntry]:
        """The entry that a call names, with its options set."""
        return Bound(*self.read(text))


def _plural(kind: str) -> str:
    """
    >>> _plural("order"), _plural("family of published weights")
    ('orders', 'families of published weights')
    """
    head, of, rest = kind.partition(" of ")
    return (f"{head[:-1]}ies" if head.endswith("y") else f"{head}s") + of + rest


_REGISTRIES: list[Registry[Any]] = []


def registries() -> tuple[Registry[Any], ...]:
    """All registries that were made so far; tests restore them."""
    return tuple(_REGISTRIES)


_BROKEN: dict[str, str] = {}  # entry points that failed to load: name -> why
_loaded: set[str] = set()  # groups of entry points


def load_plugins(group: str) -> None:
    """Load what other installed distributions register in a group, once. What fails to load is kept with its reason."""
    if group in _loaded:
        return
    _loaded.add(group)
    for point in importlib.metadata.entry_points(group=group):
        try:
            with contextlib.redirect_stdout(sys.stderr):
                point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as problem:  # a plugin may do anything; the suite still works
            _BROKEN[point.name] = f"{point.value}: {said(problem)}"


def broken_plugins(group: str) -> dict[str, str]:
    """Installed plugins of a group, or of one loaded before, that failed to load: name -> why."""
    load_plugins(group)
    return dict(_BROKEN)


def include_file(path: str | Path) -> tuple[str, ...]:
    """Run a Python file that registers orders, decoders and the like, and return the names that it registered.

    The file is code, and all of it is run.
    """
    file = Path(path)
    if not file.is_file():
        raise BenchError(f"there is no file '{path}' to include; give a Python file that registers something")
    before = {(registry.kind, name) for registry in _REGISTRIES for name in registry.entries}
    spec = importlib.util.spec_from_file_location(f"orderbench_included_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise BenchError(f"'{path}' is not a Python file; give one that ends in .py and registers something")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except BenchError as problem:
        raise BenchError(f"'{path}' could not be included: {problem}") from problem
    except KeyboardInterrupt:
        raise
    except BaseException as problem:
        raise BenchError(
            f"'{path}' could not be included: it raised {said(problem)}; --debug shows its traceback"
        ) from problem
    after = [(registry.kind, name) for registry in _REGISTRIES for name in registry.entries]
    names = tuple(name for kind, name in after if (kind, name) not in before)
    if not names:
        raise BenchError(
            f"'{path}' registers no order; decorate a function with @register_order('my-name', ...), or with "
            f"@register_decoder and the like"
        )
    return names
