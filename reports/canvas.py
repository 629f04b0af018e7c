"""The canvas: what every figure is drawn on, in one style, with labels that are put where they cover nothing.

Knows matplotlib, looks and what a figure says at its foot. Refuses to know what is drawn.

Hollow markers are of decoders that rewrite codes, filled ones of all others, in every figure. A line runs only between
neighbouring numbers of steps; where they lie more than `FAR` times apart, nothing was measured in between, and dots
take its place.

What a page may do with a figure, it finds in the SVG:

* Everything of an order, its words and its part of the legend too, has the id `order:SPELLING`, such as
  `order:radial:width=2`, and can so be hidden. The id comes more than once.
* The Pareto front is the group with the id `front`, its name the text with the id `front-label`. The group's attribute
  `data-front` holds JSON in the units of the SVG, y downwards:

      {"better": "left" | "right", "worst": [X, Y], "points": [{"order": SPELLING, "x": x, "y": y}, ...]}

  A point is on the front if no other point is at least as far to the better side and at least as low, and further in
  one of them. With the points of the front from the best x to the worst, (x0, y0), (x1, y1), ..., the path is
  `M x0 Y V y0 H x1 V y1 ... H X`. So a page that hides an order draws the front again from the points that are left.
"""

from __future__ import annotations

import difflib
import functools
import html
import itertools
import json
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from orderbench.orders import BenchError
from orderbench.orders.errors import printable
from orderbench.reports.looks import Look, line_look, looks_of
from orderbench.reports.queries import pareto
from orderbench.reports.results import Results, Row
from orderbench.reports.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

ONE_COLUMN, TWO_COLUMNS = 3.3, 6.9  # inches
SMALLEST = 7  # points, of any text
MOST_NAMES = 8  # of lines, next to their points; a legend holds more
FAR = 4.0  # times as many steps: further apart, no line joins two points
QUIET, FAINT, WARM = "#5f6873", "#c3c9d0", "#a34700"
FRONT = "Pareto front"


@dataclass(frozen=True)
class Sheet:
    """What figures are drawn on: how wide, in inches, and how orders look; by default by their names.

    font: 'serif', 'sans' or an installed family; '' for the house's own. clean: no title, warning or foot inside, as a
    paper wants it: `said` still finds them.
    """

    width: float = ONE_COLUMN
    looks: Mapping[str, Look] = field(default_factory=dict)
    font: str = ""
    clean: bool = False

    def look(self, results: Results, row: Row) -> Look:
        """The look of a row's line."""
        return line_look(self.looks or looks_of([results]), results, row)


@contextmanager
def house_style(font: str = "") -> Iterator[None]:
    """The style of the suite, for drawing and for saving; in another font where one is named."""
    import matplotlib as mpl

    with (
        resources.as_file(resources.files("orderbench.reports") / "house.mplstyle") as file,
        mpl.rc_context(fname=file),
    ):
        if font:
            mpl.rcParams["font.family"] = families(font)
        yield


_SERIF = ("Times New Roman", "Nimbus Roman", "Liberation Serif", "STIXGeneral")
_SANS = ("Helvetica", "Arial", "Nimbus Sans", "Liberation Sans", "DejaVu Sans")


def families(font: str) -> list[str]:
    """The families of a font that a person names, those that draw what it lacks behind it; BenchError if there is no
    such font here. 'serif' and 'sans' are always there."""
    from matplotlib.font_manager import get_font_names

    installed = sorted(get_font_names())
    last = "DejaVu Sans"  # comes with matplotlib and lacks nothing that figures say
    named = {"serif": _SERIF, "sans": _SANS}.get(font)
    if named is not None:
        return list(dict.fromkeys([next(one for one in named if one in installed), last]))
    exact = next((one for one in installed if one.lower() == font.lower()), None)
    if exact is None:
        near = difflib.get_close_matches(font, installed, n=3, cutoff=0.5)
        raise BenchError(
            f"the font '{printable(font)}' is not installed; serif and sans would do, and so would "
            f"{', '.join(near or [one for one in (*_SERIF, *_SANS) if one in installed])}: give one of them, as in "
            f"--font serif"
        )
    return list(dict.fromkeys([exact, last]))


def save_figure(figure: Figure, path: Path, dpi: int = 220) -> None:
    """Write a figure to a .png, .svg or .pdf file: the same figure, the same bytes. OSError is let through."""
    kind = path.suffix.lstrip(".")
    metadata: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    figure.savefig(path, format=kind, dpi=dpi, metadata=metadata.get(kind, {}))
    front = front_of(figure) if kind == "svg" else None
    if front is not None:
        told = f'<g id="front" data-front="{html.escape(json.dumps(front))}">'
        path.write_text(path.read_text(encoding="utf-8").replace('<g id="front">', told, 1), encoding="utf-8")


def front_of(figure: Figure) -> dict[str, Any] | None:
    """What the SVG of a figure says of its Pareto front, as the head of this module describes; None without one."""
    for axes in figure.axes:
        front = next((line for line in axes.lines if line.get_gid() == "front"), None)
        if front is not None:
            ends = _on_svg(figure, axes, front)
            points = []
            for line in axes.lines:
                kind, _, order = str(line.get_gid() or "").partition(":")
                if kind == "order" and line.get_marker() not in ("None", "", None):
                    points += [{"order": order, "x": x, "y": y} for x, y in _on_svg(figure, axes, line)]
            better = "left" if ends[-1][0] > ends[0][0] else "right"
            return {"better": better, "worst": [ends[-1][0], ends[0][1]], "points": points}
    return None


def _on_svg(figure: Figure, axes: Any, line: Any) -> list[tuple[float, float]]:
    """The points of a line in the units of an SVG, 72 an inch, y downwards."""
    spots_N2 = axes.transData.transform(line.get_xydata())
    return [(round(float(x * 72 / figure.dpi), 2), round(float((figure.bbox.height - y) * 72 / figure.dpi), 2))
            for x, y in spots_N2]  # fmt: skip


Draw = Callable[[Results, Sheet], "Figure | None"]


def styled(draw: Draw) -> Draw:
    """A drawing function that draws in the house style, and lays its figure out once."""

    @functools.wraps(draw)
    def in_style(results: Results, sheet: Sheet) -> Figure | None:
        with house_style(sheet.font):
            figure = draw(results, sheet)
            if figure is not None:  # laid out once, not with every file it is written to
                figure.draw_without_rendering()
                figure.set_layout_engine("none")
            return figure

    return in_style


def blank_figure(width: float, height: float) -> Figure:
    """An empty figure of some inches, which is saved in the house style whoever saves it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure: Figure = _kind_of_figure()(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot: whatever backend the caller uses stays theirs
    return figure


@functools.cache
def _kind_of_figure() -> Any:
    """matplotlib's figure, saved with fonts embedded as type 42 and words as words; made once, when first needed."""
    from matplotlib.figure import Figure

    class HouseFigure(Figure):
        def savefig(self, *where: Any, **how: Any) -> None:
            with house_style():
                super().savefig(*where, **how)

    return HouseFigure


def foot(sheet: Sheet, figure: Figure, words: Sequence[str], warn: str = "", above: float = 0.0) -> float:
    """Write what the numbers rest on below the axes, and leave room for it; its height, in inches.

    warn: a line of its own, first. above: inches between all this and the axes, for a legend.
    """
    lines, wide = [""], int(figure.get_figwidth() * 19.5)
    for phrase in filter(None, words):
        joined = f"{lines[-1]} · {phrase}" if lines[-1] else phrase
        lines = [*lines[:-1], joined] if len(joined) <= wide else [*lines, phrase]
    told = [part for line in lines if line for part in textwrap.wrap(line, wide)]
    line, tall = 0.133, figure.get_figheight()
    for written in [one for one in figure.texts if one.get_label() == "foot"]:
        written.remove()
    for kind, text in ((_WORDS, "; ".join(filter(None, words))), (_WARNING, warn)):
        figure.text(0, 0, text, visible=False, gid=kind, label="foot")
    drawn = [] if sheet.clean else [warn, *told] if warn else told
    for place, text in enumerate(reversed(drawn)):
        figure.text(0.012, (0.03 + line * place) / tall, text, va="bottom", fontsize=SMALLEST,
                    color=WARM if text == warn else QUIET, label="foot")  # fmt: skip
    height = line * len(drawn) + 0.06 * bool(drawn)
    reserved = (height + above) / tall
    figure.set_layout_engine("constrained", rect=(0, reserved, 1, 1 - reserved))
    return height


_TITLE, _WORDS, _WARNING = "said-title", "said-words", "said-warning"  # of texts that are never drawn


def heading(sheet: Sheet, figure: Figure, text: str, axes: Any = None) -> None:
    """A title over some axes, or over the whole figure where the axes begin far from its left."""
    figure.text(0, 0, text, visible=False, gid=_TITLE)
    if sheet.clean:
        return
    if axes is None:
        figure.suptitle(text, x=0.012, ha="left", fontsize=8, fontweight="bold").set_gid(_TITLE)
    else:
        axes.set_title(text)


@dataclass(frozen=True)
class Said:
    """What a figure says beside its picture, whether it is drawn there or not."""

    title: str
    words: str
    warning: str


def said(figure: Figure) -> Said:
    """The title, the foot and the warning of a figure."""
    told = {str(text.get_gid()): text.get_text() for text in figure.texts if not text.get_visible()}
    return Said(told.get(_TITLE, ""), told.get(_WORDS, ""), told.get(_WARNING, ""))


def legend_below(sheet: Sheet, figure: Figure, entries: Mapping[str, tuple[Artist, str]], words: Sequence[str],
                 warn: str = "") -> None:  # fmt: skip
    """A legend below the axes and what the numbers rest on below that. entries: by name, a sample and its id."""
    wide = 0.42 + 0.055 * max(map(len, entries))
    columns = max(1, int(sheet.width / wide))
    height = 0.132 * math.ceil(len(entries) / columns) + 0.05
    figure.set_figheight(figure.get_figheight() + height)
    below = foot(sheet, figure, words, warn, above=height)
    legend = figure.legend(
        [sample for sample, _ in entries.values()], entries.keys(), loc="lower left", ncols=columns, borderpad=0.1,
        columnspacing=1.0, bbox_to_anchor=(0.0, (below + 0.02) / figure.get_figheight()), borderaxespad=0.3,
        labelspacing=0.3,
    )  # fmt: skip
    for (_, gid), handle, text in zip(entries.values(), legend.legend_handles, legend.get_texts(), strict=True):
        for part in (handle, text):
            if part is not None and gid:
                part.set_gid(gid)


def marks(look: Look, size: float = 5.4) -> dict[str, Any]:
    """A look's markers, as matplotlib wants them: hollow, with an edge of the look's colour, or filled."""
    return {"color": look.color, "marker": look.marker, "markersize": size - look.hollow * 0.6,
            "markerfacecolor": "white" if look.hollow else look.color,
            "markeredgecolor": look.color if look.hollow else "white",
            "markeredgewidth": 1.0 if look.hollow else 0.5}  # fmt: skip


def _line_sample(look: Look) -> Artist:
    """A look's line, for a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linewidth=1.2, **{"linestyle": look.dash, **marks(look)})


def shape_of(batch: int, batches: Iterable[int]) -> str:
    """The marker of a batch among others, where markers say batches and not orders: a circle is batch 1."""
    larger = sorted({*batches} - {1})
    return "o" if batch == 1 else "s^Dvp*"[larger.index(batch) % 6]


def sample(marker: str = "", color: str = QUIET, width: float = 0.0) -> Artist:
    """A marker, or a short upright bar of some width in points, for a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="none", marker=marker or "|", color=color, markersize=4.6 if marker else 8,
                  markeredgewidth=width or None)  # fmt: skip


# Charts: points, lines and labels on one pair of axes


@dataclass(frozen=True)
class _Label:
    """text: next to a point. line: the one it belongs to; '' for a horizontal line. more: a number of steps, which a
    legend can say too, and not the name of its line. rank: of those, the lowest are placed first. spots: further places
    for it."""

    text: str
    line: str
    x: float
    y: float
    color: str
    gid: str = ""
    more: bool = False
    rank: int = 0
    spots: tuple[tuple[float, float], ...] = ()


_DIRECTIONS = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 0), (-1, 1), (-1, -1))
_DISTANCES = (6, 11, 18, 27, 38)  # points; from the third on with a leader


class Chart:
    """One pair of axes, and labels that are put next to their lines where they fit, into a legend where they do not."""

    def __init__(self, sheet: Sheet, title: str) -> None:
        self.sheet = sheet
        self.figure = blank_figure(sheet.width, min(0.8 * sheet.width, 3.6))
        self.axes = self.figure.subplots()
        heading(sheet, self.figure, title, self.axes)
        self.axes.grid(axis="y")
        self.labels: list[_Label] = []
        self.points: list[tuple[float, float, str]] = []
        self.paths: list[tuple[Sequence[float], Sequence[float]]] = []
        self.levels: list[_Label] = []
        self.handles: dict[str, Any] = {}

    def series(
        self, look: Look, line: str, xs: Sequence[Interval], ys: Sequence[Interval], *, steps: Sequence[float] = (),
        joined: bool = True, thin: bool = False,
    ) -> None:  # fmt: skip
        """Points with their intervals, in one look. steps: of every point; far apart, dots take the line's place."""
        x, y = [one.value for one in xs], [one.value for one in ys]
        for across, up in zip(xs, ys, strict=True):
            for low, high, horizontal in ((across.low, across.high, True), (up.low, up.high, False)):
                if low is not None and high is not None:
                    ends = ([low, high], [up.value] * 2) if horizontal else ([across.value] * 2, [low, high])
                    self.axes.plot(*ends, color=look.color, linewidth=0.8, alpha=0.6, zorder=2, gid=look.gid)
                    self.paths.append(ends)
        for i in range(len(x) - 1) if joined else ():
            far = bool(steps) and max(steps[i : i + 2]) > FAR * min(steps[i : i + 2])
            ends = (x[i : i + 2], y[i : i + 2])
            self.axes.plot(
                *ends, color=look.color, gid=look.gid, zorder=2.8, linewidth=0.8 if far else 0.6 if thin else 1.2,
                linestyle=(0, (0.8, 4)) if far else look.dash,
            )  # fmt: skip
            self.paths.append(ends)
        self.axes.plot(x, y, zorder=3, gid=look.gid, **marks(look, 4.2 if thin else 5.4), linestyle="none")
        self.handles.setdefault(line, look)
        self.points += [(a, b, line) for a, b in zip(x, y, strict=True)]

    def label(self, text: str, look: Look, line: str, x: float, y: float, more: bool = False, rank: int = 0) -> None:
        """A word next to a point."""
        self.labels.append(_Label(text, line, x, y, look.color, look.gid, more, rank))

    def curve(self, look: Look, line: str, x: np.ndarray, y: np.ndarray, *, steps: bool = False) -> None:
        """A line through everything that was measured, with a marker at its end alone. steps: as a staircase."""
        self.axes.plot(x, y, color=look.color, linestyle=look.dash, linewidth=1.0, gid=look.gid,
                       drawstyle="steps-post" if steps else "default")  # fmt: skip
        self.axes.plot([x[-1]], [y[-1]], zorder=3, gid=look.gid, **marks(look))
        self.handles.setdefault(line, look)
        self.points.append((float(x[-1]), float(y[-1]), line))
        self.paths.append((x.tolist(), y.tolist()))

    def front(self, better: Literal["left", "right"]) -> None:
        """The Pareto front of all points so far: what none beats, the lower the better, within the axes as they are."""
        sign = 1 if better == "left" else -1
        among = [(sign * x, y) for x, y, _ in self.points]
        best = sorted({among[i] for i in pareto(among)})
        (left, right), (_, top) = self.axes.get_xlim(), self.axes.get_ylim()
        xs, ys = [sign * best[0][0]], [top]
        for x, y in best:
            xs += [sign * x] * 2
            ys += [ys[-1], y]
        xs.append(right if better == "left" else left)
        ys.append(ys[-1])
        self.axes.plot(xs, ys, color=QUIET, linewidth=1.8, alpha=0.75, zorder=2.6, gid="front", scalex=False,
                       scaley=False, solid_joinstyle="miter")  # fmt: skip
        self.paths.append((xs, ys))
        corners = list(zip(xs[1:], ys[1:], strict=True))
        self.labels.append(_Label(FRONT, FRONT, *corners[1], QUIET, "front-label", spots=tuple(corners[2:-1])))

    def level(self, name: str, value: Interval) -> None:
        """A horizontal line, such as a floor, its interval at the right end."""
        self.axes.axhline(value.value, color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        if value.low is not None and value.high is not None:
            place = 0.995 - 0.012 * len(self.levels)
            self.axes.plot([place] * 2, [value.low, value.high], color=QUIET, linewidth=0.8, alpha=0.6, zorder=1,
                           transform=self.axes.get_yaxis_transform(), scaley=False)  # fmt: skip
        self.levels.append(_Label(name, "", math.nan, value.value, QUIET))

    def finish(self, *words: str, warn: str = "") -> Figure:
        """Place the labels, or make a legend where one of them finds no place; the figure."""
        names = sum(not label.more for label in self.labels)
        foot(self.sheet, self.figure, words, warn)
        self.figure.draw_without_rendering()
        if names > MOST_NAMES or not self._place(self.labels, all_or_none=True):
            self._legend(words, warn)
        return self.figure

    def _legend(self, words: Sequence[str], warn: str) -> None:
        """All lines below the axes, each with its numbers of steps, and the points' labels as far as they fit."""
        named = {line: line for line in self.handles}
        for line in named:
            points = [one.text for one in self.labels if one.more and one.line == line and one.text != line]
            named[line] += f": {', '.join(dict.fromkeys(points))}" if points else ""
        entries = {named[line]: (_line_sample(look), look.gid) for line, look in self.handles.items()}
        legend_below(self.sheet, self.figure, entries, words, warn)
        self.figure.draw_without_rendering()
        self._place([label for label in self.labels if label.more or label.line == FRONT])

    def _place(self, labels: Sequence[_Label], all_or_none: bool = False) -> bool:
        """Put labels where they cover nothing, the names of lines first; whether all found a place."""
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
        whole, n_points = True, len(solid)
        for label in (*sorted(labels, key=lambda one: (one.more, one.rank)), *self.levels):
            text = self.axes.text(
                0, 0, label.text, fontsize=SMALLEST, color=label.color, gid=label.gid or None, zorder=4
            )
            texts.append(text)
            size = text.get_window_extent()
            first = self.axes.get_xlim()[0] if math.isnan(label.x) else label.x
            spots_N2 = across.transform([(first, label.y), *label.spots])
            others = [(a, b) for a, b, line in self.points if line != label.line and label.line != FRONT]
            others_N2 = across.transform(others) if others else np.empty((0, 2))
            solid_N4 = np.array(solid or np.empty((0, 4)))
            found = self._best(
                spots_N2, (size.width, size.height), solid_N4, light, solid_N4[n_points:], others_N2, label, scale
            )
            if found is None:
                texts.pop().remove()
                whole = whole and not label.line  # a level is named once more in the caption
                continue
            box, leader, (x, y) = found
            solid.append((box[0] - 2 * scale, box[1], box[2] + 2 * scale, box[3]))
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
        if all_or_none and not whole:
            for artist in texts:
                artist.remove()
        return whole

    def _best(
        self, spots_N2: np.ndarray, size: tuple[float, float], solid_N4: np.ndarray, light_N4: np.ndarray,
        words_N4: np.ndarray, others_N2: np.ndarray, label: _Label, scale: float,
    ) -> tuple[tuple[float, float, float, float], bool, tuple[float, float]] | None:  # fmt: skip
        """The box, in pixels, that covers least, whether it needs a leader, and to where; None where all cover too
        much."""
        inside, frame = self.axes.bbox, self.figure.bbox
        best, least = None, 9.0
        boxes = ((number, box, leader, (float(x), float(y))) for x, y in spots_N2
                 for number, (box, leader) in enumerate(self._candidates(x, y, *size, label, scale)))  # fmt: skip
        for number, box, leader, point in boxes:
            if box[0] < inside.x0 + scale or box[2] > frame.x1 - scale or box[1] < inside.y0 or box[3] > inside.y1 + 4:
                continue
            if _covered(box, solid_N4):
                continue
            cost = 1.5 * min(_covered(box, light_N4), 5) + 0.11 * number
            if leader:  # through another word, it would seem to be that one's
                ends = np.array([point, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)])
                cost += 4.0 * any(_covered(one, words_N4) for one in _along(ends, 2 * scale))
            if label.line and len(others_N2):  # nearer to another line's point, a word would name that one
                cost += 4.0 * (_distance(box, others_N2).min() < _distance(box, np.array([point]))[0] + 2 * scale)
            if cost < least:
                best, least = (box, leader, point), cost
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
        for distance in _DISTANCES[: 2 if label.more or label.line == FRONT else None]:
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
    """A logarithmic axis with plain numbers at 1, 2, 5, or at powers of a base of two or four."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(values), max(values)
    if base != 10:
        ticks = [float(base) ** p for p in range(math.floor(math.log(low, base)), math.ceil(math.log(high, base)) + 1)]
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
