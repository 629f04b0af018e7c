"""The table of docs/designed.md: what `designed` pays, on its own field and on fields it was not built for.

    python scripts/designed_table.py

Prints Markdown. Everything is computed, and nothing but the times of the last table depends on the machine.
"""

from __future__ import annotations

import math
import time

import numpy as np

from orderbench.orders import Field, Grid, make_plan, order_names, parallel_tax
from orderbench.orders.field import factored, least_tax, span_taxes
from orderbench.orders.tax import rank_order

GRID = Grid(16, 16)
STEPS = (8, 13, 20, 32)
LENGTHS = (1, 2, 4, 12, 40)


def main() -> None:
    for length in LENGTHS:
        field = Field(length=float(length))
        rows = {}
        for name in order_names():
            taxes = [rank_order(name, GRID, f"cosine:{T}", field).tax_bits for T in STEPS]
            if None not in taxes:  # an order of pyramids alone has none
                rows[name] = taxes
        if length != 4:
            spelled = f"designed:length={length}"
            rows[spelled] = [parallel_tax(make_plan(f"{spelled}@cosine:{T}", GRID), field) for T in STEPS]
        print(f"\nField exp(-d/{length}), bits per token:\n")
        print("| order | " + " | ".join(f"cosine:{T}" for T in STEPS) + " |\n| --- |" + " ---: |" * len(STEPS))
        for name, taxes in sorted(rows.items(), key=lambda row: row[1][1] or 0.0):
            print(f"| `{name}` | " + " | ".join(f"{tax:.5f}" for tax in taxes) + " |")
    joint_table()
    print("\n| grid | pace | designed takes, s | its tax | halton's tax |\n| --- | --- | ---: | ---: | ---: |")
    for side in (16, 24, 32):
        for T in (2, 8, 13, 32):
            began = time.perf_counter()
            plan = make_plan(f"designed@cosine:{T}", Grid(side, side))
            seconds = time.perf_counter() - began
            other = parallel_tax(make_plan(f"halton@cosine:{T}", Grid(side, side)))
            print(f"| {side}x{side} | cosine:{T} | {seconds:.1f} | {parallel_tax(plan):.5f} | {other:.5f} |")


def joint_table() -> None:
    """`designed` at sizes of its own beside every other order at the best sizes that the table's field has for it."""
    others = [name for name in order_names() if name not in ("designed", "locality", "scales")]
    print("\nIn millionths of a bit per token:\n")
    print("| length | steps | designed@optimal | at cosine | next best at its own best sizes |")
    print("| --- | ---: | ---: | ---: | --- |")
    for length in (2, 4, 8, 12):
        field = Field(length=float(length))
        covariance = field.covariance(GRID)
        spans = {}
        for name in others:
            walks_NL = (plan := make_plan(name, GRID, "one")).cells_for(range(8 if plan.per_sample else 1))
            spans[name] = np.mean([span_taxes(factored(covariance, walk_L)) for walk_L in walks_NL], axis=0)
        for T in STEPS:
            bits = {name: _least_bits(span, T) for name, span in spans.items()}
            bits["locality@cosine"] = parallel_tax(make_plan(f"locality@cosine:{T}", GRID), field, range(8))
            best = min(bits, key=lambda name: bits[name])
            own, cosine = (
                parallel_tax(make_plan(f"designed:length={length}@{law}:{T}", GRID), field)
                for law in ("optimal", "cosine")
            )
            print(f"| {length} | {T} | {own * 1e6:.2f} | {cosine * 1e6:.2f} | `{best}` {bits[best] * 1e6:.2f} |")


def _least_bits(spans: np.ndarray, steps: int) -> float:
    edges = np.cumsum([0, *least_tax(spans, steps)])
    return float(spans[edges[:-1], edges[1:]].sum() / math.log(2) / GRID.n_cells)


if __name__ == "__main__":
    main()
