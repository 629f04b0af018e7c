"""Answers: what a network says of some cells, in whatever form it says it.

Knows how codes are drawn from an answer, and how likely given codes are. Refuses to know which network gave the answer,
in which order cells are asked, and where noise comes from. Decoders, likelihood and training ask an answer, and never
read logits.

An answer is about (B, Q) cells with K codes each. `Categorical` is one code a cell, from one distribution. `Chained` is
K codes a cell, drawn one after another by a small head. A *law* is the distribution of a cell's code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from orderbench.models.sampling import Noise, Sampling
from orderbench.orders import BenchError

Places = Tensor | slice  # (B, G) int64 places along Q, each sample's own, or one range for all


class Answer(Protocol):
    """What a network says of (B, Q) cells."""

    def guided(self, scales_Q: Tensor) -> Answer:
        """The guided answer u + s (c - u), where this one holds conditional and unconditional halves, stacked along B.
        scales_Q: s, (Q,) or (B, Q)."""

    def draw(self, noise: Noise, how: Sampling) -> Tensor:
        """(B, Q, K) int64 codes, each drawn with its cell's own noise, under temperature, top-k and top-p."""

    def log_prob(self, codes_BQK: Tensor, temperature: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, Q) log-probabilities of given codes, in nats, all K of a cell together; with temperature, before top-k
        and top-p. dtype: in which the softmax is summed."""

    def likeliest(self) -> Tensor:
        """(B, Q, K) int64: the likeliest codes; a good guess at them where the codes of a cell depend on each other."""

    def law(self, temperature: float = 1.0) -> Tensor:
        """(B, Q, V) float64: the log-probability of every code, in nats. BenchError where a cell has no single law."""

    def take(self, places: Places) -> Answer:
        """The answer to some of the cells."""

    def finite(self) -> Tensor:
        """Bool, no axes: whether all numbers that it was made from are finite."""


def at(values_BLK: Tensor, cells_BQ: Tensor) -> Tensor:
    """(B, Q, K): the values of each sample at its own cells."""
    return values_BLK.gather(1, cells_BQ[..., None].expand(-1, -1, values_BLK.shape[2]))


def take_places(values_BQX: Tensor, places: Places) -> Tensor:
    """The values at some places along the second axis."""
    return values_BQX[:, places] if isinstance(places, slice) else at(values_BQX, places)


def guide(logits_BQV: Tensor, scales_Q: Tensor) -> Tensor:
    """u + s (c - u), from conditional and unconditional logits, stacked along B."""
    conditional, unconditional = logits_BQV.chunk(2)
    return unconditional + scales_Q.to(logits_BQV.device)[..., None] * (conditional - unconditional)


@dataclass(frozen=True)
class Categorical:
    """One code a cell. logits_BQV: fp32, before temperature."""

    logits_BQV: Tensor

    def guided(self, scales_Q: Tensor) -> Categorical:
        return Categorical(guide(self.logits_BQV, scales_Q))

    def draw(self, noise: Noise, how: Sampling) -> Tensor:
        return noise.draw(self.logits_BQV, how)[..., None]

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

    hidden_BQD: the network's output for every cell. head: takes hidden states and the (B, Q, k) codes drawn so far, and
    gives (B, Q, V_k) logits of the next code; it runs no pass of the network. scales_Q: guidance scales that are
    applied to the logits of each code; None for no guidance. With guidance, hidden states hold both halves, the
    conditional one first.
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

    def draw(self, noise: Noise, how: Sampling) -> Tensor:
        return self._chain(lambda law, k: law.draw(noise.code(k), how))

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
            f"a cell of this model holds {self.n_codes} codes that depend on each other, so it has no single law; use "
            f"a decoder that only draws, such as plain decoding"
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
