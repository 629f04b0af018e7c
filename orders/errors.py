"""The one exception for what a person can mend, and the wording its sentences share.

Knows how a refusal is phrased. Refuses to know who shows it: `orderbench.runs.cli` turns a BenchError into one line
and an exit code. Everything else keeps its traceback, because it is our own bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """What was given, what would do, what to type next: one sentence, for whoever gave it.

    exit_code: what the command ends with: 2, wrong usage or input. The other codes are given by the commands.
    """

    exit_code = 2

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(sentence.split()))  # what is quoted in it may hold line breaks


def unknown(kind: str, given: str, known: Iterable[str], ask: str) -> BenchError:
    """The sentence for a name that is not there: the nearest one, or where to look.

    >>> print(unknown("order", "radail", ["radial", "raster"], "`bench orders` lists them"))
    no order named 'radail'; did you mean 'radial'? (`bench orders` lists them)
    """
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    hint = f"did you mean '{close[0]}'? ({ask})" if close else f"known: {', '.join(names)} ({ask})"
    return BenchError(f"no {kind} named '{given}'; {hint}")


class OrderFault(BenchError):
    """An order's own function raised, or returned something that is no ranking. Its author can mend it."""
