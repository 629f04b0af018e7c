"""The summary that `bench run` ends with: two tables and what they rest on, for a terminal.

Knows rich and results. Refuses to compute: every figure comes from `orderbench.reports.results`.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from orderbench.reports.results import Results, Row, too_small
from orderbench.reports.statistics import Interval


def figure(interval: Interval | None, digits: int = 2, unit: str = "") -> str:
    """A value with its interval's half-width behind +-, or a dash."""
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.{digits}f}{unit}"
    return f"{interval.value:.{digits}f} ±{(interval.high - interval.low) / 2:.{digits}f}{unit}"


def bounds(interval: Interval | None, digits: int = 2, unit: str = "") -> str:
    """A value with its interval in brackets, for what is not symmetric."""
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.{digits}f}{unit}"
    return f"{interval.value:.{digits}f}{unit} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def training(row: Row) -> str:
    """Whether the weights saw this order."""
    share = row.about.get("training_share")
    return "" if share is None else f"{100 * share:.0f} %" if share else "never"


def summary(results: Results) -> RenderableType:
    """The tables of a run."""
    return Group(*_parts(results))


def _parts(results: Results) -> Iterator[RenderableType]:
    settings = list(dict.fromkeys(row.setting for row in results.arms))
    for setting in settings:
        rows = [row for row in results.arms if row.setting == setting]
        if any(row.figures.keys() & {"bits", "fd", "agreement"} for row in rows):
            yield _quality(results, rows, setting, several=len(settings) > 1)
            yield Text()
    if any("latency_s" in row.figures or "images_per_s" in row.figures for row in results.arms):
        yield _speed(results)
        yield Text()
    for note in notes(results):
        yield Text(note, style="dim")
    for row in results.arms:
        if row.failed is not None:
            yield Text(f"failed: {row.arm}: {row.failed}", style="red")


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left", title_style="bold")
    table.add_column(columns[0], no_wrap=True, style="cyan")
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _quality(results: Results, rows: list[Row], setting: str, several: bool) -> Table:
    title = "Quality" + (
        f", {'the same setting for all' if setting == 'fixed' else 'best setting of each arm'}" * several
    )
    table = _table(title, "arm", "steps", "trained on", "bits/token", "tax", "FD", "KD", "class agreement")
    for row in [*rows, *results.floors]:
        table.add_row(
            row.arm if row in rows else f"({row.arm})",
            str(row.about.get("n_steps", "")),
            training(row),
            figure(row.figures.get("bits"), 3),
            figure(row.figures.get("tax"), 3),
            figure(row.figures.get("fd"), 2),
            figure(row.figures.get("kd"), 2),
            figure(row.figures.get("agreement"), 3),
        )
    return table


def _speed(results: Results) -> Table:
    batches = sorted({batch for row in results.arms for batch in row.speedup} | set(results.noise))
    big = [batch for batch in batches if batch != 1]
    table = _table(
        f"Speed, against {results.baseline} one at a time with a cache",
        "arm", "passes", "latency, batch 1", *(f"x at batch {batch}" for batch in batches),
        *(f"images/s, batch {batch}" for batch in big), "x steps",
    )  # fmt: skip
    steps = {row.arm: row.about["n_steps"] for row in results.arms}
    cells = steps.get(results.baseline) or max(steps.values())
    for row in results.arms:
        if row.setting != "fixed":
            continue
        latency = row.figures.get("latency_s")
        table.add_row(
            row.arm,
            str(row.counters.get("passes", "")),
            "-" if latency is None else f"{1000 * latency.value:.0f} ms",
            *(bounds(row.speedup.get(batch), 1) if row.arm != results.baseline else "1" for batch in batches),
            *("-" if "images_per_s" not in row.figures else f"{row.figures['images_per_s'].value:.1f}" for _ in big),
            f"{cells / row.about['n_steps']:.1f}",
        )
    table.add_row(
        "A/A (noise)", "", "", *(bounds(results.noise[batch], 2) for batch in batches), *("" for _ in big), ""
    )
    return table


def notes(results: Results) -> Iterator[str]:
    """What the figures rest on, a sentence each."""
    about = results.run.about
    sampling = about["setting"]
    n = next((row.n for row in results.arms if row.n is not None), None)
    if results.space is not None and n is not None:
        seeds = max(row.seeds for row in results.arms)
        yield (
            f"FD and KD: in the space {results.space} against {results.reference}; n = {n}"
            + (f" x {seeds} seeds" if seeds > 1 else "")
            + f"; guidance {sampling['guidance']}, temperature {sampling['temperature']:g}. Not FID."
        )
        if any(too_small(results, row) for row in results.arms):
            yield (
                f"n = {n} is small: FD is biased upwards, equally small n are comparable only as a first look; "
                f"read KD, and paired differences (bench compare)."
            )
    if results.uncached is not None:
        yield f"The same baseline without a cache would be {results.uncached.value:.1f} times slower at batch 1."
    if any(row.about.get("training_share") == 0 for row in results.arms):
        yield "Orders marked 'never' were not in the training mixture of these weights."


def print_summary(console: Console, results: Results) -> None:
    """Print the summary."""
    console.print(summary(results))
