"""Every kind of neuron, readout and norm: counted as what it does, or refused with the reason."""

from functools import partial

import pytest
import torch
from torch import nn

from qbsnn.energy.activity import ActivityMeter
from qbsnn.energy.count import count_operations
from qbsnn.errors import EnergyError
from qbsnn.models import mlp
from qbsnn.neurons import IF, ILIF, LIF, PLIF, QBLIF, AdaptiveQB, MultiCompartment, Operations, QuantReLU, TernaryBurst
from tests.energy.networks import chain, counted, pixels


def counts(neuron, T=3, **more):
    torch.manual_seed(0)
    network = mlp(neuron, (1, 4, 4), 5, mean=[0.5], std=[0.2], hidden=(8, 6), T=T, **more).eval()
    meter = ActivityMeter(network)
    meter.attach()
    with torch.no_grad():
        network(torch.rand(2, 1, 4, 4))
    return {stage.name: stage for stage in count_operations(network, *meter.traffic())}


def test_signed_bursts_cost_their_size():
    network = chain(nn.Linear(2, 5))
    network.stages["a"].neuron = TernaryBurst(s_max=4, tau=1.0, delta=1.0)
    found = counted(network, torch.tensor([-3.0, 2.0]).view(1, 1, 1, 2))
    events, acs = found["b"].usage["network"].counts.events, found["b"].usage["network"].counts.acs
    assert (events, acs, found["a"].spikes) == (3 * 10, 3 * 25, 15)
    assert found["a"].levels == 3 * 8 + 1  # −12..12
    assert found["b"].usage["relu"].counts.macs == 10


def test_levels_of_a_quantised_relu_are_factors():
    network = chain(nn.Linear(2, 5), steps=1)
    for stage in ("a", "b"):
        network.stages[stage].neuron = QuantReLU(bits=3, delta=1.0)
    found = counted(network, pixels(1, 1, 2, c0_0_0=5))
    use = found["b"].usage["network"]
    assert (use.counts.macs, use.counts.acs, use.products, use.counts.resets, use.counts.leaks) == (5, 0, {3: 5}, 0, 0)
    assert set(found["b"].usage) == {"network", "relu_dense"} and not found["b"].spike_driven


@pytest.mark.parametrize(
    ("neuron", "leaks", "accesses"),
    [
        (LIF, 1, 2),
        (PLIF, 1, 2),
        (IF, 0, 2),
        (partial(QBLIF, tau=1.0), 0, 2),
        (ILIF, 1, 2),
        (MultiCompartment, 2, 4),
    ],
)
def test_state_updates(neuron, leaks, accesses):
    found = counts(neuron)["fc2"]
    own, updates = found.usage["network"].counts, 6 * 3 * 2
    assert (own.leaks, own.compares, own.resets) == (leaks * updates, updates, updates)
    assert own.state_accesses == 2 * own.events + accesses * updates
    assert found.usage["network"].held == 6 * 32 * accesses // 2


def test_a_membrane_readout_leaks_and_never_fires():
    own = counts(LIF, readout="membrane")["readout"].usage["network"].counts
    assert (own.leaks, own.compares, own.resets, own.bias_adds) == (5 * 3 * 2, 0, 0, 5 * 3 * 2)


def test_what_would_run_uncounted_is_refused():
    for more, words in (
        ({"norm": "layer"}, "fc1: .* norms that fold into the weights; layer norm divides by the deviation"),
        ({"norm": "tebn"}, "fc1: .* a scale per step takes other weights in every step"),
    ):
        with pytest.raises(EnergyError, match=words):
            counts(LIF, **more)
    with pytest.raises(EnergyError, match="fc1: not counted, for AdaptiveQB does not state what its step takes"):
        counts(AdaptiveQB)
    assert counts(QBLIF, norm="none")["fc1"].dense == 16 * 8


class Stranger(QBLIF):
    def bound_step(self):
        return super().bound_step()


class Stated(Stranger):
    def operations(self):
        return Operations(leaks=3, compares=2, resets=0, state=4, keeps=True)


def test_a_neuron_says_what_its_step_takes_or_is_named():
    with pytest.raises(EnergyError, match=r"fc1: not counted, for Stranger does not state .* give it operations\(\)"):
        counts(Stranger)
    own = counts(Stated)["fc2"].usage["network"]
    updates = 6 * 3 * 2
    assert (own.counts.leaks, own.counts.compares, own.counts.resets) == (3 * updates, 2 * updates, 0)
    assert own.counts.state_accesses == 2 * own.counts.events + 8 * updates and own.held == 6 * 32 * 4
