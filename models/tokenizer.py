"""The small tokenizer: pixels to codes and back, one code per 2x2 pixels.

Knows images and a codebook. Refuses to know the order in which codes are predicted.

A convolutional autoencoder with a vector-quantised bottleneck (VQ-VAE, arXiv 1711.00937): codes and latents are
L2-normalised as in ViT-VQGAN (arXiv 2110.04627, section 3.2), gradients pass straight through, and codes that are not
used are moved to latents of the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.codec import patch_lattice, patch_side
from orderbench.models.config import TokenizerConfig
from orderbench.orders import Grid, Lattice


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
    """tokens_BL: int64 in [0, V); latent_Bzhw: the chosen codes, gradients straight through; loss: codebook and
    commitment."""

    tokens_BL: Tensor
    latent_Bzhw: Tensor
    loss: Tensor


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
        self.codebook_Vz = nn.Parameter(F.normalize(torch.randn(config.codes, config.code_size), dim=-1))

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """(V,): one code a cell."""
        return (self.config.codes,)

    @property
    def channels(self) -> int:
        """Of its images."""
        return self.config.channels

    def lattice(self, side: int) -> Grid:
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
        return Quantized(tokens_BL, latent_Bzhw + (chosen_Bzhw - latent_Bzhw).detach(), loss)

    @torch.no_grad()
    def encode(self, images_Bchw: Tensor) -> Tensor:
        """images_Bchw to codes_BLK."""
        return self.quantize(self.latents(images_Bchw)).tokens_BL[..., None]

    @torch.no_grad()
    def decode(self, codes_BLK: Tensor, lattice: Lattice) -> Tensor:
        """codes_BLK to images_Bchw in [-1, 1]."""
        (grid,) = lattice.levels
        codes_Vz = F.normalize(self.codebook_Vz.float(), dim=-1)
        latent = codes_Vz[codes_BLK[..., 0]].transpose(1, 2).reshape(len(codes_BLK), -1, grid.rows, grid.cols)
        images_Bchw: Tensor = self.decoder(latent).float().clamp(-1, 1)
        return images_Bchw

    @torch.no_grad()
    def revive(self, used_V: Tensor, latent_Bzhw: Tensor, picks: Tensor) -> int:
        """Move every code that was not used to a latent of the batch, and return how many were moved. used_V: how often
        each code was used. picks: int64, (V,), which latents, modulo their number."""
        dead_V = used_V == 0
        latent_Nz = latent_Bzhw.transpose(0, 1).flatten(1).T
        self.codebook_Vz[dead_V] = latent_Nz[picks[dead_V] % len(latent_Nz)].to(self.codebook_Vz.dtype)
        return int(dead_V.sum())
