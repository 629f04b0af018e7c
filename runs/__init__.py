"""Runs: the command line, trials and their records: the one room with a clock and a store of results.

Knows what was asked, what happened and on what machine. Refuses to know how an order ranks or how a network computes.

`run` makes a whole run from Python, and `__version__` is the version of what is installed.
"""

from __future__ import annotations

from orderbench.runs.python import run as run


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for."""
    if name != "__version__":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib.metadata import version

    return version("orderbench")
