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
from typer.core import TyperCommand

if TYPE_CHECKING:
    from rich.console import Console


def whole(text: str | int) -> int:
    """A whole number from what was typed, or from a default, which typer passes through here too."""
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
    """The same for an option that may be left out."""
    return None if text is None else whole(text)


def optional_number(text: str | float | None) -> float | None:
    """The same for an option that may be left out."""
    return None if text is None else number(text)


OUTPUT = "Output and help"  # the last group of a command's help, where it has groups


class Grouped(TyperCommand):
    """A command whose help is plain text with its options in groups: those that each option names as its help panel,
    in the order in which they are first named. Options that name none come last."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then each group under its name."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            line = param.get_help_record(ctx)
            if line is not None:
                argument = param.param_type_name == "argument"
                panel = "Arguments" if argument else getattr(param, "rich_help_panel", None)
                groups.setdefault(panel or OUTPUT, []).append(line)
        last = groups.pop(OUTPUT, [])
        groups["Options" if groups.keys() <= {"Arguments"} else OUTPUT] = last  # never empty: --help
        for name, lines in groups.items():
            with formatter.section(name):
                formatter.write_dl(lines)


JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback behind an error.")]


def drop_stdout() -> None:
    """Write nothing more to stdout, not even what is buffered."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write(text: str) -> None:
    """Results go to stdout; a reader that leaves, as in `bench orders | head`, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        drop_stdout()
        raise SystemExit(0) from None


def say(sentence: str, code: int) -> int:
    """Print one sentence on stderr, and return the exit code."""
    print(f"bench: {sentence}", file=sys.stderr)
    return code


def piped_console() -> Console:
    """A console on stdout that ends quietly if its reader leaves."""
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
    """Run the Python files that --include names, which register orders, decoders and the like."""
    from orderbench.orders.registry import include_file

    for file in files or ():
        include_file(file)
