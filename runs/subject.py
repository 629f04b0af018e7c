"""The subject of a run: which model, tokenizer, data and feature spaces are measured, and their digests.

Knows names of shipped weights, files and a user's own factories. Refuses to know arms and measurements.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from orderbench.models.arpg import load_checkpoint
from orderbench.models.config import ModelConfig, to_plain
from orderbench.models.data import load_images, to_uint8
from orderbench.models.decode import AnyOrderModel
from orderbench.models.mixtures import objective_of
from orderbench.models.objective import ObjectiveConfig
from orderbench.models.shipped import Loaded, load_shipped, load_shipped_arrays, load_weights, shipped_names
from orderbench.models.tokenizer import encode
from orderbench.models.transformer import Transformer, count_parameters
from orderbench.models.vq16 import VQ16, load_vq16
from orderbench.orders import BenchError, Grid
from orderbench.orders.files import sha256_of
from orderbench.runs.device import choose_device
from orderbench.runs.factory import NEEDS, call_factory
from orderbench.runs.spaces import Judge, judges_of
from orderbench.runs.spec import RunSpec

MODEL, TOKENIZER, HELD_OUT = "fashion-model", "fashion-tokenizer", "fashion-held-out"  # that travel in the package
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class PixelDecoder(Protocol):
    """What turns codes into images."""

    def encode(self, images_Bchw: Tensor) -> Tensor:
        """Images in [-1, 1] to codes."""

    def decode(self, tokens_BL: Tensor, rows: int, cols: int) -> Tensor:
        """Codes to images in [-1, 1]."""


@dataclass
class Subject:
    """Everything a trial reads. about: what `run.json` says of it."""

    model: AnyOrderModel
    tokenizer: PixelDecoder | None
    judges: tuple[Judge, ...]
    device: str
    about: dict[str, Any]
    recommended: dict[str, Any] = field(default_factory=dict)
    objective: ObjectiveConfig | None = None
    held_out_source: Callable[[], tuple[Tensor, Tensor]] | None = None

    @cached_property
    def held_out(self) -> tuple[Tensor, Tensor] | None:
        """(N, L) codes and (N,) labels of images that the model never saw; None where there are none."""
        return None if self.held_out_source is None else self.held_out_source()

    def describe_held_out(self) -> dict[str, Any]:
        """How many there are, and the sha256 of their codes and labels; nothing where there are none."""
        if self.held_out is None:
            return {}
        tokens_NL, labels_N = (np.ascontiguousarray(part.numpy(), "<i8") for part in self.held_out)
        digest = hashlib.sha256(tokens_NL.tobytes() + labels_N.tobytes()).hexdigest()
        return {"held_out": {"images": len(tokens_NL), "sha256": digest}}

    @property
    def config(self) -> ModelConfig | None:
        """Sizes of our own network; None for a user's."""
        return self.model.config if isinstance(self.model, Transformer) else None

    def pixels(self, tokens_NL: Tensor) -> Tensor:
        """(N, c, h, w) uint8 images of codes, on the CPU."""
        assert self.tokenizer is not None  # noqa: S101 (asked by those who checked)
        return to_pixels(self.tokenizer, tokens_NL, self.model.lattice, self.device)


@torch.inference_mode()
def to_pixels(tokenizer: PixelDecoder, tokens_NL: Tensor, grid: Grid, device: str) -> Tensor:
    """(N, c, h, w) uint8 images of codes, on the CPU."""
    parts = [
        to_uint8(tokenizer.decode(tokens_NL[i : i + 256].to(device).long(), grid.rows, grid.cols)).cpu()
        for i in range(0, len(tokens_NL), 256)
    ]
    return torch.cat(parts)


def load_subject(spec: RunSpec) -> Subject:
    """Load what a run needs, check that its parts fit, and set threads and precision for this process.

    BenchError, one sentence, for whatever does not fit.
    """
    device = choose_device(spec.device)
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model, about, card = _model(spec.model, device, spec.dtype)
    subject = Subject(model=model, tokenizer=None, judges=(), device=device, about={"model": about})
    subject.recommended = card.get("setting", {})
    if "objective" in about:
        subject.objective = objective_of(about["objective"], "the weights' metadata")
    shipped = spec.model is None or spec.model in shipped_names()
    if spec.tokenizer is None and not shipped:
        asked = [f"--{name}" for name in ("data", "reference", "space") if getattr(spec, name)]
        if asked:
            raise BenchError(
                f"{' and '.join(asked)} need a tokenizer that turns this model's codes into images; name it, as in "
                f"--tokenizer FILE"
            )
        return subject
    tokenizer, said = load_tokenizer(spec.tokenizer or TOKENIZER, device)
    subject.tokenizer, subject.about["tokenizer"] = tokenizer, said
    if said["codes"] != model.n_codes:
        raise BenchError(
            f"the tokenizer has {said['codes']} codes and the model {model.n_codes}; name the tokenizer that the model "
            f"was trained on, as in --tokenizer FILE"
        )
    named, sha = about.get("data", ""), said["sha256"][:16]
    if "tokenizer " in named and sha not in named:
        raise BenchError(
            f"the model was trained on another tokenizer ({named}) than this one ({sha}); name that one, as in "
            f"--tokenizer FILE"
        )
    own = shipped and spec.data is None and spec.tokenizer is None
    if own:
        subject.held_out_source = _shipped_held_out
    elif spec.data is not None or not isinstance(tokenizer, VQ16):  # Fashion-MNIST is no default for ImageNet's codes
        subject.held_out_source = lambda: _encoded(spec, subject, tokenizer)
    if "quality" in spec.only:
        subject.judges = judges_of(
            spec.space, device, spec.reference, spec.data, shipped=own,
            side=None if subject.held_out_source is None else lambda: _side(model, tokenizer),
        )  # fmt: skip
        subject.about["spaces"] = [
            {
                "space": j.space.id,
                "dimensions": j.space.dimensions,
                "reference": j.reference_name,
                "reference_sha256": j.reference_sha256,
            }
            for j in subject.judges
        ]
    return subject


def _model(name: str | None, device: str, dtype: str) -> tuple[AnyOrderModel, dict[str, Any], dict[str, Any]]:
    """The model, what is to be recorded about it, and its card."""
    if name is not None and ":" in name and not Path(name).exists():
        model = _own_model(name, device, dtype)
        return model, {"name": name, "factory": True, **_weights_digest(model), **_sizes(model)}, {}
    if name is None and MODEL not in shipped_names():
        raise BenchError("no weights travel in this package; name a file, as in --model model.safetensors")
    card: dict[str, Any] = {}
    if name is None or name in shipped_names():
        loaded: Loaded | None = load_shipped(name or MODEL, "model")
    elif Path(name).suffix in (".pt", ".pth"):
        loaded = None
    else:
        if not Path(name).exists() and Path(name).suffix == "":
            load_shipped(name, "model")  # raises, with the nearest name
        loaded = load_weights(name, "model")
    if loaded is None:
        network = load_checkpoint(str(name), family="arpg")
        about: dict[str, Any] = {"name": Path(str(name)).name, "family": "arpg", "sha256": sha256_of(Path(str(name)))}
    else:
        network = cast(Transformer, loaded.network)
        card = loaded.card
        about = {
            "name": name if name in shipped_names() else MODEL if name is None else Path(name).name,
            "sha256": loaded.sha256,
            "data": loaded.about.get("data", ""),
            "objective": loaded.about.get("objective"),
            "steps_done": card.get("steps_done"),
        }
        about = {key: value for key, value in about.items() if value is not None}
    network = network.to(device=device, dtype=_DTYPES[dtype])
    about |= {"parameters": count_parameters(network), "config": to_plain(network.config), **_sizes(network)}
    return network, about, card


def _sizes(model: AnyOrderModel) -> dict[str, Any]:
    return {"grid": str(model.lattice), "codes": model.n_codes, "classes": model.n_classes}


def _weights_digest(model: AnyOrderModel) -> dict[str, str]:
    """sha256 of a torch module's weights: names and bytes; nothing of what is no module."""
    if not isinstance(model, torch.nn.Module):
        return {}
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {"sha256": digest.hexdigest()}


def _own_model(name: str, device: str, dtype: str) -> AnyOrderModel:
    """What a user's factory returns; if it is a torch module, on the device, in eval mode, and of the type asked."""
    model = call_factory(name)
    missing = [need for need in NEEDS if not hasattr(model, need)]
    if missing:
        raise BenchError(
            f"what '{name}' returned has no {', '.join(missing)}; orderbench.models.decode.AnyOrderModel lists what a "
            f"model needs, and `bench doctor --model {name}` tests it"
        )
    if isinstance(model, torch.nn.Module):
        return cast(AnyOrderModel, model.to(device=device, dtype=_DTYPES[dtype]).eval())
    if dtype != "fp32":
        raise BenchError(
            f"what '{name}' returned is no torch module, so its weights cannot be cast to {dtype}; leave --dtype away "
            f"and let the factory choose"
        )
    return cast(AnyOrderModel, model)


def load_tokenizer(name: str, device: str) -> tuple[PixelDecoder, dict[str, Any]]:
    """A tokenizer of the package, of `bench train tokenizer`, or LlamaGen's VQ-16 (.pt), and what a record says of
    it."""
    if Path(name).suffix in (".pt", ".pth"):
        network = load_vq16(name).to(device)
        return network, {"name": Path(name).name, "codes": 16384, "sha256": sha256_of(Path(name))}
    loaded = load_shipped(name, "tokenizer") if name in shipped_names() else load_weights(name, "tokenizer")
    codes = loaded.about["tokenizer"]["codes"]
    about = {"name": Path(name).name, "codes": codes, "sha256": loaded.sha256}
    return cast(PixelDecoder, loaded.network.to(device)), about


def _shipped_held_out() -> tuple[Tensor, Tensor]:
    arrays = load_shipped_arrays(HELD_OUT, "held-out")
    return arrays.tensors["tokens_NL"].long(), arrays.tensors["labels_N"].long()


def _encoded(spec: RunSpec, subject: Subject, tokenizer: PixelDecoder) -> tuple[Tensor, Tensor]:
    n = max(spec.held_out, spec.samples)
    images = load_images(spec.data, "test", _side(subject.model, tokenizer), limit=n)
    if images.classes > subject.model.n_classes:
        raise BenchError(
            f"{images.name} has {images.classes} classes and the model {subject.model.n_classes}; name the data that "
            f"the model was trained on, as in --data FOLDER"
        )
    return encode(tokenizer, images, subject.device, subject.model.n_codes).long(), images.labels_N


def _side(model: AnyOrderModel, tokenizer: PixelDecoder) -> int:
    """Of the images whose codes fill the model's grid."""
    grid = model.lattice
    if grid.rows != grid.cols:
        raise BenchError(f"images are read as squares and the model's grid is {grid}; only a square one is served")
    return grid.rows * (16 if isinstance(tokenizer, VQ16) else 2)
