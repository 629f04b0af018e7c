"""The settings of a run as options of a command: one option for every field of `RunSpec`, made from its type and flag.

Knows how a value of each type is typed. Refuses to know what a setting means: names, ranges and help are in `spec.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer

from orderbench.orders.errors import BenchError
from orderbench.runs.completion import complete_arms, complete_paces, complete_words
from orderbench.runs.shell import optional_number, optional_whole, whole
from orderbench.runs.spec import MEASUREMENTS, Axes, RoundsText, Scale, read_tune, setting_flags, setting_kinds


def _words(text: str | None, parse: Callable[[str], Any] = str) -> list[Any] | None:
    """The entries of a comma list. None stays None, so that an option that was not given overrides nothing."""
    return None if text is None else [parse(word.strip()) for word in text.split(",") if word.strip()]


@dataclass(frozen=True)
class _Typed:
    """How a setting of one type is typed. kind: what typer makes of it, by `parser`; read: what a spec takes."""

    kind: Any
    parser: Callable[[Any], Any] | None = None
    read: Callable[[Any], Any] = lambda given: given


_TYPED: dict[Any, _Typed] = {  # by the type of the field
    str: _Typed(str | None),
    int: _Typed(int | None, optional_whole),
    float: _Typed(float | None, optional_number),
    bool: _Typed(bool, read=lambda given: given or None),
    Scale: _Typed(str | None),
    RoundsText: _Typed(str | None),
    tuple[str, ...]: _Typed(str | None, read=_words),
    tuple[int, ...]: _Typed(str | None, read=partial(_words, parse=whole)),
    Axes: _Typed(list[str] | None, read=read_tune),
}
_REPEATED = _Typed(list[str] | None)


def _typed(name: str) -> _Typed:
    return _REPEATED if setting_flags()[name].repeated else _TYPED[setting_kinds()[name]]


_COMPLETED: dict[str, Callable[[str], list[str]]] = {
    "orders": complete_arms,
    "pace": complete_paces,
    "only": complete_words(MEASUREMENTS),
    "dtype": complete_words(("fp32", "bf16")),
    "device": complete_words(("auto", "cpu", "cuda", "mps", "xpu")),
}


def setting_option(name: str, group: str | None) -> Any:
    """typer's option of one setting: --NAME, with the metavar and the help of its field, in a group of the help."""
    flag, typed = setting_flags()[name], _typed(name)
    return typer.Option(
        f"--{name.replace('_', '-')}",
        parser=typed.parser, metavar=flag.metavar, help=flag.says, rich_help_panel=group,
        autocompletion=_COMPLETED.get(name),
    )  # fmt: skip


IncludeOption = Annotated[list[str] | None, setting_option("include", None)]


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for every setting, before its own options. It gets their values by name; None or False
    for an option that was not given."""
    own = inspect.signature(command, eval_str=True)
    settings = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if _typed(name).kind is bool else None,
            annotation=Annotated[_typed(name).kind, setting_option(name, setting_flags()[name].group)],
        )
        for name in setting_kinds()
    ]
    named = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = own.replace(parameters=[*settings, *named])  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in (*settings, *named)}
    return command


def given_settings(typed: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given, as `RunSpec.from_json` reads them; BenchError or typer's own error for one that is
    misspelt."""
    for name, value in typed.items():
        if any(isinstance(text, str) and not text.strip() for text in (value if isinstance(value, list) else [value])):
            flag = f"--{name.replace('_', '-')}"
            raise BenchError(f"{flag} is empty; give {flag} {setting_flags()[name].metavar}, or leave it out")
    read = {name: _typed(name).read(value) for name, value in typed.items()}
    return {name: value for name, value in read.items() if value is not None}
