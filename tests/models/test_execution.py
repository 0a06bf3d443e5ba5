"""Every way to run a network gives the same numbers as the plain one: outputs bit for bit, gradients to 1e-5."""

from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qbsnn.errors import SettingsError
from qbsnn.kernels import compiled
from qbsnn.models import mlp, resnet, vgg
from qbsnn.models.execution import Costs, channels_last, choose, kernels, prepare
from qbsnn.neurons import LIF, QBLIF, AdaptiveQB, MultiCompartment, ReLU, TernaryBurst

# torch 2.13's compiler calls what torch 2.13 deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.*is deprecated:DeprecationWarning")

SHAPE = (2, 12, 12)
FAMILIES = {
    "mlp": partial(mlp, hidden=(40, 24)),
    "vgg5": partial(vgg, name="vgg5", width=0.25),
    "resnet20": partial(resnet, name="resnet20", width=0.25),
}
NEURONS = {
    "qb_lif": QBLIF,
    "graded": partial(QBLIF, output="graded", reset="full", learn_tau=True),
    "channel": partial(QBLIF, granularity="channel", output="graded"),
    "percentile": partial(QBLIF, init="percentile"),
    "lif": LIF,
    "ternary": partial(TernaryBurst, reset="detach_s"),
    "two": MultiCompartment,
    "adaptive": AdaptiveQB,
    "relu": ReLU,
}
EAGER = [("none", "packed"), ("none", "checkpoint")]
COMPILED = [("neuron", "none"), ("block", "none"), ("block", "packed"), ("neuron", "packed"), ("block", "checkpoint")]


@st.composite
def cases(draw):
    family = draw(st.sampled_from(sorted(FAMILIES)))
    return {
        "family": family,
        "neuron": draw(st.sampled_from(sorted(NEURONS))),
        "norm": draw(st.sampled_from(["bn", "bn", "tdbn", "tebn", "layer", "none"])),
        "encoding": draw(st.sampled_from(["direct", "rate"])),
        "readout": draw(st.sampled_from(["current", "membrane", "rate"])),
        "T": draw(st.integers(1, 5)),
        "batch": draw(st.integers(2, 5)),
        # torch 2.13 writes out of bounds in a strided 1×1 convolution of so few channels that lie last
        "channels_last": draw(st.booleans()) and family != "resnet20",
        "cast": draw(st.sampled_from([None, None, torch.bfloat16])),
        "train": draw(st.sampled_from([True, True, False])),
        "seed": draw(st.integers(0, 2**20)),
    }


def step(case, compile, memory, dtype=torch.float32):
    """Logits, gradients and buffers of one training step; the pool's gradients reach every layer."""
    torch.manual_seed(case["seed"])
    network = FAMILIES[case["family"]](
        NEURONS[case["neuron"]], SHAPE, 5, mean=[0.4, 0.5], std=[0.3, 0.2], T=case["T"], norm=case["norm"],
        encoding=case["encoding"], readout=case["readout"],
    ).to(dtype)  # fmt: skip
    for name, parameter in network.named_parameters():
        if name.endswith(("norm.weight", "norm.bias")):
            torch.nn.init.normal_(parameter, 0.5)  # a fresh norm hides mistakes
    x = torch.rand(case["batch"], *SHAPE, dtype=dtype)
    if case["channels_last"]:
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    prepare(network.train(case["train"]), compile, memory)
    cast = None if dtype == torch.float64 else case["cast"]
    with torch.autocast("cpu", cast or torch.bfloat16, enabled=cast is not None):
        logits = network(x)
    (logits.to(dtype) * torch.linspace(-1, 1, logits.numel(), dtype=dtype).view_as(logits)).sum().backward()
    assert not compiled._failed
    grads = {name: p.grad for name, p in network.named_parameters()}
    return logits.detach(), grads, dict(network.named_buffers())


def assert_same(case, ways):
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.float32, None)):
        logits, grads, buffers = step(case, "none", "none", dtype)
        for way in ways:
            other, other_grads, other_buffers = step(case, *way, dtype)
            assert torch.equal(logits, other), way
            assert all(torch.equal(value, other_buffers[name]) for name, value in buffers.items()), way
            for name, grad in grads.items():
                found = other_grads[name]
                assert (grad is None) == (found is None), (way, name)
                if grad is not None and tolerance is not None:
                    assert (grad - found).abs().max() <= tolerance * grad.abs().max(), (way, name)
                elif grad is not None:
                    # what is left is the order of summation, and in a cast network gradients of 8 bits
                    rounding = 1e-2 if case["cast"] else 1e-4
                    assert (grad - found).norm() <= rounding * grad.norm() + 1e-6, (way, name)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_packed_and_recomputed_steps_equal_the_plain_one(case):
    assert_same(case, EAGER)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_compiled_steps_equal_the_plain_one(case):
    assert_same(case, COMPILED)


@pytest.mark.slow
def test_a_network_compiled_as_a_whole_equals_the_plain_one():
    case = {
        "family": "vgg5", "neuron": "qb_lif", "norm": "bn", "encoding": "direct", "readout": "current", "T": 2,
        "batch": 3, "channels_last": False, "cast": None, "train": True, "seed": 3,
    }  # fmt: skip
    assert_same(case, [("model", "none")])


def live_bytes(network, x):
    """Bytes that a forward pass allocates and does not free while its graph lives, by torch's own profiler."""
    network(x)
    with torch.profiler.profile(profile_memory=True) as profiler:
        out = network(x)
    total = sum(event.self_cpu_memory_usage for event in profiler.key_averages())
    del out
    return total


def test_what_is_kept_shrinks_as_promised():
    def kept(neuron, memory, fused=False, images=16):
        network = resnet(neuron, (3, 16, 16), 10, [0.5] * 3, [0.5] * 3, name="resnet20", T=4)
        prepare(network, "none", memory)
        for _, stage in network.named_stages():
            stage.fused = stage.fused or fused
        return live_bytes(network, torch.rand(images, 3, 16, 16))

    plain, block = kept(QBLIF, "none"), kept(QBLIF, "none", fused=True)
    packed, checkpoint = kept(QBLIF, "packed"), kept(QBLIF, "checkpoint")
    assert checkpoint < packed < block < plain
    assert packed <= 0.65 * block  # (1 + 1/4)/2: weight output and spikes
    relu = kept(ReLU, "none", images=4 * 16)  # as a network without time that sees every step of every image
    assert block <= relu and packed <= 0.8 * relu, (block / relu, packed / relu)
    assert checkpoint <= 0.2 * block


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"compile": "fast"}, "compile"), ({"memory": "none "}, "memory"),
        ({"compile": "model", "memory": "packed"}, "compile=model"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(settings, named):
    network = mlp(QBLIF, (1, 4, 4), 3, mean=[0.5], std=[0.5])
    with pytest.raises(SettingsError, match=named):
        prepare(network, **settings)


CPU = torch.device("cpu")


def never():
    raise AssertionError("nothing is to be measured here")


def test_auto_compiles_long_fits_of_large_networks_only(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/" + name)
    network = resnet(QBLIF, (3, 32, 32), 10, [0.5] * 3, [0.5] * 3, name="resnet19")
    small = mlp(QBLIF, (1, 8, 8), 10, mean=[0.5], std=[0.5])
    assert choose(network, 100_000, 64, CPU, never)[0] == "block"
    assert choose(small, 20, 64, CPU, never)[0] == "none"
    assert choose(small, 1e6, 64, torch.device("cuda"), never)[0] == "block"
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert choose(network, 1_000, 64, CPU, never) == ("none", "there is no C++ compiler")
    # stem; first halves; second halves with an identity, and with a convolution; linear
    assert kernels(network) == 2 * 5


@pytest.mark.parametrize(
    ("batches", "costs", "said"),
    [
        (
            100,
            None,
            "none: compiling would take at least 4 s and save at most 1 s",
        ),  # 6.4e6 · 100 ns = 0.64 s ≤ 2 · 2 · 2 s
        (4_000_000, None, "block: compiling would take at most 120 s and save at least 256 s"),
        (10_000, Costs(10e-9, 1.5), "block: compiling would take about 3 s and save about 6 s"),
        (10_000, Costs(10e-9, 1.7), "none: compiling would take about 3 s and save about 6 s"),
    ],
)
def test_costs_are_asked_for_where_they_decide(monkeypatch, batches, costs, said):
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/" + name)
    network = mlp(QBLIF, (1, 4, 4), 3, mean=[0.5], std=[0.5], hidden=(100,), T=5)  # 500 neuron-steps, 2 kernels
    assert kernels(network) == 2
    found = choose(network, batches, 128, CPU, never if costs is None else lambda: costs)
    assert ": ".join(found) == said


@pytest.mark.parametrize(
    ("name", "width", "isa", "left_out"),
    [
        ("resnet18", 1 / 16, ["avx2"], True),  # 4 channels in front of the first shortcut with a stride
        ("resnet18", 1 / 8, ["avx2"], False),
        ("resnet18", 1 / 16, ["avx2", "avx512f"], False),
    ],
)
def test_channels_last_is_left_out_where_it_damages_memory(name, width, isa, left_out, caplog):
    network = resnet(QBLIF, (3, 16, 16), 10, mean=[0.5] * 3, std=[0.5] * 3, name=name, width=width)
    assert channels_last(network, isa) is network
    convolutions = [part.weight for part in network.modules() if isinstance(part, torch.nn.Conv2d)]
    wide = [weight for weight in convolutions if weight.shape[1] > 1 and weight.shape[2] > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) != left_out for weight in wide)
    assert ("channels_last=true is left out" in caplog.text) == left_out
