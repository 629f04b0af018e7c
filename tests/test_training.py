"""Training: what is drawn is addressed, so killed runs go on bit for bit and processes split a batch."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cli import BENCH, bench

from orderbench.models.checkpoint import read_pickle, write_atomically
from orderbench.models.codec import encode_images
from orderbench.models.config import FeatureConfig, ModelConfig, TokenizerConfig
from orderbench.models.data import Images, load_images, resize, to_uint8
from orderbench.models.features import FeatureNet
from orderbench.models.objective import RANDOM_ONLY, SHIPPED, ModelJob, ObjectiveConfig, Share
from orderbench.models.recipes import crop_and_flip
from orderbench.models.shipped import load_shipped, load_weights, shipped_names
from orderbench.models.systems import SYSTEMS
from orderbench.models.tokenizer import Tokenizer
from orderbench.models.train import TrainConfig, batch_indices, fit, make_optimizers
from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError, Grid, make_plan, order_names
from orderbench.runs.device import choose_device
from orderbench.runs.training import RECIPES, TrainSpec, train

QUICK = ["--side", "8", "--threads", "1", "--no-bf16", "--batch", "8"]

MIXTURE = {
    "mixture": [
        {"order": "raster", "paces": ["one", "even:5"], "share": 0.4},
        {"order": "radial", "paces": ["native"], "share": 0.3},
        {"order": "random", "paces": ["cosine:5"], "share": 0.3},
    ],
    "nested": 0.5,
}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """200 pictures of 8x8 in three classes: blobs whose place tells the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 3
    row, col = np.mgrid[:8, :8]
    images = [np.exp(-((row - 2 - 2 * c) ** 2 + (col - rng.uniform(2, 6)) ** 2) / 4) * 255 for c in labels]
    file = tmp_path_factory.mktemp("data") / "blobs.npz"
    np.savez(file, images=np.array(images).astype(np.uint8), labels=labels)
    return str(file)


@pytest.fixture(scope="session")
def tokenizer(pictures: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    done = bench("train", "tokenizer", "--out", str(folder), "--data", pictures, "--steps", "40", *QUICK)
    assert done.returncode == 0, done.stderr
    return str(folder / "tokenizer.safetensors")


def asked(what: str, out: Path, pictures: str, tokenizer: str, *more: str) -> list[str]:
    if what == "model":
        mixture = Path(pictures).with_name("mixture.json")
        mixture.write_text(json.dumps(MIXTURE))
        more = ("--tokenizer", tokenizer, "--mixture", str(mixture), *more)
    return ["train", what, "--out", str(out), "--data", pictures, "--steps", "8", "--every", "2", *QUICK, *more]


def weights(folder: Path, what: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{what}.safetensors")


def test_a_trained_tokenizer_rebuilds_its_pictures(pictures: str, tokenizer: str) -> None:
    card = json.loads(Path(tokenizer).with_suffix("").with_suffix(".card.json").read_text())
    curve = card["learning_curve"]
    assert curve[-1]["held_out_mse"] < 0.2
    assert card["figures"]["codes_used"] > 8
    perplexity = card["figures"]["code_perplexity"]
    assert 2 < perplexity <= card["figures"]["codes_used"]
    assert math.log2(perplexity) == pytest.approx(card["figures"]["code_entropy_bits"])
    assert card["about"]["data"] == "blobs.npz/train"
    assert card["steps_done"] == 40
    assert len(card["sha256"]) == 64


@pytest.mark.parametrize("what", ["tokenizer", "features", "model"])
def test_a_killed_run_goes_on_bit_for_bit(what: str, tmp_path: Path, pictures: str, tokenizer: str) -> None:
    whole = bench(*asked(what, tmp_path / "whole", pictures, tokenizer))
    assert whole.returncode == 0, whole.stderr
    cut = tmp_path / "cut"
    checkpoint = cut / "checkpoint.pt"
    with subprocess.Popen(
        [*BENCH, *asked(what, cut, pictures, tokenizer)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not (checkpoint.exists() and read_pickle(checkpoint)["step"] >= 2):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    step = read_pickle(checkpoint)["step"]
    assert step >= 2
    again = bench(*asked(what, cut, pictures, tokenizer, "--resume", "--json"))
    assert again.returncode == 0, again.stderr
    card = json.loads(again.stdout)
    assert card["steps_done"] == 8
    assert [entry["step"] for entry in card["learning_curve"]] == [2, 4, 6, 8]
    one, two = weights(tmp_path / "whole", what), weights(cut, what)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not [file for file in os.listdir(cut) if file.startswith(".part")]  # nor what the kill left half-written


def test_a_residual_network_goes_on_bit_for_bit(tmp_path: Path, pictures: str) -> None:
    """Its normalization counts, and every image's crop and flip are addressed."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    card = here("features", whole, pictures, network="residual")
    assert card["about"]["features"]["network"] == "residual"  # type: ignore[index]
    assert card["about"]["augment"] == "crop+flip"  # type: ignore[index]
    here("features", cut, pictures, network="residual", minutes=1e-9)
    assert read_pickle(cut / "checkpoint.pt")["step"] == 1
    with pytest.raises(BenchError, match="was trained otherwise than now asked"):
        here("features", cut, pictures, resume=True)
    here("features", cut, pictures, network="residual", resume=True)
    one, two = weights(whole, "features"), weights(cut, "features")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(BenchError, match="the feature network's network is 'deep'; plain or residual would do"):
        here("features", tmp_path / "deep", pictures, network="deep")


def test_the_plain_features_are_described_as_before_there_was_another_network(tmp_path: Path, pictures: str) -> None:
    about = here("features", tmp_path, pictures)["about"]
    assert about == {
        "data": "blobs.npz/train", "features": {"channels": 1, "classes": 3, "width": 32, "features": 64}
    }  # fmt: skip
    shipped = load_shipped("fashion-features", "features").network
    assert isinstance(shipped, FeatureNet)
    assert shipped.config.network == "plain"


def test_each_image_is_cropped_and_flipped_by_itself() -> None:
    images = torch.arange(4 * 2 * 6 * 7).reshape(4, 2, 6, 7).float()
    drawn = torch.tensor([[4, 4, 0], [4, 4, 1], [0, 8, 0], [8, 3, 1]])
    cropped = crop_and_flip(images, drawn)
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
    assert torch.equal(cropped[0], images[0])
    assert torch.equal(cropped[1], images[1].flip(-1))
    assert torch.equal(cropped[2], padded[2, :, 0:6, 8:15])
    assert torch.equal(cropped[3], padded[3, :, 8:14, 3:10].flip(-1))


def test_minutes_stop_and_steps_keep_the_schedule(tmp_path: Path, pictures: str, tokenizer: str) -> None:
    done = bench(*asked("model", tmp_path / "a", pictures, tokenizer, "--minutes", "0.0001", "--json"))
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert (card["steps_done"], card["train"]["steps"]) == (1, 8)


def test_two_processes_split_a_batch(
    tmp_path: Path, pictures: str, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under AdamW alone: Muon gives directions without a gradient, which are rounding, steps as long as any other."""
    monkeypatch.setitem(RECIPES, "model", replace(RECIPES["model"], muon=0.0))
    here("model", tmp_path / "one", pictures, tokenizer)
    launcher = tmp_path / "launch.py"
    launcher.write_text(
        "from dataclasses import replace\n"
        "from orderbench.runs.cli import main\n"
        "from orderbench.runs.training import RECIPES\n"
        "RECIPES['model'] = replace(RECIPES['model'], muon=0.0)\n"
        "main()\n"
    )
    two = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(launcher),
         *asked("model", tmp_path / "two", pictures, tokenizer)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    a, b = weights(tmp_path / "one", "model"), weights(tmp_path / "two", "model")
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-4, rtol=0)
    assert two.stdout.count("wrote ") == 1


def here(what: str, out: Path, pictures: str, tokenizer: str = "", **more: object) -> dict[str, object]:
    """The same training, in this process."""
    if what == "model":
        mixture = Path(pictures).with_name("mixture.json")
        mixture.write_text(json.dumps(MIXTURE))
        more = {"tokenizer": Path(tokenizer) if tokenizer else None, "mixture": str(mixture), **more}
    quick = {"steps": 8, "every": 2, "batch": 8, "side": 8, "bf16": False, "device": "cpu"}
    spec = TrainSpec(what=what, out=out, data=pictures, **{**quick, **more})  # type: ignore[arg-type]
    return train(spec, lambda _: None, lambda _step, _steps: None)


def test_a_training_whose_operations_cannot_be_counted_keeps_its_weights_and_its_card(
    tmp_path: Path, pictures: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = here("tokenizer", tmp_path / "counted", pictures, side=8)["training_flops"]
    assert counted == float(f"{counted:.3g}") > 0  # type: ignore[arg-type]

    def fail(*_: object) -> float:
        raise RuntimeError("no formula")

    monkeypatch.setattr("orderbench.runs.training.training_flops", fail)
    told: list[str] = []
    spec = TrainSpec(what="tokenizer", out=tmp_path / "not", data=pictures, steps=2, batch=8, side=8, device="cpu")
    card = train(spec, lambda _: None, lambda _step, _steps: None, told.append)
    assert "training_flops" not in card
    assert "are not counted, and its card leaves them out: RuntimeError: no formula" in told[-1]
    assert (tmp_path / "not" / "tokenizer.card.json").exists()
    assert weights(tmp_path / "not", "tokenizer")


def test_training_goes_on_from_given_weights(tmp_path: Path, pictures: str, tokenizer: str) -> None:
    here("model", tmp_path / "a", pictures, tokenizer)
    here("model", tmp_path / "b", pictures, tokenizer, init=tmp_path / "a" / "model.safetensors", learning_rate=1e-12)
    a, b = weights(tmp_path / "a", "model"), weights(tmp_path / "b", "model")
    assert all((a[name] - b[name]).abs().max() < 1e-6 for name in a)
    assert 5e-324 * 1.0 > 0  # training flushes what is denormal, and whoever called it does not


def test_a_cut_between_two_revivals_changes_nothing(tmp_path: Path, pictures: str) -> None:
    """Which codes are dead is counted over fifty steps; a checkpoint in between must keep the count."""

    class Cut(Exception):
        pass

    def stop_at_30(step: int, _steps: int) -> None:
        if step == 30:
            raise Cut

    here("tokenizer", tmp_path / "whole", pictures, steps=120, every=7)
    spec = TrainSpec(
        what="tokenizer",
        out=tmp_path / "cut",
        data=pictures,
        steps=120,
        every=7,
        batch=8,
        side=8,
        bf16=False,
        device="cpu",
    )
    with pytest.raises(Cut):
        train(spec, lambda _: None, stop_at_30)
    here("tokenizer", tmp_path / "cut", pictures, steps=120, every=7, resume=True)
    one, two = weights(tmp_path / "whole", "tokenizer"), weights(tmp_path / "cut", "tokenizer")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_mistakes(tmp_path: Path, pictures: str, tokenizer: str) -> None:
    out, new = tmp_path / "run", tmp_path / "new"
    here("model", out, pictures, tokenizer)
    bad = tmp_path / "bad.npz"
    np.savez(bad, images=np.zeros((3, 8, 8)), labels=np.zeros(3, int))
    bare = tmp_path / "bare.safetensors"  # without a card, which would name a side
    bare.write_bytes(Path(tokenizer).read_bytes())
    cases = [
        (lambda: here("model", out, pictures, tokenizer), "holds a training run already; go on with --resume"),
        (
            lambda: here("model", new, pictures, tokenizer, resume=True),
            "holds no training run to go on with; leave --resume out",
        ),
        (lambda: here("model", out, pictures, tokenizer, resume=True, seed=1), "was trained otherwise than now asked"),
        (lambda: here("model", new, pictures), "as in --tokenizer tokenizer.safetensors"),
        (lambda: here("modell", out, pictures), "no recipe named 'modell'; tokenizer, features, model would do"),
        (lambda: here("tokenizer", new, "nowhere"), "there are no images at 'nowhere'"),
        (lambda: here("tokenizer", new, str(bad)), "holds images of float64"),
        (lambda: here("model", new, pictures, pictures), "is not a whole torch file"),
        (lambda: here("model", new, pictures, str(out / "model.safetensors")), "holds model, not tokenizer"),
        (lambda: here("tokenizer", new, pictures, device="tpu9"), "no device named 'tpu9'; auto, cpu"),
        (lambda: here("tokenizer", new, pictures, steps=0), "a value of 0 for steps; it is 1 or more, as in 3000"),
        (lambda: here("tokenizer", new, pictures, learning_rate=float("nan")), "a value of nan for learning rate"),
        (lambda: here("tokenizer", new, pictures, minutes=float("nan")), "--minutes above 0"),
        (lambda: here("tokenizer", new, pictures, codes=1), "a tokenizer of 1 codes"),
        (lambda: here("tokenizer", new, pictures, minutes=0.0), "--every is 1 or more and --minutes above 0"),
        (lambda: here("tokenizer", new, pictures, threads=0), "0 threads cannot train; give 1 or more, as in"),
        (
            lambda: here("tokenizer", new, pictures, side=0),
            "--side 0 cannot be; from 2 to 4,096 would do, as in --side",
        ),
        (lambda: here("tokenizer", new, pictures, side=-2), "--side -2 cannot be"),
        (lambda: here("tokenizer", new, pictures, side=100_000), "--side 100000 cannot be"),
        (lambda: here("tokenizer", new, pictures, side=33), "--side 33 does not divide into cells of 2 pixels"),
        (lambda: here("tokenizer", new, pictures, codes=10**12), "--codes 1e+12 cannot be; up to 1,048,576 would do"),
        (lambda: here("tokenizer", new, pictures, batch=10**11), "--batch 1e+11 cannot be; up to"),
        (lambda: here("tokenizer", new, pictures, batch=1 << 20, side=4096), "GB, more than this machine's memory"),
        (lambda: here("tokenizer", new, pictures, learning_rate=1e300), "--learning-rate 1e+300 cannot be; up to 10"),
        (lambda: here("tokenizer", new, pictures, threads=99999999999), "--threads 1e+11 cannot be; up to 1,024"),
        (
            lambda: here("model", new, pictures, tokenizer, side=16),
            f"--side 16 is not the side of the images that '{tokenizer}' was trained on, which is 8; give --side 8, or",
        ),
        (lambda: here("model", new, pictures, str(bare), side=16, mixture="best"), "no mixture named 'best'"),
        (lambda: here("model", new, pictures, tokenizer, mixture="best"), "no mixture named 'best'"),
        (lambda: here("model", new, pictures, tokenizer, mixture="shipped"), "on a 4x4 grid of 16 cells"),
        (lambda: here("model", new, pictures, tokenizer, init=Path(tokenizer)), "does not fit Transformer: missing"),
    ]
    for call, sentence in cases:
        with pytest.raises(BenchError) as refusal:
            call()
        assert sentence in str(refusal.value)
    assert not new.exists()
    done = bench(*asked("model", out, pictures, tokenizer))  # and as a user sees one of them
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_weights_are_checked_against_their_card(tokenizer: str, tmp_path: Path) -> None:
    for suffix in (".safetensors", ".card.json"):
        source = Path(tokenizer).with_suffix("").with_suffix(suffix)
        (tmp_path / source.name).write_bytes(source.read_bytes())
    copy = tmp_path / "tokenizer.safetensors"
    assert load_weights(copy).kind == "tokenizer"
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(bytes(content))
    with pytest.raises(BenchError, match="is not the file that its card describes"):
        load_weights(copy)
    with pytest.raises(BenchError, match="no shipped weights named 'nothing'"):
        load_shipped("nothing")
    with pytest.raises(BenchError, match="no shipped model named 'fashion-features'; did you mean 'fashion-model'"):
        load_shipped("fashion-features", "model")


def test_cards_that_are_none_are_named(tokenizer: str, tmp_path: Path) -> None:
    copy = tmp_path / "tokenizer.safetensors"
    copy.write_bytes(Path(tokenizer).read_bytes())
    for text, sentence in [
        ('{"sha', "card.json' is not a whole card: "),
        ("[1]", "card.json' is not a whole card: it is a list, and a table of names and values would do"),
    ]:
        copy.with_suffix(".card.json").write_text(text)
        with pytest.raises(BenchError, match=sentence):
            load_weights(copy)


@pytest.mark.parametrize(
    ("what", "changes", "sentence"),
    [
        ("features", {"width": -1}, "the feature network's width is -1; give a whole number of 1 or more"),
        ("features", {"width": "x"}, "the feature network's width is 'x'; give"),
        ("features", {"width": 10**12}, "describes a network that cannot be: "),
        ("features", {"width": 10**30}, "cannot be: it holds a whole number of more than 18 digits"),
        ("tokenizer", {"channels": -2}, "the tokenizer's channels is -2; give"),
        ("tokenizer", {"decoder_blocks": 999_999_999}, "tensors, too few for 999999999 blocks; name another file"),
        ("model", {"ffn": "x"}, "the model's ffn is 'x'; give"),
        ("model", {"label": ["slot"]}, "the model's label is ['slot']; slot or slot+query would do"),
        ("model", {"colour": 1}, "does not hold a ModelConfig: unknown ['colour']"),
        ("model", 7, "says of itself what cannot be: it gives model as 7, and a table of names and values would do"),
    ],
)
def test_metadata_is_not_to_be_trusted(what: str, changes: Any, sentence: str, tmp_path: Path) -> None:
    good: dict[str, dict[str, Any]] = {
        "features": vars(FeatureConfig()),
        "tokenizer": vars(TokenizerConfig()),
        "model": vars(
            ModelConfig(codes=5, classes=2, rows=4, cols=4, width=16, heads=2, self_blocks=1, cross_blocks=1)
        ),
    }
    about = {what: {**good[what], **changes} if isinstance(changes, dict) else changes}
    file = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, file, metadata={"about": json.dumps(about)})
    with pytest.raises(BenchError) as refusal:
        load_weights(file)
    assert sentence in str(refusal.value)


def test_every_shipped_file_is_whole_and_the_set_is_small() -> None:
    sizes = []
    for name in shipped_names():
        loaded = load_shipped(name)
        assert loaded.card["sha256"] == loaded.sha256
        assert {"about", "train", "command", "figures", "images_seen"} <= set(loaded.card)
        assert all(p.isfinite().all() for p in loaded.network.parameters())
        sizes.append(sum(p.numel() for p in loaded.network.parameters()) * 4)
    assert sum(sizes) <= 20e6 + 4e6 * len(SYSTEMS.names())


# The parts


class Alone:
    """The least job: one weight, and a loss of it."""

    name = "alone"

    def __init__(self, cost: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.cost = cost

    def build(self) -> torch.nn.Module:
        return torch.nn.Linear(1, 1, bias=False)

    def hidden_matrices(self, network: torch.nn.Module) -> list[torch.nn.Parameter]:
        return []

    def ships(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(state)

    def describe(self) -> dict[str, Any]:
        return {}

    def loss(self, network: torch.nn.Module, *_: Any) -> tuple[torch.Tensor, dict[str, float]]:
        return self.cost(next(network.parameters())).sum(), {}

    def after(self, network: torch.nn.Module, step: int) -> None:
        pass

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        pass

    def evaluate(self, network: torch.nn.Module) -> dict[str, float]:
        return {}

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (lambda w: (w - w).sqrt(), "its gradient nan"),  # a loss of 0, with a slope of infinity times 0
        (lambda w: w / 0, "the loss of alone is (-?inf|nan)"),
    ],
)
def test_what_is_not_finite_reaches_no_weight(
    cost: Callable[[torch.Tensor], torch.Tensor], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match=rf"{said}.* at step 0; the last checkpoint is whole, and a smaller"):
        fit(Alone(cost), TrainConfig(steps=2, batch=1), tmp_path, every=1)
    state = read_pickle(tmp_path / "checkpoint.pt")
    assert state["step"] == 0
    assert state["network"]["weight"].isfinite().all()


@pytest.mark.parametrize(("module", "says"), [("torch._inductor.exc", "leave --compile out"), ("torch", "no room")])
def test_what_the_compiler_raises_is_told_from_what_else_goes_wrong(module: str, says: str, tmp_path: Path) -> None:
    kind: type[RuntimeError] = type("Wrong", (RuntimeError,), {"__module__": module})

    def cost(weight: torch.Tensor) -> torch.Tensor:
        raise kind("no room")

    with pytest.raises(BenchError if "inductor" in module else RuntimeError, match=says):
        fit(Alone(cost), TrainConfig(steps=2, batch=1), tmp_path, every=1)


@pytest.mark.parametrize("library", ["python", "torch", "safetensors"])
def test_a_full_disk_is_one_sentence(library: str, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    ones = torch.ones(1 << 20)
    write: dict[str, Callable[[Path], object]] = {
        "python": lambda file: file.write_bytes(bytes(1 << 20)),
        "torch": lambda file: torch.save({"ones": ones}, file),
        "safetensors": lambda file: save_file({"ones": ones}, file),
    }
    file = tmp_path / "weights"
    file.write_text("as before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(BenchError, match=r"weights' could not be written: .+; name another place"):
            write_atomically(file, write[library])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("weights", "as before")]
    with pytest.raises(BenchError, match=r"could not be written: .*; name another place"):
        write_atomically(file / "below" / "a" / "file", write["python"])


def test_every_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *_, device: torch.device(device))  # as if it were there
    assert choose_device("auto") == choose_device("cuda") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("auto") == choose_device("cuda") == "cuda:3"
    assert (choose_device("cuda:1"), choose_device("cpu")) == ("cuda:1", "cpu")


@pytest.mark.parametrize(("side", "batch"), [(8, 500), (32, 500), (256, 7), (1024, 1)])
def test_large_images_are_encoded_a_few_at_once(side: int, batch: int) -> None:
    seen = []

    class Sums:
        code_sizes = (3,)

        def encode(self, images_Bchw: torch.Tensor) -> torch.Tensor:
            seen.append(len(images_Bchw))
            return images_Bchw[:, 0, :1, :1].round().long() + 1

    n = batch + 1
    numbers = torch.arange(n, dtype=torch.uint8) % 2 * 255
    images = Images(numbers[:, None, None, None].expand(n, 1, side, side), torch.zeros(n), "", 1)
    codes_NLK = encode_images(Sums(), images, "cpu")  # type: ignore[arg-type]
    assert (codes_NLK.shape, codes_NLK.dtype) == ((n, 1, 1), torch.uint8)
    assert codes_NLK[:, 0, 0].tolist() == [2 * (i % 2) for i in range(n)]
    assert seen == [batch, 1]


def test_every_epoch_sees_every_image_once() -> None:
    seen = torch.cat([batch_indices(50, 8, step, seed=1) for step in range(25)])
    for epoch in range(4):
        assert sorted(seen[50 * epoch : 50 * (epoch + 1)].tolist()) == list(range(50))
    assert seen[:50].tolist() != seen[50:100].tolist()


def test_the_learning_rate_warms_up_and_falls() -> None:
    config = TrainConfig(steps=100, warmup=10, learning_rate=1.0)
    rates = [config.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.02


def test_dead_codes_are_revived() -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(codes=8))
    latent = tokenizer.latents(torch.rand(2, 1, 8, 8) * 2 - 1)
    before = tokenizer.codebook_Vz.detach().clone()
    used_V = torch.tensor([1, 0, 5, 0, 1, 1, 1, 1])
    assert tokenizer.revive(used_V, latent.flatten(2).transpose(1, 2), torch.arange(8)) == 2
    moved = (tokenizer.codebook_Vz != before).any(-1)
    assert moved.tolist() == (used_V == 0).tolist()
    assert torch.allclose(tokenizer.codebook_Vz[1], latent[:, :, 0, 1][0], atol=1e-6)


def test_the_shipped_mixture_leaves_orders_out_on_purpose() -> None:
    seen = {part.order.partition(":")[0] for part in SHIPPED.mixture}
    assert set(order_names()) - seen >= {"hilbert", "z-curve", "dither", "checkerboard", "locality"}
    for mixture in (SHIPPED, RANDOM_ONLY):
        for part in mixture.mixture:
            for pace in part.paces:
                assert make_plan(part.order, Grid(16, 16), pace).n_steps >= 1
    with pytest.raises(BenchError, match=r"the mixture's shares sum to 0\.5; they must sum to 1"):
        ObjectiveConfig(mixture=(Share(order="raster", paces=("one",), share=0.5),))


def test_mixture_shares_are_drawn_as_stated() -> None:
    tokens = torch.zeros(4, 16, dtype=torch.uint8)
    model = ModelConfig(codes=4, classes=2, rows=4, cols=4, width=16, heads=2, self_blocks=1, cross_blocks=1)
    half = ObjectiveConfig(
        mixture=(Share(order="raster", paces=("one",), share=0.7), Share(order="column", paces=("one",), share=0.3))
    )
    job = ModelJob(model, half, tokens, torch.zeros(4, dtype=torch.int64), (tokens, torch.zeros(4, dtype=torch.int64)),
                   data="none", seed=0, device="cpu")  # fmt: skip
    raster = make_plan("raster", Grid(4, 4))
    rng = np.random.default_rng(0)
    share = np.mean([job.draw_plan(rng) == raster for _ in range(600)])
    assert abs(share - 0.7) < 0.08


def test_resizing_keeps_constants_and_means() -> None:
    flat = torch.full((2, 1, 28, 28), 77, dtype=torch.uint8)
    assert torch.equal(resize(flat, 32), torch.full((2, 1, 32, 32), 77, dtype=torch.uint8))
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.integers(0, 256, (4, 1, 28, 28), dtype=np.uint8))
    assert abs(resize(noise, 32).float().mean() - noise.float().mean()) < 2
    assert to_uint8(torch.tensor([-1.0, 0.0, 1.0, 5.0])).tolist() == [0, 128, 255, 255]


def save_pictures(folder: Path, name: str, n: int, red: int) -> None:
    """n pictures of a class, in folder/name: its colour is red, which of them it is, green."""
    from PIL import Image

    (folder / name).mkdir(parents=True)
    for i in range(n):
        Image.new("RGB", (20, 10), (red, i, 0)).save(folder / name / f"{i:02d}.png")


def read(source: Path, split: str, limit: int | None = None) -> list[tuple[int, int, int]]:
    """Label, red and green of every image."""
    images = load_images(str(source), split, side=8, limit=limit)
    assert images.images_Nchw.shape == (len(images), 3, 8, 8)
    assert (images.name, images.classes) == (f"{source.name}/{split}", 2)
    corner = images.images_Nchw[:, :2, 0, 0].tolist()
    return [(label, *colours) for label, colours in zip(images.labels_N.tolist(), corner, strict=True)]


def test_a_folder_of_pictures_by_class(tmp_path: Path) -> None:
    for name, red in (("cat", 0), ("dog", 200)):
        save_pictures(tmp_path / "train", name, 30, red)
    save_pictures(tmp_path / "test", "dog", 3, 200)
    save_pictures(tmp_path / "train", ".cache", 3, 100)
    train = read(tmp_path, "train")
    assert sorted(train) == sorted((label, 200 * label, i) for label in (0, 1) for i in range(30))
    assert 5 <= sum(label for label, *_ in train[:20]) <= 15
    assert read(tmp_path, "train", limit=7) == train[:7]
    assert sorted(read(tmp_path, "test")) == [(1, 200, i) for i in range(3)]  # a dog has train's number
    with pytest.raises(BenchError, match="holds no images for train; a folder of"):
        load_images(str(tmp_path / "train" / "cat"), "train", side=8)
    save_pictures(tmp_path / "test", "emu", 1, 50)
    with pytest.raises(BenchError, match=r"test' holds the classes emu, which '.*train' does not; leave out those"):
        load_images(str(tmp_path), "test", side=8)


@pytest.mark.parametrize("form", ["folder", "train alone", "npz"])
def test_without_a_split_a_tenth_of_every_class_is_held_out(form: str, tmp_path: Path) -> None:
    source = tmp_path / "own"
    if form == "npz":
        source = tmp_path / "own.npz"
        images = np.zeros((60, 8, 8, 3), np.uint8)
        images[30:, ..., 0], images[..., 1] = 200, (np.arange(60) % 30)[:, None, None]
        np.savez(source, images=images, labels=np.arange(60) // 30)
    else:
        for name, red in (("cat", 0), ("dog", 200)):
            save_pictures(source / "train" if form == "train alone" else source, name, 30, red)
    train, test = read(source, "train"), read(source, "test")
    assert [len(train), len(test), sum(label for label, *_ in test)] == [54, 6, 3]
    assert sorted(train + test) == sorted((label, 200 * label, i) for label in (0, 1) for i in range(30))
    assert 5 <= sum(label for label, *_ in train[:20]) <= 15  # every beginning is a fair sample
    assert train == read(source, "train")
    assert read(source, "test", limit=2) == test[:2]


def test_an_npz_of_two_splits_keeps_them_apart(tmp_path: Path) -> None:
    source = tmp_path / "own.npz"
    splits = {
        "train_images": np.zeros((4, 8, 8, 3), np.uint8),
        "train_labels": np.arange(4) % 2,
        "test_images": np.full((3, 8, 8, 3), 9, np.uint8),
        "test_labels": np.zeros(3, int),
    }
    np.savez(source, **splits)  # type: ignore[arg-type]
    assert sorted(read(source, "train")) == [(0, 0, 0), (0, 0, 0), (1, 0, 0), (1, 0, 0)]
    assert read(source, "test") == [(0, 9, 9)] * 3
    np.savez(source, **{**splits, "test_labels": np.array([0, 2, 0])})  # type: ignore[arg-type]
    with pytest.raises(BenchError, match="holds test images of class 2, and training images of 0 to 1 alone"):
        load_images(str(source), "test", side=8)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(BenchError, match="does not hold images and labels as plain arrays"):
        load_images(str(tmp_path / "array.npy"), "train")
    np.savez(source, images=np.zeros((1, 8, 8), np.uint8), labels=np.zeros(1, int))
    with pytest.raises(BenchError, match="holds 1 images, too few for two splits"):
        load_images(str(source), "train")


def test_fashion_mnist_files_are_checked(tmp_path: Path) -> None:
    import gzip

    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x01\0"))
    with pytest.raises(BenchError, match="is not the original file of Fashion-MNIST"):
        load_images(str(tmp_path), "train")
    flipped = bytearray(gzip.compress(bytes(range(256))))
    flipped[10] ^= 0xFF  # in the compressed stream: zlib's own error
    for content in (b"not gzip", bytes(flipped)):
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
        with pytest.raises(BenchError, match="could not be read"):
            load_images(str(tmp_path), "train")


def test_muon_takes_the_matrices_between_embeddings_and_head(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(codes=5, classes=2, rows=4, cols=4, width=16, heads=2, self_blocks=1, cross_blocks=1)
    network = Transformer(config)
    hidden = network.hidden_matrices()
    left = {name for name, p in network.named_parameters() if all(p is not h for h in hidden)}
    assert left == {n for n, p in network.named_parameters() if p.ndim < 2} | {
        "embeddings.weight",
        "table_LD",
        "head.weight",
    }
    adamw, muon = make_optimizers(network, hidden, TrainConfig(steps=10, muon=2.0))
    assert [group["share"] for group in muon.param_groups] == [2.0]
    assert sum(len(g["params"]) for o in (adamw, muon) for g in o.param_groups) == len(list(network.parameters()))
    (alone,) = make_optimizers(network, hidden, TrainConfig(steps=10))
    assert sum(len(g["params"]) for g in alone.param_groups) == len(list(network.parameters()))
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(BenchError, match=r"has no Muon; torch 2\.9 or newer would do"):
        make_optimizers(network, hidden, TrainConfig(steps=10, muon=2.0))
