import math

import numpy as np
import pytest

from qbsnn.data import PixelModel, SimulatedDigitsDVS
from qbsnn.data.events.events import EVENT, Sensor, check_events
from qbsnn.data.events.simulate import moved, simulate, trajectory
from qbsnn.errors import SettingsError

NOBODY = np.random.default_rng(0)


def by_hand(image, travel, model):
    """One pixel and one step at a time, in plain Python."""
    times, columns, rows = trajectory(travel, model.step_us)
    pictures = [np.log(model.floor + moved(image, travel, x, y)) for x, y in zip(columns, rows, strict=True)]
    events = []
    for y in range(pictures[0].shape[0]):
        for x in range(pictures[0].shape[1]):
            level, last = pictures[0][y, x], -math.inf
            for k in range(1, len(times)):
                before, now = pictures[k - 1][y, x], pictures[k][y, x]
                while abs(now - level) >= model.threshold:
                    step = model.threshold if now > level else -model.threshold
                    level += step
                    t = times[k - 1] + model.step_us * (level - before) / (now - before)
                    if t - last >= model.refractory_us:
                        events.append((x, y, int(t), step > 0))
                        last = t
    return sorted(events, key=lambda event: (event[2], event[1], event[0]))


@pytest.mark.parametrize("refractory_us", [0.0, 1000.0, 20_000.0])
def test_equals_the_model_pixel_by_pixel(refractory_us):
    image = np.random.default_rng(1).random((5, 4))
    model = PixelModel(threshold=0.21, step_us=5000, refractory_us=refractory_us)
    events = simulate(image, 3, model, NOBODY)
    expected = by_hand(image, 3, model)
    found = sorted(zip(*(events[name].tolist() for name in "xytp"), strict=True), key=lambda e: (e[2], e[1], e[0]))
    # levels are sums of thresholds in one and products in the other: a tie may fall to either side of a microsecond
    assert len(found) == len(expected) > 100
    for one, other in zip(found, expected, strict=True):
        assert one[:2] == other[:2] and one[3] == other[3] and abs(one[2] - other[2]) <= 1
    assert events.dtype == EVENT and (np.diff(events["t"]) >= 0).all()
    check_events(events, Sensor(7, 8, 2), "simulated")


def test_a_pixel_that_brightens_ten_times_by_hand():
    # a row of one bright pixel enters a dark one: ln(0.1 + 1) - ln(0.1) = 2.398, seven thresholds of 0.3 and a rest
    model = PixelModel(threshold=0.3, refractory_us=0.0)
    events = simulate(np.ones((1, 1)), 2, model, NOBODY)
    below = events[(events["x"] == 1) & (events["y"] == 2)]  # reached after the first saccade, left in the second
    first = below[below["t"] <= 107_000]
    assert first["p"].all() and len(first) == 7
    assert math.floor(math.log(11) / 0.3) == 7


def test_refractory_pixels_and_thresholds():
    image = np.random.default_rng(2).random((6, 6))
    free = simulate(image, 4, PixelModel(refractory_us=0.0), NOBODY)
    tired = simulate(image, 4, PixelModel(refractory_us=10_000.0), NOBODY)
    assert 0 < len(tired) < len(free)
    for pixel in {(event["x"], event["y"]) for event in tired}:
        mine = tired[(tired["x"] == pixel[0]) & (tired["y"] == pixel[1])]
        assert (np.diff(mine["t"]) >= 9_999).all()
    assert len(simulate(image, 4, PixelModel(threshold=0.6), NOBODY)) < len(free) / 1.5
    assert len(simulate(np.zeros((6, 6)), 4, PixelModel(), NOBODY)) == 0


def test_noise_has_its_rate():
    events = simulate(np.zeros((20, 20)), 4, PixelModel(noise_hz=10.0), np.random.default_rng(3))
    expected = 10.0 * 0.315 * 24 * 24
    assert abs(len(events) - expected) < 5 * expected**0.5
    assert 0.4 < events["p"].mean() < 0.6 and len(np.unique(events["x"])) == 24


def test_a_set_is_labelled_and_repeats_itself(tmp_path):
    data = SimulatedDigitsDVS(root=tmp_path, cache="none")
    recordings, labels, _ = data.open(False)
    assert data.describe()["simulated"] and data.simulated
    assert recordings.names[0].startswith("digits_dvs (simulated), image ") and len(labels) == 360
    assert np.array_equal(recordings.events(7), recordings.events(7))
    other = SimulatedDigitsDVS(root=tmp_path, pixel=PixelModel(threshold=0.2)).open(False)[0]
    assert recordings.fingerprint() != other.fingerprint() != data.open(True)[0].fingerprint()


def test_training_and_test_images_meet_other_noise(tmp_path):
    data = SimulatedDigitsDVS(root=tmp_path, cache="none", pixel=PixelModel(noise_hz=50.0, threshold=50.0))
    train, test = (data.open(train)[0] for train in (True, False))
    assert len(train.read(7)) and not np.array_equal(train.read(7), test.read(7))
    assert test.fingerprint()[-1] == 1 and len(train.fingerprint()) == 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threshold": 0}, "pixel.threshold must be a number of at least 0.01, got 0"),
        ({"floor": 0}, "pixel.floor must be a number above 0, got 0"),
        ({"refractory_us": -1}, "pixel.refractory_us must be"),
        ({"step_us": 1.5}, "pixel.step_us must be an integer from 1"),
        ({"noise_hz": float("nan")}, "pixel.noise_hz must be a number"),
    ],
)
def test_bad_settings(changed, message):
    with pytest.raises(SettingsError, match=message):
        PixelModel(**changed)
