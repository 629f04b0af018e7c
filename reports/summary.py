"""The summary that `bench run` ends with: two tables and what they rest on, for a terminal.

Knows rich and results. Refuses to compute: every figure comes from `orderbench.reports.results`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orderbench.orders.errors import printable
from orderbench.reports.check import CheckFinding
from orderbench.reports.compare import Comparison
from orderbench.reports.results import Floor, Results, Row, failures, step_ratio, times_seeds, too_small
from orderbench.reports.statistics import Interval
from orderbench.reports.tables import exact_table
from orderbench.reports.words import (
    ARROWS,
    bounds,
    busy_words,
    count_words,
    digits,
    fid_words,
    floor_cell,
    one_at_a_time,
    other_tokens_words,
    plus_minus,
    sampling_words,
    settings_words,
    share_words,
    training,
)
from orderbench.runs.rounds import said

_NARROW = 15  # characters of an arm's name, where columns are few: a longer one breaks before its pace
_DOWN, _UP = ARROWS["low"], ARROWS["high"]


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
    for arm, sentence in results.run.about["refused"].items():
        yield Text(f"refused: {arm}: {printable(sentence)}", style="yellow")
    for arm, reason in failures(results.run):
        yield Text(f"failed: {arm}: {reason}", style="red")


def _table(title: str, *columns: str) -> Table:
    # Texts, not strings, here and in the rows: what records say may look like rich's markup.
    table = Table(box=None, pad_edge=False, header_style="bold", title=Text(title, style="bold"), title_justify="left")
    table.add_column(
        Text(columns[0]), overflow="fold", min_width=_NARROW, style="cyan"
    )  # names break, numbers never do
    for column in columns[1:]:
        table.add_column(Text(column), justify="right", no_wrap=True)
    return table


def _tuned(results: Results, rows: list[Row], wide: bool) -> Table:
    """Quality of every arm at its best setting, with that setting; likelihood knows none."""
    heads = ["arm", *_model_head(results), *(["steps", "trained"] if wide else []), f"FD {_DOWN}",
             *([f"KD {_DOWN}"] if wide else []), f"agreement {_UP}"]  # fmt: skip
    table = _table("Quality, the best setting of each arm", *heads)
    table.add_column(Text("setting"))
    for row in rows:
        cells = [
            row.arm,
            *_model_cell(results, row),
            *([count_words(row.n_steps), training(row)] if wide else []),
            *_metrics(row, wide),
            sampling_words(row.sampling, whole=True) if row.figures.keys() & {"fd", "agreement"} else "",
        ]
        table.add_row(*map(Text, cells))
    for floor in results.floors:
        cells = [
            floor_cell(results, floor),
            *_model_cell(results, floor),
            *(["", ""] if wide else []),
            *_metrics(floor, wide),
        ]
        table.add_row(*map(Text, [*cells, ""]))
    return table


def _quality(results: Results, rows: list[Row], several: bool, wide: bool) -> Table:
    title = "Quality" + (", the same setting for all" if several else "")
    heads = ["arm", *_model_head(results), "steps", "trained", f"bits/token {_DOWN}", *(["tax"] if wide else []),
             f"FD {_DOWN}", *([f"KD {_DOWN}"] if wide else []), f"agreement {_UP}"]  # fmt: skip
    table = _table(title, *heads)
    for row in rows:
        cells = [
            row.arm,
            *_model_cell(results, row),
            count_words(row.n_steps),
            training(row),
            plus_minus(row.figures.get("bits")),
            *([plus_minus(row.figures.get("tax"))] if wide else []),
            *_metrics(row, wide),
        ]
        table.add_row(*map(Text, cells))
    for floor in results.floors:
        none = plus_minus(None)
        cells = [floor_cell(results, floor), *_model_cell(results, floor), "", "", none, *([none] if wide else [])]
        table.add_row(*map(Text, [*cells, *_metrics(floor, wide)]))
    return table


def _metrics(row: Row | Floor, wide: bool) -> list[str]:
    """FD, KD where there is room, agreement."""
    distances = [plus_minus(row.figures.get(name)) for name in ("fd", *(["kd"] if wide else []))]
    return [*distances, share_words(row.figures.get("agreement"))]


def _model_head(results: Results) -> list[str]:
    """A column for the model, where there are several and an arm's name does not say which is its own."""
    return ["model"] if len(results.models) > 1 and any(row.own for row in results.arms) else []


def _model_cell(results: Results, row: Row | Floor) -> list[str]:
    return [row.model] if _model_head(results) else []


def _speed(results: Results, wide: bool) -> Table:
    shown = any(row.ratio for row in results.arms)
    batches = sorted({batch for row in results.arms for batch in row.speedup} | set(results.noise)) if shown else []
    timed = {trial["batch"] for trial in results.run.done("latency")}
    big = [batch for batch in sorted({*batches, *timed}) if batch != 1]
    left_out = [] if wide else batches[1:-1]  # there is room for two
    batches, big = [batch for batch in batches if batch not in left_out], [b for b in big if b not in left_out]
    single = len(results.baselines) == 1
    singly = " one at a time, with a cache" if one_at_a_time(results) else ""
    against = f"{results.baselines[0]}{singly}" if single else "each model's own baseline"
    title = f"Speed: times faster than {against}" if shown else "Speed"
    if left_out:
        title += f" (batch {', '.join(map(str, left_out))}: in the report)"
    places = 6 if wide else 2  # decimals of a ratio: with three, two batches fill 80 columns
    heads = [
        "arm",
        *_model_head(results),
        f"latency {_DOWN}\n(ms/image)",
        *(f"x, batch {batch} {_UP}" for batch in batches),
    ]
    heads += [f"img/s {_UP}\nbatch {batch}" for batch in big]
    table = _table(title, *heads, *(["passes", *(["x steps"] if shown else [])] if wide else []))
    for row in results.arms:
        if row.setting == "fixed":
            latency, steps = row.figures.get("latency_s"), step_ratio(results, row)
            cells = [
                row.arm if wide or len(row.arm) <= _NARROW else re.sub(r"(?<=.)(?=[@+~])", "\n", row.arm, count=1),
                *_model_cell(results, row),
                "-" if latency is None else f"{1000 * latency.value:.{digits(1000 * latency.value)}f}",
                *(
                    "1" if row.arm == row.baseline and row.ratio else bounds(row.speedup.get(batch), places)
                    for batch in batches
                ),
                *(f"{row.throughput[batch].value:.1f}" if batch in row.throughput else "-" for batch in big),
                *([count_words(row.counters.get("passes"))] if wide else []),
                *(["-" if steps is None else f"{steps:.1f}"] if wide and shown else []),
            ]
            table.add_row(*map(Text, cells))
    if shown:
        none = [""] * len(_model_head(results))
        table.add_row("A/A (noise)", *none, "", *(bounds(results.noise.get(batch), places) for batch in batches))
    return table


def notes(results: Results, wide: bool = False) -> Iterator[str]:
    """What the figures rest on, a sentence each. wide: whether the tables have room for KD and the ratio of steps."""
    tuned = any(row.setting == "tuned" for row in results.arms)
    fid = fid_words(results)
    n = next((row.n for row in results.arms if row.n is not None), None)
    if results.space is not None and n is not None:
        yield (
            f"FD and KD: in the space {results.space} against {results.reference}; n = {n}{times_seeds(results.arms)}"
            f"; {'the same setting: ' if tuned else ''}{settings_words(results)}. "
            f"{fid[0].upper()}{fid[1:]}."
        )
        if tuned:
            yield "The best setting is the one of least FD, of those tried, on other seeds."
        if any(too_small(results, row) for row in results.arms):
            yield (
                f"n = {n} is small: FD is biased upwards, equally small n are comparable only as a first look; "
                f"read KD{'' if wide else ' (in the report)'}, and paired differences (bench compare)."
            )
    if other_tokens_words(results):
        yield other_tokens_words(results)
    yield from _exact(results)
    if busy_words(results):
        yield f"{busy_words(results)}."
    known = {trial["batch"]: said(len(trial["rounds"]), trial["precision"], len(trial.get("interrupted", [])))
             for trial in results.run.done("latency") if "precision" in trial}  # fmt: skip
    if known:
        yield "Timing: " + "; ".join(f"batch {batch}, {words}" for batch, words in sorted(known.items())) + "."
    if not wide:
        yield from _step_ratios(results)
    if results.uncached is not None:
        yield f"The same baseline without a cache would be {results.uncached.value:.1f} times slower at batch 1."
    if any(row.trained == 0 for row in results.arms):
        yield "Orders marked 'never' were not in the training mixture of these weights."
    if any(training(row).endswith("*") for row in results.arms):
        yield "* in training, but never in these steps."


def _exact(results: Results) -> Iterator[str]:
    """What exact decoders took, and whether rounding made other images."""
    table = exact_table(results)
    for line in () if table is None else table.rows:
        said = line.cells
        words = f"{said['arm']}: {said['passes']:.1f} passes an image (p90 {said['p90']:.0f})"
        words += f", {said['window']:.0f} cells asked a pass" if said["window"] is not None else ""
        if said["differing"] is not None:
            words += f"; images that differ from one cell at a time: {said['differing']}"
        yield f"{words}."


def _step_ratios(results: Results) -> Iterator[str]:
    """The ratios of steps, where the table of speed-ups has no room for them."""
    arms: dict[str, list[str]] = {}
    for row in results.arms:
        ratio = step_ratio(results, row)
        if row.speedup and row.arm != row.baseline and ratio is not None:
            arms.setdefault(f"{ratio:.1f}", []).append(row.arm)
    if arms:
        ratios = "; ".join(f"{steps} for {', '.join(names)}" for steps, names in arms.items())
        whose = f"{results.baselines[0]}'s" if len(results.baselines) == 1 else "their baseline's"
        yield f"Ratio of steps, {whose} to theirs: {ratios}."


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
            said = line.verdict + (f": {line.why}" if line.why else "")
            verdict = Text(said, style=_COLORS.get(line.verdict, "dim"))
            if line.arm != shown:
                table.add_row(Text(line.arm, style="cyan"))
            shown = line.arm
            table.add_row(*map(Text, (line.metric, _side(line.before), _side(line.after), _apart(line))), verdict)
    return Group(table, Text(f"{same} counters are the same" if same else "", style="dim"))


def _side(value: Interval | float | None) -> str:
    if isinstance(value, Interval):
        return bounds(Interval(value.value))
    return "-" if value is None else count_words(value)


def _apart(line: Comparison) -> str:
    """The paired difference; for ratios of two runs, both intervals."""
    if line.difference is not None:
        return bounds(line.difference).replace(" [", "\n[")
    between = line.verdict != "floor" and isinstance(line.before, Interval)
    if (
        between
        and isinstance(line.before, Interval)
        and isinstance(line.after, Interval)
        and line.after.low is not None
    ):
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
