"""VAR's multi-scale tokenizer (arXiv 2404.02905): 16x16 pixels a cell of the finest level, 4096 codes of 32 numbers.

Knows the released layout (`vae_ch160v4096z32.pth`) and the published lists of scales. Refuses to know how codes are
predicted. Written from a description; no published file was read by this project.

Module names are those of the file, so that its keys are ours.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.checkpoint import load_strictly, unfilled
from orderbench.models.codec import Weights, register_tokenizer
from orderbench.models.residual import ScaleQuantizer, last_side, square_pyramid
from orderbench.models.vq16 import Downsample, ResBlock, Upsample, group_norm
from orderbench.orders import BenchError, Lattice, Pyramid

STRIDE = 16
MULTIPLIERS = (1, 1, 2, 2, 4)
BLOCKS = {"encoder": 2, "decoder": 3}  # residual blocks a resolution
SCALES = {  # the published lists of sides, by the side of the images in pixels
    256: square_pyramid((1, 2, 3, 4, 5, 6, 8, 10, 13, 16)),
    512: square_pyramid((1, 2, 3, 4, 6, 9, 13, 18, 24, 32)),
    1024: square_pyramid((1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64)),
}


class AttnBlock(nn.Module):
    """Single-head attention over all places; queries, keys and values from one convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv, self.proj_out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.proj_out(seen.transpose(1, 2).reshape(x.shape))


class Middle(nn.Module):
    """A residual block, attention, a residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1, self.attn_1 = ResBlock(channels, channels), AttnBlock(channels)
        self.block_2 = ResBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Resolution(nn.Module):
    """The residual blocks of one resolution, with attention behind each at the lowest, and a change of size."""

    def __init__(self, before: int, after: int, blocks: int, attention: bool, resize: str | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(before if i == 0 else after, after) for i in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(after) for _ in range(blocks if attention else 0))
        if resize == "upsample":
            self.upsample = Upsample(after)
        elif resize == "downsample":
            self.downsample = Downsample(after)

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        if hasattr(self, "upsample"):
            return self.upsample(x)
        return self.downsample(x) if hasattr(self, "downsample") else x


class Encoder(nn.Module):
    """Pixels to latents; `down` from the highest resolution to the lowest."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        widths = [width * m for m in MULTIPLIERS]
        lowest = len(widths) - 1
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(
            Resolution(a, b, BLOCKS["encoder"], i == lowest, None if i == lowest else "downsample")
            for i, (a, b) in enumerate(zip([width, *widths], widths, strict=False))
        )
        self.mid = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for part in self.down:
            x = part(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latents to pixels; `up` is numbered from the highest resolution to the lowest, and runs backwards."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        widths = [width * m for m in MULTIPLIERS]
        lowest = len(widths) - 1
        self.conv_in = nn.Conv2d(latent, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            Resolution(a, b, BLOCKS["decoder"], i == lowest, "upsample" if i else None)
            for i, (a, b) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True))
        )
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for part in reversed(self.up):
            x = part(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VARTokenizer(nn.Module):
    """images_Bchw (float, [-1, 1], colour) <-> codes_BLK (int64, [0, V), level after level, K = 1).

    Images of 256, 512 and 1024 pixels a side have the published scales. `follow` takes another list, that of a model.
    """

    channels = 3

    def __init__(self, codes: int = 4096, code_size: int = 32, width: int = 160) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(width, code_size), Decoder(width, code_size)
        self.quantize = ScaleQuantizer(codes, code_size)
        self.quant_conv = nn.Conv2d(code_size, code_size, 3, padding=1)
        self.post_quant_conv = nn.Conv2d(code_size, code_size, 3, padding=1)
        self._scales = dict(SCALES)

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """(V,): one code a cell."""
        return (self.quantize.shape[0],)

    def follow(self, pyramid: Pyramid) -> None:
        """Encode images of the size of this pyramid by its levels from now on."""
        self._scales[self.side(pyramid)] = pyramid

    def lattice(self, side: int) -> Pyramid:
        """The scales of images of this side, in pixels."""
        if side not in self._scales:
            raise BenchError(
                f"VAR's tokenizer has scales for images of {', '.join(map(str, sorted(self._scales)))} pixels a side, "
                f"not of {side}; --side {min(self._scales)} would do"
            )
        return self._scales[side]

    def side(self, lattice: Lattice) -> int:
        """16 pixels a cell of the last level; square levels."""
        return STRIDE * last_side(lattice)

    @torch.no_grad()
    def encode(self, images_Bchw: Tensor) -> Tensor:
        """The codes of all levels, coarse to fine. BenchError for images that are not square or of other sizes."""
        channels, h, w = images_Bchw.shape[1:]
        if channels != 3 or h != w:
            raise BenchError(f"VAR's tokenizer takes square colour images, not {tuple(images_Bchw.shape[1:])}")
        pyramid = self.lattice(w)
        latent = self.quant_conv(self.encoder(images_Bchw))
        return self.quantize.analyse(latent, pyramid).codes_BL[..., None]

    @torch.no_grad()
    def decode(self, codes_BLK: Tensor, lattice: Lattice) -> Tensor:
        """Codes of all levels to images; the network's output is clamped to [-1, 1]."""
        last_side(lattice)
        assert isinstance(lattice, Pyramid)  # noqa: S101 (last_side refused any other)
        canvas = self.quantize.canvas(codes_BLK[..., 0], lattice)
        return self.decoder(self.post_quant_conv(canvas)).clamp(-1, 1)


def _recognises(names: Collection[str]) -> bool:
    return any(name.startswith("quantize.quant_resi.") for name in names)


@register_tokenizer(
    "var", paper="VAR, arXiv 2404.02905", idea="a pyramid of codes, each level of what the coarser ones left",
    recognises=_recognises,
)  # fmt: skip
def load_var_tokenizer(weights: Weights) -> VARTokenizer:
    """The released file, strictly but for its usage counters; sizes follow from its tensors. BenchError for any other
    file."""
    state = {name: t for name, t in weights.tensors.items() if name != "quantize.ema_vocab_hit_SV"}
    first, table = state.get("encoder.conv_in.weight"), state.get("quantize.embedding.weight")
    if first is None or table is None or first.ndim != 4 or table.ndim != 2 or len(first) % 32 or not first.numel():
        raise BenchError(
            f"'{weights.where}' has no codebook and first convolution of VAR's tokenizer; name its file, as in "
            f"vae_ch160v4096z32.pth"
        )
    with unfilled():
        tokenizer = VARTokenizer(table.shape[0], table.shape[1], width=len(first))
    load_strictly(tokenizer, state, weights.where)
    return tokenizer.eval()
