from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torchvision.transforms import v2

import qbsnn.data
from qbsnn.data import Digits, ImageDataModule
from qbsnn.data.images.arrays import Images
from qbsnn.data.ranges import check_range
from qbsnn.data.split import hold_out
from qbsnn.errors import DataError, SettingsError

CLASSES = {"cifar100": 100, "tiny_imagenet": 200, "imagenet": 1000, "dvs128_gesture": 11, "shd": 20}
CONF = Path(qbsnn.data.__file__).parents[2] / "conf" / "data"


@pytest.fixture(scope="module")
def digits() -> Digits:
    module = Digits()
    module.setup()
    return module


def test_digits_are_scikit_learns(digits):
    from sklearn.datasets import load_digits

    source = load_digits()
    for part, loader in (("val", digits.val_dataloader()), ("test", digits.test_dataloader())):
        pixels = torch.cat([x for x, _ in loader])
        labels = torch.cat([y for _, y in loader])
        ids = digits.indices[part].numpy()
        assert torch.equal(pixels[:, 0] * 16, torch.from_numpy(source.images[ids]).float())
        assert np.array_equal(labels.numpy(), source.target[ids])


def test_the_test_images_are_scikit_learns_choice(digits):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    labels = load_digits().target
    chosen = train_test_split(range(len(labels)), test_size=360, random_state=0, stratify=labels)[1]
    assert digits.indices["test"].tolist() == sorted(chosen)


def test_parts_are_disjoint_complete_and_stratified(digits):
    parts = digits.indices
    assert torch.equal(torch.cat(list(parts.values())).sort().values, torch.arange(1797))
    assert digits.split_sizes() == {"train": 1293, "val": 144, "test": 360}
    for part in ("val", "test"):
        counts = digits._splits[part].labels.bincount().float()
        assert counts.max() - counts.min() <= 2
    other = Digits(split_seed=1)
    other.setup()
    assert torch.equal(other.indices["test"], parts["test"])
    assert not torch.equal(other.indices["val"], parts["val"])


def test_limits_take_samples_by_the_seed_of_the_split(digits):
    chosen = {}
    for seed in (0, 1):
        few = Digits(split_seed=seed, limit_test=40)
        few.setup()
        chosen[seed] = few.indices["test"]
        assert len(chosen[seed]) == 40 and torch.isin(chosen[seed], digits.indices["test"]).all()
        assert not torch.equal(chosen[seed], digits.indices["test"][:40])
    assert not torch.equal(chosen[0], chosen[1])


def test_digits_mean_and_std(digits):
    pixels = torch.cat([digits._splits[part].pixels for part in ("train", "val")]).double() / 16
    assert digits.mean == pytest.approx([pixels.mean().item()], abs=1e-3)
    assert digits.std == pytest.approx([pixels.std().item()], abs=1e-3)


def test_each_stage_reads_its_part_once(monkeypatch):
    reads = []
    read = Digits.read
    monkeypatch.setattr(Digits, "read", lambda self, train: reads.append(train) or read(self, train))
    module = Digits()
    with pytest.raises(RuntimeError, match="no train samples yet"):
        module.train_dataloader()
    for stage in ("fit", "validate", "fit"):
        module.setup(stage)
    assert reads == [True] and sorted(module.split_sizes()) == ["train", "val"]
    module.setup("test")
    module.setup(None)
    assert reads == [True, False]


def test_limits_pick_a_fixed_part(digits):
    limited = Digits(limit_train=50, limit_val=10, limit_test=5000)
    limited.setup()
    assert limited.split_sizes() == {"train": 50, "val": 10, "test": 360}
    for part, indices in limited.indices.items():
        assert torch.isin(indices, digits.indices[part]).all() and len(indices.unique()) == len(indices)
    smaller = Digits(limit_train=20)
    smaller.setup("fit")
    assert torch.isin(smaller.indices["train"], limited.indices["train"]).all()


def test_resize_keeps_more_than_the_levels_of_the_source(digits):
    module = Digits(resize=12)
    module.setup("test")
    assert module.in_shape == (1, 12, 12) and module.pixel_max == 255
    pixels = torch.cat([x for x, _ in module.test_dataloader()])
    small = digits._splits["test"].pixels.float() / 16
    expected = v2.functional.resize(small, [12, 12], antialias=True)
    # three roundings of half a step each: to bytes, along rows, along columns
    assert (pixels - expected).abs().max() <= 1.5 / 255
    module.check(pixels, "resized")


@pytest.mark.parametrize(
    ("key", "values", "right"),
    [
        ("batch_size", [0, True, 1.5, "8"], "an integer from 1"),
        ("val_fraction", [0.0, 1.0, True, "half", float("nan")], "a number above 0 and below 1"),
        ("split_seed", [-1, None], "an integer from 0"),
        ("seed", [-1, False], "an integer from 0"),
        ("num_workers", [-1, 2.0], "an integer from 0"),
        ("crop", [-1, 9, True], "an integer from 0 to 8"),
        ("cutout", [9], "an integer from 0 to 8"),
        ("mix", ["cutmixx", True], "one of mixup, cutmix"),
        ("flip", [1, "yes", None], "true or false"),
        ("download", [0], "true or false"),
        ("verify", ["no"], "true or false"),
        ("autoaugment", ["cifar", True, ["cifar10"]], "null or one of cifar10, imagenet, svhn, randaugment, trivial"),
        ("resize", [0, True], "an integer from 1"),
        ("limit_train", [0, True], "an integer from 1"),
        ("limit_val", [-5], "an integer from 1"),
        ("limit_test", ["all"], "an integer from 1"),
        ("root", ["", 3, None], "the path of a folder"),
    ],
)
def test_bad_settings(key, values, right):
    for value in values:
        with pytest.raises(SettingsError) as caught:
            Digits(**{key: value})
        message = str(caught.value)
        assert message.startswith(f"{key} must be {right}") and message.endswith(f"got {value!r}")


def test_a_validation_share_of_no_image_is_refused():
    with pytest.raises(SettingsError, match=r"val_fraction must hold out at least one of the 1437 .*got 1e-05"):
        Digits(val_fraction=1e-5).setup("fit")


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.37, 0.9])
def test_hold_out_is_in_proportion(fraction):
    labels = np.repeat(np.arange(7), [1, 5, 10, 33, 100, 200, 400])
    for seed in (0, 1):
        shuffled = np.random.default_rng(seed).permutation(labels)
        mask = hold_out(shuffled, fraction, seed, "test")
        assert mask.sum() == round(fraction * len(labels))
        counts = np.bincount(shuffled[mask], minlength=7)
        assert (np.abs(counts - fraction * np.bincount(labels)) <= 1).all()
        assert np.array_equal(mask, hold_out(shuffled, fraction, seed, "test"))
        assert not np.array_equal(mask, hold_out(shuffled, fraction, seed + 1, "test"))


def test_classes_are_rounded_by_largest_remainder():
    """Three of 7 and 2 samples: 2⅓ and ⅔."""
    labels = np.array([0] * 7 + [1] * 2)
    assert np.bincount(labels[hold_out(labels, 1 / 3, 0, "test")]).tolist() == [2, 1]


class Fake(ImageDataModule):
    """Two good images of one class, with one thing replaced."""

    name = "fake"
    class_names = ("a", "b")
    mean = std = (0.5,)
    image_shape = (1, 2, 3)

    def __init__(self, **changed):
        super().__init__(val_fraction=0.5)
        good = Images(torch.zeros(2, 1, 2, 3, dtype=torch.uint8), torch.tensor([0, 0]), torch.arange(2))
        self.images = good._replace(**changed)

    def read(self, train):
        return self.images


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pixels": torch.zeros(2, 1, 2, 3)}, "pixels must be uint8 .* got torch.float32"),
        ({"labels": torch.tensor([0, 1], dtype=torch.int32)}, "labels int64, got torch.uint8 and torch.int32"),
        ({"pixels": torch.zeros(2, 1, 3, 2, dtype=torch.uint8)}, r"must be \(N, 1, 2, 3\), got \(2, 1, 3, 2\)"),
        ({"pixels": torch.zeros(0, 1, 2, 3, dtype=torch.uint8)}, r"must be \(N, 1, 2, 3\), got \(0, 1, 2, 3\)"),
        ({"labels": torch.tensor([0])}, "2 images, but labels of shape"),
        ({"labels": torch.tensor([0, 2])}, "labels must be from 0 to 1, but 1 are not; the first is 2, of sample 1"),
        ({"labels": torch.tensor([-1, 7])}, "but 2 are not; the first is -1, of sample 0"),
    ],
)
def test_bad_data(changed, message):
    Fake().setup()
    for stage, part in (("fit", "training"), ("test", "test")):
        with pytest.raises(DataError, match=f"fake, {part} samples: .*{message}"):
            Fake(**changed).setup(stage)


def test_a_class_that_validation_takes_whole_is_named():
    two = Images(torch.zeros(2, 1, 2, 3, dtype=torch.uint8), torch.tensor([0, 1]), torch.arange(2))
    words = "fake: no training sample is left of the class [ab], since all of its 1 samples are held out for validation"
    with pytest.raises(DataError, match=words):
        Fake(**two._asdict()).setup("fit")


def test_bad_pixel_values(monkeypatch):
    monkeypatch.setattr(Fake, "pixel_max", 16)
    with pytest.raises(DataError, match="pixels must be at most 16, got 17"):
        Fake(pixels=torch.full((2, 1, 2, 3), 17, dtype=torch.uint8)).setup()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), -1e-6, 1.001])
def test_check_range(bad):
    good = torch.rand(4, 3, 5, 5)
    good[0, 0, 0, 0], good[1, 0, 0, 0] = 0, 1
    check_range(good, "a batch", "pixels", 1)
    check_range(good[:0], "an empty batch", "pixels", 1)
    good[2:, 1, 2, 3] = bad
    with pytest.raises(DataError, match=r"^a batch: .* 2 of 300 are not; the first: .*, in sample 2$"):
        check_range(good, "a batch", "pixels", 1)
    with pytest.raises(DataError):
        check_range(torch.full((2, 2), 255, dtype=torch.uint8), "bytes", "pixels", 1)


FOLDERS = {"image_folder", "event_folder"}
"""Their classes are those of a user's folder; they are built in tests of their own."""


@pytest.mark.parametrize("name", sorted({path.stem for path in CONF.glob("[!_]*.yaml")} - FOLDERS))
def test_configuration(name, tmp_path):
    assert (CONF / f"{name}.yaml").read_text().startswith("# ")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        data = compose(name)
    cfg = OmegaConf.create({"data": data, "paths": {"data": str(tmp_path)}, "seed": 7, "T": 3})
    module = instantiate(cfg.data)
    assert type(module).__name__ in qbsnn.data.__all__ and module.name == name
    assert module.root == tmp_path / ("imagenet" if name == "imagenet" else "") and module.seed == 7
    assert set(data) - {"_target_"} == set(signature(type(module)).parameters)
    channels, height, width = module.in_shape
    assert len(module.mean) == len(module.std) == channels and (height == width or name == "shd")
    assert module.num_classes == len(set(module.class_names)) == CLASSES.get(name, 10)


def test_every_set_has_a_configuration():
    configured = {path.stem for path in CONF.glob("[!_]*.yaml")}
    images = {"digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "tiny_imagenet", "imagenet"}
    events = {"digits_dvs", "fashion_dvs", "dvs128_gesture", "nmnist", "cifar10dvs", "shd"}
    assert configured == images | events | FOLDERS
