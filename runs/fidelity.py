"""torch-fidelity: the one module that imports it, and all that is asked of it.

Knows how to import it where torchvision does not fit torch, its registry and its metrics. Refuses to know spaces,
references and samples: it is given arrays and networks.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import re
import sys
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from orderbench.orders import BenchError

Network = Callable[[Tensor], tuple[Tensor, Tensor | None]]
_MISSING = re.compile(r"operator torchvision::(\w+) does not exist")
_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: dict[str, torch.library.Library] = {}  # kept: a schema goes when its Library does


def import_torch_fidelity() -> Any:
    """torch_fidelity, imported; BenchError says why it cannot be.

    torchvision's wheels for Linux are built for CUDA. With a CPU-only torch its operators do not load, and its import
    ends at the first one that it wants to describe (pytorch/vision issues 9077 and 9085). torch-fidelity needs none of
    them for what is done here, so what is missing is declared, without a body, and the import tried again.
    """
    while True:
        try:
            return importlib.import_module("torch_fidelity")
        except ImportError as problem:
            raise BenchError(
                f"torch-fidelity cannot be imported ({problem}); pip install torch-fidelity would do"
            ) from problem
        except RuntimeError as problem:
            missing = _MISSING.search(str(problem))
            if missing is None or missing[1] in _declared:
                raise BenchError(
                    f"torch-fidelity cannot be imported ({problem}); a torchvision that matches torch "
                    f"{torch.__version__} would do"
                ) from problem
            for name in [n for n in sys.modules if n.partition(".")[0] in ("torchvision", "torch_fidelity")]:
                del sys.modules[name]
            library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            library.define(missing[1] + _SCHEMAS.get(missing[1], "(Tensor first) -> Tensor"))
            _declared[missing[1]] = library


def fidelity_status() -> dict[str, Any]:
    """Whether torch-fidelity can be used here: version (None if it is not installed), works, and how ('plain', 'with
    declared schemas of ...', or the reason why not). Imports it, about 2 s."""
    try:
        version: str | None = importlib.metadata.version("torch-fidelity")
    except importlib.metadata.PackageNotFoundError:
        version = None
    try:
        import_torch_fidelity()
    except BenchError as problem:
        return {"version": version, "works": False, "how": str(problem)}
    declared = ", ".join(f"torchvision::{name}" for name in _declared)
    return {"version": version, "works": True, "how": f"with declared schemas of {declared}" if declared else "plain"}


def register(name: str, network: Network, has_logits: bool) -> Any:
    """Make a network known to torch-fidelity as the feature extractor `name`, with the layers 'features' and (if it has
    them) 'logits'; the class that its registry holds from then on.

    A name registered again takes the place of the earlier one: equal names mean equal weights, maybe on another device.
    """
    fidelity = import_torch_fidelity()
    base: Any = fidelity.FeatureExtractorBase
    layers = ("features", "logits") if has_logits else ("features",)

    class Extractor(base):  # type: ignore[misc] # torch-fidelity has no types
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:  # is passed all that was asked for
            super().__init__(name, features_list)

        def forward(self, images_Bchw: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                features, logits = network(images_Bchw)
            return tuple(features if layer == "features" else cast(Tensor, logits) for layer in self.features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return layers

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

    fidelity.registry.FEATURE_EXTRACTORS_REGISTRY.pop(name, None)  # a name taken is refused
    fidelity.register_feature_extractor(name, Extractor)
    return Extractor


def inception_network(weights: io.BytesIO, device: str | torch.device) -> Network:
    """torch-fidelity's 'inception-v3-compat' with the weights of an open file: (B, 3, h, w) uint8 images to its layers
    '2048' and 'logits_unbiased'. RuntimeError for other weights.

    torch-fidelity opens weights in the way that may run code from them: give it tensors that were read elsewhere.
    """
    extractor = import_torch_fidelity().registry.FeatureExtractorInceptionV3
    layers = ["2048", "logits_unbiased"]
    net = extractor("inception-v3-compat", layers, feature_extractor_weights_path=weights).to(device)

    def network(images_Bchw: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = net(images_Bchw)
        return features, logits

    return network


def gaussian_of(x_ND: np.ndarray) -> dict[str, np.ndarray]:
    """mu (D,) and sigma (D, D) of float64 features, as torch-fidelity takes them."""
    found = import_torch_fidelity().metric_fid.fid_features_to_statistics(torch.from_numpy(x_ND))
    return {"mu": found["mu"], "sigma": np.atleast_2d(found["sigma"])}


def frechet_distance(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> float:
    """The squared Frechet distance of two Gaussians, each with mu and sigma."""
    metric = import_torch_fidelity().metric_fid
    return float(metric.fid_statistics_to_metric(one, two, verbose=False)[metric.KEY_METRIC_FID])


def precision_and_recall(x_ND: np.ndarray, reference_MD: np.ndarray, neighbours: int) -> tuple[float, float]:
    """Shares of x within the reference's k-nearest-neighbour balls, and of the reference within those of x."""
    metric = import_torch_fidelity().metric_prc
    found = metric.prc_features_to_metric(
        torch.from_numpy(x_ND),  # the generated first: torch-fidelity before 0.4 had them the other way round
        torch.from_numpy(reference_MD),
        prc_neighborhood=neighbours,
        prc_batch_size=2500,
        save_cpu_ram=True,
        verbose=False,
    )
    return found[metric.KEY_METRIC_PRECISION], found[metric.KEY_METRIC_RECALL]


def inception_score(logits_NC: np.ndarray) -> float:
    """exp of the mean KL divergence of each sample's classes from those of all: 1 to C."""
    metric = import_torch_fidelity().metric_isc
    found = metric.isc_features_to_metric(torch.from_numpy(logits_NC), splits=1, shuffle=False)
    return float(found[metric.KEY_METRIC_ISC_MEAN])
