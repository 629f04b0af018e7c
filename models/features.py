"""The feature network: the space in which images are compared.

Knows a small classifier. Refuses to know what is compared with what. Its 64 features are trained on the labels of the
training split, so distances in them measure what tells classes apart, and little else. They carry the name of this
network. They are never called FID, which is Inception's.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.config import FeatureConfig


class FeatureNet(nn.Module):
    """images_Bchw (float, [-1, 1], 32x32) -> features (B, 64) and class logits (B, C).

    'plain' takes the maximum of each channel over the image; 'residual' takes the mean, as residual networks do (arXiv
    1512.03385, in the order of arXiv 1603.05027: normalise, ReLU, convolve).
    """

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.stages = nn.ModuleList(_residual(config) if config.network == "residual" else _plain(config))
        self.project = nn.Linear(4 * w, config.features)
        self.classify = nn.Linear(config.features, config.classes)

    def forward(self, images_Bchw: Tensor) -> tuple[Tensor, Tensor]:
        is_residual = self.config.network == "residual"
        x = images_Bchw.contiguous(memory_format=torch.channels_last) if is_residual else images_Bchw
        for stage in self.stages:
            x = stage(x)
        features = self.project(x.mean((2, 3)) if is_residual else x.amax((2, 3)))
        return features, self.classify(F.relu(features))


def _plain(config: FeatureConfig) -> Iterator[nn.Module]:
    w = config.width
    for i, o, stride in [
        (config.channels, w, 1),
        (w, 2 * w, 2),
        (2 * w, 2 * w, 1),
        (2 * w, 4 * w, 2),
        (4 * w, 4 * w, 1),
    ]:
        yield nn.Sequential(_convolution(i, o, stride), nn.BatchNorm2d(o), nn.ReLU())


def _residual(config: FeatureConfig) -> Iterator[nn.Module]:
    w = config.width
    yield _convolution(config.channels, w)
    for i, o, stride in [(w, w, 1), (w, w, 1), (w, 2 * w, 2), (2 * w, 2 * w, 1), (2 * w, 4 * w, 2), (4 * w, 4 * w, 1)]:
        yield _ResidualBlock(i, o, stride)
    yield nn.Sequential(nn.BatchNorm2d(4 * w), nn.ReLU())


def _convolution(i: int, o: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1, stride=stride, bias=False)


class _ResidualBlock(nn.Module):
    """i channels to o: two convolutions, plus a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.BatchNorm2d(i), nn.ReLU())
        self.body = nn.Sequential(_convolution(i, o, stride), nn.BatchNorm2d(o), nn.ReLU(), _convolution(o, o))
        self.straight = None if i == o and stride == 1 else nn.Conv2d(i, o, 1, stride=stride, bias=False)

    def forward(self, x_Bchw: Tensor) -> Tensor:
        entered_Bchw = self.enter(x_Bchw)
        return self.body(entered_Bchw) + (x_Bchw if self.straight is None else self.straight(entered_Bchw))
