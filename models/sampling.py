"""Sampling: from distributions to codes, by temperature, filters and addressed noise.

Knows distributions and noise. Refuses to know plans and networks.

Noise belongs to (seed, sample, cell, k), where k counts the codes of a cell. It is drawn on the CPU by counter, so it
is the same on every device, in every batch and along every order. Arms that share a seed share their noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orderbench.models.guidance import NO_GUIDANCE, Guidance
from orderbench.orders import BenchError
from orderbench.orders.streams import generator


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a code is drawn: guidance, then temperature, then top-k, then top-p.

    temperature: above 0. top_k: the k most likely codes, 0 for all. top_p: the fewest codes that hold this share, 1
    for all.
    """

    guidance: Guidance = NO_GUIDANCE
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise BenchError(
                f"a temperature of {self.temperature:g} is not served; it is above 0, as in --temperature 1"
            )
        if self.top_k < 0:
            raise BenchError(f"a top-k of {self.top_k} is not served; 0, for all codes, or more, as in --top-k 50")
        if not 0 < self.top_p <= 1:
            raise BenchError(f"a top-p of {self.top_p:g} is not served; it is above 0 and at most 1, as in --top-p 0.9")

    def to_json(self) -> dict[str, Any]:
        """Plain values, as records hold them; guidance by its spelling."""
        return {**asdict(self), "guidance": str(self.guidance)}


PLAIN = Sampling()


def filtered(logits_BQV: Tensor, sampling: Sampling) -> Tensor:
    """(B, Q, V) float64 probabilities after top-k and top-p; temperature was applied to the logits before."""
    probs = logits_BQV.double().softmax(-1)
    if 0 < sampling.top_k < probs.shape[-1]:
        least = probs.topk(sampling.top_k, dim=-1).values[..., -1:]
        probs = probs.masked_fill(probs < least, 0)
    if sampling.top_p < 1:
        ordered, places = probs.sort(dim=-1, descending=True, stable=True)
        ordered = ordered / ordered.sum(-1, keepdim=True)
        ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= sampling.top_p, 0)
        probs = torch.zeros_like(probs).scatter_(-1, places, ordered)
    return probs


def inverse_cdf(probs_BQV: Tensor, uniforms_BQ: Tensor) -> Tensor:
    """(B, Q) int64: the first code whose cumulative probability exceeds the cell's uniform number, in float64."""
    cdf = probs_BQV.cumsum(-1)
    target = uniforms_BQ.unsqueeze(-1) * cdf[..., -1:]
    return torch.searchsorted(cdf, target, right=True).squeeze(-1).clamp_(max=probs_BQV.shape[-1] - 1)


def uniforms(seed: int, samples: Sequence[int], n_cells: int, n_codes: int = 1) -> Tensor:
    """(n, L, K) float64 in [0, 1): one number for every sample, cell and code of the cell. Those of the first code do
    not depend on K."""
    tables = [generator(seed, "noise", sample).random((n_codes, n_cells)).T for sample in samples]
    return torch.from_numpy(np.stack(tables))


@dataclass(frozen=True)
class Noise:
    """The noise of some samples at all their cells: uniforms_BLK, by cell index."""

    uniforms_BLK: Tensor

    @classmethod
    def of(
        cls, seed: int, samples: Sequence[int], n_cells: int, n_codes: int = 1, device: torch.device | str = "cpu"
    ) -> Noise:
        """The numbers at (seed, sample, cell, k), on a device."""
        return cls(uniforms(seed, samples, n_cells, n_codes).to(device))

    def at(self, cells_BQ: Tensor) -> CellNoise:
        """The noise of some cells of every sample."""
        K = self.uniforms_BLK.shape[2]
        return CellNoise(self.uniforms_BLK.gather(1, cells_BQ[..., None].expand(-1, -1, K)))


@dataclass(frozen=True)
class CellNoise:
    """The noise that some cells are drawn with: (B, Q, K) uniform numbers."""

    uniforms_BQK: Tensor

    def uniform(self, k: int = 0) -> Tensor:
        """(B, Q) float64 in [0, 1): the numbers of every cell's k-th code."""
        return self.uniforms_BQK[..., k]
