"""MNIST and Fashion-MNIST: four IDX files each, in ``<root>/<name of torchvision's class>/raw``."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torchvision import datasets

from qbsnn.data.folders import FETCH_ERRORS, Archive, md5, one_line
from qbsnn.data.images.arrays import Images
from qbsnn.data.images.torchvision_sets import TorchvisionImages
from qbsnn.errors import DataError

# Checksum of the official .gz file -> checksum of what is in it. torchvision only knows the former, which leaves
# unpacked files unchecked and refuses files that were packed again, as Debian's are.
CONTENT_MD5 = {
    "f68b3c2dcbeaaa9fbdd348bbdeb94873": "6bbc9ace898e44ae57da46a324031adb",
    "d53e105ee54ea40749a09fcbcd1e9432": "a25bea736e30d166cdddb491f175f624",
    "9fb629c4189551a2d022fa330f9573f3": "2646ac647ad5339dbf082846283269ea",
    "ec29112dd5afa0611ce80d1b7f02629c": "27ae3e4e09519cfbb04c329615203637",
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "25c81989df183df01b3e8a0aad5dffbe": "9018921c3c673c538a1fc5bad174d6f9",
    "bef4ecab320f06d8554ea6380940ec79": "8181f5470baa50b63fa0f6fddb340f0a",
    "bb300cfdad3c16e7a12a480ee83cd310": "15d484375f8d13e6eb1aabb0c3f46965",
}


class IdxImages(TorchvisionImages):
    """A set in MNIST's format; the files may be unpacked or still have their .gz."""

    image_shape = (1, 28, 28)

    @property
    def folder(self) -> Path:
        """``<root>/<class>/raw``."""
        return self.root / self.source.__name__ / "raw"

    def file_names(self) -> list[str]:
        """The unpacked files."""
        return list(self._resources())

    def archives(self) -> list[Archive]:
        """A .gz file for each."""
        return [
            Archive(f"{name}.gz", f"{self.source.mirrors[0]}{name}.gz", checksum, (name,), CONTENT_MD5.get(checksum))
            for name, checksum in self._resources().items()
        ]

    def get(self, archive: Archive, target: Path) -> None:
        """Download from the first mirror that has the file."""
        errors = []
        for mirror in self.source.mirrors:
            try:
                return super().get(replace(archive, url=mirror + archive.name), target)
            except FETCH_ERRORS as error:
                errors.append(f"{mirror}: {one_line(error)}")
        raise RuntimeError("; ".join(errors))

    def read(self, train: bool) -> Images:
        """Read the training or the test images; raises DataError naming a damaged file."""
        self.require()
        for name in self.file_names():
            if name.startswith("train") == train:
                self._check(self.folder / name, self._resources()[name])
        source = self.source(str(self.root), train=train)
        return Images(source.data[:, None], source.targets, torch.arange(len(source.targets)))

    def _resources(self) -> dict[str, str]:
        return {name.removesuffix(".gz"): checksum for name, checksum in self.source.resources}

    def _check(self, path: Path, checksum: str) -> None:
        with path.open("rb") as file:
            head = file.read(16)
        # IDX: two zero bytes, 8 for uint8, the number of dimensions, each dimension as a big-endian uint32
        dims, size = 3 if "images" in path.name else 1, path.stat().st_size
        expected = 4 * (dims + 1) + math.prod(
            int.from_bytes(head[4 * k : 4 * k + 4], "big") for k in range(1, dims + 1)
        )
        content = CONTENT_MD5.get(checksum)
        if head[:4] != bytes([0, 0, 8, dims]):
            fault = "it does not begin like an IDX file of bytes"
        elif size != expected:
            fault = f"it has {size} bytes instead of {expected}"
        elif self.verify and content is not None and (found := md5(path)) != content:
            fault = f"its MD5 checksum is {found} instead of {content} (data.verify=false uses it as it is)"
        else:
            return
        raise DataError(f"{path} is damaged: {fault}. Delete it and start again")


class MNIST(IdxImages):
    """60,000 and 10,000 handwritten digits, 28×28, grey."""

    name = "mnist"
    source: ClassVar[Any] = datasets.MNIST
    class_names = tuple("0123456789")
    mean = (0.1307,)
    std = (0.3081,)


class FashionMNIST(IdxImages):
    """60,000 and 10,000 pictures of clothes, 28×28, grey."""

    name = "fashion_mnist"
    source: ClassVar[Any] = datasets.FashionMNIST
    hint = (
        "On Debian and Ubuntu: apt install dataset-fashion-mnist, then mkdir -p {folder} && "
        "ln -s /usr/share/datasets/fashion-mnist/*.gz {folder}."
    )
    class_names = tuple(datasets.FashionMNIST.classes)
    mean = (0.2860,)
    std = (0.3530,)
