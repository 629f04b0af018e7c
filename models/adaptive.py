"""Adaptive orders: the next cells are chosen from what the network says of all that are left.

Knows confidences and step sizes. Refuses to be a plan: which cells a step takes is known only when it is taken, so an
adaptive order decodes beside `decode`, as a decoder of its own, and yields the same steps. Of the plan it is given it
uses the step sizes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

from orderbench.models.decode import Step, Tile
from orderbench.models.sampling import uniforms
from orderbench.models.spelled import SpelledDecoder, spelled_decoder
from orderbench.orders import BenchError
from orderbench.orders.errors import unknown
from orderbench.orders.spelling import split_call

_SECOND_TABLE = 1 << 40  # samples from here on: numbers that no code is drawn with


class AdaptiveOrder(Protocol):
    """Which of the cells that are left come next."""

    def scores(self, log_probs_BU: Tensor, noise_BU: Tensor, done: float) -> Tensor:
        """(B, U): the higher, the sooner. log_probs_BU: nats of the code that was drawn for every cell left; noise_BU:
        one uniform number a cell; done: the share of the steps that are over after this one, in (0, 1]."""


@dataclass(frozen=True)
class Confidence:
    """MaskGIT (arXiv 2202.04200, section 3.2): the cells whose drawn codes are likeliest, with Gumbel noise that fades.

    noise: its weight, 0 or more, times the share of the steps that is left after this one; 4.5 in MaskGIT's and
    Halton-MaskGIT's releases, of which the latter fades it from the whole at the first step to none at the last.
    """

    noise: float = 4.5

    def __post_init__(self) -> None:
        if not 0 <= self.noise < float("inf"):
            raise BenchError(f"a confidence noise of {self.noise:g} is not served; 0 or more would do, as in 4.5")

    def scores(self, log_probs_BU: Tensor, noise_BU: Tensor, done: float) -> Tensor:
        gumbel_BU = -(-noise_BU.clamp(1e-12, 1 - 1e-12).log()).log()
        return log_probs_BU + self.noise * (1 - done) * gumbel_BU


def adaptive_steps(tile: Tile, order: AdaptiveOrder) -> Iterator[Step]:
    """Draw a code for every cell that is left, keep as many as the step takes, feed them, and ask again.

    A decoder: `decode(..., decoder=partial(adaptive_steps, order=Confidence()))`. Cells that are not kept are asked
    anew at the next step, with the same number of theirs.
    """
    cache = tile.open()
    left_BL = torch.ones_like(tile.cells_BL, dtype=torch.bool)
    samples = [_SECOND_TABLE + sample for sample in tile.samples]
    noise_BL = uniforms(tile.seed, samples, left_BL.shape[1]).to(left_BL.device)
    every_BL = torch.arange(left_BL.shape[1], device=left_BL.device).expand_as(tile.cells_BL)
    for index, size in enumerate(tile.plan.sizes):
        cells_BU = every_BL[left_BL].view(len(left_BL), -1)
        scale = tile.scales(tile.starts[index], index)[-1:].expand(cells_BU.shape[1])
        logits_BUV = tile.ask(cache, cells_BU, scale)
        tokens_BU = tile.new_codes(logits_BUV, cells_BU)
        log_probs = (logits_BUV / tile.sampling.temperature).double().log_softmax(-1)
        drawn_BU = log_probs.gather(-1, tokens_BU[..., None]).squeeze(-1)
        scores_BU = order.scores(drawn_BU, noise_BL.gather(1, cells_BU), (index + 1) / tile.plan.n_steps)
        kept_BG = scores_BU.sort(dim=1, descending=True, stable=True).indices[:, :size]
        cells_BG, tokens_BG = cells_BU.gather(1, kept_BG), tokens_BU.gather(1, kept_BG)
        logits_BGV = logits_BUV.gather(1, kept_BG[..., None].expand(-1, -1, logits_BUV.shape[-1]))
        left_BL.scatter_(1, cells_BG, False)
        yield Step(index, cells_BG, tokens_BG, size, logits_BGV)
        if index + 1 < tile.plan.n_steps:
            tile.feed(cache, tokens_BG, cells_BG)


def confidence(
    tile: Tile,
    *,
    noise: Annotated[float, "weight of the Gumbel noise, which fades with the steps that are left, 0 or more"] = 4.5,
) -> Iterator[Step]:
    """MaskGIT's order as a decoder with options: `adaptive_steps` with `Confidence(noise)`."""
    return adaptive_steps(tile, Confidence(noise))


_ADAPTIVE: dict[str, Callable[..., Iterator[Step]]] = {"confidence": confidence}


def is_adaptive(order: str) -> bool:
    """Whether an order, as spelled, chooses its cells as it decodes."""
    return order.partition(":")[0] in _ADAPTIVE


def parse_adaptive(text: str) -> SpelledDecoder:
    """'confidence', or 'confidence:noise=3'; BenchError for anything else.

    >>> str(parse_adaptive("confidence:noise=4.50"))
    'confidence'
    """
    name, given = split_call(text)
    ask = "adaptive orders are written like others, as in confidence:noise=4.5@cosine:13"
    if name not in _ADAPTIVE:
        raise unknown("adaptive order", name, _ADAPTIVE, ask)
    spelled = spelled_decoder(name, _ADAPTIVE[name], given, ask)
    Confidence(**spelled.values)  # what it refuses is said now
    return spelled
