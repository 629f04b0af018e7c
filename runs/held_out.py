"""Held-out images of a run: looked at before anything is measured, and encoded when somebody asks first.

Knows what must fit: sizes, channels and classes of images, tokenizer, model and weights; and whether the weights saw
the images. Refuses to know arms, and how images are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from orderbench.models.codec import Codec, encode_images
from orderbench.models.data import Source, open_images
from orderbench.models.model import Model
from orderbench.orders import BenchError


@dataclass(frozen=True)
class HeldOut:
    """Images that stand in for those that a model never saw. side: in pixels. unseen: whether that they were not seen
    is known. note: what a reader should know of them before the run, or ''."""

    source: Source
    side: int
    unseen: bool
    note: str

    def about(self) -> dict[str, Any]:
        """What a record says of them, besides their number and digest."""
        return {"source": self.source.held_out_as, "unseen": self.unseen, "pixels": self.source.rule(self.side)}

    def encode(self, model: Model, codec: Codec, n: int, device: str) -> tuple[Tensor, Tensor]:
        """(N, L, K) codes and (N,) labels of the first n; those of a model of one class are all 0."""
        images = self.source.load("test", self.side, n, codec.channels)
        labels_N = images.labels_N if model.n_classes > 1 else torch.zeros_like(images.labels_N)
        return encode_images(codec, images, device).long(), labels_N


def look_at(data: str | None, model: Model, codec: Codec, card: Mapping[str, Any], name: str) -> HeldOut:
    """The held-out images of some data, for a model with its tokenizer and its card.

    Raises BenchError, one sentence, for data that do not fit: other channels, classes or sides, or images that the card
    says the weights were trained on.
    """
    source = open_images(data)
    _check_classes(source, model, card, name)
    source.check_channels(codec.channels, "the tokenizer")
    side = codec.side(model.lattice)
    unseen, note = _seen(source, card, name)
    if 1 < source.classes < model.n_classes:
        note = f"{source.where} has images of {source.classes} classes and the model {model.n_classes}. {note}".strip()
    return HeldOut(source, side, unseen, note)


def _check_classes(source: Source, model: Model, card: Mapping[str, Any], name: str) -> None:
    named, classes = card.get("class_names"), model.n_classes
    known = tuple(map(str, named)) if isinstance(named, list) else ()
    if known and source.class_names and known != source.class_names and len(known) == len(source.class_names):
        differs = next(pair for pair in zip(source.class_names, known, strict=True) if pair[0] != pair[1])
        raise BenchError(
            f"{source.where} has a class '{differs[0]}' where {name} was trained on '{differs[1]}'; name images of its "
            f"own classes, in folders of the same names"
        )
    if classes == 1 or source.classes == classes:
        return
    if source.classes > classes:
        raise BenchError(
            f"{source.where} has {source.classes} classes and the model {classes}; name the data that the model was "
            f"trained on, as in --data FOLDER"
        )
    if source.class_names:
        lacking = [one for one in known if one not in source.class_names]
        shown = f"; {', '.join(lacking[:4])} are missing" if lacking else ""
        raise BenchError(
            f"{source.where} has {source.classes} classes and the model {classes}{shown}: a folder's place among the "
            f"others is its number, so all must be there; an .npz file with labels would do for fewer"
        )


def _seen(source: Source, card: Mapping[str, Any], name: str) -> tuple[bool, str]:
    """Whether the held-out images are known to be unseen, and what is to be said of them."""
    said = card.get("split")
    trained = said if isinstance(said, dict) else {}
    same = bool(source.digest) and trained.get("digest") == source.digest
    if source.test_split or (same and not trained.get("test")):
        return True, ""
    if same:
        raise BenchError(
            f"{source.where} holds the very images that {name} was trained on, and no others; name the folder above "
            f"it, whose {trained['test']}/ it never saw"
        )
    return False, (
        f"{source.where} holds one split, so a tenth of it stands in for held-out images; whether {name} saw them in "
        f"training is not known, and its bits may be too low"
    )
