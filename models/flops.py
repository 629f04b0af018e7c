"""Floating-point operations: of a decoding, from its counters, or counted as it runs; and of a training.

Knows the shared network's layers, and torch's own counter for every other. Refuses to know clocks, and how a machine
computes: the number is the same everywhere.

Operations are two a multiply-add, of every linear layer and both products of attention, as they are computed, what a
mask hides included. Norms, softmax, activations, rotations, embeddings and sampling are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from orderbench.models.config import ModelConfig
from orderbench.models.decode import Counters
from orderbench.models.train import Job, TrainConfig, batch_indices

_TRIED, _IMAGES = 8, 4  # steps of a training that are counted, and images of each


def flops(config: ModelConfig, counters: Counters) -> float:
    """Operations of decoding one sample with the shared network in one branch of guidance; with guidance on, twice
    that. Equal to what `counted` counts."""
    D, F, V = config.width, config.ffn_width, config.codes
    content = config.self_blocks * (4 * D * D + 3 * D * F) + 2 * D * D  # q, k, v, out; the shared keys and values
    query = config.cross_blocks * (2 * D * D + 3 * D * F) + D * V
    pair = 2 * D  # query times key, weight times value
    multiply_adds = (
        content * counters.content_tokens
        + query * counters.query_tokens
        + pair * (config.self_blocks * counters.content_pairs + config.cross_blocks * counters.query_pairs)
    )
    return 2 * multiply_adds


def counted(work: Callable[[], Any]) -> float:
    """Operations of whatever torch computes meanwhile, by its own formulas.

    Attention is computed by plain products, since torch has no formula for the fused one of a processor. Unlike torch's
    FlopCounterMode this looks at no modules, of which not every one bears that.
    """
    with sdpa_kernel(SDPBackend.MATH), _Counter() as counter:
        work()
    return counter.total


class _Counter(TorchDispatchMode):
    """Adds up the operations of every call that torch has a formula for."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out


def training_flops(job: Job[Any], config: TrainConfig, device: str) -> float:
    """Operations of a whole training, forward and backward: those of some of its steps, spread evenly, for all.

    Steps differ where a mixture holds several plans, so the number is an estimate then; where all steps do the same, it
    is exact.
    """
    network = job.build().to(device).train()
    steps = sorted({step * config.steps // _TRIED for step in range(_TRIED)})
    images = min(_IMAGES, config.batch)
    total = 0.0
    for step in steps:
        indices_B = batch_indices(len(job), config.batch, step, config.seed)
        total += counted(lambda: job.loss(network, indices_B, slice(0, images), step)[0].backward())  # noqa: B023
    return total / len(steps) * config.steps * config.batch / images
