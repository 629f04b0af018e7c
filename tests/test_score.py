"""Samples made elsewhere are judged as a run judges its own, whatever they lie in; what does not fit is a sentence."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kept import printed
from PIL import Image

from orderbench.orders import BenchError
from orderbench.reports.scores import score_notes, scores, scores_json
from orderbench.runs import cli
from orderbench.runs.export import export_run
from orderbench.runs.record import Run
from orderbench.runs.score import read_samples, score


@pytest.fixture(scope="module")
def exported(whole: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples of a run, as files and as folders."""
    folder = tmp_path_factory.mktemp("exported")
    export_run(whole, folder, npz=True, png=True, device="cpu")
    return folder


@pytest.fixture(scope="module")
def reference(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pictures that the run was held against, in ADM's layout."""
    file = tmp_path_factory.mktemp("reference") / "train.npz"
    with np.load(files["data"]) as arrays:
        np.savez(file, arr_0=arrays["train_images"][..., None])
    return str(file)


def npz(file: Path, images: np.ndarray, labels: np.ndarray | None = None) -> Path:
    np.savez(file, arr_0=images, **({} if labels is None else {"arr_1": labels}))
    return file


def test_samples_of_a_run_have_the_numbers_of_the_run(
    whole: Run, exported: Path, files: dict[str, str], reference: str
) -> None:
    (trial,) = [trial for trial in whole.done("quality") if trial["arm"] == "radial"]
    (measured,) = trial["quality"]
    (file,), (folder,) = exported.glob("radial-s*.npz"), [one for one in exported.glob("radial-s*") if one.is_dir()]
    found = score([file, folder], [files["features"]], reference)
    for one in found["samples"]:
        (result,) = one["quality"]
        assert (one["n"], one["size"], one["channels"], one["labelled"]) == (150, 8, 1, True)
        for metric in ("fd", "kd", "agreement", "inception_score", "precision", "recall"):
            assert result[metric]["value"] == pytest.approx(measured[metric]["value"], rel=1e-4), metric
        assert result["fd"]["left_out"] == pytest.approx(measured["fd"]["left_out"], rel=1e-4)
    assert "(real)" not in printed(scores(found, 120), 120)


def test_the_order_in_a_file_is_nothing_to_go_by(
    exported: Path, files: dict[str, str], reference: str, tmp_path: Path
) -> None:
    (file,) = exported.glob("radial-s*.npz")
    with np.load(file) as arrays:
        by_class = np.argsort(arrays["arr_1"], kind="stable")
        sorted_file = npz(tmp_path / "sorted.npz", arrays["arr_0"][by_class], arrays["arr_1"][by_class])
    found = score([file, sorted_file], [files["features"]], reference)
    (one,), (two,) = (each["quality"] for each in found["samples"])
    assert two["fd"]["left_out"] == pytest.approx(one["fd"]["left_out"])  # a group holds every class in both


def test_a_table_says_what_it_rests_on_and_what_is_missing(
    files: dict[str, str], reference: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    many = npz(tmp_path / "many.npz", rng.integers(0, 256, (40, 8, 8, 1), np.uint8), np.arange(40) % 7)
    few = npz(tmp_path / "few.npz", rng.integers(0, 256, (30, 8, 8, 1), np.uint8))
    found = score([many, few], [files["features"]], reference)
    notes = list(score_notes(found))
    assert notes[0].endswith("against train.npz, 60 images; n = 30, 40. Not FID.")
    assert "n = 30 is small for 8 dimensions" in notes[1]
    assert notes[2].startswith("No agreement: the labels of many.npz are not of the classes that features-")
    assert notes[3] == "The sets are of different sizes, and FD falls with n: compare sets of equal n."
    assert notes[4].startswith(
        "No agreement: nothing says for which classes few.npz were made; arr_1 in an .npz would,"
    )
    document = scores_json(found)
    assert [one["name"] for one in document["samples"]] == ["many.npz", "few.npz"]
    assert document["notes"] == notes
    figures = document["samples"][0]["quality"][0]["figures"]
    assert figures["fd"]["low"] < figures["fd"]["value"] < figures["fd"]["high"]
    shown = printed(scores(found, 80), 80)
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "many.npz" in shown


def test_folders_have_the_classes_of_their_folders_and_sizes_are_brought_together(tmp_path: Path) -> None:
    for label, width in (("0", 20), ("1", 16), ("10", 16), ("2", 16)):
        (tmp_path / "made" / label).mkdir(parents=True)
        for number in range(2):
            pixels = np.full((16, width), 40 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "made" / label / f"{number}.png")
    with pytest.raises(BenchError, match=r"holds pictures of 16x16 and 20x16 pixels, .* --size 16 cuts squares out"):
        read_samples(tmp_path / "made")
    samples = read_samples(tmp_path / "made", 8)
    assert samples.images_Nchw.shape == (8, 1, 8, 8)
    assert samples.labels_N is not None
    assert samples.labels_N.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert samples.rule == "shorter side to 8, centre crop"


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": np.zeros(3)}, "holds no arr_0; an .npz with arr_0, uint8 images"),
        ({"arr_0": np.zeros((2, 8, 8, 3), np.float32)}, r"holds arr_0 of float32 and shape \(2, 8, 8, 3\)"),
        ({"arr_0": np.zeros((2, 3, 8, 8), np.uint8)}, r"its channels come first, so turn it: arr_0.transpose\(0, 2, 3"),
        ({"arr_0": np.zeros((2, 8, 8, 4), np.uint8)}, r"of shape \(2, 8, 8, 4\), 4 channels; an .npz with"),
        ({"arr_0": np.zeros((2, 8, 6, 3), np.uint8)}, "images of 6x8 pixels, and samples are squares; --size 6 cuts"),
        ({"arr_0": np.zeros((2, 8, 8, 1), np.uint8), "arr_1": np.array([0.5, 1])}, "holds arr_1 of float64 and shape"),
        ({"arr_0": np.zeros((2, 8, 8, 1), np.uint8), "arr_1": np.array([-1, 1])}, "holds arr_1 of int64 and shape"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **arrays)
    with pytest.raises(BenchError, match=sentence):
        read_samples(tmp_path / "some.npz")


def test_what_does_not_fit_is_a_sentence(files: dict[str, str], reference: str, tmp_path: Path) -> None:
    small = npz(tmp_path / "small.npz", np.zeros((4, 8, 8, 1), np.uint8))
    large = npz(tmp_path / "large.npz", np.zeros((4, 32, 32, 1), np.uint8))
    with pytest.raises(BenchError, match="the shipped reference is of 32x32 images and the samples are of 8x8; --size"):
        score([small])
    with pytest.raises(BenchError, match=r"the samples have 8 and 32 pixels a side .* --size 8 brings all to one size"):
        score([small, large])
    with pytest.raises(BenchError, match="the shipped reference is in the space fashion-features, not in lite0"):
        score([large], ["lite0"])
    with pytest.raises(BenchError, match="there are no samples at"):
        score([tmp_path / "nothing.npz"])
    colours = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    with pytest.raises(BenchError, match="of images with 1 channel and the samples have 3"):
        score([npz(tmp_path / "colour.npz", colours)], [files["features"]], reference)


def test_the_command_judges_by_what_travels_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 1), np.uint8)
    file = npz(tmp_path / "noise.npz", noise.repeat(3, -1), np.arange(50) % 10)
    monkeypatch.setattr(sys, "argv", ["bench", "score", str(file), "--device", "cpu", "--json"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    document = json.loads(capsys.readouterr().out)
    assert not left.value.code
    assert document["spaces"][0]["reference"] == "fashion-mnist/train, 10000 images"
    (one,), (real,) = document["samples"][0]["quality"], document["real"]
    assert real["n"] == 50
    assert one["figures"]["fd"]["value"] > 20 * real["figures"]["fd"]["value"]
    assert document["samples"][0]["channels"] == 1
