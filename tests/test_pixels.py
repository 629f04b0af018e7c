"""One rule for pixels: every mode that pictures have becomes grey or RGB of 8 bits, and no picture is stretched."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orderbench.models.pixels import in_channels, is_grey, pixel_rule, read_picture, square
from orderbench.orders import BenchError

RAMP = (np.arange(256).reshape(16, 16)).astype(np.uint8)
COLOUR = np.stack([RAMP, RAMP[::-1], RAMP.T], -1)


def adm(pixels: np.ndarray, size: int) -> np.ndarray:
    """What ADM's `center_crop_arr` makes of a picture, from its description."""
    picture = Image.fromarray(pixels)
    while min(*picture.size) >= 2 * size:
        picture = picture.resize((picture.size[0] // 2, picture.size[1] // 2), resample=Image.Resampling.BOX)
    scale = size / min(*picture.size)
    picture = picture.resize((round(picture.size[0] * scale), round(picture.size[1] * scale)), Image.Resampling.BICUBIC)
    array = np.array(picture)
    top, left = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
    return array[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(40, 30, 3), (30, 41, 3), (9, 20, 3), (32, 64), (100, 130), (8, 8)])
def test_pictures_are_scaled_and_cut_as_adms_are(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    channels = 3 if len(shape) == 3 else 1
    wanted = np.atleast_3d(adm(pixels, 8)).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", 8, channels), wanted)
    given = np.atleast_3d(pixels).transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(square(given, 8, "a.npz")[0], wanted)
    assert pixel_rule(8) == "shorter side to 8, centre crop"


def test_grey_of_every_kind_is_one_channel(tmp_path: Path) -> None:
    deep = RAMP.astype(np.uint16) * 257
    grey = Image.fromarray(RAMP)
    palette = grey.convert("P")
    palette.putpalette([value for value in range(256) for _ in range(3)])
    for name, picture in {
        "l.png": grey, "l.tif": grey, "la.png": grey.convert("LA"), "deep.png": Image.fromarray(deep),
        "deep.tif": Image.fromarray(deep), "big.tif": Image.fromarray(deep.astype(np.int32)), "p.png": palette,
        "l.PGM": grey, "l.webp": None,
    }.items():  # fmt: skip
        if picture is None:
            continue
        picture.save(tmp_path / name)
        assert is_grey(tmp_path / name), name
        np.testing.assert_array_equal(read_picture(tmp_path / name, 16, 1)[0], RAMP, err_msg=name)
        np.testing.assert_array_equal(read_picture(tmp_path / name, 16, 3), np.stack([RAMP] * 3), err_msg=name)
    Image.fromarray(RAMP > 100).save(tmp_path / "bits.png")
    assert is_grey(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "bits.png", 16, 1)[0], np.where(RAMP > 100, 255, 0))


def test_colour_of_every_kind_is_rgb(tmp_path: Path) -> None:
    colour = Image.fromarray(COLOUR)
    for name, picture in {
        "rgb.png": colour, "rgba.png": colour.convert("RGBA"), "cmyk.tif": colour.convert("CMYK"), "rgb.BMP": colour,
        "p.png": colour.quantize(256), "rgb.JPEG": colour,
    }.items():  # fmt: skip
        picture.save(tmp_path / name)
        assert not is_grey(tmp_path / name), name
        near = np.abs(read_picture(tmp_path / name, 16, 3).astype(int) - COLOUR.transpose(2, 0, 1))
        assert near.mean() < 30, name  # palettes and JPEG are not exact
        with pytest.raises(
            BenchError, match=r"is a picture in colour \(mode \w+, 3 channels\) and 1 channel is wanted"
        ):
            read_picture(tmp_path / name, 16, 1)
    Image.fromarray(np.stack([RAMP] * 3, -1)).save(tmp_path / "same.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "same.png", 16, 1)[0], RAMP)  # three equal ones fold


def test_transparent_pixels_lie_on_white_and_photographs_are_turned(tmp_path: Path) -> None:
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4] = 9, 9, 9, 255
    Image.fromarray(clear).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", 8, 3)[:, ::4, 0].tolist() == [[9, 255]] * 3
    keyed = Image.fromarray(RAMP)
    keyed.save(tmp_path / "key.png", transparency=0)
    assert (read_picture(tmp_path / "key.png", 16, 1)[0] == np.where(RAMP == 0, 255, RAMP)).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(RAMP).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "turned.png", 16, 1)[0], np.rot90(RAMP, -1))


def frames(file: Path) -> None:
    Image.fromarray(RAMP).save(file, save_all=True, append_images=[Image.fromarray(RAMP.T.copy())])


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        (
            "f.tif",
            lambda file: Image.fromarray(RAMP.astype(np.float32)).save(file),
            "f.tif' has the mode F, which says",
        ),
        (
            "i.tif",
            lambda file: Image.fromarray(RAMP.astype(np.int32) * 999).save(file),
            "mode I.* and values from 0 to",
        ),
        ("two.tif", frames, "holds 2 pictures; one in a file would do"),
        ("line.png", lambda file: Image.new("L", (400, 2)).save(file), "400x2 pixels, a line rather than a picture"),
        ("empty.png", lambda file: file.write_bytes(b""), "could not be read as an image: it is empty; mend or remove"),
        ("words.png", lambda file: file.write_bytes(b"words"), "could not be read as an image: cannot identify image"),
        ("pipe.png", os.mkfifo, "cannot be read: it is no plain file; remove it"),
        ("gone.png", lambda file: None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_picture_is_named(name: str, make: Callable[[Path], object], sentence: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(BenchError, match=sentence):
        read_picture(tmp_path / name, 16, 1)


def test_a_picture_that_is_cut_off_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    with pytest.raises(BenchError, match=r"a\.jpg' could not be read as an image: .*truncated"):
        read_picture(tmp_path / "a.jpg", 16, 3)


def test_channels_fold_and_repeat() -> None:
    grey = RAMP[None, None]
    three = in_channels(grey, 3)
    assert three is not None
    assert three.shape == (1, 3, 16, 16)
    np.testing.assert_array_equal(in_channels(three, 1), grey)
    assert in_channels(COLOUR.transpose(2, 0, 1)[None], 1) is None
