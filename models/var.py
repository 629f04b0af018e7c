"""VAR (arXiv 2404.02905): a pyramid of codes, a whole level at a time; the layout of its release.

Knows the network, and names and sizes in the released files (`var_d16.pth` to `var_d36.pth`). Refuses to know pixels.
Written from a description; no published file was read by this project.

A code never enters the network. What a level is shown is the canvas of all coarser levels, at its own size, through one
linear layer; the first level is shown the class. So the network needs the codebook of its tokenizer. A released file
does not hold it: `meet` takes it from the tokenizer. Weights that were trained here hold a copy.

A slot is a cell that was fed: its keys and values are those of the cell as it was asked, since its own code is not in
them. So what was asked and is fed next is kept, and every level runs once, as published. Slot 0, the class, is none of
the network's: the class acts by adaptive layer norm (AdaLN).

Module names are those of the file, so that its keys are ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.answer import Categorical
from orderbench.models.checkpoint import load_network
from orderbench.models.codec import Codec, Weights
from orderbench.models.families import register_family
from orderbench.models.model import Trait
from orderbench.models.residual import ScaleQuantizer, seen_at, square_pyramid
from orderbench.models.transformer import Cache, join_heads, split_heads
from orderbench.models.varcodec import SCALES
from orderbench.models.visibility import as_bias
from orderbench.orders import BenchError, Plan, Pyramid
from orderbench.orders.lattice import MAX_CELLS

SAMPLING = {"guidance": "linear:scale=2.5:count=step", "top_k": 900, "top_p": 0.96}  # of the release, for its FID
_NO_CODEBOOK = (
    "VAR makes its inputs from its tokenizer's codebook, which its file does not hold; name that tokenizer, as in "
    "--tokenizer vae_ch160v4096z32.pth"
)


@dataclass(frozen=True, kw_only=True)
class VARConfig:
    """Sizes of the network. scales: the sides of the levels, coarse to fine. code_size: of the tokenizer. ffn: hidden
    width; default 4 width. shared_adaln: one AdaLN for all blocks, as the 512 px release has, and a learned offset for
    each. codebook: whether the weights hold a copy of the tokenizer's codebook."""

    codes: int
    classes: int
    scales: tuple[int, ...]
    code_size: int
    width: int
    heads: int
    blocks: int
    ffn: int | None = None
    shared_adaln: bool = False
    codebook: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        sizes = (self.codes, self.classes, self.code_size, self.width, self.heads, self.blocks, *self.scales)
        if not self.scales or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
            raise BenchError(
                "VAR's sizes are whole numbers of 1 or more, and it has one scale or more, as in (1, 2, 4)"
            )
        if self.width % self.heads:
            raise BenchError(
                f"a width of {self.width} does not divide into {self.heads} heads; "
                f"{self.heads * max(1, self.width // self.heads)} would do"
            )

    @property
    def lattice(self) -> Pyramid:
        """The lattice of the codes."""
        return square_pyramid(self.scales)

    @property
    def ffn_width(self) -> int:
        """F."""
        return self.ffn or 4 * self.width


class Attention(nn.Module):
    """Queries and keys of unit norm; each head's logits are scaled by a learned factor, at most 100."""

    def __init__(self, config: VARConfig) -> None:
        super().__init__()
        D, self.heads = config.width, config.heads
        self.mat_qkv = nn.Linear(D, 3 * D, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(D)), nn.Parameter(torch.zeros(D))
        self.scale_mul_1H11 = nn.Parameter(torch.full((1, config.heads, 1, 1), math.log(4)))
        self.proj = nn.Linear(D, D)

    def qkv(self, x_BSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values: (B, H, S, K) each."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = (split_heads(x, self.heads) for x in F.linear(x_BSD, self.mat_qkv.weight, bias).chunk(3, dim=-1))
        scale = self.scale_mul_1H11.clamp_max(math.log(100)).exp()
        return F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1), v


class FeedForward(nn.Module):
    """fc2(gelu(fc1 x)), the tanh form of GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return y


def _ada(width: int, parts: int) -> nn.Sequential:
    """What the class says to a layer norm: `parts` vectors."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def _norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Block(nn.Module):
    """Attention and feed-forward, each behind a layer norm and before a gate that the class sets."""

    def __init__(self, config: VARConfig) -> None:
        super().__init__()
        self.attn, self.ffn = Attention(config), FeedForward(config.width, config.ffn_width)
        if config.shared_adaln:
            self.ada_gss = nn.Parameter(torch.zeros(1, 1, 6, config.width))
        else:
            self.ada_lin = _ada(config.width, 6)

    def told(self, label_BD: Tensor, shared_B6D: Tensor | None) -> tuple[Tensor, ...]:
        """(B, 1, D) each: two gates, two scales, two shifts."""
        told = self.ada_lin(label_BD).unflatten(-1, (6, -1)) if shared_B6D is None else self.ada_gss[0] + shared_B6D
        return tuple(told[:, None].unbind(2))


class Head(nn.Module):
    """The last layer norm, scaled and shifted by the class."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ada_lin = _ada(width, 2)

    def told(self, label_BD: Tensor) -> tuple[Tensor, ...]:
        """(B, 1, D) each: scale and shift."""
        return tuple(self.ada_lin(label_BD).unflatten(-1, (2, -1))[:, None].unbind(2))


@dataclass
class Canvas(Cache):
    """Keys and values of the cells fed so far, and the canvas that their codes make.

    levels: how many levels were fed. canvas_Bzhw: their bands, fp32. shown_BLz: what the cells of these levels and of
    the next one are shown of it. asked: the cells whose keys and values lie behind the filled slots, made under no
    mask; None if there are none. told: what the class says to every block, and to the head.
    """

    canvas_Bzhw: Tensor = field(default_factory=lambda: torch.empty(0))
    shown_BLz: Tensor = field(default_factory=lambda: torch.empty(0))
    told: list[tuple[Tensor, ...]] = field(default_factory=list)
    levels: int = 0
    asked: Tensor | None = None


def _are_same(asked_BQ: Tensor | None, cells_BG: Tensor) -> bool:
    """Whether the cells that were asked are those that are fed. Only a processor looks at each; a GPU would have to be
    waited for, and there the next level is taken for what it is by its size."""
    if asked_BQ is None or asked_BQ.shape != cells_BG.shape:
        return False
    return cells_BG.device.type != "cpu" or torch.equal(asked_BQ, cells_BG)


class VAR(nn.Module):
    """codes of coarser levels -> logits of a level. Labels are int64 in [0, C]; C is the null class."""

    native = "scales"
    traits: frozenset[Trait] = frozenset({"masks", "joint"})

    def __init__(self, config: VARConfig) -> None:
        super().__init__()
        self.config, self.lattice = config, config.lattice
        D, first = config.width, self.lattice.levels[0].n_cells
        self.word_embed = nn.Linear(config.code_size, D)
        self.class_emb = nn.Embedding(config.classes + 1, D)
        self.pos_start = nn.Parameter(torch.zeros(1, first, D))
        self.pos_1LC = nn.Parameter(torch.zeros(1, self.lattice.n_cells, D))
        self.lvl_embed = nn.Embedding(len(config.scales), D)
        if config.shared_adaln:
            self.shared_ada_lin = _ada(D, 6)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.head_nm = Head(D)
        self.head = nn.Linear(D, config.codes)
        self.quantize: ScaleQuantizer | None = None
        if config.codebook:
            self.quantize = ScaleQuantizer(config.codes, config.code_size).requires_grad_(False)
        self._levels: dict[torch.device, Tensor] = {}

    @torch.no_grad()
    def initialize(self) -> None:
        """The release's: N(0, 1 / (3 D)), truncated; the outputs of blocks divided by sqrt(2 blocks), AdaLN halved and
        its gates by 1000, the head by 50; no biases."""
        std, depth = math.sqrt(1 / (3 * self.config.width)), len(self.blocks)
        own = [module for name, module in self.named_modules() if not name.startswith("quantize")]
        for module in own:
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for vectors in (self.pos_start, self.pos_1LC):
            nn.init.trunc_normal_(vectors, std=std)
        for block in cast("Iterable[Block]", self.blocks):
            for layer in (block.attn.proj, block.ffn.fc2):
                layer.weight.div_(math.sqrt(2 * depth))
        gated = [self.shared_ada_lin] if self.config.shared_adaln else [block.ada_lin for block in self.blocks]
        for ada in cast("list[nn.Sequential]", gated):
            weight = cast(nn.Linear, ada[1]).weight
            weight.mul_(0.5)
            weight[: 2 * self.config.width].mul_(1e-3)
        cast(nn.Linear, self.head_nm.ada_lin[1]).weight.mul_(0.5)
        self.head.weight.mul_(0.02)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The matrices between embeddings and head."""
        return [parameter for parameter in self.blocks.parameters() if parameter.ndim == 2]

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """(V,): one code a cell."""
        return (self.config.codes,)

    @property
    def n_classes(self) -> int:
        """C; the label C is the null class."""
        return self.config.classes

    def refuses(self, plan: Plan) -> str:
        """Everything but whole levels, coarse to fine."""
        sizes = tuple(grid.n_cells for grid in self.lattice.levels)
        level_L = self.lattice.coords[:, 0]
        whole = plan.sizes == sizes and np.array_equal(level_L[plan.cells_for([0])[0]], level_L)
        return "" if whole and not plan.per_sample else "it decodes whole levels from coarse to fine, as scales does"

    def meet(self, codec: Codec | None) -> None:
        """Take the codebook of the tokenizer, so that codes can become inputs. Called before anything is decoded.

        BenchError for a tokenizer that does not belong to it, and for none where the weights hold no copy.
        """
        if codec is None:
            if self.quantize is None:
                raise BenchError(_NO_CODEBOOK)
            return
        wanted = self.config.codes, self.config.code_size
        found = [part for part in vars(codec).get("_modules", {}).values() if isinstance(part, ScaleQuantizer)]
        if not found or found[0].shape != wanted:
            has = "codes of a grid" if not found else "{} codes of {} numbers".format(*found[0].shape)
            raise BenchError(
                f"the tokenizer has {has}, and VAR was trained on a pyramid of {wanted[0]} codes of {wanted[1]} "
                f"numbers; name its own, as in --tokenizer vae_ch160v4096z32.pth"
            )
        follow = getattr(codec, "follow", None)
        if follow is not None:
            follow(self.lattice)
        elif codec.lattice(codec.side(self.lattice)) != self.lattice:
            raise BenchError(
                f"the tokenizer's scales are {codec.lattice(codec.side(self.lattice))} and the model's {self.lattice}; "
                f"name the tokenizer that it was trained on, as in --tokenizer FILE"
            )
        self.quantize = found[0].requires_grad_(False)

    # The calls of a model

    @property
    def level_L(self) -> Tensor:
        """(L,) int64: the level of every cell."""
        device = self.head.weight.device
        if device not in self._levels:
            with torch.inference_mode(False):  # training may use it later
                self._levels[device] = torch.from_numpy(self.lattice.coords[:, 0].copy()).to(device)
        return self._levels[device]

    def start(self, labels_B: Tensor, slots: int) -> Canvas:
        """A cache with an empty canvas; BenchError before the model has met its tokenizer. Room is made for all cells
        of the pyramid, whatever `slots` is."""
        if self.quantize is None:
            raise BenchError(_NO_CODEBOOK)
        c, B, L = self.config, len(labels_B), self.lattice.n_cells
        last, grows = self.lattice.levels[-1], torch.is_grad_enabled()
        label_BD = self.class_emb(labels_B)
        shared = self.shared_ada_lin(label_BD).unflatten(-1, (6, -1)) if c.shared_adaln else None
        told = [block.told(label_BD, shared) for block in cast("Iterable[Block]", self.blocks)]
        shape = (c.blocks, B, c.heads, 0 if grows else L, c.width // c.heads)
        keys, values = (
            list(torch.zeros(shape, dtype=label_BD.dtype, device=labels_B.device).unbind()) for _ in range(2)
        )
        return Canvas(
            keys, values, labels_B, grows,
            canvas_Bzhw=torch.zeros(B, c.code_size, last.rows, last.cols, device=labels_B.device),
            shown_BLz=torch.zeros(B, L, c.code_size, device=labels_B.device),
            told=[*told, self.head_nm.told(label_BD)],
        )  # fmt: skip

    def step(
        self, cache: Canvas, codes_BGK: Tensor, cells_BG: Tensor, *, seen: Tensor | None = None,
        slots_BG: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Feed whole levels, the next ones; see `orderbench.models.model.Model.step`."""
        levels = self.lattice.levels[cache.levels :]
        size, fed = 0, 0
        while size < cells_BG.shape[1] and fed < len(levels):
            size, fed = size + levels[fed].n_cells, fed + 1
        if size != cells_BG.shape[1] or slots_BG is not None:
            raise BenchError(
                f"VAR is fed whole levels, coarse to fine, and {cells_BG.shape[1]} cells are no such level"
            )
        kept = seen is None and fed == 1 and not cache.grows and _are_same(cache.asked, cells_BG)
        self._paint(cache, codes_BGK[..., 0], cells_BG, fed)
        if not kept:
            self._run(cache, cells_BG, None if seen is None else seen[:, :, 1:], keep=True)
        cache.length, cache.asked = cache.length + size, None

    @torch.no_grad()
    def _paint(self, cache: Canvas, codes_BG: Tensor, cells_BG: Tensor, fed: int) -> None:
        """Add the bands of these levels to the canvas, and show every next level what there is."""
        assert self.quantize is not None  # noqa: S101 (start() refused)
        places_BG, by_place = cells_BG - cache.length, torch.empty_like(codes_BG)
        by_place.scatter_(1, places_BG, codes_BG)
        begin, stop = 0, cache.length
        for level in range(cache.levels, cache.levels + fed):
            size = self.lattice.levels[level].n_cells
            band = self.quantize.band(level, by_place[:, begin : begin + size], self.lattice)
            cache.canvas_Bzhw = cache.canvas_Bzhw + band
            begin, stop = begin + size, stop + size
            if level + 1 < len(self.lattice.levels):
                grid = self.lattice.levels[level + 1]
                cache.shown_BLz[:, stop : stop + grid.n_cells] = seen_at(cache.canvas_Bzhw, grid)
        cache.levels += fed

    def _run(self, cache: Canvas, cells_BQ: Tensor, seen: Tensor | None, *, keep: bool = False) -> Tensor:
        """(B, Q, D): cells through all blocks. Their keys and values are put behind the filled slots, if they must be
        kept or if there is room. seen: over the filled slots and these."""
        first, width = self.pos_start.shape[1], cells_BQ.shape[1]
        fits = keep or (not cache.grows and cache.length + width <= self.lattice.n_cells)
        shown = cache.shown_BLz.gather(1, cells_BQ[..., None].expand(-1, -1, self.config.code_size))
        begins = self.class_emb(cache.labels_B)[:, None] + self.pos_start[0, cells_BQ.clamp(max=first - 1)]
        x = torch.where((cells_BQ < first)[..., None], begins, self.word_embed(shown.to(begins.dtype)))
        x = x + self.lvl_embed(self.level_L[cells_BQ]) + self.pos_1LC[0, cells_BQ]
        bias = as_bias(seen, x.dtype)
        bias = None if bias is None else bias[:, None]
        for layer, block in enumerate(cast("Iterable[Block]", self.blocks)):
            gate_a, gate_f, scale_a, scale_f, shift_a, shift_f = cache.told[layer]
            q, k, v = block.attn.qkv(_norm(x, scale_a, shift_a))
            if fits:
                keys, values = cache.put(layer, k, v, None, cache.length + width)
            else:
                keys = torch.cat([cache.keys[layer][:, :, : cache.length].to(k.dtype), k], dim=2)
                values = torch.cat([cache.values[layer][:, :, : cache.length].to(v.dtype), v], dim=2)
            heard = F.scaled_dot_product_attention(q.to(v.dtype), keys.to(v.dtype), values, attn_mask=bias, scale=1.0)
            x = x + gate_a * block.attn.proj(join_heads(heard))
            x = x + gate_f * block.ffn(_norm(x, scale_f, shift_f))
        return x

    def answer(self, cache: Canvas, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Categorical:
        """The logits of cells of levels that were fed, or of the next; see `orderbench.models.model.Model.answer`."""
        x = self._run(cache, cells_BQ, None if seen is None else seen[:, :, 1:])
        cache.asked = cells_BQ if seen is None else None
        normed = _norm(x, *cache.told[-1])
        return Categorical(self.head(normed).float())


# The released files

_BUFFERS = ("lvl_1L", "attn_bias_for_masking")  # they follow from the scales
_PUBLISHED = {pyramid.n_cells: tuple(grid.rows for grid in pyramid.levels) for pyramid in SCALES.values()}


def _recognises(names: Collection[str]) -> bool:
    return "lvl_embed.weight" in names and "word_embed.weight" in names


@register_family(
    "var", paper="VAR, arXiv 2404.02905", idea="a pyramid of codes, a whole level at a time; the layout of its release",
    recognises=_recognises, config=VARConfig, network=VAR, sampling=SAMPLING,
)  # fmt: skip
def load_var(
    weights: Weights,
    *,
    scales: Annotated[Pyramid | None, "sides of the levels, as in 1/2/4/8; default the list that fits"] = None,
) -> VAR:
    """A released file as a network, in eval mode; it must meet its tokenizer before it decodes.

    All sizes follow from the tensors. The scales do where the file holds its table of levels, as the released ones do,
    and where the number of cells is that of a published list; else they are an option.

    Raises BenchError for a file that is not whole, could run code, or holds other names or shapes.
    """
    where = weights.where
    if any(name.startswith(("text_proj", "text_norm")) for name in weights.tensors):
        raise BenchError(
            f"'{where}' is of a text-conditional relative of VAR, which reads prompts, and classes are served alone; "
            f"name a file of the class-conditional VAR, as in var_d16.pth"
        )
    state = {
        name: tensor for name, tensor in weights.tensors.items()
        if name not in _BUFFERS and not name.endswith(".zero_k_bias")
    }  # fmt: skip
    asked = None if scales is None else str(scales)
    config = _config(state, _levels_of(weights.tensors.get("lvl_1L")), asked, where)
    return load_network(VAR, config, state, where)


def _config(state: Mapping[str, Tensor], held: tuple[int, ...], asked: str | None, where: str) -> VARConfig:
    axes = {"word_embed.weight": 2, "class_emb.weight": 2, "head.weight": 2, "pos_1LC": 3, "lvl_embed.weight": 2,
            "blocks.0.attn.scale_mul_1H11": 4, "blocks.0.ffn.fc1.weight": 2}  # fmt: skip
    for name, ndim in axes.items():
        if name not in state or state[name].ndim != ndim or not state[name].numel():
            has = "no" if name not in state else f"a {tuple(state[name].shape)}"
            raise BenchError(
                f"'{where}' holds {has} {name}, and is not in VAR's layout; name its file, as in var_d16.pth"
            )
    n_cells, n_levels = state["pos_1LC"].shape[1], len(state["lvl_embed.weight"])
    scales = held or _PUBLISHED.get(n_cells, ())
    if asked is not None:
        scales = tuple(grid.rows for grid in Pyramid.parse(asked).levels)
    if len(scales) != n_levels or sum(side * side for side in scales) != n_cells:
        named = f"the scales {'/'.join(map(str, scales))} have" if scales else "no published list of scales has"
        raise BenchError(
            f"'{where}' has {n_levels} levels of {n_cells} cells in all, and {named} not so many; give them as in "
            f"scales='1/2/4/8'"
        )
    return VARConfig(
        codes=len(state["head.weight"]),
        classes=len(state["class_emb.weight"]) - 1,
        scales=scales,
        code_size=state["word_embed.weight"].shape[1],
        width=state["pos_1LC"].shape[2],
        heads=state["blocks.0.attn.scale_mul_1H11"].shape[1],
        blocks=1 + max(int(name.split(".")[1]) for name in state if re.match(r"blocks\.\d{1,9}\.", name)),
        ffn=len(state["blocks.0.ffn.fc1.weight"]),
        shared_adaln="shared_ada_lin.1.weight" in state,
    )


def _levels_of(table: Tensor | None) -> tuple[int, ...]:
    """The scales in a file's table of levels, one number a cell; () where it is none of square levels."""
    if table is None or table.is_floating_point() or not table.numel() or table.numel() > MAX_CELLS or table.min() < 0:
        return ()
    sizes = table.flatten().unique(return_counts=True)[1].tolist()
    sides = tuple(math.isqrt(size) for size in sizes)
    return sides if all(side * side == size for side, size in zip(sides, sizes, strict=True)) else ()
