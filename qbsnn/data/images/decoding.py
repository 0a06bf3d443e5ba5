"""From an image file to bytes per channel; what has no faithful conversion is refused by name."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from qbsnn.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MODES = {1: "L", 3: "RGB"}  # Pillow's names


def decode(path: Path, channels: int = 3) -> Tensor:
    """An image file as bytes, uint8 ``[channels, H, W]``.

    Grey becomes colour by repetition, colour becomes grey by ITU-R 601 (Pillow). 16 bits become 8 by rounding v/257,
    and floats from 0 to 1 by rounding 255·v. Of several pictures in one file the first counts; transparency is dropped.
    A photograph is turned as its EXIF orientation says, as a viewer shows it.

    Args:
        path: of the file.
        channels: 1 (grey) or 3 (colour).

    Raises:
        DataError: for a file that is no sound image, and for integers of 32 bits and floats outside 0 to 1, whose white
            is unknown.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ImageNet has files with odd metadata
            # Given a path, Pillow maps some TIFFs into memory, and garbles those that are turned.
            with path.open("rb") as file, Image.open(file) as image:
                image.load()  # turns a TIFF, which must not be turned again
                upright = ImageOps.exif_transpose(image)  # before it is converted, which may lose the orientation
                return v2.functional.pil_to_tensor(_to_bytes(upright, path, image.format).convert(MODES[channels]))
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # a damaged image raises almost anything
        raise DataError(f"{path}: is no sound image: {type(error).__name__}: {error}") from error


def resized(path: Path, side: int, channels: int = 3) -> Tensor:
    """The image with its shorter side ``side`` pixels, uint8 ``[channels, H, W]``."""
    return v2.functional.resize(decode(path, channels), [side], antialias=True)


def view(path: Path, size: int, side: int, channels: int) -> Tensor:
    """What validation sees of a file: resized, then the centre, uint8 ``[channels, size, size]``."""
    return v2.functional.center_crop(resized(path, side, channels), [size, size])


def _to_bytes(image: Image.Image, path: Path, kind: str | None) -> Image.Image:
    """The image with at most 8 bits a channel; Pillow's own conversion cuts off what is above 255."""
    # A PNG has at most 16 bits; older versions of Pillow open one of 16 as integers of 32.
    if image.mode.startswith("I;16") or (image.mode == "I" and kind == "PNG"):
        return Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
    if image.mode == "I":
        raise DataError(f"{path}: its integers of 32 bits have no known white: save it with 8 or 16 bits a channel")
    if image.mode == "F":
        pixels = np.asarray(image)
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):
            raise DataError(
                f"{path}: its floats must be from 0 (black) to 1 (white), got {low:g} to {high:g}: scale them, or save "
                "it with 8 or 16 bits a channel"
            )
        return Image.fromarray(torch.from_numpy(pixels * 255).round().to(torch.uint8).numpy())
    return image
