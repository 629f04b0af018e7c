"""The small tokenizer: pixels to codes and back, one code per 2x2 pixels.

Knows images and a codebook. Refuses to know the order in which codes are predicted.

A convolutional autoencoder with a vector-quantised bottleneck (VQ-VAE, arXiv 1711.00937): codes and latents are
L2-normalised as in ViT-VQGAN (arXiv 2110.04627, section 3.2), gradients pass straight through, and codes that nothing
uses are given a new life at latents of the batch.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.config import TokenizerConfig
from orderbench.models.data import Images

_PIXELS = 500 * 32 * 32  # encoded at once: VQ-16 makes 128 channels of each


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


class Tokenizer(nn.Module):
    """images_Bchw (float, [-1, 1], sides even) <-> tokens_BL (int64, [0, V), raster order, L = h/2 * w/2)."""

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
        """images_Bchw to tokens_BL."""
        return self.quantize(self.latents(images_Bchw)).tokens_BL

    @torch.no_grad()
    def decode(self, tokens_BL: Tensor, rows: int, cols: int) -> Tensor:
        """tokens_BL to images_Bchw in [-1, 1]."""
        codes_Vz = F.normalize(self.codebook_Vz.float(), dim=-1)
        latent = codes_Vz[tokens_BL].transpose(1, 2).reshape(len(tokens_BL), -1, rows, cols)
        images_Bchw: Tensor = self.decoder(latent).float().clamp(-1, 1)
        return images_Bchw

    @torch.no_grad()
    def revive(self, used_V: Tensor, latent_Bzhw: Tensor, picks: Tensor) -> int:
        """Put every code that `used_V` (counts) never saw at one of the batch's latents, `picks` (int64, V); how
        many."""
        dead_V = used_V == 0
        latent_Nz = latent_Bzhw.transpose(0, 1).flatten(1).T
        self.codebook_Vz[dead_V] = latent_Nz[picks[dead_V] % len(latent_Nz)].to(self.codebook_Vz.dtype)
        return int(dead_V.sum())


class Encoder(Protocol):
    """What turns images into codes."""

    def encode(self, images_Bchw: Tensor) -> Tensor:
        """Images in [-1, 1] to codes."""


@torch.no_grad()
def encode(tokenizer: Encoder, images: Images, device: str, codes: int) -> Tensor:
    """(N, L) the codes of all images, in the smallest type that holds them; `codes` are how many there are."""
    pixels = images.images_Nchw[0, 0].numel()
    batch = max(1, min(500, _PIXELS // pixels))
    parts = [
        tokenizer.encode(images.floats(slice(start, start + batch)).to(device)).cpu()
        for start in range(0, len(images), batch)
    ]
    return torch.cat(parts).to(torch.uint8 if codes <= 256 else torch.int32)
