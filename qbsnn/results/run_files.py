"""What a run left besides its result: the curves of ``metrics.csv`` and the arrays of ``diagnostics.npz``."""

from __future__ import annotations

import csv
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbsnn.errors import DataError


@dataclass
class Series:
    """One logged metric.

    Args:
        epoch: int [n], ascending; the first epoch is 0.
        value: float [n].
    """

    epoch: NDArray[np.int64]
    value: NDArray[np.float64]


@dataclass
class Diagnostics:
    """What the layers did on test images. A part that the file lacks is empty or ``None``.

    Args:
        histograms: By layer, int [s_max + 1], how often each burst size occurred.
        rasters: By layer, uint8 [T, N], the bursts of N neurons for one test image.
        image: That image, float [C, H, W] in [0, 1].
        label: Its class.
        prediction: The class that the network said.
        class_names: By number of a class.
        confusion: int [K, K], true class by predicted class.
    """

    histograms: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    rasters: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    image: NDArray[np.float64] | None = None
    label: int | None = None
    prediction: int | None = None
    class_names: list[str] = field(default_factory=list)
    confusion: NDArray[np.int64] | None = None

    def class_name(self, index: int | None) -> str:
        """The name of class ``index``, its number where the file has no name, a dash where there is no index."""
        if index is None:
            return "–"
        return self.class_names[index] if 0 <= index < len(self.class_names) else str(index)


def read_curves(path: Path) -> dict[str, Series]:
    """The columns of ``metrics.csv``, which has one row per epoch; cells may be empty, an empty column is left out.

    Raises:
        DataError: The file is absent, is not UTF-8, has no ``epoch`` column, or holds what is no number.
    """
    curves = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            names, rows = list(reader.fieldnames or []), list(reader)
        if "epoch" not in names:
            raise DataError(f"{path} has no column named epoch")
        for name in names:
            points = [(int(row["epoch"] or ""), float(row[name])) for row in rows if row[name]]
            if points and name not in ("epoch", "step"):
                epochs, values = zip(*points, strict=True)
                curves[name] = Series(np.array(epochs, dtype=np.int64), np.array(values, dtype=np.float64))
    except (OSError, ValueError, OverflowError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read as numbers, one row per epoch: {why}") from error
    return curves


def read_diagnostics(path: Path) -> Diagnostics:
    """The arrays of ``diagnostics.npz``; nothing is unpickled.

    Raises:
        DataError: The file is absent or damaged, or an array has not the shape or type stated in :class:`Diagnostics`.
    """
    try:
        # np.load given a path leaves the file open when it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    found = Diagnostics()
    for name, array in arrays.items():
        part, _, layer = name.partition("/")
        if part == "histogram" and layer:
            found.histograms[layer] = _checked(path, name, array, "iu", 1).astype(np.int64)
        elif part == "raster" and layer:
            found.rasters[layer] = _checked(path, name, array, "iu", 2).astype(np.uint8)
    if "image" in arrays:
        found.image = np.clip(_checked(path, "image", arrays["image"], "fiu", 3).astype(np.float64), 0, 1)
    if "confusion" in arrays:
        found.confusion = _checked(path, "confusion", arrays["confusion"], "iu", 2).astype(np.int64)
        if found.confusion.shape[0] != found.confusion.shape[1]:
            raise DataError(f"{path}: confusion must be square, got shape {found.confusion.shape}")
    if "class_names" in arrays:
        found.class_names = [str(name) for name in _checked(path, "class_names", arrays["class_names"], "U", 1)]
    for name in ("label", "prediction"):
        if name in arrays:
            setattr(found, name, int(_checked(path, name, arrays[name], "iu", 0)))
    return found


def _checked(path: Path, name: str, array: NDArray[Any], kinds: str, dimensions: int) -> NDArray[Any]:
    if array.ndim != dimensions or array.dtype.kind not in kinds or (dimensions and not array.size):
        kind = {"i": "integers", "f": "numbers", "U": "text"}[kinds[0]]
        raise DataError(
            f"{path}: {name} must hold {kind} in {dimensions} dimensions, got {array.dtype} of shape {array.shape}"
        )
    return array
