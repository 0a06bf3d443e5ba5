"""The int8 engine: the proof at its limits, the kernels there against int64, the neurons as one kernel."""

import itertools
import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.engines import int8_engine, reference
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.deploy.engines.int8_kernels import kernel, obstacle, unit
from qbsnn.deploy.engines.neuron_step import NeuronKind, fired, scan_neurons
from qbsnn.deploy.engines.torch_engine import TorchEngine
from qbsnn.deploy.format.network import INPUT, IntBranch, IntegerNetwork, IntPool, IntReadout, IntStage, Leak
from qbsnn.deploy.verify.integer import check_integer
from qbsnn.deploy.verify.traces import compare
from qbsnn.errors import DeployError
from qbsnn.kernels import compiled
from qbsnn.neurons import QBLIF
from tests.deploy import networks
from tests.deploy.spiking import batches, make

CPU = torch.device("cpu")
onednn = pytest.mark.skipif(not unit(CPU).startswith("onednn"), reason=unit(CPU))
# torch 2.13's compiler calls what torch 2.13 deprecated
compiling = pytest.mark.filterwarnings("ignore:.torch.jit.script.*is deprecated:DeprecationWarning")


def source(s_max: int, inputs: int, weight: np.ndarray, s_min: int = 0, window: int = 1) -> tuple:
    """A stage that emits up to s_max, sum-pooled over ``window`` positions, and a linear branch that reads it."""
    net = networks.single_stage(np.ones(inputs), 1, s_max=s_max, s_min=s_min)
    pool = IntPool("sum", (window, 1), (1, 1)) if window > 1 else None
    branch = IntBranch(0, "linear", weight.astype(np.int8))
    return replace(net, stages=(replace(net.stages[0], pool=pool),)), branch


@pytest.mark.parametrize(
    ("s_max", "window", "inputs", "largest", "found"),
    [  # unit -> what stands in the way; 2·129·127 = 32766, 2·130·127 = 33020, 2·130·126 = 32760, 2·255·64 = 32640
        (127, 1, 4, 127, {}),
        (43, 3, 4, 127, {"int_mm": "spikes up to 129, above 127"}),
        (65, 2, 4, 127, {"int_mm": "above 127", "onednn avx2": "two products up to 33020, above 32767"}),
        (65, 2, 4, 126, {"int_mm": "above 127"}),
        (51, 5, 4, 64, {"int_mm": "above 127"}),
        (64, 4, 4, 1, {"int_mm": "256", "onednn avx2": "256, above 255", "onednn vnni": "256, above 255"}),
        # 127·127·1040 = 16774160 < 2^24 = 16777216; 127·127·1041 = 16790289
        (127, 1, 1040, 127, {}),
        (127, 1, 1041, 127, {"onednn avx2": "16790289", "onednn vnni": "sums up to 16790289, too large for float32"}),
    ],
)
def test_the_proof_at_its_limits(s_max, window, inputs, largest, found):
    net, branch = source(s_max, inputs, np.full((2, inputs), -largest), window=window)
    for name in ("int_mm", "onednn avx2", "onednn vnni"):
        reason = obstacle(net, branch, name)
        assert (reason is None) == (name not in found), (name, reason)
        assert found.get(name, "") in (reason or "")


def test_signed_bursts_and_machines_without_a_unit_are_refused():
    net, branch = source(4, 3, np.ones((2, 3)), s_min=-4)
    assert obstacle(net, branch, "onednn vnni") == "signed bursts down to -4"
    net, branch = source(4, 3, np.ones((2, 3)))
    assert obstacle(net, branch, "none: no AVX2") == "none: no AVX2"


def worst(a_max: int, kind: str, groups: int = 1) -> tuple[IntBranch, torch.Tensor]:
    """Weights of ±127 and spikes of 0 and a_max; output 0 sums nothing but the largest products."""
    rng = np.random.default_rng(a_max)
    if kind == "linear":
        return IntBranch(0, kind, networks.extremes(rng, (5, 37))), torch.full((3, 37), a_max, dtype=torch.uint8)
    weight = networks.extremes(rng, (6, 6 // groups, 3, 2))
    x = torch.from_numpy(rng.choice(np.array([0, a_max], np.uint8), (3, 6, 7, 5)))
    x[0] = a_max
    return IntBranch(0, kind, weight, None, (2, 1), (1, 1), groups), x


def expected(branch: IntBranch, x: torch.Tensor) -> torch.Tensor:
    weight = torch.from_numpy(branch.weight).double()
    if branch.kind == "linear":
        return x.double() @ weight.T
    return F.conv2d(x.double(), weight, None, branch.stride, branch.padding, groups=branch.groups)


WORST = [("linear", 1), ("conv", 1), ("conv", 2), ("conv", 6)]


@onednn
@pytest.mark.parametrize("groups", WORST)
def test_the_kernel_is_exact_at_the_largest_values_it_is_given(groups):
    name = unit(CPU)
    a_max = 255 if name == "onednn vnni" else 129
    branch, x = worst(a_max, *groups)
    run = kernel(branch, name, CPU)
    assert torch.equal(run(x).double(), expected(branch, x))
    changed = x.clone()
    changed.flatten()[0] -= 1
    assert not torch.equal(run(changed).double(), expected(branch, x))


@onednn
@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (3, 2)])
@pytest.mark.parametrize(("kernel_size", "padding"), [((1, 1), (0, 0)), ((1, 1), (1, 0)), ((1, 2), (0, 0))])
def test_a_stride_skips_pixels_exactly(stride, kernel_size, padding):
    """oneDNN's 1×1 convolution with a stride was wrong in some runs with AVX2 and eight inputs, so there are many."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (16, 8, *kernel_size)).astype(np.int8)
    branch = IntBranch(0, "conv", weight, None, stride, padding)
    for size, images in itertools.product((4, 8, 17, 32), (8, 32)):
        run = kernel(branch, unit(CPU), CPU)
        for _ in range(4):
            x = torch.from_numpy(rng.integers(0, 9, (images, 8, size, size)).astype(np.uint8))
            assert torch.equal(run(x).double(), expected(branch, x)), (size, images)


@onednn
def test_strides_for_which_onednn_is_wrong_are_left_to_floating_point():
    rng = np.random.default_rng(0)
    first = IntStage("a", (IntBranch(INPUT, "input"),), np.zeros(1, np.int32), np.full(1, 4, np.int32), 8, (1, 6, 3),
                     Leak("none", 0))  # fmt: skip
    weight = rng.integers(-127, 128, (8, 1, 3, 3)).astype(np.int8)
    second = IntStage("b", (IntBranch(0, "conv", weight, None, (1, 2), (0, 0)),), np.zeros(8, np.int32),
                      np.full(8, 100, np.int32), 8, (8, 4, 1), Leak("none", 0))  # fmt: skip
    readout = IntBranch(1, "linear", rng.integers(-127, 128, (3, 32)).astype(np.int8))
    net = IntegerNetwork((first, second), IntReadout(readout, np.zeros(3, np.int32), 1.0), 2)
    current = rng.integers(0, 40, (2, 4, 1, 6, 3)).astype(np.int32)
    engine = Int8Engine(networks.loose(net, current))
    assert compare(engine.run(current), reference.run(net, current)) == 0
    assert engine.kernels()["b"] == "exact float: strides of 1 and 2, for which oneDNN's sums can be wrong"


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # mkldnn.flags sets that too
@pytest.mark.parametrize("make", [TorchEngine, Int8Engine])
def test_autocast_and_an_absent_onednn_change_nothing(make):
    rng = np.random.default_rng(0)
    for topology in networks.TOPOLOGIES:
        net = networks.make(rng, topology)
        current = networks.make_current(rng, net, 16)
        expected = reference.run(net, current)
        with torch.autocast("cpu", torch.bfloat16), torch.backends.mkldnn.flags(enabled=make is not TorchEngine):
            assert compare(make(networks.loose(net, current)).run(current), expected) == 0


@pytest.mark.parametrize("groups", WORST)
def test_products_of_patches_are_the_convolution(groups):
    """What runs on a GPU, here on the CPU's ``_int_mm``."""
    branch, x = worst(127, *groups)
    assert torch.equal(kernel(branch, "int_mm", CPU)(x).double(), expected(branch, x))


@pytest.mark.gpu
def test_a_gpu_gives_the_same_trace():
    rng = np.random.default_rng(0)
    for topology in networks.TOPOLOGIES:
        net = networks.make(rng, topology)
        current = networks.make_current(rng, net, 3)
        engine = Int8Engine(networks.loose(net, current), "cuda")
        assert "int8 int_mm" in engine.kernels().values()
        assert networks.mismatches(engine.run(current), reference.run(net, current)) == 0


NARROW = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from tests.deploy.engines.test_int8 import WORST, CPU, expected, kernel, unit, worst
assert unit(CPU) == "onednn avx2", unit(CPU)
for case in WORST:
    for a_max in (129, 255):
        branch, x = worst(a_max, *case)
        print(*case, a_max, int(torch.equal(kernel(branch, "onednn avx2", CPU)(x).double(), expected(branch, x))))
"""


@onednn
def test_without_vnni_the_kernel_is_exact_up_to_the_proven_limit_and_not_beyond():
    root = str(Path(__file__).parents[3])
    env = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", NARROW, root], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert all(exact == "1" for *_, a_max, exact in rows if a_max == "129") and len(rows) == 2 * len(WORST)
    # The limit is real: beyond it 16-bit pair sums saturate.
    assert ["linear", "1", "255", "0"] in rows and ["conv", "1", "255", "0"] in rows


@pytest.mark.slow
@onednn
def test_random_networks_without_vnni():
    test = "tests/deploy/engines/test_engines.py::test_random_networks"
    env = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


def test_vnni_is_not_relied_on_where_onednn_is_told_what_to_use(monkeypatch):
    if unit(CPU).startswith("onednn"):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
        assert unit(CPU) == "onednn avx2"
    assert unit(torch.device("meta")).startswith("none")


@onednn
def test_an_older_torch_that_tells_of_no_vnni_has_the_kernel_without(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # as torch 2.8 is
    assert unit(CPU) == "onednn avx2"


@pytest.mark.parametrize("rounding", ["floor", "round", "to_zero"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_division_in_floating_point_is_the_integer_one_up_to_the_last_integer(dtype, rounding):
    """V = kθ − 1, kθ, kθ + 1 for the smallest and the largest k with |V| + θ below 2^24 (2^53)."""
    top = 2**24 if dtype == torch.float32 else 2**53
    for theta in (1, 2, 3, 5, 7, 41, 127, 1000, 4097, 32767, 32768, 1_000_003):
        k = torch.cat([torch.arange(1, 200), (top - theta) // theta - torch.arange(200)])
        k = torch.cat([-k, k])
        v = torch.cat([k * theta + d for d in (-1, 0, 1)])
        v = v[v.abs() + theta < top]
        kind = NeuronKind(Leak("none", 0), -(2**53), 2**53, rounding, "soft")
        s, left = fired(kind, v.to(dtype), torch.tensor(float(theta), dtype=dtype))
        exact_s, exact_left = fired(kind, v, torch.tensor(theta))
        assert torch.equal(s.long(), exact_s) and torch.equal(left.long(), exact_left)
    assert int(exact_s.abs().max()) > 8


KINDS = [
    NeuronKind(Leak("shift_floor", 1), 0, 8, "floor", "soft"),
    NeuronKind(Leak("shift_xylo", 2), 0, 127, "round", "hard"),
    NeuronKind(Leak("mul12_to_zero", 410), -8, 8, "to_zero", "soft"),
    NeuronKind(Leak("none", 0), -8, 8, "floor", "hard"),
]


@compiling
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_one_kernel_over_time_equals_step_by_step(kind):
    rng = torch.Generator().manual_seed(0)
    for n, c in ((33, 19), (64, 16), (5, 40)):
        theta = torch.randint(1, 90, (c,), generator=rng).float()
        near = theta * torch.randint(-3, 12, (3, n, c), generator=rng)
        parts = [
            (near + torch.randint(-1, 2, (3, n, c), generator=rng), None),
            (torch.randint(0, 9, (1, n, c), generator=rng, dtype=torch.uint8), torch.arange(c).float()),
        ]
        bias = torch.randint(-40, 40, (c,), generator=rng).float()
        for keep in (False, True):
            fast, slow = (scan_neurons(kind, 3, parts, bias, theta, keep, compiled=fast) for fast in (True, False))
            assert torch.equal(fast[0], slow[0]) and fast[0].any() and fast[0].dtype == kind.burst
            assert (fast[1] is None) == (not keep) and (not keep or torch.equal(fast[1], slow[1]))
    assert not compiled._failed


@compiling
@pytest.mark.slow
def test_the_compiled_engine_equals_the_independent_one():
    network = make("resnet20", QBLIF)
    quantized = quantize(absorb(network))
    engine = Int8Engine(quantized, compiled=True)
    for pixels, _ in batches(network):
        current = quantized.current(pixels)
        trace = reference.run(quantized.net, current)
        assert networks.mismatches(engine.run(current), trace) == 0
        assert np.array_equal(engine.logits(torch.from_numpy(current)).numpy(), trace.logits)
    assert not compiled._failed


def test_logits_alone_are_those_of_the_trace():
    rng = np.random.default_rng(3)
    for topology in networks.TOPOLOGIES:
        net = networks.make(rng, topology)
        current = networks.make_current(rng, net, 4)
        engine = Int8Engine(networks.loose(net, current))
        z = engine.logits(torch.from_numpy(current))
        assert np.array_equal(z.numpy(), reference.run(net, current).logits) and z.any()


@pytest.mark.parametrize("most, threads", [(int8_engine.ALONE, 1), (0, 2)])
def test_few_products_are_computed_on_one_thread(monkeypatch: pytest.MonkeyPatch, most: int, threads: int):
    rng = np.random.default_rng(3)
    net = networks.make(rng, networks.TOPOLOGIES[0])
    current = torch.from_numpy(networks.make_current(rng, net, 4))
    engine = Int8Engine(networks.loose(net, current.numpy()))
    contract, used = engine._contract, []
    monkeypatch.setattr(engine, "_contract", lambda *of: used.append(torch.get_num_threads()) or contract(*of))
    monkeypatch.setattr(int8_engine, "ALONE", most)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        z = engine.logits(current)
        with pytest.raises(DeployError):
            engine.logits(current.double())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(used) == {threads} and np.array_equal(z.numpy(), reference.run(net, current.numpy()).logits)


def test_predictions_take_the_lowest_class_of_the_largest():
    net = networks.single_stage(np.array([4, 4]), 1, s_max=2)
    weight = np.array([[-1, -1], [3, 3], [3, 3]], np.int8)
    net = replace(net, readout=IntReadout(IntBranch(0, "linear", weight), np.zeros(3, np.int32), 1.0))
    current = np.full((1, 5, 2), 4, np.int32)
    quantized = networks.loose(net, current)
    quantized.encoded = quantized.current_tensor = lambda pixels: pixels
    assert Int8Engine(quantized).predict(torch.from_numpy(current)).tolist() == [1] * 5


@onednn
def test_what_runs_where_is_said_per_layer():
    net, _ = source(8, 3, np.ones((2, 3)))
    wide = IntPool("sum", (6, 6), (6, 6))
    stem = replace(net.stages[0], shape=(1, 6, 6), theta=np.ones(1, np.int32), bias=np.zeros(1, np.int32))
    conv = IntBranch(0, "conv", np.ones((2, 1, 3, 3), np.int8), None, (1, 1), (1, 1))
    two = replace(stem, name="two", shape=(2, 6, 6), branches=(conv,), pool=wide,
                  theta=np.full(2, 3, np.int32), bias=np.zeros(2, np.int32))  # fmt: skip
    readout = IntReadout(IntBranch(1, "linear", np.ones((2, 2), np.int8)), np.zeros(2, np.int32), 1.0)
    net = IntegerNetwork((stem, two), readout, 2)
    current = np.ones((2, 1, 1, 6, 6), np.int32)
    found = Int8Engine(networks.loose(net, current)).kernels()
    assert found == {
        "only": "none: the input current",
        "two": f"int8 {unit(CPU)}",
        "readout": "exact float: spikes up to 288, above 255",
    }


def test_an_overflow_ends_a_prediction_under_the_policy_error():
    net = networks.single_stage(np.array([7]), 3, s_max=1, leak=networks.NONE, membrane_bits=4)
    current = np.full((3, 1, 1), 12, np.int32)
    with pytest.raises(DeployError, match="a value does not fit 4 bits: only, neuron"):
        Int8Engine(networks.loose(net, current)).logits(torch.from_numpy(current))


def test_a_run_records_the_kernels():
    network = make("vgg5-max", QBLIF)
    found = check_integer(quantize(absorb(network)), batches(network), onnx_images=0)
    first, *others = found.layers
    assert found.passed and first.kernel == "none: the input current"
    assert {layer.kernel for layer in others} | {found.readout_kernel} == {f"int8 {unit(CPU)}"}


@compiling
@pytest.mark.slow
def test_the_benchmark_runs_and_checks_itself(monkeypatch, tmp_path):
    out = tmp_path / "inference.json"
    monkeypatch.setattr(sys, "argv", ["inference.py", "small=true", "models=vgg11", f"out={out}"])
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))
    runpy.run_module("benchmarks.inference", run_name="__main__")
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert all("0 values not exact" in row["table"] for row in rows)
    rates = {row["name"]: row["median"] for row in rows}
    assert {"ReLU twin fp32, 4 passes", "ReLU twin fp32, one pass", "own fp32, absorbed"} <= rates.keys()
    (int8,) = [row for row in rows if row["name"] == "int8 kernels"]
    assert int8["ratio"] == pytest.approx(rates["int8 kernels"] / rates["own fp32"])
