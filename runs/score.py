"""Score: samples that were made elsewhere, judged as those of a run are.

Knows files and folders of samples, and where their labels stand. Refuses to know metrics and networks of features: the
judges of `spaces.py` answer. Nothing is decoded here.

An interval leaves out groups of samples, and a group should hold all classes alike. So samples with as many of each
class, give or take one, are taken class by class in turn, and all others in an order that is drawn, always alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orderbench.models.data import SIDE
from orderbench.models.folders import flat_pictures, read_folders
from orderbench.models.pixels import in_channels, is_grey, picture_size, pixel_rule, read_picture, square
from orderbench.orders import BenchError
from orderbench.orders.arrays import BrokenArrays, read_npz
from orderbench.orders.streams import generator
from orderbench.runs.spaces import FEATURES, Form, Judge, describe_judge, judge_of, open_space, shipped_judge

SHIPPED = "shipped"  # the reference that travels in the package
_SHUFFLE = 1 << 49  # an address of noise that nothing else uses
_NUMBERED = re.compile(r"\d+-(\d+)")  # NNNNNN-LABEL.png, as `bench export --png` writes
_ASK = "an .npz with arr_0, uint8 images (N, h, w, c), or a folder of pictures would do"


@dataclass(frozen=True, eq=False)
class Samples:
    """Images that somebody made. images_Nchw: uint8, of 1 channel if they are grey, else 3. labels_N: int64, the class
    that each was made for; None where nothing says. rule: what was done to the pixels, in words; '' for nothing."""

    name: str
    images_Nchw: np.ndarray
    labels_N: np.ndarray | None
    rule: str = ""

    @property
    def side(self) -> int:
        """Of an image, in pixels."""
        return int(self.images_Nchw.shape[2])

    @property
    def channels(self) -> int:
        """1, grey, or 3."""
        return int(self.images_Nchw.shape[1])


def read_samples(path: Path, size: int | None = None) -> Samples:
    """Samples of an .npz file in ADM's layout (`arr_0`, and `arr_1` for labels), or of a folder of pictures.

    In a folder the labels are those of its folders, one for each class, or of names as `bench export --png` writes
    them, NNNNNN-LABEL.png. size: bring all of them to this side, by the rule of `pixels.py`; None takes them as they
    are, which must be squares of one size.

    Raises BenchError for what cannot be read, and for images that are no squares of one size.
    """
    if path.is_dir():
        return _read_folder(path, size)
    samples = _read_npz(path)
    h, w = samples.images_Nchw.shape[2:]
    if size is None and h != w:
        raise BenchError(
            f"'{path}' holds images of {w}x{h} pixels, and samples are squares; --size {min(h, w)} cuts out some"
        )
    if size is None or h == w == size:
        return samples
    return replace(samples, images_Nchw=square(samples.images_Nchw, size, str(path)), rule=pixel_rule(size))


def score(
    paths: Sequence[Path],
    spaces: Sequence[str] = (),
    reference: str = SHIPPED,
    *,
    size: int | None = None,
    device: str = "cpu",
    each: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> dict[str, Any]:
    """Judge some sets of samples in every space, all against one reference; plain values, ready for JSON.

    reference: `shipped`, or what `bench run --reference` takes. size: as of `read_samples`, for samples and reference.

    `samples` of the result has, for each set, name, n, size, channels, labelled, rule, and `quality`, the metrics of
    every space with their left-out values; `real` has those of real images, where the reference brings some that are
    not in it; `spaces` says against what all were held.

    Raises BenchError for sets of several sizes, and for what does not fit the space or the reference.
    """
    sets = [_ordered(read_samples(path, size)) for path in each(paths)]
    sides = {one.side for one in sets}
    if len(sides) > 1:
        raise BenchError(
            f"the samples have {' and '.join(map(str, sorted(sides)))} pixels a side and cannot be held against one "
            f"reference; --size {min(sides)} brings all to one size"
        )
    form = Form(max(one.channels for one in sets), lambda: sets[0].side, "the samples have")
    judges = [_judge(name, reference, form, device) for name in spaces or (FEATURES,)]
    real, n = [], max(len(one.images_Nchw) for one in sets)
    for judge in judges:
        if judge.real is not None:
            features_MD, logits_MC, labels_M = judge.real
            logits_NC = None if logits_MC is None else logits_MC[:n]
            real.append(judge.judge(features_MD[:n], logits_NC, labels_M[:n], _classes(logits_MC)))
    return {
        "spaces": [describe_judge(judge) for judge in judges],
        "samples": [_scored(one, judges) for one in sets],
        "real": real,
    }


def _judge(name: str, reference: str, form: Form, device: str) -> Judge:
    if reference != SHIPPED:
        return judge_of(open_space(name, device), reference, None, form)
    if name != FEATURES:
        raise BenchError(
            f"the shipped reference is in the space {FEATURES}, not in {name}; name another reference, as in "
            f"--reference FOLDER"
        )
    if form.side() != SIDE:
        raise BenchError(
            f"the shipped reference is of {SIDE}x{SIDE} images and the samples are of {form.side()}x{form.side()}; "
            f"--size {SIDE} brings them to it, or name another reference, as in --reference FOLDER --space lite0"
        )
    return shipped_judge(open_space(name, device))


def _scored(samples: Samples, judges: Sequence[Judge]) -> dict[str, Any]:
    quality, labels_N = [], samples.labels_N
    for judge in judges:
        features_ND, logits_NC = judge.space.extract(torch.from_numpy(_for_space(samples, judge)))
        known = labels_N is not None and labels_N.max() < _classes(logits_NC)  # else these are other classes
        quality.append(judge.judge(features_ND, logits_NC, labels_N if known else None,
                                   _classes(logits_NC) if known else 1))  # fmt: skip
    return {
        "name": samples.name, "n": len(samples.images_Nchw), "size": samples.side, "channels": samples.channels,
        "labelled": labels_N is not None, "rule": samples.rule, "quality": quality,
    }  # fmt: skip


def _for_space(samples: Samples, judge: Judge) -> np.ndarray:
    """The images with as many channels as the space takes: grey repeated, or three equal channels folded."""
    wanted = judge.space.channels
    images_Nchw = samples.images_Nchw if wanted is None else in_channels(samples.images_Nchw, wanted)
    if images_Nchw is None:
        raise BenchError(
            f"'{samples.name}' holds images in colour and the space {judge.space.id} is of grey ones; name a space of "
            f"colour images, as in --space lite0 --reference FOLDER"
        )
    return np.ascontiguousarray(images_Nchw)


def _classes(logits_NC: np.ndarray | None) -> int:
    """How many classes a space knows; 1 where it knows none."""
    return 1 if logits_NC is None else int(logits_NC.shape[1])


def _ordered(samples: Samples) -> Samples:
    """Grey in one channel, and in an order of which every block is a fair sample; see the top of this module."""
    n, labels_N = len(samples.images_Nchw), samples.labels_N
    order_N = generator(0, "train", _SHUFFLE).permutation(n)
    if labels_N is not None:
        _, class_N, sizes_C = np.unique(labels_N, return_inverse=True, return_counts=True)
        if sizes_C.max() - sizes_C.min() <= 1:
            turn_N = np.empty(n, np.int64)
            turn_N[np.argsort(class_N, kind="stable")] = np.concatenate([np.arange(size) for size in sizes_C])
            order_N = np.lexsort((class_N, turn_N))
    ordered_N = None if labels_N is None else labels_N[order_N]
    grey_Nchw = in_channels(samples.images_Nchw, 1)  # three equal channels, as ADM's files hold grey images
    images_Nchw = samples.images_Nchw if grey_Nchw is None else grey_Nchw
    return replace(samples, images_Nchw=images_Nchw[order_N], labels_N=ordered_N)


def _read_npz(file: Path) -> Samples:
    try:
        arrays = read_npz(file, ("arr_0", "arr_1", "images", "labels"))
    except FileNotFoundError as problem:
        raise BenchError(f"there are no samples at '{file}'; {_ASK}") from problem
    except BrokenArrays as problem:
        raise BenchError(f"'{file}' {problem}; {_ASK}") from problem
    first, second = ("arr_0", "arr_1") if "arr_0" in arrays else ("images", "labels")
    images, labels = arrays.get(first), arrays.get(second)
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        held = "no arr_0" if images is None else f"{first} of {images.dtype} and shape {images.shape}"
        raise BenchError(f"'{file}' holds {held}; {_ASK}")
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[3] not in (1, 3):
        turned = images.shape[1] in (1, 3)
        ask = f"its channels come first, so turn it: {first}.transpose(0, 2, 3, 1)" if turned else _ASK
        raise BenchError(f"'{file}' holds {first} of shape {images.shape}, {images.shape[3]} channels; {ask}")
    if labels is not None and not (
        labels.dtype.kind in "iu" and labels.shape == images.shape[:1] and labels.min() >= 0 and labels.max() < 1 << 31
    ):
        raise BenchError(
            f"'{file}' holds {second} of {labels.dtype} and shape {labels.shape}; one whole number of 0 or more an "
            f"image would do, or no {second}"
        )
    images_Nchw = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return Samples(file.name, images_Nchw, None if labels is None else labels.astype(np.int64))


def _read_folder(folder: Path, size: int | None) -> Samples:
    files = flat_pictures(folder)
    if not files:
        raise BenchError(f"'{folder}' holds no pictures; {_ASK}")
    side = size or _common_side(folder, files)
    channels = 1 if all(map(is_grey, files)) else 3
    labels: list[int] | None
    named = [_NUMBERED.fullmatch(file.stem) for file in files]
    if any(file.parent != folder for file in files):
        split = read_folders(folder).train
        files, labels = split.files, split.labels_N.tolist()
    else:
        labels = [int(one[1]) for one in named if one] if all(named) else None
    images_Nchw = np.stack([read_picture(file, side, channels) for file in files])
    rule = pixel_rule(side) if size is not None else ""
    return Samples(folder.name, images_Nchw, None if labels is None else np.array(labels, np.int64), rule)


def _common_side(folder: Path, files: Sequence[Path]) -> int:
    sizes = sorted({picture_size(file) for file in files})
    if len(sizes) > 1 or sizes[0][0] != sizes[0][1]:
        some = " and ".join(f"{w}x{h}" for w, h in sizes[:2])
        raise BenchError(
            f"'{folder}' holds pictures of {some} pixels, and samples are squares of one size; --size "
            f"{min(min(one) for one in sizes)} cuts squares out of them"
        )
    return sizes[0][0]
