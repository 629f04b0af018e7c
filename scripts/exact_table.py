"""The tables of docs/exact.md: how many times faster exact decoding is than one cell at a time, in turns and in one
process; and its passes by order, beside the tax that a Gaussian field predicts.

    python scripts/exact_table.py speed
    python scripts/exact_table.py passes
"""

import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from orderbench.models import Sampling, decode, load_shipped, parse_decoder
from orderbench.models.decode import make_tile, run_tile
from orderbench.orders import get_order, make_plan, order_names, parallel_tax
from orderbench.reports.statistics import rank_correlation

NOISES = ("uniform", "gumbel")
EXACT, WIDE = parse_decoder("exact"), parse_decoder("exact:window=96")
MODEL = load_shipped("fashion-model").network
IMAGES, ROUNDS = 16, 7


def passes() -> None:
    """Mean passes of every order, and how they go with the predicted tax at cosine:13."""
    rows = []
    for name in order_names():
        if name in ("scales", "locality"):
            continue
        paced = f"{name}@cosine:13" if get_order(name).sized else name
        tax = parallel_tax(make_plan(f"{name}@cosine:13", MODEL.lattice), samples=range(8))
        plan = make_plan(paced, MODEL.lattice)
        found = [
            decode(MODEL, plan, range(IMAGES), sampling=Sampling(noise=noise), decoder=WIDE, tile=IMAGES)  # type: ignore[arg-type]
            for noise in NOISES
        ]
        rows.append((name, tax, *(one.counters.passes for one in found)))
        print(f"| `{name}` | {tax:.4f} | {rows[-1][2]:.1f} | {rows[-1][3]:.1f} |", flush=True)
    taxes, *counted = np.array([row[1:] for row in rows]).T
    for noise, one in zip(NOISES, counted, strict=True):
        print(f"{noise}: rank correlation with the tax {rank_correlation(taxes, one):.2f}")


def speed(
    batches: Sequence[int] = (1, 16), arms: Sequence[str] = ("halton", "designed@cosine:13", "radial", "raster")
) -> None:
    """Medians of ratios to raster one at a time, with their least and largest, of seconds of this thread, which other
    programs take little part in."""
    torch.set_num_threads(1)
    for batch in batches:
        for noise in NOISES:
            tiles = {arm: make_tile(MODEL, make_plan(arm, MODEL.lattice), range(batch), sampling=Sampling(noise=noise))  # type: ignore[arg-type]
                     for arm in ("raster@one", *arms)}  # fmt: skip
            taken: dict[str, list[float]] = {arm: [] for arm in tiles}
            for _ in range(1 + ROUNDS):
                for arm, tile in tiles.items():
                    began = time.thread_time()
                    run_tile(tile, parse_decoder("off") if arm == "raster@one" else EXACT)
                    taken[arm].append(time.thread_time() - began)
            for arm in arms:
                ratios = np.array(taken["raster@one"][1:]) / np.array(taken[arm][1:])
                c = tiles[arm].counters
                times = f"{np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]"
                counted = [f"{c.passes:.1f}", f"{c.query_tokens:.0f}", f"{c.content_tokens:.0f}"]
                row = [batch, noise, f"`{arm}+exact`", *counted, times]
                print("|", " | ".join(map(str, row)), "|", flush=True)


if __name__ == "__main__":
    {"passes": passes, "speed": speed}[sys.argv[1] if len(sys.argv) > 1 else "speed"]()
