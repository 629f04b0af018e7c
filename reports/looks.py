"""Looks: the colour and the marker of an order, from its name alone, so that all reports show it alike.

Knows names of orders, decoders and models. Refuses to know matplotlib, and an order's place in a run.

* The name of an order gives its colour and its marker. The orders of this package have fixed ones; any other name, such
  as a plugin's, has those that its SHA-256 picks among the pairs that are left.
* Options of an order give another marker in the same colour: `radial:width=2` is not `radial`, and akin to it.
* Hollow marks are of decoders that rewrite codes, filled marks of all others.
* The dash of a line says the model: solid is the run's own.

Where two orders of one report would look the same, the one without options keeps its look, and the other takes the next
marker of its colour; of two that are alike in this, the first by name keeps its own. Two lines that would still look
the same, as those of two corrections of one order do, get different dashes.

Seven of the nine colours are those of Okabe and Ito (2008) without their yellow, two are of Tol's muted set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orderbench.reports.results import Results, Row

COLORS = ("#22272e", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#8b8b1f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
Dash = str | tuple[float, tuple[float, ...]]
DASHES: tuple[Dash, ...] = ("-", (0, (4, 1.6)), (0, (1, 1.3)), (0, (6, 1.4, 1, 1.4)))

_BUILT_IN = {  # by name: places in COLORS and MARKERS. What is often compared differs in both
    "raster": (0, "o"), "radial": (1, "s"), "random": (2, "^"), "halton": (3, "D"), "designed": (4, "v"),
    "spiral": (5, "P"), "hilbert": (6, "X"), "locality": (7, "p"), "dither": (8, "^"), "confidence": (6, "o"),
    "regions": (5, "s"), "scales": (7, "D"), "diagonal": (4, "X"), "checkerboard": (8, "s"), "snake": (1, "v"),
    "column": (2, "s"), "z-curve": (3, "o"), "spiral-in": (6, "P"), "raster-reverse": (0, "v"),
    "wavefront": (5, "v"), "quadtree": (8, "D"), "skeleton": (6, "D"),
}  # fmt: skip
_LEFT = [
    (color, marker)
    for marker in MARKERS
    for color in range(1, len(COLORS))  # black is the baseline's, on most pages
    if (color, marker) not in _BUILT_IN.values()
]


@dataclass(frozen=True)
class Look:
    """How an order looks in a report, or a line of a figure.

    number: the order's place in the report, for ids; it changes nothing that is seen. order: as it is spelled. hollow,
    dash: of a line, by its decoder and its model.
    """

    number: int
    order: str
    color: str
    marker: str
    hollow: bool = False
    dash: Dash = "-"

    @property
    def gid(self) -> str:
        """The id of everything in a figure that belongs to the order."""
        return f"order:{self.order}"


def own_look(order: str) -> tuple[str, str]:
    """The colour and the marker of an order, as it is spelled, by itself.

    >>> own_look("raster"), own_look("radial")
    (('#22272e', 'o'), ('#d55e00', 's'))
    >>> own_look("radial:width=2")[0] == own_look("radial")[0]
    True
    """
    name, colon, _ = order.partition(":")
    color, marker = _BUILT_IN.get(name) or _LEFT[_number(name) % len(_LEFT)]
    if colon:
        marker = [one for one in MARKERS if one != marker][_number(order) % (len(MARKERS) - 1)]
    return COLORS[color], marker


def looks_of(all_results: Sequence[Results]) -> dict[str, Look]:
    """A look for every order of some results, the baseline's order first."""
    orders = dict.fromkeys(row.about["order"] for results in all_results for row in results.arms)
    first = {row.about["order"] for results in all_results for row in results.arms if row.arm == results.baseline}
    taken = apart(list(orders))
    ranked = sorted(orders, key=lambda order: order not in first)
    return {order: Look(number, order, *taken[order]) for number, order in enumerate(ranked)}


def apart(orders: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colours and markers of orders that are seen together: their own ones, but for those that would be mistaken."""
    found: dict[str, tuple[str, str]] = {}
    for order in sorted(orders, key=lambda order: (":" in order, order not in _BUILT_IN, order)):
        color, marker = own_look(order)
        hues, marks = _from(COLORS, color), _from(MARKERS, marker)
        pairs = [(hue, mark) for hue in hues for mark in marks]
        found[order] = next((pair for pair in pairs if pair not in found.values()), pairs[0])
    return found


def dashes_of(results: Results) -> dict[str, Dash]:
    """By line of a figure, how it is drawn: solid for the run's own model, broken for every other."""
    lines = {row.line: row for row in results.arms}
    seen: set[tuple[str, bool, int]] = set()
    found: dict[str, Dash] = {}
    for line, row in sorted(lines.items(), key=lambda one: (not one[1].own, len(one[0]), one[0])):
        first = 0 if row.own else 1 + _number(row.model) % (len(DASHES) - 1)
        places = [(first + shift) % len(DASHES) for shift in range(len(DASHES))]
        alike = row.about["order"], row.rewrites
        place = next((place for place in places if (*alike, place) not in seen), first)
        seen.add((*alike, place))
        found[line] = DASHES[place]
    return found


def line_look(looks: Mapping[str, Look], results: Results, row: Row) -> Look:
    """The look of a row's line: its order's, hollow where its decoder rewrites, dashed by its model."""
    return replace(looks[row.about["order"]], hollow=row.rewrites, dash=dashes_of(results)[row.line])


def _from(values: Sequence[str], first: str) -> list[str]:
    """All values, around from one of them."""
    at = list(values).index(first)
    return [*values[at:], *values[:at]]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
