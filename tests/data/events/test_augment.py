import numpy as np
import pytest
import torch

from qbsnn.data.events.augment import EventAugment, EventMix, FrameAugment, _affine
from qbsnn.data.events.events import Sensor, check_events
from qbsnn.data.images.mix import Mix
from qbsnn.errors import SettingsError
from tests.data.events.tiny_events import some_events

SENSOR = Sensor(20, 16, 2)
OFF = {"drop": 0.0, "jitter": 0.0, "time_jitter_ms": 0.0, "reverse": 0.0}
STILL = {"flip": False, "roll": 0, "rotate": 0.0, "shear": 0.0, "cutout": 0}


def keys(batch: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(batch) % 3, np.arange(batch) * 7


def frames(batch: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 9, (batch, 3, 2, 16, 20), dtype=torch.uint8, generator=generator)


def test_tonics_transforms():
    events = some_events(1000, SENSOR)
    kept = events.copy()
    dropped = EventAugment(SENSOR, 0, **OFF | {"drop": 0.25})(events, 0, 0)
    assert len(dropped) == 750
    reversed_ = EventAugment(SENSOR, 0, **OFF | {"reverse": 1.0})(events, 0, 0)
    assert np.array_equal(reversed_["t"][::-1], events["t"].max() - events["t"])
    assert np.array_equal(reversed_["p"][::-1], ~events["p"]) and np.array_equal(reversed_["x"][::-1], events["x"])
    moved = EventAugment(SENSOR, 0, **OFF | {"jitter": 2.0})(events, 0, 0)
    assert 700 < len(moved) < 1000
    late = EventAugment(SENSOR, 0, **OFF | {"time_jitter_ms": 5.0})(events, 0, 0)
    assert late["t"].max() > events["t"].max() and len(late) < 1000  # what moved before the start is dropped
    for result in (dropped, reversed_, moved, late):
        check_events(result, SENSOR, "augmented")
    assert np.array_equal(events, kept)


def test_events_depend_on_the_sample_alone():
    events = some_events(300, SENSOR)
    augment = EventAugment(SENSOR, 3, drop=0.2, jitter=1.0, time_jitter_ms=1.0, reverse=0.5)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = augment(events, 1, 5)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(9)  # noqa: NPY002
    assert np.array_equal(augment(events, 1, 5), first)
    for other in (augment(events, 2, 5), augment(events, 1, 6)):
        assert not np.array_equal(other, first)


def test_a_flip_mirrors_half_of_the_samples():
    x = frames()
    flipped = FrameAugment(0, **STILL | {"flip": True})(x, *keys(24))
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, x, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(flipped, x, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True)) and 6 < sum(mirrored) < 18


def test_roll_and_cutout_move_all_frames_alike():
    x = frames()
    rolled = FrameAugment(0, **STILL | {"roll": 2})(x, *keys(24))
    shifts = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    found = [[s for s in shifts if torch.equal(a, b.roll(s, (-2, -1)))] for a, b in zip(rolled, x, strict=True)]
    assert all(len(matches) == 1 for matches in found) and len({m[0] for m in found}) > 8
    cut = FrameAugment(0, **STILL | {"cutout": 6})(x, *keys(24))
    holes = cut == 0
    assert (holes == holes[:, :1, :1]).all() and torch.equal(cut[~holes], x[~holes])
    for hole in holes[:, 0, 0]:
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert rows == columns <= 6 and rows * columns == hole.sum() > 0


@pytest.mark.parametrize("move", ["rotate", "shear"])
def test_counts_stay_counts(move):
    x = frames()
    moved = FrameAugment(0, **STILL | {move: 30.0})(x, *keys(24))
    assert moved.dtype == torch.uint8 and moved.max() <= 8 and (moved != x).flatten(1).any(1).sum() >= 18
    # a quarter turn by torch itself
    square = x[:, :, :, :, :16]
    assert torch.equal(_affine(square[0], 90.0, 0.0), square[0].rot90(-1, (-2, -1)))
    assert torch.equal(_affine(square[0], 0.0, 0.0), square[0])


def test_one_move_per_sample():
    x = frames(60)
    both = FrameAugment(0, **STILL | {"roll": 3, "cutout": 5})(x, *keys(60))
    holes = (both == 0).flatten(1).any(1)
    assert 15 < holes.sum() < 45
    for a, b in zip(both[holes], x[holes], strict=True):
        assert torch.equal(a[a > 0], b[a > 0])  # what was cut was not rolled


def test_event_mix():
    labels = torch.arange(32) % 4
    x = 2 * frames(32) + (labels % 2).to(torch.uint8)[:, None, None, None, None]  # neighbours agree nowhere
    mixed, shares = EventMix(1.0, 4, 0)(x, labels, *keys(32))
    own = (mixed == x).all(2)
    other = (mixed == x.roll(1, 0)).all(2)
    assert (own | other).all() and 0.2 < own.float().mean() < 0.8
    assert torch.allclose(shares.sum(1), torch.ones(32))
    for b in range(32):
        a = (x[b] * own[b, :, None])[own[b, :, None].expand_as(x[b])].sum()
        expected = a / mixed[b].sum()
        assert shares[b, labels[b]] == pytest.approx(expected.item(), abs=1e-6)
    assert torch.equal(mixed, EventMix(1.0, 4, 0)(x, labels, *keys(32))[0])


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_torchvisions_mixes(name):
    pixels, labels = torch.rand(16, 3, 8, 8), torch.arange(16) % 5
    before = torch.get_rng_state()
    mixed, shares = Mix(name, 1.0, 5, seed=1)(pixels, labels, *keys(16))
    assert torch.equal(torch.get_rng_state(), before)
    again = Mix(name, 1.0, 5, seed=1)(pixels, labels, *keys(16))
    assert torch.equal(again[0], mixed) and torch.equal(again[1], shares)
    assert shares.shape == (16, 5) and torch.allclose(shares.sum(1), torch.ones(16))
    share = shares[1, 1]  # the first sample meets the last, which is of its class
    if name == "mixup":
        assert torch.allclose(mixed, share * pixels + (1 - share) * pixels.roll(1, 0), atol=1e-6)
    else:
        assert ((mixed == pixels) | (mixed == pixels.roll(1, 0))).all()
    with pytest.raises(SettingsError, match=r"mix_alpha must be a number above 0, got 0"):
        Mix(name, 0, 5, seed=1)
