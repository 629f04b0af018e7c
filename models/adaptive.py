"""Adaptive orders: the next cells are chosen by what the network says of all cells that are left.

Knows confidences and step sizes. Refuses to know a plan's cells: which cells a step takes is decided at that step. An
adaptive order is a decoder with the trait `chooses`. Of its plan it uses the step sizes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import torch
from torch import Tensor

from orderbench.models.decode import Step, Tile, register_decoder
from orderbench.models.sampling import uniforms
from orderbench.orders import BenchError

_SECOND_TABLE = 1 << 40  # sample numbers from here on address noise that no code is drawn with

Scores = Callable[[Tensor, Tensor, float], Tensor]


def adaptive_steps(tile: Tile, scores: Scores) -> Iterator[Step]:
    """Draw codes for every cell that is left, keep as many cells as the step takes, feed them, and ask again.

    scores: from (log_probs_BU, noise_BU, done) to (B, U); cells of the highest scores are kept. log_probs_BU: nats,
    float64, of the codes that were drawn for the U cells left. noise_BU: one uniform number a cell. done: the share of
    steps that is over after this one, in (0, 1]. Cells that are not kept are asked again at the next step, with the
    same noise.
    """
    cache = tile.open()
    left_BL = torch.ones_like(tile.cells_BL, dtype=torch.bool)
    samples = [_SECOND_TABLE + sample for sample in tile.samples]
    noise_BL = uniforms(tile.seed, samples, left_BL.shape[1])[..., 0].to(left_BL.device)
    every_BL = torch.arange(left_BL.shape[1], device=left_BL.device).expand_as(tile.cells_BL)
    for index, size in enumerate(tile.plan.sizes):
        cells_BU = every_BL[left_BL].view(len(left_BL), -1)
        answer = tile.ask(cache, cells_BU, tile.scales(tile.starts[index], index)[-1:].expand(cells_BU.shape[1]))
        codes_BUK = tile.new_codes(answer, cells_BU)
        drawn_BU = answer.log_prob(codes_BUK, tile.sampling.temperature, torch.float64)
        scores_BU = scores(drawn_BU, noise_BL.gather(1, cells_BU), (index + 1) / tile.plan.n_steps)
        kept_BG = scores_BU.sort(dim=1, descending=True, stable=True).indices[:, :size]
        cells_BG = cells_BU.gather(1, kept_BG)
        codes_BGK = codes_BUK.gather(1, kept_BG[..., None].expand(-1, -1, codes_BUK.shape[2]))
        left_BL.scatter_(1, cells_BG, False)
        tile.write(cells_BG, codes_BGK)
        yield Step(index, cells_BG, codes_BGK, answer.take(kept_BG))
        if index + 1 < tile.plan.n_steps:
            tile.feed(cache, codes_BGK, cells_BG)


@register_decoder(
    "confidence", paper="MaskGIT, arXiv 2202.04200", idea="likeliest codes first, with noise that fades", chooses=True
)
def confidence(
    tile: Tile,
    *,
    noise: Annotated[float, "weight of the Gumbel noise, which fades to none at the last step; 0 or more"] = 4.5,
) -> Iterator[Step]:
    """MaskGIT's order (section 3.2): the cells whose drawn codes are likeliest, with Gumbel noise that fades.

    The noise is weighted by `noise` times the share of steps that is left after this one. 4.5 is the weight in the
    releases of MaskGIT and Halton-MaskGIT; the latter fades it from its whole weight at the first step.
    """
    if not 0 <= noise < float("inf"):
        raise BenchError(f"a confidence noise of {noise:g} is not served; 0 or more would do, as in 4.5")
    return adaptive_steps(tile, lambda nats_BU, noise_BU, done: nats_BU + noise * (1 - done) * _gumbel(noise_BU))


def _gumbel(uniform: Tensor) -> Tensor:
    return -(-uniform.clamp(1e-12, 1 - 1e-12).log()).log()
