"""EAR (arXiv 2511.15499): a square spiral from the centre, a side or a shell a step; its released files, strictly.

Knows its slot programme. Refuses to know how a pass is computed. Written from a description of the layout; no published
file was read by this project.

Each step feeds the cells of the step before and asks its own by mask tokens, which see each other. All mask tokens are
one vector, and their rotation tells them apart. It is that of the *rank*, not of the cell: the place r of the spiral
turns as the cell r of the raster. Content turns in the same way. With adaptive layer norm, every block is also told the
class.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor, nn

from orderbench.models.codec import Weights
from orderbench.models.config import StackConfig
from orderbench.models.families import register_family
from orderbench.models.layouts import EAR, fill, is_llama, llama_sizes
from orderbench.models.stack import Block, LlamaStack, Rewindable, walks_alone
from orderbench.models.transformer import join_heads
from orderbench.orders import Plan

Schedule = Literal["sides", "shells"]
SAMPLING = {"guidance": "constant:scale=1.65", "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True, kw_only=True)
class EarConfig(StackConfig):
    """Sizes of EAR. schedule: 'sides' (2G - 1 steps, one side of the square each) or 'shells' (G steps). modulation:
    'class' for adaptive layer norm, as in the released weights, or 'none'."""

    schedule: Schedule = "sides"
    modulation: Literal["none", "class"] = "class"


class ModulatedBlock(Block):
    """LlamaGen's block, where the class gates, scales and shifts attention and feed-forward."""

    def __init__(self, config: EarConfig) -> None:
        super().__init__(config)
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(config.width, 6 * config.width))

    def told(self, condition: Tensor | None) -> tuple[Tensor, ...]:
        """gate, gate, scale, scale, shift, shift: (B, 1, D) each, for attention and for feed-forward."""
        parts: tuple[Tensor, ...] = self.ada_lin(condition)[:, None].chunk(6, dim=-1)
        return parts

    def qkv(self, x_BSD: Tensor, turn_BSJ: Tensor, told: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        _, _, scale, _, shift, _ = told
        return self.attention.qkv(self.attention_norm(x_BSD) * (1 + scale) + shift, turn_BSJ)

    def finish(self, x_BSD: Tensor, seen_BHSK: Tensor, told: tuple[Tensor, ...]) -> Tensor:
        gate, gate_ffn, _, scale, _, shift = told
        x_BSD = x_BSD + gate * self.attention.wo(join_heads(seen_BHSK))
        y: Tensor = self.feed_forward(self.ffn_norm(x_BSD) * (1 + scale) + shift)
        return x_BSD + gate_ffn * y


class Ear(LlamaStack[EarConfig], Rewindable[EarConfig]):
    """codes along the spiral -> logits of cells asked by mask tokens, which see each other."""

    joint, named = True, True

    def __init__(self, config: EarConfig) -> None:
        super().__init__(config)
        self.native = f"spiral@ear-{config.schedule}"
        self.mask_token = nn.Embedding(1, config.width)

    def make_block(self) -> nn.Module:
        return ModulatedBlock(self.config) if self.config.modulation == "class" else Block(self.config)

    def initialize(self) -> None:
        """LlamaGen's; the adaptive layers N(0, 0.02**2) with bias 0, so that gates begin near 0 and not at it."""
        super().initialize()
        for name, parameter in self.named_parameters():
            if name.endswith("ada_lin.1.bias"):
                nn.init.zeros_(parameter)

    def refuses(self, plan: Plan) -> str:
        """All but the spiral, which may be cut anywhere: a place is told by its rank."""
        return walks_alone(self, plan, sizes=False)

    def condition(self, labels_B: Tensor) -> Tensor | None:
        return self.class_vector(labels_B) if self.config.modulation == "class" else None

    def _turn(self, cells_BX: Tensor) -> Tensor:
        return self.turn_LJ[self.rank_L("spiral")[cells_BX]]

    def content(self, codes_BG: Tensor, cells_BG: Tensor, fed: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """One slot a code, rotated by its rank."""
        return self.tok_embeddings(codes_BG), self._turn(cells_BG), (1,) * cells_BG.shape[1]

    def queries(self, cells_BQ: Tensor) -> tuple[Tensor, Tensor]:
        """The mask vector, rotated by the rank that it asks for."""
        return self.mask_token.weight.expand(*cells_BQ.shape, -1), self._turn(cells_BQ)


def _recognises(names: Collection[str]) -> bool:
    return is_llama(names, EAR)


@register_family(
    "ear", paper="EAR, arXiv 2511.15499", idea="a spiral from the centre, a side a step, asked by mask tokens",
    recognises=_recognises, config=EarConfig, network=Ear, sampling=SAMPLING,
    unserved="RobustTok, 8192 codes of 32 numbers, which is not served",
)  # fmt: skip
def load_ear(
    weights: Weights,
    *,
    heads: Annotated[int | None, "attention heads; default width / 64"] = None,
    classes: Annotated[int | None, "classes; default by the file"] = None,
    side: Annotated[int, "cells a side of the grid"] = 16,
    schedule: Annotated[Schedule, "sides or shells; released weights were trained on sides"] = "sides",
) -> Ear:
    """A released file, with adaptive layer norm or without; BenchError for one that is not whole, or holds other names
    or shapes."""
    sizes = llama_sizes(weights, "EAR", heads=heads, classes=classes, side=side)
    told = any(".ada_lin." in name for name in weights.tensors)
    return fill(Ear, EarConfig(**sizes, schedule=schedule, modulation="class" if told else "none"), weights)
