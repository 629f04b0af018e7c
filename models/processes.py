"""Several processes under `torchrun`: which one this is, and what they exchange.

Knows ranks and collectives. In a single process everything here returns what it was given. Refuses to know what the
work is.
"""

from __future__ import annotations

import atexit
import os
import re
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from orderbench.orders import BenchError
from orderbench.orders.errors import said


def join_processes(device: str) -> None:
    """Join the other processes if `torchrun` started this one. They wait for each other up to a day: the first one
    may have much to do alone."""
    if _world_size() > 1 and not dist.is_initialized():
        on_gpu = torch.device(device).type == "cuda"
        if on_gpu:
            torch.cuda.set_device(torch.device(device).index or 0)
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"  # NCCL cannot move CPU tensors, such as votes
        try:
            dist.init_process_group(backend, timeout=timedelta(days=1))
        except (RuntimeError, ValueError) as problem:
            raise BenchError(
                f"the processes did not find each other: {said(problem)}; start them through torchrun, or unset "
                f"WORLD_SIZE to run alone"
            ) from problem
        atexit.register(_leave)  # a process that ends while its communication threads run is aborted


def _world_size() -> int:
    """How many processes the environment promises; BenchError for what torchrun would not have set."""
    text = os.environ.get("WORLD_SIZE", "1")
    wrong = "" if re.fullmatch(r"[0-9]{1,6}", text) else f"WORLD_SIZE is '{text}'"
    lacking = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if not wrong and int(text) > 1 and lacking:
        wrong = f"WORLD_SIZE is {text} and {', '.join(lacking)} is not set"
    if wrong:
        raise BenchError(f"{wrong}; torchrun sets these, so start through it, or unset WORLD_SIZE to run alone")
    return int(text)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process is the one that writes."""
    return process_rank() == 0


def process_rank() -> int:
    """Which of the processes this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def n_processes() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(value: Any) -> list[Any]:
    """Every process's value, by rank; all processes wait here for each other. BenchError if one of them has ended."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    try:
        dist.all_gather_object(values, value)
    except RuntimeError as problem:
        raise BenchError(
            "another process has ended, and this one cannot go on alone; what is recorded is kept, so start all of "
            "them again, with --resume"
        ) from problem
    return values


def share_of(batch: int) -> slice:
    """This process's part of a batch."""
    if not dist.is_initialized():
        return slice(0, batch)
    world = dist.get_world_size()
    if batch % world:
        raise BenchError(f"a batch of {batch} does not divide among {world} processes; give a multiple of {world}")
    return slice(dist.get_rank() * batch // world, (dist.get_rank() + 1) * batch // world)


def average_gradients(network: nn.Module) -> None:
    """Replace every gradient by its mean over all processes; what takes none keeps none."""
    if not dist.is_initialized():
        return
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of every process's tensor; the tensor itself where there is one process."""
    if dist.is_initialized():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def take_from_first(tensor: Tensor) -> None:
    """Overwrite with the first process's tensor."""
    if dist.is_initialized():
        dist.broadcast(tensor, 0)


def agree(stop: bool) -> bool:
    """All processes stop together, when the first one must."""
    if not dist.is_initialized():
        return stop
    vote = torch.tensor(float(stop))
    dist.all_reduce(vote, dist.ReduceOp.MAX)
    return bool(vote)
