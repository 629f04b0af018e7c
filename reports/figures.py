"""Figures: one function each, from the results of a run to a picture, or None where there is nothing to draw.

Knows matplotlib, results and plans. Refuses to compute what it draws, to keep any state, and to leave out how much a
number rests on: every figure says its n, and that it is a first look where the sample is small.

An order has one colour and one marker on every figure of a page. Filled markers and solid lines are without correction,
hollow and dashed ones with it. Every artist of an order carries the order's number as its id (`o3`), which the page
turns into something that its legend can hide. The colours are those of Okabe and Ito, without their yellow.
"""

from __future__ import annotations

import functools
import itertools
import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orderbench.orders import BenchError, Grid, Plan, make_plan
from orderbench.orders.spelling import split_call
from orderbench.reports.results import Results, Row, baseline_steps, times_seeds, too_small
from orderbench.reports.statistics import Interval
from orderbench.reports.words import bounds, busy_words, training_words
from orderbench.runs.record import RecordProblem

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

ONE_COLUMN, TWO_COLUMNS = 3.4, 7.0  # inches
SMALLEST = 7  # points, of any text
MOST_MAPS = 12  # in one figure
MOST_LABELS = 16
COLORS = ("#22272e", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
QUIET, FAINT, WARM = "#5f6873", "#c3c9d0", "#a34700"
FLOOR_NAMES = {"real": "real images", "reconstructed": "reconstructed", "noise": "noise codes"}
METRIC_NAMES = {"fd": "FD", "kd": "KD", "agreement": "Class agreement"}


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


def _styled(draw: Draw) -> Draw:
    @functools.wraps(draw)
    def styled(results: Results, sheet: Sheet) -> Figure | None:
        with house_style():
            figure = draw(results, sheet)
            if figure is not None:  # laid out once, not with every file it is written to
                figure.draw_without_rendering()
                figure.set_layout_engine("none")
            return figure

    return styled


# The canvas that the charts share


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot: whatever backend the caller uses stays theirs
    return figure


def _foot(figure: Figure, words: Sequence[str], warn: str = "", above: float = 0.0) -> float:
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


def _heading(figure: Figure, text: str) -> None:
    """A title over the whole figure, where the axes begin far from its left."""
    figure.suptitle(text, x=0.012, ha="left", fontsize=8, fontweight="bold")


@dataclass(frozen=True)
class _Label:
    """text beside a point; line: the one it belongs to, '' for a horizontal line's; more: not needed, if another of
    its line is there."""

    text: str
    line: str
    x: float
    y: float
    color: str
    gid: str = ""
    more: bool = False


_DIRECTIONS = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 0), (-1, 1), (-1, -1))
_DISTANCES = (6, 11, 18, 27, 38)  # points; from the third on with a leader


class _Chart:
    """One pair of axes, and labels that are put beside their lines where they fit, into a legend where they do not."""

    def __init__(self, sheet: Sheet, title: str) -> None:
        self.sheet = sheet
        self.figure = _figure(sheet.width, min(0.8 * sheet.width, 3.6))
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
        """A word beside a point."""
        self.labels.append(_Label(text, line, x, y, look.color, f"o{look.number}", more))

    def curve(self, look: Look, row: Row, x: np.ndarray, y: np.ndarray, *, steps: bool = False) -> None:
        """A line without markers but at its end, and the arm's name there."""
        line, solid = _name(row), not _corrected(row)
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
        if sum(not label.more for label in self.labels) > MOST_LABELS:  # then one a line, by what the line stands for
            self.labels = [replace(label, text=line) for line, label in {one.line: one for one in self.labels}.items()]
        _foot(self.figure, words, warn)
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
        below = _foot(self.figure, words, warn, above=height)
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


def _plain_ticks(axis: Any, values: Sequence[float], *, base: int = 10) -> None:
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


def _fit(axis: Any, values: Sequence[float], *, ratio: float = 5.0) -> bool:
    """A logarithmic axis where the values are positive and far apart; whether it is one."""
    if min(values) > 0 and max(values) > ratio * min(values):
        _plain_ticks(axis, values)
        return True
    return False


def _ends(intervals: Sequence[Interval]) -> list[float]:
    return [bound for one in intervals for bound in (one.low, one.value, one.high) if bound is not None]


def _exactly(value: float) -> Interval:
    return Interval(float(value))


def _corrected(row: Row) -> bool:
    return str(row.about["correction"]) != "off"


def _name(row: Row) -> str:
    """The order and its correction: what a line stands for."""
    return f"{row.about['order']}+{row.about['correction']}" if _corrected(row) else str(row.about["order"])


def _lines(rows: Sequence[Row]) -> Iterator[tuple[list[Row], list[Row]]]:
    """By order and correction: the rows that a line joins, by steps, and those beside it.

    Where one number of steps was reached by two paces, the line keeps to the pace law that the order uses most.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_name(row), []).append(row)
    for group in groups.values():
        laws = [str(row.about["pace"]).partition(":")[0] for row in group]
        by_steps: dict[int, list[Row]] = {}
        for row in sorted(group, key=lambda row: -laws.count(str(row.about["pace"]).partition(":")[0])):
            by_steps.setdefault(row.about["n_steps"], []).append(row)
        yield [by_steps[n][0] for n in sorted(by_steps)], [row for rows_n in by_steps.values() for row in rows_n[1:]]


def _rests_on(results: Results, rows: Sequence[Row]) -> tuple[list[str], str]:
    """What quality figures rest on, and a warning where that is little."""
    counts = sorted({row.n for row in rows if row.n is not None})
    small = any(too_small(results, row) for row in rows)
    n = f"n = {', '.join(map(str, counts))}{times_seeds(rows)}"
    space = f"space {results.space}"
    return ([space], f"{n}: a first look") if small else ([f"{n} an arm", space], "")


def _about_correction(rows: Sequence[Row]) -> str:
    return "hollow: with correction" if len({_corrected(row) for row in rows}) == 2 else ""


def _about_load(results: Results) -> str:
    return "others computed beside the timing" if busy_words(results) else ""


# Quality


def quality_by_steps(metric: str, setting: str = "fixed") -> Draw:
    """A metric against steps, a line an order, between its floor and its ceiling."""

    def draw(results: Results, sheet: Sheet) -> Figure | None:
        rows = [row for row in results.arms if row.setting == setting and metric in row.figures]
        if not rows:
            return None
        tuned = ", each arm's best setting" if setting == "tuned" else ""
        chart = _Chart(sheet, f"{METRIC_NAMES[metric]} against steps{tuned}")
        values = _by_steps(chart, results, rows, lambda row: row.figures[metric])
        floors = {row.arm: row.figures[metric] for row in results.floors if metric in row.figures}
        everything = [*values, *(one.value for one in floors.values())]
        log = metric in ("fd", "kd") and _fit(chart.axes.yaxis, everything)
        if log:
            chart.axes.set_ylim(min(everything) / 1.3, max(everything) * 1.35)
        span = max(values) - min(values)
        for name, floor in floors.items():
            if log or metric == "agreement" or min(values) - 2 * span <= floor.value <= max(values) + 2 * span:
                chart.level(FLOOR_NAMES.get(name, name), floor)
        chart.axes.set_ylabel(METRIC_NAMES[metric])
        words, first_look = _rests_on(results, rows)
        better = "higher is better" if metric == "agreement" else "lower is better"
        return chart.finish(*words, better, _about_correction(rows), warn=first_look)

    return _styled(draw)


def _by_steps(chart: _Chart, results: Results, rows: Sequence[Row], figure: Callable[[Row], Interval]) -> list[float]:
    """Lines over steps, side by side where they meet; the values and bounds that were drawn."""
    lines = list(_lines(rows))
    at_steps: dict[int, list[int]] = {}
    for place, (line, beside) in enumerate(lines):
        for n in {row.about["n_steps"] for row in (*line, *beside)}:
            at_steps.setdefault(n, []).append(place)
    for place, (line, beside) in enumerate(lines):
        look, solid, name = chart.sheet.look(results, line[0]), not _corrected(line[0]), _name(line[0])

        def aside(row: Row, place: int = place) -> float:
            n, others = row.about["n_steps"], at_steps[row.about["n_steps"]]
            apart = min(0.075, 0.35 / len(others))
            return float(n * math.exp((others.index(place) - (len(others) - 1) / 2) * apart))

        for part in (line, beside):
            if part:
                ys = [figure(row) for row in part]
                chart.series(look, name, [_exactly(aside(row)) for row in part], ys, solid=solid, joined=part is line)
        chart.label(name, look, name, aside(line[-1]), figure(line[-1]).value)
    steps = sorted(at_steps)
    _plain_ticks(chart.axes.xaxis, [max(1, steps[0] / 1.3), steps[-1] * 1.3], base=2)
    if len(steps) <= 7:
        chart.axes.set_xticks(steps)
    chart.axes.set_xlim(steps[0] / 2.3, steps[-1] * 2.1)
    chart.axes.margins(y=0.09)
    chart.axes.set_xlabel("steps")
    return _ends([figure(row) for row in rows])


def quality_by_speed(speed: str) -> Draw:
    """FD against `latency_s` or `images_per_s`, with the arms that no other beats at both."""

    def draw(results: Results, sheet: Sheet) -> Figure | None:
        rows = [row for row in results.arms if row.setting == "fixed" and {"fd", speed} <= row.figures.keys()]
        if not rows:
            return None
        slow = speed == "latency_s"
        batch = throughput_batch(results)
        chart = _Chart(sheet, "FD against latency" if slow else f"FD against throughput at batch {batch}")
        long = max(row.figures[speed].value for row in rows) >= 10
        factor, unit = (1.0, "s") if long or not slow else (1000.0, "ms")
        front = pareto([(row.figures[speed].value * (1 if slow else -1), row.figures["fd"].value) for row in rows])
        for place in sorted(range(len(rows)), key=lambda place: place not in front):
            row, look = rows[place], sheet.look(results, rows[place])
            x, y = row.figures[speed].scaled(factor), row.figures["fd"]
            alpha = 1.0 if place in front else 0.45
            chart.series(look, _name(row), [x], [y], solid=not _corrected(row), joined=False, alpha=alpha)
            chart.label(row.arm, look, _name(row), x.value, y.value, more=place not in front)
        best = sorted((rows[i].figures[speed].value * factor, rows[i].figures["fd"].value) for i in front)
        chart.axes.step([x for x, _ in best], [y for _, y in best], where="post" if slow else "pre", color=FAINT,
                        linewidth=1.4, zorder=1)  # fmt: skip
        for (x0, y0), (x1, y1) in itertools.pairwise(best):
            chart.paths.append(([x0, x1, x1], [y0, y0, y1]) if slow else ([x0, x0, x1], [y0, y1, y1]))
        _fit(chart.axes.xaxis, _ends([row.figures[speed].scaled(factor) for row in rows]), ratio=3.0)
        _fit(chart.axes.yaxis, _ends([row.figures["fd"] for row in rows]))
        chart.axes.margins(x=0.09, y=0.1)
        chart.axes.set(
            xlabel=f"{unit} an image, one at a time" if slow else f"images a second, batch {batch}", ylabel="FD"
        )
        words, first_look = _rests_on(results, rows)
        timed = f"{n_rounds(results, 1 if slow else batch)} rounds"
        where = "lower left is better" if slow else "lower right is better"
        front_words = "line: arms that none beats at both; the others are faded"
        notes = (where, front_words, _about_correction(rows), _about_load(results))
        return chart.finish(*words, timed, *notes, warn=first_look)

    return _styled(draw)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of the points that no other is at least as low as in both coordinates, and lower in one.

    >>> pareto([(1, 3), (2, 2), (3, 3)])
    [0, 1]
    """

    def beaten(i: int) -> bool:
        (x, y) = points[i]
        return any(a <= x and b <= y and (a, b) != (x, y) for a, b in points)

    return [i for i in range(len(points)) if not beaten(i)]


# Likelihood


@_styled
def bits_by_steps(results: Results, sheet: Sheet) -> Figure | None:
    """Held-out bits per token against steps."""
    rows = [row for row in results.arms if row.setting == "fixed" and "bits" in row.figures]
    if not rows:
        return None
    chart = _Chart(sheet, "Held-out bits per token against steps")
    # Their intervals are of images, which all arms share, and would hide the paired differences: see the foot.
    values = _by_steps(chart, results, rows, lambda row: Interval(row.figures["bits"].value))
    codes = results.run.about["subject"]["model"].get("codes")
    if codes and math.log2(codes) <= max(values) + (max(values) - min(values)):
        chart.level(f"uniform over {codes} codes", _exactly(math.log2(codes)))
    chart.axes.set_ylabel("bits per token")
    halves = [(y.high - y.low) / 2 for y in (row.figures["bits"] for row in rows) if None not in (y.low, y.high)]  # type: ignore[operator]
    shared = f"±{max(halves):.2f} over images, which all arms share: read differences, paired" if halves else ""
    return chart.finish(f"n = {likelihood_n(results)} held-out images", "lower is better", shared)


@_styled
def tax(results: Results, sheet: Sheet) -> Figure | None:
    """The measured parallel tax against the one that a Gaussian field predicts."""
    rows = [
        row
        for row in results.arms
        if row.setting == "fixed" and "tax" in row.figures and (row.about.get("predicted_tax_bits") or 0) > 0
    ]
    if not rows:
        return None
    chart = _Chart(sheet, "Parallel tax, measured against predicted")
    predicted = [row.about["predicted_tax_bits"] for row in rows]
    measured = [row.figures["tax"] for row in rows]
    log = min(one.value for one in measured) > 0
    floor = min(one.value for one in measured) / 2
    for line, beside in _lines(rows):
        look, name = sheet.look(results, line[0]), _name(line[0])
        part = sorted([*line, *beside], key=lambda row: row.about["predicted_tax_bits"])
        ys = [_above(row.figures["tax"], floor) if log else row.figures["tax"] for row in part]
        chart.series(look, name, [_exactly(row.about["predicted_tax_bits"]) for row in part], ys)
        chart.label(name, look, name, part[0].about["predicted_tax_bits"], ys[0].value)
    for row in rows:
        steps, look = str(row.about["n_steps"]), sheet.look(results, row)
        chart.label(steps, look, _name(row), row.about["predicted_tax_bits"], row.figures["tax"].value, more=True)
    if log:
        ends = [min(predicted) / 1.8, max(predicted) * 2.2]
        _plain_ticks(chart.axes.xaxis, ends)
        _plain_ticks(chart.axes.yaxis, _ends([_above(one, floor) for one in measured]))
    else:
        ends = [0, max(predicted) * 1.2]
    chart.axes.set_xlim(ends[0], ends[1])
    chart.axes.plot(ends, ends, color=FAINT, linewidth=1.0, zorder=1, scaley=False)
    chart.axes.margins(y=0.12)
    chart.axes.set(xlabel="predicted on a Gaussian field, bits per token", ylabel="measured, bits per token")
    field = next((trial["field"] for trial in results.run.done("likelihood") if trial.get("field")), "")
    return chart.finish(
        f"n = {likelihood_n(results)} held-out images", "small numbers: steps", "grey: as predicted", f"field {field}"
    )


def _above(interval: Interval, floor: float) -> Interval:
    """An interval whose lower end a logarithmic axis can show."""
    return Interval(interval.value, None if interval.low is None else max(interval.low, floor), interval.high)


def likelihood_n(results: Results) -> str:
    """How many held-out images the likelihood rests on."""
    return ", ".join(map(str, sorted({trial["n"] for trial in results.run.done("likelihood")})))


# Speed


def latency_trials(results: Results) -> dict[int, dict[str, Any]]:
    """The timings by batch; of two of one batch, those that readers keep."""
    return {trial["batch"]: trial for trial in results.run.done("latency")}


def throughput_batch(results: Results) -> int | None:
    """The batch at which throughput was measured."""
    return max((batch for batch in latency_trials(results) if batch != 1), default=None)


def n_rounds(results: Results, batch: int | None) -> int:
    """How many rounds the timings of a batch have."""
    trial = latency_trials(results).get(batch or 0)
    return 0 if trial is None else len(trial["rounds"])


@_styled
def speedups(results: Results, sheet: Sheet) -> Figure | None:
    """How many times faster than the baseline, in the same rounds; the strip is the baseline against itself."""
    rows = [row for row in results.arms if row.setting == "fixed" and row.speedup]
    if not rows:
        return None
    batches = sorted({batch for row in rows for batch in row.speedup})
    places = len(rows) + (results.uncached is not None)
    figure = _figure(sheet.width, 1.05 + (0.17 * len(batches) + 0.05) * places)
    axes = figure.subplots()
    _heading(figure, f"Times faster than {results.baseline} with a cache")
    cells = baseline_steps(results)
    for batch in batches:
        noise = results.noise.get(batch)
        if noise is not None and noise.low is not None and noise.high is not None:
            axes.axvspan(noise.low, noise.high, color=QUIET, alpha=0.16, linewidth=0, zorder=0)
    axes.axvline(1, color=QUIET, linewidth=0.8, zorder=1)
    everything = [1.0]
    for place, row in enumerate(rows):
        look, gid = sheet.look(results, row), f"o{sheet.look(results, row).number}"
        steps = cells / row.about["n_steps"]
        everything.append(steps)
        top = place - 0.3
        axes.plot([steps] * 2, [place - 0.34, place + 0.34], color=FAINT, linewidth=2.2, zorder=1, gid=gid)
        for number, batch in enumerate(batches):
            ratio = row.speedup.get(batch)
            if ratio is None:
                continue
            y = top + 0.6 * (number + 0.5) / len(batches)
            everything += _ends([ratio])
            if ratio.low is not None and ratio.high is not None:
                axes.plot([ratio.low, ratio.high], [y, y], color=look.color, linewidth=1.1, zorder=2, gid=gid)
            filled = not _corrected(row)
            axes.plot([ratio.value], [y], marker="o" if batch == 1 else "s", color=look.color, zorder=3, gid=gid,
                      markerfacecolor=look.color if filled else "white", markersize=4.6, linestyle="none")  # fmt: skip
            axes.annotate(bounds(ratio), (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=SMALLEST,
                          annotation_clip=False, gid=gid)  # fmt: skip
    names = [row.arm for row in rows]
    if results.uncached is not None:
        slower = _inverse(results.uncached)
        everything += _ends([slower])
        y = float(len(rows))
        if slower.low is not None and slower.high is not None:
            axes.plot([slower.low, slower.high], [y, y], color=QUIET, linewidth=1.1)
        axes.plot([slower.value], [y], marker="o", color=QUIET, markersize=4.6, linestyle="none")
        axes.annotate(bounds(slower), (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=SMALLEST,
                      annotation_clip=False, color=QUIET)  # fmt: skip
        names.append(f"{results.run.about['baseline']}, no cache")
    axes.set_yticks(range(len(names)), [textwrap.shorten(name, 30, placeholder="…") for name in names])
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    _plain_ticks(axes.xaxis, [min(everything), max(everything)])
    axes.set_xlim(min(everything) / 1.2, max(everything) * 1.15)
    axes.grid(axis="x")
    shapes = "circle: batch 1" + "".join(f", square: batch {batch}" for batch in batches if batch != 1)
    rounds = n_rounds(results, batches[0])
    words = (f"{rounds} rounds, paired", shapes, "grey strip: A/A, the noise floor", "pale bar: ratio of steps")
    _foot(figure, (*words, _about_load(results)), f"{rounds} rounds: no interval" if rounds < 3 else "")
    return figure


def _inverse(ratio: Interval) -> Interval:
    low, high = (None if bound is None else 1 / bound for bound in (ratio.high, ratio.low))
    return Interval(1 / ratio.value, low, high)


def step_seconds(results: Results) -> dict[str, np.ndarray]:
    """Median seconds of every step at batch 1, by arm, from passes of their own."""
    found: dict[str, np.ndarray] = {}
    for trial in results.run.done("latency"):
        for arm, passes in trial.get("step_s", {}).items():
            found[arm] = np.median(np.array(passes, dtype=float), axis=0)
    return found


@_styled
def latency_by_step(results: Results, sheet: Sheet) -> Figure | None:
    """What every step takes."""
    seconds = step_seconds(results)
    rows = [row for row in results.arms if row.setting == "fixed" and row.arm in seconds]
    if not rows:
        return None
    chart = _Chart(sheet, "Time of every step, one image")
    for row in rows:
        y = 1000 * seconds[row.arm]
        chart.curve(sheet.look(results, row), row, np.arange(1, len(y) + 1), y)
    longest = max(len(seconds[row.arm]) for row in rows)
    _plain_ticks(chart.axes.xaxis, [1, longest], base=2)
    chart.axes.set_xlim(0.9, longest * 1.9)
    top = max(float(np.quantile(seconds[row.arm], 0.98)) for row in rows) * 1000
    chart.axes.set_ylim(0, 1.3 * top)
    chart.axes.set(xlabel="step", ylabel="ms")
    return chart.finish("median of 3 passes; waiting after every step makes them slower than a whole generation")


@_styled
def tokens_over_time(results: Results, sheet: Sheet) -> Figure | None:
    """How many cells are decoded as time goes by."""
    seconds = step_seconds(results)
    rows = [row for row in results.arms if row.setting == "fixed" and row.arm in seconds]
    if not rows:
        return None
    chart = _Chart(sheet, "Cells decoded over time, one image")
    for row in rows:
        x, y = np.cumsum(seconds[row.arm]) * 1000, np.cumsum(row.about["sizes"])
        chart.curve(sheet.look(results, row), row, x, y, steps=True)
    times = [float(t) for row in rows for t in (1000 * seconds[row.arm][0], 1000 * seconds[row.arm].sum())]
    if not _fit(chart.axes.xaxis, times, ratio=3.0):
        chart.axes.set_xlim(0, None)
    cells = max(sum(row.about["sizes"]) for row in rows)
    chart.axes.set_ylim(0, cells * 1.2)
    chart.axes.set_yticks([0, cells // 4, cells // 2, cells * 3 // 4, cells])
    chart.axes.margins(x=0.08)
    chart.axes.set(xlabel="ms", ylabel="cells")
    return chart.finish("median of 3 passes, step by step; markers: done")


def guided(guidance: str) -> bool:
    """Whether a guidance, as it is spelled, has an unconditional branch with a cache of its own.

    >>> guided("constant:scale=1"), guided("linear:scale=3")
    (False, True)
    """
    kind, options = split_call(guidance)
    return kind != "none" and float(options.get("scale", 1)) != 1


@_styled
def memory(results: Results, sheet: Sheet) -> Figure | None:
    """What a generation adds to the memory, and its cache."""
    trials = latency_trials(results)
    rows = [row for row in results.arms if row.setting == "fixed"]
    added = {
        batch: {
            name: one["added_bytes"]
            for name, one in trial.get("memory", {}).items()
            if one.get("added_bytes") is not None
        }
        for batch, trial in sorted(trials.items())
    }
    rows = [row for row in rows if any(row.arm in by_arm for by_arm in added.values())]
    if not rows:
        return None
    figure = _figure(sheet.width, 1.0 + 0.25 * len(rows))
    axes = figure.subplots()
    _heading(figure, "Memory that a generation adds")
    branches = 2 if guided(results.run.about["setting"]["guidance"]) else 1  # counters are of one
    for place, row in enumerate(rows):
        look = sheet.look(results, row)
        gid = f"o{look.number}"
        for number, (batch, by_arm) in enumerate(added.items()):
            if row.arm not in by_arm:
                continue
            y = place - 0.16 + 0.32 * (number + 0.5) / len(added)
            cache = row.counters.get("cache_bytes", 0) * batch * branches / 2**20
            axes.plot([cache] * 2, [y - 0.14, y + 0.14], color=FAINT, linewidth=2.2, gid=gid)
            axes.plot(
                [by_arm[row.arm] / 2**20], [y], marker="o" if batch == 1 else "s", color=look.color, markersize=4.6,
                markerfacecolor="white" if _corrected(row) else look.color, gid=gid, linestyle="none",
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), [textwrap.shorten(row.arm, 30, placeholder="…") for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, None)
    axes.margins(x=0.1)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("MiB")
    weights = next((trial["weights_bytes"] for trial in trials.values() if trial.get("weights_bytes")), None)
    how = next((one["how"] for trial in trials.values() for one in trial.get("memory", {}).values()), "")
    shapes = ", ".join(f"{'circle' if batch == 1 else 'square'}: batch {batch}" for batch in added)
    _foot(figure, (shapes, "pale bar: the cache", f"peak over what was there before, {how}, measured once",
                   f"the weights take {weights / 2**20:.1f} MiB" if weights else ""))  # fmt: skip
    return figure


# Correction


def rings_of(grid: Grid) -> np.ndarray:
    """(L,) the ring of every cell around the grid's middle cell: the steps of the radial order."""
    return make_plan("radial", grid).step_of_cell()


def changed_cells(results: Results) -> list[tuple[Row, np.ndarray]]:
    """By arm with correction, how often an image's cell was rewritten: the mean over its seeds, by cell."""
    found = []
    for row in results.arms:
        changed = [
            np.array(trial["changed_by_cell"], dtype=float)
            for trial in results.run.done("quality")
            if trial["arm"] == row.arm and trial["setting"] == row.setting and trial.get("changed_by_cell")
        ]
        if changed and _corrected(row) and row.setting == "fixed":
            found.append((row, np.mean(changed, axis=0)))
    return found


@_styled
def changes_by_ring(results: Results, sheet: Sheet) -> Figure | None:
    """Where correction rewrites codes: by ring around the middle cell."""
    found, grid = changed_cells(results), lattice(results)
    if not found or grid is None:
        return None
    ring_L = rings_of(grid)
    chart = _Chart(sheet, "Codes rewritten by correction, by ring")
    rings = range(int(ring_L.max()) + 1)
    for row, changed_L in found:
        y = [_exactly(changed_L[ring_L == ring].mean()) for ring in rings]
        look = sheet.look(results, row)
        chart.series(look, _name(row), [_exactly(ring) for ring in rings], y, solid=False)
        chart.label(row.arm, look, _name(row), rings[-1], y[-1].value)
    chart.axes.set_ylim(0, None)
    chart.axes.margins(y=0.15)
    chart.axes.set_xlim(-0.5, len(rings) * 1.25)
    chart.axes.set_xticks([ring for ring in rings if ring % 2 == 0])
    chart.axes.set(xlabel="ring around the middle cell", ylabel="rewritings a cell and image")
    words, first_look = _rests_on(results, [row for row, _ in found])
    return chart.finish(*words, warn=first_look)


@_styled
def changes_by_cell(results: Results, sheet: Sheet) -> Figure | None:
    """The same on the grid, one map an arm."""
    found, grid = changed_cells(results), lattice(results)
    if not found or grid is None:
        return None
    hidden, found = len(found[6:]), found[:6]
    across = min(len(found), 2 if sheet.width < 5 else 4)
    down = math.ceil(len(found) / across)
    side = min(1.9, sheet.width / across - 0.1)
    figure = _figure(sheet.width, 0.95 + (side * grid.rows / grid.cols + 0.22) * down)
    _heading(figure, "Codes rewritten by correction, by cell")
    top = max(float(changed.max()) for _, changed in found) or 1.0
    all_axes = figure.subplots(down, across, squeeze=False)
    for axes in all_axes.flat:
        axes.set_axis_off()
    for axes, (row, changed_L) in zip(all_axes.flat, found, strict=False):
        image = axes.imshow(changed_L.reshape(grid.rows, grid.cols), cmap="cividis", vmin=0, vmax=top)
        axes.set_title(textwrap.shorten(row.arm, 28, placeholder="…"), fontweight="normal", pad=3, fontsize=SMALLEST)
    bar = figure.colorbar(image, ax=all_axes, orientation="horizontal", shrink=0.7, aspect=30, pad=0.03)
    bar.set_label("rewritings an image")
    bar.outline.set_visible(False)
    words, first_look = _rests_on(results, [row for row, _ in found])
    more = f"{hidden} more arm{'s' * (hidden > 1)} {'are' if hidden > 1 else 'is'} not shown" if hidden else ""
    _foot(figure, [*words, more], first_look)
    return figure


@_styled
def repair(results: Results, sheet: Sheet) -> Figure | None:
    """What correction repairs of injected errors, and what it damages."""
    rows = {row.arm: row for row in results.arms if row.setting == "fixed"}
    trials = [trial for trial in results.run.done("repair") if trial["arm"] in rows]
    if not trials:
        return None
    chart = _Chart(sheet, "Injected errors: repaired, and damage done")
    for trial in trials:
        row = rows[trial["arm"]]
        look, name = sheet.look(results, row), _name(row)
        for metric, solid in (("repair_rate", True), ("damage_rate", False)):
            rates = [one for one in trial["rates"] if one[metric] is not None]
            if rates:
                xs = [_exactly(100 * one["error_rate"]) for one in rates]
                ys = [_exactly(100 * one[metric]) for one in rates]
                chart.series(look, name, xs, ys, solid=solid)
                text = f"{row.arm}: {'repaired' if solid else 'damaged'}"
                chart.label(text, look, name, xs[-1].value, ys[-1].value, more=not solid)
    chart.axes.set_ylim(0, None)
    chart.axes.margins(x=0.3, y=0.15)
    chart.axes.set(xlabel="codes that were made wrong, %", ylabel="%")
    chart.axes.set_xticks(sorted({100 * one["error_rate"] for trial in trials for one in trial["rates"]}))
    return chart.finish(
        f"n = {trials[0]['n']} held-out images",
        "filled: wrong codes that were repaired; hollow: right codes that were changed",
    )


# Orders and samples


def lattice(results: Results) -> Grid | None:
    """The token lattice of the run's model."""
    try:
        return Grid.parse(str(results.run.about["subject"]["model"]["grid"]))
    except (KeyError, BenchError):
        return None


def plan_of(row: Row) -> Plan | None:
    """The plan of an arm, if it has one that this orderbench can read: an order of a plugin may not be here."""
    try:
        plan = None if row.about.get("plan") is None else Plan.from_json(row.about["plan"])
        if plan is not None:
            plan.step_of_cell()
        return plan
    except BenchError:
        return None


def shown_seed(results: Results, kind: str) -> int | None:
    """The lowest seed that all arms have samples of, or else most: pictures side by side share seed and noise."""
    having = Counter(trial["seed"] for trial in results.run.done(kind))
    return max(having, key=lambda seed: (having[seed], -seed), default=None)


def pictures_of(results: Results, kind: str, arm: str, setting: str = "fixed") -> np.ndarray | None:
    """(N, h, w, c) uint8: the first samples of an arm under the seed that all arms show, or of a floor; None if they
    are not there."""
    seed = shown_seed(results, kind)
    trials = [t for t in results.run.done(kind) if t["arm"] == arm and t["setting"] == setting and t["seed"] == seed]
    if not trials:
        return None
    try:
        arrays = results.run.arrays(trials[0]["trial"], "pictures")
    except RecordProblem:
        return None
    images: np.ndarray = arrays["images_Nhwc"]
    return images if images.ndim == 4 and len(images) and images.dtype == np.uint8 else None


def mosaic(images_Nhwc: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """(H, W, 3) uint8: pictures in rows, on white."""
    N, h, w, c = images_Nhwc.shape
    rows = math.ceil(N / columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, np.uint8)
    for place, image in enumerate(images_Nhwc):
        row, col = divmod(place, columns)
        sheet[row * (h + gap) : row * (h + gap) + h, col * (w + gap) : col * (w + gap) + w] = image[
            ..., : 3 if c >= 3 else 1
        ]
    return sheet


@_styled
def orders_beside_samples(results: Results, sheet: Sheet) -> Figure | None:
    """The map of every order beside what it made of the same seeds; the maps alone where there are no samples."""
    entries = [
        (row, plan_of(row), pictures_of(results, "quality", row.arm)) for row in results.arms if row.setting == "fixed"
    ]
    with_samples = [entry for entry in entries if entry[2] is not None]
    shown = (with_samples or [entry for entry in entries if entry[1] is not None])[:MOST_MAPS]
    if not shown:
        return None
    grid = next((plan.lattice for _, plan, _ in shown if plan is not None), None)
    tall = 1.0 if grid is None else grid.rows / grid.cols
    if with_samples:
        many = 6 if sheet.width < 5 else 12
        side = (sheet.width - 0.15) / (2.35 + many)  # of a sample; a map is as tall as two
        figure = _figure(sheet.width, (2.0 * side + 0.24) * len(shown))
        all_axes = figure.subplots(len(shown), 2, squeeze=False, width_ratios=[2.1, many])
    else:
        across = 3 if sheet.width < 5 else 6
        down = math.ceil(len(shown) / across)
        figure = _figure(sheet.width, ((sheet.width / across - 0.1) * tall + 0.36) * down)
        all_axes = figure.subplots(down, across, squeeze=False)
    for axes in all_axes.flat:
        axes.set_axis_off()
    places = all_axes[:, 0] if with_samples else all_axes.flat
    for place, (axes, (row, plan, images)) in enumerate(zip(places, shown, strict=False)):
        steps = f"{row.about['n_steps']} step{'s' * (row.about['n_steps'] != 1)}"
        title = f"{row.arm}: {steps}, {training_words(row)}" if with_samples else f"{row.arm}\n{steps}"
        axes.set_title(title, fontweight="normal", pad=3, fontsize=SMALLEST)
        if plan is not None:
            step_RC = plan.step_of_cell().reshape(plan.lattice.rows, plan.lattice.cols)
            axes.imshow(step_RC, cmap="viridis", vmin=0, vmax=max(1, plan.n_steps - 1), interpolation="nearest")
        if images is not None:
            all_axes[place, 1].imshow(mosaic(images[: 2 * many], many), interpolation="nearest")
    if len(entries) > len(shown):
        _foot(figure, [f"{len(entries) - len(shown)} more arms are not shown"])
    return figure


@_styled
def sample_sheets(results: Results, sheet: Sheet) -> Figure | None:
    """The first samples of every arm, and of its floors: the same seeds and labels, column by column."""
    entries = [(row.arm, pictures_of(results, "quality", row.arm)) for row in results.arms if row.setting == "fixed"]
    entries += [(FLOOR_NAMES.get(row.arm, row.arm), pictures_of(results, "floor", row.arm)) for row in results.floors]
    shown = [(name, images) for name, images in entries if images is not None]
    if not shown:
        return None
    across = 1 if sheet.width < 5 else 2
    down = math.ceil(len(shown) / across)
    sheets = [mosaic(images[:40], 10) for _, images in shown]
    tallest = max(one.shape[0] / one.shape[1] for one in sheets)
    figure = _figure(sheet.width, down * ((sheet.width / across - 0.1) * tallest + 0.24))
    grid_axes = figure.subplots(down, across, squeeze=False)
    for axes in grid_axes.flat:
        axes.set_axis_off()
    for axes, (name, _), one in zip(grid_axes.flat, shown, sheets, strict=False):
        axes.set_title(name, fontweight="normal", pad=3)
        axes.imshow(one, interpolation="nearest")
    return figure


# All of them


@dataclass(frozen=True)
class Plot:
    """One figure of a report. name: of its files; section: of the page; caption: what it says and what it cannot."""

    name: str
    section: str
    draw: Draw
    caption: str


PLOTS = (
    Plot("fd-by-steps", "quality", quality_by_steps("fd"),
         "Each line is one order under the same weights, noise and labels; whiskers are 95 % jackknife intervals. FD "
         "is biased upwards at small n, not by the same amount for every arm: read it beside KD, and read no value as "
         "a published FID."),
    Plot("kd-by-steps", "quality", quality_by_steps("kd"),
         "The kernel distance is nearly unbiased, and the one to read where n is small: balanced classes make it "
         "slightly too small, at equal n by about as much for every arm. It can fall below zero."),
    Plot("agreement-by-steps", "quality", quality_by_steps("agreement"),
         "The share of images that the feature network's classifier gives the label they were made for. It rewards "
         "faithful and typical images and does not see variety."),
    Plot("fd-by-steps-tuned", "quality", quality_by_steps("fd", "tuned"),
         "Each arm at the best of the settings it was tried under, found on other seeds with the same budget for all."),
    Plot("fd-by-latency", "tradeoff", quality_by_speed("latency_s"),
         "Both axes have the same guidance and settings. The front is drawn through point estimates: where whiskers "
         "overlap, it could run otherwise."),
    Plot("fd-by-throughput", "tradeoff", quality_by_speed("images_per_s"),
         "The same at a batch. Arms often change places: a batch fills the machine even with one cell a step."),
    Plot("speedups", "speed", speedups,
         "Medians of ratios within rounds in which all arms took turns, pixel decoder included. An interval that "
         "touches the grey strip has shown no difference. The pale bar is the ratio of steps, which is often quoted "
         "and hardly ever reached."),
    Plot("latency-by-step", "speed", latency_by_step,
         "A diagnostic: the device is waited for after every step. Read the shape, not the sum."),
    Plot("cells-over-time", "speed", tokens_over_time,
         "The same steps added up: how much of the picture is there, and when."),
    Plot("bits-by-steps", "likelihood", bits_by_steps,
         "Exact, on held-out images under teacher forcing. It says what a plan costs in likelihood; it does not see "
         "how errors add up when the model reads its own codes. Correction has no likelihood."),
    Plot("tax", "likelihood", tax,
         "What a plan loses by treating the cells of a step as independent: its bits minus those of the same cells one "
         "at a time. The prediction knows geometry only, a Gaussian field, neither model nor data."),
    Plot("repair", "correction", repair,
         "Codes of held-out images are made wrong at random and the correction runs over them. A rule that rewrites "
         "freely repairs much and damages much: read both."),
    Plot("changes-by-ring", "correction", changes_by_ring,
         "How often a cell is rewritten while an image is made, by distance from the middle. A rewriting is not an "
         "improvement: quality says that."),
    Plot("changes-by-cell", "correction", changes_by_cell, "The same on the grid."),
    Plot("memory", "memory", memory,
         "Peak memory of one generation beyond what was there before. On a processor this is the resident set of the "
         "process, which allocators round up; on a GPU what the allocator held."),
    Plot("orders", "samples", orders_beside_samples,
         "Dark cells first. Samples in a column share seed, label and noise."),
    Plot("samples", "samples", sample_sheets,
         "Samples in one place share seed, label and noise. Not chosen: the first of the run."),
)  # fmt: skip
