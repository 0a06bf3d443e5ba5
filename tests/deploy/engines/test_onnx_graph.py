import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from qbsnn.deploy.engines import reference, scalar
from qbsnn.deploy.format.network import IntBranch, IntegerNetwork, IntPool, IntReadout, IntStage
from qbsnn.errors import DeployError
from tests.deploy import networks

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from qbsnn.deploy.engines.onnx_engine import OnnxEngine  # noqa: E402 (after the skip)
from qbsnn.deploy.engines.onnx_graph import OPSET, available, export  # noqa: E402


def same(net: IntegerNetwork, current: NDArray[np.int32]) -> None:
    oracle = scalar.run(net, current)
    networks.assert_active(net, oracle)
    assert oracle.overflows == 0
    trace = OnnxEngine(net, static=len(current) == 1).run(current)
    assert networks.mismatches(trace, oracle) == 0
    for changed in networks.flips(net, oracle):
        assert networks.mismatches(trace, reference.run(changed, current)) > 0


def test_numbers_worked_by_hand():
    net, current, expected = networks.worked_by_hand()
    trace = OnnxEngine(net).run(current)
    networks.assert_active(net, trace)
    assert networks.mismatches(trace, expected) == 0
    for stage, index in ((1, (0, 1)), (-1, (0, 0)), (-1, (1, 0))):
        assert networks.mismatches(OnnxEngine(networks.flip(net, stage, index)).run(current), expected) > 0


@pytest.mark.parametrize(("reset", "rounding", "s_min"), networks.VARIANTS)
@pytest.mark.parametrize("leak", networks.LEAKS, ids=str)
def test_every_neuron_state(leak, reset, rounding, s_min):
    net, current, expected = networks.every_neuron(leak, reset, rounding, s_min)
    assert networks.mismatches(OnnxEngine(net).run(current), expected) == 0


def saturated(
    channels: int, s_max: int, pool: IntPool | None, size: tuple[int, int], sign: int = 1
) -> tuple[IntStage, NDArray]:
    """A first stage whose neurons all emit ``s_max`` (or −s_max) in the one step, and the current that makes them."""
    theta = np.ones(channels, np.int32)
    s_min = 0 if sign > 0 else -s_max
    stage = IntStage("in", networks.INPUT_BRANCH, 0 * theta, theta, s_max, (channels, *size), s_min=s_min, pool=pool)
    return stage, np.full((1, 2, channels, *size), sign * (s_max + 3), np.int32)


def extreme_weights(inputs: int) -> NDArray[np.int8]:
    """``[4, inputs]``: all 127, all −127, alternating, and in pairs (16 bit pair sums would saturate)."""
    i = np.arange(inputs)
    signs = np.stack([i * 0 + 1, i * 0 - 1, 1 - 2 * (i % 2), 1 - 2 * (i // 2 % 2)])
    return (127 * signs).astype(np.int8)


@pytest.mark.parametrize("channels", [1, 3, 17, 64])
@pytest.mark.parametrize(
    ("s_max", "pool", "largest"),
    [
        (127, None, 127),
        (127, None, -127),
        (51, IntPool("sum", (1, 5), (1, 1)), 255),
        (25, IntPool("sum", (1, 5), (1, 1)), -125),
    ],
)
def test_largest_operands_do_not_saturate(channels, s_max, pool, largest):
    """Weights ±127 on inputs of ±127 and, behind the sum pool, 5·51 = 255 and 5·−25."""
    first, current = saturated(channels, s_max, pool, (4, 8), sign=1 if largest > 0 else -1)
    width = 8 if pool is None else 4
    conv = IntBranch(0, "conv", extreme_weights(channels * 9).reshape(4, channels, 3, 3), padding=(1, 1))
    theta = np.full(4, 2**15, np.int32)
    second = IntStage("conv", (conv,), 0 * theta + 7, theta, 127, (4, 4, width))
    third = IntStage(
        "fc", (IntBranch(0, "linear", extreme_weights(channels * 4 * width)),), 0 * theta, theta, 127, (4,)
    )
    bias = np.array([2**15] * 4, np.int32)
    readout = IntReadout(IntBranch(0, "linear", extreme_weights(channels * 4 * width)), bias, 1.0)
    net = IntegerNetwork((first, replace(second, bias=bias), replace(third, bias=bias)), readout, 1)
    trace = OnnxEngine(net).run(current)
    networks.assert_active(net, trace)
    assert networks.mismatches(trace, scalar.run(net, current)) == 0
    inputs = channels * 4 * width
    assert trace.logits[0, :2].tolist() == [2**15 + 127 * largest * inputs, 2**15 - 127 * largest * inputs]


def pooled_network(pool: IntPool, consumer: str, s_max: int = 127) -> tuple[IntegerNetwork, NDArray]:
    """A saturated stage of 2 channels, pooled, into a conv, an identity or only the readout."""
    rng = np.random.default_rng(0)
    first, current = saturated(2, s_max, pool, (4, 4))
    (oh, ow) = reference.out_size((4, 4), pool.kernel, pool.stride, pool.padding)
    branch = {
        "conv": IntBranch(0, "conv", networks.extremes(rng, (2, 2, 1, 1))),
        "identity": IntBranch(0, "identity", scale=np.array([3, 1000], np.int32)),
    }.get(consumer)
    theta = np.array([100, 7], np.int32)
    stages = (first,) if branch is None else (first, IntStage("next", (branch,), theta, theta, 127, (2, oh, ow)))
    weight = networks.extremes(rng, (5, 2 * oh * ow))
    readout = IntReadout(IntBranch(len(stages) - 1, "linear", weight), np.arange(5, dtype=np.int32), 1.0)
    return IntegerNetwork(stages, readout, 1), current


@pytest.mark.parametrize("s_max", [15, 16, 127])
@pytest.mark.parametrize("consumer", ["readout", "identity"])
def test_global_sum_pool_below_and_above_uint8(consumer, s_max):
    net, current = pooled_network(IntPool("sum", (4, 4), (1, 1)), consumer, s_max)
    trace = OnnxEngine(net).run(current)
    networks.assert_active(net, trace)
    assert networks.mismatches(trace, scalar.run(net, current)) == 0
    assert networks.mismatches(trace, scalar.run(networks.flip(net, -1, (0, 0)), current)) > 0


@pytest.mark.parametrize(
    ("kernel", "consumer", "named"),
    [((2, 2), "readout", "readout"), ((2, 2), "conv", "next"), ((4, 4), "conv", "next")],
)
def test_other_sum_pools_above_uint8_are_refused(kernel, consumer, named):
    net, current = pooled_network(IntPool("sum", kernel, (2, 2)), consumer)
    reference.run(net, current)
    with pytest.raises(
        DeployError, match=f"stage 'in': its sum pool gives up to {127 * kernel[0] ** 2}, and '{named}'"
    ):
        export(net)


def test_current_static_or_per_step_and_any_batch():
    rng = np.random.default_rng(1)
    net = networks.make(rng, "residual", T=3)
    static, stepwise = OnnxEngine(net, static=True), OnnxEngine(net)
    for batch in (1, 5):
        current = networks.make_current(rng, net, batch, static=True)
        oracle = scalar.run(net, current)
        networks.assert_active(net, oracle)
        for trace in (static.run(current), stepwise.run(current), stepwise.run(np.repeat(current, 3, axis=0))):
            assert networks.mismatches(trace, oracle) == 0
    with pytest.raises(DeployError, match="static network"):
        static.run(np.repeat(current, 3, axis=0))
    with pytest.raises(DeployError, match="the current J must be"):
        stepwise.run(current[:, :, :1])


def test_model_says_what_it_is(tmp_path):
    net = networks.make(np.random.default_rng(2), "chain", T=2, s_max=8)
    path = tmp_path / "net.onnx"
    export(net, path, static=True)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties.pop("s_max")) == {"conv.0": 8, "features/1": 8, "head": 8}
    assert len(properties.pop("sha256")) == len(properties.pop("network")) == 64
    assert properties == {"producer": "qbsnn", "semantics": "QB-INT 1", "T": "2"}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    taps = [f"{stage.name}.{tap}" for stage in net.stages for tap in ("spikes", "membrane")]
    assert [value.name for value in model.graph.output] == [*taps, "logits"]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == [1, "batch", *net.stages[0].shape]
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {value.type.tensor_type.elem_type for value in [*inferred.value_info, *inferred.output, *inferred.input]}
    assert not floats & (kinds | {constant.data_type for constant in model.graph.initializer})


def test_outputs_are_typed_and_shaped():
    net = networks.make(np.random.default_rng(2), "chain", T=2)
    outputs = {}
    for value in export(net).graph.output:
        kind = value.type.tensor_type
        outputs[value.name] = (kind.elem_type, [d.dim_param or d.dim_value for d in kind.shape.dim])
    expected = {"logits": (onnx.TensorProto.INT32, ["batch", 3])}
    for stage in net.stages:
        expected[f"{stage.name}.spikes"] = (onnx.TensorProto.UINT8, [2, "batch", *stage.shape])
        expected[f"{stage.name}.membrane"] = (onnx.TensorProto.INT32, [2, "batch", *stage.shape])
    assert outputs == expected


def test_stage_names_cannot_collide_with_inner_names():
    net = networks.make(np.random.default_rng(3), "residual", T=2)
    awkward = ["current", "logits", "logits.t0", "a/b.c", "a/b"]
    net = replace(net, stages=tuple(replace(s, name=n) for s, n in zip(net.stages, awkward, strict=True)))
    same(net, networks.make_current(np.random.default_rng(3), net, 2))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages_are_named(monkeypatch, package):
    assert available() is None
    net = networks.make(np.random.default_rng(0), "linear")
    monkeypatch.setitem(sys.modules, package, None)
    assert package in available()
    with pytest.raises(DeployError, match=rf"{package} cannot be imported .*install qbsnn\[deploy\]"):
        OnnxEngine(net)
