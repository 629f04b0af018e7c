"""The one shared transformer: a two-pass decoder that follows any order and any grouping with the same weights.

Knows content, queries and masks. Refuses to know orders, sampling and files.

After ARPG (arXiv 2503.10568, section 3). Pass 1 takes the class and the decoded codes, each at its own cell, through
self-attention. It gives one key and one value for each slot, which all layers of pass 2 share. Pass 2 takes target
queries through cross-attention. All queries are the same learned vector; the cell of a query enters by rotation (and,
with 'rope+table', by a learned vector). Queries do not see each other, so any cells may be asked, in any groups.

As in LlamaGen, query and key of the class slot are the zero vector (not merely unrotated). So every slot sees the class
with attention logit 0, and the class acts through its value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.answer import Categorical
from orderbench.models.config import ModelConfig
from orderbench.models.model import Trait
from orderbench.models.positions import rotary_table, rotate
from orderbench.models.visibility import as_bias
from orderbench.orders import Grid, Plan


class RMSNorm(nn.Module):
    """x / rms(x), in fp32, cast back, times a weight; eps 1e-5 as in LlamaGen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], eps=1e-5).to(x.dtype) * self.weight


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x), no biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return y


def attend(q_BHQK: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, bias_BQS: Tensor | None) -> Tensor:
    """Softmax attention; bias_BQS is added to the logits (0 where seen, -inf where not; B may be 1), None sees all.

    In bf16 on a processor plain matrix products are about twice as fast as the fused kernel (docs/log.md).
    """
    bias = None if bias_BQS is None else bias_BQS[:, None].to(q_BHQK.dtype)
    if q_BHQK.device.type == "cpu" and q_BHQK.dtype == torch.bfloat16:
        B, H, Q, K = q_BHQK.shape
        q, k, v = (x.reshape(B * H, -1, K) for x in (q_BHQK * K**-0.5, k_BHSK, v_BHSK))
        if bias is None:
            logits = q @ k.transpose(1, 2)
        else:
            spread = bias[:, 0] if len(bias) == 1 else bias.expand(-1, H, -1, -1).flatten(0, 1)
            logits = torch.baddbmm(spread, q, k.transpose(1, 2))
        return (logits.softmax(-1) @ v).view(B, H, Q, K)
    return F.scaled_dot_product_attention(q_BHQK, k_BHSK, v_BHSK, attn_mask=bias)


class SelfBlock(nn.Module):
    """Pass 1: content sees content."""

    compiles = ("qkv", "finish")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.width
        self.heads = config.heads
        self.attn_norm, self.ffn_norm = RMSNorm(D), RMSNorm(D)
        self.to_q, self.to_k, self.to_v, self.proj = (nn.Linear(D, D, bias=False) for _ in range(4))
        self.ffn = FeedForward(D, config.ffn_width)

    def qkv(self, x_BSD: Tensor, turn_BSJ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values: (B, H, S, K) each."""
        y = self.attn_norm(x_BSD)
        q, k, v = (split_heads(layer(y), self.heads) for layer in (self.to_q, self.to_k, self.to_v))
        return rotate(q, turn_BSJ), rotate(k, turn_BSJ), v

    def finish(self, x_BSD: Tensor, seen_BHSK: Tensor) -> Tensor:
        """The residual stream after attention and feed-forward."""
        x_BSD = x_BSD + self.proj(join_heads(seen_BHSK))
        return x_BSD + self.ffn(self.ffn_norm(x_BSD))


class CrossBlock(nn.Module):
    """Pass 2: queries see the shared keys and values, and no other query."""

    compiles = ("forward",)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.width
        self.heads = config.heads
        self.attn_norm, self.ffn_norm = RMSNorm(D), RMSNorm(D)
        self.to_q, self.proj = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.ffn = FeedForward(D, config.ffn_width)

    def forward(self, x_BQD: Tensor, turn_BQJ: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, bias: Tensor | None) -> Tensor:
        q = rotate(split_heads(self.to_q(self.attn_norm(x_BQD)), self.heads), turn_BQJ)
        x_BQD = x_BQD + self.proj(join_heads(attend(q, k_BHSK, v_BHSK, bias)))
        return x_BQD + self.ffn(self.ffn_norm(x_BQD))


def split_heads(x_BSD: Tensor, heads: int) -> Tensor:
    """(B, S, D) -> (B, H, S, K)."""
    return x_BSD.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x_BHSK: Tensor) -> Tensor:
    """(B, H, S, K) -> (B, S, D)."""
    return x_BHSK.transpose(1, 2).flatten(2)


@dataclass
class Cache:
    """Keys and values of the slots fed so far, one pair for each layer; the last pair is the one that pass 2 shares.

    (B, H, slots, K) each. For decoding, memory for all slots is allocated at the start. Where gradients are needed
    (grows), nothing is overwritten, and new slots are concatenated. length: how many slots are filled; setting it back
    forgets the later ones. labels_B: the classes of the samples, for queries.
    """

    keys: list[Tensor]
    values: list[Tensor]
    labels_B: Tensor
    grows: bool
    length: int = 0

    @property
    def n_bytes(self) -> int:
        """Bytes allocated."""
        return sum(x.numel() * x.element_size() for x in (*self.keys, *self.values))

    def put(
        self, layer: int, k_BHGK: Tensor, v_BHGK: Tensor, slots_BG: Tensor | None, stop: int
    ) -> tuple[Tensor, Tensor]:
        """Store keys and values of a group in one layer, after the filled slots or in named ones, and return the pair
        up to slot `stop`."""
        for kept, new in ((self.keys, k_BHGK), (self.values, v_BHGK)):
            if slots_BG is not None:
                kept[layer].scatter_(2, slots_BG[:, None, :, None].expand_as(new), new)
            elif self.grows:  # under autocast what is kept has another type than the weights
                kept[layer] = torch.cat([kept[layer][:, :, : self.length].to(new.dtype), new], dim=2)
            else:
                kept[layer][:, :, self.length : stop] = new
        return self.keys[layer][:, :, :stop], self.values[layer][:, :, :stop]


class Transformer(nn.Module):
    """codes at cells -> logits at any other cells.

    Embedding rows: 0..V-1 codes, V the query vector, V+1+label the classes, V+C+1 the null class, V+C+2 unused, as in
    ARPG's files. Labels are int64 in [0, C]; C is the null class.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        D = config.width
        self.embeddings = nn.Embedding(config.codes + config.classes + 3, D)
        self.self_blocks = nn.ModuleList(SelfBlock(config) for _ in range(config.self_blocks))
        self.shared_norm = RMSNorm(D)
        self.to_k, self.to_v = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.cross_blocks = nn.ModuleList(CrossBlock(config) for _ in range(config.cross_blocks))
        self.norm = RMSNorm(D)
        self.head = nn.Linear(D, config.codes, bias=False)
        self.table_LD = nn.Parameter(torch.zeros(config.grid.n_cells, D)) if config.position == "rope+table" else None
        self.query_labels = nn.Embedding(config.classes + 1, D) if config.label == "slot+query" else None
        self._turns: dict[torch.device, Tensor] = {}

    @classmethod
    def skeleton(cls, config: ModelConfig) -> Transformer:
        """A network without memory for its weights (the meta device), for weights to be put in."""
        with torch.device("meta"):
            return cls(config)

    def initialize(self) -> None:
        """LlamaGen's: matrices, embeddings and the table N(0, 0.02**2), norms 1, head 0, so that a fresh model is
        uniform."""
        for parameter in self.parameters():
            if parameter.ndim >= 2:
                nn.init.normal_(parameter, std=0.02)
        nn.init.zeros_(self.head.weight)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The matrices between embeddings and head."""
        layers: list[nn.Module] = [self.self_blocks, self.cross_blocks, self.to_k, self.to_v]
        return [parameter for layer in layers for parameter in layer.parameters() if parameter.ndim == 2]

    @property
    def turn_LJ(self) -> Tensor:
        """(L, K/2) complex64 rotations of all cells. It is no buffer, since `.to(bfloat16)` would round it."""
        device = self.head.weight.device
        if device not in self._turns:
            with torch.inference_mode(False):  # training may use it later
                self._turns[device] = rotary_table(self.config.grid, self.config.head_size).to(device)
        return self._turns[device]

    @property
    def lattice(self) -> Grid:
        """Where the cells are."""
        return self.config.grid

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """(V,): one code a cell."""
        return (self.config.codes,)

    @property
    def native(self) -> str:
        """It is trained for many orders; raster is the one that the others are measured against."""
        return "raster"

    @property
    def traits(self) -> frozenset[Trait]:
        """Any cells may be fed and asked, in any slots, under any mask; queries do not see each other."""
        return frozenset({"masks", "slots"})

    def refuses(self, plan: Plan) -> str:
        """Nothing: every plan of the lattice is followed."""
        return ""

    @property
    def n_classes(self) -> int:
        """C; the label C is the null class."""
        return self.config.classes

    # Inputs of the two passes

    def content(self, tokens_BM: Tensor, cells_BM: Tensor) -> Tensor:
        """(B, M, D): codes at their cells."""
        x = self.embeddings(tokens_BM)
        return x if self.table_LD is None else x + self.table_LD[cells_BM]

    def label(self, labels_B: Tensor) -> Tensor:
        """(B, 1, D): the class slot."""
        x: Tensor = self.embeddings(labels_B[:, None] + (self.config.codes + 1))
        return x

    def queries(self, cells_BQ: Tensor, labels_B: Tensor) -> Tensor:
        """(B, Q, D): the query vector at every target cell, plus what the configuration adds."""
        x = self.embeddings.weight[self.config.codes].expand(*cells_BQ.shape, -1)
        if self.table_LD is not None:
            x = x + self.table_LD[cells_BQ]
        return x if self.query_labels is None else x + self.query_labels(labels_B)[:, None]

    def shared_kv(self, x_BSD: Tensor, turn_BSJ: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, S, K) each: the one pair that all of pass 2 sees."""
        y = self.shared_norm(x_BSD)
        return rotate(split_heads(self.to_k(y), self.config.heads), turn_BSJ), split_heads(
            self.to_v(y), self.config.heads
        )

    # The calls of a model; decoding, likelihood and training make the same ones

    def start(self, labels_B: Tensor, slots: int) -> Cache:
        """A cache with room for `slots` slots, the class fed."""
        cache = self._empty(labels_B, slots)
        self._feed(cache, self.label(labels_B), self._no_turn(labels_B), None, None)
        return cache

    def _empty(self, labels_B: Tensor, slots: int) -> Cache:
        c, grows = self.config, torch.is_grad_enabled()
        shape = (c.self_blocks + 1, len(labels_B), c.heads, 0 if grows else slots, c.head_size)
        keys, values = (
            torch.zeros(shape, dtype=self.head.weight.dtype, device=labels_B.device).unbind() for _ in range(2)
        )  # zeros: a mask may cover slots that nobody has written, and 0 times whatever memory holds may be NaN
        return Cache(list(keys), list(values), labels_B, grows)

    def _no_turn(self, labels_B: Tensor) -> Tensor:
        return self.turn_LJ.new_zeros(len(labels_B), 1, self.turn_LJ.shape[1])

    def step(
        self,
        cache: Cache,
        codes_BGK: Tensor,
        cells_BG: Tensor,
        *,
        seen: Tensor | None = None,
        slots_BG: Tensor | None = None,
    ) -> None:
        """Feed decoded codes; see `orderbench.models.model.Model.step`."""
        x_BGD = self.content(codes_BGK[..., 0], cells_BG)
        self._feed(cache, x_BGD, self.turn_LJ[cells_BG], seen, slots_BG)

    def refill(self, cache: Cache, labels_B: Tensor, codes_BMK: Tensor, cells_BM: Tensor) -> None:
        """Forget everything, then feed the class and these codes as one group, each seeing all."""
        cache.length, cache.labels_B = 0, labels_B
        turn = torch.cat([self._no_turn(labels_B), self.turn_LJ[cells_BM]], 1)
        x_BSD = torch.cat([self.label(labels_B), self.content(codes_BMK[..., 0], cells_BM)], dim=1)
        self._feed(cache, x_BSD, turn, None, None)

    def rewind(self, cache: Cache, slots: int) -> None:
        """Forget all but the first `slots` slots."""
        cache.length = slots

    def keep(self, cache: Cache, rows_B: Tensor) -> None:
        """Forget all samples but these. A row that stays in its place is not copied."""
        left = len(rows_B)
        moved_B = (rows_B != torch.arange(left, device=rows_B.device)).nonzero()[:, 0]
        for kept in (cache.keys, cache.values):
            for layer, one in enumerate(kept):
                one[moved_B] = one[rows_B[moved_B]]
                kept[layer] = one[:left]
        cache.labels_B = cache.labels_B[rows_B]

    def _feed(
        self, cache: Cache, x_BGD: Tensor, turn_BGJ: Tensor, seen: Tensor | None, slots_BG: Tensor | None
    ) -> None:
        stop = cache.length + x_BGD.shape[1] if seen is None or slots_BG is None else seen.shape[2]
        bias = as_bias(seen, self.head.weight.dtype)
        for layer, block in enumerate(cast("Iterable[SelfBlock]", self.self_blocks)):
            q, k, v = block.qkv(x_BGD, turn_BGJ)
            keys, values = cache.put(layer, k, v, slots_BG, stop)
            x_BGD = block.finish(x_BGD, attend(q, keys, values, bias))
        cache.put(len(self.self_blocks), *self.shared_kv(x_BGD, turn_BGJ), slots_BG, stop)
        cache.length = stop

    def answer(self, cache: Cache, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Categorical:
        """The logits of these cells; see `orderbench.models.model.Model.answer`."""
        return Categorical(self.head(self.said(cache, cells_BQ, seen)).float())

    def said(self, cache: Cache, cells_BQ: Tensor, seen: Tensor | None) -> Tensor:
        """(B, Q, D): the normalised output of pass 2, which the head reads."""
        stop = cache.length if seen is None else seen.shape[2]
        k_BHSK, v_BHSK = cache.keys[-1][:, :, :stop], cache.values[-1][:, :, :stop]
        bias = as_bias(seen, self.head.weight.dtype)
        x, turn = self.queries(cells_BQ, cache.labels_B), self.turn_LJ[cells_BQ]
        for block in self.cross_blocks:
            x = block(x, turn, k_BHSK, v_BHSK, bias)
        normed: Tensor = self.norm(x)
        return normed


def count_parameters(module: nn.Module) -> int:
    """The number of trained parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
