"""A step computes each layer once: time is merged into the batch, and what stands still is computed for one step."""

from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qbsnn.models import mlp, resnet, vgg
from qbsnn.neurons import QBLIF, ReLU

STEPS, BATCH, SHAPE = 4, 2, (3, 8, 8)
FAMILIES = {
    "mlp": (mlp, {"hidden": (16, 12)}),
    "vgg5": (vgg, {"name": "vgg5", "width": 0.25}),
    "resnet20": (resnet, {"name": "resnet20", "width": 0.25}),
}


def network(family, neuron, encoding):
    make, options = FAMILIES[family]
    return make(neuron, SHAPE, 10, (0.5,) * 3, (0.25,) * 3, T=STEPS, encoding=encoding, **options)


def macs(weight, output) -> int:
    """Multiply-accumulates of one image and step, from the output's shape: fan-in times output values."""
    return weight[0].numel() * output[0].numel()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("encoding", "first_steps"), [("direct", 1), ("rate", STEPS)])
def test_layers_run_once_on_merged_time_and_the_first_for_one_step_of_a_still_image(family, encoding, first_steps):
    net = network(family, partial(QBLIF, s_max=4), encoding)
    seen = {}

    def see(name, module, inputs, output):
        seen.setdefault(name, []).append((len(inputs[0]), macs(module.weight, output)))

    layers = {name: m for name, m in net.named_modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))}
    for name, module in layers.items():
        module.register_forward_hook(partial(see, name))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.rand(BATCH, *SHAPE))

    assert seen.keys() == layers.keys() and all(len(calls) == 1 for calls in seen.values())
    reads_input = [
        f"stages.{name}.branches.{i}.weight"
        for name, stage in net.named_stages()
        for i, source in enumerate(stage.sources)
        if source == "input"
    ]
    assert reads_input
    total = 0
    for name, [(rows, work)] in seen.items():
        steps = first_steps if name in reads_input else STEPS
        assert rows == steps * BATCH, name
        total += steps * BATCH * work
    assert counter.get_total_flops() == 2 * total


def test_a_network_without_state_computes_one_step_of_a_still_image():
    flops = []
    for neuron in (ReLU, QBLIF):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network("vgg5", neuron, "direct")(torch.rand(BATCH, *SHAPE))
        flops.append(counter.get_total_flops())
    one, many = flops
    first = 2 * BATCH * 3 * 9 * 64 * 16  # conv1: 3·3 taps of 3 channels, 8·8 positions, 16 channels out
    assert many - first == STEPS * (one - first)
