"""Spelling: how orders, paces, decoders and models are written, on the command line, in records and in legends.

    ORDER[@PACE][+DECODER][~MODEL]      radial:center=3x4:width=2@cosine:13+nested:margin=1

Knows the grammar and the typed options in a function's signature. Refuses to know what any name means. No character
of the grammar needs quoting in a shell.
"""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from orderbench.orders.errors import BenchError, unknown

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
WORD = re.compile(r"[A-Za-z0-9._-]+")
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class ArmParts(NamedTuple):
    """The parts of an arm as text; a part that is not given is None."""

    order: str
    pace: str | None = None
    decoder: str | None = None
    model: str | None = None

    def __str__(self) -> str:
        marks = (("@", self.pace), ("+", self.decoder), ("~", self.model))
        return self.order + "".join(mark + part for mark, part in marks if part is not None)


def split_arm(text: str) -> ArmParts:
    """The parts of an arm.

    >>> tuple(split_arm("halton@cosine:13+nested:margin=1~par"))
    ('halton', 'cosine:13', 'nested:margin=1', 'par')
    """
    rest, tilde, model = text.strip().partition("~")
    head, plus, decoder = rest.partition("+")
    order, at, pace = head.partition("@")
    if not order or (at and not pace) or (plus and not decoder) or (tilde and not MODEL_NAME.fullmatch(model)):
        raise BenchError(
            f"'{text}' is not an arm; it is spelled ORDER[@PACE][+DECODER][~MODEL], as in radial@native or "
            f"raster@even:13"
        )
    return ArmParts(order, pace if at else None, decoder if plus else None, model if tilde else None)


def split_call(text: str) -> tuple[str, dict[str, str]]:
    """A name and its options, as text.

    >>> split_call("radial:center=3x4:width=2")
    ('radial', {'center': '3x4', 'width': '2'})
    """
    name, *pairs = text.split(":")
    if not NAME.fullmatch(name):
        raise BenchError(f"'{name}' in '{text}' is not a name; names are lower-case words, as in raster or z-curve")
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise BenchError(
                f"'{pair}' in '{text}' is not an option; options are written KEY=VALUE, as in radial:width=2"
            )
        if key in options:
            raise BenchError(f"'{text}' gives {key} twice; give each option once")
        options[key] = value
    return name, options


@dataclass(frozen=True)
class Option:
    """One typed, defaulted keyword of a registered function."""

    name: str
    kind: Any  # bool, int, float, str, a Literal, or a class with a `parse` classmethod and a canonical str()
    optional: bool  # X | None: None only as the default, it has no spelling
    default: Any
    help: str

    @property
    def expects(self) -> str:
        """The values that it takes, in words."""
        if typing.get_origin(self.kind) is Literal:
            return ", ".join(str(choice) for choice in typing.get_args(self.kind))
        words = {bool: "true, false", int: "a whole number", float: "a number", str: "a word"}
        return self.help or words.get(self.kind, self.kind.__name__)

    def parse(self, text: str, owner: str) -> Any:
        """The value that `text` spells; BenchError names the option, what was given and what would do."""
        value = self._read(text)
        if value is None:
            raise BenchError(
                f"{owner}:{self.name}={text} is not served; {self.name} takes {self.expects}"
                + (f", as in {owner}:{self.name}={spell(self.default)}" if self.default is not None else "")
            )
        return value

    def _read(self, text: str) -> Any:
        if typing.get_origin(self.kind) is Literal:
            return next((choice for choice in typing.get_args(self.kind) if str(choice) == text), None)
        if self.kind is bool:
            return {"true": True, "false": False}.get(text)
        if self.kind is int:
            return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
        if self.kind is float:
            number = float(text) if re.fullmatch(r"-?[0-9]*\.?[0-9]+(e-?[0-9]+)?|-?[0-9]+\.", text) else math.nan
            return number if math.isfinite(number) else None
        if self.kind is str:
            return text if WORD.fullmatch(text) else None
        try:
            return self.kind.parse(text)
        except (ValueError, TypeError, ArithmeticError, LookupError):  # how a class of an option may refuse
            return None


def spell(value: Any) -> str:
    """The canonical text of an option's value.

    >>> [spell(value) for value in (True, 2.0, 0.25, 1e16, "cell")]
    ['true', '2', '0.25', '1e16', 'cell']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0").replace("e+", "e")
    return str(value)


def spell_call(name: str, options: tuple[Option, ...], values: Mapping[str, Any]) -> str:
    """The canonical spelling: only options that differ from their default, in the order of the signature."""
    said = [f":{o.name}={spell(values[o.name])}" for o in options if values[o.name] != o.default]
    return name + "".join(said)


def read_options(function: Callable[..., Any], reserved: tuple[str, ...], first: str = "grid") -> tuple[Option, ...]:
    """The options in a function's signature: every keyword-only parameter that is not `reserved`.

    first: what the one positional parameter is called, for error sentences. A parameter is annotated bool, int, float,
    str, Literal[...], one of these | None, or a class with `parse`; `Annotated[type, "words"]` adds the values that it
    takes, in words. Raises BenchError for a signature that cannot be read.
    """
    where = f"the function '{getattr(function, '__name__', function)}'"
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = list(inspect.signature(function).parameters.values())
    except (NameError, TypeError, ValueError) as problem:
        raise BenchError(f"{where} has a signature that cannot be read: {problem}") from problem
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise BenchError(f"{where} must take the {first} first, as in `def name({first}, *, width: int = 1)`")
    options = []
    for parameter in parameters[1:]:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise BenchError(f"{where} must take '{parameter.name}' by keyword, after a `*` in its signature")
        if parameter.name in reserved:
            continue
        options.append(_read_option(parameter, hints, where))
    return tuple(options)


def _read_option(parameter: inspect.Parameter, hints: Mapping[str, Any], where: str) -> Option:
    if parameter.name not in hints or parameter.default is inspect.Parameter.empty:
        raise BenchError(
            f"{where} must give '{parameter.name}' a type and a default, as in `{parameter.name}: int = 1`"
        )
    kind, words = hints[parameter.name], ""
    if typing.get_origin(kind) is typing.Annotated:
        kind, words = typing.get_args(kind)[:2]
    optional = False
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(kind) if member is not type(None)]
        optional = len(members) < len(typing.get_args(kind))
        kind = members[0] if len(members) == 1 else kind
    known = kind in (bool, int, float, str) or typing.get_origin(kind) is Literal or hasattr(kind, "parse")
    if not known:
        raise BenchError(
            f"{where} gives '{parameter.name}' the type {kind!r}; bool, int, float, str, Literal or a class with "
            f"`parse` would do"
        )
    default = parameter.default
    if kind is float and type(default) is int:
        default = float(default)
    option = Option(parameter.name, kind, optional, default, words)
    if not (default is None and optional) and option._read(spell(default)) != default:
        raise BenchError(f"{where} gives '{parameter.name}' the default {default!r}, which is none of its values")
    return option


def bind_options(owner: str, options: tuple[Option, ...], given: Mapping[str, str], ask: str) -> dict[str, Any]:
    """Every option's value: the parsed text where one was given, else the default."""
    for key in given:
        if key not in {option.name for option in options}:
            if not options:
                raise BenchError(f"{owner} takes no option, but {key}={given[key]} was given; {ask}")
            raise unknown(f"option of {owner}", key, [option.name for option in options], ask)
    return {o.name: o.parse(given[o.name], owner) if o.name in given else o.default for o in options}
