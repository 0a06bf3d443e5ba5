"""What the checks after training are given, and when one test of the weights is enough."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qbsnn.callbacks import EarlyExit
from qbsnn.callbacks.verification import IntegerSimulation
from qbsnn.data import Digits
from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.grid import GridNetwork
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.deploy.engines import reference
from qbsnn.errors import DeployError, VerificationError
from qbsnn.models import mlp
from qbsnn.neurons import QBLIF
from qbsnn.results.reading import read_result
from qbsnn.training import deployment
from qbsnn.training.deployment import Check
from qbsnn.training.module import Classifier
from qbsnn.training.record import recorded, require_proof
from qbsnn.training.run import holds
from tests.deploy.spiking import batches, make
from tests.report.samples import make_result


def network():
    return mlp(QBLIF, in_shape=(1, 2, 2), num_classes=3, mean=[0.5], std=[0.5])


@pytest.mark.parametrize("device", ["cpu", "meta"])  # meta: any other device
def test_checks_see_the_batches_in_parts(monkeypatch, device):
    monkeypatch.setattr(deployment, "AT_ONCE", dict.fromkeys(deployment.AT_ONCE, 1))
    batches = [(torch.rand(n, 1, 2, 2), torch.arange(n)) for n in (20, 3)]
    parts = list(deployment._parts(network().to(device), batches))
    assert [len(labels) for _, labels in parts] == [8, 8, 4, 3] and parts[0][0].device.type == device


def test_checks_see_every_image_once_and_in_order(monkeypatch):
    monkeypatch.setattr(deployment, "AT_ONCE", dict.fromkeys(deployment.AT_ONCE, 1))
    batches = [(torch.rand(n, 1, 2, 2), torch.arange(n)) for n in (20, 3)]
    parts = list(deployment._parts(network(), batches))
    for i in (0, 1):
        assert torch.equal(torch.cat([part[i] for part in parts]), torch.cat([batch[i] for batch in batches]))


def test_nothing_is_chosen_on_test_images():
    """The search for thresholds sees training images; both margins of early exit are chosen on validation images."""
    asked, data = [], Digits(batch_size=32, limit_train=64, limit_val=32, limit_test=32)
    data.setup()
    for part in ("train", "val", "test"):
        honest = getattr(data, f"{part}_dataloader")
        setattr(data, f"{part}_dataloader", lambda part=part, honest=honest: asked.append(part) or honest())
    trained = mlp(QBLIF, in_shape=(1, 8, 8), num_classes=10, mean=[0.5], std=[0.5], hidden=(16,)).eval()
    settings = DeploySettings(theta="integer", calibration_images=8, exit_loss=0.9)
    converted = deployment.convert(trained, settings, data, lambda *_: None)
    assert converted.deployed.quantized.net.exit_margin is not None and asked == ["train", "val"]
    module = Classifier(trained, 10, loss=None, optimizer=None, scheduler=None, config={})
    EarlyExit(loss=0.9).on_test_start(SimpleNamespace(datamodule=data), module)
    assert asked == ["train", "val", "val"]


class Slow(Check):
    """A check of what nobody has a form for, or that meets a value outside an engine's bounds."""

    block = "slow"

    def check(self, network, batches, name):
        raise DeployError("the current J must be within ±9, got 10")


def narrow(tuned):
    """A network whose membranes overflow in 8 bits: converted, and its batches. tuned: with the rivals of qat."""
    trained = make("mlp", partial(QBLIF, s_max=1))
    absorbed = absorb(trained)
    quantized = quantize(absorbed, DeploySettings(membrane_bits=8, overflow="error", mode="qat"))
    grid = {name: value.clone() for name, value in GridNetwork(quantized).state_dict().items()}
    weights = deployment.Tuned(grid, trained.state_dict(), kept=False) if tuned else None
    converted = deployment.Converted(trained, absorbed, deployment.chosen(trained, quantized, weights))
    return converted, lambda: batches(trained)


@pytest.mark.parametrize("tuned", [False, True])
def test_overflows_fail_the_proof_with_rivals_too(tuned):
    converted, given = narrow(tuned)
    block = deployment.prove([IntegerSimulation(onnx_images=0)], converted, given, "best")["integer"]
    assert not block.passed and block.overflows > 0 and block.first_overflow.startswith("fc1")
    # The rounded network is the deployed one, so both have the same accuracy; the engine's is that of numpy.
    assert block.ptq_acc == (block.acc if tuned else None)
    net, right = converted.deployed.quantized, 0
    for pixels, labels in given():
        right += int((reference.run(net.net, net.current(pixels)).logits.argmax(1) == labels.numpy()).sum())
    assert block.acc == right / block.images
    with pytest.raises(
        VerificationError, match=rf"integer check failed: .*{block.overflows} overflows, the first: fc1"
    ):
        require_proof(SimpleNamespace(absorption=None, integer=block))


def test_only_a_missing_form_is_a_reason_to_skip_a_check():
    converted, given = narrow(tuned=False)
    without = replace(converted, deployed=DeployError("fc1: no integer form"))
    found = deployment.prove([IntegerSimulation(onnx_images=0)], without, given, "best")
    assert found == {"integer": {"checkpoint": "best", "skipped": "fc1: no integer form"}}
    for network in (converted, without):
        with pytest.raises(DeployError, match="must be within ±9"):
            deployment.prove([Slow()], network, given, "best")
    loose = replace(converted.deployed.quantized, current_bounds=(np.zeros(40, np.int64), np.ones(40, np.int64)))
    damaged = replace(converted, deployed=replace(converted.deployed, quantized=loose))
    with pytest.raises(DeployError, match="the current J must be within ±1"):
        deployment.prove([IntegerSimulation(onnx_images=0)], damaged, given, "best")


def test_a_module_holds_a_checkpoint_only_where_all_values_are_equal():
    module = network()
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    assert holds(module, {"state_dict": kept})
    name = next(name for name, value in kept.items() if value.is_floating_point() and value.numel() > 1)
    kept[name].view(-1)[0] += 1
    assert not holds(module, {"state_dict": kept})
    del kept[name]
    assert not holds(module, {"state_dict": kept})


@pytest.mark.parametrize("spikes", [5, 0])
def test_a_run_with_a_silent_layer_is_unproven(tmp_path, spikes):
    begun = make_result(status="running", config={"report": False})
    begun.integer.layers[1].spikes = spikes
    with recorded(begun, tmp_path, [], dict, lambda: 0.0):
        pass
    found = read_result(tmp_path / "result.json")
    assert found.status == ("finished" if spikes else "unproven")
    assert found.error == (None if spikes else "equal engines prove nothing of layers without spikes: block.neuron")
