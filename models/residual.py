"""Residual quantization over scales: one latent image as a pyramid of codes, and back (VAR, arXiv 2404.02905).

Knows one codebook for all levels, how a level's codes are spread over the canvas, and what a level is shown of it.
Refuses to know pixels and networks: published tokenizers, our own one and VAR's network share this.

The *canvas* is a latent image at the size of the last level. Every level adds a *band*: its code vectors, enlarged to
that size (bicubic, half-pixel centres, no antialiasing; the last level is not resized), and passed through a
convolution, phi(h) = h / 2 + (conv(h) + bias) / 2. Encoding takes what the canvas still lacks, level by level: the mean
over each cell's area, and the nearest code by squared distance. All of it is computed in fp32, since a latent that is
rounded to bf16 already has other codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.orders import BenchError, Grid, Lattice, Pyramid

PHIS = 4  # convolutions, shared by all levels


def phi_of(level: int, levels: int) -> int:
    """Which of the four convolutions a level takes, coarse to fine: the nearest of the ticks 1/12, 13/36, 23/36, 11/12
    to level / (levels - 1). Halfway between two, at 2/9, 1/2 and 7/9, it is the finer one; of one level, the first.

    >>> [phi_of(level, 10) for level in range(10)]
    [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    """
    whole = max(1, levels - 1)
    return (9 * level >= 2 * whole) + (2 * level >= whole) + (9 * level >= 7 * whole)


class Bands(NamedTuple):
    """codes_BL: int64, level after level, in raster order. canvases: after each level, (B, z, h, w) fp32. sought_BLz:
    the vectors whose nearest codes these are, without gradients."""

    codes_BL: Tensor
    canvases: list[Tensor]
    sought_BLz: Tensor


class ScaleQuantizer(nn.Module):
    """One codebook and four convolutions; the names of its tensors are those of VAR's release."""

    def __init__(self, codes: int, code_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, code_size)
        phis = (nn.Conv2d(code_size, code_size, 3, padding=1) for _ in range(PHIS))
        self.quant_resi = nn.ModuleDict({"qresi_ls": nn.ModuleList(phis)})

    @property
    def shape(self) -> tuple[int, int]:
        """(V, z): how many codes, and of how many numbers."""
        return self.embedding.num_embeddings, self.embedding.embedding_dim

    def band(self, level: int, codes_BG: Tensor, pyramid: Pyramid) -> Tensor:
        """(B, z, h, w) fp32: what all codes of a level, in raster order, add to the canvas."""
        with _in_fp32(codes_BG):
            own, last = pyramid.levels[level], pyramid.levels[-1]
            h = F.embedding(codes_BG, self.embedding.weight.float()).transpose(1, 2).unflatten(2, (own.rows, own.cols))
            if level < len(pyramid.levels) - 1:
                h = F.interpolate(h, size=(last.rows, last.cols), mode="bicubic", align_corners=False)
            phis = self.quant_resi.get_submodule("qresi_ls")
            phi = phis.get_submodule(str(phi_of(level, len(pyramid.levels))))
            weight, bias = phi.get_parameter("weight").float(), phi.get_parameter("bias").float()
            return 0.5 * h + 0.5 * F.conv2d(h, weight, bias, padding=1)

    def canvas(self, codes_BL: Tensor, pyramid: Pyramid) -> Tensor:
        """(B, z, h, w) fp32: the sum of all bands."""
        parts = torch.split(codes_BL, [grid.n_cells for grid in pyramid.levels], dim=1)
        bands = [self.band(level, part, pyramid) for level, part in enumerate(parts)]
        return torch.stack(bands).sum(0)

    def nearest(self, sought_BGz: Tensor) -> Tensor:
        """(B, G) int64: the codes at the least squared distance."""
        codes_Vz = self.embedding.weight.detach().float()
        return (codes_Vz.square().sum(1) - 2 * sought_BGz @ codes_Vz.T).argmin(-1)

    def analyse(self, latent_Bzhw: Tensor, pyramid: Pyramid) -> Bands:
        """The codes of a latent image of the size of the last level. Gradients flow through the canvases, to the
        codebook and the convolutions alone."""
        with _in_fp32(latent_Bzhw):
            lacks = latent_Bzhw.detach().float()
            canvas = torch.zeros_like(lacks)
            codes, canvases, sought = [], [], []
            for level, grid in enumerate(pyramid.levels):
                sought.append(seen_at(lacks, grid))
                codes.append(self.nearest(sought[-1]))
                band = self.band(level, codes[-1], pyramid)
                canvas = canvas + band
                lacks = lacks - band.detach()
                canvases.append(canvas)
        return Bands(torch.cat(codes, 1), canvases, torch.cat(sought, 1))


def _in_fp32(tensor: Tensor) -> torch.autocast:
    """While it is open, nothing on the device of a tensor is computed in narrower numbers."""
    return torch.autocast(tensor.device.type, enabled=False)


def seen_at(latent_Bzhw: Tensor, grid: Grid) -> Tensor:
    """(B, G, z): a latent image as a level sees it, the mean over every cell's area; cells in raster order."""
    whole = latent_Bzhw.shape[2:] == (grid.rows, grid.cols)
    shown = latent_Bzhw if whole else F.adaptive_avg_pool2d(latent_Bzhw, (grid.rows, grid.cols))
    return shown.flatten(2).transpose(1, 2)


def scale_loss(canvases: Sequence[Tensor], latent_Bzhw: Tensor, commitment: float = 0.25) -> Tensor:
    """The mean over levels of mse(canvas, sg latent) + commitment * mse(sg canvas, latent): every level explains as
    much as it can of the whole latent."""
    latent = latent_Bzhw.float()
    terms = [F.mse_loss(one, latent.detach()) + commitment * F.mse_loss(one.detach(), latent) for one in canvases]
    return torch.stack(terms).mean()


def square_pyramid(sides: Sequence[int]) -> Pyramid:
    """The pyramid of square levels with these sides.

    >>> str(square_pyramid([1, 2, 4]))
    '1/2/4'
    """
    return Pyramid(tuple(Grid(side, side) for side in sides))


def last_side(lattice: Lattice) -> int:
    """The side of the last level; BenchError for a lattice that is no pyramid of squares."""
    if not isinstance(lattice, Pyramid) or any(grid.rows != grid.cols for grid in lattice.levels):
        raise BenchError(
            f"this tokenizer's codes are on a pyramid of squares, and the model's lattice is {lattice}; name the "
            f"tokenizer that the model was trained on, as in --tokenizer FILE"
        )
    return lattice.levels[-1].rows
