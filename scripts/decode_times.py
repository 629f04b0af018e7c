"""How long decoding takes: latency and images per second of several arms, interleaved in one run; then training.

    python scripts/decode_times.py [--model FILE] [--repeats 5] [--batches 1,16,64] [--device cpu] [--bf16]
                                   [--graphs] [--train-steps 40]

Without --model the network has random weights of the shipped size: times do not depend on what weights say. Prints
Markdown: medians, and ratios to raster one at a time with a cache, paired within each round. Arms are interleaved, so
that a busy moment of the machine does not fall on one of them. The uncached arm (batch 1) recomputes all keys and
values at every step; it is what many published speed-ups are measured against. Training is the shipped recipe on
random codes, in bf16 where the device is fast in it; its steps differ by plan and by whether they are nested, so the
median of a step is not the mean. With --graphs every arm also runs with its steps recorded as CUDA graphs; that they
are recorded belongs to the warm-up.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch

from orderbench.models.config import ModelConfig
from orderbench.models.decode import Decoder, decode, parse_decoder, uncached_steps
from orderbench.models.graphs import Graphed
from orderbench.models.objective import SHIPPED, ModelJob
from orderbench.models.shipped import load_weights
from orderbench.models.train import fit, has_fast_bf16
from orderbench.models.transformer import Transformer, count_parameters
from orderbench.orders import make_plan
from orderbench.runs.training import RECIPE_MODEL, RECIPES

ARMS = [
    ("raster", "off"),
    ("raster", "off"),  # again: the noise floor
    ("radial", "off"),
    ("radial", "nested"),
    ("radial", "nested:every=3:window=3"),
    ("radial", "nested:every=12"),  # at the last step only
    ("random@cosine:32", "off"),
    ("halton@cosine:13", "off"),
]
SHIPPED_MODEL = ModelConfig(codes=16, classes=10, rows=16, cols=16, **RECIPE_MODEL)
WARM_UP = 5  # training steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", default="1,16,64")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--graphs", action="store_true")
    parser.add_argument("--train-steps", type=int, default=40, help="0 leaves training out")
    options = parser.parse_args()
    if options.model:
        model = cast(Transformer, load_weights(options.model, "model").network)
    else:
        model = Transformer(SHIPPED_MODEL)
        model.initialize()
    model = model.to(options.device, torch.bfloat16 if options.bf16 else torch.float32).eval()
    print(f"{count_parameters(model):,} parameters, {options.device}, {torch.get_num_threads()} threads\n")
    for batch in map(int, options.batches.split(",")):
        _table(model, batch, options.repeats, options.device, options.graphs)
    if options.train_steps:
        _training(options.train_steps, options.device)


def _table(model: Transformer, batch: int, repeats: int, device: str, graphs: bool) -> None:
    arms: list[tuple[str, str, Decoder]] = [(o, c, parse_decoder(c)) for o, c in ARMS]
    if graphs:
        arms += [(order, f"{correction}, graphs", Graphed(decoder)) for order, correction, decoder in arms[1:]]
    if batch == 1:
        arms.append(("raster", "off, uncached", uncached_steps))
    runs = [_generation(model, order, decoder, batch, device) for order, _, decoder in arms]
    for run in runs:
        run()  # warm-up, every shape
    rounds = [[_timed(run, device) for run in runs] for _ in range(repeats)]
    print(
        f"| batch {batch} | correction | latency s | images/s | x raster (paired) |\n| --- | --- | ---: | ---: | ---: |"
    )
    for place, (order, correction, decoder) in enumerate(arms):
        if isinstance(decoder, Graphed) and decoder.refused:
            continue  # it decoded eagerly, and a warning has said why
        times = [one[place] for one in rounds]
        ratio = statistics.median(one[0] / one[place] for one in rounds)
        median_s = statistics.median(times)
        print(f"| `{order}` | {correction} | {median_s:.3f} | {batch / median_s:.2f} | {ratio:.2f} |")
    print(flush=True)


def _training(steps: int, device: str) -> None:
    config = replace(RECIPES["model"], steps=WARM_UP + steps + 1, bf16=has_fast_bf16(device))  # the last one evaluates
    codes_NL = torch.randint(SHIPPED_MODEL.codes, (512, SHIPPED_MODEL.rows * SHIPPED_MODEL.cols))
    labels_N = torch.arange(len(codes_NL)) % SHIPPED_MODEL.classes
    job = ModelJob(
        SHIPPED_MODEL, SHIPPED, codes_NL, labels_N, (codes_NL[:1], labels_N[:1]), data="random", seed=0, device=device
    )
    ended = []
    with tempfile.TemporaryDirectory() as folder:
        fit(job, config, Path(folder), device=device, every=config.steps, tick=lambda *_: ended.append(_now(device)))
    ended = ended[WARM_UP - 1 : -1]
    per_step_s = (ended[-1] - ended[0]) / steps
    median_s = statistics.median(after - before for before, after in pairwise(ended))
    print(
        f"training, {config.batch} images a step, {'bf16' if config.bf16 else 'fp32'}: {1 / per_step_s:.2f} steps/s, "
        f"{config.batch / per_step_s:.1f} images/s (mean of {steps}); median step {median_s:.2f} s"
    )


def _generation(model: Transformer, order: str, decoder: Decoder, batch: int, device: str) -> Callable[[], object]:
    plan = make_plan(order, model.lattice)
    return lambda: decode(model, plan, range(batch), decoder=decoder, tile=batch, device=device)


def _timed(run: Callable[[], object], device: str) -> float:
    began = _now(device)
    run()
    return _now(device) - began


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
