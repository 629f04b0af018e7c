"""Runs of random weights on a 4x4 grid: what tests of running share. `conftest` makes the fixtures from it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from toys import toy_model

from orderbench.models.config import FeatureConfig, TokenizerConfig
from orderbench.models.features import FeatureNet
from orderbench.models.tokenizer import Tokenizer
from orderbench.runs.execute import Ended, execute
from orderbench.runs.record import Run, load_run
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import load_subjects
from orderbench.runs.trials import Trial, make_agenda


class Silent:
    """A watcher that remembers; `at` is called before every progress."""

    def __init__(self, at: Any = None) -> None:
        self.at, self.ended_trials = at, []  # type: ignore[var-annotated]
        self.sentences: list[str] = []

    def planned(self, trials: Sequence[Trial], done: Sequence[str]) -> None:
        self.done = list(done)

    def noticed(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def progress(self, trial: Trial, done: int, total: int) -> None:
        if self.at is not None:
            self.at(trial, done, total)

    def ended(self, trial: Trial, record: dict[str, Any]) -> None:
        self.ended_trials.append((trial.id, record["status"]))


class Killed(KeyboardInterrupt):
    """What no code of ours may catch, while a user's model may raise anything else."""


def write_files(folder: Path, prefix: str = "", **about_model: Any) -> dict[str, str]:
    """A model on 4x4, its tokenizer, a feature network and 8x8 pictures, all with random content. prefix: of the names
    of files; about_model: what else the model's file says of it."""
    torch.manual_seed(0)
    tokenizer_config, features_config = (
        TokenizerConfig(codes=11, width=8),
        FeatureConfig(classes=3, width=4, features=8),
    )
    model = toy_model(4, 4)
    networks = {
        "model": (model, {"model": asdict(model.config), **about_model}),
        "tokenizer": (Tokenizer(tokenizer_config), {"tokenizer": asdict(tokenizer_config)}),
        "features": (FeatureNet(features_config), {"features": asdict(features_config)}),
    }
    for name, (network, about) in networks.items():
        tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        save_file(tensors, folder / f"{prefix}{name}.safetensors", metadata={"about": json.dumps(about)})
    rng = np.random.default_rng(0)
    splits: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        splits[f"{split}_images"] = rng.integers(0, 256, (60, 8, 8), np.uint8)
        splits[f"{split}_labels"] = np.arange(60) % 3
    np.savez(folder / f"{prefix}pictures.npz", **splits)  # type: ignore[arg-type]
    written = {name: str(folder / f"{prefix}{name}.safetensors") for name in networks}
    return {"data": str(folder / f"{prefix}pictures.npz"), **written}


def spec_of(files: dict[str, str], **changes: Any) -> RunSpec:
    spec = RunSpec(
        orders=("raster", "radial"), samples=150, held_out=30, rounds=2, batch=2, threads=1, device="cpu",
        only=("quality", "likelihood"), model=files["model"], tokenizer=files["tokenizer"], data=files["data"],
        space=(files["features"],),
    )  # fmt: skip
    return replace(spec, **changes)


def run(spec: RunSpec, folder: Path, watcher: Silent | None = None, **how: Any) -> tuple[Ended, Run]:
    ended = execute(make_agenda(spec, load_subjects(spec)), folder, watcher or Silent(), **how)
    return ended, load_run(folder)


def numbers(one: Run) -> dict[str, Any]:
    """What a resumed run must share: everything but times."""
    timeless = ("wall_s", "ended", "decode_s")
    return {name: {key: value for key, value in t.items() if key not in timeless} for name, t in one.trials.items()}


def flags_of(files: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in files.items() if name in ("model", "tokenizer", "data")]
