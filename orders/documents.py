"""Documents: JSON and TOML that anybody may have written, read whole and held against a type.

Knows files, numbers, nesting, and the fields that a TypedDict declares. Refuses to know what a field means: who reads a
kind of document declares its type, and says in a sentence of its own what would mend one that does not fit.

A field may say more than its type: `Annotated[int, Limit("a whole number of 0 or more", lambda n: n >= 0)]`.
"""

from __future__ import annotations

import json
import tomllib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from orderbench.orders.errors import printable
from orderbench.orders.files import open_plain

_DEEPEST = 64  # levels; records nest nine deep
_LARGEST = 1 << 28  # bytes of a document; a run of thirty arms has some 10 MB
_DIGITS = 18  # of a whole number


@dataclass(frozen=True)
class Limit:
    """What a value must be beyond its type. words: what would do, as in 'a number from 0 to 1'."""

    words: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Limit("a whole number of 0 or more", lambda n: n >= 0)]
Least1 = Annotated[int, Limit("a whole number of 1 or more", lambda n: n >= 1)]
Number = Annotated[float, Limit("a number of up to 100 digits", lambda x: abs(x) < 1e100)]  # its square is finite
Amount = Annotated[float, Limit("a number of 0 or more", lambda x: 0 <= x < 1e100)]
Positive = Annotated[float, Limit("a number above 0", lambda x: 1e-100 < x < 1e100)]
Share = Annotated[float, Limit("a share, from 0 to 1", lambda x: 0 <= x <= 1)]
Line = Annotated[str, Limit("one line of text", lambda text: len(text) < 1000 and text.isprintable())]


def read_document(file: Path, *, toml: bool = False) -> Any:
    """The value in a JSON or TOML file; texts in it are made `printable`.

    Raises OSError for a file that cannot be read, and ValueError, in words, for what is no document: among them numbers
    that are too large or, in JSON, not finite, a key that is given twice, and nesting deeper than 64 levels.
    """
    with open_plain(file) as opened:
        content = opened.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST >> 20} MB")
    return parse_document(content, toml=toml)


def parse_document(content: bytes | str, *, toml: bool = False) -> Any:
    """The value in a JSON or TOML text; ValueError, as `read_document`."""
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    try:
        value = tomllib.loads(text) if toml else _JSON.decode(text)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as problem:
        if "integer string conversion" in str(problem):  # Python's own limit, with advice for programmers
            raise ValueError("it holds a number of too many digits") from None
        raise
    return _clean(value, 0, toml)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it gives '{next(name for name in names if names.count(name) > 1)}' twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON; null stands for what is not finite")


_JSON = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)


def _clean(value: Any, depth: int, endless: bool) -> Any:
    """The value with its texts printable; ValueError for numbers that cannot be counted with, and for deep nesting.
    endless: whether numbers may be infinite or NaN, as TOML spells them."""
    if depth > _DEEPEST:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
    if isinstance(value, dict):
        return {printable(name): _clean(entry, depth + 1, endless) for name, entry in value.items()}
    if isinstance(value, list):
        return [_clean(entry, depth + 1, endless) for entry in value]
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**_DIGITS:
        raise ValueError(f"it holds a whole number of more than {_DIGITS} digits")
    if isinstance(value, float) and not endless and not abs(value) < float("inf"):
        raise ValueError("it holds a number that is not finite")
    return value


# Types


@cache
def required(shape: type) -> tuple[str, ...]:
    """The fields that a document of this type always has, in the order in which they are declared.

    >>> from typing import TypedDict
    >>> required(TypedDict("Point", {"x": int, "label": NotRequired[str]}))
    ('x',)
    """
    optional: frozenset[str] = getattr(shape, "__optional_keys__", frozenset())  # knows nothing of what a text marks
    marks = {name: get_origin(hint) for name, hint in _hints(shape).items()}
    return tuple(
        name for name, mark in marks.items() if mark is Required or (name not in optional and mark is not NotRequired)
    )


@cache
def _hints(shape: type) -> dict[str, Any]:
    return get_type_hints(shape, include_extras=True)


def misfit(value: Any, shape: Any, where: str = "") -> str:
    """What keeps a value from being of a type, as the middle of a sentence; empty if nothing does.

    where: the path of keys that leads to the value. Fields that the type does not declare are let be.

    >>> from typing import TypedDict
    >>> Point = TypedDict("Point", {"x": int})
    >>> misfit({"x": 1}, Point), misfit({"x": "one"}, Point), misfit({}, Point, "points[2]")
    ('', "gives x as 'one', and a whole number would do", 'lacks x in points[2]')
    """
    if is_typeddict(shape):
        return _table_misfit(value, shape, where)
    origin, inner = get_origin(shape), get_args(shape)
    if origin in (Annotated, NotRequired, Required):
        base = misfit(value, inner[0], where)
        limits = (limit for limit in inner[1:] if isinstance(limit, Limit) and not base and not limit.holds(value))
        return base or next((_said(value, limit.words, where) for limit in limits), "")
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return ""
        others = [kind for kind in inner if kind is not type(None)]
        found = [misfit(value, kind, where) for kind in others]
        return "" if "" in found else found[0] if len(found) == 1 else _said(value, words_of(shape), where)
    if origin is list and isinstance(value, list | tuple):
        each = (misfit(entry, inner[0], f"{where}[{index}]") for index, entry in enumerate(value))
        return next(filter(None, each), "")
    if origin is dict and isinstance(value, Mapping):
        each = (misfit(entry, inner[1], _path(where, name)) for name, entry in value.items())
        names = (misfit(name, inner[0], f"a name in {where}") for name in value)
        return next(filter(None, (*names, *each)), "")
    return "" if _is_of(value, shape) else _said(value, words_of(shape), where)


def _table_misfit(value: Any, shape: type, where: str) -> str:
    if not isinstance(value, Mapping):
        return _said(value, words_of(shape), where)
    missing = [name for name in required(shape) if name not in value]
    if missing:
        return f"lacks {', '.join(missing)}" + (f" in {where}" if where else "")
    each = (misfit(value[name], hint, _path(where, name)) for name, hint in _hints(shape).items() if name in value)
    return next(filter(None, each), "")


def _is_of(value: Any, shape: Any) -> bool:
    if shape is Any:
        return True
    if get_origin(shape) is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(shape))
    if isinstance(value, bool) or shape is bool:
        return isinstance(value, bool) and shape is bool
    return isinstance(value, (int, float) if shape is float else get_origin(shape) or shape)


def words_of(shape: Any) -> str:
    """A type as people say it.

    >>> words_of(float | None), words_of(list[str]), words_of(Share)
    ('a number or null', 'a list', 'a share, from 0 to 1')
    """
    plain = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    if shape in plain:
        return plain[shape]
    origin, inner = get_origin(shape), get_args(shape)
    if origin is Annotated:
        return next((one.words for one in inner[1:] if isinstance(one, Limit)), words_of(inner[0]))
    if origin in (Union, types.UnionType):
        return " or ".join(words_of(one) for one in inner)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    return "a list" if origin is list else "a table of names and values"


def _path(where: str, name: str) -> str:
    plain = name if name.isidentifier() else repr(name)
    return f"{where}.{plain}" if where else plain


def _said(value: Any, wanted: str, where: str) -> str:
    if isinstance(value, dict | list):
        shown = "a table" if isinstance(value, dict) else "a list"
    else:
        shown = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    shown = shown if len(shown) < 60 else f"{shown[:50]} ..."
    return f"gives {where} as {shown}, and {wanted} would do" if where else f"is {shown}, and {wanted} would do"
