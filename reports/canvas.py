"""The canvas: what every figure is drawn on, in one style, with labels that are put where they cover nothing.

Knows matplotlib, the looks of orders and what a figure says at its foot. Refuses to know what is drawn.

An order has one colour and one marker on every figure of a page. Hollow markers and dashed lines are of decoders that
rewrite codes, filled and solid ones of all others. Every artist of an order carries the order's number as its id
(`o3`), which the page turns into something that its legend can hide. The colours are those of Okabe and Ito, without
their yellow.
"""

from __future__ import annotations

import functools
import itertools
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orderbench.reports.results import Results, Row
from orderbench.reports.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

ONE_COLUMN, TWO_COLUMNS = 3.4, 7.0  # inches
SMALLEST = 7  # points, of any text
MOST_LABELS = 16
COLORS = ("#22272e", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
QUIET, FAINT, WARM = "#5f6873", "#c3c9d0", "#a34700"


@dataclass(frozen=True)
class Look:
    """How an order looks on all figures of a page; number: its place there."""

    number: int
    color: str
    marker: str


@dataclass(frozen=True)
class Sheet:
    """What figures are drawn on: how wide, in inches, and how orders look; by default as they come in the results."""

    width: float = ONE_COLUMN
    looks: Mapping[str, Look] = field(default_factory=dict)

    def look(self, results: Results, row: Row) -> Look:
        """The look of a row's order."""
        looks = self.looks or looks_of([results])
        return looks[row.about["order"]]


def looks_of(all_results: Sequence[Results]) -> dict[str, Look]:
    """A look for every order of some results; black and round are kept for the order of the baseline."""
    orders = dict.fromkeys(row.about["order"] for results in all_results for row in results.arms)
    own = {row.about["order"] for results in all_results for row in results.arms if row.arm == results.baseline}
    ranked = sorted(orders, key=lambda order: order not in own)
    return {
        order: Look(place, COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)])
        for place, order in enumerate(ranked, start=0 if own else 1)
    }


@contextmanager
def house_style() -> Iterator[None]:
    """The style of the suite, for drawing and for saving."""
    import matplotlib as mpl

    with (
        resources.as_file(resources.files("orderbench.reports") / "house.mplstyle") as file,
        mpl.rc_context(fname=file),
    ):
        yield


def save_figure(figure: Figure, path: Path, dpi: int = 220) -> None:
    """Write a figure to a .png, .svg or .pdf file: the same figure, the same bytes. OSError is let through."""
    kind = path.suffix.lstrip(".")
    metadata: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with house_style():
        figure.savefig(path, format=kind, dpi=dpi, metadata=metadata.get(kind, {}))


Draw = Callable[[Results, Sheet], "Figure | None"]


def styled(draw: Draw) -> Draw:
    """A drawing function that draws in the house style, and lays its figure out once."""

    @functools.wraps(draw)
    def in_style(results: Results, sheet: Sheet) -> Figure | None:
        with house_style():
            figure = draw(results, sheet)
            if figure is not None:  # laid out once, not with every file it is written to
                figure.draw_without_rendering()
                figure.set_layout_engine("none")
            return figure

    return in_style


def blank_figure(width: float, height: float) -> Figure:
    """An empty figure of some inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot: whatever backend the caller uses stays theirs
    return figure


def foot(figure: Figure, words: Sequence[str], warn: str = "", above: float = 0.0) -> float:
    """Write what the numbers rest on below the axes, and leave room for it; its height, in inches.

    warn: a line of its own, first. above: inches between all this and the axes, for a legend.
    """
    lines, wide = [""], int(figure.get_figwidth() * 19.5)
    for phrase in filter(None, words):
        joined = f"{lines[-1]} · {phrase}" if lines[-1] else phrase
        lines = [*lines[:-1], joined] if len(joined) <= wide else [*lines, phrase]
    told = [part for line in lines if line for part in textwrap.wrap(line, wide)]
    line, tall = 0.133, figure.get_figheight()
    for place, text in enumerate(reversed([warn, *told] if warn else told)):
        figure.text(0.012, (0.03 + line * place) / tall, text, va="bottom", fontsize=SMALLEST,
                    color=WARM if text == warn else QUIET)  # fmt: skip
    height = line * (len(told) + bool(warn)) + 0.06
    reserved = (height + above) / tall
    figure.set_layout_engine("constrained", rect=(0, reserved, 1, 1 - reserved))
    return height


def heading(figure: Figure, text: str) -> None:
    """A title over the whole figure, where the axes begin far from its left."""
    figure.suptitle(text, x=0.012, ha="left", fontsize=8, fontweight="bold")


# Charts: points, lines and labels on one pair of axes


@dataclass(frozen=True)
class _Label:
    """text: next to a point. line: the one it belongs to; '' for a horizontal line. more: optional; dropped if it does
    not fit, provided another label names the same line."""

    text: str
    line: str
    x: float
    y: float
    color: str
    gid: str = ""
    more: bool = False


_DIRECTIONS = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 0), (-1, 1), (-1, -1))
_DISTANCES = (6, 11, 18, 27, 38)  # points; from the third on with a leader


class Chart:
    """One pair of axes, and labels that are put next to their lines where they fit, into a legend where they do not."""

    def __init__(self, sheet: Sheet, title: str) -> None:
        self.sheet = sheet
        self.figure = blank_figure(sheet.width, min(0.8 * sheet.width, 3.6))
        self.axes = self.figure.subplots()
        self.axes.set_title(title)
        self.axes.grid(axis="y")
        self.labels: list[_Label] = []
        self.points: list[tuple[float, float, str]] = []
        self.paths: list[tuple[Sequence[float], Sequence[float]]] = []
        self.levels: list[_Label] = []
        self.handles: dict[str, Any] = {}

    def series(
        self,
        look: Look,
        line: str,
        xs: Sequence[Interval],
        ys: Sequence[Interval],
        *,
        solid: bool = True,
        joined: bool = True,
        alpha: float = 1.0,
    ) -> None:
        """Points with their intervals, in one order's look."""
        x, y = [one.value for one in xs], [one.value for one in ys]
        gid = f"o{look.number}"
        (drawn,) = self.axes.plot(
            x, y, color=look.color, marker=look.marker, linestyle=("-" if solid else (0, (3, 2))) if joined else "none",
            markerfacecolor=look.color if solid else "white", markeredgecolor="white" if solid else look.color,
            markeredgewidth=0.5 if solid else 1.0, markersize=5.8 if solid else 4.8, alpha=alpha, zorder=3, gid=gid,
        )  # fmt: skip
        self.handles.setdefault(line, drawn)
        for across, up in zip(xs, ys, strict=True):
            for low, high, horizontal in ((across.low, across.high, True), (up.low, up.high, False)):
                if low is not None and high is not None:
                    ends = ([low, high], [up.value] * 2) if horizontal else ([across.value] * 2, [low, high])
                    self.axes.plot(*ends, color=look.color, linewidth=0.8, alpha=0.6 * alpha, zorder=2, gid=gid)
                    self.paths.append(ends)
        self.points += [(a, b, line) for a, b in zip(x, y, strict=True)]
        if joined and len(x) > 1:
            self.paths.append((x, y))

    def label(self, text: str, look: Look, line: str, x: float, y: float, more: bool = False) -> None:
        """A word next to a point."""
        self.labels.append(_Label(text, line, x, y, look.color, f"o{look.number}", more))

    def curve(self, look: Look, row: Row, x: np.ndarray, y: np.ndarray, *, steps: bool = False) -> None:
        """A line without markers but at its end, and the arm's name there."""
        line, solid = row.line, not row.rewrites
        gid, style = f"o{look.number}", "-" if solid else (0, (3, 2))
        (drawn,) = self.axes.plot(x, y, color=look.color, linestyle=style, linewidth=1.1, gid=gid,
                                  drawstyle="steps-post" if steps else "default")  # fmt: skip
        self.axes.plot([x[-1]], [y[-1]], marker=look.marker, color=look.color, zorder=3, gid=gid, markersize=5,
                       markerfacecolor=look.color if solid else "white")  # fmt: skip
        self.handles.setdefault(line, drawn)
        self.points.append((float(x[-1]), float(y[-1]), line))
        self.paths.append((x.tolist(), y.tolist()))
        self.label(row.arm, look, line, float(x[-1]), float(y[-1]))

    def level(self, name: str, value: Interval) -> None:
        """A horizontal line, such as a floor, its interval at the right end."""
        self.axes.axhline(value.value, color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        if value.low is not None and value.high is not None:
            place = 0.995 - 0.012 * len(self.levels)
            self.axes.plot([place] * 2, [value.low, value.high], color=QUIET, linewidth=0.8, alpha=0.6, zorder=1,
                           transform=self.axes.get_yaxis_transform(), scaley=False)  # fmt: skip
        self.levels.append(_Label(name, "", math.nan, value.value, QUIET))

    def finish(self, *words: str, warn: str = "") -> Figure:
        """Place the labels; the figure."""
        if sum(not label.more for label in self.labels) > MOST_LABELS:  # then one a line, with the name of the line
            self.labels = [replace(label, text=line) for line, label in {one.line: one for one in self.labels}.items()]
        foot(self.figure, words, warn)
        self.figure.draw_without_rendering()
        if not self._place(self.labels):
            for text in [*self.figure.texts]:
                text.remove()
            self._legend(words, warn)
        return self.figure

    def _legend(self, words: Sequence[str], warn: str) -> None:
        """All lines below the axes, where one would have no label."""
        gids = {label.line: label.gid for label in self.labels}
        columns = max(1, int(self.sheet.width / (0.45 + 0.062 * max(map(len, self.handles)))))
        height = 0.155 * math.ceil(len(self.handles) / columns) + 0.04
        self.figure.set_figheight(self.figure.get_figheight() + height)
        below = foot(self.figure, words, warn, above=height)
        legend = self.figure.legend(
            self.handles.values(), self.handles.keys(), loc="lower left", ncols=columns, borderpad=0.1,
            columnspacing=1.0,
            bbox_to_anchor=(0.0, (below + 0.02) / self.figure.get_figheight()), borderaxespad=0.3, labelspacing=0.3,
        )  # fmt: skip
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            for part in (handle, text):
                if part is not None:
                    part.set_alpha(1)
                    part.set_gid(gids.get(text.get_text(), ""))
        self.figure.draw_without_rendering()
        self._place([label for label in self.labels if label.more])

    def _place(self, labels: Sequence[_Label]) -> bool:
        """Put every label where it covers nothing; False, and no label, where a line would have none."""
        scale = self.figure.dpi / 72
        across = self.axes.transData
        texts: list[Artist] = []
        solid: list[tuple[float, float, float, float]] = []
        if self.points:
            spots_N2 = across.transform([(x, y) for x, y, _ in self.points])
            solid = [_around(x, y, 8 * scale, 8 * scale) for x, y in spots_N2]
        paths = [across.transform(np.column_stack(path)) for path in self.paths]
        (left, _), (right, _) = across.transform([(x, 1) for x in self.axes.get_xlim()])
        for level in self.levels:
            y = across.transform((self.axes.get_xlim()[0], level.y))[1]
            paths.append(np.array([[left, y], [right, y]]))
        light = np.array([box for path in paths for box in _along(path, 1.5 * scale)] or np.empty((0, 4)))
        wanted = {label.line for label in labels} - {""}
        for label in (*labels, *self.levels):
            text = self.axes.text(
                0, 0, label.text, fontsize=SMALLEST, color=label.color, gid=label.gid or None, zorder=4
            )
            texts.append(text)
            size = text.get_window_extent()
            x, y = across.transform((self.axes.get_xlim()[0] if math.isnan(label.x) else label.x, label.y))
            others = [(a, b) for a, b, line in self.points if line != label.line]
            others_N2 = across.transform(others) if others else np.empty((0, 2))
            solid_N4 = np.array(solid or np.empty((0, 4)))
            found = self._best((x, y), (size.width, size.height), solid_N4, light, others_N2, label, scale)
            if found is None:
                texts.pop().remove()
                continue
            wanted.discard(label.line)
            box, leader = found
            solid.append(box)
            text.set(transform=None, position=((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), ha="center",
                     va="center_baseline")  # fmt: skip
            # Kept in the axes' own units, so that it moves with them at another resolution.
            text.set(transform=self.axes.transAxes,
                     position=self.axes.transAxes.inverted().transform(text.get_position()))  # fmt: skip
            if leader:
                to = (min(max(x, box[0]), box[2]), min(max(y, box[1] + scale), box[3] - scale))
                ends = self.axes.transAxes.inverted().transform([(x, y), to])
                texts += self.axes.plot(
                    *ends.T, color=label.color, linewidth=0.5, alpha=0.7, zorder=2.5, transform=self.axes.transAxes,
                    gid=label.gid, scalex=False, scaley=False,
                )  # fmt: skip
        if wanted:
            for artist in texts:
                artist.remove()
        return not wanted

    def _best(
        self, point: tuple[float, float], size: tuple[float, float], solid_N4: np.ndarray, light_N4: np.ndarray,
        others_N2: np.ndarray, label: _Label, scale: float,
    ) -> tuple[tuple[float, float, float, float], bool] | None:  # fmt: skip
        """The box, in pixels, that covers least, and whether it needs a leader; None where all cover too much."""
        inside, frame = self.axes.bbox, self.figure.bbox
        best, least = None, 9.0
        for number, (box, leader) in enumerate(self._candidates(*point, *size, label, scale)):
            if box[0] < inside.x0 + scale or box[2] > frame.x1 - scale or box[1] < inside.y0 or box[3] > inside.y1 + 4:
                continue
            if _covered(box, solid_N4):
                continue
            cost = 1.5 * min(_covered(box, light_N4), 5) + 0.11 * number
            if label.line and len(others_N2):  # nearer to another line's point, a word would name that one
                cost += 4.0 * (_distance(box, others_N2).min() < _distance(box, np.array([point]))[0] + 2 * scale)
            if cost < least:
                best, least = (box, leader), cost
        return best

    def _candidates(
        self, x: float, y: float, width: float, height: float, label: _Label, scale: float
    ) -> Iterator[tuple[tuple[float, float, float, float], bool]]:
        if not label.line:
            left, right = self.axes.bbox.x0 + 4 * scale, self.axes.bbox.x1 - 14 * scale - width
            for across in (right, left, *np.linspace(right, left, 9)[1:-1]):
                for up in (1.5 * scale, -1.5 * scale - height):
                    yield (across, y + up, across + width, y + up + height), False
            return
        for distance in _DISTANCES[: 2 if label.more else None]:
            for dx, dy in _DIRECTIONS:
                reach = distance * scale * (0.8 if dx and dy else 1)
                cx = x + dx * (reach + width / 2)
                cy = y + dy * (reach + height / 2) * (1 if not dx else 0.8)
                yield _around(cx, cy, width, height), distance > 11


def _around(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _covered(box: tuple[float, float, float, float], others_N4: np.ndarray) -> int:
    """How many boxes another one touches."""
    if not len(others_N4):
        return 0
    apart = (
        (others_N4[:, 0] > box[2])
        | (others_N4[:, 2] < box[0])
        | (others_N4[:, 1] > box[3])
        | (others_N4[:, 3] < box[1])
    )
    return int((~apart).sum())


def _distance(box: tuple[float, float, float, float], points_N2: np.ndarray) -> np.ndarray:
    """How far points are from a box."""
    across = np.maximum(np.maximum(box[0] - points_N2[:, 0], points_N2[:, 0] - box[2]), 0)
    up = np.maximum(np.maximum(box[1] - points_N2[:, 1], points_N2[:, 1] - box[3]), 0)
    return np.hypot(across, up)


def _along(path_N2: np.ndarray, size: float) -> Iterator[tuple[float, float, float, float]]:
    """Small boxes along a path of pixels."""
    for (x0, y0), (x1, y1) in itertools.pairwise(path_N2):
        n = max(2, int(math.hypot(x1 - x0, y1 - y0) / (3 * size)) + 1)
        for t in np.linspace(0, 1, min(n, 120)):
            yield _around(x0 + t * (x1 - x0), y0 + t * (y1 - y0), size, size)


# Axes


def plain_ticks(axis: Any, values: Sequence[float], *, base: int = 10) -> None:
    """A logarithmic axis with plain numbers at 1, 2, 5, or at powers of two."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(values), max(values)
    if base == 2:
        ticks = [2.0**p for p in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)]
    else:
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        ticks = [m * 10.0**p for p in powers for m in (1, 2, 5)]
        inside = sum(low <= tick <= high for tick in ticks)
        if inside > 7:
            ticks = [10.0**p for p in powers]
        elif inside < 3:
            ticks = [m * 10.0**p for p in powers for m in (1, 1.5, 2, 3, 4, 5, 7)]
    if axis.axis_name == "x":
        axis.axes.set_xscale("log", base=base)
    else:
        axis.axes.set_yscale("log", base=base)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def log_if_wide(axis: Any, values: Sequence[float], *, ratio: float = 5.0) -> bool:
    """A logarithmic axis where the values are positive and far apart; whether it is one."""
    if min(values) > 0 and max(values) > ratio * min(values):
        plain_ticks(axis, values)
        return True
    return False


def extent(intervals: Sequence[Interval]) -> list[float]:
    """All values and bounds of some intervals: what an axis must hold."""
    return [bound for one in intervals for bound in (one.low, one.value, one.high) if bound is not None]


def exactly(value: float) -> Interval:
    """A value without an interval, such as a number of steps."""
    return Interval(float(value))
