"""Figures for a paper: clean ones, in the two widths of a page, and their captions in files beside them.

Knows file names, LaTeX and the words that a figure leaves out. Refuses to know runs, and what a figure shows.

    OUT/NAME-1col.pdf   3.3 inches wide, and .png, .svg: no title, no warning, no foot inside
    OUT/NAME-2col.pdf   the same at 6.9 inches
    OUT/NAME.txt        the title, what the figure says and cannot say, what it rests on, and the warning
    OUT/NAME.tex        the same as a figure of LaTeX, for \\input; for both columns, its last lines say how

Fonts are embedded as TrueType (type 42), which publishers' checks accept.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from orderbench.orders.files import write_whole
from orderbench.reports.canvas import ONE_COLUMN, TWO_COLUMNS, said, save_figure
from orderbench.reports.table import latex_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {"1col": ONE_COLUMN, "2col": TWO_COLUMNS}  # inches
KINDS = ("pdf", "png", "svg")


def write_paper(folder: Path, name: str, figures: dict[str, Figure], caption: str) -> None:
    """Write one figure in its widths, by the names in `COLUMNS`, and its caption. OSError is let through."""
    for columns, figure in figures.items():
        for kind in KINDS:
            write_whole(folder / f"{name}-{columns}.{kind}", functools.partial(save_figure, figure, dpi=300))
    title, text = caption_of(next(iter(figures.values())), caption)
    for ending, content in (("txt", f"{title}\n\n{text}\n"), ("tex", to_latex(name, title, text))):
        write_whole(folder / f"{name}.{ending}", functools.partial(_write, content))


def caption_of(figure: Figure, caption: str) -> tuple[str, str]:
    """The title of a figure, and all else that is to be said of it. caption: what it says and cannot."""
    told = said(figure)
    sentences = [told.warning, caption, told.words[:1].upper() + told.words[1:]]
    return told.title, " ".join(f"{one.rstrip('.')}." for one in sentences if one)


def to_latex(name: str, title: str, text: str) -> str:
    """A figure of LaTeX, one column wide; in comments, what the two columns need instead."""
    return "\n".join([
        r"\begin{figure}",
        r"  \centering",
        rf"  \includegraphics[width=\columnwidth]{{{name}-1col}}",
        rf"  \caption{{\textbf{{{latex_text(title)}.}} {latex_text(text)}}}",
        rf"  \label{{fig:{name}}}",
        r"\end{figure}",
        rf"% over both columns: figure* in place of figure, and \includegraphics[width=\textwidth]{{{name}-2col}}",
        "",
    ])  # fmt: skip


def _write(content: str, file: Path) -> None:
    file.write_text(content, encoding="utf-8")
