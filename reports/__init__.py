"""Reports: pictures, tables and pages, drawn from plans and records alone.

Refuses to know torch, weights and clocks: it works on a laptop that has none of them. Everything heavy is imported
when it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame  # type: ignore[import-untyped]

    from orderbench.runs.record import Run


def load(run: Run | str | Path) -> DataFrame:
    """The records of a run as one tidy DataFrame, a row a number; `frame.frame_of` lists its columns.

    For instance, the median latency of every arm, in seconds:

        table = orderbench.reports.load("bench-runs/my-run")
        arms = table.dropna(subset="order")  # `A/A` and `uncached` are no arms and have no order
        arms.query("metric == 'tokens_s' and batch == 1").groupby("arm")["value"].median()
    """
    from orderbench.reports.frame import frame_of

    return frame_of(run)


def draw(run: Run | str | Path, figure: str, *, width: float = 3.3, font: str = "", clean: bool = False) -> Figure:
    """One figure of a run's report, as matplotlib's, to be changed and saved: `draw(run, "speedups").savefig(...)`.

    figure: its name, which is that of its file in the report. width: in inches. font: 'serif', 'sans' or an installed
    family; '' for the house's own. clean: without title, warning and foot. Raises BenchError for a name or a font that
    is not there, and where the run measured nothing that the figure shows.
    """
    from orderbench.orders.errors import BenchError, unknown
    from orderbench.reports.canvas import Sheet
    from orderbench.reports.figures import PLOTS
    from orderbench.reports.results import results_of
    from orderbench.runs.record import Run, load_run

    plot = next((plot for plot in PLOTS if plot.name == figure), None)
    if plot is None:
        raise unknown("figure", figure, [plot.name for plot in PLOTS], "the files of a report have the same names")
    drawn = plot.draw(results_of(run if isinstance(run, Run) else load_run(run)), Sheet(width, font=font, clean=clean))
    if drawn is None:
        raise BenchError(f"the run measured nothing that {figure} shows; `bench report` draws all that it has")
    return drawn
