"""The summary that `bench run` ends with: two tables and what they rest on, for a terminal.

Knows rich and results. Refuses to compute: every figure comes from `orderbench.reports.results`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orderbench.reports.check import Finding
from orderbench.reports.compare import Line
from orderbench.reports.results import Results, Row, failures, times_seeds, too_small
from orderbench.reports.statistics import Interval

TINY = 1e-3  # below it, four decimals run out


def digits(*values: float | None) -> int:
    """Decimals that show three significant digits of the least of these that is not 0, from 0 to 4."""
    sizes = [abs(value) for value in values if value]
    return 0 if not sizes else max(0, min(4, 2 - math.floor(math.log10(min(sizes)))))


def figure(interval: Interval | None) -> str:
    """A value with its interval's half-width behind ±, or a dash; the half-width has two significant digits."""
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.{digits(interval.value)}f}"
    half = (interval.high - interval.low) / 2
    places = max(0, min(4, digits(half) - 1)) if half else digits(interval.value)
    return f"{interval.value:.{places}f} ±{half:.{places}f}"


def tiny(interval: Interval | None) -> bool:
    """Whether decimals run out before its value or its interval begins."""
    return interval is not None and 0 < max(abs(bound) for bound in (interval.value, interval.low or 0.0,
                                                                     interval.high or 0.0)) < TINY  # fmt: skip


def bounds(interval: Interval | None) -> str:
    """A value with its interval in brackets, for what is not symmetric; powers of ten where decimals would run out."""
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.2e}" if tiny(interval) else f"{interval.value:.{digits(interval.value)}f}"
    if tiny(interval):
        return f"{interval.value:.2e} [{interval.low:.1e}, {interval.high:.1e}]"
    places = min(digits(interval.value), digits(interval.low, interval.high)) if interval.value else 2
    return f"{interval.value:.{places}f} [{interval.low:.{places}f}, {interval.high:.{places}f}]"


def training(row: Row) -> str:
    """Whether the weights saw this order."""
    share = row.about.get("training_share")
    if share is None:
        return ""
    star = "*" if row.about.get("training_share_at_pace") == 0 else ""  # earlier records do not say
    return f"{100 * share:.0f} %{star}" if share else "never"


def summary(results: Results, width: int) -> RenderableType:
    """The tables of a run, for so many columns; where they are few, some figures are left to the report."""
    return Group(*_parts(results, width))


def _parts(results: Results, width: int) -> Iterator[RenderableType]:
    settings = list(dict.fromkeys(row.setting for row in results.arms))
    for setting in settings:
        rows = [row for row in results.arms if row.setting == setting]
        if any(row.figures.keys() & {"bits", "fd", "agreement"} for row in rows):
            yield _quality(results, rows, setting, several=len(settings) > 1, wide=width >= 110)
            yield Text()
    if any("latency_s" in row.figures or "images_per_s" in row.figures for row in results.arms):
        yield _speed(results, wide=width >= 110)
        yield Text()
    for note in notes(results):
        yield Text(note, style="dim")
    for arm, reason in failures(results.run):
        yield Text(f"failed: {arm}: {reason}", style="red")


def _table(title: str, *columns: str) -> Table:
    # Texts, not strings, here and in the rows: what records say may look like rich's markup.
    table = Table(box=None, pad_edge=False, header_style="bold", title=Text(title, style="bold"), title_justify="left")
    table.add_column(Text(columns[0]), no_wrap=True, style="cyan")
    for column in columns[1:]:
        table.add_column(Text(column), justify="right", no_wrap=True)
    return table


def _quality(results: Results, rows: list[Row], setting: str, several: bool, wide: bool) -> Table:
    title = "Quality"
    if several:
        title += ", the same setting for all" if setting == "fixed" else ", the best setting of each arm"
    heads = ["arm", "steps", "trained", "bits/token", *(["tax"] if wide else []), "FD", *(["KD"] if wide else []),
             "agreement"]  # fmt: skip
    table = _table(title, *heads)
    for row in [*rows, *results.floors]:
        cells = [
            row.arm if row in rows else f"({row.arm})",
            str(row.about.get("n_steps", "")),
            training(row),
            figure(row.figures.get("bits")),
            *([figure(row.figures.get("tax"))] if wide else []),
            figure(row.figures.get("fd")),
            *([figure(row.figures.get("kd"))] if wide else []),
            figure(row.figures.get("agreement")),
        ]
        table.add_row(*map(Text, cells))
    return table


def _speed(results: Results, wide: bool) -> Table:
    batches = sorted({batch for row in results.arms for batch in row.speedup} | set(results.noise))
    big = [batch for batch in batches if batch != 1]
    title = f"Speed: times faster than {results.baseline} one at a time, with a cache"
    heads = ["arm", "latency", *(f"x, batch {batch}" for batch in batches), *(f"img/s, {b}" for b in big)]
    table = _table(title, *heads, *(["passes", "x steps"] if wide else []))
    cells = next(
        (row.about["n_steps"] for row in results.arms if row.arm == results.baseline),
        max(sum(row.about["sizes"]) for row in results.arms),
    )
    for row in results.arms:
        if row.setting == "fixed":
            latency = row.figures.get("latency_s")
            shown = [
                row.arm,
                "-" if latency is None else f"{1000 * latency.value:.0f} ms",
                *("1" if row.arm == results.baseline else bounds(row.speedup.get(batch)) for batch in batches),
                *(
                    "-" if "images_per_s" not in row.figures else f"{row.figures['images_per_s'].value:.1f}"
                    for _ in big
                ),
                *([str(row.counters.get("passes", "")), f"{cells / row.about['n_steps']:.1f}"] if wide else []),
            ]
            table.add_row(*map(Text, shown))
    table.add_row("A/A (noise)", "", *(bounds(results.noise.get(batch)) for batch in batches))
    return table


def notes(results: Results) -> Iterator[str]:
    """What the figures rest on, a sentence each."""
    about = results.run.about
    sampling = about["setting"]
    n = next((row.n for row in results.arms if row.n is not None), None)
    if results.space is not None and n is not None:
        yield (
            f"FD and KD: in the space {results.space} against {results.reference}; n = {n}{times_seeds(results.arms)}"
            f"; guidance {sampling['guidance']}, temperature {sampling['temperature']:g}. Not FID."
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
    if any(training(row).endswith("*") for row in results.arms):
        yield "* in training, but never in these steps."


_COLORS = {"better": "green", "worse": "red", "changed": "red", "not comparable": "yellow"}


def comparison(lines: Sequence[Line], titles: tuple[str, str]) -> RenderableType:
    """A table of a comparison, a line a metric; counters that are the same are only counted."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric", overflow="fold", min_width=15)
    for title in titles:
        table.add_column(Text(title), justify="right", overflow="fold", min_width=8)
    table.add_column("difference", justify="right", no_wrap=True)  # numbers stay whole, words wrap
    table.add_column("", min_width=13)
    same = sum(line.verdict == "same" for line in lines)
    shown: str | None = None
    for line in lines:
        if line.verdict != "same":
            said = line.verdict.removeprefix("no difference ") + (f": {line.why}" if line.why else "")
            verdict = Text(said if said != "shown" else "none shown", style=_COLORS.get(line.verdict, "dim"))
            if line.arm != shown:
                table.add_row(Text(line.arm, style="cyan"))
            shown = line.arm
            table.add_row(*map(Text, (line.metric, _side(line.before), _side(line.after), _apart(line))), verdict)
    return Group(table, Text(f"{same} counters are the same" if same else "", style="dim"))


def _side(value: Interval | int | None) -> str:
    if isinstance(value, Interval):
        return bounds(Interval(value.value))
    return "-" if value is None else str(value)


def _apart(line: Line) -> str:
    """The paired difference; for ratios of two runs, both intervals."""
    if line.difference is not None:
        return bounds(line.difference)
    if isinstance(line.before, Interval) and isinstance(line.after, Interval) and line.after.low is not None:
        one, two = (bounds(i).partition(" ")[2] for i in (line.before, line.after))
        return f"{one}\n{two}".strip()
    return "-"


_VERDICTS = {"pass": "green", "improved": "green", "regressed": "bold red", "inconclusive": "yellow"}


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    """A table of what a check found, in the order of the rules."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("verdict", "arm", "rule"):
        table.add_column(head, no_wrap=True)
    table.add_column("found")
    for one in findings:
        verdict = Text(one.verdict, style=_VERDICTS.get(one.verdict, "dim"))
        table.add_row(verdict, *map(Text, (one.arm, one.rule, one.says)))
    return table
