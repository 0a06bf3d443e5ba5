"""ImageNet (ILSVRC 2012) and Tiny-ImageNet, in the layouts they are published in."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvision import datasets
from torchvision.models import ResNet18_Weights

from qbsnn.data import folders
from qbsnn.data.class_folders import Labelled, folders_in
from qbsnn.data.folders import Archive
from qbsnn.data.images.files import FileDataModule
from qbsnn.errors import DataError

# SHA-256 of the 1000 WordNet ids in order, a line each: the position of an id is its class in every published result
WNIDS_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"


class ImageNetLike(FileDataModule):
    """A set whose classes are WordNet ids (``n01440764``), numbered in their alphabetical order; val is the test set.

    verify: also compare the number of images with the published one, so that a half-extracted archive is noticed.
    """

    images: ClassVar[dict[bool, int]]  # published number, of training and of test images

    def open(self, train: bool) -> tuple[Labelled, NDArray[np.int64], NDArray[np.int64]]:
        """List the files of one part, sorted by path, and check the classes."""
        part = "train" if train else "val"
        wnids = self.wnids()
        files = self.files(part, {wnid: i for i, wnid in enumerate(wnids)})
        absent = np.setdiff1d(np.arange(self.num_classes), files.labels)
        if len(absent):
            raise DataError(
                f"{self.name}: {len(absent)} classes have no images in {part}, {wnids[absent[0]]} is the first"
            )
        if self.verify and len(files.paths) != self.images[train]:
            raise DataError(
                f"{self.name}: {part} holds {len(files.paths):,} of {self.images[train]:,} images, as if the archive "
                "were extracted only in part. Extract it again, or set data.verify=false to use it as it is"
            )
        return files, files.labels, np.arange(len(files.paths))

    @abstractmethod
    def wnids(self) -> Sequence[str]:
        """The classes in order; raises DataError where they are not those of the set."""

    @abstractmethod
    def files(self, part: str, classes: dict[str, int]) -> Labelled:
        """The images of ``train`` or ``val``."""


class ImageNet(ImageNetLike):
    """1000 kinds of things, 1,281,167 and 50,000 photographs; ``root`` holds ``train`` and ``val``.

    With ``meta.bin`` (which torchvision makes of the devkit) torchvision lists the images, and unpacks its archives
    where the folders are absent; without it, they are ``<root>/{train,val}/<WordNet id>/*.JPEG``. Nothing is
    downloaded: the set needs an account.
    """

    name = "imagenet"
    class_names = tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    images: ClassVar[dict[bool, int]] = {True: 1_281_167, False: 50_000}

    def prepare_data(self) -> None:
        """Let torchvision unpack its archives where folders are absent."""
        for part in ("train", "val"):
            if not (self.root / part).is_dir():
                try:
                    datasets.ImageNet(str(self.root), part)
                except Exception as error:  # torchvision raises almost anything
                    reason = folders.one_line(error)
                    raise DataError(f"{self.name}: {self.root / part} is missing. {self.steps()} ({reason})") from error

    def steps(self) -> str:
        """What to do by hand."""
        return (
            "By hand: get ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz with an "
            f"account of https://image-net.org and put them into {self.root}, or point data.root at a folder with "
            "train and val, a folder per class in each."
        )

    def wnids(self) -> list[str]:
        """The class folders of the training images, which must be those of ``val`` and, with ``verify``, ImageNet's."""
        train, val = (folders_in(self.root / part, self.name, self.steps()) for part in ("train", "val"))
        if len(train) != self.num_classes:
            raise DataError(
                f"{self.name}: train must have {self.num_classes} class folders, got {len(train)}. {self.steps()} "
                f"For pictures of your own, with any number of classes, use data=image_folder data.root={self.root}"
            )
        if train != val:
            differ = sorted(set(train) ^ set(val))
            raise DataError(f"{self.name}: train and val have other class folders; {differ[0]} is in one of them only")
        if self.verify and hashlib.sha256("\n".join(train).encode()).hexdigest() != WNIDS_SHA256:
            raise DataError(
                f"{self.name}: the class folders ({train[0]} to {train[-1]}) are not ImageNet's 1000 WordNet ids, so "
                "classes would have other numbers than in published results; data.verify=false uses them as they are"
            )
        return train

    def files(self, part: str, classes: dict[str, int]) -> Labelled:
        """As torchvision lists them."""
        try:
            if (self.root / "meta.bin").is_file():
                found: Any = datasets.ImageNet(str(self.root), part)
                mapping = {wnid: i for i, wnid in enumerate(found.wnids)}
            else:
                found = datasets.ImageFolder(str(self.root / part))
                mapping = found.class_to_idx
        except Exception as error:  # an absent class, an id that meta.bin does not know, a damaged meta.bin
            raise DataError(f"{self.name}: {part} cannot be used: {folders.one_line(error)}") from error
        if mapping != classes:
            raise DataError(f"{self.name}: torchvision numbers the classes of {part} in another order")
        paths, labels = zip(*found.samples, strict=True)
        return Labelled([Path(path) for path in paths], np.array(labels, np.int64))


class TinyImageNet(ImageNetLike):
    """200 of ImageNet's classes, 100,000 and 10,000 photographs of 64×64, in ``<root>/tiny-imagenet-200``.

    Training images are ``train/<id>/images/*.JPEG``; the classes of those in ``val/images`` are in
    ``val/val_annotations.txt``. The published test images have no labels and are not used.
    """

    name = "tiny_imagenet"
    class_names = tuple(f"class {i}" for i in range(200))  # the set's own words take their place once it is read
    names_known = False
    mean = (0.4802, 0.4481, 0.3975)
    std = (0.2770, 0.2691, 0.2821)
    images: ClassVar[dict[bool, int]] = {True: 100_000, False: 10_000}
    archive = Archive(
        "tiny-imagenet-200.zip",
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "90528d7ca1a48142e341f4ef8d21d0de",
        ("tiny-imagenet-200",),
    )

    @property
    def folder(self) -> Path:
        """``<root>/tiny-imagenet-200``."""
        return self.root / self.archive.content[0]

    def prepare_data(self) -> None:
        """Unpack or download the archive if the folder is absent."""
        folders.provide(self.root, [self.archive], self.name, self.download, self.verify, folders.torchvision_download)

    def wnids(self) -> list[str]:
        """The ids in ``wnids.txt``, sorted; ``words.txt`` names them."""
        try:
            wnids = sorted((self.folder / "wnids.txt").read_text(encoding="utf-8").split())
            words = (self.folder / "words.txt").read_text(encoding="utf-8").splitlines()
        except OSError as error:
            steps = folders.steps(self.root, [self.archive])
            raise DataError(f"{self.name}: cannot read {error.filename}: {error.strerror}. By hand: {steps}") from error
        if len(wnids) != self.num_classes:
            raise DataError(f"{self.folder / 'wnids.txt'} must name {self.num_classes} classes, got {len(wnids)}")
        named = dict(line.split("\t", 1) for line in words if "\t" in line)
        self.class_names = tuple(named.get(wnid, wnid).split(",")[0] for wnid in wnids)
        self.names_known = True
        return wnids

    def files(self, part: str, classes: dict[str, int]) -> Labelled:
        """Training images by their folder, test images by the list of annotations."""
        if part == "train":
            paths = folders.listed(self.folder / "train", ".JPEG", self.name)
            names = [path.parent.parent.name for path in paths]
        else:
            annotations = self.folder / "val/val_annotations.txt"
            try:
                rows = [line.split("\t") for line in annotations.read_text(encoding="utf-8").splitlines()]
                listed = sorted((self.folder / "val/images" / row[0], row[1]) for row in rows)
            except (OSError, IndexError) as error:
                raise DataError(f"{annotations} cannot be read: {folders.one_line(error)}") from error
            paths, names = [path for path, _ in listed], [name for _, name in listed]
        for path, name in zip(paths, names, strict=True):
            if name not in classes:
                raise DataError(f"{self.name}: {path} is of class {name}, which wnids.txt does not name")
        return Labelled(paths, np.array([classes[name] for name in names], np.int64))
