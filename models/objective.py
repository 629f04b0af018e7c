"""The any-order objective: what the shared transformer is trained on.

Knows plans, masks and corruption. Refuses to know schedules and files. The mixture decides which orders a model is
good at, so it is a value that travels with the weights and is printed beside every order.

A batch follows one plan of the mixture (an order that draws, draws anew for every image). It is either plain:
cross-entropy of all cells, each seeing what it sees when it is decoded; or nested: one step of the plan, the known
cells corrupted, and cross-entropy of the clean codes of all known and new cells (`crop_logits`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.config import ModelConfig, to_plain
from orderbench.models.likelihood import bits_of, crop_logits, logits_along, plan_logits, walk
from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError, Plan, make_plan
from orderbench.orders.streams import generator

CORRUPTIONS = ("uniform", "image", "model")


@dataclass(frozen=True, kw_only=True)
class Share:
    """One part of the mixture: an order, the paces it is cut by (each as likely as the others), its share of the
    batches."""

    order: str
    paces: tuple[str, ...]
    share: float


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The mixture and the nested part.

    nested: share of batches that are one nested step. noise: the rate of corrupted known codes is uniform in [0,
    noise].
    corruptions: 'uniform' codes, codes of the same 'image', or the 'model's own samples; each nested batch takes one
    of them.
    label_drop: share of images whose label is replaced by the null class.
    """

    mixture: tuple[Share, ...]
    nested: float = 0.35
    noise: float = 0.3
    corruptions: tuple[str, ...] = CORRUPTIONS
    label_drop: float = 0.1

    def __post_init__(self) -> None:
        total = sum(part.share for part in self.mixture)
        if abs(total - 1) > 1e-9:
            raise BenchError(f"the mixture's shares sum to {total:g}; they must sum to 1")
        unknown = set(self.corruptions) - set(CORRUPTIONS)
        if unknown or not self.corruptions:
            raise BenchError(f"corruptions {sorted(unknown)} are not known; {', '.join(CORRUPTIONS)} would do")


# Some stay untrained on purpose: hilbert, z-curve, dither, checkerboard, locality, raster-reverse, spiral-in.
SHIPPED = ObjectiveConfig(
    mixture=(
        Share(order="raster", paces=("one", "one", "one", "even:13"), share=0.25),
        Share(order="radial", paces=("native", "native", "one"), share=0.2),
        Share(order="radial:center=random", paces=("native",), share=0.04),
        Share(order="random", paces=("one", "cosine:8", "cosine:13", "cosine:20", "cosine:32", "cosine:64"),
              share=0.23),
        Share(order="halton", paces=("one", "cosine:13", "cosine:32"), share=0.07),
        Share(order="designed", paces=("cosine:8", "cosine:13", "cosine:20", "cosine:32"), share=0.04),
        Share(order="spiral", paces=("one", "ear-sides", "ear-shells"), share=0.05),
        Share(order="diagonal", paces=("native",), share=0.04),
        Share(order="regions", paces=("native",), share=0.04),
        Share(order="column", paces=("one",), share=0.02),
        Share(order="snake", paces=("one",), share=0.02),
    )
)  # fmt: skip
RANDOM_ONLY = ObjectiveConfig(
    mixture=(
        Share(order="random", paces=("one", "cosine:8", "cosine:13", "cosine:20", "cosine:32", "cosine:64"), share=1.0),
    )
)
HELD_OUT = ("raster", "raster@even:13", "radial", "radial@one", "random@cosine:13", "halton@cosine:13")


class ModelJob:
    """The shared transformer on the tokens of a training split."""

    name = "model"

    def __init__(
        self,
        model: ModelConfig,
        objective: ObjectiveConfig,
        tokens_NL: Tensor,
        labels_N: Tensor,
        held_out: tuple[Tensor, Tensor],
        *,
        data: str,
        seed: int,
        device: str,
        held_out_images: int = 128,
    ) -> None:
        self.model, self.objective, self.seed, self.device, self.data = model, objective, seed, device, data
        self.tokens_NL, self.labels_N = tokens_NL, labels_N
        self.held_tokens_BL = held_out[0][:held_out_images].long().to(device)
        self.held_labels_B = held_out[1][:held_out_images].to(device)
        for part in objective.mixture:  # a plan that this lattice cannot serve is refused now, not at some step
            for pace in part.paces:
                make_plan(part.order, model.grid, pace)

    def build(self) -> Transformer:
        network = Transformer(self.model)
        network.initialize()
        return network

    def hidden_matrices(self, network: nn.Module) -> list[nn.Parameter]:
        assert isinstance(network, Transformer)  # noqa: S101 (what build() made)
        return network.hidden_matrices()

    def describe(self) -> dict[str, Any]:
        return {"model": to_plain(self.model), "objective": to_plain(self.objective), "data": self.data}

    def __len__(self) -> int:
        return len(self.tokens_NL)

    def loss(self, network: nn.Module, indices_B: Tensor, share: slice, step: int) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(network, Transformer)  # noqa: S101 (what build() made)
        rng = generator(self.seed, "train", step)
        tokens_BL = self.tokens_NL[indices_B[share]].long().to(self.device)
        labels_B = self.labels_N[indices_B[share]].to(self.device)
        dropped_B = rng.random(len(indices_B))[share] < self.objective.label_drop
        labels_B = labels_B.masked_fill(torch.from_numpy(dropped_B).to(self.device), self.model.classes)
        plan = self._draw_plan(rng)
        cells_NL = walk(plan, indices_B[share].tolist() if plan.per_sample else [0], self.device)
        if rng.random() < self.objective.nested and plan.n_steps > 1:
            return self._nested(network, tokens_BL, labels_B, cells_NL, plan, rng, len(indices_B), share), {}
        return self._plain(network, tokens_BL, labels_B, cells_NL, plan), {}

    def _draw_plan(self, rng: np.random.Generator) -> Plan:
        shares = [part.share for part in self.objective.mixture]
        part = self.objective.mixture[rng.choice(len(shares), p=shares)]
        pace = part.paces[rng.integers(len(part.paces))]
        return make_plan(part.order, self.model.grid, pace, seed=int(rng.integers(2**62)))

    def _plain(self, network: Transformer, tokens_BL: Tensor, labels_B: Tensor, cells_NL: Tensor, plan: Plan) -> Tensor:
        logits_BLV = logits_along(network, tokens_BL, labels_B, cells_NL, plan.sizes)
        return F.cross_entropy(logits_BLV.flatten(0, 1), tokens_BL.gather(1, cells_NL.expand_as(tokens_BL)).flatten())

    def _nested(
        self,
        network: Transformer,
        tokens_BL: Tensor,
        labels_B: Tensor,
        cells_NL: Tensor,
        plan: Plan,
        rng: np.random.Generator,
        batch: int,
        share: slice,
    ) -> Tensor:
        step = int(rng.integers(1, plan.n_steps))
        known = sum(plan.sizes[:step])
        cells_BL = cells_NL.expand_as(tokens_BL)
        known_BM, crop_BQ = cells_BL[:, :known], cells_BL[:, : known + plan.sizes[step]]
        true_BM = tokens_BL.gather(1, known_BM)
        shape = (batch, known)
        rate = self.objective.noise * rng.random()
        kind = self.objective.corruptions[rng.integers(len(self.objective.corruptions))]
        chosen_BM = torch.from_numpy(rng.random(shape)[share] < rate).to(tokens_BL.device)
        if kind == "uniform":
            other_BM = torch.from_numpy(rng.integers(0, self.model.codes, shape)[share]).to(tokens_BL.device)
        elif kind == "image":
            picks = torch.from_numpy(rng.integers(0, tokens_BL.shape[1], shape)[share]).to(tokens_BL.device)
            other_BM = tokens_BL.gather(1, picks)
        else:
            uniforms = torch.from_numpy(rng.random(shape)[share]).to(tokens_BL.device)
            with torch.no_grad():
                logits_BLV = logits_along(network, tokens_BL, labels_B, cells_NL, plan.sizes)
            cdf = logits_BLV[:, :known].double().softmax(-1).cumsum(-1)
            other_BM = (cdf < uniforms[..., None]).sum(-1).clamp_(max=self.model.codes - 1)
        codes_BM = torch.where(chosen_BM, other_BM, true_BM)
        logits_BQV = crop_logits(network, codes_BM, labels_B, known_BM, crop_BQ)
        return F.cross_entropy(logits_BQV.flatten(0, 1), tokens_BL.gather(1, crop_BQ).flatten())

    def after(self, network: nn.Module, step: int) -> None:
        return None

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        return None

    @torch.no_grad()
    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Bits per token of held-out images, an order family each."""
        assert isinstance(network, Transformer)  # noqa: S101
        figures = {}
        for arm in HELD_OUT:
            plan = make_plan(arm, self.model.grid)
            bits = []
            for start in range(0, len(self.held_tokens_BL), 64):
                part = slice(start, start + 64)
                tokens_BL, labels_B = self.held_tokens_BL[part], self.held_labels_B[part]
                samples = list(range(start, start + len(tokens_BL)))
                logits = plan_logits(network, tokens_BL, labels_B, plan, samples=samples)
                bits.append(bits_of(logits, tokens_BL, walk(plan, samples, self.device)))
            figures[arm] = float(torch.cat(bits).mean())
        return figures
