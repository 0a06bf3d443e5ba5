"""Encodings against their definitions, for every pixel value that matters."""

import pytest
import torch

from qbsnn.errors import SettingsError
from qbsnn.functional import direct, latency, rate
from qbsnn.layers import Encoder


def test_direct_is_the_image_once():
    x = torch.rand(3, 1, 4, 4)
    assert torch.equal(direct(x), x[None])


def test_rate_fires_with_the_pixel_as_probability():
    levels = torch.linspace(0, 1, 11)
    spikes = rate(torch.cat([levels.expand(200, 11), torch.linspace(0, 1, 200)[:, None]], 1), 100, seed=0)
    assert spikes.shape == (100, 200, 12)
    spikes = spikes[..., :11]  # the last pixel makes the samples differ
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    # 20,000 draws each: the standard deviation of the mean is at most 0.0035.
    assert torch.allclose(spikes.mean((0, 1)), levels, atol=0.018)
    assert spikes[..., 0].sum() == 0 and spikes[..., -1].min() == 1


def test_the_noise_of_rate_coding_is_the_samples_own():
    x = torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    together = rate(x, 8, seed=5)
    state = torch.get_rng_state()
    assert torch.equal(together, torch.cat([rate(part, 8, seed=5) for part in x.split([1, 2, 6])], 1))
    assert torch.equal(together[:, [3, 1]], rate(x[[3, 1]], 8, seed=5))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(together, rate(x, 8, seed=6))
    # Noise of samples, steps, positions and seeds is unrelated: pixels of 1/2 and a few that tell samples apart.
    grey = torch.full((2, 1000), 0.5)
    grey[1, 0] = 0.25
    a, b = rate(grey, 2, seed=0), rate(grey, 2, seed=1)
    pairs = [
        (a[0, 0], a[0, 1]),
        (a[0, 0], a[1, 0]),
        (a[0, 0, 1:], a[0, 0, :-1]),
        (a[0, 0], b[0, 0]),
        (a[0, 1], b[0, 0]),
    ]
    for first, second in pairs:
        assert abs((first == second).float().mean() - 0.5) < 0.08  # five standard deviations


def test_a_rate_coded_network_does_not_depend_on_the_batch():
    encoder = Encoder("rate", 4, (0.5,), (0.25,)).eval()
    x = torch.rand(7, 1, 3, 3)
    assert torch.equal(encoder(x), torch.cat([encoder(part) for part in x.split(2)], 1))
    first = encoder.train()(x)
    assert torch.equal(first, torch.cat([encoder(part) for part in x.split(3)], 1))
    encoder.epoch = 1
    assert not torch.equal(first, encoder(x))


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_latency_fires_once_and_brighter_is_earlier(steps):
    grey = torch.arange(0, 256) / 255
    spikes = latency(grey[None], steps)[:, 0]
    assert torch.equal(spikes.sum(0), (grey > 0).float())
    when = spikes[:, 1:].argmax(0)
    assert (when.diff() <= 0).all()
    assert when[-1] == 0 and when[0] == steps - 1
    expected = torch.tensor([round((1 - float(p)) * (steps - 1)) for p in grey[1:].double()])
    halfway = (((1 - grey[1:]) * (steps - 1)) % 1 - 0.5).abs() < 1e-5  # rounded either way in float32
    assert torch.equal(when[~halfway], expected[~halfway])


def test_encoder_normalises_analog_pixels_and_knows_its_range():
    encoder = Encoder("direct", 4, (0.5, 0.25), (0.25, 0.5))
    x = torch.rand(2, 2, 3, 3)
    assert torch.allclose(encoder(x)[0, :, 1], (x[:, 1] - 0.25) / 0.5)
    low, high = encoder.bounds()
    assert low.tolist() == [-2.0, -0.5] and high.tolist() == [2.0, 1.5]
    assert Encoder("rate", 4, (0.5,), (0.25,)).bounds()[1].tolist() == [1.0]
    with pytest.raises(SettingsError, match=r"encoding must be one of direct, rate, latency"):
        Encoder("poisson", 4, (0.5,), (0.25,))


def test_encoder_in_evaluation_repeats_its_spikes_and_its_seed_matters_in_training():
    x = torch.full((8, 1, 4, 4), 0.5)
    one, two = (Encoder("rate", 4, (0.5,), (0.25,), seed=seed) for seed in (0, 1))
    assert not torch.equal(one(x), two(x))
    again = Encoder("rate", 4, (0.5,), (0.25,), seed=0)
    assert torch.equal(again(x), Encoder("rate", 4, (0.5,), (0.25,), seed=0)(x))
    one.eval()
    assert torch.equal(one(x), one(x))
