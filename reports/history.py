"""History: every number that a check may hold, over the dates and commits of a project's runs.

Knows snapshots, as `snapshot.py` makes them of runs and reads them from files, and which two of them were measured
alike. Refuses to judge: it shows where a number moved, and `check` says whether that is worse.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata, resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orderbench.orders import BenchError
from orderbench.orders.errors import printable
from orderbench.orders.files import check_folder, write_whole
from orderbench.reports.canvas import (
    SMALLEST,
    TWO_COLUMNS,
    Sheet,
    blank_figure,
    heading,
    house_style,
    legend_below,
    marks,
    save_figure,
)
from orderbench.reports.conditions import What, unlike
from orderbench.reports.looks import Look, apart
from orderbench.reports.page import inline_svg
from orderbench.reports.results import SHARES, replicate, results_of
from orderbench.reports.snapshot import KIND, baseline_of, conditions_in, counters_in, read_snapshot
from orderbench.reports.statistics import Interval, jackknife, share_interval
from orderbench.reports.table import Cell, Column, Table, TableRow, to_csv, to_json
from orderbench.reports.words import count_words, plus_minus_tiny, share_words
from orderbench.runs.record import load_run, read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType


@dataclass(frozen=True)
class Entry:
    """One run, or one file of `bench baseline`. created: when, as ISO 8601; commit: of orderbench, seven digits, and a
    plus where files were changed; both '' where nothing says so."""

    name: str
    created: str
    commit: str
    held: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The date, and the commit behind it."""
        return f"{self.created[:10]} {self.commit}".strip() or self.name


@dataclass(frozen=True)
class Point:
    """A number in one entry. apart: why it was not measured like the one before it; '' if it was."""

    value: Interval
    apart: str = ""


@dataclass(frozen=True)
class Trend:
    """One number of one arm. number: its name; better: 'low', 'high', or '' for counters, which are to stay; points: an
    entry each, None where it has no such number; rewrites: whether the arm's decoder overwrites codes."""

    arm: str
    number: str
    better: str
    points: tuple[Point | None, ...]
    rewrites: bool = False

    @property
    def moved(self) -> bool:
        """Whether any two of its values differ."""
        return len({point.value.value for point in self.points if point is not None}) > 1


@dataclass(frozen=True)
class History:
    """Entries from the oldest to the newest, and what became of every number. steady: how many counters never moved."""

    entries: tuple[Entry, ...]
    trends: tuple[Trend, ...]
    steady: int


@dataclass(frozen=True)
class _Number:
    """A kind of number: what it is called, of which kind it is for `conditions`, which end is better, and where it
    stands in a snapshot of an arm."""

    name: str
    what: What
    better: str
    get: Callable[[Mapping[str, Any]], Interval | None]
    batch: str = "1"


# Reading


def entries_of(paths: Sequence[Path]) -> list[Entry]:
    """Runs, files of `bench baseline`, and folders that hold some of either; each once, the oldest first.

    BenchError for a path that is none of these, and where nothing is found.
    """
    found: dict[str, Entry] = {}
    for path in paths:
        for one in _within(path):
            found.setdefault(os.path.realpath(one), _entry(one))
    return sorted(found.values(), key=lambda entry: (entry.created, entry.name))


def _within(path: Path) -> list[Path]:
    if not path.is_dir() or (path / "run.json").is_file():
        return [path]
    inside = sorted(path.iterdir())
    runs = [one for one in inside if (one / "run.json").is_file()]
    files = [one for one in inside if one.suffix == ".json" and one.is_file() and read_json(one).get("kind") == KIND]
    if not runs and not files:
        raise BenchError(
            f"'{path}' holds neither runs nor files of bench baseline; name some, as in bench history bench-runs"
        )
    return [*runs, *files]


def _entry(path: Path) -> Entry:
    held = baseline_of(results_of(load_run(path))) if path.is_dir() else read_snapshot(path)
    return Entry(printable(path.resolve().name), held.get("created") or "", held.get("commit") or "", held)


# Trends


def history_of(entries: Sequence[Entry]) -> History:
    """Every number of every arm, over the entries."""
    trends, steady = [], 0
    for arm in dict.fromkeys(arm for entry in entries for arm in entry.held["arms"]):
        abouts = [entry.held["arms"][arm] for entry in entries if arm in entry.held["arms"]]
        rewrites = _rewrites(arm, abouts)
        for number in _numbers(abouts):
            trend = Trend(arm, number.name, number.better, tuple(_points(arm, number, entries)), rewrites)
            if number.what == "counters" and not trend.moved:
                steady += 1
            elif any(trend.points):
                trends.append(trend)
    return History(tuple(entries), tuple(trends), steady)


def _rewrites(arm: str, abouts: Sequence[Mapping[str, Any]]) -> bool:
    """What the newest entry says that says it. Where all are older than that, any decoder is taken for one that
    does."""
    said = [about["rewrites"] for about in abouts if "rewrites" in about]
    return bool(said[-1]) if said else "+" in arm.partition("~")[0]


def _order(arm: str) -> str:
    """What stands before its pace, decoder and model. A name that is no arm has one too: files are read as they are."""
    return re.split(r"[@+~]", arm, maxsplit=1)[0]


def _numbers(abouts: Sequence[Mapping[str, Any]]) -> Iterator[_Number]:
    for batch in dict.fromkeys(batch for about in abouts for batch in about["speedup"]):
        yield _Number(f"times faster, batch {batch}", "speed-up", "high", partial(_speedup, batch), batch)
    yield _Number("latency (ms/image)", "time", "low", _latency)
    for metric, head in (("fd", "FD"), ("kd", "KD"), ("agreement", "agreement")):
        what: What = "kernel distance" if metric == "kd" else "quality"
        better = "high" if metric == "agreement" else "low"
        yield _Number(head, what, better, partial(_metric, metric))
    yield _Number("bits/token", "bits", "low", _bits)
    for counter in dict.fromkeys(name for about in abouts for name in about["counters"]):
        yield _Number(counter, "counters", "", partial(_counted, counter))


def _points(arm: str, number: _Number, entries: Sequence[Entry]) -> Iterator[Point | None]:
    before: Entry | None = None
    for entry in entries:
        about = entry.held["arms"].get(arm)
        value = None if about is None else number.get(about)
        if value is None:
            yield None
            continue
        why = ""
        if before is not None:
            one, two = (conditions_in(side.held, arm, number.batch) for side in (before, entry))
            why = unlike(one, two, number.what)
        yield Point(value, why)
        before = entry


def _speedup(batch: str, about: Mapping[str, Any]) -> Interval | None:
    return _stored(about["speedup"].get(batch))


def _metric(metric: str, about: Mapping[str, Any]) -> Interval | None:
    by_seed = about["quality"].get(metric)
    if not by_seed:
        return None
    if metric in SHARES and about["n"]:
        return share_interval([one["value"] for one in by_seed.values()], [about["n"]] * len(by_seed))
    return jackknife([replicate(one) for one in by_seed.values()])


def _bits(about: Mapping[str, Any]) -> Interval | None:
    return jackknife([replicate(about["bits"])]) if about["bits"] else None


def _stored(ends: Sequence[float | None] | None) -> Interval | None:
    return None if ends is None or ends[0] is None else Interval(ends[0], ends[1], ends[2])


def _latency(about: Mapping[str, Any]) -> Interval | None:
    stored = _stored(about["latency_s"])
    return None if stored is None else stored.scaled(1000)


def _counted(counter: str, about: Mapping[str, Any]) -> Interval | None:
    counts = {counted[counter] for counted in counters_in(about).values() if counter in counted}
    return Interval(float(max(counts))) if counts else None


# Showing


def _said(trend: Trend, point: Point | None) -> str:
    if point is None:
        return "-"
    if trend.number == "agreement":
        return share_words(point.value)
    return plus_minus_tiny(point.value) if trend.better else count_words(point.value.value)


def terminal(history: History, width: int) -> RenderableType:
    """A table with a column for each entry, the newest ones if they do not all fit, and what parts them below it."""
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    reasons: dict[str, int] = {}
    rows = []
    for trend in history.trends:
        cells = []
        for point in trend.points:
            mark = "" if point is None or not point.apart else f" [{reasons.setdefault(point.apart, len(reasons) + 1)}]"
            cells.append(_said(trend, point) + mark)
        rows.append((printable(trend.arm), printable(trend.number), cells))
    left = min(18, max(len(arm) for arm, _, _ in rows)) + max(len(number) for _, number, _ in rows) + 3
    room = max(1, (width - left) // (2 + max(10, *(len(cell) for _, _, cells in rows for cell in cells))))
    first = max(0, len(history.entries) - room)
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    grid.add_column(Text("arm"), style="cyan", overflow="fold", min_width=12)
    grid.add_column(Text("number"), no_wrap=True)
    for entry in history.entries[first:]:
        grid.add_column(Text(printable(entry.title).replace(" ", "\n", 1)), justify="right", no_wrap=True, min_width=10)
    shown = ""
    for arm, number, cells in rows:
        if any(cell != "-" for cell in cells[first:]):
            grid.add_row(*map(Text, ("" if arm == shown else arm, number, *cells[first:])))
            shown = arm
    notes = [f"[{number}] not measured like the one before it: {why}" for why, number in reasons.items()]
    if first:
        notes.append(f"The newest {room} of {len(history.entries)}; --csv, --json and the page of --out have all.")
    notes += list(notes_of(history))
    return Group(grid, *(Text(printable(note), style="dim") for note in notes))


def notes_of(history: History) -> Iterator[str]:
    """What else is to be known, a sentence each."""
    if history.steady:
        yield f"{history.steady} counters never moved."
    for entry in history.entries:
        if entry.held["busy"]:
            yield f"{entry.name}: read no speed from this: {entry.held['busy']}."


def long_table(history: History) -> Table:
    """A row for every number of every entry."""
    columns = (
        Column("run", "run"), Column("created", "date"), Column("commit", "commit"), Column("arm", "arm"),
        Column("number", "number"), Column("value", "value"), Column("apart", "not measured like the one before"),
    )  # fmt: skip
    rows = []
    for trend in history.trends:
        for entry, point in zip(history.entries, trend.points, strict=True):
            if point is not None:
                cells: dict[str, Cell] = {
                    "run": entry.name, "created": entry.created, "commit": entry.commit or None, "arm": trend.arm,
                    "number": trend.number, "value": point.value, "apart": point.apart or None,
                }  # fmt: skip
                rows.append(TableRow(trend.arm, trend.arm, cells, competes=False))
    caption = " ".join(notes_of(history))
    return Table("history", "History", caption, columns, tuple(rows))


def history_csv(history: History) -> str:
    """Comma-separated values, a row for every number of every entry."""
    return to_csv(long_table(history))


def history_json(history: History) -> dict[str, Any]:
    """Plain values, a row for every number of every entry."""
    table = to_json(long_table(history))
    rows = [{name: cell for name, cell in row.items() if name != "competes"} for row in table["rows"]]
    entries = [{"run": one.name, "created": one.created, "commit": one.commit or None} for one in history.entries]
    return {"entries": entries, "numbers": rows, "counters_that_never_moved": history.steady}


def draw_history(history: History, number: str, sheet: Sheet) -> Figure:
    """One number of all arms over the entries. A line ends where the next value was not measured alike."""
    from matplotlib.lines import Line2D

    trends = [trend for trend in history.trends if trend.number == number]
    with house_style(sheet.font):
        figure = blank_figure(sheet.width, 2.1)
        axes = figure.add_subplot()
        legend: dict[str, tuple[Any, str]] = {}
        orders = [_order(trend.arm) for trend in trends]
        looks = apart(list(dict.fromkeys(orders)))
        for place, (trend, order) in enumerate(zip(trends, orders, strict=True)):
            look = Look(place, order, *looks[order], hollow=trend.rewrites)
            shift = (place - (len(trends) - 1) / 2) * min(0.08, 0.5 / len(trends))  # so that whiskers stand apart
            known = [(at + shift, point) for at, point in enumerate(trend.points) if point is not None]
            for x, point in known:
                low, high = point.value.low, point.value.high
                if low is not None and high is not None:
                    axes.plot([x, x], [low, high], color=look.color, linewidth=0.8)
            for (x, one), (then, two) in pairwise(known):
                if not two.apart:
                    axes.plot([x, then], [one.value.value, two.value.value], color=look.color, linewidth=1.1)
            for x, point in known:
                axes.plot([x], [point.value.value], linestyle="none", **marks(look))
            if orders.count(order) > 1 and trend.arm != order:
                x, point = known[-1]
                axes.annotate(trend.arm.removeprefix(order), (x, point.value.value), (4, 2), fontsize=SMALLEST,
                              textcoords="offset points", color=look.color)  # fmt: skip
            legend[trend.arm] = (Line2D([], [], linewidth=1.1, **marks(look)), "")
        axes.set_xticks(range(len(history.entries)), [entry.title.replace(" ", "\n", 1) for entry in history.entries])
        if len(history.entries) > 8:
            axes.tick_params(axis="x", rotation=90)
        axes.set_xlim(-0.5, len(history.entries) - 0.5)
        axes.set_ylabel(number)
        better = trends[0].better if trends else ""
        heading(
            sheet, figure, f"{number}: {'less' if better == 'low' else 'more'} is better" if better else number, axes
        )
        words = ["whiskers: 95 %", "a line ends where the next value was not measured alike"]
        legend_below(sheet, figure, legend, words)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def write_history(history: History, out: Path) -> Path:
    """Write history.html, history.csv and, under figures/, a figure for every number; the path of the page.

    BenchError if that is not possible.
    """
    numbers = list(dict.fromkeys(trend.number for trend in history.trends))
    svgs = []
    try:
        check_folder(out, "figures")
        for place, number in enumerate(numbers):
            name = "".join(letter if letter.isalnum() else "-" for letter in number.lower()).strip("-")
            figure = draw_history(history, number, Sheet(TWO_COLUMNS))
            for kind in ("png", "svg"):
                write_whole(out / "figures" / f"{name}.{kind}", partial(save_figure, figure))
            svg = (out / "figures" / f"{name}.svg").read_text(encoding="utf-8")
            svgs.append(inline_svg(svg, f"h{place}-", {}))
        _text(out / "history.csv", history_csv(history))
        _text(out / "history.html", _page(history, svgs))
    except OSError as problem:
        raise BenchError(
            f"the history could not be written to '{out}': {problem.strerror or problem}; name another place, as in "
            f"--out history"
        ) from problem
    return out / "history.html"


def _page(history: History, svgs: Sequence[str]) -> str:
    import jinja2

    template = (resources.files("orderbench.reports") / "history.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    rows = [
        (
            trend.arm,
            trend.number,
            [(_said(trend, point), "" if point is None else point.apart) for point in trend.points],
        )
        for trend in history.trends
    ]
    return environment.from_string(template).render(
        version=metadata.version("orderbench"), entries=history.entries, rows=rows, svgs=svgs,
        notes=[printable(note) for note in notes_of(history)], title=_title(history),
    )  # fmt: skip


def _title(history: History) -> str:
    first, last = history.entries[0], history.entries[-1]
    return f"{len(history.entries)} runs, {first.title} to {last.title}"


def _text(file: Path, text: str) -> None:
    write_whole(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
