"""Sampling: from distributions to codes, by temperature, filters and addressed noise.

Knows distributions and noise. Refuses to know plans and networks.

Noise belongs to (seed, sample, cell, k), where k counts the codes of a cell. It is drawn on the CPU by counter, so it
is the same on every device, in every batch and along every order. Arms that share a seed share their noise.

There are two kinds. *Uniform*: one number a cell, and inverse CDF. *Gumbel*: one number for every code of a cell, and
the code of the largest sum of log-probability and number (the Gumbel-max trick). Both draw from the same law. Where the
law changes a little, Gumbel noise gives the same code more often, which is what exact decoders live on.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from orderbench.models.guidance import NO_GUIDANCE, Guidance
from orderbench.orders import BenchError
from orderbench.orders.errors import unknown
from orderbench.orders.streams import Stream, generator

NoiseKind = Literal["uniform", "gumbel"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a code is drawn: guidance, then temperature, then top-k, then top-p, by noise of a kind.

    temperature: above 0. top_k: the k most likely codes, 0 for all. top_p: the fewest codes that hold this share, 1
    for all. noise: 'uniform' or 'gumbel'.
    """

    guidance: Guidance = NO_GUIDANCE
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    noise: NoiseKind = "uniform"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise BenchError(
                f"a temperature of {self.temperature:g} is not served; it is above 0, as in --temperature 1"
            )
        if self.top_k < 0:
            raise BenchError(f"a top-k of {self.top_k} is not served; 0, for all codes, or more, as in --top-k 50")
        if not 0 < self.top_p <= 1:
            raise BenchError(f"a top-p of {self.top_p:g} is not served; it is above 0 and at most 1, as in --top-p 0.9")
        if self.noise not in get_args(NoiseKind):
            raise unknown("noise", self.noise, get_args(NoiseKind), "as in --noise gumbel")

    def to_json(self) -> dict[str, Any]:
        """Plain values, as records hold them; guidance by its spelling. Noise is written only where it is not uniform,
        as it was in every record before there was a choice."""
        values = {**asdict(self), "guidance": str(self.guidance)}
        return {name: value for name, value in values.items() if (name, value) != ("noise", "uniform")}


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


Cells = TypeVar("Cells", bound="Noise")


@dataclass(frozen=True)
class Noise(ABC):
    """The noise of some cells of some samples: one 64-bit number for each of their codes, numbers_BQK.

    That of all cells, by cell index, is narrowed to what is asked. A kind says what its numbers are, and how a code is
    drawn with them.
    """

    numbers_BQK: Tensor

    def at(self: Cells, cells_BQ: Tensor) -> Cells:
        """The noise of some cells of every sample."""
        K = self.numbers_BQK.shape[2]
        return replace(self, numbers_BQK=self.numbers_BQK.gather(1, cells_BQ[..., None].expand(-1, -1, K)))

    def of(self: Cells, rows_B: Tensor) -> Cells:
        """The noise of some of the samples."""
        return replace(self, numbers_BQK=self.numbers_BQK[rows_B])

    def code(self: Cells, k: int) -> Cells:
        """The noise of every cell's k-th code alone."""
        return replace(self, numbers_BQK=self.numbers_BQK[..., k : k + 1])

    def draw(self, logits_BQV: Tensor, how: Sampling) -> Tensor:
        """(B, Q) int64: a code for every cell, drawn with the noise of its first code. logits_BQV: before temperature.

        What is made on the way in float64 is made for some cells at a time, so that it takes at most `AT_ONCE` numbers
        in each of about ten tables: 168 MB, however many cells are asked.
        """
        Q = logits_BQV.shape[1]
        few = max(1, AT_ONCE // max(1, logits_BQV.shape[0] * logits_BQV.shape[2]))
        parts = [slice(start, start + few) for start in range(0, Q, few)]
        drawn = [self._draw(logits_BQV[:, part] / how.temperature, self.numbers_BQK[:, part, 0], how) for part in parts]
        return drawn[0] if len(drawn) == 1 else torch.cat(drawn, dim=1)

    @abstractmethod
    def _draw(self, logits_BQV: Tensor, numbers_BQ: Tensor, how: Sampling) -> Tensor:
        """Draw for cells whose tables fit; logits_BQV: after temperature."""


class UniformNoise(Noise):
    """Float64 in [0, 1): a code is the first whose cumulative probability exceeds its number."""

    def _draw(self, logits_BQV: Tensor, numbers_BQ: Tensor, how: Sampling) -> Tensor:
        return inverse_cdf(filtered(logits_BQV, how), numbers_BQ)


class GumbelNoise(Noise):
    """Int64 keys: the number of the v-th code of a cell is the v-th of a stream that the cell's key names. A code is
    the one of the largest log-probability plus number."""

    def _draw(self, logits_BQV: Tensor, numbers_BQ: Tensor, how: Sampling) -> Tensor:
        scores_BQV = gumbels(numbers_BQ, logits_BQV.shape[-1]).add_(logits_BQV)
        if how.top_k or how.top_p < 1:
            scores_BQV.masked_fill_(filtered(logits_BQV, how) == 0, -math.inf)
        return scores_BQV.argmax(-1)


def make_noise(
    kind: NoiseKind,
    seed: int,
    samples: Sequence[int],
    n_cells: int,
    n_codes: int = 1,
    device: torch.device | str = "cpu",
) -> Noise:
    """The noise of some samples at all their cells, (n, L, K) numbers, on a device."""
    if kind == "uniform":
        return UniformNoise(uniforms(seed, samples, n_cells, n_codes).to(device))
    return GumbelNoise(keys(seed, "gumbel", samples, n_cells, n_codes).to(device))


def keys(seed: int, stream: Stream, samples: Sequence[int], n_cells: int, n_codes: int = 1) -> Tensor:
    """(n, L, K) int64: one key for every sample, cell and code of the cell, each of which names a stream of numbers.
    Those of the first code do not depend on K."""
    words = [generator(seed, stream, sample).bit_generator.random_raw((n_codes, n_cells)).T for sample in samples]
    return torch.from_numpy(np.stack(words).astype(np.int64))


# Gumbel numbers

AT_ONCE = 1 << 21  # numbers of a table that is made to draw some cells
_GAMMA, _MIX_1, _MIX_2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # as signed 64-bit numbers


def gumbels(keys_BQ: Tensor, n_codes: int) -> Tensor:
    """(B, Q, V) float64 standard Gumbel numbers: those of the first V codes of every key. The logarithms are the
    device's own, so that numbers of two devices agree up to the rounding of float64."""
    return streamed(keys_BQ, 0, n_codes).log_().neg_().log_().neg_()


def as_gumbels(numbers: Tensor) -> Tensor:
    """Standard Gumbel numbers of numbers in [0, 1], one for one. Both ends are held 1e-12 away, so all are finite."""
    return -(-numbers.clamp(1e-12, 1 - 1e-12).log()).log()


def streamed(keys_BQ: Tensor, first: int, count: int) -> Tensor:
    """(B, Q, count) float64 in (0, 1): the numbers of every key's stream from number `first` on.

    SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): its v-th number is a hash of key + v * gamma. So a number depends on
    its key and its place alone, whatever else is asked. Products wrap at 64 bits, on every device.
    """
    steps_V = torch.arange(1 + first, 1 + first + count, device=keys_BQ.device) * _GAMMA
    z = keys_BQ[..., None] + steps_V
    z = (z ^ _shifted(z, 30)) * _MIX_1
    z = (z ^ _shifted(z, 27)) * _MIX_2
    z = z ^ _shifted(z, 31)
    return _shifted(z, 11).double().add_(0.5).mul_(2.0**-53)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: zeros come in, not the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
