"""CIFAR-10 and CIFAR-100: pickled batches in ``<root>/cifar-10-batches-py`` and ``<root>/cifar-100-python``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from torchvision import datasets

from qbsnn.data.folders import Archive, md5
from qbsnn.data.images.arrays import Images
from qbsnn.data.images.torchvision_sets import TorchvisionImages
from qbsnn.errors import DataError

FINE_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""


class CifarImages(TorchvisionImages):
    """A set in CIFAR's format; the downloaded archive may lie in ``root`` still packed."""

    image_shape = (3, 32, 32)

    @property
    def folder(self) -> Path:
        """``<root>/<folder in the archive>``."""
        return self.root / self.source.base_folder

    @property
    def place(self) -> Path:
        """``root``."""
        return self.root

    def file_names(self) -> list[str]:
        """Training batches, test batches and the names of the classes."""
        return [name for name, _ in self.source.train_list + self.source.test_list] + [self.source.meta["filename"]]

    def archives(self) -> list[Archive]:
        """The one that holds all files."""
        source = self.source
        content = tuple(f"{source.base_folder}/{name}" for name in self.file_names())
        return [Archive(source.filename, source.url, source.tgz_md5, content)]

    def read(self, train: bool) -> Images:
        """Read the training or the test images; raises DataError naming a damaged file."""
        self.require()
        files = self.source.train_list if train else self.source.test_list
        parts = [self._read_file(name, checksum) for name, checksum in files]
        pixels, labels = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        return Images(pixels, labels, torch.arange(len(labels)))

    def _read_file(self, name: str, checksum: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels ``[N, 3, 32, 32]`` and labels ``[N]`` of one file, through torchvision's own reader.

        One at a time, so that an error can name the file. Without checksums torchvision tests only presence.
        """
        path, meta = self.folder / name, self.folder / self.source.meta["filename"]
        if self.verify:
            for file, expected in ((path, checksum), (meta, self.source.meta["md5"])):
                if (found := md5(file)) != expected:
                    raise DataError(
                        f"{file} is damaged: its MD5 checksum is {found} instead of {expected}. "
                        "Delete it and start again, or set data.verify=false to use it as it is"
                    )
        files = {"train_list": [[name, None]], "test_list": [], "meta": {**self.source.meta, "md5": None}}
        reader = type(self.source.__name__, (self.source,), files)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # numpy 2.4 dislikes the way the official pickles write a dtype
                read = reader(str(self.root), train=True)
            pixels, labels = torch.from_numpy(read.data), torch.tensor(read.targets)
            if len(pixels) != len(labels):
                raise ValueError(f"{len(pixels)} images, but {len(labels)} labels")
        except Exception as error:  # a damaged pickle raises almost anything
            raise DataError(f"{path} (or {meta.name} beside it) is damaged: {type(error).__name__}: {error}") from error
        return pixels.permute(0, 3, 1, 2).contiguous(), labels


class CIFAR10(CifarImages):
    """50,000 and 10,000 small colour pictures of 10 kinds of things, 32×32."""

    name = "cifar10"
    source: ClassVar[Any] = datasets.CIFAR10
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)


class CIFAR100(CifarImages):
    """50,000 and 10,000 small colour pictures of 100 kinds of things (the fine labels), 32×32."""

    name = "cifar100"
    source: ClassVar[Any] = datasets.CIFAR100
    class_names = tuple(FINE_NAMES.split())
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
