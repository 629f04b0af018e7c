"""Rounds: how often the arms of a run are timed, a number or until their ratios are known well enough.

Knows when to stop, and how both are spelled. Refuses to know a clock: seconds and intervals are told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orderbench.orders import BenchError

FEWEST = 6  # rounds before a run may call itself precise: the interval of fewer holds less than its level
LEAST = 3  # rounds that are made however long they take: fewer have no interval
SUPPOSED = 12  # rounds that an estimate takes `auto` for; docs/log.md says what was measured
_ASK = "a number would do, or auto, auto:3% and auto:3%:60s, which measure until each ratio is within 3 %, 60 s at most"


@dataclass(frozen=True)
class Rounds:
    """What ends the rounds of one batch size.

    count: so many rounds; None: as many as it takes until every interval is within a share of its value, or until the
    rounds have taken `most_s` seconds. within: that share, 0.05 for 5 %.
    """

    count: int | None = None
    within: float = 0.05
    most_s: float = 180.0

    def __str__(self) -> str:
        if self.count is not None:
            return str(self.count)
        usual = Rounds()
        share = f":{100 * self.within:g}%" * ((self.within, self.most_s) != (usual.within, usual.most_s))
        return f"auto{share}" + f":{self.most_s:g}s" * (self.most_s != usual.most_s)

    def enough(self, made: int, widest: float | None, spent_s: float) -> bool:
        """Whether no further round is made. widest: of all intervals, as `width` says; None where one has none yet.
        spent_s: seconds that the rounds took; another one would take as long as their mean."""
        if self.count is not None:
            return made >= self.count
        if self.reached(made, widest):
            return True
        return made >= LEAST and spent_s * (made + 1) / made > self.most_s

    def reached(self, made: int, widest: float | None) -> bool:
        """Whether the precision that was asked for is there."""
        return made >= FEWEST and widest is not None and widest <= self.within

    def promise(self) -> str:
        """What ends the rounds, in a sentence; with what an estimate supposes."""
        if self.count is not None:
            return f"speed is measured in {self} rounds at each batch"
        return (
            f"speed is measured until every ratio is within {100 * self.within:g} %, in {FEWEST} rounds or more and "
            f"{self.most_s:g} s at most at each batch; the estimate supposes up to {SUPPOSED} rounds"
        )

    def supposed(self, round_s: float) -> int:
        """How many rounds an estimate counts with, where one takes `round_s` seconds."""
        return (
            self.count if self.count is not None else min(SUPPOSED, max(LEAST, int(self.most_s / max(round_s, 1e-9))))
        )

    def expected(self, made: int, widest: float | None, spent_s: float) -> int:
        """How many rounds it will be in all, as far as those that were made tell: a width falls with their root."""
        if self.count is not None:
            return self.count
        most = max(LEAST, made, math.floor(self.most_s * made / spent_s) if spent_s > 0 else made)
        wanted = SUPPOSED if widest is None else math.ceil(made * (widest / self.within) ** 2)
        return min(most, max(FEWEST, made, wanted))


def parse_rounds(text: str | int) -> Rounds:
    """A number of rounds; 'auto'; or 'auto' with a share in percent, with seconds, or with both.

    >>> [str(parse_rounds(text)) for text in (9, "auto", "auto:3.0%", "auto:60s", "auto:3%:60s")]
    ['9', 'auto', 'auto:3%', 'auto:5%:60s', 'auto:3%:60s']
    """
    given = str(text)
    if re.fullmatch(r"[0-9]{1,9}", given) and 1 <= int(given) <= 1_000_000:
        return Rounds(int(given))
    found = re.fullmatch(r"auto(?::([0-9]{1,3}(?:\.[0-9]{1,6})?)%)?(?::([0-9]{1,6}(?:\.[0-9]{1,6})?)s)?", given)
    if found is None:
        raise BenchError(f"--rounds '{given}' is not served; {_ASK}")
    usual = Rounds()
    within = usual.within if found[1] is None else float(found[1]) / 100
    most_s = usual.most_s if found[2] is None else float(found[2])
    if not 0.001 <= within <= 1 or most_s < 1:
        raise BenchError(
            f"--rounds '{given}' cannot be kept; a share from 0.1% to 100% and a second or more would do, as in "
            f"auto:3%:60s"
        )
    return Rounds(None, within, most_s)


def said(made: int, precision: Mapping[str, Any], interrupted: int = 0) -> str:
    """How well the speeds of a batch are known, in words, from `precision` of its record.

    >>> said(14, {"within": 0.05, "widest": 0.0412, "reached": True, "spent_s": 41.7})
    '14 rounds, every ratio within 4.1 %'
    >>> said(40, {"within": 0.05, "widest": 0.08, "reached": False, "spent_s": 178.0}, interrupted=1)
    '40 rounds, ended by time after 178 s: every ratio within 8 %, 5 % was asked, 1 interrupted'
    """
    rounds = f"{made} round{'s' * (made != 1)}"
    widest, within = precision["widest"], precision["within"]
    cut = f", {interrupted} interrupted" if interrupted else ""
    if widest is None:
        return rounds + cut
    known = f"every ratio within {_percent(widest)}"
    if precision["reached"] is False:
        spent = f"ended by time after {precision['spent_s']:.0f} s"
        return f"{rounds}, {spent}: {known}, {_percent(within)} was asked{cut}"
    return f"{rounds}, {known}{cut}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def width(value: float, low: float | None, high: float | None) -> float | None:
    """How far an interval's farther bound is from its value, as a share: 0.05 where it is within 5 % on both sides.

    >>> width(2.0, 1.9, 2.2), width(2.0, None, None)
    (0.1, None)
    """
    return None if low is None or high is None else round(max(high / value, value / low) - 1, 12)


def widest(widths: Iterable[float | None]) -> float | None:
    """The widest; None where one is not known, or there is none."""
    known = list(widths)
    return None if not known or None in known else max(one for one in known if one is not None)
