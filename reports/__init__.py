"""Reports: pictures, tables and pages, drawn from plans and records alone.

Refuses to know torch, weights and clocks: it works on a laptop that has none of them. Everything heavy is imported
when it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped]

    from orderbench.runs.record import Run


def load(run: Run | str | Path) -> DataFrame:
    """The records of a run as one tidy DataFrame, a row a number; `frame.frame_of` lists its columns.

    For instance, the median latency of every arm, in seconds:

        table = orderbench.reports.load("bench-runs/my-run")
        table.query("metric == 'tokens_s' and batch == 1").groupby("arm")["value"].median()
    """
    from orderbench.reports.frame import frame_of

    return frame_of(run)
