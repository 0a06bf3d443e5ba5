"""scikit-learn's 1797 handwritten digits, which come with the package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from qbsnn.data.images.arrays import ImageDataModule, Images
from qbsnn.errors import DataError

CHOICE = Path(__file__).with_name("digits_test.txt")
"""Positions of the test images: what scikit-learn's ``train_test_split`` chooses for ``random_state=0``, stratified.

They are written down because results on different test images cannot be compared, and because it would take a second
to import scikit-learn.
"""


class Digits(ImageDataModule):
    """8×8 digits with 17 grey levels; a fixed stratified choice of 360 is the test set, as none is published.

    ``root``, ``download`` and ``verify`` have no effect: the images are a part of scikit-learn.

    >>> digits = Digits(batch_size=64)
    >>> digits.in_shape, digits.num_classes
    ((1, 8, 8), 10)
    >>> digits.setup()
    >>> digits.split_sizes()
    {'train': 1293, 'val': 144, 'test': 360}
    >>> pixels, labels = next(iter(digits.train_dataloader()))
    >>> pixels.shape, labels.shape
    (torch.Size([64, 1, 8, 8]), torch.Size([64]))
    """

    name = "digits"
    class_names = tuple("0123456789")
    mean = (0.3054,)
    std = (0.3761,)
    image_shape = (1, 8, 8)
    pixel_max = 16

    def read(self, train: bool) -> Images:
        """Load all images and pick the training or the test part."""
        table = torch.from_numpy(np.loadtxt(source(), np.uint8, delimiter=","))  # [N, 65]: pixels from 0 to 16, label
        test = np.loadtxt(CHOICE.read_text(encoding="utf-8").split(), np.int64)
        ids = torch.from_numpy(np.setdiff1d(np.arange(len(table)), test) if train else test)
        return Images(table[ids, :-1].view(-1, *self.image_shape), table[ids, -1].long(), ids)


def source() -> Path:
    """The file that scikit-learn's ``load_digits`` reads.

    Raises:
        DataError: scikit-learn is not installed, or has no such file.
    """
    package = find_spec("sklearn")
    file = Path(package.origin if package and package.origin else "sklearn").parent / "datasets/data/digits.csv.gz"
    if not file.is_file():
        raise DataError(f"{file} does not exist: install scikit-learn, which brings the digits")
    return file
