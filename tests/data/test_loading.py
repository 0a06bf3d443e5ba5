from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from torch import nn

from qbsnn.data import Digits
from qbsnn.data.images.resident import ImageSplit
from qbsnn.data.loading import EpochSampler, Share, eval_loader, train_loader
from qbsnn.data.randomness import Purpose, permutation

pytestmark = [
    # Lightning advises workers even where one process loads faster than any network can train
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    # Python 3.12 and later about forking; the workers only index tensors
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning"),
]

EVERYTHING = {"crop": 1, "flip": True, "cutout": 2, "autoaugment": "trivial"}


def numbered(count: int) -> ImageSplit:
    """Images whose label is their index."""
    return ImageSplit(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.arange(count), 255)


def epoch_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_batches_do_not_depend_on_workers_and_epochs_repeat():
    runs = {}
    for workers in (0, 1, 2):
        digits = Digits(num_workers=workers, limit_train=150, batch_size=32, seed=4, **EVERYTHING)
        digits.setup("fit")
        loader = digits.train_dataloader()
        # the workers of one loader live on: that a later epoch differs shows that they are told of it
        runs[workers] = [epoch_of(loader, epoch) for epoch in (0, 1, 0)]
    for epochs in runs.values():
        assert all(same(one, two) for one, two in zip(epochs, runs[0], strict=True))
    first, second, again = runs[0]
    assert same(first, again) and not same(first, second)
    assert not torch.equal(first[0][1], second[0][1])
    pixels, labels = first[0]
    assert pixels.shape == (32, 1, 8, 8) and pixels.dtype == torch.float32 and labels.dtype == torch.int64
    assert pixels.min() >= 0 and 0.9 < pixels.max() <= 1 and pixels.std() > 0.1


def test_samples_do_not_depend_on_the_batch_size():
    samples = []
    for batch_size in (1, 7, 35):
        digits = Digits(limit_train=35, batch_size=batch_size, **EVERYTHING)
        digits.setup("fit")
        samples.append(torch.cat([pixels for pixels, _ in epoch_of(digits.train_dataloader(), 2)]))
    assert torch.equal(samples[0], samples[1]) and torch.equal(samples[0], samples[2])


def test_seeds_give_other_orders():
    orders = [torch.cat([y for _, y in train_loader(numbered(50), 10, seed, 0)]).tolist() for seed in (0, 1)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == list(range(50))


@pytest.mark.parametrize(("count", "sizes"), [(10, [4, 4]), (8, [4, 4]), (4, [4]), (3, [3])])
def test_only_an_incomplete_last_training_batch_is_dropped(count, sizes):
    assert [len(y) for _, y in train_loader(numbered(count), 4, 0, 0)] == sizes
    kept = list(eval_loader(numbered(count), 4, 0))
    assert torch.cat([y for _, y in kept]).tolist() == list(range(count))


def test_single_samples_and_plain_indices():
    digits = Digits(crop=2)
    digits.setup("fit")
    split = digits.train_dataloader().dataset
    pixels, label = split[(3, 17)]
    batch, labels = split.__getitems__([(0, 5), (3, 17)])
    assert torch.equal(pixels, batch[1]) and label == labels[1]
    assert torch.equal(split[5][0], batch[0])
    val = digits.val_dataloader().dataset
    assert torch.equal(val[0][0] * 16, val.pixels[0].float())


class Recorder(lightning.LightningModule):
    """Writes down the labels it meets, per epoch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.seen: dict[int, list[int]] = {}

    def training_step(self, batch, batch_idx):
        self.seen.setdefault(self.current_epoch, []).extend(batch[1].tolist())
        return self.layer(batch[0].flatten(1)).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Save(lightning.Callback):
    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")


class Numbered(lightning.LightningDataModule):
    def __init__(self, workers: int):
        super().__init__()
        self.workers = workers

    def train_dataloader(self):
        return train_loader(numbered(20), 5, 3, self.workers)

    def val_dataloader(self):
        return eval_loader(numbered(20), 5, 0)


def trainer(folder: Path, epochs: int, **options) -> lightning.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, default_root_dir=folder, **quiet, **options
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_sets_the_epoch_also_when_resuming(workers, tmp_path):
    expected = {epoch: permutation(Purpose.ORDER, 20, 3, epoch).tolist() for epoch in range(4)}
    seen = []
    for start in (None, tmp_path / "1.ckpt"):
        model, options = Recorder(), {"enable_checkpointing": False, "callbacks": [Save(tmp_path)]}
        trainer(tmp_path, 4, **options).fit(model, datamodule=Numbered(workers), ckpt_path=start)
        seen.append(model.seen)
    assert seen[0] == expected
    assert seen[1] == {epoch: expected[epoch] for epoch in (2, 3)}


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_lightning_may_put_its_own_sampler(tmp_path):
    model = Recorder()
    trainer(tmp_path, 2, enable_checkpointing=False, overfit_batches=2).fit(model, datamodule=Numbered(0))
    assert model.seen == {0: list(range(10)), 1: list(range(10))}


def test_lightnings_distributed_wrapper_shares_out_the_epoch():
    ranks = [DistributedSamplerWrapper(EpochSampler(21, 3), num_replicas=2, rank=rank, shuffle=True) for rank in (0, 1)]
    for epoch in (0, 5):
        for sampler in ranks:
            sampler.set_epoch(epoch)
        drawn = [key for sampler in ranks for key in sampler]
        assert {e for e, _ in drawn} == {epoch}
        assert np.unique([index for _, index in drawn]).tolist() == list(range(21))


def test_processes_that_go_on_within_an_epoch_leave_out_whole_batches():
    whole = permutation(Purpose.ORDER, 21, 3, 0)[:20].reshape(5, 4)
    for rank in (0, 1):
        sampler = EpochSampler(21, 3, 4, Share(rank, 2), skip=2)
        ours = whole[:, 2 * rank : 2 * rank + 2]
        assert [index for _, index in sampler] == ours[2:].ravel().tolist()
        assert [index for _, index in sampler] == ours.ravel().tolist()
