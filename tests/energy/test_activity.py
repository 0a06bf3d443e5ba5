"""What a source sent: exact sums over batches, signs, fractions and processes."""

from itertools import product

import pytest
import torch
from torch import nn

from qbsnn.energy.activity import Activity, ActivityMeter
from qbsnn.energy.estimate import estimate
from qbsnn.errors import EnergyError
from qbsnn.neurons import QBLIF
from tests.energy.networks import chain, pixels


def bursts(*shape: int, low: int = 0, high: int = 5) -> torch.Tensor:
    return torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(1)).float()


@pytest.mark.parametrize("bounds", [{}, {"low": -5, "high": 5}, {"low": -(2**22), "high": 2**22}])
@pytest.mark.parametrize("shape", [(3, 4, 2), (7,)])
def test_sums_over_batches_equal_plain_loops(shape, bounds):
    activity = Activity(shape, steps=2, **bounds)
    batches = [bursts(2, samples, *shape, low=-5) for samples in (4, 1)]
    for batch in batches:
        activity.update(batch)
    sent = activity.traffic()
    assert sent.samples == 5 and not sent.analog
    assert sent.levels == (2**23 + 1 if bounds.get("high", 0) > 5 else 11)
    for place in product(*map(range, shape[1:])):
        values = [int(value) for batch in batches for value in batch[(..., *place)].flatten()]
        assert sent.spikes[place] == sum(abs(value) for value in values)
        assert sent.events[place] == sum(value != 0 for value in values)
    # a burst and its negative cancel in a network without time
    assert sent.active.sum() == sum(int((batch[0] + batch[1] != 0).sum()) for batch in batches) < sent.events.sum()


@pytest.mark.parametrize(("steps", "channels"), [(1, 3), (3, 1)])
def test_values_beyond_float32_integers_are_summed_exactly(steps, channels):
    activity = Activity((channels,), steps, low=0, high=2**23)
    activity.update(torch.tensor([2.0**23, 2.0**23, 1.0]).view(steps, 1, channels))
    assert int(activity.traffic().spikes) == 2**24 + 1


def test_one_fraction_makes_a_source_analog():
    activity = Activity((2, 1, 1), steps=1)
    activity.update(torch.tensor([1.0, 3.0]).view(1, 1, 2, 1, 1))
    assert (activity.traffic().analog, activity.traffic().levels) == (False, 4)
    activity.update(torch.tensor([0.25, 0.0, -0.25, 0.0]).view(1, 2, 2, 1, 1))
    sent = activity.traffic()
    assert (sent.analog, sent.levels, int(sent.spikes), int(sent.events)) == (True, None, 0, 4)


def test_reset_forgets():
    activity = Activity((3,), steps=2)
    activity.update(bursts(2, 4, 3))
    activity.reset()
    activity.update(torch.ones(2, 1, 3))
    sent = activity.traffic()
    assert (sent.samples, int(sent.spikes), int(sent.events), int(sent.active)) == (1, 6, 6, 3)


def test_processes_are_summed():
    """What torchmetrics does with the states of several processes: stack, then reduce."""
    parts = [Activity((2, 1, 1), steps=1) for _ in range(2)]
    for part, value in zip(parts, (1.0, 3.0), strict=True):
        part.update(torch.full((1, 1, 2, 1, 1), value))
    for name, reduce in parts[0]._reductions.items():
        setattr(parts[0], name, reduce(torch.stack([getattr(part, name) for part in parts])))
    sent = parts[0].traffic()
    assert (sent.samples, int(sent.spikes), int(sent.events), sent.levels) == (2, 8, 4, 4)


def test_a_meter_listens_only_while_attached():
    network, image = chain(nn.Linear(1, 2)), pixels(1, 1, 1, c0_0_0=1)
    network(image)
    meter = ActivityMeter(network)
    with pytest.raises(EnergyError, match="no image passed through the network"):
        estimate(meter, "best")
    meter.attach()
    with torch.inference_mode():
        network(image)
    meter.detach()
    network(image)
    emitted, sent = meter.traffic()
    assert {traffic.samples for traffic in (*emitted.values(), *sent.values())} == {1}
    assert sorted(emitted) == ["a", "b"] and sorted(sent) == ["a", "b", "input"]


@pytest.mark.parametrize(("divisor", "windows"), [(None, 4), (1, 4), (2, 4), (3, 4)])
def test_levels_of_a_pool_are_those_of_its_sum_whatever_it_divides_by(divisor, windows):
    """Bursts of up to 15 in windows of four: sums of 0 to 60, that is 61 values."""
    network = chain(nn.Linear(4, 3), nn.AvgPool2d(2, divisor_override=divisor))
    network.in_shape = (1, 4, 4)
    meter = ActivityMeter(network)
    meter.attach()
    with torch.no_grad():
        network(torch.full((1, 1, 4, 4), 15.0))
    sent = meter.traffic()[1]["a"]
    assert sent.levels == windows * 15 + 1 and sent.spikes.tolist() == [[3 * 60] * 2] * 2


def test_half_precision_and_graded_outputs_give_the_same_counts():
    meters = []
    for output, dtype in (("counts", torch.float32), ("graded", torch.float32), ("counts", torch.bfloat16)):
        network = chain(nn.Linear(4, 3), nn.AvgPool2d(2))
        network.stages["a"].neuron = QBLIF(s_max=127, tau=1.0, delta=0.5, output=output)
        meters.append(ActivityMeter(network))
        meters[-1].attach()
        image = torch.tensor([0.0, 8.25, 60.0, 100.0] * 4).view(1, 1, 4, 4)
        with torch.no_grad():
            stage = network.stages["a"]
            network.encoder(image)
            stage([image[None].to(dtype)], 3)
    sent = [meter.traffic()[1]["a"] for meter in meters]
    # Δ = 0.5: bursts 0, 16, 120, 127; windows of two columns in two rows
    assert all(torch.equal(found.spikes, sent[0].spikes) for found in sent)
    assert sent[0].spikes.tolist() == [[3 * 2 * 16, 3 * 2 * 247]] * 2
