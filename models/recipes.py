"""Recipes: how the tokenizer and the feature network are trained; the model's recipe is in `objective.py`.

Knows losses and augmentation. Refuses to know schedules and files, which belong to the training loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.config import FeatureConfig, TokenizerConfig, to_plain
from orderbench.models.data import Images
from orderbench.models.features import FeatureNet
from orderbench.models.processes import sum_over_processes, take_from_first
from orderbench.models.tokenizer import Tokenizer, tokenizer_of
from orderbench.orders.streams import generator


class TokenizerJob:
    """Reconstruction: mean squared error plus mean absolute error, in [-1, 1], plus the codebook's own loss."""

    name = "tokenizer"
    revive_every = 50
    revive_until = 0.7  # of the steps; after that, codes settle

    def __init__(
        self, config: TokenizerConfig, train: Images, test: Images, *, seed: int, steps: int, device: str
    ) -> None:
        self.config, self.train, self.test, self.seed, self.device = config, train, test, seed, device
        self.last_revival = int(self.revive_until * steps)
        self._used_V = torch.zeros(config.codes, dtype=torch.int64)
        self._sought_BLz: Tensor | None = None

    def build(self) -> Tokenizer:
        return tokenizer_of(self.config)

    def hidden_matrices(self, network: Tokenizer) -> list[nn.Parameter]:
        return []

    def ships(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(state)

    def describe(self) -> dict[str, Any]:
        return {"tokenizer": to_plain(self.config), "data": self.train.name}

    def __len__(self) -> int:
        return len(self.train)

    def loss(self, network: Tokenizer, indices_B: Tensor, share: slice, step: int) -> tuple[Tensor, dict[str, float]]:
        images = self.train.floats(indices_B[share]).to(self.device)
        latent = network.latents(images)
        quantized = network.quantize(latent)
        rebuilt = network.decoder(quantized.latent_Bzhw).float()
        self._used_V += torch.bincount(quantized.tokens_BL.flatten().cpu(), minlength=self.config.codes)
        self._sought_BLz = quantized.sought_BLz
        error = F.mse_loss(rebuilt, images)
        return error + 0.2 * F.l1_loss(rebuilt, images) + quantized.loss, {"mse": float(error.detach())}

    def after(self, network: Tokenizer, step: int) -> None:
        if (step + 1) % self.revive_every == 0:
            if step < self.last_revival and self._sought_BLz is not None:
                picks = generator(self.seed, "train", step).integers(0, 2**31, self.config.codes)
                used_V = sum_over_processes(self._used_V.to(self.device))
                network.revive(used_V, self._sought_BLz, torch.from_numpy(picks).to(self.device))
                take_from_first(network.code_vectors.data)  # each process revives from its own share of the batch
            self._used_V.zero_()

    def state(self) -> dict[str, Tensor]:
        return {"used_V": self._used_V.clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._used_V = state["used_V"].clone()

    @torch.no_grad()
    def evaluate(self, network: Tokenizer) -> dict[str, float]:
        errors, used_V = [], torch.zeros(self.config.codes, dtype=torch.int64)
        for start in range(0, min(2000, len(self.test)), 250):
            images = self.test.floats(slice(start, start + 250)).to(self.device)
            codes_BLK = network.encode(images)
            errors.append(F.mse_loss(network.decode(codes_BLK, network.lattice(images.shape[3])), images))
            used_V += torch.bincount(codes_BLK.flatten().cpu(), minlength=self.config.codes)
        share = used_V.double() / used_V.sum()
        entropy_bits = float(-(share[share > 0] * share[share > 0].log2()).sum())
        return {"held_out_mse": float(torch.stack(errors).mean()), "codes_used": float((used_V > 0).sum()),
                "code_entropy_bits": entropy_bits, "code_perplexity": 2**entropy_bits}  # fmt: skip


class FeatureJob:
    """Classification with cross-entropy.

    augment: 'shift' (a whole batch is shifted by up to two pixels) or 'crop+flip' (each image is shifted by up to four
    pixels, its border mirrored, and flipped left to right with probability 1/2).
    """

    name = "features"

    def __init__(
        self,
        config: FeatureConfig,
        train: Images,
        test: Images,
        *,
        seed: int,
        device: str,
        augment: Literal["shift", "crop+flip"] = "shift",
    ) -> None:
        self.config, self.train, self.test, self.seed, self.device = config, train, test, seed, device
        self.augment = augment

    def build(self) -> FeatureNet:
        return FeatureNet(self.config)

    def hidden_matrices(self, network: nn.Module) -> list[nn.Parameter]:
        return []

    def ships(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(state)

    def describe(self) -> dict[str, Any]:
        about = {"features": to_plain(self.config), "data": self.train.name}
        return about if self.augment == "shift" else {**about, "augment": self.augment}

    def __len__(self) -> int:
        return len(self.train)

    def loss(self, network: nn.Module, indices_B: Tensor, share: slice, step: int) -> tuple[Tensor, dict[str, float]]:
        images = self.train.floats(indices_B[share]).to(self.device)
        if self.augment == "shift":
            down, right = generator(self.seed, "train", step).integers(0, 5, 2).tolist()
            side_h, side_w = images.shape[-2:]
            images = F.pad(images, (2, 2, 2, 2), value=-1.0)[..., down : down + side_h, right : right + side_w]
        else:
            drawn_B3 = generator(self.seed, "train", step).integers(0, (9, 9, 2), (len(indices_B), 3))
            images = crop_and_flip(images, torch.from_numpy(drawn_B3)[share].to(self.device))
        _, logits_BC = network(images)
        return F.cross_entropy(
            logits_BC.float(), self.train.labels_N[indices_B[share]].to(self.device), label_smoothing=0.05
        ), {}

    def after(self, network: nn.Module, step: int) -> None:
        return None

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        return None

    @torch.no_grad()
    def evaluate(self, network: nn.Module) -> dict[str, float]:
        right = 0
        for start in range(0, len(self.test), 500):
            images = self.test.floats(slice(start, start + 500)).to(self.device)
            right += int((network(images)[1].argmax(-1).cpu() == self.test.labels_N[start : start + 500]).sum())
        return {"held_out_accuracy": right / len(self.test)}


def crop_and_flip(images_Bchw: Tensor, drawn_B3: Tensor) -> Tensor:
    """Each image shifted within a mirrored border of four pixels, and flipped left to right where asked.

    drawn_B3: int64, one row an image: the first row and the first column that are kept, 0 to 8 (4 moves nothing), and
    1 to flip, 0 not to. The images are at least 5x5.
    """
    side_h, side_w = images_Bchw.shape[-2:]
    down_B, right_B, turn_B = drawn_B3.unbind(1)
    rows_Bh = down_B[:, None] + torch.arange(side_h, device=drawn_B3.device)
    cols_w = torch.arange(side_w, device=drawn_B3.device)
    cols_Bw = right_B[:, None] + torch.where(turn_B[:, None] == 1, side_w - 1 - cols_w, cols_w)
    padded_BcHW = F.pad(images_Bchw, (4, 4, 4, 4), mode="reflect")
    batch_B = torch.arange(len(images_Bchw), device=drawn_B3.device)
    chosen_Bhwc = padded_BcHW[batch_B[:, None, None], :, rows_Bh[:, :, None], cols_Bw[:, None, :]]
    return chosen_Bhwc.permute(0, 3, 1, 2)
