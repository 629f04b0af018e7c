"""Put trained weights into the package, with what is measured once and travels with them.

    python scripts/ship_weights.py FOLDER [--data PATH] [--setting guidance=linear:scale=2]
    python scripts/ship_weights.py FOLDER --pyramid

FOLDER holds tokenizer/, features/ and model/, as `bench train` writes them. Copies the three networks and their cards
to models/fashion-*, encodes the test images (fashion-held-out), extracts the features of 10,000 training images and of
the test images (fashion-reference), and refuses a set above 20 MB. With --pyramid, FOLDER/var-tokenizer/ alone is
copied, VAR's tokenizer, and the test images are encoded by it (var-held-out).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from orderbench.models.checkpoint import write_atomically
from orderbench.models.codec import Codec, encode_images
from orderbench.models.data import Images, load_images
from orderbench.models.shipped import load_weights
from orderbench.runs.spaces import N_REFERENCE, feature_space

TARGET = Path(__file__).parent.parent / "models"
LIMIT_BYTES = 20_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", help="a folder or .npz; default Fashion-MNIST from Debian's package")
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help="recommended sampling")
    parser.add_argument("--pyramid", action="store_true", help="ship VAR's tokenizer, and nothing else")
    given = parser.parse_args()
    if given.pyramid:
        file = TARGET / "var-tokenizer.safetensors"
        source = given.folder / "var-tokenizer" / "tokenizer.safetensors"
        load_weights(source, "tokenizer")
        shutil.copyfile(source, file)
        write_card(file, json.loads(source.with_suffix(".card.json").read_text()))
        ship_codes("var-held-out", file, interleaved(load_images(given.data, "test")))
        return
    files = {}
    for kind in ("tokenizer", "features", "model"):
        source = given.folder / kind / f"{kind}.safetensors"
        load_weights(source, kind)  # strictly, and against its card
        files[kind] = TARGET / f"fashion-{kind}.safetensors"
        shutil.copyfile(source, files[kind])
        card = json.loads(source.with_suffix(".card.json").read_text())
        if kind == "model" and given.setting:
            card["setting"] = dict(pair.split("=", 1) for pair in given.setting)
        write_card(files[kind], card)
    train, test = (load_images(given.data, split) for split in ("train", "test"))
    test = interleaved(test)

    ship_codes("fashion-held-out", files["tokenizer"], test)
    space = feature_space(load_weights(files["features"], "features"), "fashion-features", "cpu")
    reference_MD, _ = space.extract(train.images_Nchw[:N_REFERENCE])
    real_ND, real_logits_NC = space.extract(test.images_Nchw)
    assert real_logits_NC is not None
    ship_arrays(
        "fashion-reference",
        {
            "reference_MD": torch.from_numpy(reference_MD),
            "real_ND": torch.from_numpy(real_ND),
            "real_logits_NC": torch.from_numpy(real_logits_NC),
            "real_labels_N": test.labels_N.to(torch.uint8),
        },
        {"arrays": "reference", "space": space.id, "reference": f"{train.name}, {len(reference_MD)} images"},
    )
    sizes = {file.name: file.stat().st_size for file in sorted(TARGET.glob("fashion-*"))}
    for name, size in sizes.items():
        print(f"{size / 1e6:8.3f} MB  {name}")
    print(f"{sum(sizes.values()) / 1e6:8.3f} MB  in all")
    assert sum(sizes.values()) <= LIMIT_BYTES, "the set is larger than 20 MB"


def ship_codes(name: str, file: Path, test: Images) -> None:
    """The codes that a tokenizer makes of the test images, and their labels."""
    tokenizer = load_weights(file, "tokenizer")
    tokens_NL = encode_images(cast(Codec, tokenizer.network), test, "cpu")[..., 0]
    ship_arrays(
        name,
        {"tokens_NL": tokens_NL, "labels_N": test.labels_N.to(torch.uint8)},
        {"arrays": "held-out", "data": test.name, "tokenizer": tokenizer.sha256[:16]},
    )


def interleaved(images: Images) -> Images:
    """Image i has label i modulo C, as samples have: every beginning is balanced. What is left over is left away."""
    by_class = [(images.labels_N == label).nonzero().squeeze(1) for label in range(images.classes)]
    each = min(map(len, by_class))
    picks = torch.stack([places[:each] for places in by_class], dim=1).flatten()
    return Images(images.images_Nchw[picks], images.labels_N[picks], images.name, images.classes)


def ship_arrays(name: str, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    file = TARGET / f"{name}.safetensors"
    whole = {key: tensor.contiguous() for key, tensor in tensors.items()}
    metadata = {"about": json.dumps(about, sort_keys=True)}
    write_atomically(file, lambda temporary: save_file(whole, temporary, metadata=metadata))
    file.chmod(0o644)
    more = " --pyramid" if name.startswith("var-") else ""
    shapes = {key: list(tensor.shape) for key, tensor in whole.items()}
    write_card(file, {"kind": about["arrays"], "about": about, "shapes": shapes,
                      "command": f"python scripts/ship_weights.py FOLDER{more}"})  # fmt: skip


def write_card(file: Path, card: dict[str, Any]) -> None:
    card["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    text = json.dumps(card, indent=1) + "\n"
    write_atomically(file.with_suffix(".card.json"), lambda temporary: temporary.write_text(text))


if __name__ == "__main__":
    main()
