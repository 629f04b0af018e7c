"""Training from the command line: what was asked, turned into a job, a schedule and files of weights.

Knows recipes by name, folders and progress. Refuses to know losses and networks, which are the models' room.

A training folder holds `checkpoint.pt` (everything that going on needs), and, when training stops, the averaged
weights as `NAME.safetensors` with `NAME.card.json`.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from orderbench.models.checkpoint import check_fits, read_tensors, unfilled, write_atomically
from orderbench.models.codec import encode_images
from orderbench.models.config import FeatureConfig, ModelConfig, TokenizerConfig
from orderbench.models.data import Source, open_images
from orderbench.models.flops import training_flops
from orderbench.models.mixtures import objective_named
from orderbench.models.objective import SHIPPED, ModelJob
from orderbench.models.processes import is_first_process, join_processes
from orderbench.models.recipes import FeatureJob, TokenizerJob
from orderbench.models.shipped import Loaded, load_shipped, load_weights, shipped_names
from orderbench.models.systems import BUDGET, Recipe, Task, built_system
from orderbench.models.tokenizer import STRIDE, Tokenizer
from orderbench.models.train import Job, Progress, TrainConfig, fit, has_fast_bf16
from orderbench.orders import BenchError
from orderbench.orders.arrays import memory_bytes
from orderbench.orders.errors import said
from orderbench.orders.files import sha256_of
from orderbench.runs.device import choose_device, settle_threads
from orderbench.runs.record import sole_writer

RECIPES: dict[str, TrainConfig] = {
    "tokenizer": TrainConfig(steps=3000, batch=64, learning_rate=2e-3, warmup=100, weight_decay=0.0, ema=0.998),
    "features": TrainConfig(steps=2500, batch=128, learning_rate=3e-3, warmup=100, weight_decay=0.02, ema=0.995),
    "model": TrainConfig(steps=6000, batch=64, learning_rate=3e-3, warmup=100, weight_decay=0.05, muon=2.0, ema=0.998),
}
RESIDUAL = TrainConfig(
    steps=8000, batch=128, learning_rate=3e-3, warmup=400, weight_decay=0.1, ema=0.999
)  # features, where --network residual is asked
RECIPE_MODEL: dict[str, Any] = {"width": 128, "heads": 2, "self_blocks": 4, "cross_blocks": 4, "label": "slot+query"}


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """What was asked; None takes the recipe's."""

    what: str
    out: Path
    data: str | None = None
    device: str = "auto"
    steps: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    minutes: float | None = None
    every: int = 100
    threads: int | None = None
    bf16: bool | None = None
    compiled: bool = False
    resume: bool = False
    init: Path | None = None
    tokenizer: Path | None = None
    mixture: str | None = None
    system: str | None = None
    codes: int = 16
    scales: str = ""
    network: str = "plain"
    side: int = 32


def train(
    spec: TrainSpec,
    report: Callable[[Progress], None],
    tick: Callable[[int, int], None],
    tell: Callable[[str], object] = lambda sentence: None,
) -> dict[str, Any]:
    """Train what was asked; the card of the weights that were written. tell: gets what is worth saying before.

    Raises BenchError for data, weights or a folder that cannot be used, before anything is trained.
    """
    if spec.what not in RECIPES:
        raise BenchError(f"no recipe named '{spec.what}'; {', '.join(RECIPES)} would do, as in bench train tokenizer")
    if spec.every < 1 or (spec.minutes is not None and not spec.minutes > 0):
        raise BenchError("--every is 1 or more and --minutes above 0, as in --every 100 --minutes 60")
    if spec.threads is not None and spec.threads < 1:
        raise BenchError(f"{spec.threads} threads cannot train; give 1 or more, as in --threads 2")
    if spec.system is not None:
        _check_system(spec.system, spec.what)
    if spec.scales and spec.what != "tokenizer":
        raise BenchError(
            f"--scales are levels of a tokenizer's pyramid, and a {spec.what} has none; leave --scales out"
        )
    source = _checked(spec)
    device = choose_device(spec.device)
    threads = settle_threads(spec.threads, device, by_load=False)  # by load, no session would repeat another
    if threads:
        tell(threads)
    join_processes(device)
    given: dict[str, Any] = {
        "steps": spec.steps,
        "batch": spec.batch,
        "learning_rate": spec.learning_rate,
        "seed": spec.seed,
    }
    recipe = RESIDUAL if spec.what == "features" and spec.network == "residual" else RECIPES[spec.what]
    recipe = recipe if spec.system is None else BUDGET
    config = replace(recipe, **{name: value for name, value in given.items() if value is not None})
    config = replace(
        config,
        warmup=min(config.warmup, max(1, config.steps // 10)),
        bf16=has_fast_bf16(device) if spec.bf16 is None else spec.bf16,
        compiled=spec.compiled,
    )
    job = _job(spec, source, config, device)
    start = None if spec.init is None else _weights(spec.init, job)
    torch.set_flush_denormal(True)  # a vanishing gradient must not slow the processor down (docs/log.md)
    holding = sole_writer(spec.out, "a training") if is_first_process() else nullcontext()
    with holding:
        try:
            state = fit(
                job, config, spec.out, device=device, resume=spec.resume, minutes=spec.minutes, every=spec.every,
                start=start, report=report, tick=tick,
            )  # fmt: skip
        finally:
            torch.set_flush_denormal(False)
        if not is_first_process():
            return {}
        return _write(spec, source, job, config, state, _operations(job, config, device, tell))


def _check_system(name: str, what: str) -> None:
    """BenchError for a system that cannot be trained, before images are read."""
    if what != "model":
        raise BenchError(f"--system {name} is a model, and {what} was to be trained; as in bench train model")
    built_system(name)


def _checked(spec: TrainSpec) -> Source:
    """The images, looked at. BenchError for sizes that cannot be, before anything of such a size is made."""
    for name, (least, most, example) in _SIZES.items():
        value = getattr(spec, name)
        if value is not None and (value > most or (least is not None and value < least)):
            fits = f"up to {most:,}" if least is None else f"from {least} to {most:,}"
            flag = name.replace("_", "-")
            raise BenchError(f"--{flag} {value:g} cannot be; {fits} would do, as in --{flag} {example}")
    if spec.side % STRIDE and spec.what != "features":
        raise BenchError(f"--side {spec.side} does not divide into cells of {STRIDE} pixels; an even number would do")
    source = open_images(spec.data)
    batch_bytes = 4 * (spec.batch or 1) * source.channels * spec.side**2
    if batch_bytes > memory_bytes():
        raise BenchError(
            f"a batch of {spec.batch:,} images of {spec.side}x{spec.side} takes {batch_bytes / 1e9:,.0f} GB, more than "
            f"this machine's memory; a smaller --batch would do"
        )
    return source


_SIZES: dict[str, tuple[int | None, int, float]] = {  # the least where it is said here, the most, an example
    "side": (STRIDE, 4096, 32),
    "codes": (None, 1 << 20, 16),
    "batch": (None, 1 << 20, 64),
    "learning_rate": (None, 10, 0.003),
    "threads": (None, 1024, 2),
}


def _job(spec: TrainSpec, source: Source, config: TrainConfig, device: str) -> Job[Any]:
    loaded = _tokenizer(spec) if spec.what == "model" else None
    wanted = None if loaded is None else cast(Tokenizer, loaded.network).channels
    if wanted is not None:
        source.check_channels(wanted, "the tokenizer")
    train_images = source.load("train", spec.side, channels=wanted)
    test_images = source.load("test", spec.side, channels=wanted)
    channels = train_images.images_Nchw.shape[1]
    if spec.what == "tokenizer":
        codes = TokenizerConfig(channels=channels, codes=spec.codes, scales=_scales(spec))
        return TokenizerJob(codes, train_images, test_images, seed=config.seed, steps=config.steps, device=device)
    if spec.what == "features":
        network = cast(Literal["plain", "residual"], spec.network)  # FeatureConfig refuses any other
        features = FeatureConfig(channels=channels, classes=train_images.classes, network=network)
        augment: Literal["shift", "crop+flip"] = "crop+flip" if network == "residual" else "shift"
        return FeatureJob(features, train_images, test_images, seed=config.seed, device=device, augment=augment)
    if loaded is None:
        raise BenchError("a model is trained on a tokenizer's codes; name one, as in --tokenizer tokenizer.safetensors")
    tokenizer = cast(Tokenizer, loaded.network.to(device))
    task = Task(tokenizer.code_sizes[0], train_images.classes, tokenizer.lattice(spec.side))
    if spec.system is None:
        asked = Recipe(ModelConfig(**task.square, **RECIPE_MODEL), SHIPPED)
    else:
        asked = built_system(spec.system).function(task)
    return ModelJob(
        asked.network,
        asked.objective if spec.mixture is None else objective_named(spec.mixture),
        encode_images(tokenizer, train_images, device)[..., 0],
        train_images.labels_N,
        (encode_images(tokenizer, test_images, device)[..., 0], test_images.labels_N),
        data=f"{train_images.name}, tokenizer {loaded.sha256[:16]}",
        codec=tokenizer,
        seed=config.seed,
        device=device,
        steps=config.steps,
    )


def _scales(spec: TrainSpec) -> tuple[int, ...]:
    """The sides of a pyramid's levels, () for a grid. BenchError unless they are whole numbers that grow up to half the
    images' side."""
    parts = [part.strip() for part in spec.scales.split(",")] if spec.scales else []
    scales = tuple(int(part) for part in parts if part.isdecimal() and part.isascii() and len(part) < 5)
    if len(scales) < len(parts) or (scales and scales[-1] != spec.side // STRIDE):
        raise BenchError(
            f"--scales {spec.scales} are no levels of images of {spec.side} pixels a side; whole numbers from coarse "
            f"to fine, the last {spec.side // STRIDE}, would do, as in --side 32 --scales 1,2,4,8,16"
        )
    return scales


def _tokenizer(spec: TrainSpec) -> Loaded | None:
    """The tokenizer that was asked for; BenchError where its card names another side of images than was asked for."""
    if spec.tokenizer is None and spec.system is None:
        return None
    name = str(spec.tokenizer or built_system(str(spec.system)).tokenizer)
    loaded = load_shipped(name, "tokenizer") if name in shipped_names() else load_weights(name, "tokenizer")
    side = loaded.card.get("side", spec.side)
    if side != spec.side:
        raise BenchError(
            f"--side {spec.side} is not the side of the images that '{name}' was trained on, which is {side}"
            f"; give --side {side}, or a tokenizer of side {spec.side}"
        )
    return loaded


def _weights(file: Path, job: Job[Any]) -> dict[str, Tensor]:
    tensors = read_tensors(file)
    with unfilled():
        network = job.build()
    check_fits(job.ships(network.state_dict()), tensors, str(file), type(network).__name__)
    return tensors


def _operations(job: Job[Any], config: TrainConfig, device: str, tell: Callable[[str], object]) -> float | None:
    """Of the whole schedule, see `training_flops`. None where they cannot be counted, with a sentence: no weights are
    lost for that."""
    try:
        return training_flops(job, config, device)
    except Exception as problem:
        tell(f"the operations of this training are not counted, and its card leaves them out: {said(problem)}")
        return None


def _write(
    spec: TrainSpec, source: Source, job: Job[Any], config: TrainConfig, state: dict[str, Any], operations: float | None
) -> dict[str, Any]:
    """The card, written beside the weights. operations: of the whole schedule; None leaves them out. Three digits are
    kept, since they are an estimate where steps follow several plans."""
    about = job.describe()
    weights = spec.out / f"{spec.what}.safetensors"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in job.ships(state["averaged"]).items()}
    metadata = {"about": json.dumps(about, sort_keys=True)}
    write_atomically(weights, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    card = {
        "kind": spec.what,
        "about": about,
        "train": state["identity"]["train"],
        "steps_done": state["step"],
        "images_seen": state["step"] * config.batch,
        **({} if spec.system is None else {"system": spec.system}),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        **({} if operations is None else {"training_flops": float(f"{operations * state['step'] / config.steps:.3g}")}),
        "figures": state["history"][-1] if state["history"] else {},
        "learning_curve": state["history"],
        "command": _command(sys.argv[1:]),
        "sha256": sha256_of(weights),
        "side": spec.side,
        "pixels": source.rule(spec.side),
        "class_names": list(source.class_names),
        "split": {"data": source.name, "digest": source.digest, "test": source.test_split},
    }
    write_atomically(
        spec.out / f"{spec.what}.card.json", lambda temporary: temporary.write_text(json.dumps(card, indent=1) + "\n")
    )
    return {**card, "weights": str(weights)}


def _command(words: Sequence[str]) -> str:
    """The command that trains the same: how often it was cut and resumed does not matter, `steps_done` says how far."""
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if word != "--resume" and "--minutes" not in (before, word.partition("=")[0])
    ]
    return shlex.join(["bench", *kept])
