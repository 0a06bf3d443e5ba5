"""The integer network as an ONNX graph of integer operators, T unrolled, and a runner on onnxruntime.

Weight operators run once per layer on the steps merged into the batch, ``[T·B, ...]`` with time outermost; only the
neurons are unrolled. Weights are uint8 with zero point 128 (q + 128): for two unsigned operands onnxruntime's AVX2
kernel widens to 16 bits and sums pairs in 32, while for u8×s8 it sums pairs in 16 bits, which saturates. Signed bursts
are uint8 with zero point 128 between the layers. Sums are int32 and, depending on operator and CPU, wrap or saturate,
so the graph is right only where none leaves int32: check ``Trace.overflows`` of the numpy engine. The overflow
policies ``saturate`` and ``wrap`` act on membranes, which have 64 bits inside a step.

onnx and onnxruntime are the optional extra ``deploy`` and are imported on use.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.engines import onnx_exit
from qbsnn.deploy.engines.onnx_neuron import Step
from qbsnn.deploy.engines.onnx_nodes import Nodes
from qbsnn.deploy.format.network import IntBranch, IntegerNetwork, IntPool, IntStage
from qbsnn.deploy.format.seal import digest, sealed
from qbsnn.deploy.format.validation import check
from qbsnn.errors import DeployError

if TYPE_CHECKING:
    import onnx

OPSET = 13
"""ReduceSum with axes as an input; every operator used here exists for integers in this opset."""

ENTRY = b"\x72\x4a\x0a\x06sha256\x12\x40"
"""What seals a file: an entry of the metadata, ModelProto.metadata_props (field 14) of 74 bytes, whose key (field 1)
stands here and whose value (field 2) of 64 bytes is the digest of all bytes before it. Two messages one after the other
are one message to protobuf, so any ONNX reader takes the whole file.
"""
NETWORK = "network"
"""The entry of the metadata that says of which network the graph is, and whether it is static."""


def available() -> str | None:
    """Why the ONNX engine cannot be used here, or ``None`` if it can."""
    for package in ("onnx", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            return f"{package} cannot be imported ({error}); install qbsnn[deploy]"
    return None


def export(net: IntegerNetwork, path: Path | str | None = None, *, static: bool = False) -> onnx.ModelProto:
    """Build and check the ONNX model of ``net``; write it to ``path`` if that is given.

    The input is ``current``, int32 ``[T, B, *shape of stage 0]``, or ``[1, B, ...]`` and the same in every step if
    ``static``. The outputs are ``logits``, int32 ``[B, classes]``, and ``<stage>.spikes`` (uint8, or int8 if signed,
    before pooling) and ``<stage>.membrane`` (int32, after the reset) of every stage, both ``[T, B, *shape]``. A network
    with an exit margin also says ``exit_steps`` and ``exit_class`` of each sample, int64 ``[B]``; a graph of operators
    computes all steps all the same.

    Raises:
        DeployError: the wiring is wrong, the packages are missing, or a sum pool exceeds uint8 where it must not.
    """
    reason = available()
    if reason:
        raise DeployError(f"no ONNX export: {reason}")
    pooled = check(net)
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph(net)
    for stage, shape in zip(net.stages, pooled, strict=True):
        graph.stage(stage, shape, static)
    graph.readout()
    steps = 1 if static else net.T
    current = helper.make_tensor_value_info("current", TensorProto.INT32, [steps, "batch", *net.stages[0].shape])
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(
        helper.make_graph(graph.nodes, "qbsnn", [current], graph.outputs, graph.constants),
        producer_name="qbsnn",
        opset_imports=[opset],
        ir_version=helper.find_min_ir_version_for([opset]),
    )
    s_max = json.dumps({stage.name: stage.s_max for stage in net.stages})
    entries = {"producer": "qbsnn", "semantics": "QB-INT 1", "T": str(net.T), "s_max": s_max}
    helper.set_model_props(model, {**entries, NETWORK: digest((net, static))})
    onnx.checker.check_model(model, full_check=True)
    if path is not None:
        Path(path).write_bytes(sealed(model.SerializeToString(), ENTRY))
    return model


class _Spikes:
    """What leaves a stage: its pooled spikes as a value, and what a consumer must know of them.

    zero: the zero point of uint8 values, 128 for signed bursts, else 0. bound: the largest magnitude.
    small: the values fit; ``name`` is then uint8 with that zero point and else int32.
    raw: the unpooled uint8 spikes, if ``name`` is their sum over all H·W positions and is not small.
    """

    def __init__(self, name: str, shape: tuple[int, ...], zero: int, bound: int = 0, raw: str | None = None) -> None:
        self.name, self.shape, self.zero, self.bound, self.raw = name, shape, zero, bound, raw
        self.small = bound <= (127 if zero else 255)


class _Graph(Nodes):
    """The graph of a network, stage by stage."""

    def __init__(self, net: IntegerNetwork) -> None:
        taps = (f"{stage.name}.{tap}" for stage in net.stages for tap in ("spikes", "membrane"))
        super().__init__(net, {"current", "logits", *onnx_exit.OUTPUTS, *taps})
        self.sources: list[_Spikes] = []

    def stage(self, stage: IntStage, pooled: tuple[int, ...], static: bool) -> None:
        name = stage.name
        step = Step(self, stage)
        repeated = static and stage.branches[0].kind == "input"
        terms = [self.branch(branch, stage, f"{name}.{branch.kind}{i}") for i, branch in enumerate(stage.branches)]
        drive = self._sum([*terms, self.per_channel(stage.bias, stage, f"{name}.bias")], f"{name}.drive")
        drive = step.widened(drive, f"{name}.wide")
        steps = (
            [drive] * self.net.T
            if repeated
            else self.nodes_of("Split", [drive], [f"{name}.drive.t{t}" for t in range(self.net.T)], axis=0)
        )
        spikes, membranes = step.unrolled(steps)
        merged = self.node("Concat", spikes, f"{name}.bursts", axis=0)
        signed = stage.s_min < 0
        potentials = step.narrowed(self.node("Concat", membranes, f"{name}.potentials", axis=0), f"{name}.int32")
        bursts = self.cast(merged, "INT8" if signed else "UINT8", f"{name}.tap")
        for value, tap, dtype in (
            (bursts, "spikes", "INT8" if signed else "UINT8"),
            (potentials, "membrane", "INT32"),
        ):
            self.reshape(value, (self.net.T, -1, *stage.shape), f"{name}.{tap}", public=True)
            self.output(f"{name}.{tap}", dtype, [self.net.T, "batch", *stage.shape])
        zero = 128 if signed else 0
        shifted = (
            self.node("Add", [merged, self.constant(zero, f"{name}.zero_point", step.dtype)], f"{name}.shifted")
            if signed
            else merged
        )
        self.sources.append(self.pool(stage.pool, stage, self.cast(shifted, "UINT8", f"{name}.uint8"), zero, pooled))

    def _sum(self, terms: list[str], name: str) -> str:
        total = terms[0]
        for term in terms[1:]:
            total = self.node("Add", [total, term], name)
        return total

    def branch(self, branch: IntBranch, stage: IntStage, name: str) -> str:
        """The int32 term ``[T·B, *shape]`` of one branch."""
        if branch.kind == "input":
            return self.reshape("current", (-1, *stage.shape), name)
        source = self.sources[branch.source]
        if branch.scale is not None:
            spikes = self.plain(source, name)
            return self.node("Mul", [spikes, self.per_channel(branch.scale, stage, f"{name}.scale")], name)
        assert branch.weight is not None
        if branch.kind == "linear":
            return self.linear(branch.weight, branch.source, stage.name, name)
        self._require_small(branch.source, stage.name)
        (ph, pw), kernel = branch.padding, list(branch.weight.shape[2:])
        weight, zeros = self.weight(branch.weight, source.zero, name)
        return self.node("ConvInteger", [source.name, weight, *zeros], name, kernel_shape=kernel, group=branch.groups,
                         strides=list(branch.stride), pads=[ph, pw, ph, pw])  # fmt: skip

    def plain(self, source: _Spikes, name: str) -> str:
        """The spikes of a source as int32, without zero point."""
        if not source.small:
            return source.name
        wide = self.cast(source.name, "INT32", f"{name}.spikes")
        return (
            self.node("Sub", [wide, self.constant(source.zero, f"{name}.zero")], f"{name}.signed")
            if source.zero
            else wide
        )

    def weight(self, q: NDArray[np.int8], spike_zero: int, name: str) -> tuple[str, list[str]]:
        """q + 128 as uint8, and the zero points of the activations and of the weight."""
        weight = self.constant(q.astype(np.int16) + 128, f"{name}.weight", np.uint8)
        points = ((spike_zero, "spike"), (128, "weight"))
        return weight, [self.constant(z, f"{name}.{what}_zero", np.uint8) for z, what in points]

    def linear(self, q: NDArray[np.int8], index: int, consumer: str, name: str) -> str:
        """MatMulInteger; behind a global sum pool above 255 it multiplies per position and then sums."""
        source = self.sources[index]
        weight, zeros = self.weight(q.T, source.zero, name)
        if source.raw is None:
            self._require_small(index, consumer)
            rows = self.reshape(source.name, (-1, q.shape[1]), f"{name}.flat") if source.shape[1:] else source.name
            return self.node("MatMulInteger", [rows, weight, *zeros], name)
        positions = int(np.prod(self.net.stages[index].shape[1:]))
        flat = self.reshape(source.raw, (-1, q.shape[1], positions), f"{name}.flat")
        rows = self.node("Transpose", [flat], f"{name}.rows", perm=[0, 2, 1])
        products = self.node("MatMulInteger", [rows, weight, *zeros], f"{name}.positions")
        return self.node("ReduceSum", [products, self.constant([1], f"{name}.axes", np.int64)], name, keepdims=0)

    def _require_small(self, index: int, consumer: str) -> None:
        source = self.sources[index]
        if not source.small:
            raise DeployError(
                f"stage {self.net.stages[index].name!r}: its sum pool gives up to {source.bound}, and {consumer!r} "
                f"takes at most {127 if source.zero else 255} (8 bits); only a global sum pool in front of a linear "
                "layer may exceed that"
            )

    def pool(self, pool: IntPool | None, stage: IntStage, spikes: str, zero: int, shape: tuple[int, ...]) -> _Spikes:
        """Pool uint8 spikes ``[T·B, *stage.shape]`` with this zero point."""
        if pool is None:
            return _Spikes(spikes, shape, zero)
        (ph, pw), kernel, strides, name = pool.padding, list(pool.kernel), list(pool.stride), f"{stage.name}.pooled"
        if pool.kind == "max":
            pads = [ph, pw, ph, pw]
            name = self.node("MaxPool", [spikes], name, kernel_shape=kernel, strides=strides, pads=pads)
            return _Spikes(name, shape, zero)
        bound = pool.kernel[0] * pool.kernel[1] * stage.s_max
        if pool.kernel == stage.shape[1:]:
            axes = self.constant([2, 3], f"{name}.axes", np.int64)
            wide = self.plain(_Spikes(spikes, stage.shape, zero), name)
            total, raw = self.node("ReduceSum", [wide, axes], f"{name}.sum", keepdims=1), spikes
        else:
            # one channel at a time: the same kernel of ones serves all of them
            planes = self.reshape(spikes, (-1, 1, *stage.shape[1:]), f"{name}.planes")
            ones = self.constant(np.ones((1, 1, *kernel)), f"{name}.ones", np.uint8)
            inputs = [planes, ones, self.constant(zero, f"{name}.zero", np.uint8)]
            sums = self.node("ConvInteger", inputs, f"{name}.sums", kernel_shape=kernel, strides=strides)
            total, raw = self.reshape(sums, (-1, *shape), f"{name}.sum"), None
        pooled = _Spikes(total, shape, zero, bound, raw)
        if pooled.small:
            shifted = (
                self.node("Add", [total, self.constant(zero, f"{name}.point")], f"{name}.shifted") if zero else total
            )
            return _Spikes(self.cast(shifted, "UINT8", name), shape, zero, bound)
        return pooled

    def readout(self) -> None:
        readout = self.net.readout
        assert readout.branch.weight is not None
        products = self.linear(readout.branch.weight, readout.branch.source, "readout", "readout")
        sums = self.node("Add", [products, self.constant(readout.bias, "readout.bias")], "readout.sum")
        steps = self.reshape(sums, (self.net.T, -1, len(readout.bias)), "readout.steps")
        time = self.constant([0], "readout.time", np.int64)
        self.node("ReduceSum", [steps, time], "logits", public=True, keepdims=0)
        self.output("logits", "INT32", ["batch", len(readout.bias)])
        if self.net.exit_margin is not None:
            onnx_exit.add(self, steps, self.net.exit_margin)
            for name in onnx_exit.OUTPUTS:
                self.output(name, "INT64", ["batch"])
