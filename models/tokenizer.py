"""The small tokenizers: pixels to codes and back, one code per 2x2 pixels, or a pyramid of codes.

Know images and a codebook. Refuse to know the order in which codes are predicted.

A convolutional autoencoder with a vector-quantised bottleneck (VQ-VAE, arXiv 1711.00937): codes and latents are
L2-normalised as in ViT-VQGAN (arXiv 2110.04627, section 3.2), gradients pass straight through, and codes that are not
used are moved to latents of the batch. With scales, the same encoder and decoder stand around VAR's residual quantizer
(`residual.py`), whose codes and latents are not normalised.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.codec import patch_lattice, patch_side
from orderbench.models.config import TokenizerConfig
from orderbench.models.residual import ScaleQuantizer, last_side, scale_loss, square_pyramid
from orderbench.orders import BenchError, Lattice, Pyramid


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class Quantized(NamedTuple):
    """tokens_BL: int64 in [0, V). latent_Bzhw: what the decoder is given, gradients straight through. loss: codebook
    and commitment. sought_BLz: the vectors whose nearest codes were chosen, without gradients."""

    tokens_BL: Tensor
    latent_Bzhw: Tensor
    loss: Tensor
    sought_BLz: Tensor


STRIDE = 2  # pixels of a cell, each way


class Tokenizer(nn.Module):
    """images_Bchw (float, [-1, 1], sides even) <-> codes_BLK (int64, [0, V), raster order, L = h/2 * w/2, K = 1)."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width, pixels = config.width, 4 * config.channels
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(pixels, width, 3, padding=1),
            *(ResBlock(width) for _ in range(config.encoder_blocks)),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, config.code_size, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.code_size, width, 3, padding=1),
            *(ResBlock(width) for _ in range(config.decoder_blocks)),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, pixels, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self._make_codebook()

    def _make_codebook(self) -> None:
        self.codebook_Vz = nn.Parameter(F.normalize(torch.randn(self.config.codes, self.config.code_size), dim=-1))

    @property
    def code_vectors(self) -> nn.Parameter:
        """(V, z): the codebook."""
        return self.codebook_Vz

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """(V,): one code a cell."""
        return (self.config.codes,)

    @property
    def channels(self) -> int:
        """Of its images."""
        return self.config.channels

    def lattice(self, side: int) -> Lattice:
        """Half as many cells a side as pixels."""
        return patch_lattice(side, STRIDE)

    def side(self, lattice: Lattice) -> int:
        """Twice as many pixels a side as cells; a square grid."""
        return patch_side(lattice, STRIDE)

    def latents(self, images_Bchw: Tensor) -> Tensor:
        """(B, z, h, w) unit vectors, float32."""
        return F.normalize(self.encoder(images_Bchw).float(), dim=1)

    def quantize(self, latent_Bzhw: Tensor, commitment: float = 0.25) -> Quantized:
        """The nearest code of every latent (on the unit sphere: the largest dot product)."""
        codes_Vz = F.normalize(self.codebook_Vz.float(), dim=-1)
        latent_BLz = latent_Bzhw.flatten(2).transpose(1, 2)
        tokens_BL = (latent_BLz @ codes_Vz.T).argmax(-1)
        chosen_Bzhw = codes_Vz[tokens_BL].transpose(1, 2).reshape(latent_Bzhw.shape)
        loss = F.mse_loss(chosen_Bzhw, latent_Bzhw.detach()) + commitment * F.mse_loss(
            latent_Bzhw, chosen_Bzhw.detach()
        )
        straight = latent_Bzhw + (chosen_Bzhw - latent_Bzhw).detach()
        return Quantized(tokens_BL, straight, loss, latent_BLz.detach())

    @torch.no_grad()
    def encode(self, images_Bchw: Tensor) -> Tensor:
        """images_Bchw to codes_BLK."""
        return self.quantize(self.latents(images_Bchw)).tokens_BL[..., None]

    def canvas(self, codes_BL: Tensor, lattice: Lattice) -> Tensor:
        """(B, z, h, w): what the decoder is given for these codes."""
        (grid,) = lattice.levels
        codes_Vz = F.normalize(self.codebook_Vz.float(), dim=-1)
        return codes_Vz[codes_BL].transpose(1, 2).reshape(len(codes_BL), -1, grid.rows, grid.cols)

    @torch.no_grad()
    def decode(self, codes_BLK: Tensor, lattice: Lattice) -> Tensor:
        """codes_BLK to images_Bchw in [-1, 1]."""
        images_Bchw: Tensor = self.decoder(self.canvas(codes_BLK[..., 0], lattice)).float().clamp(-1, 1)
        return images_Bchw

    @torch.no_grad()
    def revive(self, used_V: Tensor, sought_BLz: Tensor, picks: Tensor) -> int:
        """Move every code that was not used to a vector of the batch, and return how many were moved. used_V: how often
        each code was used. picks: int64, (V,), which vectors, modulo their number."""
        dead_V = used_V == 0
        sought_Nz = sought_BLz.flatten(0, 1)
        self.code_vectors[dead_V] = sought_Nz[picks[dead_V] % len(sought_Nz)].to(self.code_vectors.dtype)
        return int(dead_V.sum())


class PyramidTokenizer(Tokenizer):
    """images_Bchw (float, [-1, 1], square) <-> codes_BLK (int64, [0, V), level after level, coarse to fine, K = 1).

    One size of images alone: twice as many pixels a side as the last level has cells.
    """

    def _make_codebook(self) -> None:
        self.pyramid = square_pyramid(self.config.scales)
        self.quantizer = ScaleQuantizer(self.config.codes, self.config.code_size)

    @property
    def code_vectors(self) -> nn.Parameter:
        """(V, z): the codebook of all levels."""
        return cast(nn.Parameter, self.quantizer.embedding.weight)

    def lattice(self, side: int) -> Pyramid:
        """Its own pyramid; BenchError for images of any other size."""
        if side != self.side(self.pyramid):
            raise BenchError(
                f"this tokenizer's scales {self.pyramid} are of images of {self.side(self.pyramid)} pixels a side, not "
                f"of {side}; --side {self.side(self.pyramid)} would do"
            )
        return self.pyramid

    def side(self, lattice: Lattice) -> int:
        """Twice as many pixels a side as the last level has cells."""
        return STRIDE * last_side(lattice)

    def latents(self, images_Bchw: Tensor) -> Tensor:
        """(B, z, h, w) float32, not normalised."""
        latent: Tensor = self.encoder(images_Bchw).float()
        return latent

    def quantize(self, latent_Bzhw: Tensor, commitment: float = 0.25) -> Quantized:
        """The codes of all levels, by VAR's residual quantizer and its loss."""
        bands = self.quantizer.analyse(latent_Bzhw, self.lattice(STRIDE * latent_Bzhw.shape[3]))
        straight = latent_Bzhw + (bands.canvases[-1] - latent_Bzhw).detach()
        loss = scale_loss(bands.canvases, latent_Bzhw, commitment)
        return Quantized(bands.codes_BL, straight, loss, bands.sought_BLz)

    def canvas(self, codes_BL: Tensor, lattice: Lattice) -> Tensor:
        """(B, z, h, w): the sum of all levels' bands. BenchError for a lattice that is not its own."""
        if lattice != self.pyramid:
            raise BenchError(f"this tokenizer's codes are on {self.pyramid}, not on {lattice}; name the model's own")
        return self.quantizer.canvas(codes_BL, self.pyramid)


def tokenizer_of(config: TokenizerConfig) -> Tokenizer:
    """The tokenizer of a configuration: of a pyramid where it has scales."""
    return PyramidTokenizer(config) if config.scales else Tokenizer(config)
