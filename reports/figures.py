"""Figures: one function each, from the results of a run to a picture, or None where there is nothing to draw.

Knows results, plans and the canvas. Refuses to compute what it draws, to keep any state, and to leave out how much a
number rests on: every figure says its n, and that it is a first look where the sample is small.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from orderbench.orders import Grid, Plan
from orderbench.reports.canvas import (
    FAINT,
    FAR,
    FRONT,
    QUIET,
    SMALLEST,
    Chart,
    Draw,
    Sheet,
    blank_figure,
    exactly,
    extent,
    foot,
    heading,
    legend_below,
    log_if_wide,
    marks,
    plain_ticks,
    sample,
    shape_of,
    styled,
)
from orderbench.reports.maps import levels_beside
from orderbench.reports.queries import (
    bits_apart,
    changed_cells,
    guided,
    latency_trials,
    lattice,
    likelihood_n,
    n_rounds,
    pareto,
    passes_and_tax,
    passes_words,
    pictures_of,
    plan_of,
    quality_trials,
    rings_of,
    step_seconds,
    throughput_batch,
    timed_apart,
)
from orderbench.reports.results import Results, Row, held_out_words, model_of, step_ratio, times_seeds, too_small
from orderbench.reports.statistics import Interval, rank_correlation
from orderbench.reports.words import (
    APART,
    baseline_words,
    bounds,
    busy_words,
    count_words,
    digits,
    floor_name,
    training_words,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MAPS = 12  # in one figure
METRIC_NAMES = {"fd": "FD", "kd": "KD", "agreement": "Class agreement"}


def _lines(rows: Sequence[Row]) -> Iterator[tuple[list[Row], list[Row]]]:
    """By order, decoder and model: the rows that a line joins, by steps, and the others.

    Where one number of steps was reached by two paces, the line keeps to the pace law that the order uses most.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.line, []).append(row)
    for group in groups.values():
        laws = [_law(row) for row in group]
        by_steps: dict[float, list[Row]] = {}
        for row in sorted(group, key=lambda row: -laws.count(_law(row))):
            by_steps.setdefault(row.n_steps, []).append(row)
        yield [by_steps[n][0] for n in sorted(by_steps)], [row for rows_n in by_steps.values() for row in rows_n[1:]]


def _sizes(row: Row) -> list[int]:
    return row.about["sizes"]


def _law(row: Row) -> str:
    return row.about["pace"].partition(":")[0]


def _rests_on(results: Results, rows: Sequence[Row]) -> tuple[list[str], str]:
    """What quality figures rest on, and a warning where that is little."""
    counts = sorted({row.n for row in rows if row.n is not None})
    small = any(too_small(results, row) for row in rows)
    n = f"n = {', '.join(map(str, counts))}{times_seeds(rows)}"
    space = f"space {results.space}"
    return ([space], f"{n}: a first look") if small else ([f"{n} an arm", space], "")


def _about_rewriting(rows: Sequence[Row]) -> str:
    return "hollow: with correction" if len({row.rewrites for row in rows}) == 2 else ""


def _about_far(rows: Sequence[Row]) -> str:
    """What dots between two points say, where a figure has any."""
    pairs = (itertools.pairwise(line) for line, _ in _lines(rows))
    far = any(b.n_steps > FAR * a.n_steps for line in pairs for a, b in line)
    return "dots: nothing measured in between" if far else ""


def _about_load(results: Results) -> str:
    return "other programs ran during the timing" if busy_words(results) else ""


# Quality


def quality_by_steps(metric: str, setting: str = "fixed") -> Draw:
    """A metric against steps, a line an order, between its floor and its ceiling."""

    def draw(results: Results, sheet: Sheet) -> Figure | None:
        rows = [row for row in results.arms if row.setting == setting and metric in row.figures]
        if not rows:
            return None
        tuned = ", each arm's best setting" if setting == "tuned" else ""
        chart = Chart(sheet, f"{METRIC_NAMES[metric]} against steps{tuned}")
        values = _by_steps(chart, results, rows, lambda row: row.figures[metric])
        floors = {floor_name(one): one.figures[metric] for one in results.floors if metric in one.figures}
        everything = [*values, *(one.value for one in floors.values())]
        log = metric in ("fd", "kd") and log_if_wide(chart.axes.yaxis, everything)
        if log:
            chart.axes.set_ylim(min(everything) / 1.3, max(everything) * 1.35)
        span, off = max(values) - min(values), []
        for name, floor in floors.items():
            if log or min(values) - span <= floor.value <= max(values) + span:
                chart.level(name, floor)
            else:  # the axis is for the arms
                off.append(f"off the axis: {name} {floor.value:.{digits(floor.value)}f}")
        chart.axes.set_ylabel(METRIC_NAMES[metric])
        words, first_look = _rests_on(results, rows)
        better = "higher is better" if metric == "agreement" else "lower is better"
        return chart.finish(*words, better, _about_far(rows), _about_rewriting(rows), *off, warn=first_look)

    return styled(draw)


def _by_steps(chart: Chart, results: Results, rows: Sequence[Row], figure: Callable[[Row], Interval]) -> list[float]:
    """Lines over steps, side by side where they meet; the values and bounds that were drawn."""
    lines = list(_lines(rows))
    at_steps: dict[float, list[int]] = {}
    for place, (line, others) in enumerate(lines):
        for n in {row.n_steps for row in (*line, *others)}:
            at_steps.setdefault(n, []).append(place)
    for place, (line, others) in enumerate(lines):
        look, name = chart.sheet.look(results, line[0]), line[0].line

        def aside(row: Row, place: int = place) -> float:
            n, meeting = row.n_steps, at_steps[row.n_steps]
            apart = min(0.075, 0.35 / len(meeting))
            return float(n * math.exp((meeting.index(place) - (len(meeting) - 1) / 2) * apart))

        for part in (line, others):
            if part:
                ys = [figure(row) for row in part]
                steps = [row.n_steps for row in part]
                chart.series(look, name, [exactly(aside(row)) for row in part], ys, steps=steps, joined=part is line)
        chart.label(name, look, name, aside(line[-1]), figure(line[-1]).value)
    steps = sorted(at_steps)
    plain_ticks(chart.axes.xaxis, [max(1, steps[0] / 1.3), steps[-1] * 1.3], base=2)
    if len(steps) <= 7:
        chart.axes.set_xticks(steps)
    chart.axes.set_xlim(steps[0] / 1.5, steps[-1] * 1.9)
    chart.axes.margins(y=0.09)
    chart.axes.set_xlabel("steps")
    return extent([figure(row) for row in rows])


def quality_by_speed(speed: str) -> Draw:
    """FD against `latency_s` or `images_per_s`, with the arms that no other beats at both."""

    def draw(results: Results, sheet: Sheet) -> Figure | None:
        rows = [row for row in results.arms if row.setting == "fixed" and {"fd", speed} <= row.figures.keys()]
        if not rows:
            return None
        slow = speed == "latency_s"
        batch = throughput_batch(results)
        chart = Chart(sheet, "FD against latency" if slow else f"FD against throughput at batch {batch}")
        long = max(row.figures[speed].value for row in rows) >= 10
        factor, unit = (1.0, "s") if long or not slow else (1000.0, "ms")
        sign = 1 if slow else -1
        best = pareto([(sign * row.figures[speed].value, row.figures["fd"].value) for row in rows])
        on_front = {rows[i].arm for i in best}
        for line, others in _lines(rows):
            look, name = sheet.look(results, line[0]), line[0].line
            for part in (line, others):
                xs = [row.figures[speed].scaled(factor) for row in part]
                ys = [row.figures["fd"] for row in part]
                chart.series(look, name, xs, ys, steps=[row.n_steps for row in part], joined=part is line)
                for row, x, y in zip(part, xs, ys, strict=True):
                    steps = count_words(row.n_steps)
                    chart.label(steps, look, name, x.value, y.value, more=True, rank=row.arm not in on_front)
            end = min(line, key=lambda row: row.figures["fd"].value)
            chart.label(name, look, name, end.figures[speed].value * factor, end.figures["fd"].value)
        log_if_wide(chart.axes.xaxis, extent([row.figures[speed].scaled(factor) for row in rows]), ratio=3.0)
        log_if_wide(chart.axes.yaxis, extent([row.figures["fd"] for row in rows]))
        chart.axes.margins(x=0.09, y=0.1)
        chart.axes.set(
            xlabel=f"latency ({unit}/image), batch 1" if slow else f"throughput (images/s), batch {batch}", ylabel="FD"
        )
        chart.front("left" if slow else "right")
        words, first_look = _rests_on(results, rows)
        timed = f"{n_rounds(results, 1 if slow else batch)} rounds"
        where = "lower left is better" if slow else "lower right is better"
        apart = APART if timed_apart(results, 1 if slow else batch) else ""
        notes = (where, f"{FRONT}: arms that none beats at both", "numbers: steps", _about_far(rows),
                 _about_rewriting(rows), _about_load(results), apart)  # fmt: skip
        return chart.finish(*words, timed, *notes, warn=first_look)

    return styled(draw)


# Likelihood


@styled
def bits_by_steps(results: Results, sheet: Sheet) -> Figure | None:
    """Held-out bits per token against steps."""
    rows = [row for row in results.arms if row.setting == "fixed" and "bits" in row.figures]
    if not rows:
        return None
    chart = Chart(sheet, "Held-out bits per token against steps")
    # Their intervals are of images, which all arms share, and would hide the paired differences: see the foot.
    values = _by_steps(chart, results, rows, lambda row: Interval(row.figures["bits"].value))
    for sizes in dict.fromkeys(tuple(results.run.about["models"][name]["code_sizes"]) for name in results.models):
        uniform = sum(math.log2(size) for size in sizes)
        if 0 < uniform <= max(values) + (max(values) - min(values)):
            chart.level(f"uniform over {' x '.join(map(str, sizes))} codes", exactly(uniform))
    chart.axes.set_ylabel("bits per token")
    halves = [(y.high - y.low) / 2 for y in (row.figures["bits"] for row in rows) if None not in (y.low, y.high)]  # type: ignore[operator]
    shared = f"±{max(halves):.2f} over images, which all arms share: read differences, paired" if halves else ""
    words = (f"n = {likelihood_n(results)} {held_out_words(results)}", "lower is better", _about_far(rows), shared)
    return chart.finish(*words)


@styled
def bits_by_image(results: Results, sheet: Sheet) -> Figure | None:
    """How what a plan costs is spread over held-out images: letter values of the paired differences, an arm a row."""
    found = bits_apart(results)
    if not found:
        return None
    import seaborn  # type: ignore[import-untyped]

    figure = blank_figure(sheet.width, 1.0 + 0.26 * len(found))
    axes = figure.subplots()
    whose = f"{results.baselines[0]}'s" if len(results.baselines) == 1 else "the baseline's"
    heading(sheet, figure, f"Bits per token minus {whose}, image by image")
    axes.axvline(0, color=QUIET, linewidth=0.8, zorder=1)
    for place, (row, apart_N) in enumerate(found):
        look = sheet.look(results, row)
        before = set(axes.get_children())
        seaborn.boxenplot(x=apart_N, y=np.full(len(apart_N), place), orient="h", native_scale=True, color=look.color,
                          saturation=1, width=0.66, linewidth=0.4, k_depth="trustworthy", ax=axes,
                          line_kws={"color": "white"}, flier_kws={"s": 5, "linewidths": 0.5})  # fmt: skip
        for artist in set(axes.get_children()) - before:
            artist.set_gid(look.gid)
    axes.set_yticks(range(len(found)), [textwrap.shorten(row.arm, 30, placeholder="…") for row, _ in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set(xlabel="bits per token", ylabel="")
    of = f"n = {likelihood_n(results)} {held_out_words(results)}"
    foot(sheet, figure, (of, "left of 0: fewer bits than the baseline",
                  "line: median; widest box: half of the images; each next: half of the rest"))  # fmt: skip
    return figure


@styled
def tax(results: Results, sheet: Sheet) -> Figure | None:
    """The measured parallel tax against the one that a Gaussian field predicts."""
    predicted_by = {
        row.arm: row.predicted_tax
        for row in results.arms
        if row.setting == "fixed" and "tax" in row.figures and row.predicted_tax is not None and row.predicted_tax > 0
    }
    rows = [row for row in results.arms if row.setting == "fixed" and row.arm in predicted_by]
    if not rows:
        return None
    chart = Chart(sheet, "Parallel tax, measured against predicted")
    predicted = list(predicted_by.values())
    measured = [row.figures["tax"] for row in rows]
    log = min(one.value for one in measured) > 0
    floor = min(one.value for one in measured) / 2
    for line, others in _lines(rows):
        look, name = sheet.look(results, line[0]), line[0].line
        part = sorted([*line, *others], key=lambda row: predicted_by[row.arm])
        ys = [_above(row.figures["tax"], floor) if log else row.figures["tax"] for row in part]
        chart.series(look, name, [exactly(predicted_by[row.arm]) for row in part], ys,
                     steps=[row.n_steps for row in part])  # fmt: skip
        chart.label(name, look, name, predicted_by[part[0].arm], ys[0].value)
    for row in rows:
        steps, look = count_words(row.n_steps), sheet.look(results, row)
        chart.label(steps, look, row.line, predicted_by[row.arm], row.figures["tax"].value, more=True)
    if log:
        ends = [min(predicted) / 1.8, max(predicted) * 2.2]
        plain_ticks(chart.axes.xaxis, ends)
        plain_ticks(chart.axes.yaxis, extent([_above(one, floor) for one in measured]))
    else:
        ends = [0, max(predicted) * 1.2]
    chart.axes.set_xlim(ends[0], ends[1])
    chart.axes.plot(ends, ends, color=FAINT, linewidth=1.0, zorder=1, scaley=False)
    chart.axes.margins(y=0.12)
    chart.axes.set(xlabel="predicted on a Gaussian field, bits per token", ylabel="measured, bits per token")
    field = next((trial["field"] for trial in results.run.done("likelihood") if trial["field"]), "")
    return chart.finish(
        f"n = {likelihood_n(results)} {held_out_words(results)}",
        "small numbers: steps",
        "grey: as predicted",
        f"field {field}",
    )


def _above(interval: Interval, floor: float) -> Interval:
    """An interval whose lower end a logarithmic axis can show."""
    return Interval(interval.value, None if interval.low is None else max(interval.low, floor), interval.high)


# One cell at a time in fewer passes

FEWEST_RANKED = 4  # orders that a rank correlation is said of


@styled
def passes_by_tax(results: Results, sheet: Sheet) -> Figure | None:
    """The passes of an image against the tax that a Gaussian field predicts for the walk; their rank correlation."""
    found = passes_and_tax(results)
    if len(found) < 2 or not any(predicted > 0 for _, _, predicted in found):
        return None
    chart = Chart(sheet, "Passes against the predicted tax")
    decoders: dict[str, list[tuple[float, float]]] = {}
    for row, passes, predicted in found:
        decoders.setdefault(row.line.removeprefix(row.about["order"]), []).append((predicted, passes))
    for row, passes, predicted in found:
        look, name = sheet.look(results, row), row.line if len(decoders) > 1 else row.about["order"]
        chart.series(look, name, [exactly(predicted)], [exactly(passes)])
        chart.label(name, look, name, predicted, passes, more=True)
    log_if_wide(chart.axes.xaxis, [predicted for _, _, predicted in found])
    chart.axes.margins(x=0.12, y=0.1)
    chart.axes.set_ylim(0, None)
    chart.axes.set(xlabel="predicted on a Gaussian field, bits per token", ylabel="passes an image")
    ranked = [
        f"{decoder.lstrip('+')}: rank correlation {rho:.2f} over {len(points)} orders"
        for decoder, points in decoders.items()
        if len(points) >= FEWEST_RANKED and (rho := rank_correlation(*zip(*points, strict=True))) is not None
    ]
    return chart.finish(*ranked, *_about_passes(results, [row for row, _, _ in found]))


def _about_passes(results: Results, rows: Sequence[Row]) -> list[str]:
    """What passes were counted over, under which noise, and what one cell at a time takes."""
    counts = sorted({trial["n"] for row in rows for trial in quality_trials(results, row)})
    n = f"n = {', '.join(map(str, counts))}{times_seeds(rows)} an arm" if counts else ""
    noises = dict.fromkeys(row.sampling.get("noise", "uniform") for row in rows)
    cells = dict.fromkeys(sum(_sizes(row)) for row in rows)
    singly = f"one cell at a time: {', '.join(map(str, cells))} passes"
    return [n, f"{', '.join(noises)} noise", singly]


# Speed


@styled
def speedups(results: Results, sheet: Sheet) -> Figure | None:
    """How many times faster than the baseline, in the same rounds; the strip is the baseline against itself."""
    rows = [row for row in results.arms if row.setting == "fixed" and row.speedup]
    if not rows:
        return None
    batches = sorted({batch for row in rows for batch in row.speedup})
    places = len(rows) + (results.uncached is not None)
    figure = blank_figure(sheet.width, 1.05 + (0.14 * len(batches) + 0.07) * places)
    axes = figure.subplots()
    heading(sheet, figure, f"Times faster than {baseline_words(results)} with a cache")
    for batch in batches:
        noise = results.noise.get(batch)
        if noise is not None and noise.low is not None and noise.high is not None:
            axes.axvspan(noise.low, noise.high, color=QUIET, alpha=0.16, linewidth=0, zorder=0)
    axes.axvline(1, color=QUIET, linewidth=0.8, zorder=1)
    everything = [1.0]
    for place, row in enumerate(rows):
        look = sheet.look(results, row)
        gid = look.gid
        steps, top = step_ratio(results, row), place - 0.3
        if steps is not None:
            everything.append(steps)
            axes.plot([steps] * 2, [place - 0.34, place + 0.34], color=FAINT, linewidth=2.2, zorder=1, gid=gid)
        for number, batch in enumerate(batches):
            ratio = row.speedup.get(batch)
            if ratio is None:
                continue
            y = top + 0.6 * (number + 0.5) / len(batches)
            everything += extent([ratio])
            if ratio.low is not None and ratio.high is not None:
                axes.plot([ratio.low, ratio.high], [y, y], color=look.color, linewidth=1.1, zorder=2, gid=gid)
            axes.plot([ratio.value], [y], zorder=3, gid=gid, **{**marks(look), "marker": shape_of(batch, batches)})
            _beside(axes, f"{batch}: {bounds(ratio)}", y, gid=gid)
    names = [row.arm for row in rows]
    if results.uncached is not None:
        slower = results.uncached.inverse()
        everything += extent([slower])
        y = float(len(rows))
        if slower.low is not None and slower.high is not None:
            axes.plot([slower.low, slower.high], [y, y], color=QUIET, linewidth=1.1)
        axes.plot([slower.value], [y], marker="o", color=QUIET, markersize=4.6, linestyle="none")
        _beside(axes, f"1: {bounds(slower)}", y, color=QUIET)
        names.append(f"{results.repeated}, no cache")
    axes.set_yticks(range(len(names)), [textwrap.shorten(name, 30, placeholder="…") for name in names])
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    plain_ticks(axes.xaxis, [min(everything), max(everything)])
    axes.set_xlim(min(everything) / 1.2, max(everything) * 1.15)
    axes.grid(axis="x")
    _beside(axes, "batch: times faster", -0.55, color=QUIET, va="bottom")
    axes.set_xlabel(f"times faster than {textwrap.shorten(baseline_words(results), 30, placeholder='…')}")
    entries = {f"batch {batch}": (sample(shape_of(batch, batches)), "") for batch in batches}
    entries["ratio of steps"] = (sample(color=FAINT, width=2.2), "")
    if results.noise:
        entries["A/A, the noise floor"] = (sample("s", "#d9dcdf"), "")
    rounds = n_rounds(results, batches[0])
    words = (f"{rounds} rounds, paired", _about_rewriting(rows), _about_load(results))
    legend_below(sheet, figure, entries, words, f"{rounds} rounds: no interval" if rounds < 3 else "")
    return figure


def _beside(axes: Any, text: str, y: float, va: str = "center", **look: Any) -> None:
    """Words to the right of the axes, at a height."""
    axes.annotate(text, (1, y), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va=va,
                  fontsize=SMALLEST, annotation_clip=False, **look)  # fmt: skip


@styled
def latency_by_step(results: Results, sheet: Sheet) -> Figure | None:
    """What every step takes."""
    seconds = step_seconds(results)
    rows = [row for row in results.arms if row.setting == "fixed" and row.arm in seconds]
    if not rows:
        return None
    longest = max(len(seconds[row.arm]) for row in rows)
    top = 1300 * max(float(np.quantile(seconds[row.arm], 0.98)) for row in rows)
    words = f"{passes_words(results)}; waiting after every step makes them slower than a whole generation"
    if len(rows) > _CROWDED:
        return _panels_by_step(results, sheet, rows, seconds, longest, top, words)
    chart = Chart(sheet, _BY_STEP)
    for line, others in _lines(rows):
        look, name = sheet.look(results, line[0]), line[0].line
        for row in (*line, *others):
            y = 1000 * seconds[row.arm]
            chart.curve(look, name, np.arange(1, len(y) + 1), y)
        chart.label(name, look, name, len(seconds[line[-1].arm]), 1000 * float(seconds[line[-1].arm][-1]))
    plain_ticks(chart.axes.xaxis, [1, longest], base=2)
    chart.axes.set_xlim(0.9, longest * 1.9)
    chart.axes.set_ylim(0, top)
    chart.axes.set(xlabel="step", ylabel="time of the step (ms)")
    return chart.finish(words)


_BY_STEP, _CROWDED = "Time of every step, one image", 6  # more arms get a panel a line


def _panels_by_step(
    results: Results, sheet: Sheet, rows: Sequence[Row], seconds: dict[str, np.ndarray], longest: int, top: float,
    words: str,
) -> Figure:  # fmt: skip
    """A panel a line, all on the same axes: many curves over each other cannot be told apart."""
    lines = list(_lines(rows))
    across = min(len(lines), 2 if sheet.width < 5 else 4)
    down = math.ceil(len(lines) / across)
    figure = blank_figure(sheet.width, 0.75 + 0.95 * down)
    heading(sheet, figure, _BY_STEP)
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for place, axes in enumerate(grid.flat):
        if place >= len(lines):
            axes.set_axis_off()
            continue
        line, others = lines[place]
        look = sheet.look(results, line[0])
        for row in (*line, *others):
            y = 1000 * seconds[row.arm]
            axes.plot(np.arange(1, len(y) + 1), y, color=look.color, linestyle=look.dash, linewidth=0.7, gid=look.gid)
            axes.plot([len(y)], [y[-1]], zorder=3, gid=look.gid, **marks(look, 4.4))
            axes.annotate(count_words(row.n_steps), (len(y), min(float(y[-1]), top)), (0, 4), ha="center",
                          textcoords="offset points", fontsize=SMALLEST, color=look.color, gid=look.gid)  # fmt: skip
        name = textwrap.shorten(line[0].line, int(15 * sheet.width / across), placeholder="…")
        axes.set_title(name, fontsize=SMALLEST, color=look.color, pad=3, gid=look.gid)
        axes.grid(axis="y")
        if place + across >= len(lines):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("step")
        if place % across == 0:
            axes.set_ylabel("time (ms)")
    plain_ticks(grid[0, 0].xaxis, [1, longest], base=4)
    grid[0, 0].set_xlim(0.8, longest * 1.8)
    grid[0, 0].set_ylim(0, top)
    foot(sheet, figure, [words, "numbers: steps"])
    return figure


@styled
def tokens_over_time(results: Results, sheet: Sheet) -> Figure | None:
    """How many cells are decoded as time goes by; not of decoders that take other steps than their plan."""
    seconds = step_seconds(results)
    rows = [row for row in results.arms if row.setting == "fixed" and len(seconds.get(row.arm, ())) == len(_sizes(row))]
    if not rows:
        return None
    chart = Chart(sheet, "Cells decoded over time, one image")
    for line, others in _lines(rows):
        look, name = sheet.look(results, line[0]), line[0].line
        for row in (*line, *others):
            x, y = np.cumsum(seconds[row.arm]) * 1000, np.cumsum(_sizes(row))
            chart.curve(look, name, x, y, steps=True)
            chart.label(count_words(row.n_steps), look, name, float(x[-1]), float(y[-1]), more=True)
        end = float(seconds[line[-1].arm].sum()) * 1000
        chart.label(name, look, name, end, float(sum(_sizes(line[-1]))))
    times = [float(t) for row in rows for t in (1000 * seconds[row.arm][0], 1000 * seconds[row.arm].sum())]
    if not log_if_wide(chart.axes.xaxis, times, ratio=3.0):
        chart.axes.set_xlim(0, None)
    cells = max(sum(row.about["sizes"]) for row in rows)
    chart.axes.set_ylim(0, cells * 1.3)
    chart.axes.set_yticks([0, cells // 4, cells // 2, cells * 3 // 4, cells])
    chart.axes.margins(x=0.08)
    chart.axes.set(xlabel="time since the first step began (ms)", ylabel="cells decoded")
    return chart.finish(f"{passes_words(results)}, step by step", "markers: done, after so many steps")


@styled
def memory(results: Results, sheet: Sheet) -> Figure | None:
    """What a generation adds to the memory, and its cache."""
    trials = latency_trials(results)
    rows = [row for row in results.arms if row.setting == "fixed"]
    added = {
        batch: {name: added for name, one in trial["memory"].items() if (added := one.get("added_bytes")) is not None}
        for batch, trial in sorted(trials.items())
    }
    rows = [row for row in rows if any(row.arm in by_arm for by_arm in added.values())]
    if not rows:
        return None
    figure = blank_figure(sheet.width, 1.0 + (0.1 + 0.1 * len(added)) * len(rows))
    axes = figure.subplots()
    heading(sheet, figure, "Memory that a generation adds")
    for place, row in enumerate(rows):
        look = sheet.look(results, row)
        gid = look.gid
        branches = 2 if guided(model_of(results.run.about, row.about)["setting"]["guidance"]) else 1
        # counters are of one branch
        for number, (batch, by_arm) in enumerate(added.items()):
            if row.arm not in by_arm:
                continue
            y, half = place - 0.34 + 0.68 * (number + 0.5) / len(added), 0.3 / len(added)
            cache = row.counters.get("cache_bytes", 0) * batch * branches / 2**20
            axes.plot([cache] * 2, [y - half, y + half], color=FAINT, linewidth=2.2, gid=gid, solid_capstyle="butt")
            axes.plot([by_arm[row.arm] / 2**20], [y], gid=gid, **{**marks(look), "marker": shape_of(batch, added)})
    axes.set_yticks(range(len(rows)), [textwrap.shorten(row.arm, 30, placeholder="…") for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, None)
    axes.margins(x=0.1)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("memory that a generation adds (MiB)")
    weights = next((trial["weights_bytes"] for trial in trials.values() if trial.get("weights_bytes")), None)
    how = next((one["how"] for trial in trials.values() for one in trial["memory"].values()), "")
    entries = {f"batch {batch}": (sample(shape_of(batch, added)), "") for batch in added}
    entries["its cache alone"] = (sample(color=FAINT, width=2.2), "")
    words = (f"peak over what was there before, {how}, measured once",
             f"the weights take {weights / 2**20:.1f} MiB" if weights else "", _about_rewriting(rows))  # fmt: skip
    legend_below(sheet, figure, entries, words)
    return figure


# Correction


@styled
def changes_by_ring(results: Results, sheet: Sheet) -> Figure | None:
    """Where correction rewrites codes: by ring around the middle cell."""
    found = [(row, changed_L, grid) for row, changed_L in changed_cells(results)
             if isinstance(grid := lattice(results, row), Grid)]  # fmt: skip # rings are of one grid
    if not found:
        return None
    chart = Chart(sheet, "Codes rewritten by correction, by ring")
    rings = range(max(int(rings_of(grid).max()) for _, _, grid in found) + 1)
    for row, changed_L, grid in found:
        ring_L = rings_of(grid)
        own = range(int(ring_L.max()) + 1)
        y = [exactly(changed_L[ring_L == ring].mean()) for ring in own]
        look = sheet.look(results, row)
        chart.series(look, row.line, [exactly(ring) for ring in own], y)
        chart.label(row.arm, look, row.line, own[-1], y[-1].value)
    chart.axes.set_ylim(0, None)
    chart.axes.margins(y=0.15)
    chart.axes.set_xlim(-0.5, len(rings) * 1.25)
    chart.axes.set_xticks([ring for ring in rings if ring % 2 == 0])
    chart.axes.set(xlabel="ring around the middle cell", ylabel="rewritings a cell and image")
    words, first_look = _rests_on(results, [row for row, _, _ in found])
    return chart.finish(*words, warn=first_look)


@styled
def changes_by_cell(results: Results, sheet: Sheet) -> Figure | None:
    """The same on the lattice, one map an arm."""
    found = [(row, levels_beside(where, changed_L)) for row, changed_L in changed_cells(results)
             if (where := lattice(results, row)) is not None]  # fmt: skip
    if not found:
        return None
    hidden, found = len(found[6:]), found[:6]
    across = min(len(found), 2 if sheet.width < 5 else 4)
    down = math.ceil(len(found) / across)
    side = min(1.9, sheet.width / across - 0.1)
    tall = max(changed_RC.shape[0] / changed_RC.shape[1] for _, changed_RC in found)
    figure = blank_figure(sheet.width, 0.95 + (side * tall + 0.22) * down)
    heading(sheet, figure, "Codes rewritten by correction, by cell")
    top = max(float(changed.max()) for _, changed in found) or 1.0
    all_axes = figure.subplots(down, across, squeeze=False)
    for axes in all_axes.flat:
        axes.set_axis_off()
    for axes, (row, changed_RC) in zip(all_axes.flat, found, strict=False):
        image = axes.imshow(changed_RC, cmap="cividis", vmin=0, vmax=top)
        axes.set_title(textwrap.shorten(row.arm, 28, placeholder="…"), fontweight="normal", pad=3, fontsize=SMALLEST)
    bar = figure.colorbar(image, ax=all_axes, orientation="horizontal", shrink=0.7, aspect=30, pad=0.03)
    bar.set_label("rewritings an image")
    bar.outline.set_visible(False)
    words, first_look = _rests_on(results, [row for row, _ in found])
    more = f"{hidden} more arm{'s' * (hidden > 1)} {'are' if hidden > 1 else 'is'} not shown" if hidden else ""
    foot(sheet, figure, [*words, more], first_look)
    return figure


@styled
def repair(results: Results, sheet: Sheet) -> Figure | None:
    """What correction repairs of injected errors, and what it damages."""
    rows = {row.arm: row for row in results.arms if row.setting == "fixed"}
    trials = [trial for trial in results.run.done("repair") if trial["arm"] in rows]
    if not trials:
        return None
    chart = Chart(sheet, "Injected errors: repaired, and damage done")
    for trial in trials:
        row = rows[trial["arm"]]
        look, name = sheet.look(results, row), row.line
        for metric, done in _RATES:
            rates = [(one["error_rate"], rate) for one in trial["rates"] if (rate := one[metric]) is not None]
            if rates:
                xs = [exactly(100 * error) for error, _ in rates]
                ys = [exactly(100 * rate) for _, rate in rates]
                chart.series(look, name, xs, ys, thin=done == "damaged")
                chart.label(f"{row.arm}: {done}", look, f"{name} {done}", xs[-1].value, ys[-1].value)
    chart.axes.set_ylim(0, None)
    chart.axes.margins(x=0.3, y=0.15)
    chart.axes.set(xlabel="codes that were made wrong, %", ylabel="%")
    chart.axes.set_xticks(sorted({100 * one["error_rate"] for trial in trials for one in trial["rates"]}))
    return chart.finish(
        f"n = {trials[0]['n']} {held_out_words(results)}",
        "thick lines: wrong codes that were repaired",
        "thin lines: right codes that were changed",
    )


_RATES: tuple[tuple[Literal["repair_rate", "damage_rate"], str], ...] = (
    ("repair_rate", "repaired"),
    ("damage_rate", "damaged"),
)


# Orders and samples


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


@styled
def orders_and_samples(results: Results, sheet: Sheet) -> Figure | None:
    """The map of every order and what it made of the same seeds; the maps alone where there are no samples."""
    entries = [
        (row, plan_of(row), pictures_of(results, "quality", row.arm)) for row in results.arms if row.setting == "fixed"
    ]
    with_samples = [entry for entry in entries if entry[2] is not None]
    shown = (with_samples or [entry for entry in entries if entry[1] is not None])[:MOST_MAPS]
    if not shown:
        return None
    hidden = len(entries) - len(shown)
    words = [f"{hidden} more arm{'s are' if hidden > 1 else ' is'} not shown"] if hidden else []
    room = _SCALE + (_LINE + 0.06 if words and not sheet.clean else 0)  # below the maps
    figure = (_maps_with_samples if with_samples else _maps)(sheet, shown, room)
    tall = figure.get_figheight()
    scale = figure.add_axes((1 / sheet.width, (room - 0.15) / tall, 1 - 2 / sheet.width, 0.07 / tall))
    scale.imshow(np.linspace(0, 1, 64)[None], aspect="auto", cmap="viridis")
    for x, text, side in ((-0.04, "first step", "right"), (1.04, "last step", "left")):
        scale.text(x, 0.5, text, transform=scale.transAxes, ha=side, va="center", fontsize=SMALLEST)
    for axes in figure.axes:
        axes.set_axis_off()
    foot(sheet, figure, words)
    figure.set_layout_engine("none")  # everything has its place in inches
    return figure


_Shown = Sequence[tuple[Row, Plan | None, np.ndarray | None]]
_EDGE, _GAP, _LINE, _SCALE = 0.04, 0.08, 0.13, 0.22  # inches


def _maps_with_samples(sheet: Sheet, shown: _Shown, room: float) -> Figure:
    """A row an arm: its words, then its map beside two rows of samples, over the whole width."""
    many = 6 if sheet.width < 5 else 12
    side = (sheet.width - 2 * _EDGE - _GAP) / (2 + many)  # of a sample; a map is as tall as two
    titles = []
    for row, _, _ in shown:
        steps = f"{count_words(row.n_steps)} step{'s' * (row.n_steps != 1)}"
        titles.append(textwrap.wrap(f"{row.arm}: {steps}, {training_words(row)}", int(17 * sheet.width)))
    height = room + sum(2 * side + _GAP + _LINE * len(title) for title in titles)
    figure = blank_figure(sheet.width, height)
    top = height
    for (_, plan, images), title in zip(shown, titles, strict=True):
        figure.text(_EDGE / sheet.width, (top - 0.02) / height, "\n".join(title), va="top", fontsize=SMALLEST,
                    linespacing=1.1)  # fmt: skip
        top -= _LINE * len(title) + 2 * side
        for left, wide, picture in ((_EDGE, 2 * side, None if plan is None else _steps_of(plan)),
                                    (_EDGE + 2 * side + _GAP, many * side,
                                     None if images is None else mosaic(images[: 2 * many], many))):  # fmt: skip
            if picture is not None:
                box = (left / sheet.width, top / height, wide / sheet.width, 2 * side / height)
                axes = figure.add_axes(box, anchor="NW")
                axes.imshow(picture, interpolation="nearest", cmap="viridis", vmin=0, vmax=max(1, int(picture.max())))
        top -= _GAP
    return figure


def _maps(sheet: Sheet, shown: _Shown, room: float) -> Figure:
    """The maps alone, as many in a row as fill the width."""
    across = min(len(shown), 3 if sheet.width < 5 else 6)
    side = min((sheet.width - 2 * _EDGE + _GAP) / across - _GAP, 1.6)
    drawn = [_steps_of(plan) for _, plan, _ in shown if plan is not None]
    tall = side * max(picture.shape[0] / picture.shape[1] for picture in drawn)
    title = 2 * _LINE + 0.03
    height = room + math.ceil(len(shown) / across) * (tall + title + _GAP)
    figure = blank_figure(sheet.width, height)
    for place, ((row, _, _), picture) in enumerate(zip(shown, drawn, strict=True)):
        line, column = divmod(place, across)
        left, top = _EDGE + column * (side + _GAP), height - line * (tall + title + _GAP)
        arm = textwrap.shorten(row.arm, int(17 * side), placeholder="…")
        figure.text(left / sheet.width, (top - 0.02) / height, f"{arm}\n{count_words(row.n_steps)} steps", va="top",
                    fontsize=SMALLEST, linespacing=1.1)  # fmt: skip
        box = (left / sheet.width, (top - title - tall) / height, side / sheet.width, tall / height)
        most = max(1, int(picture.max()))
        figure.add_axes(box, anchor="NW").imshow(picture, interpolation="nearest", cmap="viridis", vmin=0, vmax=most)
    return figure


def _steps_of(plan: Plan) -> np.ndarray:
    return levels_beside(plan.lattice, plan.step_of_cell())


@styled
def sample_sheets(results: Results, sheet: Sheet) -> Figure | None:
    """The first samples of every arm, and of its floors: the same seeds and labels, column by column."""
    entries = [(row.arm, pictures_of(results, "quality", row.arm)) for row in results.arms if row.setting == "fixed"]
    entries += [(floor_name(floor), pictures_of(results, "floor", floor.name)) for floor in results.floors]
    shown = [(name, images) for name, images in entries if images is not None]
    if not shown:
        return None
    across = 1 if sheet.width < 5 else 2
    down = math.ceil(len(shown) / across)
    sheets = [mosaic(images[:40], 10) for _, images in shown]
    tallest = max(one.shape[0] / one.shape[1] for one in sheets)
    figure = blank_figure(sheet.width, down * ((sheet.width / across - 0.1) * tallest + 0.24))
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
         "is biased upwards at small n, not by the same amount for every arm: read it with KD, and read no value as "
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
         "A line an order, its steps at the points; both axes have the same guidance and settings. The Pareto front "
         "holds the arms that no other beats at both. It is drawn through point estimates: where whiskers overlap, "
         "it could run otherwise."),
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
    Plot("bits-by-image", "likelihood", bits_by_image,
         "Whether a plan costs every image a little or a few images much, which the mean does not say. Boxes end where "
         "the sample can no longer place a quantile; beyond them every image is a dot."),
    Plot("tax", "likelihood", tax,
         "What a plan loses by treating the cells of a step as independent: its bits minus those of the same cells one "
         "at a time. The prediction knows geometry only, a Gaussian field, neither model nor data."),
    Plot("passes-by-tax", "exact", passes_by_tax,
         "Every order decoded one cell at a time, many cells a pass. The prediction is of the same walk, cut at the "
         "common pace: cosine, in as many steps as the lattice has rings (13 on 16x16). Both ask how little the cells "
         "that lie ahead say of each other; the field knows neither model nor data. Samples are decoded 64 together, "
         "and the more there are, the fewer cells a pass asks of each."),
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
    Plot("orders", "samples", orders_and_samples,
         "Dark cells first. Samples in a column share seed, label and noise."),
    Plot("samples", "samples", sample_sheets,
         "Samples in one place share seed, label and noise. Not chosen: the first of the run."),
)  # fmt: skip
