"""Training: one loop for every network of the suite.

Knows steps, schedules, checkpoints and processes. Refuses to know what is trained: a Job says what a batch is, and what
its loss is.

What a step draws is addressed by (seed, step). So a resumed run continues bit for bit (on the same machine and with as
many threads), and two processes under `torchrun` share the batch that one process would see.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orderbench.models.checkpoint import read_pickle, write_atomically
from orderbench.models.processes import agree, average_gradients, gather, process_rank, share_of
from orderbench.orders import BenchError
from orderbench.orders.streams import generator


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How one network is trained. The schedule follows from `steps`, also if training stops early."""

    steps: int
    batch: int = 64
    learning_rate: float = 3e-3
    warmup: int = 100
    final_share: float = 0.01  # of the learning rate, at the last step
    weight_decay: float = 0.05
    muon: float = 0.0  # Muon's learning rate for hidden matrices, as a multiple of learning_rate; 0: AdamW for all
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    bf16: bool = False
    compiled: bool = False  # by torch's compiler, the parts that modules name in `compiles`; other roundings

    def __post_init__(self) -> None:
        served = {
            "steps": (self.steps >= 1, "1 or more, as in 3000"),
            "batch": (self.batch >= 1, "1 or more, as in 64"),
            "learning rate": (0 < self.learning_rate < math.inf, "above 0, as in 0.003"),
            "muon": (0 <= self.muon < math.inf, "0 or more, as in 2"),
            "ema": (0 <= self.ema < 1, "0 or more and below 1, as in 0.998"),
        }
        for name, (fits, wanted) in served.items():
            if not fits:
                given = getattr(self, name.replace(" ", "_"))
                raise BenchError(f"cannot train with a value of {given:g} for {name}; it is {wanted}")

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, ...: linear warm-up, then a cosine to its final share."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * done)))

    def to_json(self) -> dict[str, Any]:
        """A plain value, as checkpoints and cards hold it; what is newer than shipped weights is left out at its
        default."""
        value = asdict(self)
        return {name: entry for name, entry in value.items() if name != "compiled" or entry}


Network = TypeVar("Network", bound=nn.Module)


class Job(Protocol[Network]):
    """What is trained: a kind of network, and what it learns."""

    name: str

    def build(self) -> Network:
        """A fresh network; called under a seeded generator."""

    def hidden_matrices(self, network: Network) -> list[nn.Parameter]:
        """The matrices between embeddings and head, which Muon may train."""

    def ships(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that are kept as weights, of all that were trained."""

    def describe(self) -> dict[str, Any]:
        """What is saved with the weights: configurations, data, mixture. A plain value; resuming compares it."""

    def loss(self, network: Network, indices_B: Tensor, share: slice, step: int) -> tuple[Tensor, dict[str, float]]:
        """The mean loss of this process's share of a batch, and figures to show. Random numbers are drawn for the whole
        batch."""

    def after(self, network: Network, step: int) -> None:
        """Called after every optimizer step."""

    def state(self) -> dict[str, Tensor]:
        """What the job itself keeps from step to step; it is saved in checkpoints."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` gave."""

    def evaluate(self, network: Network) -> dict[str, float]:
        """Held-out figures of the averaged weights."""

    def __len__(self) -> int:
        """How many images there are."""


@dataclass(frozen=True)
class Progress:
    """One report: step of steps; seconds and steps of this call, without those before a resume; images seen in all;
    figures."""

    step: int
    steps: int
    elapsed_s: float
    steps_here: int
    images_seen: int
    figures: dict[str, float]


def batch_indices(n_images: int, batch: int, step: int, seed: int) -> Tensor:
    """(batch,) int64: the images of one step. Every epoch is a permutation of its own, addressed by its number."""
    places = np.arange(step * batch, (step + 1) * batch)
    epochs, offsets = np.divmod(places, n_images)
    chosen = [_epoch(n_images, int(e), seed)[o] for e, o in zip(epochs, offsets, strict=True)]
    return torch.tensor(chosen, dtype=torch.int64)


@lru_cache(maxsize=4)
def _epoch(n_images: int, epoch: int, seed: int) -> np.ndarray:
    return generator(seed, "train", (1 << 40) + epoch).permutation(n_images)


def make_optimizers(network: nn.Module, hidden: list[nn.Parameter], config: TrainConfig) -> list[Optimizer]:
    """AdamW, with weight decay on matrices alone, as ARPG and LlamaGen train; and, if `config.muon` is set, Muon for
    the hidden matrices, its steps scaled to the size of AdamW's (arXiv 2502.16982, section 2.2).

    Raises BenchError if Muon is asked of a torch that lacks it.
    """
    if config.muon and not hasattr(torch.optim, "Muon"):
        raise BenchError(f"torch {torch.__version__} has no Muon; torch 2.9 or newer would do")
    taken = {id(p) for p in hidden} if config.muon else set()
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[Optimizer] = [torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))]
    if taken:
        muon = torch.optim.Muon(hidden, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
        optimizers.append(muon)
    for optimizer, share in zip(optimizers, (1.0, config.muon), strict=False):
        for group in optimizer.param_groups:
            group["share"] = share
    return optimizers


def fit(
    job: Job[Network],
    config: TrainConfig,
    folder: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    minutes: float | None = None,
    every: int = 100,
    start: dict[str, Tensor] | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    tick: Callable[[int, int], None] = lambda _step, _steps: None,
) -> dict[str, Any]:
    """Train, and return the final checkpoint. `folder`/checkpoint.pt is whole at all times.

    every: steps between checkpoints and reports; a killed run loses at most so many steps. minutes: stop after them,
    with a checkpoint; the schedule stays that of `config.steps`. start: weights to begin with, instead of fresh ones,
    as `Job.ships` names them. report: called after every checkpoint but the first. tick: called after every step.

    Raises BenchError if there is something to resume and `resume` is not set, nothing to resume and it is, or the
    checkpoint is of another job or configuration.
    """
    file = folder / "checkpoint.pt"
    identity = {"job": job.name, "train": config.to_json(), "about": job.describe()}
    torch.manual_seed(config.seed)
    network = job.build().to(device)
    averaged = job.build().to(device)
    averaged.load_state_dict(network.state_dict())
    optimizers = make_optimizers(network, job.hidden_matrices(network), config)
    if start is not None:
        for one in (network, averaged):
            _begin_with(job.ships(one.state_dict()), start)
    first, history = 0, []
    if resume:
        if not file.is_file():
            raise BenchError(f"'{folder}' holds no training run to go on with; leave --resume out to start one")
        state = read_pickle(file)
        if state.get("identity") != identity:
            raise BenchError(f"'{file}' was trained otherwise than now asked; start again in another folder")
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        job.restore(state["job"])
        first, history = state["step"], state["history"]
    elif any(gather(file.exists())):  # all processes look before the first one writes
        raise BenchError(f"'{folder}' holds a training run already; go on with --resume, or name another folder")

    def checkpoint(step: int) -> dict[str, Any]:
        state = {
            "identity": identity,
            "step": step,
            "network": network.state_dict(),
            "averaged": averaged.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "job": job.state(),
            "history": history,
        }

        def save(temporary: Path) -> None:
            with temporary.open("wb") as opened:  # torch would write the temporary name into the file
                torch.save(state, opened)

        if process_rank() == 0:
            write_atomically(file, save)
        return state

    if config.compiled and not compile_parts(network):
        raise BenchError(f"torch's compiler has nothing to fuse in {type(network).__name__}; leave --compile out")
    began = time.monotonic()
    state = checkpoint(first)
    for step in range(first, config.steps):
        for group in [group for optimizer in optimizers for group in optimizer.param_groups]:
            group["lr"] = group["share"] * config.rate(step)
        indices_B = batch_indices(len(job), config.batch, step, config.seed)
        network.train()
        with _said_by_compiler():
            with _autocast(device, config.bf16):
                loss, figures = job.loss(network, indices_B, share_of(config.batch), step)
            network.zero_grad(set_to_none=True)
            loss.backward()
        average_gradients(network)
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        if not torch.isfinite(loss + norm):  # gradients are averaged, so all processes stop together
            raise BenchError(
                f"the loss of {job.name} is {loss.item():g} and its gradient {norm.item():g} at step {step}; the last "
                f"checkpoint is whole, and a smaller learning rate than {config.learning_rate:g} may do"
            )
        for optimizer in optimizers:
            optimizer.step()
        job.after(network, step)
        _update_average(averaged, network, min(config.ema, (step + 1) / (step + 10)))
        last = step + 1 == config.steps
        spent_s = time.monotonic() - began
        stop = agree(minutes is not None and spent_s > 60 * minutes)
        if (step + 1) % every == 0 or last or stop:
            averaged.eval()
            shown = {"loss": float(loss.detach()), **figures, **job.evaluate(averaged)}
            history.append({"step": step + 1, **shown})
            state = checkpoint(step + 1)
            report(
                Progress(
                    step + 1, config.steps, time.monotonic() - began, step + 1 - first, (step + 1) * config.batch, shown
                )
            )
        tick(step + 1, config.steps)
        if stop:
            break
    return state


def compile_parts(network: nn.Module) -> int:
    """Hand the functions that modules name in `compiles` to torch's compiler, and return how many there are. They are
    compiled when they are first called."""
    parts = [(module, name) for module in network.modules() for name in getattr(module, "compiles", ())]
    for module, name in parts:
        setattr(module, name, torch.compile(getattr(module, name)))
    return len(parts)


@contextmanager
def _said_by_compiler() -> Iterator[None]:
    """BenchError for what torch's compiler raises, and for nothing else."""
    try:
        yield
    except RuntimeError as problem:
        if not type(problem).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        why = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise BenchError(f"torch's compiler did not serve this network ({why}); leave --compile out") from problem


@torch.no_grad()
def _begin_with(own: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> None:
    for name, tensor in own.items():
        tensor.copy_(start[name])


@torch.no_grad()
def _update_average(averaged: nn.Module, network: nn.Module, keep: float) -> None:
    for old, new in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new.to(old.dtype), 1 - keep)
        else:
            old.copy_(new)


@contextmanager
def _autocast(device: str, bf16: bool) -> Iterator[None]:
    if not bf16:
        yield
        return
    with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
        yield


def has_fast_bf16(device: str) -> bool:
    """Whether a device computes in bf16 natively: a recent GPU, or a processor with AVX512-BF16 or AMX."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].splitlines()[0].split()
    except (OSError, IndexError):
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(flags))
