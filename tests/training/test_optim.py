from functools import partial

import torch

from qbsnn.models import resnet
from qbsnn.neurons import QBLIF
from qbsnn.training.optim import parameter_groups


def test_weight_decay_reaches_layer_weights_only():
    network = resnet(partial(QBLIF, s_max=4), (3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3, name="resnet20", width=0.25)
    decayed, free = parameter_groups(network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert all(names[id(p)].endswith("weight.weight") for p in decayed["params"])
    assert {names[id(p)].rsplit(".", 1)[-1] for p in free["params"]} == {"raw", "weight", "bias"}
    assert sum(names[id(p)].endswith("neuron.delta.raw") for p in free["params"]) == 19
    assert len(decayed["params"]) + len(free["params"]) == len(names)

    optimizer = torch.optim.AdamW(parameter_groups(network), lr=0.1, weight_decay=0.5)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in network.named_parameters():
        shrunk = before[name] * 0.95 if name.endswith("weight.weight") else before[name]
        assert torch.allclose(parameter, shrunk), name
