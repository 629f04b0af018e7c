"""LPD (arXiv 2507.01957): any order in groups that see each other, on learned positions; its released files, strictly.

Knows its slot programme and its own blocks. Refuses to know how a pass is computed. Written from a description of the
layout; no published file was read by this project.

Each step feeds the codes of the step before and asks its cells by one learned vector at their positions; cells that are
asked together see each other. Positions are a learned table, added before one layer norm that the class, codes and
queries share; nothing is rotated. The blocks are those of a ViT.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.codec import Weights
from orderbench.models.config import StackConfig
from orderbench.models.families import register_family
from orderbench.models.layouts import fill, n_layers
from orderbench.models.stack import AnyBlock, Rewindable
from orderbench.models.transformer import join_heads, split_heads
from orderbench.orders import BenchError

SAMPLING = {"guidance": "linear:scale=4.8:count=token", "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True, kw_only=True)
class LpdConfig(StackConfig):
    """Sizes of LPD; its feed-forward is four times as wide as the network."""

    @property
    def ffn_width(self) -> int:
        """F: as given, or 4 D."""
        return 4 * self.width if self.ffn is None else self.ffn


class VitBlock(nn.Module):
    """Pre-norm with LayerNorm (eps 1e-6), biases, and GELU in a feed-forward of four times the width."""

    compiles = ("qkv", "finish")

    def __init__(self, config: LpdConfig) -> None:
        super().__init__()
        D = config.width
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(D, eps=1e-6), nn.LayerNorm(D, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(D, 3 * D), "proj": nn.Linear(D, D)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(D, config.ffn_width), "fc2": nn.Linear(config.ffn_width, D)})

    def told(self, condition: Tensor | None) -> tuple[Tensor, ...]:
        return ()

    def qkv(self, x_BSD: Tensor, turn_BSJ: Tensor, told: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (split_heads(part, self.heads) for part in self.attn["qkv"](self.norm1(x_BSD)).chunk(3, dim=-1))
        return q, k, v

    def finish(self, x_BSD: Tensor, seen_BHSK: Tensor, told: tuple[Tensor, ...]) -> Tensor:
        x_BSD = x_BSD + self.attn["proj"](join_heads(seen_BHSK))
        y: Tensor = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x_BSD))))
        return x_BSD + y


class Lpd(Rewindable[LpdConfig]):
    """codes in any order -> logits of any cells; those asked together see each other."""

    joint, named = True, True

    def __init__(self, config: LpdConfig) -> None:
        super().__init__(config)
        D, L = config.width, config.grid.n_cells
        steps = {256: 20, 1024: 48}.get(L, max(2, L // 3))  # of the release at 256 and 512 pixels; else about as many
        self.native = f"locality@lpd:{steps}"
        self.class_emb, self.token_emb = nn.Embedding(config.classes, D), nn.Embedding(config.codes, D)
        self.fake_latent = nn.Parameter(torch.zeros(1, D))
        self.pos_embed, self.mask_token = nn.Parameter(torch.zeros(1, L + 1, D)), nn.Parameter(torch.zeros(1, 1, D))
        self.z_proj_ln = nn.LayerNorm(D, eps=1e-6)
        self.blocks = nn.ModuleList(VitBlock(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(D, eps=1e-6)
        self.head = nn.Linear(D, config.codes, bias=False)

    def initialize(self) -> None:
        """Matrices by Xavier's uniform law; embeddings, positions and single vectors N(0, 0.02**2); biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        embeddings = (self.class_emb.weight, self.token_emb.weight, self.fake_latent, self.pos_embed, self.mask_token)
        for parameter in embeddings:
            nn.init.normal_(parameter, std=0.02)

    def stack_blocks(self) -> Sequence[AnyBlock]:
        return cast("Sequence[AnyBlock]", self.blocks)

    def _placed(self, x_BSD: Tensor, places_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Slots at rows of the table of positions; nothing is rotated."""
        placed: Tensor = self.z_proj_ln(x_BSD + self.pos_embed[0][places_BS])
        return placed, placed.new_zeros(*places_BS.shape, 0)

    def class_slot(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Row 0 of the positions; the null class is a vector of its own."""
        table_CD = torch.cat([self.class_emb.weight, self.fake_latent])
        return self._placed(table_CD[labels_B][:, None], torch.zeros_like(labels_B)[:, None])

    def content(self, codes_BG: Tensor, cells_BG: Tensor, fed: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        return (*self._placed(self.token_emb(codes_BG), 1 + cells_BG), (1,) * cells_BG.shape[1])

    def queries(self, cells_BQ: Tensor) -> tuple[Tensor, Tensor]:
        return self._placed(self.mask_token.expand(*cells_BQ.shape, -1), 1 + cells_BQ)

    def read(self, x_BQD: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x_BQD))
        return logits


def _recognises(names: Collection[str]) -> bool:
    return {"fake_latent", "z_proj_ln.weight", "mask_token"} <= set(names)


@register_family(
    "lpd", paper="LPD, arXiv 2507.01957", idea="any order in groups that see each other, learned positions",
    recognises=_recognises, config=LpdConfig, network=Lpd, sampling=SAMPLING,
)  # fmt: skip
def load_lpd(
    weights: Weights,
    *,
    heads: Annotated[int | None, "attention heads; default width / 64"] = None,
) -> Lpd:
    """A released file; the grid follows from its positions. BenchError for one that is not whole, or holds other names
    or shapes."""
    state, where = weights.tensors, weights.where
    tables = ("class_emb.weight", "token_emb.weight", "pos_embed")
    shapes = {name: state[name].shape for name in tables if name in state}
    if [len(shape) for shape in shapes.values()] != [2, 2, 3]:
        raise BenchError(f"'{where}' is not in LPD's layout: it has no tables of classes, codes and positions")
    n_cells, (codes, width) = shapes["pos_embed"][1] - 1, shapes["token_emb.weight"]
    side = isqrt(max(0, n_cells))
    if side**2 != n_cells or not side:
        raise BenchError(f"'{where}' holds {n_cells} positions beside the class; those of a square grid would do")
    first = state.get("blocks.0.mlp.fc1.weight")
    config = LpdConfig(
        codes=codes, classes=shapes["class_emb.weight"][0], rows=side, cols=side, width=width,
        heads=max(1, width // 64) if heads is None else heads, blocks=max(1, n_layers(state, "blocks")),
        ffn=4 * width if first is None or first.ndim != 2 else len(first),
    )  # fmt: skip
    return fill(Lpd, config, weights)
