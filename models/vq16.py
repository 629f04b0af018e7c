"""The LlamaGen VQ-16 tokenizer (arXiv 2406.06525): 16x16 pixels a code, 16384 codes of 8 numbers.

Knows the released layout (`vq_ds16_c2i.pt`, 343 tensors). Refuses to know the order in which codes are predicted.
Written from a description; no published file was read by this project.

Module names are those of the file, so that its keys are ours.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.checkpoint import load_strictly, unfilled
from orderbench.models.codec import Weights, patch_lattice, patch_side, register_tokenizer
from orderbench.orders import BenchError, Grid, Lattice

WIDTH, STRIDE = 128, 16
MULTIPLIERS = (1, 1, 2, 2, 4)
LATENT, CODE_SIZE, CODES = 256, 8, 16384
BLOCKS = {"encoder": 2, "decoder": 3}  # residual blocks a stage


def group_norm(channels: int) -> nn.GroupNorm:
    """In 32 groups, eps 1e-6."""
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResBlock(nn.Module):
    """skip + conv2(swish(norm2(conv1(swish(norm1 x))))), the skip projected where the width changes."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(before), group_norm(after)
        self.conv1, self.conv2 = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        if before != after:
            self.nin_shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return y + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """Single-head attention over all places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (layer(y).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + self.proj_out(seen.transpose(1, 2).reshape(x.shape))


class Upsample(nn.Module):
    """Nearest, twice the size, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Downsample(nn.Module):
    """A column and a row of zeros to the right and below, then a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Stage(nn.Module):
    """Residual blocks, each followed by attention at the lowest resolution, and a change of size."""

    def __init__(self, before: int, after: int, blocks: int, attention: bool, resize: str | None) -> None:
        super().__init__()
        self.res = nn.ModuleList(ResBlock(before if i == 0 else after, after) for i in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(after) for _ in range(blocks if attention else 0))
        if resize == "upsample":
            self.upsample = Upsample(after)
        elif resize == "downsample":
            self.downsample = Downsample(after)

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.res):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        if hasattr(self, "upsample"):
            return self.upsample(x)
        return self.downsample(x) if hasattr(self, "downsample") else x


class Side(nn.Module):
    """The encoder or the decoder; stages in the order in which they run."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        decodes = kind == "decoder"
        widths = [WIDTH * m for m in MULTIPLIERS]
        deepest, shallowest = widths[-1], widths[0]
        first, last = (deepest, shallowest) if decodes else (shallowest, deepest)
        self.conv_in = nn.Conv2d(LATENT if decodes else 3, first, 3, padding=1)
        mid = nn.ModuleList([ResBlock(deepest, deepest), AttnBlock(deepest), ResBlock(deepest, deepest)])
        self.mid = mid
        self.decodes = decodes
        outputs = widths[::-1] if decodes else widths
        inputs = [first, *outputs[:-1]]
        resize = "upsample" if decodes else "downsample"
        self.conv_blocks = nn.ModuleList(
            Stage(a, b, BLOCKS[kind], attention=(i == 0 if decodes else i == 4), resize=resize if i < 4 else None)
            for i, (a, b) in enumerate(zip(inputs, outputs, strict=True))
        )
        self.norm_out = group_norm(last)
        self.conv_out = nn.Conv2d(last, 3 if decodes else LATENT, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        stages = [*self.mid, *self.conv_blocks] if self.decodes else [*self.conv_blocks, *self.mid]
        for stage in stages:
            x = stage(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VQ16(nn.Module):
    """images_Bchw (float, [-1, 1], sides multiples of 16) <-> codes_BLK (int64, [0, 16384), raster order, K = 1)."""

    code_sizes, channels = (CODES,), 3

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Side("encoder"), Side("decoder")
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(CODES, CODE_SIZE)})
        self.quant_conv = nn.Conv2d(LATENT, CODE_SIZE, 1)
        self.post_quant_conv = nn.Conv2d(CODE_SIZE, LATENT, 1)

    def _codes(self) -> Tensor:
        return F.normalize(self.quantize.get_parameter("embedding.weight"), dim=-1)

    def lattice(self, side: int) -> Grid:
        """side / 16 cells a side."""
        return patch_lattice(side, STRIDE)

    def side(self, lattice: Lattice) -> int:
        """16 pixels a cell; a square grid."""
        return patch_side(lattice, STRIDE)

    @torch.no_grad()
    def encode(self, images_Bchw: Tensor) -> Tensor:
        """The nearest code of every latent, both on the unit sphere. BenchError for sides that are no multiple of
        16."""
        h, w = images_Bchw.shape[-2:]
        if images_Bchw.shape[1] != 3 or h % 16 or w % 16:
            raise BenchError(
                f"VQ-16 takes colour images with sides of multiples of 16, not {tuple(images_Bchw.shape[1:])}"
            )
        latent = F.normalize(self.quant_conv(self.encoder(images_Bchw)), dim=1)
        return (latent.flatten(2).transpose(1, 2) @ self._codes().T).argmax(-1, keepdim=True)

    @torch.no_grad()
    def decode(self, codes_BLK: Tensor, lattice: Lattice) -> Tensor:
        """Codes to images; the network's output is clamped to [-1, 1]."""
        (grid,) = lattice.levels
        latent = self._codes()[codes_BLK[..., 0]].transpose(1, 2)
        latent = latent.reshape(len(codes_BLK), CODE_SIZE, grid.rows, grid.cols)
        return self.decoder(self.post_quant_conv(latent)).clamp(-1, 1)


def _recognises(names: Collection[str]) -> bool:
    own = "quantize.embedding.weight" in names and "post_quant_conv.weight" in names
    return own and not any(name.startswith("quantize.quant_resi.") for name in names)  # those are VAR's


@register_tokenizer(
    "vq16", paper="LlamaGen, arXiv 2406.06525", idea="16x16 pixels a code, 16384 codes of 8 numbers",
    recognises=_recognises,
)  # fmt: skip
def load_vq16(weights: Weights) -> VQ16:
    """The released file, strictly but for its usage counters; BenchError for any other."""
    state = {name: t for name, t in weights.tensors.items() if name != "quantize.codebook_used"}
    with unfilled():
        tokenizer = VQ16()
    load_strictly(tokenizer, state, weights.where)
    return tokenizer.eval()
