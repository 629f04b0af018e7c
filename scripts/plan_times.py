"""How long plans take to build: every order on one grid, interleaved, medians over repeats.

    python scripts/plan_times.py [SIDE|ROWSxCOLS] [REPEATS]

Prints Markdown. Times include the plan's own checks and its digest; orders are interleaved, so that a busy moment of
the machine does not fall on one of them.
"""

from __future__ import annotations

import statistics
import sys
import time

from orderbench.orders import BenchError, Grid, get_order, make_plan, order_names


def build_ms(name: str, grid: Grid) -> float:
    pace = "cosine:32" if get_order(name).sized else "native"
    began = time.perf_counter()
    make_plan(name, grid, pace, seed=time.perf_counter_ns() % 2**31).digest  # noqa: B018 (a cached property: computed)
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    grid = Grid.parse(sys.argv[1] if len(sys.argv) > 1 else "64")
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 9
    samples: dict[str, list[float]] = {name: [] for name in order_names()}
    refused = {}
    for _ in range(repeats):
        for name in samples:
            if name in refused:
                continue
            try:
                samples[name].append(build_ms(name, grid))
            except BenchError as refusal:
                refused[name] = str(refusal)
    print(f"| order, {grid} | median ms | slowest of {repeats}, ms |\n| --- | ---: | ---: |")
    for name, times in samples.items():
        cells = "refused | " if name in refused else f"{statistics.median(times):.1f} | {max(times):.1f}"
        print(f"| `{name}` | {cells} |")


if __name__ == "__main__":
    main()
