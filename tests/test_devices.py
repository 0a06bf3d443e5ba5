"""Every tensor of a forward and a backward pass lies on one device: no constant is left on the CPU.

Fake tensors have a device and no data, so that this needs no graphics card: an operation that met two devices raises.
The network is made on the CPU, as always, and its parameters and buffers are then put on another device; whatever is
neither stays behind. That device is called ``lazy``: torch's autograd would look for the driver of ``cuda``.
"""

from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import Library

from qbsnn.deploy.convert import grid
from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.grid import GridNetwork
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.engines import int8_engine
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.deploy.engines.torch_engine import Overflows, TorchEngine
from qbsnn.energy.spending import Spending, StepSpending, Synapses
from qbsnn.functional.early_exit import leave
from qbsnn.functional.loss import DECISIONS, decided_cross_entropy, tet
from qbsnn.models import fast, mlp, resnet, vgg
from qbsnn.models.execution import prepare
from qbsnn.neurons import QBLIF
from tests.neurons.test_neurons import EVERY

DEVICE = "lazy"
SHAPE = (3, 16, 16)
MODELS = {
    "mlp": mlp,
    "vgg": partial(vgg, name="vgg5", width=0.25),
    "resnet": partial(resnet, name="resnet20", width=0.25),
    "fast": partial(fast, channels=(8, 16)),
}
meta = Library("aten", "IMPL", "Meta")  # torch has no shapes of this operation


@pytest.fixture(autouse=True, scope="module")
def shapes_of_statistics():
    def statistics(y, mean, var, momentum):
        return y.new_empty(y.shape[1], dtype=torch.float32), y.new_empty(y.shape[1], dtype=torch.float32)

    meta.impl("batch_norm_update_stats", statistics)
    yield
    meta._destroy()


@contextmanager
def elsewhere(*modules, arrays=False):
    """Fake tensors, with the parameters and buffers of these modules on the device; arrays: real tensors may be met."""
    with FakeTensorMode(allow_non_fake_inputs=arrays):
        for module in (part for whole in modules for part in whole.modules()):
            for kept in (module._parameters, module._buffers):
                for name, value in kept.items():
                    if value is not None:
                        moved = torch.empty(value.shape, dtype=value.dtype, device=DEVICE)
                        learned = isinstance(value, nn.Parameter)
                        kept[name] = nn.Parameter(moved, value.requires_grad) if learned else moved
        yield


def network(neuron=QBLIF, model="vgg", **options):
    return MODELS[model](neuron, SHAPE, 5, mean=[0.4] * 3, std=[0.2] * 3, T=3, **options)


def images():
    return torch.rand(4, *SHAPE, device=DEVICE)


def train(made, tap=None):
    logits = made(images(), tap)
    decided_cross_entropy(logits, torch.zeros(4, dtype=torch.int64, device=DEVICE)).backward()
    assert logits.device.type == DEVICE
    assert all(p.grad is None or p.grad.device.type == DEVICE for p in made.parameters())
    assert any(p.grad is not None for p in made.parameters())


SCALE = partial(QBLIF, output="graded", granularity="channel", parametrisation="softplus", lsq=True, learn_tau=True)
SETTINGS = [{"norm": norm} for norm in ("tdbn", "tebn", "layer", "none")]
SETTINGS += [{"encoding": coding} for coding in ("rate", "latency")] + [
    {"readout": kind} for kind in ("membrane", "rate")
]


def test_a_constant_that_is_left_behind_is_found():
    class Forgetful(nn.Module):
        kept = torch.ones(3)

        def forward(self, x):
            return x * self.kept

    with elsewhere(), pytest.raises((RuntimeError, AssertionError), match=r"device|FakeTensor"):
        Forgetful()(torch.ones(3, device=DEVICE))


@pytest.mark.parametrize("neuron", [*EVERY, SCALE], ids=lambda make: getattr(make, "__name__", str(make)[18:60]))
def test_neurons(neuron):
    made = network(neuron)
    with elsewhere(made):
        train(made)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("memory", ["none", "packed"])
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_models(model, memory):
    made = prepare(network(model=model), memory=memory)
    made._packed_passes = 2  # the third pass does not look at values, which fake tensors have not
    with elsewhere(made):
        train(made)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_norms_encodings_and_readouts(options):
    made = network(**options)
    with elsewhere(made):
        train(made)


def test_losses_and_early_exit():
    with elsewhere():
        logits = torch.rand(3, 4, 5, device=DEVICE)
        labels = torch.zeros(4, dtype=torch.int64, device=DEVICE)
        found = [decided_cross_entropy(logits, labels, decision, 0.1) for decision in DECISIONS]
        assert {loss.device.type for loss in (*found, tet(logits, labels), *leave(logits, 1.0))} == {DEVICE}


def test_energy():
    made = network(partial(QBLIF, s_max=2, output="graded"), model="resnet")
    synapses = Synapses(made)
    made(torch.rand(2, *SHAPE), Spending(synapses))  # fan-outs are values, which fake tensors have not
    with elsewhere(made):
        device = images().device
        synapses._fans = {
            (*key[:-1], device): torch.empty(fan.shape, device=device) for key, fan in synapses._fans.items()
        }
        spending, steps = Spending(synapses), StepSpending(synapses)
        made(images(), spending)
        made(images(), steps)
        (spending.relative() + spending.per_synapse() + sum(spending.rates.values())).backward()
        assert steps.steps is not None and steps.steps.shape == (3, 4) and steps.steps.device == device


class Unheard(Overflows):
    """Looks at no value, for there is none."""

    def add(self, *args):
        pass


@pytest.mark.parametrize("multiplies", ["int_mm", "none: no int8"])
def test_engines(monkeypatch, multiplies):
    monkeypatch.setattr(int8_engine, "unit", lambda device: multiplies)
    quantized = quantize(absorb(network(model="resnet").eval()))
    with FakeTensorMode(allow_non_fake_inputs=True):  # weights are arrays, which the engine moves
        engine = Int8Engine(quantized, DEVICE)
        assert any(text.startswith("int8" if multiplies == "int_mm" else "exact") for text in engine.kernels().values())
        for run in (engine, TorchEngine(quantized, DEVICE)):
            first = run.net.stages[0]
            current = torch.zeros(1, 2, *first.shape, dtype=torch.int32, device=DEVICE)
            outputs = []
            for index, stage in enumerate(run.net.stages):
                spikes, membranes = run._stage(index, current, outputs, Unheard())
                assert spikes.device.type == membranes.device.type == DEVICE
                outputs.append(spikes if stage.pool is None else run._pool(spikes, stage.pool))
            assert run._readout(outputs[run.net.readout.branch.source], Unheard()).device.type == DEVICE


@pytest.mark.parametrize("model", ["vgg", "resnet"])
def test_training_on_the_grid(monkeypatch, model):
    monkeypatch.setattr(grid, "int", lambda size: 1, raising=False)  # sizes are values, which fake tensors have not
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda self, memo: self, raising=False)  # one for all copies
    quantized = quantize(absorb(network(model=model).eval()))
    front = quantized.front
    with elsewhere(front, arrays=True):  # grids are arrays, which the network moves
        made = GridNetwork(quantized)
        kept = dict(made.named_parameters()) | dict(made.named_buffers())
        assert {name.rpartition(".")[2] for name in kept} >= {"weight", "bias", "unit", "theta"}
        assert {name for name, value in kept.items() if value.device.type != DEVICE} == set()
        train(made)
