"""From logits to codes: guidance, temperature, filters, and one uniform number per sample and cell.

Knows distributions and addressed noise. Refuses to know plans and networks.

Noise belongs to (seed, sample, cell): it is drawn on the CPU by counter, so devices, batches and orders agree on it,
and arms that share a seed share their noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from orderbench.orders import BenchError
from orderbench.orders.errors import unknown
from orderbench.orders.spelling import bind_options, read_options, spell_call, split_call
from orderbench.orders.streams import generator


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Classifier-free guidance: logits = u + s (c - u), c conditional, u unconditional; s = 1 is the conditional alone.

    kind: 'none'; 'constant' (s everywhere); 'linear' (ARPG, RandAR, LPD: 1 + (s - 1) D / L); 'power-cosine' (RAR,
    reAR: 1 + (s - 1) (1 - cos(pi (D / L) ** power)) / 2, there with count=before, so that the first step is unguided).
    count: what D, the number of decoded cells, counts: 'after' the step's own (ARPG), 'before' them (RandAR), or each
    'token's own place (LPD).
    """

    kind: Literal["none", "constant", "linear", "power-cosine"] = "none"
    scale: float = 1.0
    count: Literal["after", "before", "token"] = "after"
    power: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("none", "constant", "linear", "power-cosine"):
            raise BenchError(f"no guidance named '{self.kind}'; none, constant, linear or power-cosine would do")
        if self.count not in ("after", "before", "token"):
            raise BenchError(f"guidance counts cells 'after', 'before' or by 'token', not '{self.count}'")
        if not 0 <= self.scale < math.inf:
            raise BenchError(
                f"a guidance scale of {self.scale:g} is not served; 0 or more would do, as in --guidance linear:scale=3"
            )
        if not 0 < self.power < math.inf:
            raise BenchError(
                f"a guidance power of {self.power:g} is not served; it is above 0, as in --guidance "
                f"power-cosine:scale=3:power=2"
            )

    def __str__(self) -> str:
        """The canonical spelling, which `parse_guidance` reads."""
        values = {"scale": self.scale, "count": self.count, "power": self.power}
        return self.kind if self.kind == "none" else spell_call(self.kind, _GUIDANCE_OPTIONS, values)

    @property
    def on(self) -> bool:
        """Whether the unconditional half is needed."""
        return self.kind != "none" and self.scale != 1

    def scales(self, before: int, size: int, n_cells: int) -> Tensor:
        """(G,) float32: s of each cell of a step of `size` cells that begins after `before` of `n_cells`."""
        if not self.on:
            return torch.ones(size)
        done = {
            "after": torch.full((size,), float(before + size)),
            "before": torch.full((size,), float(before)),
            "token": before + torch.arange(size, dtype=torch.float32),
        }[self.count]
        share = done / n_cells
        rise = {
            "constant": torch.ones_like(share),
            "linear": share,
            "power-cosine": (1 - torch.cos(math.pi * share**self.power)) / 2,
        }[self.kind]
        return 1 + (self.scale - 1) * rise


def _guidance(
    kind: str,
    *,
    scale: Annotated[float, "0 or more, 1 for none"] = 1.0,
    count: Literal["after", "before", "token"] = "after",
    power: Annotated[float, "above 0"] = 1.0,
) -> Guidance:
    return Guidance(kind=cast("Any", kind), scale=scale, count=count, power=power)


_GUIDANCE_OPTIONS = read_options(_guidance, reserved=())


def parse_guidance(text: str) -> Guidance:
    """A number S, which is linear guidance up to S; 'none'; or KIND:scale=S:count=...:power=....

    >>> str(parse_guidance("2.5")), str(parse_guidance("constant:scale=3.0"))
    ('linear:scale=2.5', 'constant:scale=3')
    """
    ask = "guidance is written as a number, or as in linear:scale=2 or constant:scale=1.5"
    try:
        scale = float(text)
    except ValueError:
        name, given = split_call(text)
        if name not in ("none", "constant", "linear", "power-cosine"):
            raise unknown("guidance", name, ("none", "constant", "linear", "power-cosine"), ask) from None
        if name == "none" and given:
            raise BenchError(f"'{text}' scales what is switched off; {ask}") from None
        return _guidance(name, **bind_options(name, _GUIDANCE_OPTIONS, given, ask))
    return Guidance() if scale == 1 else Guidance(kind="linear", scale=scale)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a code is drawn from logits: guidance, then temperature, then top-k, then top-p.

    temperature: above 0. top_k: the k most likely codes, 0 for all. top_p: the fewest codes that hold this share, 1
    for all.
    """

    guidance: Guidance = Guidance()
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


PLAIN = Sampling()


def guide(logits_BQV: Tensor, scales_Q: Tensor) -> Tensor:
    """Conditional and unconditional halves, stacked along B, to guided logits: u + s (c - u)."""
    conditional, unconditional = logits_BQV.chunk(2)
    return unconditional + scales_Q.to(logits_BQV.device)[:, None] * (conditional - unconditional)


def filtered(logits_BQV: Tensor, sampling: Sampling) -> Tensor:
    """(B, Q, V) float64 probabilities after top-k and top-p; the logits are tempered already."""
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
    """(B, Q) int64: the first code whose cumulated probability exceeds its uniform number; summed in float64."""
    cdf = probs_BQV.cumsum(-1)
    target = uniforms_BQ.unsqueeze(-1) * cdf[..., -1:]
    return torch.searchsorted(cdf, target, right=True).squeeze(-1).clamp_(max=probs_BQV.shape[-1] - 1)


def uniforms(seed: int, samples: Sequence[int], n_cells: int) -> Tensor:
    """(n, L) float64 in [0, 1): the number of every sample at every cell, by cell index."""
    return torch.from_numpy(np.stack([generator(seed, "noise", sample).random(n_cells) for sample in samples]))
