"""What the checks after training are given, and when one test of the weights is enough."""

import torch

from qbsnn.models import mlp
from qbsnn.neurons import QBLIF
from qbsnn.training import deployment
from qbsnn.training.run import holds


def network():
    return mlp(QBLIF, in_shape=(1, 2, 2), num_classes=3, mean=[0.5], std=[0.5])


def test_checks_see_every_image_once_and_in_order(monkeypatch):
    monkeypatch.setattr(deployment, "AT_ONCE", 1)
    batches = [(torch.rand(n, 1, 2, 2), torch.arange(n)) for n in (20, 3)]
    parts = list(deployment._parts(network(), batches))
    assert [len(labels) for _, labels in parts] == [8, 8, 4, 3]
    for i in (0, 1):
        assert torch.equal(torch.cat([part[i] for part in parts]), torch.cat([batch[i] for batch in batches]))


def test_a_module_holds_a_checkpoint_only_where_all_values_are_equal():
    module = network()
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    assert holds(module, {"state_dict": kept})
    name = next(name for name, value in kept.items() if value.is_floating_point() and value.numel() > 1)
    kept[name].view(-1)[0] += 1
    assert not holds(module, {"state_dict": kept})
    del kept[name]
    assert not holds(module, {"state_dict": kept})
