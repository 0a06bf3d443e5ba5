import numpy as np
import pytest
import torch

from qbsnn.data.images.augment import GROUPED_PIXELS, POLICIES, Augment, apply_steps, drawn_steps, make_policy
from qbsnn.data.randomness import Purpose, draw, torch_seeded

CASES = [
    {"crop": 4},
    {"flip": True},
    {"cutout": 5},
    {"crop": 2, "flip": True},
    {"crop": 3, "flip": True, "cutout": 4},
    {"crop": 1, "cutout": 9},
]


def images(batch: int, channels: int, height: int, width: int) -> torch.Tensor:
    # never 0, so that padding and holes show
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator)


def keys(batch: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(batch) % 3, np.arange(batch) * 7


def one_by_one(pixels, drawn, crop, flip, cutout):
    """Augmentation pixel by pixel."""
    batch, _, height, width = pixels.shape
    out = torch.zeros_like(pixels)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                from_y = y + int(drawn.crop_y[b]) - crop
                from_x = (width - 1 - x if flip and drawn.flip[b] else x) + int(drawn.crop_x[b]) - crop
                if 0 <= from_y < height and 0 <= from_x < width:
                    out[b, :, y, x] = pixels[b, :, from_y, from_x]
                top, left = int(drawn.cutout_y[b]) - cutout // 2, int(drawn.cutout_x[b]) - cutout // 2
                if top <= y < top + cutout and left <= x < left + cutout:
                    out[b, :, y, x] = 0
    return out


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("shape", [(24, 3, 9, 12), (24, 1, 8, 8)], ids=str)
def test_equals_the_slow_version(options, shape):
    pixels, augment = images(*shape), Augment(seed=5, **options)
    kept = pixels.clone()
    epochs, indices = keys(len(pixels))
    result = augment(pixels, epochs, indices)
    drawn = augment.draw(epochs, indices, *shape[2:])
    expected = one_by_one(pixels, drawn, *(options.get(name, 0) for name in ("crop", "flip", "cutout")))
    assert result.dtype == torch.uint8
    assert torch.equal(result, expected)
    assert torch.equal(pixels, kept)
    moved = (result != pixels).flatten(1).any(1)
    assert moved.sum() >= len(pixels) // 4 and result.any()


def test_every_value_is_drawn():
    drawn = Augment(seed=0, crop=2, flip=True, cutout=3).draw(np.zeros(2000, int), np.arange(2000), 6, 10)
    assert set(drawn.crop_y.tolist()) == set(drawn.crop_x.tolist()) == set(range(5))
    assert 900 < drawn.flip.sum() < 1100
    assert set(drawn.cutout_y.tolist()) == set(range(6))
    assert set(drawn.cutout_x.tolist()) == set(range(10))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_depend_on_the_sample_alone(policy, channels):
    pixels, augment = images(16, channels, 16, 16), Augment(seed=2, policy=policy, crop=1)
    epochs, indices = keys(16)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    whole = augment(pixels, epochs, indices)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    backwards = augment(pixels.flip(0), epochs[::-1], indices[::-1]).flip(0)
    assert torch.equal(whole, backwards)
    assert torch.equal(whole[3:5], augment(pixels[3:5], epochs[3:5], indices[3:5]))
    assert not torch.equal(whole, augment(pixels, epochs + 1, indices))
    assert whole.dtype == torch.uint8 and whole.shape == pixels.shape
    cropped = Augment(seed=2, crop=1)(pixels, epochs, indices)
    assert (whole != cropped).any()


def every_step(policy, side):
    """Every operation of the policy with all magnitudes (AutoAugment has 10, the others 31) and both signs."""
    bins = getattr(policy, "num_magnitude_bins", 10)
    for name, (magnitudes, signed) in policy._AUGMENTATION_SPACE.items():
        found = magnitudes(bins, side, side)
        for magnitude in [0.0] if found is None else found.tolist():
            yield from ((name, sign * magnitude) for sign in ((1, -1) if signed else (1,)))


def alone(policy, picture, steps):
    """The picture after the steps, as torchvision does them for it alone."""
    for name, magnitude in steps:
        picture = policy._apply_image_or_video_transform(
            picture, name, magnitude, interpolation=policy.interpolation, fill=policy._fill
        )
    return picture


def same_in_groups(policy, pixels, steps):
    kept = pixels.clone()
    expected = torch.stack([alone(policy, picture, mine) for picture, mine in zip(pixels, steps, strict=True)])
    assert torch.equal(apply_steps(policy, pixels, steps), expected)
    assert torch.equal(pixels, kept)


@pytest.mark.parametrize("policy", ["cifar10", "randaugment", "trivial"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 15, 13)], ids=str)
def test_groups_equal_pictures_one_by_one(policy, shape):
    """Each operation on five pictures at once, among them one of a single colour, then all of them mixed."""
    made = make_policy(policy)
    pixels = torch.cat([images(4, *shape), torch.full((1, *shape), 7, dtype=torch.uint8)])
    steps = list(every_step(made, shape[-1]))
    assert len({name for name, _ in steps}) == 14
    for step in steps:
        same_in_groups(made, pixels, [[step]] * 5)
    chosen = torch.randint(len(steps), (64, 2), generator=torch.Generator().manual_seed(3)).tolist()
    same_in_groups(made, images(64, *shape), [[steps[i] for i in mine][: b % 3] for b, mine in enumerate(chosen)])


def test_large_pictures_equal_too():
    made, side = make_policy("trivial"), int(GROUPED_PIXELS**0.5) + 1
    for name in ("Contrast", "Sharpness", "Equalize"):
        same_in_groups(made, images(3, 3, side, side), [[(name, 0.4)], [(name, 0.4), ("ShearX", 0.2)], []])


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_are_torchvisions(policy):
    """The whole policy, drawn and applied by torchvision, picture by picture, after the same seed."""
    made, pixels = make_policy(policy), images(300, 3, 32, 32)
    epochs, indices = keys(300)
    seeds = draw(Purpose.POLICY, 4, epochs, indices).tolist()
    expected = []
    for picture, seed in zip(pixels, seeds, strict=True):
        with torch_seeded(seed):
            expected.append(made(picture))
    assert torch.equal(Augment(seed=4, policy=policy)(pixels, epochs, indices), torch.stack(expected))
    assert {len(steps) for steps in drawn_steps(made, pixels[0], seeds)} <= {0, 1, 2}
