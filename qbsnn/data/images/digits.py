"""scikit-learn's 1797 handwritten digits, which come with the package."""

from __future__ import annotations

import torch

from qbsnn.data.images.arrays import ImageDataModule, Images

TEST_IMAGES = 360


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
        from sklearn.datasets import load_digits  # here: it takes a second, and only this set needs it
        from sklearn.model_selection import train_test_split

        source = load_digits()
        # random_state is a constant, not split_seed: results on different test images cannot be compared
        labels = source.target
        parts = train_test_split(range(len(labels)), test_size=TEST_IMAGES, random_state=0, stratify=labels)
        ids = torch.tensor(sorted(parts[0 if train else 1]))
        pixels = torch.from_numpy(source.images).to(torch.uint8)[:, None]  # the floats are whole numbers from 0 to 16
        return Images(pixels[ids], torch.from_numpy(labels).long()[ids], ids)
