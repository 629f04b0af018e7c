"""A table: rows under columns as one value, and its four writers: CSV, Markdown, LaTeX and JSON.

Knows how papers set tables. Refuses to know runs, and what any column means.

An arrow behind a head says which end is better. In LaTeX and Markdown the best row of a column is bold and the second
underlined (Markdown: italic), each only where it is shown to be better than the next one; rows that do not compete,
such as floors, are never marked.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from orderbench.reports.statistics import Interval, disjoint
from orderbench.reports.words import ARROWS, digits, plus_minus_tiny

Cell = Interval | int | float | str | None
TIMES = "\N{MULTIPLICATION SIGN}"
ONE_COLUMN_CHARS, PAGE_CHARS = 52, 92  # of \footnotesize in 3.3 inches and in 5.5, the width of the narrowest pages
GAP_CHARS = 1.5  # between two columns


@dataclass(frozen=True)
class Column:
    """One column. key: in CSV and JSON, with its unit; head: for people; better: which end wins, '' where none does;
    show: an interval in words."""

    key: str
    head: str
    better: Literal["low", "high", ""] = ""
    show: Callable[[Interval | None], str] = plus_minus_tiny

    @property
    def title(self) -> str:
        """The head, with an arrow to the better end."""
        return f"{self.head} {ARROWS[self.better]}" if self.better else self.head

    def text(self, cell: Cell) -> str:
        """A cell for people."""
        if cell is None or isinstance(cell, Interval):
            return self.show(cell)
        return f"{cell:.{digits(cell)}f}" if isinstance(cell, float) else str(cell)


@dataclass(frozen=True)
class TableRow:
    """One row. arm: the competitor it belongs to; order: its order; competes: whether it can be the best."""

    arm: str
    order: str
    cells: dict[str, Cell]
    competes: bool = True


Shown = Callable[[str, int, int], bool]


@dataclass(frozen=True)
class Table:
    """Rows under columns, and in words what they are and what they rest on. shown: by the key of a column and two rows,
    whether the first is shown to be better than the second; by default, whether their intervals lie apart."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...] = field(default_factory=tuple)
    shown: Shown | None = None

    def places(self, column: Column) -> dict[int, int]:
        """By row, 1 for the best and 2 for the second of a column, where each is shown to be better than the next."""
        if not column.better:
            return {}
        values = {number: number_of(row.cells.get(column.key)) for number, row in enumerate(self.rows) if row.competes}
        known = {number: value for number, value in values.items() if value is not None}
        ranked = sorted(known, key=known.__getitem__, reverse=column.better == "high")
        better = self.shown or self._apart
        found: dict[int, int] = {}
        for place, (number, following) in enumerate(itertools.pairwise(ranked[:3]), start=1):
            if known[number] == known[following] or not better(column.key, number, following):
                break
            found[number] = place
        return found

    def _apart(self, key: str, one: int, two: int) -> bool:
        a, b = (self.rows[number].cells.get(key) for number in (one, two))
        return isinstance(a, Interval) and isinstance(b, Interval) and disjoint(a, b)


def number_of(cell: Cell) -> float | None:
    """What a cell is ranked by; None for words."""
    if isinstance(cell, Interval):
        return cell.value
    return float(cell) if isinstance(cell, int | float) else None


# Four writers


def to_csv(table: Table) -> str:
    """Comma-separated values: an interval takes three columns, KEY, KEY_low and KEY_high; nothing is rounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    wide = [any(isinstance(row.cells.get(column.key), Interval) for row in table.rows) for column in table.columns]
    heads: list[str] = []
    for column, is_wide in zip(table.columns, wide, strict=True):
        heads += [column.key, f"{column.key}_low", f"{column.key}_high"] if is_wide else [column.key]
    writer.writerow(heads)
    for row in table.rows:
        written: list[Any] = []
        for column, is_wide in zip(table.columns, wide, strict=True):
            cell = row.cells.get(column.key)
            if isinstance(cell, Interval):
                written += [cell.value, cell.low, cell.high]
            else:
                written += [cell, None, None] if is_wide else [cell]
        writer.writerow(["" if cell is None else cell for cell in written])
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """A Markdown table under its caption."""
    best = [table.places(column) for column in table.columns]
    aligned = " | ".join("---" if place == 0 else "---:" for place in range(len(table.columns)))
    lines = [f"**{_markdown(table.title)}.** {_markdown(table.caption)}", ""]
    lines += ["| " + " | ".join(_markdown(column.title) for column in table.columns) + " |", f"| {aligned} |"]
    for number, row in enumerate(table.rows):
        cells = []
        for column, places in zip(table.columns, best, strict=True):
            text = _markdown(column.text(row.cells.get(column.key)))
            mark = {1: "**", 2: "*"}.get(places.get(number, 0), "")
            cells.append(f"{mark}{text}{mark}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    escaped = re.sub(r"([\\|*_<>`])", r"\\\1", " ".join(text.split()))
    return escaped.replace("](", r"\](")


def to_latex(table: Table) -> str:
    """A LaTeX table for booktabs, with arrows to the better end, n and the feature space in the caption; as narrow as
    the page of a conference: what does not fit next to the arms follows below, in a part of its own."""
    cells = _latex_cells(table)
    parts = _parts(table)
    wide = len(parts) > 1 or _width(table, parts[0]) > ONE_COLUMN_CHARS
    kind = "table*" if wide else "table"
    lines = [
        rf"\begin{{{kind}}}",
        rf"  \caption{{\textbf{{{latex_text(table.title)}.}} {latex_text(table.caption)}}}",
        rf"  \label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', table.name)}}}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
    ]
    for part in parts:
        said = [number for number, row in enumerate(table.rows) if _says(table, row, part)]
        heads = (r"\\".join(map(latex_text, _stacked(table.columns[c].title))) for c in part)
        lines += [
            r"  \par\smallskip",
            r"  \begin{tabular}{l" + "r" * (len(part) - 1) + "}",
            r"    \toprule",
            "    " + " & ".join(rf"\shortstack[r]{{{head}}}" if r"\\" in head else head for head in heads) + r" \\",
        ]
        for _, group in groupby(said, lambda number: table.rows[number].competes):
            lines.append(r"    \midrule")
            lines += ["    " + " & ".join(cells[number][c] for c in part) + r" \\" for number in group]
        lines += [r"    \bottomrule", r"  \end{tabular}"]
    return "\n".join([*lines, rf"\end{{{kind}}}"]) + "\n"


def _latex_cells(table: Table) -> list[list[str]]:
    rows: list[list[str]] = [[] for _ in table.rows]
    for column in table.columns:
        places = table.places(column)
        for number, row in enumerate(table.rows):
            text = latex_text(column.text(row.cells.get(column.key)))
            command = {1: r"\textbf", 2: r"\underline"}.get(places.get(number, 0))
            rows[number].append(f"{command}{{{text}}}" if command else text)
    return rows


def _says(table: Table, row: TableRow, part: Sequence[int]) -> bool:
    """Whether a row belongs with these columns: every arm does, a floor only where it has a value."""
    return row.competes or any(row.cells.get(table.columns[c].key) is not None for c in part[1:])


def _stacked(head: str) -> list[str]:
    """A column's head in lines of about twelve characters, broken between words, an arrow never alone."""
    lines = textwrap.wrap(head, 12, break_long_words=False, break_on_hyphens=False)
    return [*lines[:-2], f"{lines[-2]} {lines[-1]}"] if len(lines) > 1 and lines[-1] in ARROWS.values() else lines


def _width(table: Table, part: Sequence[int]) -> float:
    """Columns side by side, in characters."""
    heads = {c: _stacked(table.columns[c].title) for c in part}
    texts = {c: [table.columns[c].text(row.cells.get(table.columns[c].key)) for row in table.rows] for c in part}
    return sum(max(map(len, [*heads[c], *texts[c]])) + GAP_CHARS for c in part)


def _parts(table: Table) -> list[list[int]]:
    """The columns in as many parts as a page needs, each behind the first column."""
    parts = [[0]]
    for column in range(1, len(table.columns)):
        if len(parts[-1]) > 1 and _width(table, [*parts[-1], column]) > PAGE_CHARS:
            parts.append([0])
        parts[-1].append(column)
    return parts


_MINUS = "\N{MINUS SIGN}"
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
          ARROWS["low"]: r"$\downarrow$", ARROWS["high"]: r"$\uparrow$", TIMES: r"$\times$", _MINUS: "$-$",
          "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
          **{character: "\\" + character for character in "&%$#_{}"}}  # fmt: skip


def latex_text(text: str) -> str:
    """A text as LaTeX prints it, on one line; a minus before a number as long as a plus.

    >>> print(latex_text("-2.5 [-3, 1], n-gram 5-3"))
    $-$2.5 [$-$3, 1], n-gram 5-3
    """
    signed = re.sub(r"(?<![^\s\[(])-(?=[0-9.])", _MINUS, " ".join(text.split()))
    return "".join(_LATEX.get(character, character) for character in signed)


def to_json(table: Table) -> dict[str, Any]:
    """The table as plain values: an interval as value, low and high."""

    def plain(cell: Cell) -> Any:
        return cell.plain() if isinstance(cell, Interval) else cell

    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "columns": [{"key": column.key, "head": column.head, "better": column.better} for column in table.columns],
        "rows": [
            {column.key: plain(row.cells.get(column.key)) for column in table.columns} | {"competes": row.competes}
            for row in table.rows
        ],
    }


WRITERS: dict[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
