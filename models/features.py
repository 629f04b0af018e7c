"""The feature network: the space in which images are compared.

Knows a small classifier. Refuses to know what is compared with what. Its 64 features are trained on the labels of the
training split, so distances in them see what tells classes apart and little else; they are named for this network, and
are never FID, which is Inception's.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.config import FeatureConfig


class FeatureNet(nn.Module):
    """images_Bchw (float, [-1, 1], 32x32) -> features (B, 64) and class logits (B, C)."""

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=1, stride=s, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            for i, o, s in [
                (config.channels, w, 1),
                (w, 2 * w, 2),
                (2 * w, 2 * w, 1),
                (2 * w, 4 * w, 2),
                (4 * w, 4 * w, 1),
            ]
        )
        self.project = nn.Linear(4 * w, config.features)
        self.classify = nn.Linear(config.features, config.classes)

    def forward(self, images_Bchw: Tensor) -> tuple[Tensor, Tensor]:
        x = images_Bchw
        for stage in self.stages:
            x = stage(x)
        features = self.project(x.amax((2, 3)))
        return features, self.classify(F.relu(features))
