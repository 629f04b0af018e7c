"""Pixels: a picture file as bytes of one or three channels, and the one rule by which pictures become squares.

Knows modes of pictures, transparency, orientation, and resizing. Refuses to know classes, splits and networks.

The rule is that of ADM's data (Dhariwal & Nichol, arXiv 2105.05233, `center_crop_arr`): halve with a box filter while
both sides are at least twice the size; then bicubic, antialiased, until the shorter side has the size; then cut out the
middle. Nothing is stretched. Transparent pixels lie on white. A photograph is turned as its EXIF says. Grey of 16 bits
is divided by 257, so that 65535 becomes 255.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orderbench.orders import BenchError
from orderbench.orders.files import open_plain, reason_of

if TYPE_CHECKING:
    from PIL import Image

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's ImageFolder
UNREAD = (".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".svg", ".dng", ".exr", ".dcm", ".npy")
WHITE = 255  # what shows through transparent pixels
_GREY = ("1", "L", "LA", "La")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # grey of 16 bits; `I` has room for more
_COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_LONGEST = 100  # a picture so many times as long as it is wide has no middle to show


def pixel_rule(side: int) -> str:
    """The rule in words, for captions and records.

    >>> pixel_rule(32)
    'shorter side to 32, centre crop'
    """
    return f"shorter side to {side}, centre crop"


def is_grey(file: Path) -> bool:
    """Whether a picture has one channel, by its head: its mode, or a palette of greys. BenchError for no picture."""
    with _Opened(file) as picture:
        return _is_grey(picture)


def picture_size(file: Path) -> tuple[int, int]:
    """(width, height) of a picture in pixels, by its head; BenchError for no picture."""
    with _Opened(file) as picture:
        return picture.size


def read_picture(file: Path, side: int, channels: int) -> np.ndarray:
    """(channels, side, side) uint8, by the rule above.

    One channel of a grey picture becomes three equal ones where three are wanted, and three equal ones become one where
    one is. BenchError names the file: it cannot be read, has a mode or a form that is not served, or has colours where
    one channel is wanted.
    """
    with _Opened(file) as picture:
        mode, plain = picture.mode, _square(_plain(picture, file), side, str(file))
    pixels_hwc = np.atleast_3d(np.asarray(plain))
    if pixels_hwc.shape[2] == channels:
        return pixels_hwc.transpose(2, 0, 1)
    folded = in_channels(pixels_hwc.transpose(2, 0, 1)[None], channels)
    if folded is None:
        raise BenchError(
            f"'{file}' is a picture in colour (mode {mode}, {pixels_hwc.shape[2]} channels) and {channels} channel is "
            f"wanted; name a tokenizer and features of colour images, or make the pictures grey"
        )
    return folded[0]


def square(images_Nchw: np.ndarray, side: int, where: str) -> np.ndarray:
    """(N, c, side, side) of uint8 images with 1 or 3 channels, by the rule; images of that size stay as they are."""
    from PIL import Image

    if images_Nchw.shape[2:] == (side, side):
        return images_Nchw.copy(order="C")
    made_Nchw = np.empty((*images_Nchw.shape[:2], side, side), np.uint8)
    for made_chw, given_chw in zip(made_Nchw, images_Nchw, strict=True):
        given_hwc = given_chw.transpose(1, 2, 0)
        picture = Image.fromarray(np.ascontiguousarray(given_hwc if len(given_chw) == 3 else given_hwc[..., 0]))
        made_chw[:] = np.atleast_3d(np.asarray(_square(picture, side, where))).transpose(2, 0, 1)
    return made_Nchw


def in_channels(images_Nchw: np.ndarray, channels: int) -> np.ndarray | None:
    """Images with 1 or 3 channels, by repeating grey or by folding three equal channels; None for colours where one
    channel is wanted."""
    if images_Nchw.shape[1] == channels:
        return images_Nchw
    if images_Nchw.shape[1] == 1:
        return images_Nchw.repeat(channels, 1)
    if channels == 1 and (images_Nchw == images_Nchw[:, :1]).all():
        return np.ascontiguousarray(images_Nchw[:, :1])
    return None


class _Opened:
    """A picture file, its head read; BenchError with the file's name for whatever goes wrong within."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> Image.Image:
        from PIL import Image

        try:
            self.content = open_plain(self.file)
        except OSError as problem:
            raise BenchError(
                f"'{self.file}' cannot be read: {reason_of(problem)}; remove it from the folder"
            ) from problem
        try:
            self.picture = Image.open(self.content)
        except BaseException as problem:
            self.__exit__(type(problem), problem, None)
            raise
        return self.picture

    def __exit__(self, _kind: object, problem: BaseException | None, _trace: object) -> None:
        self.content.close()
        if isinstance(problem, Exception) and not isinstance(problem, BenchError):
            said = "it is empty" if not self.file.stat().st_size else " ".join(str(problem).split())[:120]
            said = said.replace(str(self.content), "the file") or type(problem).__name__
            raise BenchError(f"'{self.file}' could not be read as an image: {said}; mend or remove it") from problem


def _is_grey(picture: Image.Image) -> bool:
    if picture.mode in ("P", "PA"):
        palette = np.array(picture.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return picture.mode in _GREY + _DEEP


def _plain(picture: Image.Image, file: Path) -> Image.Image:
    """Mode L or RGB: turned, on white, 8 bits."""
    from PIL import Image, ImageOps

    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise BenchError(f"'{file}' holds {frames} pictures; one in a file would do")
    grey = _is_grey(picture)
    if picture.mode in _DEEP:
        picture = Image.fromarray(_eight_bits(np.asarray(ImageOps.exif_transpose(picture)), picture.mode, file))
    elif picture.mode not in (*_GREY, *_COLOUR, "P", "PA"):
        raise BenchError(
            f"'{file}' has the mode {picture.mode}, which says nothing of black and white; save it with 8 or 16 bits a "
            f"channel, grey or RGB"
        )
    else:
        picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, (WHITE, WHITE, WHITE, 255)), over)
    return (
        picture.convert("RGB").convert("L") if grey and picture.mode != "L" else picture.convert("L" if grey else "RGB")
    )


def _eight_bits(grey_hw: np.ndarray, mode: str, file: Path) -> np.ndarray:
    low, high = int(grey_hw.min()), int(grey_hw.max())
    if low < 0 or high > 65535:
        raise BenchError(f"'{file}' has the mode {mode} and values from {low} to {high}; 0 to 65535, 16 bits, would do")
    return ((grey_hw.astype(np.int64) + 128) // 257).astype(np.uint8)


def _square(picture: Image.Image, side: int, where: str) -> Image.Image:
    from PIL.Image import Resampling

    if picture.size == (side, side):
        return picture
    if max(picture.size) > _LONGEST * min(picture.size):
        raise BenchError(
            f"'{where}' has {picture.width}x{picture.height} pixels, a line rather than a picture; leave it out"
        )
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Resampling.BOX)
    scale = side / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Resampling.BICUBIC)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))
