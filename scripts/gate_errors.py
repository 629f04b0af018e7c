"""How often does the gate cry wolf, and what does it miss? Printed as Markdown for docs/checks.md.

    python scripts/gate_errors.py --out FOLDER [--runs 51] [--slowed 10] [--rounds 5] [--batch 4]

Repeats `bench run --only latency --threads 1` of unchanged code, a process each, and checks every run against the
first, against the one before it, and against every other. Then the same with a network that waits: after every
decision of more than one cell, until it has taken 1.1, 1.25 or 1.5 times as long, so that radial slows down and raster
does not. Finished runs are kept and not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from orderbench.models.answer import Categorical
from orderbench.models.shipped import load_shipped
from orderbench.models.transformer import Cache, Transformer
from orderbench.reports.check import Rules, check, exit_code
from orderbench.reports.compare import busy
from orderbench.reports.results import Results, results_of
from orderbench.reports.snapshot import snapshot
from orderbench.runs.record import load_run

BENCH = Path(sys.executable).with_name("bench")
RULES = Rules(max_speedup_loss=10, min_speedup={"radial/raster": 2})


class Slowed(Transformer):
    """A network that takes `factor` times as long over every step of more than one cell."""

    factor = 1.0

    def start(self, labels_B: Tensor, slots: int) -> Cache:
        self.mark = time.perf_counter()
        return super().start(labels_B, slots)

    def answer(self, cache: Cache, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Categorical:
        answer = super().answer(cache, cells_BQ, seen=seen)
        now = time.perf_counter()
        if cells_BQ.shape[1] > 1:
            wake = now + (self.factor - 1) * (now - self.mark)
            while now < wake:
                now = time.perf_counter()
        self.mark = now
        return answer


def slowed() -> Slowed:
    """The shipped network, slowed by the environment's SLOWED; what `--model gate_errors:slowed` calls."""
    loaded = load_shipped("fashion-model", "model").network
    assert isinstance(loaded, Transformer)
    network = Slowed(loaded.config)
    network.load_state_dict(loaded.state_dict())
    network.factor = float(os.environ["SLOWED"])
    return network.eval()


def bench(given: argparse.Namespace, folder: Path, factor: float) -> Path:
    """A finished run in `folder`."""
    if not (folder / "report").exists():
        command = [
            str(BENCH), "run", "--orders", "raster,radial", "--correction", "off", "--only", "latency",
            "--threads", "1", "--rounds", str(given.rounds), "--batch", str(given.batch),
            "--model", "gate_errors:slowed", "--out", str(folder.resolve()), *(["--resume"] if folder.exists() else []),
        ]  # fmt: skip
        env = {**os.environ, "SLOWED": str(factor)}
        subprocess.run(command, check=True, env=env, cwd=Path(__file__).parent, capture_output=True)  # noqa: S603 (ours)
    return folder


def row(name: str, pairs: Iterable[tuple[Path, Path]]) -> None:
    """A line of the table: of runs and their baselines, verdicts on radial's speed-up a batch, and exit codes."""
    codes, verdicts = Counter[int](), Counter[str]()
    for run, baseline in pairs:
        findings = check(results(run), taken(baseline), RULES)
        codes[exit_code(findings)] += 1
        speed = (f for f in findings if f.rule.startswith("max-speedup-loss") and f.arm == "radial")
        verdicts.update(finding.verdict for finding in speed)
    said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    told = ", ".join(f"{count} x {code}" for code, count in sorted(codes.items()))
    print(f"| {name} | {codes.total()} | {said} | {told} |", flush=True)


@cache
def results(run: Path) -> Results:
    return results_of(load_run(run))


@cache
def taken(run: Path) -> dict[str, Any]:
    """A run as a baseline."""
    return snapshot(results(run))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=51)
    parser.add_argument("--slowed", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    given = parser.parse_args()
    runs = [bench(given, given.out / f"unchanged-{i:02d}", 1.0) for i in range(given.runs)]
    calm = [run for run in runs if not busy(results(run).run)]
    print(f"{len(calm)} of {len(runs)} runs with a load of no more than cores + 1\n")
    print("| what | checks | radial's speed-up, at two batches | exit codes |\n| --- | ---: | --- | --- |")
    row("unchanged, against the first run", [(run, runs[0]) for run in runs[1:]])
    row("unchanged, against the run before", [(run, before) for before, run in itertools.pairwise(runs)])
    row("unchanged, all pairs", itertools.permutations(runs, 2))
    row("unchanged, all pairs of those", itertools.permutations(calm, 2))
    for factor in (1.1, 1.25, 1.5):
        slow = [bench(given, given.out / f"slowed-{factor:g}-{i:02d}", factor) for i in range(given.slowed)]
        row(f"slowed by {factor:g}, against each of those", itertools.product(slow, calm))


if __name__ == "__main__":
    main()
