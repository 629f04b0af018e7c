"""Tables: what a run says in rows and columns, written as CSV, Markdown, LaTeX or JSON from one value.

Knows results and how papers set tables. Refuses to compute a figure, and to show one without what it rests on: captions
name n, the feature space and the level of the intervals.

In LaTeX and Markdown the best arm of a column is bold and the second is underlined (Markdown: italic), by point
estimate; floors compete with nobody.
"""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

from orderbench.reports.results import (
    Results,
    Row,
    baseline_steps,
    extrapolates_from,
    results_of,
    round_times,
    times_seeds,
)
from orderbench.reports.statistics import Interval, paired_ratio
from orderbench.reports.words import bounds, busy_words, digits, fid_words, plus_minus_tiny, sampling_words, training

Cell = Interval | int | float | str | None
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Column:
    """One column. key: in CSV and JSON, with its unit; head: for people; better: which end wins, '' where none does;
    show: an interval in words."""

    key: str
    head: str
    better: Literal["low", "high", ""] = ""
    show: Callable[[Interval | None], str] = plus_minus_tiny

    def text(self, cell: Cell) -> str:
        """A cell for people."""
        if cell is None or isinstance(cell, Interval):
            return self.show(cell)
        return f"{cell:.{digits(cell)}f}" if isinstance(cell, float) else str(cell)


@dataclass(frozen=True)
class Line:
    """One row. arm: the competitor it belongs to; order: its order; competes: whether it can be the best."""

    arm: str
    order: str
    cells: dict[str, Cell]
    competes: bool = True


@dataclass(frozen=True)
class Table:
    """Rows under columns, and in words what they are and what they rest on."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...] = field(default_factory=tuple)

    def places(self, column: Column) -> dict[int, int]:
        """By row, 1 for the best and 2 for the second of a column; none where fewer than two compete."""
        if not column.better:
            return {}
        values = {
            number: _number(line.cells.get(column.key)) for number, line in enumerate(self.lines) if line.competes
        }
        known = {number: value for number, value in values.items() if value is not None}
        ranked = sorted(set(known.values()), reverse=column.better == "high")
        if len(known) < 2 or len(ranked) < 2:
            return {}
        return {number: 1 + ranked.index(value) for number, value in known.items() if value in ranked[:2]}


def _number(cell: Cell) -> float | None:
    if isinstance(cell, Interval):
        return cell.value
    return float(cell) if isinstance(cell, int | float) else None


# Four writers


def to_csv(table: Table) -> str:
    """Comma-separated values: an interval takes three columns, KEY, KEY_low and KEY_high; nothing is rounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    wide = [any(isinstance(line.cells.get(column.key), Interval) for line in table.lines) for column in table.columns]
    heads: list[str] = []
    for column, is_wide in zip(table.columns, wide, strict=True):
        heads += [column.key, f"{column.key}_low", f"{column.key}_high"] if is_wide else [column.key]
    writer.writerow(heads)
    for line in table.lines:
        row: list[Any] = []
        for column, is_wide in zip(table.columns, wide, strict=True):
            cell = line.cells.get(column.key)
            if isinstance(cell, Interval):
                row += [cell.value, cell.low, cell.high]
            else:
                row += [cell, None, None] if is_wide else [cell]
        writer.writerow(["" if cell is None else cell for cell in row])
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """A Markdown table under its caption."""
    best = [table.places(column) for column in table.columns]
    aligned = " | ".join("---" if place == 0 else "---:" for place in range(len(table.columns)))
    lines = [f"**{_markdown(table.title)}.** {_markdown(table.caption)}", ""]
    lines += ["| " + " | ".join(_markdown(column.head) for column in table.columns) + " |", f"| {aligned} |"]
    for number, line in enumerate(table.lines):
        cells = []
        for column, places in zip(table.columns, best, strict=True):
            text = _markdown(column.text(line.cells.get(column.key)))
            mark = {1: "**", 2: "*"}.get(places.get(number, 0), "")
            cells.append(f"{mark}{text}{mark}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    escaped = re.sub(r"([\\|*_<>`])", r"\\\1", " ".join(text.split()))
    return escaped.replace("](", r"\](")


def to_latex(table: Table) -> str:
    """A LaTeX table for booktabs: best bold, second underlined, n and the feature space in the caption; as narrow as
    the page of a conference: what does not fit beside the arms stands below, in a part of its own."""
    cells = _latex_cells(table)
    parts = _parts(table)
    wide = len(parts) > 1 or _width(table, parts[0]) > ONE_COLUMN
    kind = "table*" if wide else "table"
    lines = [
        rf"\begin{{{kind}}}",
        rf"  \caption{{\textbf{{{_latex(table.title)}.}} {_latex(table.caption)}}}",
        rf"  \label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', table.name)}}}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
    ]
    for part in parts:
        said = [number for number, line in enumerate(table.lines) if _says(table, line, part)]
        heads = (r"\\".join(map(_latex, _stacked(table.columns[c].head))) for c in part)
        lines += [
            r"  \par\smallskip",
            r"  \begin{tabular}{l" + "r" * (len(part) - 1) + "}",
            r"    \toprule",
            "    " + " & ".join(rf"\shortstack[r]{{{head}}}" if r"\\" in head else head for head in heads) + r" \\",
        ]
        for _, group in groupby(said, lambda number: table.lines[number].competes):
            lines.append(r"    \midrule")
            lines += ["    " + " & ".join(cells[number][c] for c in part) + r" \\" for number in group]
        lines += [r"    \bottomrule", r"  \end{tabular}"]
    return "\n".join([*lines, rf"\end{{{kind}}}"]) + "\n"


ONE_COLUMN, PAGE = 52, 92  # characters of \footnotesize in 3.3 inches and in 5.5, the width of the narrowest pages
GAP = 1.5  # characters between two columns


def _latex_cells(table: Table) -> list[list[str]]:
    rows: list[list[str]] = [[] for _ in table.lines]
    for column in table.columns:
        places = table.places(column)
        for number, line in enumerate(table.lines):
            text = _latex(column.text(line.cells.get(column.key)))
            command = {1: r"\textbf", 2: r"\underline"}.get(places.get(number, 0))
            rows[number].append(f"{command}{{{text}}}" if command else text)
    return rows


def _says(table: Table, line: Line, part: Sequence[int]) -> bool:
    """Whether a row belongs beside these columns: every arm does, a floor only where it has a value."""
    return line.competes or any(line.cells.get(table.columns[c].key) is not None for c in part[1:])


def _stacked(head: str) -> list[str]:
    """A column's head in lines of about twelve characters, broken between words."""
    return textwrap.wrap(head, 12, break_long_words=False, break_on_hyphens=False)


def _width(table: Table, part: Sequence[int]) -> float:
    """Columns side by side, in characters."""
    heads = {c: _stacked(table.columns[c].head) for c in part}
    texts = {c: [table.columns[c].text(line.cells.get(table.columns[c].key)) for line in table.lines] for c in part}
    return sum(max(map(len, [*heads[c], *texts[c]])) + GAP for c in part)


def _parts(table: Table) -> list[list[int]]:
    """The columns in as many parts as a page needs, each behind the first column."""
    parts = [[0]]
    for column in range(1, len(table.columns)):
        if len(parts[-1]) > 1 and _width(table, [*parts[-1], column]) > PAGE:
            parts.append([0])
        parts[-1].append(column)
    return parts


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
          TIMES: r"$\times$",          "-": "-", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
          **{character: "\\" + character for character in "&%$#_{}"}}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def to_json(table: Table) -> dict[str, Any]:
    """The table as plain values: an interval as value, low and high."""

    def plain(cell: Cell) -> Any:
        return {"value": cell.value, "low": cell.low, "high": cell.high} if isinstance(cell, Interval) else cell

    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "columns": [{"key": column.key, "head": column.head, "better": column.better} for column in table.columns],
        "rows": [
            {column.key: plain(line.cells.get(column.key)) for column in table.columns} | {"competes": line.competes}
            for line in table.lines
        ],
    }


# The tables of a run


def tables_of(results: Results) -> tuple[Table, ...]:
    """The tables that the results have something for: main results, quality (twice where settings were tuned), speed,
    correction."""
    made = (main_table(results), *quality_tables(results), speed_table(results), correction_table(results))
    return tuple(table for table in made if table is not None)


def _kept(columns: Sequence[Column], lines: Sequence[Line]) -> tuple[Column, ...]:
    """Columns that hold something."""
    return tuple(column for column in columns if any(line.cells.get(column.key) is not None for line in lines))


def rests_on(results: Results, quality: bool = True, speed: bool = True, setting: str = "fixed") -> str:
    """What figures rest on, for a caption."""
    words = []
    rows = [row for row in results.arms if row.setting == setting]
    n = sorted({row.n for row in rows if row.n is not None})
    if quality and n:
        words.append(
            f"FD and KD in the space {results.space} against {results.reference} ({fid_words(results)}), "
            f"n = {', '.join(map(str, n))}{times_seeds(rows)} an arm"
        )
    held_out = sorted({trial["n"] for trial in results.run.done("likelihood")})
    if quality and held_out and setting == "fixed":
        words.append(f"bits per token on {', '.join(map(str, held_out))} held-out images")
    trials = results.run.done("latency")
    if speed and trials:
        rounds = sorted({len(trial["rounds"]) for trial in trials})
        words.append(f"times are medians of {', '.join(map(str, rounds))} rounds, pixel decoder included")
    words.append(sampling_words(results.run.about["setting"]) if setting == "fixed" else "every row names its setting")
    text = "; ".join(words)
    star = " * in training, but never in these steps." if any("*" in training(row) for row in rows) else ""
    busy = f" {busy_words(results)}." if speed and busy_words(results) else ""
    return f"{text[0].upper()}{text[1:]}. Intervals have the level 0.95.{star}{busy}"


def _fixed(results: Results) -> list[Row]:
    return [row for row in results.arms if row.setting == "fixed"]


def _head(row: Row) -> dict[str, Cell]:
    return {"arm": row.arm, "n_steps": row.about.get("n_steps"), "trained": training(row) or None}


def _line(row: Row, cells: dict[str, Cell], competes: bool = True) -> Line:
    return Line(row.arm, str(row.about.get("order", "")), cells, competes)


def _ratios(results: Results, row: Row) -> dict[str, Cell]:
    one = Interval(1.0)
    return {
        f"speedup_batch_{batch}": one if row.arm == results.baseline else row.speedup.get(batch)
        for batch in _batches(results)
    }


def _batches(results: Results) -> list[int]:
    return sorted({trial["batch"] for trial in results.run.done("latency")})


def _speed_columns(results: Results) -> list[Column]:
    return [
        Column(f"speedup_batch_{batch}", f"{TIMES} {results.baseline}, batch {batch}", "high", _times)
        for batch in _batches(results)
    ]


def _times(interval: Interval | None) -> str:
    return "1" if interval is not None and (interval.value, interval.low) == (1.0, None) else bounds(interval)


def main_table(results: Results) -> Table | None:
    """What one looks for first: steps, quality, likelihood and speed of every arm."""
    lines = []
    for row in _fixed(results):
        latency = row.figures.get("latency_s")
        lines.append(
            _line(row, {
                **_head(row),
                "fd": row.figures.get("fd"), "kd": row.figures.get("kd"), "bits_per_token": row.figures.get("bits"),
                "latency_ms": None if latency is None else latency.scaled(1000),
                **_ratios(results, row),
                "images_per_s": row.figures.get("images_per_s"),
            })
        )  # fmt: skip
    lines += _floors(results, "fd", "kd")
    big = max((batch for batch in _batches(results) if batch != 1), default=1)
    columns = [
        Column("arm", "arm"), Column("n_steps", "steps"), Column("trained", "trained"), Column("fd", "FD", "low"),
        Column("kd", "KD", "low"), Column("bits_per_token", "bits/token", "low"),
        Column("latency_ms", "latency, ms", "low"), *_speed_columns(results),
        Column("images_per_s", f"images/s, batch {big}", "high"),
    ]  # fmt: skip
    caption = f"{rests_on(results)} Speed-ups are over {results.baseline} one cell at a time with a cache."
    return Table("main", "Main results", caption, _kept(columns, lines), tuple(lines))


_RANKED = ("fd", "fd_extrapolated", "kd", "agreement")  # precision and the like crown noise where n is small
_QUALITY = {"fd": "FD", "fd_extrapolated": "FD, n to infinity", "kd": "KD", "precision": "precision",
            "recall": "recall", "inception_score": "score", "agreement": "agreement"}  # fmt: skip


def quality_tables(results: Results) -> tuple[Table, ...]:
    """Every quality figure of every arm, and the paired difference from the baseline: under one setting for all, and
    where settings were tuned also at the best one of each arm."""
    return tuple(table for setting in ("fixed", "tuned") if (table := _quality_table(results, setting)) is not None)


def _quality_table(results: Results, setting: str) -> Table | None:
    metrics, tuned = list(_QUALITY), setting == "tuned"
    lines = []
    for row in results.arms:
        if row.setting != setting or not row.figures.keys() & {*metrics, *(() if tuned else ("bits",))}:
            continue
        cells: dict[str, Cell] = {**_head(row), **_sampling(row), "n": row.n, "seeds": row.seeds or None}
        cells |= {metric: row.figures.get(metric) for metric in metrics}
        cells |= {"fd_difference": row.against.get("fd"), "kd_difference": row.against.get("kd")}
        if not tuned:  # likelihood has no setting
            cells |= {"bits_per_token": row.figures.get("bits"), "tax_bits": row.figures.get("tax"),
                      "predicted_tax_bits": row.about.get("predicted_tax_bits"),
                      "bits_difference": row.against.get("bits")}  # fmt: skip
        lines.append(_line(row, cells))
    lines += _floors(results, *metrics)
    if not any(line.competes for line in lines):
        return None
    against = f"- {results.baseline}"
    columns = [
        Column("arm", "arm"), Column("n_steps", "steps"), Column("trained", "trained"),
        Column("guidance", "guidance"),
        *([Column("temperature", "temperature"), Column("top_k", "top-k"), Column("top_p", "top-p")] if tuned else []),
        Column("n", "n"), Column("seeds", "seeds"),
        *(
            Column(metric, head, ("high" if metric == "agreement" else "low") if metric in _RANKED else "")
            for metric, head in _QUALITY.items()
        ),
        Column("fd_difference", f"FD {against}", "", bounds), Column("kd_difference", f"KD {against}", "", bounds),
        Column("bits_per_token", "bits/token", "low"), Column("tax_bits", "tax, bits"),
        Column("predicted_tax_bits", "predicted tax", ""), Column("bits_difference", f"bits {against}", "", bounds),
    ]  # fmt: skip
    caption = (
        f"{rests_on(results, speed=False, setting=setting)} Differences are paired, since arms share noise, labels and "
        f"images.{_extrapolation(results, lines)}"
    )
    if not tuned:
        title = (
            "Quality, the same setting for all" if any(row.setting == "tuned" for row in results.arms) else "Quality"
        )
        return Table("quality", title, caption, _kept(columns, lines), tuple(lines))
    caption += (
        f" Every arm, {results.baseline} too, stands at the setting with which it had the least FD on other seeds"
        f"{_tried(results)}."
    )
    return Table("quality-tuned", "Quality, the best setting of each arm", caption, _kept(columns, lines), tuple(lines))


def _sampling(row: Row) -> dict[str, Cell]:
    """The setting of a row, as cells."""
    own = row.sampling
    return {"guidance": str(own["guidance"]), "temperature": f"{own['temperature']:g}",
            "top_k": str(own["top_k"] or "all"), "top_p": f"{own['top_p']:g}"}  # fmt: skip


def _tried(results: Results) -> str:
    """The settings that an arm's best one was chosen from, and where."""
    space = results.run.about["subject"]["spaces"][0]["space"]
    axes = results.run.about["config"].get("tune") or {}

    def spelled(name: str, value: Any) -> str:
        return "all" if name == "top_k" and not value else f"{value:g}" if isinstance(value, float) else str(value)

    words = [f"{n.replace('_', '-')} {', '.join(spelled(n, value) for value in axes[n])}" for n in axes]
    return f" in the space {space}" + (f", of {'; '.join(words)}" if words else "")


def _extrapolation(results: Results, lines: Sequence[Line]) -> str:
    """Why some rows have no extrapolated distance."""
    needed = extrapolates_from(results)
    small = any(line.cells.get("fd") is not None and line.cells.get("fd_extrapolated") is None and
                (_number(line.cells.get("n")) or 0) < needed for line in lines)  # fmt: skip
    return f" FD extrapolated to infinite n needs n of at least {needed} here." if small else ""


def _floors(results: Results, *metrics: str) -> list[Line]:
    """What no arm made: real and reconstructed images, uniform codes."""
    return [
        _line(row, {"arm": f"({row.arm})", "n": row.n, **{m: row.figures.get(m) for m in metrics}}, competes=False)
        for row in results.floors
    ]


def _ratio(results: Results, batch: int, slow: str, fast: str, pixels: bool = True) -> Interval | None:
    """How many times faster one contender was than another in the same rounds; None where they never met."""
    for trial in reversed(results.run.done("latency")):  # of two, the later is the one that all figures keep
        sides = [round_times(trial, name, pixels) for name in (slow, fast)]
        if trial["batch"] == batch and all(sides):
            return paired_ratio(*sides)
    return None


def speed_table(results: Results) -> Table | None:
    """One decode, all its speed-ups: at batch 1 and more, with and without pixels, with and without a cache."""
    batches, baseline = _batches(results), results.baseline
    if not batches:
        return None
    rows = _fixed(results)
    lines = []
    for row in rows:
        if not row.figures.keys() & {"latency_s", "images_per_s"}:
            continue
        cells: dict[str, Cell] = {**_head(row), "passes": row.counters.get("passes"),
                                  "step_ratio": baseline_steps(results) / row.about["n_steps"]}  # fmt: skip
        query, content = row.counters.get("query_tokens"), row.counters.get("content_tokens")
        cells |= {"tokens": None if query is None or content is None else query + content}
        for name, factor in (("latency_s", 1000.0), ("network_latency_s", 1000.0), ("images_per_s", 1.0)):
            one = row.figures.get(name)
            cells[name.replace("_s", "_ms") if factor == 1000 else name] = None if one is None else one.scaled(factor)
        for name in ("p90", "iqr", "min"):
            cells[f"{name}_ms"] = 1000 * row.spread[name] if row.spread else None
        cells["rounds"] = row.spread.get("n")
        cells |= _ratios(results, row)
        cells["network_speedup"] = (
            Interval(1.0) if row.arm == baseline else _ratio(results, batches[0], baseline, row.arm, False)
        )
        cells["uncached_speedup"] = _ratio(results, 1, "uncached", row.arm)
        lines.append(_line(row, cells))
    noise: dict[str, Cell] = {
        "arm": "(A/A)",
        **{f"speedup_batch_{batch}": results.noise.get(batch) for batch in batches},
    }
    lines.append(Line("A/A", "", noise, competes=False))
    big = max((batch for batch in batches if batch != 1), default=1)
    columns = [
        Column("arm", "arm"), Column("n_steps", "steps"), Column("passes", "passes"),
        Column("tokens", "tokens through"), Column("latency_ms", "latency, ms", "low"),
        Column("p90_ms", "p90, ms"), Column("iqr_ms", "IQR, ms"), Column("min_ms", "min, ms"),
        Column("rounds", "rounds"), Column("network_latency_ms", "network alone, ms", "low"), *_speed_columns(results),
        Column("network_speedup", f"{TIMES} {baseline}, network alone", "high", _times),
        Column("uncached_speedup", f"{TIMES} {baseline} without cache", "high", _times),
        Column("step_ratio", f"{TIMES} fewer steps"), Column("images_per_s", f"images/s, batch {big}", "high"),
    ]  # fmt: skip
    caption = (
        f"{rests_on(results, quality=False)} Each column names its baseline: {baseline} is the same network, one cell "
        f"at a time with a cache, in the same rounds. A/A is that baseline against itself, the noise floor. p90, "
        f"IQR and min are of the rounds of latency, one image at a time."
    )
    return Table("speed", "Speed", caption, _kept(columns, lines), tuple(lines))


def correction_table(results: Results) -> Table | None:
    """Every arm with correction against the same arm without."""
    rates = {
        trial["arm"]: {rate["error_rate"]: rate for rate in trial["rates"]} for trial in results.run.done("repair")
    }
    changed = {
        (trial["arm"], trial["setting"]): trial.get("changed_per_image")
        for trial in reversed(results.run.done("quality"))
    }
    lines = []
    for row, plain in _pairs(results):
        both = replace(results.run, about={**results.run.about, "arms": [plain.about, row.about]})
        against = results_of(both, results.space, plain.arm).row(row.arm)
        slower = against.speedup.get(1)
        query = {name: one.counters.get("query_tokens") for name, one in (("with", row), ("without", plain))}
        cells: dict[str, Cell] = {
            "arm": row.arm, "plain": plain.arm, "fd": row.figures.get("fd"), "plain_fd": plain.figures.get("fd"),
            "fd_difference": against.against.get("fd"), "kd_difference": against.against.get("kd"),
            "agreement_difference": against.against.get("agreement"),
            "slower": None if slower is None else _inverse(slower),
            "query_ratio": None if not query["with"] or not query["without"] else query["with"] / query["without"],
            "changed": changed.get((row.arm, "fixed")),
        }  # fmt: skip
        rate = rates.get(row.arm, {}).get(0.1)
        if rate is not None:
            cells |= {"repaired": _percent(rate["repair_rate"]), "damaged": _percent(rate["damage_rate"])}
        lines.append(_line(row, cells))
    if not lines:
        return None
    lines += _floors(results, "fd")
    columns = [
        Column("arm", "arm"), Column("plain", "against"), Column("fd", "FD", "low"), Column("plain_fd", "FD without"),
        Column("fd_difference", "FD difference", "", bounds), Column("kd_difference", "KD difference", "", bounds),
        Column("agreement_difference", "agreement difference", "", bounds),
        Column("slower", f"{TIMES} slower, batch 1", "low", bounds), Column("query_ratio", f"{TIMES} tokens asked"),
        Column("changed", "codes changed an image"), Column("repaired", "repaired, %", "high"),
        Column("damaged", "damaged, %", "low"),
    ]  # fmt: skip
    caption = (
        f"{rests_on(results)} Differences are paired: with correction minus without, under the same plan and noise. "
        f"Repaired and damaged: of codes of held-out images, 10 % of which were made wrong."
    )
    return Table("correction", "Ablation of correction", caption, _kept(columns, lines), tuple(lines))


def _pairs(results: Results) -> Iterator[tuple[Row, Row]]:
    """Arms with correction, each with the same order and pace without."""
    rows = _fixed(results)
    for row in rows:
        if row.corrected:
            for other in rows:
                same = all(row.about[key] == other.about[key] for key in ("order", "pace"))
                if same and not other.corrected:
                    yield row, other


def _inverse(ratio: Interval) -> Interval:
    low, high = (None if bound is None else 1 / bound for bound in (ratio.high, ratio.low))
    return Interval(1 / ratio.value, low, high)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


WRITERS: dict[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
