"""The table of docs/designed.md: what `designed` pays, on its own field and on fields it was not built for.

    python scripts/designed_table.py

Prints Markdown. Everything is computed, and nothing but the times of the last table depends on the machine.
"""

from __future__ import annotations

import time

from orderbench.orders import Field, Grid, make_plan, order_names, parallel_tax
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
    print("\n| grid | pace | designed takes, s | its tax | halton's tax |\n| --- | --- | ---: | ---: | ---: |")
    for side in (16, 24, 32):
        for T in (2, 8, 13, 32):
            began = time.perf_counter()
            plan = make_plan(f"designed@cosine:{T}", Grid(side, side))
            seconds = time.perf_counter() - began
            other = parallel_tax(make_plan(f"halton@cosine:{T}", Grid(side, side)))
            print(f"| {side}x{side} | cosine:{T} | {seconds:.1f} | {parallel_tax(plan):.5f} | {other:.5f} |")


if __name__ == "__main__":
    main()
