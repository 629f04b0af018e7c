"""The one exception for what a person can mend, and the wording its sentences share.

Knows how a refusal is phrased. Refuses to know who shows it: `orderbench.runs.cli` turns a BenchError into one line
and an exit code. Everything else keeps its traceback, because it is our own bug.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any


class BenchError(Exception):
    """What was given, what would do, what to type next: one sentence, for whoever gave it.

    exit_code: what the command ends with: 2, wrong usage or input. The other codes are given by the commands.
    """

    exit_code = 2

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(printable(sentence).split()))  # what is quoted in it may hold anything


def printable(text: Any) -> str:
    r"""A stranger's text as it may be shown: without what terminals obey, what XML forbids, and what turns the
    direction of writing. Tabs and line ends stay.

    >>> printable("\x1b[31mred\x1b[0m, \u202eback")
    'red, back'
    """
    plain = _COLOURS.sub("", str(text))
    return _UNSHOWN.sub("", plain)


_COLOURS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)|\x9b[0-?]*[ -/]*[@-~]")
_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff"  # controls, halves of pairs, no characters
    "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"  # directions, lines, marks of byte order
)


def unknown(kind: str, given: str, known: Iterable[str], ask: str) -> BenchError:
    """The sentence for a name that is not there: the nearest one, or where to look.

    >>> print(unknown("order", "radail", ["radial", "raster"], "`bench orders` lists them"))
    no order named 'radail'; did you mean 'radial'? (`bench orders` lists them)
    """
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    hint = f"did you mean '{close[0]}'? ({ask})" if close else f"known: {', '.join(names)} ({ask})"
    return BenchError(f"no {kind} named '{given}'; {hint}")


def listed(words: Sequence[str], last: str = "and") -> str:
    """Words as a part of a sentence. last: what stands before the last of them.

    >>> listed(["a", "b", "c"]), listed(["a", "b"], "or"), listed(["a"])
    ('a, b and c', 'a or b', 'a')
    """
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def said(problem: BaseException) -> str:
    """An exception in one line, also one whose own text cannot be had.

    >>> said(ValueError("two\\nlines")), said(BenchError("a sentence")), said(SystemExit())
    ('ValueError: two lines', 'a sentence', 'SystemExit')
    """
    try:
        text = " ".join(str(problem).split())
    except KeyboardInterrupt:
        raise
    except BaseException as another:  # a stranger's class may do anything
        text = f"(its text raised {type(another).__name__})"
    if isinstance(problem, BenchError):
        return text
    return f"{type(problem).__name__}: {text[:300]}" if text else type(problem).__name__


class OrderFault(BenchError):
    """An order's own function raised, or returned something that is no ranking. Its author can mend it."""
