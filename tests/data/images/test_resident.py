"""Batches of resident images are those of a DataLoader, on whatever device they lie."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from qbsnn.data import Digits
from qbsnn.data.images.augment import Augment
from qbsnn.data.images.mix import Mix
from qbsnn.data.images.resident import ImageSplit, place
from qbsnn.errors import DataError, SettingsError
from tests.data.test_loading import EVERYTHING, epoch_of, same


def loaders(**options):
    digits = Digits(batch_size=32, limit_train=150, seed=4, **options)
    digits.setup()
    return digits.train_dataloader(), digits.val_dataloader(), digits.test_dataloader()


@pytest.mark.parametrize("options", [{}, EVERYTHING, {"mix": "mixup"}, {"mix": "cutmix", "flip": True}], ids=str)
def test_batches_are_the_same_bit_by_bit(options):
    resident, loaded = loaders(resident=True, **options), loaders(resident=False, **options)
    assert resident[0].dataset.resident and not loaded[0].dataset.resident
    for epoch in (0, 3):
        batches = epoch_of(resident[0], epoch)
        assert same(batches, epoch_of(loaded[0], epoch)) and len(batches) == 4
    assert all(same(list(resident[part]), list(loaded[part])) for part in (1, 2))


@pytest.mark.parametrize("pixel_max", [1, 16, 255])
def test_pixels_are_divided_as_numbers_are(pixel_max):
    pixels = torch.arange(pixel_max + 1, dtype=torch.uint8).view(-1, 1, 1, 1)
    split = ImageSplit(pixels, torch.zeros(len(pixels), dtype=torch.int64), pixel_max)
    found = split.__getitems__(range(len(split)))[0].flatten().numpy()
    assert np.array_equal(found, np.arange(pixel_max + 1, dtype=np.float32) / np.float32(pixel_max))


def test_auto_is_resident_without_workers():
    digits = Digits()
    digits.setup("fit")
    assert digits.train_dataloader().dataset.resident
    digits = Digits(num_workers=2)
    digits.setup("fit")
    assert not digits.train_dataloader().dataset.resident


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_other_values_are_refused(value):
    with pytest.raises(SettingsError, match=r"resident must be auto, true or false, got"):
        Digits(resident=value)
    with pytest.raises(SettingsError, match=r"resident must be auto or false with num_workers = 2"):
        Digits(resident=True, num_workers=2)


CUDA = torch.device("cuda", 0)


class Recorded(ImageSplit):
    """Notes where it is sent: there is no card to send it to."""

    sent = None

    def to(self, device):
        self.sent = device


def recorded(augment=None, mix=None):
    pixels, labels = torch.zeros(100, 1, 4, 4, dtype=torch.uint8), torch.zeros(100, dtype=torch.int64)
    return Recorded(pixels, labels, 255, augment, mix)


@pytest.mark.parametrize(
    ("wanted", "free", "sent", "resident"),
    [(None, 6400, CUDA, True), (None, 6396, None, False), (True, 1600, CUDA, True), (False, 10**9, None, False)],
)
def test_a_card_takes_what_fits(monkeypatch, wanted, free, sent, resident):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    split = recorded()
    place(split, wanted, CUDA, "some images")
    assert (split.sent, split.resident) == (sent, resident)


def test_what_must_fit_and_does_not_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1599, 10**9))
    with pytest.raises(DataError, match=r"data\.resident=true needs 1,600 bytes on cuda:0, which has 1,599 free"):
        place(recorded(), True, CUDA, "some images")


@pytest.mark.parametrize("how", [{"augment": Augment(policy="trivial")}, {"mix": Mix("mixup", 1.0, 10, 0)}])
def test_what_torchvision_augments_stays_on_the_cpu(how):
    split = recorded(**how)
    place(split, None, CUDA, "some images")
    assert split.sent is None and not split.resident


def test_the_device_is_the_trainers(monkeypatch):
    sent = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    monkeypatch.setattr(ImageSplit, "to", lambda self, device: sent.append(device))
    digits = Digits()
    digits.setup("fit")
    digits.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=CUDA), global_rank=0, world_size=1)
    digits.train_dataloader()
    assert sent == [CUDA]


def test_every_operation_runs_where_the_images_lie():
    """With tensors that have a device and no data: an operation that met two devices would raise."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        pixels = torch.zeros(20, 3, 8, 8, dtype=torch.uint8, device="cuda")
        labels = torch.zeros(20, dtype=torch.int64, device="cuda")
        split = ImageSplit(pixels, labels, 255, Augment(crop=2, flip=True, cutout=3))
        split.to(torch.device("cuda"))
        inputs, targets = split.__getitems__([(1, 4), (1, 7), (1, 2)])
    assert inputs.device.type == targets.device.type == "cuda"
    assert inputs.shape == (3, 3, 8, 8) and inputs.dtype == torch.float32


def test_moving_keeps_what_was_drawn():
    drawn = Augment(seed=2, crop=2, flip=True, cutout=4).draw(np.arange(16) % 3, np.arange(16), 9, 9)
    moved = drawn.to(torch.device("cpu"))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(drawn, moved, strict=True))
