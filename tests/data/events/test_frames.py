import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qbsnn.data.events.events import EVENT, Sensor, check_events
from qbsnn.data.events.frames import Framing, Losses
from qbsnn.errors import DataError, SettingsError
from tests.data.events.tiny_events import some_events

SENSOR = Sensor(34, 20, 2)


def by_hand(events, sensor, frames, edges):
    """Counts event by event, slices by position."""
    out = np.zeros((frames, 2, sensor.height, sensor.width), int)
    for k in range(frames):
        for event in events[edges[k] : edges[k + 1]]:
            out[k, int(event["p"]), event["y"], event["x"]] += 1
    return out


def tonic_frames(events, sensor, **how):
    from tonic.transforms import ToFrame

    return ToFrame(sensor_size=tuple(sensor), **how)(events.copy())


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(30, 400),
    frames=st.integers(1, 12),
    duration=st.integers(500, 10**7),
    start=st.integers(0, 10**6),
    slice_by=st.sampled_from(["time", "count"]),
)
def test_equals_tonics_frames(count, frames, duration, start, slice_by):
    events = some_events(count, SENSOR, count, duration)
    events["t"] += start
    name = "n_time_bins" if slice_by == "time" else "n_event_bins"
    expected = tonic_frames(events, SENSOR, **{name: frames})
    found, losses = Framing(SENSOR, frames, slice_by, keep_tail=False)(events)
    assert found.dtype == np.uint8 and np.array_equal(found, expected)
    assert losses.events == count and losses.tail == count - expected.sum()
    kept, nothing_lost = Framing(SENSOR, frames, slice_by)(events)
    assert kept.sum() == count and nothing_lost.tail == 0
    # the tail is in the last frame, and nothing else changed
    assert np.array_equal(kept[:-1], expected[:-1]) and (kept[-1] - expected[-1]).sum() == losses.tail


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(2, 300),
    duration=st.integers(1, 10**6),
    window_ms=st.floats(0.5, 400).map(lambda x: round(x, 3)),
    keep_tail=st.booleans(),
)
def test_slices_of_a_fixed_duration_equal_tonics(count, duration, window_ms, keep_tail):
    events = some_events(count, SENSOR, count, duration)
    expected = tonic_frames(events, SENSOR, time_window=window_ms * 1000, include_incomplete=keep_tail)
    frames = 8
    found, losses = Framing(SENSOR, frames, "duration", window_ms, keep_tail)(events)
    whole = min(len(expected), frames)
    assert np.array_equal(found[:whole], expected[:frames])
    if keep_tail and len(found) > whole:
        assert found[whole:].sum() <= 1  # Tonic's rounding up misses an event right at the end of the last slice
    else:
        assert not found[whole:].any()
    assert losses.events - losses.tail == found.sum()
    assert losses.padded >= frames - len(expected) - 1


def test_frames_by_hand():
    events = np.array([(0, 0, 0, 0), (1, 2, 10, 1), (1, 2, 19, 1), (3, 3, 20, 0), (3, 3, 31, 1)], EVENT)
    frames, losses = Framing(Sensor(4, 4, 2), 3, keep_tail=False)(events)  # slices of 31 // 3 = 10 µs
    assert [frame.sum() for frame in frames] == [1, 2, 1]
    assert frames[0, 0, 0, 0] == 1 and frames[1, 1, 2, 1] == 2 and frames[2, 0, 3, 3] == 1
    assert losses == Losses(1, 5, 1, 0, 0)
    frames, losses = Framing(Sensor(4, 4, 2), 2, "count")(events)
    assert [frame.sum() for frame in frames] == [2, 3] and losses.tail == 0
    frames, losses = Framing(Sensor(4, 4, 2), 6, "duration", 0.01)(events)
    assert [frame.sum() for frame in frames] == [1, 2, 1, 1, 0, 0] and losses.padded == 2


def test_polarities_and_size():
    events = some_events(500, SENSOR, 3)
    both = Framing(SENSOR, 4)(events)[0]
    assert np.array_equal(both, by_hand(events, SENSOR, 4, Framing(SENSOR, 4).edges(events["t"], "")[0]))
    for polarity, expected in (("on", both[:, 1:]), ("off", both[:, :1]), ("merged", both.sum(1, keepdims=True))):
        assert np.array_equal(Framing(SENSOR, 4, polarity=polarity)(events)[0], expected)
    small = Framing(SENSOR, 4, size=17)
    assert small.shape == (2, 10, 17)
    assert np.array_equal(small(events)[0], both.reshape(4, 2, 10, 2, 17, 2).sum((3, 5)))
    odd, losses = Framing(SENSOR, 4, size=13)(events)
    assert odd.sum() == 500 and losses.clipped == 0


def test_a_cell_holds_255_events_at_most():
    events = np.zeros(1000, EVENT)
    events["t"] = np.arange(1000)
    frames, losses = Framing(SENSOR, 1)(events)
    assert frames.max() == frames.sum() == 255 and losses.clipped == 745


def changed(**fields):
    events = some_events(50, SENSOR)
    for name, (index, value) in fields.items():
        events[name][index] = value
    return events


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (changed(t=(7, -1)), "times must not be negative, but event 7 has t = -1 µs"),
        (changed(t=(9, 300_000)), "times must not run backwards, but event 10 has t = .* µs after 300000 µs"),
        (changed(x=(3, 34)), "x must be from 0 to 33, but event 3 has 34"),
        (changed(y=(4, -1)), "y must be from 0 to 19, but event 4 has -1"),
        (changed()[:0], "it holds no events"),
        (changed().astype([("x", "f4"), ("y", "f4"), ("t", "f8"), ("p", "?")]), "events must be integers"),
        (np.zeros((50, 4)), r"must have the fields x, y, t and p, got float64 \[50, 4\]"),
        (changed()[["x", "y", "t"]], "must have the fields x, y, t and p"),
    ],
)
def test_bad_events(events, message):
    check_events(changed(), SENSOR, "good")
    with pytest.raises(DataError, match=f"^some.bin: .*{message}"):
        check_events(events, SENSOR, "some.bin")


def test_too_few_events_for_the_frames():
    with pytest.raises(DataError, match=r"a\.bin: 50 events do not make 51 frames of equally many"):
        Framing(SENSOR, 51, "count")(changed(), "a.bin")
    with pytest.raises(DataError, match=r"a\.bin: 9 µs of events do not make 10 frames of 1 µs or more"):
        Framing(SENSOR, 10)(some_events(50, SENSOR, 0, 9), "a.bin")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"frames": 0}, "frames must be an integer from 1"),
        ({"slice_by": "events"}, "slice_by must be one of time, count, duration, got 'events'"),
        ({"slice_by": "duration"}, "window_ms must be a number of at least 0.001, got None"),
        ({"polarity": 2}, "polarity must be one of both, merged, on, off, got 2"),
        (
            {"polarity": "on", "sensor": Sensor(34, 34, 1)},
            "polarity must be both or merged, .* got 'on'",
        ),
        ({"size": 35}, "size must be an integer from 1 to 34, got 35"),
        ({"keep_tail": 1}, "keep_tail must be true or false, got 1"),
    ],
)
def test_bad_settings(changed, message):
    with pytest.raises(SettingsError, match=message):
        Framing(**{"sensor": SENSOR, "frames": 4, **changed})
