"""What every command shares: options, the two streams, progress bars.

Knows a terminal and its pipes: results go to stdout, everything else to stderr, and a reader that leaves is no error.
Refuses to know commands.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


def whole(text: str | int) -> int:
    """A whole number as it was typed; typer parses defaults too."""
    text = str(text)
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise typer.BadParameter(f"'{text}' is not a whole number")
    return int(text)


def number(text: str | float) -> float:
    """A number as it was typed, not infinite."""
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise typer.BadParameter(f"'{text}' is not a number")


def optional_whole(text: str | int | None) -> int | None:
    """The same of an option that may be left away."""
    return None if text is None else whole(text)


def optional_number(text: str | float | None) -> float | None:
    """The same of an option that may be left away."""
    return None if text is None else number(text)


JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback behind an error.")]


def drop_stdout() -> None:
    """Nothing more can be written there, not even what is buffered."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write(text: str) -> None:
    """Results go to stdout; a reader that leaves, as in `bench orders | head`, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        drop_stdout()
        raise SystemExit(0) from None


def say(sentence: str, code: int) -> int:
    """One sentence on stderr; the exit code is handed on."""
    print(f"bench: {sentence}", file=sys.stderr)
    return code


def piped_console() -> Console:
    """A console on stdout whose reader may leave."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            drop_stdout()
            raise SystemExit(0)

    return Piped()


def progress(label: str) -> Any:
    """A progress bar with ETA on stderr around what is walked; nothing where stderr is no terminal."""

    def walk(items: Sequence[str]) -> Iterable[str]:
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        return track(items, label, console=console, transient=True, disable=not console.is_terminal)

    return walk


def print_json(document: object) -> None:
    """Exactly one JSON document on stdout."""
    write(json.dumps(document))


def include_files(files: Iterable[str] | None) -> None:
    """Load what Python files register, as --include asks."""
    from orderbench.orders.registry import include_file

    for file in files or ():
        include_file(file)
