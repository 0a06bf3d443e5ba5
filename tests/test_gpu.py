"""What only a graphics card can show: there the numbers are those of the CPU in float64. ``make gpu`` runs this."""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn import functional as F

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.deploy.engines import reference
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.deploy.engines.torch_engine import TorchEngine
from qbsnn.functional.exact import full_float32
from qbsnn.kernels import compiled as kernels
from qbsnn.kernels import fused
from qbsnn.models import resnet
from qbsnn.models.execution import prepare
from qbsnn.neurons import LIF, QBLIF
from tests.deploy import networks
from tests.neurons.test_neurons import EVERY
from tests.tool import ROOT

pytestmark = [
    pytest.mark.gpu,
    # torch 2.13's compiler calls what torch 2.13 deprecated
    pytest.mark.filterwarnings("ignore:.torch.jit.script.*is deprecated:DeprecationWarning"),
]

SHAPE = (3, 16, 16)
WAYS = [("none", "packed"), ("none", "checkpoint"), ("neuron", "none"), ("block", "none"), ("block", "packed"),
        ("block", "checkpoint")]  # fmt: skip


@pytest.fixture(autouse=True)
def compiler_not_given_up(monkeypatch):
    """A failure to compile in one test is not that of the next one."""
    monkeypatch.setattr(kernels, "_failed", set())


def neuron_step(make, device, compiled=False, dtype=torch.float64):
    """Outputs, and the gradients of the input and the parameters."""
    torch.manual_seed(0)
    neuron = make()
    neuron.compiled = compiled
    x = (torch.randn(5, 8, 6, 7, 7, dtype=torch.float64) * 2).to(device, dtype).requires_grad_()
    neuron.to(device, dtype)
    out = neuron(x)
    (out * torch.linspace(-1, 1, out.numel(), device=device, dtype=dtype).view_as(out)).sum().backward()
    assert not kernels._failed
    return out.detach(), [x.grad, *(p.grad for p in neuron.parameters() if p.grad is not None)]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("make", EVERY, ids=lambda make: getattr(make, "__name__", str(make)[18:60]))
def test_a_neuron_is_that_of_the_cpu_in_float64(make, compiled):
    expected, gradients = neuron_step(make, "cpu")
    found, others = neuron_step(make, "cuda", compiled)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-9, atol=1e-9)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other.cpu(), gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_neurons_equal_eager_ones_bit_for_bit(dtype):
    for make in (QBLIF, partial(QBLIF, output="graded")):
        assert torch.equal(neuron_step(make, "cuda", True, dtype)[0], neuron_step(make, "cuda", False, dtype)[0])


def network_step(compile="none", memory="none", device="cuda", dtype=torch.float64, cast=None, channels_last=False):
    """Logits and gradients of a training step."""
    torch.manual_seed(0)
    network = resnet(QBLIF, SHAPE, 5, mean=[0.4] * 3, std=[0.3] * 3, name="resnet20", T=3, width=0.5)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pixels = torch.rand(8, *SHAPE, dtype=torch.float64).to(device, dtype).to(memory_format=layout)
    network = prepare(network.to(device, dtype).to(memory_format=layout).train(), compile, memory)
    # outside: full_float32 ends the autocast that it is in
    with full_float32(), torch.autocast(device, cast or torch.bfloat16, enabled=cast is not None):
        logits = network(pixels)
        F.cross_entropy(logits.float().mean(0), torch.arange(8, device=device) % 5).backward()
    assert not kernels._failed
    return logits.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_a_network_is_that_of_the_cpu_in_float64(channels_last):
    logits, gradients = network_step(device="cpu")
    found, others = network_step(channels_last=channels_last)
    torch.testing.assert_close(found.cpu(), logits, rtol=1e-8, atol=1e-8)
    for name, gradient in gradients.items():
        assert (others[name].cpu() - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, name


@pytest.mark.skipif(not kernels.divides_exactly(), reason="with this torch neurons run eagerly on a card")
@pytest.mark.parametrize(
    "step", [partial(neuron_step, QBLIF, "cuda", True), partial(neuron_step, LIF, "cuda", True),
             partial(network_step, "block")], ids=["QB-LIF", "LIF", "network"],
)  # fmt: skip
def test_kernels_are_compiled_for_a_card(monkeypatch, caplog, step):
    monkeypatch.setattr(fused, "_programs", {})
    counters.clear()
    step()
    assert counters["stats"]["unique_graphs"] >= 2 and "eagerly" not in caplog.text  # forward and backward


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.parametrize("kind", [(torch.float32, None), (torch.float32, torch.bfloat16)], ids=["fp32", "bf16"])
def test_ways_to_run_a_network_give_the_same_numbers(deterministic, way, kind):
    logits, gradients = network_step(dtype=kind[0], cast=kind[1], channels_last=True)
    found, others = network_step(*way, dtype=kind[0], cast=kind[1], channels_last=True)
    assert torch.equal(found, logits)
    for name, gradient in gradients.items():
        assert (others[name] - gradient).norm() <= (1e-2 if kind[1] else 1e-4) * gradient.norm() + 1e-6, name


def test_bf16_is_another_precision_than_fp32():
    exact, half = (network_step(dtype=torch.float32, cast=cast)[0] for cast in (None, torch.bfloat16))
    assert not torch.equal(half.float(), exact)


def peak(memory):
    """Bytes that a training step of a larger network needs beyond its weights."""
    network = resnet(QBLIF, SHAPE, 5, mean=[0.4] * 3, std=[0.3] * 3, name="resnet20", T=4)
    prepare(network.cuda(), "block", memory)
    pixels = torch.rand(64, *SHAPE, device="cuda")
    for _ in range(2):
        torch.cuda.synchronize()
        resting = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        network(pixels).square().mean().backward()
        network.zero_grad()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - resting


def test_packed_and_checkpointed_steps_need_less_memory():
    plain, packed, checkpoint = (peak(memory) for memory in ("none", "packed", "checkpoint"))
    assert checkpoint < packed < plain


@pytest.mark.parametrize("engine", [Int8Engine, TorchEngine])
@pytest.mark.parametrize("topology", networks.TOPOLOGIES)
def test_integer_engines_give_the_trace_of_the_int64_engine(engine, topology):
    rng = np.random.default_rng(1)
    net = networks.make(rng, topology)
    current = networks.make_current(rng, net, 5)
    found = engine(networks.loose(net, current), "cuda").run(current)
    assert networks.mismatches(found, reference.run(net, current)) == 0


@pytest.mark.parametrize("settings", [DeploySettings(), DeploySettings(bits=4, theta="integer")], ids=["2^k", "any"])
def test_a_quantised_network_predicts_on_the_card_as_the_int64_engine_does(settings):
    torch.manual_seed(0)
    network = resnet(partial(QBLIF, s_max=4), SHAPE, 5, mean=[0.4] * 3, std=[0.3] * 3, name="resnet20", T=3).cuda()
    pixels = torch.rand(64, *SHAPE, device="cuda")
    network.train()(pixels)
    quantized = quantize(absorb(network.eval()), settings, pixels.cpu())
    current = quantized.current(pixels)
    expected = reference.run(quantized.net, current)
    for compiled in (False, True):
        engine = Int8Engine(quantized, "cuda", compiled)
        assert networks.mismatches(engine.run(current), expected) == 0
        assert np.array_equal(engine.predict(pixels).cpu().numpy(), expected.logits.argmax(1))
    assert not kernels._failed


SMALL = ("report=false", "data.limit_train=256", "data.limit_val=64", "data.limit_test=128", "model.width=0.25",
         "data.batch_size=32", "trainer=gpu", "compile=block", "callbacks.gradients.every=3")  # fmt: skip


def weights(tool, name):
    return torch.load(tool.folder / f"outputs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def equal(tool, a, b):
    ours, theirs = weights(tool, a), weights(tool, b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_is_proven_and_a_resumed_one_ends_with_its_weights(tool, precision):
    given = (*SMALL, f"trainer.precision={precision}", "trainer.deterministic=true")
    assert tool("train.py", *given, "trainer.max_epochs=4", "hydra.run.dir=outputs/whole") == 0
    result = json.loads((tool.folder / "outputs/whole/result.json").read_text())
    assert result["status"] == "finished" and result["absorption"]["passed"] and result["integer"]["passed"]
    assert tool("train.py", *given, "trainer.max_epochs=4", "hydra.run.dir=outputs/again") == 0
    assert tool("train.py", *given, "trainer.max_epochs=2", "hydra.run.dir=outputs/parts") == 0
    assert tool("train.py", "resume=outputs/parts", "trainer.max_epochs=4") == 0
    assert equal(tool, "whole", "again") and equal(tool, "whole", "parts")


def test_whitening_and_resident_pictures_meet_on_the_card(tool):
    given = ("model=fast", "model.channels=[8,8]", "optim=one_cycle", "callbacks=fast", "data.flip=alternate",
             "trainer=gpu", "report=false", "trainer.max_epochs=1", "data.limit_train=128")  # fmt: skip
    assert tool("train.py", *given) in (0, 1)  # 1: so short a training may leave a layer silent
    assert tool.result()["status"] in ("finished", "unproven")


TWO = """
import sys, torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from qbsnn.models import vgg
from qbsnn.neurons import QBLIF
from qbsnn.training.devices.sync_norm import SyncNorm

rank, backend, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
device = torch.device("cuda", rank if backend == "nccl" else 0)
torch.cuda.set_device(device)
distributed.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=2)
def made():
    torch.manual_seed(0)
    return vgg(QBLIF, (3, 16, 16), 5, mean=[0.4] * 3, std=[0.3] * 3, name="vgg5", T=3, width=0.25).double().to(device)
pixels = torch.rand(8, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
alone, shared = made(), made()
alone(pixels).square().mean().backward()
both = DistributedDataParallel(SyncNorm().apply(shared), device_ids=[device.index])
both(pixels[4 * rank : 4 * rank + 4]).square().mean().backward()
for (name, one), two in zip(alone.named_parameters(), shared.parameters(), strict=True):
    assert (one.grad - two.grad).norm() <= 1e-6 * one.grad.norm() + 1e-12, name
print("equal")
distributed.destroy_process_group()
"""


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_two_processes_have_the_gradients_of_one(tmp_path, backend):
    """Two processes on one card by gloo: NCCL refuses that and needs a card for each."""
    if backend == "nccl" and torch.cuda.device_count() < 2:
        pytest.skip("NCCL refuses two processes on one card")
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(rank), backend, str(tmp_path)], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        found = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
    assert all(out.endswith("equal\n") for out, _ in found), found  # Gloo may say before how it is connected
