"""Answers: what a network says of some cells, whatever form its say has.

Knows how codes are drawn from an answer and how likely given codes are. Refuses to know which network gave it, in which
order cells are asked, and where noise comes from. Decoders, corrections, likelihood and training ask an answer, and
never touch a tensor of logits.

An answer speaks of (B, Q) cells, K codes a cell. `Categorical` is one code a cell from one law. `Chained` is K codes a
cell, drawn one after another by a small head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from orderbench.models.sampling import CellNoise, Sampling, filtered, inverse_cdf
from orderbench.orders import BenchError

Places = Tensor | slice  # (B, G) int64 places along Q, each sample's own, or one range for all


class Answer(Protocol):
    """What a network says of (B, Q) cells."""

    def guided(self, scales_Q: Tensor) -> Answer:
        """Of conditional and unconditional halves, stacked along B, the guided answer u + s (c - u); scales (Q,) or
        (B, Q)."""

    def draw(self, noise: CellNoise, how: Sampling) -> Tensor:
        """(B, Q, K) int64 codes, each drawn with its cell's own noise, under temperature, top-k and top-p."""

    def log_prob(self, codes_BQK: Tensor, temperature: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, Q) nats of given codes under the tempered, unfiltered law, summed in `dtype`; of all K together."""

    def likeliest(self) -> Tensor:
        """(B, Q, K) int64: the likeliest codes, or what stands for them where K codes depend on each other."""

    def law(self, temperature: float = 1.0) -> Tensor:
        """(B, Q, V) float64 nats of every code. BenchError where an answer is no single law."""

    def take(self, places: Places) -> Answer:
        """The answer to some of the cells."""

    def finite(self) -> Tensor:
        """Bool, no axes: whether all numbers behind it are finite."""


def at(values_BLK: Tensor, cells_BQ: Tensor) -> Tensor:
    """(B, Q, K): what each sample holds at its cells."""
    return values_BLK.gather(1, cells_BQ[..., None].expand(-1, -1, values_BLK.shape[2]))


def take_places(values_BQX: Tensor, places: Places) -> Tensor:
    """Some places along the second axis, whatever the third holds."""
    return values_BQX[:, places] if isinstance(places, slice) else at(values_BQX, places)


def guide(logits_BQV: Tensor, scales_Q: Tensor) -> Tensor:
    """Conditional and unconditional halves, stacked along B, to u + s (c - u)."""
    conditional, unconditional = logits_BQV.chunk(2)
    return unconditional + scales_Q.to(logits_BQV.device)[..., None] * (conditional - unconditional)


@dataclass(frozen=True)
class Categorical:
    """One code a cell. logits_BQV: fp32, before temperature."""

    logits_BQV: Tensor

    def guided(self, scales_Q: Tensor) -> Categorical:
        return Categorical(guide(self.logits_BQV, scales_Q))

    def draw(self, noise: CellNoise, how: Sampling) -> Tensor:
        return inverse_cdf(filtered(self.logits_BQV / how.temperature, how), noise.uniform())[..., None]

    def log_prob(self, codes_BQK: Tensor, temperature: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        return (self.logits_BQV / temperature).to(dtype).log_softmax(-1).gather(-1, codes_BQK).squeeze(-1)

    def likeliest(self) -> Tensor:
        return self.logits_BQV.argmax(-1, keepdim=True)

    def law(self, temperature: float = 1.0) -> Tensor:
        return (self.logits_BQV / temperature).double().log_softmax(-1)

    def take(self, places: Places) -> Categorical:
        return Categorical(take_places(self.logits_BQV, places))

    def finite(self) -> Tensor:
        return self.logits_BQV.isfinite().all()


Head = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Chained:
    """K codes a cell, each drawn given those before it: p(c_1) p(c_2 | c_1) ...

    hidden_BQD: what the network said of every cell. head: from hidden states and the (B, Q, k) codes of a cell drawn so
    far to (B, Q, V_k) logits of its next code; no pass of the network itself. scales_Q: guidance that is still to be
    applied, to each code's logits; None for none. Guided hidden states keep both halves, conditional ones first.
    """

    hidden_BQD: Tensor
    head: Head
    n_codes: int
    scales_Q: Tensor | None = None

    def _logits(self, codes_BQk: Tensor) -> Tensor:
        if self.scales_Q is None:
            return self.head(self.hidden_BQD, codes_BQk).float()
        return guide(self.head(self.hidden_BQD, torch.cat([codes_BQk, codes_BQk])).float(), self.scales_Q)

    def _begin(self) -> Tensor:
        B, Q = self.hidden_BQD.shape[:2]
        B = B if self.scales_Q is None else B // 2
        return torch.empty(B, Q, 0, dtype=torch.int64, device=self.hidden_BQD.device)

    def _chain(self, choose: Callable[[Categorical, int], Tensor]) -> Tensor:
        codes = self._begin()
        for k in range(self.n_codes):
            codes = torch.cat([codes, choose(Categorical(self._logits(codes)), k)], dim=-1)
        return codes

    def guided(self, scales_Q: Tensor) -> Chained:
        return Chained(self.hidden_BQD, self.head, self.n_codes, scales_Q)

    def draw(self, noise: CellNoise, how: Sampling) -> Tensor:
        return self._chain(lambda law, k: law.draw(CellNoise(noise.uniform(k)[..., None]), how))

    def log_prob(self, codes_BQK: Tensor, temperature: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        nats = [
            Categorical(self._logits(codes_BQK[..., :k])).log_prob(codes_BQK[..., k : k + 1], temperature, dtype)
            for k in range(self.n_codes)
        ]
        return torch.stack(nats).sum(0)

    def likeliest(self) -> Tensor:
        """The likeliest first code, then the likeliest second given it, and so on."""
        return self._chain(lambda law, k: law.likeliest())

    def law(self, temperature: float = 1.0) -> Tensor:
        raise BenchError(
            f"a cell of this model holds {self.n_codes} codes that depend on each other, and has no single law; take "
            f"a decoder that draws, such as plain decoding"
        )

    def take(self, places: Places) -> Chained:
        if self.scales_Q is None:
            return Chained(take_places(self.hidden_BQD, places), self.head, self.n_codes)
        both = places if isinstance(places, slice) else torch.cat([places, places])
        scales_BQ = self.scales_Q.expand(len(self.hidden_BQD) // 2, self.hidden_BQD.shape[1])
        scales_BG = scales_BQ[:, places] if isinstance(places, slice) else scales_BQ.gather(1, places)
        return Chained(take_places(self.hidden_BQD, both), self.head, self.n_codes, scales_BG)

    def finite(self) -> Tensor:
        return self.hidden_BQD.isfinite().all()
