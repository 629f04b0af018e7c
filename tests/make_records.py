"""How the records in tests/records were made: tiny real runs of random weights, with what is not needed taken away.

    OMP_NUM_THREADS=1 python tests/make_records.py tests/records/schema-2

Each is made once and kept: the tests read it so that old records stay readable. A new schema gets a folder of its own.
The run of schema 1 had one model and seeds 0 and 1, over the arms of `raster,radial,hilbert@cosine:4`; the one of
schema 2 has two models, of which the second refuses an arm.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from toys import toy_model

from orderbench.models.config import FeatureConfig, TokenizerConfig, to_plain
from orderbench.models.features import FeatureNet
from orderbench.models.objective import ObjectiveConfig, Share
from orderbench.models.tokenizer import Tokenizer
from orderbench.runs.execute import execute
from orderbench.runs.live import watching
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import load_subjects
from orderbench.runs.trials import make_agenda


def main(out: Path) -> None:
    """Run, then scrub."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = weights(folder)
        spec = RunSpec(
            orders=("raster@native", "radial@native+nested", "regions~one", "radial@native~one"), samples=32,
            held_out=16, rounds=3, batch=2, threads=1, device="cpu", model=(files["model"], "one=toys:regions_model"),
            tokenizer=(files["tokenizer"],), data=files["data"], space=(files["features"],),
        )  # fmt: skip
        with watching({}) as watcher:
            execute(make_agenda(spec, load_subjects(spec)), folder / "run", watcher)
        scrub(folder / "run", folder)
        shutil.copytree(folder / "run", out)


def weights(folder: Path) -> dict[str, str]:
    """A model on 4x4, its tokenizer, a feature network and 8x8 pictures, all with random content."""
    torch.manual_seed(0)
    tokenizer, features = TokenizerConfig(codes=11, width=8), FeatureConfig(classes=3, width=4, features=8)
    model = toy_model(4, 4)
    mixture = (
        Share(order="raster", paces=("one", "even:4"), share=0.5),
        Share(order="radial", paces=("native",), share=0.5),
    )
    networks = {
        "model": (model, {"model": to_plain(model.config), "objective": to_plain(ObjectiveConfig(mixture=mixture))}),
        "tokenizer": (Tokenizer(tokenizer), {"tokenizer": to_plain(tokenizer)}),
        "features": (FeatureNet(features), {"features": to_plain(features)}),
    }
    for name, (network, about) in networks.items():
        tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        save_file(tensors, folder / f"toy-{name}.safetensors", metadata={"about": json.dumps(about)})
    rng = np.random.default_rng(0)
    splits: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        splits[f"{split}_images"] = rng.integers(0, 256, (60, 8, 8), np.uint8)
        splits[f"{split}_labels"] = np.arange(60) % 3
    np.savez(folder / "toy.npz", **splits)  # type: ignore[arg-type]
    return {"data": str(folder / "toy.npz"), **{n: str(folder / f"toy-{n}.safetensors") for n in networks}}


def scrub(run: Path, folder: Path) -> None:
    """No folder and no machine of ours, and no arrays that a report does not read."""
    for file in run.rglob("*.json"):
        text = file.read_text().replace(f"{folder}/", "")
        document = json.loads(text)
        for environment in document.get("environments", []):
            environment |= {"platform": "Linux", "git": None, "argv": ["bench", "run", "--orders", "raster,radial"]}
            environment["cpu"]["model"] = "a processor"
        if document.get("kind") == "latency":
            document["device"]["cpu"]["model"] = "a processor"
        file.write_text(json.dumps(document, indent=1) + "\n")
    for file in (run / "data").iterdir():
        if not file.name.endswith((".bits.npz", ".pictures.npz")):
            file.unlink()
    (run / ".lock").unlink(missing_ok=True)
    shutil.rmtree(run / "tiles", ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
