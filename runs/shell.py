"""What every command shares: options, the two streams, progress bars.

Knows a terminal and its pipes: results go to stdout, everything else to stderr, and no output can fail. Refuses to know
commands.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from typer.core import TyperCommand

from orderbench.orders.errors import BenchError
from orderbench.orders.files import check_target

if TYPE_CHECKING:
    from rich.console import Console


def whole(text: str | int) -> int:
    """A whole number from what was typed, or from a default, which typer passes through here too."""
    text = str(text)
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise typer.BadParameter(f"'{text}' is not a whole number")
    return int(text)


def number(text: str | float) -> float:
    """A number as it was typed, not infinite, in plain digits."""
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)) and re.fullmatch(r"[-+.0-9eE]+", str(text)):
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

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an empty name of a file, which the system would take for this folder."""
        kinds = {flag: param.metavar or "" for param in self.get_params(ctx) for flag in param.opts}
        for before, word in zip(["", *args], args, strict=False):
            flag, equals, value = word.partition("=")
            named = before if word == "" else flag if equals and not value else ""
            if re.search("FILE|FOLDER|PATH|KIND", kinds.get(named, "")):
                raise BenchError(f"{named} is empty; give {named} {kinds[named]}, or leave it out")
        return super().parse_args(ctx, args)

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


CLOSED = "stdout is closed"


class _Outlet(io.RawIOBase):
    """A file descriptor that takes whatever is written, whether or not it arrives. lost: why something did not, empty
    where all did. A reader that left is no loss."""

    def __init__(self, handle: int, lost: str = "") -> None:
        self.handle, self.lost, self.open = handle, lost, not lost

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.handle

    def isatty(self) -> bool:
        return os.isatty(self.handle)

    def write(self, content: Any) -> int:
        if self.open:
            try:
                return os.write(self.handle, content)
            except OSError as problem:
                self.open = False
                if problem.errno != errno.EPIPE:
                    self.lost = "the disk is full" if problem.errno == errno.ENOSPC else problem.strerror or "it failed"
        return len(content)


_SIGNS = {"\u00b1": "+-", "\u00d7": "x", "\u2192": "->", "\u2190": "<-", "\u2191": "^", "\u2193": "v", "\u2265": ">=",
          "\u2264": "<=", "\u2013": "-", "\u2014": "-", "\u2026": "...", "\u00b7": "."}  # fmt: skip


def _replaced(problem: UnicodeError) -> tuple[str, int]:
    """What stands for signs that an encoding lacks, and for bytes of a file's name that are no text."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    signs = problem.object[problem.start : problem.end]
    shown = [
        _SIGNS.get(sign, f"\\x{ord(sign) - 0xDC00:02x}" if "\udc80" <= sign <= "\udcff" else "?") for sign in signs
    ]
    return "".join(shown), problem.end


codecs.register_error("orderbench.replaced", _replaced)


@contextlib.contextmanager
def patient_streams() -> Iterator[Callable[[], str]]:
    """Within this, no output can fail: not for signs that the encoding lacks, a full disk, a closed stream or a reader
    that left. What is called in the end says why some of stdout is lost; empty if none is.

    A descriptor that the shell closed is filled, so that no file that is opened later is taken for a stream.
    """
    closed = set()
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:
            closed.add(handle)
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    before, outlets = (sys.stdout, sys.stderr), []
    for name, handle in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if handle in closed or stream is getattr(sys, f"__{name}__"):  # any other one belongs to whoever put it there
            outlet = _Outlet(handle, CLOSED if handle in closed else "")
            encoding = getattr(stream, "encoding", None) or "utf-8"
            buffered = io.BufferedWriter(outlet)
            patient = io.TextIOWrapper(buffered, encoding, "orderbench.replaced", line_buffering=True)
            setattr(sys, name, patient)
            outlets.append(outlet)
    try:
        yield lambda: next((outlet.lost for outlet in outlets if outlet.handle == 1), "")
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


_json_stdout: TextIO | None = None  # where the one document goes, while --json is in force


def _keep_for_json(context: typer.Context, asked: bool) -> bool:
    """With --json, what anybody else prints goes to stderr, such as a user's own model."""
    global _json_stdout

    def back() -> None:
        global _json_stdout
        _json_stdout = None

    if asked:
        _json_stdout = sys.stdout
        context.with_resource(contextlib.redirect_stdout(sys.stderr))
        context.call_on_close(back)
    return asked


JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document.", callback=_keep_for_json)]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback behind an error.")]
DeviceOption = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute.")]


def write(text: str) -> None:
    """Results go to stdout, everything else to stderr."""
    print(text, flush=True, file=_json_stdout or sys.stdout)


def say(sentence: str, code: int) -> int:
    """Print one sentence on stderr, and return the exit code."""
    print(f"bench: {sentence}", file=sys.stderr, flush=True)
    return code


def piped_console() -> Console:
    """A console on stdout."""
    from rich.console import Console

    return Console()


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


def check_out(file: Path, flag: str) -> None:
    """BenchError for a place at which no file may be written, before anything is computed. flag: the one that names
    it."""
    try:
        check_target(file)
    except OSError as problem:
        raise BenchError(
            f"'{file}' could not be written: {problem.strerror}; name another place, as in {flag} {file.stem or 'out'}"
            f"-2{file.suffix}"
        ) from problem


def include_files(files: Iterable[str] | None) -> None:
    """Run the Python files that --include names, which register orders, decoders and the like."""
    from orderbench.orders.registry import include_file

    for file in files or ():
        include_file(file)
