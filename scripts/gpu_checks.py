"""What only a GPU can show: parity, speed with and without graphs, a large network, training. Resumable, in pieces.

    scripts/gpu_checks.sh [OUT] [--data FOLDER] [--minutes 8.5] [--only PIECE,...] [--dry-run]

Every piece runs in a process of its own, which ends when its time is over, so that a piece which hangs or breaks the
device costs nobody else. Pieces run in the order of PIECES. After each one OUT holds all that is known so far:

    summary.json, summary.md   what was measured, on which card; the second goes into docs/gpu.md as it is
    kept.tar.0, .1, ...        records of `bench run` and checkpoints of training: `cat kept.tar.* | tar x`
    log.txt                    what the pieces printed

A call over an OUT that holds these goes on with what is missing. Seven files at most, 62 MiB.

DATA=FOLDER or --data names Fashion-MNIST's images; without them the model is trained on the shipped held-out codes, and
the summary says so. CIFAR=FOLDER or --cifar names CIFAR-10's. torch-fidelity, which quality needs, may be carried:
wheels or packages in the folder CARRIED, by default carried/ beside this repository's README.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from orderbench.models.answer import Categorical
from orderbench.models.checkpoint import read_pickle, write_atomically
from orderbench.models.config import ModelConfig
from orderbench.models.counting import Nothing
from orderbench.models.data import DEBIAN
from orderbench.models.decode import Decoder, Tile, decode, make_tile, run_tile
from orderbench.models.graphs import Graphed, Tape
from orderbench.models.likelihood import plan_bits, step_bits
from orderbench.models.objective import SHIPPED, ModelJob
from orderbench.models.shipped import load_shipped, load_shipped_arrays
from orderbench.models.systems import BUDGET
from orderbench.models.train import TrainConfig, fit, has_fast_bf16
from orderbench.models.transformer import Transformer, count_parameters
from orderbench.models.visibility import walk
from orderbench.orders import BenchError, make_plan
from orderbench.runs.arms import parse_arm
from orderbench.runs.environment import capture
from orderbench.runs.timing import Contender, clock_state, peak_memory, rounds, warm_up
from orderbench.runs.training import RECIPES, RESIDUAL, TrainSpec, train

ROOT = Path(__file__).resolve().parent.parent
MINUTES = 8.5
LEAST_S = 20.0  # a piece is not begun with less
START_S = 12.0  # of a piece's time, for its process to begin and to write what it found
PIECE_BYTES, PIECES_KEPT = 15 * 2**20, 4
HELD_OUT = "fashion-held-out"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NESTED_ONCE = "radial+nested:every=12"  # one look back, at the last step

# How much is done -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes of everything: those of a card, or toy sizes for a processor.

    orders: of `bench run`, throughput: its batches. arms: of graphs and of tokens that are compared between devices,
    batches: of graphs. masked: arms whose cached steps are compared with one masked pass. compared: images of parity,
    in tiles of `tile`. samples: of quality. bench: further words of `bench run`. least_s: the shortest sample of the
    clock. large: the network of random weights. beginning: steps of the shipped recipe that are trained first; others:
    of every other training, None for its whole recipe. copied: bytes of the bandwidth's copy.
    """

    name: str
    device: str
    orders: str
    arms: tuple[str, ...]
    masked: tuple[str, ...]
    batches: tuple[int, ...]
    throughput: tuple[int, ...]
    samples: int
    compared: int
    tile: int = 64
    rounds: int
    bench: tuple[str, ...] = ()
    least_s: float = 0.05
    large: ModelConfig
    beginning: int
    every: int
    batch: int | None = None
    others: int | None = None
    copied: int


_LARGE = ModelConfig(
    codes=16384, classes=1000, rows=16, cols=16, width=1024, heads=16, self_blocks=12, cross_blocks=12, position="rope"
)
FULL = Scale(
    name="full",
    device="cuda",
    orders=f"raster,radial,{NESTED_ONCE}",
    arms=("raster", "radial", "halton@cosine:13", "radial+nested", NESTED_ONCE),
    masked=("raster", "radial", "halton@cosine:13", "random@cosine:13", "raster@even:13"),
    batches=(1, 64, 16, 256),
    throughput=(64, 16, 256),
    samples=5000,
    compared=64,
    rounds=5,
    large=_LARGE,
    beginning=600,
    every=100,
    copied=4 * 2**30,
)
TOY = Scale(
    name="toy",
    device="cpu",
    orders="radial@even:2",
    arms=("raster@even:2", "radial@even:3+nested:every=2"),
    masked=("radial", "random@cosine:5"),
    batches=(1, 2),
    throughput=(1,),
    samples=20,
    compared=4,
    tile=2,
    rounds=1,
    bench=("--quick", "--threads", "1"),
    least_s=0.0,
    large=replace(_LARGE, codes=32, classes=3, rows=4, cols=4, width=16, heads=2, self_blocks=1, cross_blocks=1),
    beginning=1,
    every=1,
    batch=4,
    others=2,
    copied=2**20,
)
SCALES = {scale.name: scale for scale in (FULL, TOY)}


@dataclass(frozen=True, kw_only=True)
class Training:
    """One network that is trained: a recipe of `bench train`, from images or, for the model, from shipped codes.

    folder: where its checkpoint lies; two of one folder go on with each other. beginning: stop where the scale says,
    with the whole recipe's schedule. images: the variable that names them. asks: what else `bench train` is asked.
    """

    name: str
    what: str
    folder: str
    beginning: bool = False
    images: str = "DATA"
    asks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> TrainConfig:
        """As `bench train` takes it."""
        if "system" in self.asks:
            return BUDGET
        return RESIDUAL if self.asks.get("network") == "residual" else RECIPES[self.what]


# In this order, as far as the time goes. What an open issue wants trained on a GPU is a line here.
TRAININGS = (
    Training(name="fashion-model-beginning", what="model", folder="fashion-model", beginning=True),
    *(
        Training(name=f"system-{name}", what="model", folder=f"system-{name}", asks={"system": name})
        for name in ("llamagen", "randar", "par", "ear", "lpd", "nar", "arpg", "radar", "shared-small")
    ),
    Training(name="cifar-features", what="features", folder="cifar-features", images="CIFAR",
             asks={"network": "residual"}),
    *(
        Training(name=f"cifar-tokenizer-{codes}", what="tokenizer", folder=f"cifar-tokenizer-{codes}", images="CIFAR",
                 asks={"codes": codes})
        for codes in (64, 256, 1024)
    ),
    Training(name="fashion-tokenizer", what="tokenizer", folder="fashion-tokenizer"),
    Training(name="fashion-features", what="features", folder="fashion-features"),
    Training(name="fashion-model", what="model", folder="fashion-model"),
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """What is run, recorded and resumed as a whole. part: of the summary. limit_s: the most it may take. run: given the
    scale, a folder that outlives it, and its seconds; what it returns stands in the summary, and is unfinished if it
    says `"finished": False`."""

    name: str
    part: str
    limit_s: float
    run: Callable[[Scale, Path, float], dict[str, Any]]


class Skipped(Exception):
    """Why a piece cannot be run here: no failure."""


# 1. Parity ------------------------------------------------------------------------------------------------------------

# Largest difference of a token's bits in fp32; mean difference in bf16, whose worst token says little.
LIMITS = {("fp32", "worst"): 1e-3, ("bf16", "mean"): 0.05}


def parity(scale: Scale, work: Path, seconds: float) -> dict[str, Any]:
    """Do cached steps, masks and noise hold on the device as they do on a processor?"""
    torch.set_num_threads(min(4, torch.get_num_threads()))  # a small network waits for more (docs/log.md)
    network = cast(Transformer, load_shipped("fashion-model", "model").network)
    arrays = load_shipped_arrays(HELD_OUT, "held-out").tensors
    codes_BLK = arrays["tokens_NL"][: scale.compared, :, None].long()
    labels_B = arrays["labels_N"][: scale.compared].long()
    checks: list[dict[str, Any]] = []
    tokens: list[dict[str, Any]] = []
    there = replace(scale, device="cpu")
    on_processor = {arm: _decoded(network, arm, range(scale.compared), there) for arm in scale.arms}
    for dtype in DTYPES:
        model = deepcopy(network).to(scale.device, DTYPES[dtype])
        checks += _cached_against_masked(network, model, codes_BLK, labels_B, dtype, scale)
        checks += [_hidden(model, codes_BLK, labels_B, dtype, scale), _addressed(model, dtype, scale)]
        for arm in scale.arms:
            here_NL = _decoded(model, arm, range(scale.compared), scale)
            tokens.append({"dtype": dtype, "arm": arm, "images": scale.compared, **_apart(on_processor[arm], here_NL)})
    return {"checks": checks, "tokens": tokens, "holds": all(check["holds"] for check in checks)}


def _check(what: str, dtype: str, value: float, limit: float) -> dict[str, Any]:
    return {"what": what, "dtype": dtype, "value": value, "limit": limit, "holds": bool(value <= limit)}


def _difference(one: Tensor, other: Tensor, what: str, dtype: str) -> dict[str, Any]:
    apart = (one.cpu().double() - other.cpu().double()).abs()
    kind = "worst" if dtype == "fp32" else "mean"
    value = float(apart.max() if kind == "worst" else apart.mean())
    return _check(f"{what}, bits, {kind}", dtype, value, LIMITS[dtype, kind])


def _cached_against_masked(
    network: Transformer, model: Transformer, codes_BLK: Tensor, labels_B: Tensor, dtype: str, scale: Scale
) -> Iterator[dict[str, Any]]:
    """Bits of true codes: decoded step by step, in one masked pass on the device, and in one on the processor."""
    few = slice(0, min(8, len(codes_BLK)))
    here_BLK, labels = codes_BLK[few].to(scale.device), labels_B[few]
    for arm in scale.masked:
        plan = make_plan(arm, network.lattice)
        for in_group in ("block", "causal"):
            stepped_BL = step_bits(model, plan, here_BLK, labels.tolist(), in_group=in_group)
            masked_BL = plan_bits(model, here_BLK, labels.to(scale.device), plan, in_group=in_group)
            yield _difference(stepped_BL, masked_BL, f"`{arm}` {in_group}: cached steps against one masked pass", dtype)
        there_BL = plan_bits(network, codes_BLK[few], labels, plan)
        here_BL = plan_bits(model, here_BLK, labels.to(scale.device), plan)
        yield _difference(here_BL, there_BL, f"`{arm}`: this device against a processor in fp32", dtype)


def _hidden(model: Transformer, codes_BLK: Tensor, labels_B: Tensor, dtype: str, scale: Scale) -> dict[str, Any]:
    """Another code in the middle of the walk changes no bit of its own step or an earlier one."""
    plan = make_plan("radial", model.lattice)
    codes_BLK, labels_B = codes_BLK[:2].to(scale.device), labels_B[:2].to(scale.device)
    cells_BL = walk(plan, range(len(codes_BLK)), scale.device)
    middle = plan.n_steps // 2
    place, stop = sum(plan.sizes[:middle]), sum(plan.sizes[: middle + 1])
    changed_BLK = codes_BLK.clone()
    cell = cells_BL[:, place : place + 1, None]
    changed_BLK.scatter_(1, cell, (codes_BLK.gather(1, cell) + 1) % model.code_sizes[0])
    before, after = (plan_bits(model, given_BLK, labels_B, plan) for given_BLK in (codes_BLK, changed_BLK))
    apart_BL = (before - after).abs().gather(1, cells_BL)
    apart_BL[:, place] = 0  # the code itself, whose bits are of another code
    seen = float((apart_BL[:, stop:] > 0).float().mean())
    check = _check("a changed code and the bits of its own and earlier steps, bits, worst", dtype,
                   float(apart_BL[:, :stop].max()), 1e-6)  # fmt: skip
    return check | {"holds": check["holds"] and seen > 0.5, "share_of_later_cells_that_moved": seen}


def _addressed(model: Transformer, dtype: str, scale: Scale) -> dict[str, Any]:
    """Codes of a sample are its own, however samples are split and asked."""
    n = scale.compared
    whole = _decoded(model, scale.arms[-1], range(n), scale)
    parts = [_decoded(model, scale.arms[-1], part, scale) for part in (range(n // 3), range(n // 3, n))]
    return _check(f"`{scale.arms[-1]}`: codes that depend on how samples are split, codes", dtype,
                  int((torch.cat(parts) != whole).sum()), 0)  # fmt: skip


def _decoded(model: Transformer, arm: str, samples: Sequence[int], scale: Scale) -> Tensor:
    one = parse_arm(arm)
    plan = one.plan(model.lattice)
    return decode(model, plan, samples, decoder=one.decoder, device=scale.device, tile=scale.tile).tokens_NL


def _apart(one: Tensor, other: Tensor) -> dict[str, int]:
    different = one != other
    return {"images_that_differ": int(different.any(1).sum()), "codes_that_differ": int(different.sum())}


# 2. `bench run` -------------------------------------------------------------------------------------------------------


def quality(scale: Scale, work: Path, seconds: float) -> dict[str, Any]:
    """Both precisions beside each other: nothing is timed."""
    from orderbench.runs.fidelity import fidelity_status

    status = fidelity_status()
    if not status["works"]:
        raise Skipped(f"{status['how']}, or carry its wheel in a folder that CARRIED names")
    threads = str(max(1, (os.cpu_count() or 2) // len(DTYPES)))
    words = ["--only", "quality", "--samples", str(scale.samples), "--threads", threads]
    going = {dtype: _start_bench(scale, dtype, words, work / "bench" / f"quality-{dtype}") for dtype in DTYPES}
    return {dtype: _end_bench(process) for dtype, process in going.items()}


def speed(dtype: str) -> Callable[[Scale, Path, float], dict[str, Any]]:
    """Latency at batch 1 and throughput, a run a batch; the first also times raster without a cache."""

    def run(scale: Scale, work: Path, seconds: float) -> dict[str, Any]:
        found = {}
        for batch in scale.throughput:
            words = ["--only", "latency", "--batch", str(batch), "--rounds", str(scale.rounds)]
            words += [] if batch == scale.throughput[0] else ["--quick"]
            process = _start_bench(scale, dtype, words, work / "bench" / f"speed-{dtype}-b{batch}")
            found[str(batch)] = _end_bench(process)
        return found

    return run


def _start_bench(scale: Scale, dtype: str, words: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """`bench run`, or what is left of one that was cut off."""
    given = ["--resume"] if (folder / "run.json").is_file() else bench_words(scale, dtype, words)
    command = [sys.executable, "-m", "orderbench.runs", *given, "--out", str(folder), "--no-report", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 (our own command)


def bench_words(scale: Scale, dtype: str, words: Sequence[str]) -> list[str]:
    """What `bench run` is asked."""
    return ["--orders", scale.orders, "--device", scale.device, "--dtype", dtype, *words, *scale.bench]


def _end_bench(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate()
    if process.returncode not in (0, 5):  # 5: some arms failed, and their rows say so
        raise BenchError(f"bench run left with exit code {process.returncode}; log.txt holds what it said")
    table: dict[str, Any] = json.loads(said)
    return {name: table[name] for name in ("baseline", "space", "arms", "floors", "noise", "uncached_slower", "failed")}


# 3. CUDA graphs -------------------------------------------------------------------------------------------------------


def graphs(scale: Scale, work: Path, seconds: float) -> dict[str, Any]:
    """The shipped network with every step started kernel by kernel, and replayed."""
    network = cast(Transformer, load_shipped("fashion-model", "model").network)
    models = {dtype: deepcopy(network).to(scale.device, DTYPES[dtype]) for dtype in DTYPES}
    asked = [(dtype, batch, arm) for batch in scale.batches for dtype in DTYPES for arm in scale.arms]
    rows = _rows(work / "rows" / "graphs.json", asked, models, scale, seconds)
    return {"rows": rows, "finished": len(rows) == len(asked)}


def _rows(
    file: Path, asked: Sequence[tuple[str, int, str]], models: Mapping[str, Transformer], scale: Scale, seconds: float
) -> list[dict[str, Any]]:
    """A row for every (precision, batch, arm) as far as the time goes, kept one by one, after those kept before."""
    Tape().record(lambda: None)  # what torch imports at a first recording is no row's
    ends = time.monotonic() + seconds
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    done = {(row["dtype"], row["batch"], row["arm"]) for row in rows}
    for dtype, batch, arm in asked:
        if (dtype, batch, arm) in done:
            continue
        if time.monotonic() > ends:
            break
        row: dict[str, Any] = {"dtype": dtype, "batch": batch, "arm": arm}
        try:
            _time_both(models[dtype], row, scale)
        except (BenchError, RuntimeError) as problem:  # no memory, above all
            row["failed"] = str(problem).partition("\n")[0]
        rows.append(row)
        write_atomically(file, lambda temporary: temporary.write_text(json.dumps(rows)))
        gc.collect()  # a recording and its memory are one row's
        if scale.device != "cpu":
            torch.cuda.empty_cache()
    return rows


def _time_both(model: Transformer, row: dict[str, Any], scale: Scale) -> None:
    """Fill in a row: medians, the ratio paired within rounds, and whether a replay of other noise gave the eager codes.
    Where nothing could be recorded, the row says why, and holds eager times alone."""
    arm, on_card = parse_arm(row["arm"]), scale.device != "cpu"
    plan = arm.plan(model.lattice)
    graphed = Graphed(arm.decoder) if on_card else Graphed(arm.decoder, lambda _: Tape())
    tile, other = (
        make_tile(model, plan, range(row["batch"]), seed=seed, device=scale.device, needs=arm.decoder.entry.needs)
        for seed in (0, 1)
    )
    contenders = [Contender("eager", lambda: _codes(tile, arm.decoder))]
    row["n_steps"] = plan.n_steps
    run_tile(tile, arm.decoder)  # so that what is allocated once is no recording's
    row["peak"] = peak_memory(contenders[0].generate, scale.device)
    before_bytes = torch.cuda.memory_reserved() if on_card else 0
    began = time.perf_counter()
    run_tile(tile, graphed)
    if graphed.refused:
        row["refused"] = list(graphed.refused)
    else:
        contenders.append(Contender("graphs", lambda: _codes(tile, graphed)))
        row["record_s"] = time.perf_counter() - began
        row["recording_bytes"] = torch.cuda.memory_reserved() - before_bytes if on_card else None
        row["codes_that_differ"] = int((_codes(other, arm.decoder) != _codes(other, graphed)).sum())
    warm = warm_up(contenders, device=scale.device, least_s=scale.least_s)
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for finished in rounds(contenders, rounds=scale.rounds, device=scale.device, warm=warm):
        for sample in finished:
            samples[sample.name].append(sample.total_s)
    for name, times_s in samples.items():
        row[f"{name}_s"] = statistics.median(times_s)
    if "graphs" in samples:
        pairs = zip(samples["eager"], samples["graphs"], strict=True)
        row["eager_over_graphs"] = statistics.median(eager_s / graphs_s for eager_s, graphs_s in pairs)


def _codes(tile: Tile, decoder: Decoder) -> Tensor:
    """(B, L, K), a copy: the next tile of a recording writes over its own."""
    run_tile(tile, decoder)
    return tile.codes_BLK.clone()


# 4. A large network ---------------------------------------------------------------------------------------------------


def large(scale: Scale, work: Path, seconds: float) -> dict[str, Any]:
    """An ARPG-L-sized network of random weights in bf16: times do not depend on what weights say."""
    with torch.device(scale.device):
        model = Transformer(scale.large)
        model.initialize()
    model = model.to(torch.bfloat16).eval()
    bandwidth = _bandwidth(scale)
    asked = [("bf16", batch, arm) for batch in scale.batches for arm in scale.arms]
    rows = _rows(work / "rows" / "large.json", asked, {"bf16": model}, scale, seconds)
    for row in rows:
        if row["batch"] == 1 and "eager_s" in row:
            row["moved_bytes"] = moved_bytes(scale.large, row["arm"], torch.bfloat16.itemsize)
            for name in ("eager", "graphs"):
                if f"{name}_s" in row:
                    row[f"{name}_of_roofline"] = row["moved_bytes"] / bandwidth / row[f"{name}_s"]
    return {
        "parameters": count_parameters(model),
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "bandwidth_bytes_per_s": bandwidth,
        "rows": rows,
        "finished": len(rows) == len(asked),
    }


def _bandwidth(scale: Scale) -> float:
    """Bytes read and written in a second by the best of ten copies within the device's memory."""
    source = torch.zeros(scale.copied, dtype=torch.uint8, device=scale.device)
    target = torch.empty_like(source)
    copy = Contender("copy", lambda: target.copy_(source))
    warm = warm_up([copy], device=scale.device, least_s=scale.least_s)
    times_s = [one.total_s for (one,) in rounds([copy], rounds=10, device=scale.device, warm=warm)]
    return 2 * scale.copied / min(times_s)


def moved_bytes(config: ModelConfig, arm: str, bytes_each: int) -> int:
    """Bytes that decoding one image must read or write at the least: the weights of every pass that runs, once a pass,
    and the keys and values that a pass reads and writes, once a layer.

    Left out: activations, logits and embeddings. A pass runs whole, however few cells it is given, so at batch 1 this
    is what the memory's speed allows.
    """
    D, F = config.width, config.ffn_width
    content = config.self_blocks * (4 * D * D + 3 * D * F) + 2 * D * D
    query = config.cross_blocks * (2 * D * D + 3 * D * F) + D * config.codes
    one = parse_arm(arm)
    passes = _Passes(config.grid)
    run_tile(make_tile(passes, one.plan(config.grid), [0]), one.decoder)
    weights = passes.fed * content + passes.asked * query
    slots = config.self_blocks * passes.read_by_feeding + config.cross_blocks * passes.read_by_asking
    written = (config.self_blocks + 1) * passes.written
    return bytes_each * (weights + 2 * D * (slots + written))


class _Passes(Nothing):
    """Counts passes, and the slots that they read and write."""

    fed = asked = read_by_feeding = read_by_asking = written = slots = 0

    def start(self, labels_B: Tensor, slots: int) -> None:
        self._feed(0, 1)

    def step(self, cache: Any, codes_BGK: Tensor, cells_BG: Tensor, **masks: Tensor | None) -> None:
        self._feed(self.slots, cells_BG.shape[1])

    def refill(self, cache: Any, labels_B: Tensor, codes_BMK: Tensor, cells_BM: Tensor) -> None:
        self._feed(0, 1 + cells_BM.shape[1])

    def rewind(self, cache: Any, slots: int) -> None:
        self.slots = slots

    def answer(self, cache: Any, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Categorical:
        self.asked += 1
        self.read_by_asking += self.slots
        return super().answer(cache, cells_BQ, seen=seen)

    def _feed(self, before: int, size: int) -> None:
        self.slots = before + size
        self.fed += 1
        self.read_by_feeding += self.slots
        self.written += size


# 5. Training ----------------------------------------------------------------------------------------------------------


class Enough(Exception):
    """Stops a training behind a checkpoint: what it began goes on another time."""


def training(chosen: Training) -> Callable[[Scale, Path, float], dict[str, Any]]:
    def run(scale: Scale, work: Path, seconds: float) -> dict[str, Any]:
        images = images_for(chosen.images, scale, work)
        if images is None and (chosen.what != "model" or "system" in chosen.asks):
            raise Skipped(f"a {chosen.what} is trained on images; {chosen.images}=FOLDER names them")
        return _trained(chosen, scale, work / "training" / chosen.folder, seconds, images)

    return run


def images_for(variable: str, scale: Scale, work: Path) -> str | None:
    """Where images are: what DATA or CIFAR names, or Fashion-MNIST as Debian packs it; None if there are none. A
    rehearsal has noise of its own."""
    if scale is TOY:
        file = work / "noise.npz"
        rng = np.random.default_rng(0)
        np.savez(file, images=rng.integers(0, 256, (60, 8, 8), np.uint8), labels=np.arange(60) % 10)
        return str(file)
    return os.environ.get(variable) or (str(DEBIAN) if variable == "DATA" and DEBIAN.is_dir() else None)


def _trained(chosen: Training, scale: Scale, folder: Path, seconds: float, images: str | None) -> dict[str, Any]:
    recipe = chosen.recipe
    recipe = replace(recipe, batch=scale.batch or recipe.batch, bf16=has_fast_bf16(scale.device))
    until = scale.beginning if chosen.beginning else scale.others or recipe.steps
    ended_s: list[float] = []

    def tick(step: int, steps: int) -> None:
        ended_s.append(time.monotonic())
        if until <= step < steps:
            raise Enough

    resume = (folder / "checkpoint.pt").is_file()
    shared: dict[str, Any] = {"device": scale.device, "resume": resume, "minutes": seconds / 60, "every": scale.every}
    with suppress(Enough):
        if images is None:
            job = _job_of_codes(recipe.seed, scale.device)
            fit(job, recipe, folder, tick=tick, **shared)
        else:
            tokenizer = ROOT / "models" / "fashion-tokenizer.safetensors" if chosen.what == "model" else None
            spec = TrainSpec(
                what=chosen.what,
                out=folder,
                data=images,
                batch=scale.batch,
                tokenizer=tokenizer,
                **shared,
                **chosen.asks,
            )
            train(spec, lambda _: None, tick)
    kept = read_pickle(folder / "checkpoint.pt")
    last, curve = int(kept["step"]), kept["history"]
    spans = [after - before for before, after in pairwise(ended_s)]
    return {
        "what": chosen.what,
        "data": kept["identity"]["about"]["data"],
        "recipe_steps": recipe.steps,
        "step": last,
        "batch": recipe.batch,
        "precision": "bf16" if recipe.bf16 else "fp32",
        "median_step_s": statistics.median(spans) if spans else None,
        "steps_per_s": len(spans) / (ended_s[-1] - ended_s[0]) if spans else None,
        "curve": curve,
        "card_curve": _card_curve(chosen, last),
        "finished": last >= until,
    }


def _card_curve(chosen: Training, last: int) -> list[dict[str, float]]:
    """The learning curve of the shipped weights of this kind, as far as this training came; none for others."""
    if chosen.images != "DATA" or "system" in chosen.asks:
        return []
    curve = load_shipped(f"fashion-{chosen.what}").card.get("learning_curve", [])
    return [figures for figures in curve if figures["step"] <= last]


def _job_of_codes(seed: int, device: str) -> ModelJob:
    """The shipped recipe's job on the codes of test images, nine tenths to train on and the rest held out."""
    config = cast(Transformer, load_shipped("fashion-model", "model").network).config
    arrays = load_shipped_arrays(HELD_OUT, "held-out").tensors
    tokens_NL, labels_N = arrays["tokens_NL"], arrays["labels_N"].long()
    cut = len(tokens_NL) * 9 // 10
    held_out = (tokens_NL[cut:], labels_N[cut:])
    return ModelJob(config, SHIPPED, tokens_NL[:cut], labels_N[:cut], held_out, data=HELD_OUT, seed=seed,
                    device=device)  # fmt: skip


PIECES = (
    Piece("parity", "Parity", 90, parity),
    Piece("graphs", "CUDA graphs", 110, graphs),
    Piece("large", "An ARPG-L-sized network", 90, large),
    Piece(TRAININGS[0].name, "Training", 90, training(TRAININGS[0])),
    Piece("speed-bf16", "`bench run`: speed", 120, speed("bf16")),
    Piece("speed-fp32", "`bench run`: speed", 120, speed("fp32")),
    Piece("quality", "`bench run`: quality", 240, quality),
    *(Piece(one.name, "Training", 540, training(one)) for one in TRAININGS[1:]),
)

# One piece, in a process of its own -----------------------------------------------------------------------------------


def run_here(piece: Piece, scale: Scale, work: Path, seconds: float) -> dict[str, Any]:
    """Run a piece in this process; its record, whatever happens."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    began, before = time.monotonic(), clock_state(scale.device)
    record: dict[str, Any] = {"part": piece.part, "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}
    try:
        result = piece.run(scale, work, seconds)
        record |= {"status": "done" if result.get("finished", True) else "unfinished", "result": result}
    except Skipped as reason:
        record |= {"status": "skipped", "reason": str(reason)}
    except Exception as problem:
        traceback.print_exc()
        record |= {"status": "failed", "reason": f"{type(problem).__name__}: {str(problem).partition(chr(10))[0]}"}
    return record | {
        "seconds": time.monotonic() - began,
        "clock": {"before": before, "after": clock_state(scale.device)},
    }


def run_apart(piece: Piece, scale: Scale, work: Path, seconds: float, log: Path) -> dict[str, Any]:
    """Run a piece in a process of its own, and end that process when its time is over; its record."""
    file = work / f"{piece.name}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--piece", piece.name, "--scale", scale.name, "--work", str(work),
               "--seconds", str(max(1.0, seconds - START_S))]  # fmt: skip
    began = time.monotonic()
    with log.open("a") as said:
        said.write(f"\n== {piece.name}\n")
        said.flush()
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)  # noqa: S603 (our own)
        try:
            code: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end_session(process)
    if file.is_file():
        record: dict[str, Any] = json.loads(file.read_text())
        return record
    reason = f"it was cut off after {seconds:.0f} s" if code is None else f"its process ended with exit code {code}"
    return {"part": piece.part, "status": "failed", "reason": reason, "seconds": time.monotonic() - began}


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """The process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# All pieces, and what comes home --------------------------------------------------------------------------------------

Run = Callable[[Piece, Scale, Path, float], dict[str, Any]]


def walk_pieces(
    out: Path, work: Path, scale: Scale, pieces: Sequence[Piece], run: Run, *, minutes: float = MINUTES
) -> dict[str, Any]:
    """Run what is missing in OUT, in order, as far as the time goes; the summary, written after every piece."""
    ends = time.monotonic() + 60 * minutes
    summary = _read_summary(out, scale)
    unpack(out, work, summary)
    for piece in pieces:
        known = summary["pieces"].get(piece.name, {})
        if known.get("status") == "done":
            continue
        left_s = ends - time.monotonic()
        if left_s < LEAST_S:
            if not known:
                summary["pieces"][piece.name] = {"part": piece.part, "status": "left", "reason": "no time was left"}
                write_summary(out, summary)
            continue
        print(f"{piece.name} ...", flush=True)
        record = run(piece, scale, work, min(piece.limit_s, left_s))
        summary["pieces"][piece.name] = record
        summary["kept"] = pack(out, work)
        write_summary(out, summary)
        print(f"{piece.name}: {record['status']}, {record['seconds']:.0f} s {record.get('reason', '')}", flush=True)
    return summary


def _read_summary(out: Path, scale: Scale) -> dict[str, Any]:
    """What an earlier call left in OUT, or an empty one; BenchError if it was of another scale or card."""
    out.mkdir(parents=True, exist_ok=True)
    environment = capture(scale.device)
    command = " ".join(["scripts/gpu_checks.sh", *environment["argv"][1:]])
    fresh = {"scale": scale.name, "command": command, "environment": environment, "pieces": {}, "kept": None}
    file = out / "summary.json"
    if file.is_file():
        summary: dict[str, Any] = json.loads(file.read_text())
        if (summary["scale"], _where(summary)) != (fresh["scale"], _where(fresh)):
            raise BenchError(
                f"'{out}' holds checks at {summary['scale']} size on {_where(summary)}, and now they would be at "
                f"{scale.name} size on {_where(fresh)}; name another folder"
            )
        return summary | {"command": command}
    return fresh


def pack(out: Path, work: Path) -> dict[str, Any]:
    """Everything of bench/, rows/ and training/ that fits, as one archive in pieces; their names and what had to stay.

    Small and telling files first: records, weights, checkpoints, then arrays.
    """
    ranks = {".json": 0, ".safetensors": 1, ".pt": 2}
    found = [
        path
        for folder in ("bench", "rows", "training")
        for path in sorted((work / folder).rglob("*"))
        if path.is_file()
    ]
    found.sort(key=lambda path: (ranks.get(path.suffix, 3), path.stat().st_size))
    stream, left = io.BytesIO(), []
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in found:
            if stream.tell() + path.stat().st_size + 2**14 > PIECE_BYTES * PIECES_KEPT:
                left.append(str(path.relative_to(work)))
                continue
            archive.add(path, str(path.relative_to(work)))
    content = stream.getvalue() if found else b""
    for old in out.glob("kept.tar.*"):
        old.unlink()
    names = []
    for number, start in enumerate(range(0, len(content), PIECE_BYTES)):
        names.append(f"kept.tar.{number}")
        part = content[start : start + PIECE_BYTES]
        write_atomically(out / names[-1], lambda temporary, part=part: temporary.write_bytes(part))  # type: ignore[misc]
    return {"files": names, "sha256": hashlib.sha256(content).hexdigest(), "left_behind": left}


def unpack(out: Path, work: Path, summary: dict[str, Any]) -> None:
    """What an earlier call kept, back to where it was; a broken archive is left alone, and said to be."""
    kept = summary["kept"]
    if not kept or not kept["files"]:
        return
    files = [out / name for name in kept["files"]]
    content = b"".join(file.read_bytes() for file in files if file.is_file())
    if hashlib.sha256(content).hexdigest() != kept["sha256"]:
        print("kept.tar.* is not what summary.json describes; runs and trainings start anew", flush=True)
        return
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(work, filter="data")


def write_summary(out: Path, summary: Mapping[str, Any]) -> None:
    text = json.dumps(summary, indent=1) + "\n"
    write_atomically(out / "summary.json", lambda temporary: temporary.write_text(text))
    write_atomically(out / "summary.md", lambda temporary: temporary.write_text(markdown(summary)))


# 6. The summary -------------------------------------------------------------------------------------------------------


def markdown(summary: Mapping[str, Any]) -> str:
    """The summary as it goes into docs/gpu.md."""
    pieces, environment = summary["pieces"], summary["environment"]
    lines = [f"## {_where(summary)}", ""]
    if summary["scale"] != FULL.name:
        lines += ["**A rehearsal at toy size on a processor: no number here says anything about a GPU.**", ""]
    commit = (environment["git"] or {}).get("commit", "unknown")[:12]
    lines += [f"Command: `{summary['command']}`. Commit {commit}, Python {environment['python']}, torch "
              f"{environment['torch']['version']}, CUDA {environment['torch']['cuda'] or 'none'}.", ""]  # fmt: skip
    lines += _table(
        ["piece", "date", "state", "seconds", "SM clock before, after, MHz", "temperature, C"],
        [[f"`{name}`", one.get("date"), _state(one), _number(one.get("seconds"), 0), _clocks(one, "sm_clock_mhz"),
          _clocks(one, "temperature_c")] for name, one in pieces.items()],
    )  # fmt: skip
    for part in dict.fromkeys(one["part"] for one in pieces.values()):
        told = [line for name, one in pieces.items() if one["part"] == part and "result" in one
                for line in _told(name, one["result"])]  # fmt: skip
        lines += [f"### {part}", "", *told] if told else []
    left = (summary["kept"] or {}).get("left_behind", [])
    if left:
        lines += [f"Too large to bring home: {', '.join(left)}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _where(summary: Mapping[str, Any]) -> str:
    card = summary["environment"]["gpu"]
    return f"{card['name']}, driver {card['driver'] or 'unknown'}" if card else "a processor"


def _state(record: Mapping[str, Any]) -> str:
    reason = record.get("reason")
    return f"{record['status']}: {reason}" if reason else str(record["status"])


def _clocks(record: Mapping[str, Any], name: str) -> str:
    clock = record.get("clock", {})
    return ", ".join(str((clock[when]["gpu"] or {}).get(name) or "-") for when in ("before", "after") if when in clock)


def _told(name: str, result: Mapping[str, Any]) -> list[str]:
    if name == "parity":
        return _told_parity(result)
    if name in ("graphs", "large"):
        return _told_graphs(result)
    if name == "quality":
        return [line for dtype, run in result.items() for line in _told_quality(dtype, run)]
    if name.startswith("speed-"):
        return _told_speed(name.removeprefix("speed-"), result)
    return _told_training(name, result)


def _told_parity(result: Mapping[str, Any]) -> list[str]:
    return [
        "All checks hold." if result["holds"] else "**Some checks do not hold.**", "",
        *_table(["check", "precision", "value", "limit", "holds"],
                [[c["what"], c["dtype"], f"{c['value']:.3g}", f"{c['limit']:.3g}", "yes" if c["holds"] else "**no**"]
                 for c in result["checks"]]),
        "Tokens against those of a processor in fp32, from the same noise:", "",
        *_table(["arm", "precision", "images", "images that differ", "codes that differ"],
                [[f"`{t['arm']}`", t["dtype"], t["images"], t["images_that_differ"], t["codes_that_differ"]]
                 for t in result["tokens"]]),
    ]  # fmt: skip


def _told_graphs(result: Mapping[str, Any]) -> list[str]:
    lines = []
    if "parameters" in result:
        lines = [f"{result['parameters']:,} parameters of random weights, bf16; the device's memory copies "
                 f"{result['bandwidth_bytes_per_s'] / 1e9:.0f} GB/s, bytes read and written.", ""]  # fmt: skip
    heads = ["batch", "precision", "arm", "steps", "eager ms", "graphs ms", "eager / graphs", "images/s: both",
             "recorded in s", "other codes", "of the roofline: both", "GiB: eager, recording"]  # fmt: skip
    rows = []
    for row in result["rows"]:
        head = [row["batch"], row["dtype"], f"`{row['arm']}`", row.get("n_steps")]
        if "failed" in row:
            rows.append([*head, row["failed"], *[""] * 7])
            continue
        times_s = [row[name] for name in ("eager_s", "graphs_s") if name in row]
        share = [_number(row[name], 2) for name in ("eager_of_roofline", "graphs_of_roofline") if name in row]
        held = [row["peak"]["peak_bytes"], row.get("recording_bytes")]
        rows.append([
            *head, _number(1e3 * row["eager_s"], 2), _number(row.get("graphs_s"), 2, 1e3),
            _number(row.get("eager_over_graphs"), 2), ", ".join(_number(row["batch"] / one, 1) for one in times_s),
            _number(row.get("record_s"), 2), row.get("codes_that_differ", "-"), ", ".join(share) or "-",
            ", ".join(_number(one, 2, 2**-30) for one in held),
        ])  # fmt: skip
    refused = sorted({sentence for row in result["rows"] for sentence in row.get("refused", [])})
    return [
        *lines,
        *_table(heads, rows),
        *(line for sentence in refused for line in (f"Not recorded: {sentence}.", "")),
    ]


def _told_quality(dtype: str, run: Mapping[str, Any]) -> list[str]:
    names = ("fd", "kd", "precision", "recall", "inception_score", "agreement")
    rows = [[f"`{one['arm']}`", one["n"], *(_interval(one["figures"].get(name)) for name in names),
             one.get("failed") or ""]
            for one in (*run["arms"], *run["floors"])]  # fmt: skip
    return [f"{dtype}, features `{run['space']}`:", "", *_table(["arm", "n", *names, "failed"], rows)]


def _told_speed(dtype: str, result: Mapping[str, Any]) -> list[str]:
    heads = ["batch", "arm", "steps", "latency at batch 1, ms", "images/s", "x raster at batch 1", "x raster", "failed"]
    rows = []
    for batch, run in result.items():
        for one in run["arms"]:
            figures, speedup = one["figures"], one["speedup"]
            latency_ms = {name: value and 1e3 * value for name, value in (figures.get("latency_s") or {}).items()}
            rows.append([
                batch, f"`{one['arm']}`", one["n_steps"], _interval(latency_ms), _interval(figures.get("images_per_s")),
                _interval(speedup.get("1")), _interval(speedup.get(batch)), one.get("failed") or "",
            ])  # fmt: skip
    noise = "; ".join(
        f"batch {at}: {_interval(interval)}" for run in result.values() for at, interval in run["noise"].items()
    )
    return [f"{dtype}, pixel decoder included; the same arm twice, {noise}:", "", *_table(heads, rows)]


def _told_training(name: str, result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"`{name}`: {result['step']:,} of {result['recipe_steps']:,} steps of {result['batch']} images in "
        f"{result['precision']}, on {result['data']}. {_number(result['steps_per_s'], 2)} steps/s, checkpoints and "
        f"evaluations included; median step {_number(result['median_step_s'], 1, 1e3)} ms.",
        "",
    ]
    if result["data"] == HELD_OUT:
        lines += [
            "No training images were on this machine, so these are nine tenths of the shipped held-out codes; the "
            "shipped weights learnt from 60,000 other images, and the two curves are not those of one task.",
            "",
        ]
    curves = [("here", result["curve"]), ("shipped", result["card_curve"])]
    names = list(dict.fromkeys(key for _, curve in curves for figures in curve for key in figures if key != "step"))
    rows = [[int(figures["step"]), whose, *(_number(figures.get(key), 4) for key in names)]
            for whose, curve in curves for figures in curve]  # fmt: skip
    rows.sort(key=lambda row: (row[0], row[1]))
    return [*lines, *_table(["step", "weights", *names], rows)] if rows else lines


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    body = [f"| {' | '.join('' if cell is None else str(cell) for cell in row)} |" for row in rows]
    return [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *body, ""]


def _number(value: float | None, digits: int, times: float = 1.0) -> str:
    return "-" if value is None else f"{times * value:.{digits}f}"


def _interval(found: Mapping[str, float | None] | None) -> str:
    if not found or found.get("value") is None:
        return "-"
    value, low, high = (found.get(name) for name in ("value", "low", "high"))
    return f"{value:.4g}" + ("" if low is None or high is None else f" [{low:.4g}, {high:.4g}]")


# The command line -----------------------------------------------------------------------------------------------------


@contextmanager
def carried_packages(work: Path) -> Iterator[None]:
    """Children find what was carried: wheels, unpacked, and packages as they lie."""
    folder = Path(os.environ.get("CARRIED") or ROOT / "carried")
    before = os.environ.get("PYTHONPATH", "")
    if folder.is_dir():
        site = work / "site"
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as opened:
                opened.extractall(site)  # noqa: S202 (zipfile leaves out what points elsewhere)
        os.environ["PYTHONPATH"] = os.pathsep.join(part for part in (before, str(site), str(folder)) if part)
    try:
        yield
    finally:
        os.environ["PYTHONPATH"] = before


def main() -> int:
    parser = argparse.ArgumentParser(prog="gpu_checks.sh", description="What only a GPU can show; see docs/gpu.md.")
    parser.add_argument("out", nargs="?", type=Path, help="where the summary goes; default a temporary folder")
    parser.add_argument("--data", help="a folder with Fashion-MNIST's images; DATA does the same")
    parser.add_argument("--cifar", help="a folder with CIFAR-10's images; CIFAR does the same")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--only", metavar="PIECE,...", help=", ".join(piece.name for piece in PIECES))
    parser.add_argument("--dry-run", action="store_true", help="all pieces at toy size on a processor")
    for name in ("--piece", "--scale", "--work", "--seconds"):  # of a piece's own process
        parser.add_argument(name, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.piece:
        piece = next(piece for piece in PIECES if piece.name == given.piece)
        record = run_here(piece, SCALES[given.scale], Path(given.work), float(given.seconds))
        file = Path(given.work) / f"{piece.name}.json"
        write_atomically(file, lambda temporary: temporary.write_text(json.dumps(record)))
        return 0
    scale = TOY if given.dry_run else FULL
    if scale is FULL and not torch.cuda.is_available():
        sys.exit("gpu_checks.sh needs a GPU that torch sees; --dry-run walks all pieces at toy size on a processor")
    for variable, folder in (("DATA", given.data), ("CIFAR", given.cifar)):
        if folder:
            os.environ[variable] = str(Path(folder).resolve())
    only = given.only.split(",") if given.only else [piece.name for piece in PIECES]
    unknown = set(only) - {piece.name for piece in PIECES}
    if unknown:
        parser.error(
            f"no piece named {', '.join(sorted(unknown))}; {', '.join(piece.name for piece in PIECES)} would do"
        )
    out = given.out or Path(tempfile.mkdtemp(prefix="gpu-checks-"))
    work = Path(tempfile.mkdtemp(prefix="gpu-checks-work-"))
    try:
        with carried_packages(work):
            summary = walk_pieces(
                out, work, scale, [piece for piece in PIECES if piece.name in only],
                lambda piece, scale, work, seconds: run_apart(piece, scale, work, seconds, out / "log.txt"),
                minutes=given.minutes,
            )  # fmt: skip
    except BenchError as problem:
        sys.exit(str(problem))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"everything is in {out}; a call with it goes on with what is missing")
    return 1 if any(record["status"] == "failed" for record in summary["pieces"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
