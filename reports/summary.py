"""The summary that `bench run` ends with: two tables and what they rest on, for a terminal.

Knows rich and results. Refuses to compute: every figure comes from `orderbench.reports.results`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orderbench.reports.check import CheckFinding
from orderbench.reports.compare import Comparison
from orderbench.reports.results import Results, Row, baseline_steps, failures, times_seeds, too_small
from orderbench.reports.statistics import Interval
from orderbench.reports.words import bounds, busy_words, fid_words, plus_minus, sampling_words, training


def summary(results: Results, width: int) -> RenderableType:
    """The tables of a run, for so many columns; where they are few, some figures are left to the report."""
    return Group(*_parts(results, width))


def _parts(results: Results, width: int) -> Iterator[RenderableType]:
    settings = list(dict.fromkeys(row.setting for row in results.arms))
    wide = width >= 110
    for setting in settings:
        rows = [row for row in results.arms if row.setting == setting]
        if setting == "tuned" and any(row.figures.keys() & {"fd", "agreement"} for row in rows):
            yield _tuned(results, rows, wide)
            yield Text()
        elif setting == "fixed" and any(row.figures.keys() & {"bits", "fd", "agreement"} for row in rows):
            yield _quality(results, rows, several=len(settings) > 1, wide=wide)
            yield Text()
    if any("latency_s" in row.figures or "images_per_s" in row.figures for row in results.arms):
        yield _speed(results, wide)
        yield Text()
    for note in notes(results, wide):
        yield Text(note, style="dim")
    for arm, reason in failures(results.run):
        yield Text(f"failed: {arm}: {reason}", style="red")


def _table(title: str, *columns: str) -> Table:
    # Texts, not strings, here and in the rows: what records say may look like rich's markup.
    table = Table(box=None, pad_edge=False, header_style="bold", title=Text(title, style="bold"), title_justify="left")
    table.add_column(Text(columns[0]), overflow="fold", min_width=15, style="cyan")  # names break, numbers never do
    for column in columns[1:]:
        table.add_column(Text(column), justify="right", no_wrap=True)
    return table


def _tuned(results: Results, rows: list[Row], wide: bool) -> Table:
    """Quality of every arm at its best setting, with that setting; likelihood knows none."""
    heads = ["arm", *(["steps", "trained"] if wide else []), "FD", *(["KD"] if wide else []), "agreement"]
    table = _table("Quality, the best setting of each arm", *heads)
    table.add_column(Text("setting"))
    for row in [*rows, *results.floors]:
        own = row in rows
        cells = [
            row.arm if own else f"({row.arm})",
            *([str(row.about.get("n_steps", "")), training(row)] if wide else []),
            plus_minus(row.figures.get("fd")),
            *([plus_minus(row.figures.get("kd"))] if wide else []),
            plus_minus(row.figures.get("agreement")),
            sampling_words(row.sampling, whole=True) if own and row.figures.keys() & {"fd", "agreement"} else "",
        ]
        table.add_row(*map(Text, cells))
    return table


def _quality(results: Results, rows: list[Row], several: bool, wide: bool) -> Table:
    title = "Quality" + (", the same setting for all" if several else "")
    heads = ["arm", "steps", "trained", "bits/token", *(["tax"] if wide else []), "FD", *(["KD"] if wide else []),
             "agreement"]  # fmt: skip
    table = _table(title, *heads)
    for row in [*rows, *results.floors]:
        cells = [
            row.arm if row in rows else f"({row.arm})",
            str(row.about.get("n_steps", "")),
            training(row),
            plus_minus(row.figures.get("bits")),
            *([plus_minus(row.figures.get("tax"))] if wide else []),
            plus_minus(row.figures.get("fd")),
            *([plus_minus(row.figures.get("kd"))] if wide else []),
            plus_minus(row.figures.get("agreement")),
        ]
        table.add_row(*map(Text, cells))
    return table


def _speed(results: Results, wide: bool) -> Table:
    batches = sorted({batch for row in results.arms for batch in row.speedup} | set(results.noise))
    big = [batch for batch in batches if batch != 1]
    title = f"Speed: times faster than {results.baseline} one at a time, with a cache"
    heads = ["arm", "latency", *(f"x, batch {batch}" for batch in batches), *(f"img/s, {b}" for b in big)]
    table = _table(title, *heads, *(["passes", "x steps"] if wide else []))
    cells = baseline_steps(results)
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


def notes(results: Results, wide: bool = False) -> Iterator[str]:
    """What the figures rest on, a sentence each. wide: whether the tables have room for KD and the ratio of steps."""
    about = results.run.about
    tuned = any(row.setting == "tuned" for row in results.arms)
    fid = fid_words(results)
    n = next((row.n for row in results.arms if row.n is not None), None)
    if results.space is not None and n is not None:
        yield (
            f"FD and KD: in the space {results.space} against {results.reference}; n = {n}{times_seeds(results.arms)}"
            f"; {'the same setting: ' if tuned else ''}{sampling_words(about['setting'])}. "
            f"{fid[0].upper()}{fid[1:]}."
        )
        if tuned:
            yield "The best setting is the one of least FD, of those tried, on other seeds."
        if any(too_small(results, row) for row in results.arms):
            yield (
                f"n = {n} is small: FD is biased upwards, equally small n are comparable only as a first look; "
                f"read KD{'' if wide else ' (in the report)'}, and paired differences (bench compare)."
            )
    if busy_words(results):
        yield f"{busy_words(results)}."
    if not wide:
        yield from _step_ratios(results)
    if results.uncached is not None:
        yield f"The same baseline without a cache would be {results.uncached.value:.1f} times slower at batch 1."
    if any(row.about.get("training_share") == 0 for row in results.arms):
        yield "Orders marked 'never' were not in the training mixture of these weights."
    if any(training(row).endswith("*") for row in results.arms):
        yield "* in training, but never in these steps."


def _step_ratios(results: Results) -> Iterator[str]:
    """The ratio of steps beside the speed-ups, where their table has no room for it."""
    arms: dict[str, list[str]] = {}
    for row in results.arms:
        if row.speedup and row.arm != results.baseline:
            arms.setdefault(f"{baseline_steps(results) / row.about['n_steps']:.1f}", []).append(row.arm)
    if arms:
        ratios = "; ".join(f"{ratio} for {', '.join(names)}" for ratio, names in arms.items())
        yield f"Ratio of steps, {results.baseline}'s to theirs: {ratios}."


_COLORS = {"better": "green", "worse": "red", "changed": "red", "not comparable": "yellow"}


def comparison(lines: Sequence[Comparison], titles: tuple[str, str]) -> RenderableType:
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


def _apart(line: Comparison) -> str:
    """The paired difference; for ratios of two runs, both intervals."""
    if line.difference is not None:
        return bounds(line.difference).replace(" [", "\n[")
    if isinstance(line.before, Interval) and isinstance(line.after, Interval) and line.after.low is not None:
        one, two = (bounds(i).partition(" ")[2] for i in (line.before, line.after))
        return f"{one}\n{two}".strip()
    return "-"


_VERDICTS = {"pass": "green", "improved": "green", "regressed": "bold red", "inconclusive": "yellow"}


def findings_table(findings: Sequence[CheckFinding]) -> RenderableType:
    """A table of what a check found, in the order of the rules."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("arm, rule and what was found")
    for one in findings:
        verdict = Text(one.verdict, style=_VERDICTS.get(one.verdict, "dim"))
        table.add_row(verdict, Text.assemble((one.arm, "cyan"), f"  {one.rule}\n{one.says}"))
    return table
