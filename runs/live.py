"""A run while it runs: a live table in a terminal, plain lines elsewhere; all on stderr.

Knows rich and what a `Watcher` is told. Refuses to know how trials are measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orderbench.runs.kinds import KINDS, kind_of, title
from orderbench.runs.rounds import said
from orderbench.runs.trials import Trial

_COLUMNS = [name for name, kind in KINDS.items() if kind.of_an_arm]


class LiveWatcher:
    """The state of every trial, and the time that is left.

    estimates: seconds of every trial by id; what was measured so far corrects them.
    """

    def __init__(self, console: Console, estimates: Mapping[str, float]) -> None:
        self.console, self.estimates = console, estimates
        self.trials: Sequence[Trial] = ()
        self.share: dict[str, float] = {}
        self.states: dict[str, str] = {}
        self.began = time.monotonic()
        self.before_s = 0.0
        self.live: Live | None = None

    def planned(self, trials: Sequence[Trial], done: Sequence[str]) -> None:
        self.trials, self.began = trials, time.monotonic()
        self.states = {trial.id: "done" if trial.id in done else "" for trial in trials}
        self.share = {trial.id: float(trial.id in done) for trial in trials}
        self.before_s = sum(self.estimates.get(name, 1.0) for name in done)
        if done:
            self._say(f"{len(done)} of {len(trials)} trials were done before")
        self._refresh()

    def noticed(self, sentence: str) -> None:
        self._say(sentence)

    def progress(self, trial: Trial, done: int, total: int) -> None:
        self.share[trial.id] = min(0.999, done / max(1, total))
        self.states[trial.id] = f"{100 * self.share[trial.id]:.0f} %"
        self._refresh()

    def ended(self, trial: Trial, record: dict[str, Any]) -> None:
        self.share[trial.id] = 1.0
        self.states[trial.id] = record["status"]
        if record["status"] == "failed":
            self._say(f"{self._title(trial)} failed: {record['reason']}")
        elif not self.console.is_terminal:
            precision = record.get("precision")
            known = precision and said(len(record["rounds"]), precision, len(record.get("interrupted", [])))
            self._say(
                f"{self._title(trial)} took {record['wall_s']:.0f} s{f' ({known})' if known else ''}; {self._left()}"
            )
        self._refresh()

    def _say(self, sentence: str) -> None:
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def _title(self, trial: Trial) -> str:
        setting = "" if trial.setting == "fixed" else f", {trial.setting}"
        return title(trial) + (f" (seed {trial.seed}{setting})" if trial.seed or setting else "")

    def left_s(self) -> float:
        """Seconds that are left: the estimates of what is not done, scaled by how wrong they were so far."""
        worth = {trial.id: self.estimates.get(trial.id, 1.0) for trial in self.trials}
        done_s = sum(worth[name] * share for name, share in self.share.items()) - self.before_s
        left_s = sum(worth[name] * (1 - share) for name, share in self.share.items())
        spent_s = time.monotonic() - self.began
        wrong = spent_s / done_s if done_s > 5 and spent_s > 5 else 1.0
        return left_s * min(10.0, max(0.1, wrong))

    def _left(self) -> str:
        left_s = self.left_s()
        return f"ETA {left_s / 60:.0f} min" if left_s > 90 else f"ETA {left_s:.0f} s"

    def _refresh(self) -> None:
        if self.live is not None:
            self.live.update(self._table())

    def _table(self) -> Group:
        shown = [kind for kind in _COLUMNS if any(trial.kind == kind for trial in self.trials)]
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("arm", style="cyan", no_wrap=True)
        for kind in shown:
            table.add_column(kind, justify="right")
        of_arms = [trial for trial in self.trials if kind_of(trial).of_an_arm]
        for arm in dict.fromkeys(trial.arm for trial in of_arms):
            own = [trial for trial in of_arms if trial.arm == arm]
            table.add_row(arm, *(self._cell([t for t in own if t.kind == kind]) for kind in shown))
        others = [trial for trial in self.trials if not kind_of(trial).of_an_arm]
        line = "   ".join(f"{trial.arm or title(trial)} {self.states[trial.id] or '-'}" for trial in others)
        return Group(table, Text(line, style="dim"), Text(self._left()))

    def _cell(self, trials: Sequence[Trial]) -> Text:
        if not trials:
            return Text("")
        states = [self.states[trial.id] for trial in trials]
        if "failed" in states:
            return Text("failed", style="red")
        share = sum(self.share[trial.id] for trial in trials) / len(trials)
        return Text("done", style="green") if share == 1 else Text(f"{100 * share:.0f} %" if share else "-")


@contextmanager
def watching(estimates: Mapping[str, float]) -> Iterator[LiveWatcher]:
    """A watcher on stderr; the live table goes when the run ends."""
    console = Console(stderr=True)
    watcher = LiveWatcher(console, estimates)
    if not console.is_terminal:
        yield watcher
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        watcher.live = live
        yield watcher
