"""onnxruntime as an engine: QB-INT 1 on the exported graph of :mod:`qbsnn.deploy.engines.onnx_graph`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.engines import onnx_exit
from qbsnn.deploy.engines.onnx_graph import ENTRY, NETWORK, available, export
from qbsnn.deploy.format.network import IntegerNetwork, Trace
from qbsnn.deploy.format.seal import digest, opened
from qbsnn.deploy.format.validation import check_current
from qbsnn.errors import DeployError


class OnnxEngine:
    """``net`` on onnxruntime's CPU provider, graph optimisations on.

    A network exported as ``static`` takes the current ``[1, B, ...]``; otherwise ``[T, B, ...]``, and ``[1, B, ...]``
    is repeated.

    Args:
        net: the integer network.
        static: whether the input is the same in every step.
        model: the file of a graph exported from ``net``, to run instead of a fresh one.

    Raises:
        DeployError: a package is missing, or the file is damaged or says that it is of another network.
    """

    def __init__(self, net: IntegerNetwork, static: bool = False, model: Path | None = None) -> None:
        reason = available()
        if reason:
            raise DeployError(f"no ONNX engine: {reason}")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        self.net, self.static = net, static
        content = export(net, static=static).SerializeToString() if model is None else opened(model, ENTRY)
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        own = digest((net, static))
        if self.session.get_modelmeta().custom_metadata_map.get(NETWORK, own) != own:  # earlier files do not say
            raise DeployError(f"{model} is that of another network, or {'not ' if static else ''}static")

    def run(self, current: NDArray[np.int32]) -> Trace:
        """Same contract as ``qbsnn.deploy.engines.reference.run``, but int32 may wrap and ``overflows`` is always 0.

        Spikes are uint8, or int8 if signed, membranes and logits int32.
        """
        check_current(self.net, current)
        if self.static and current.shape[0] != 1:
            raise DeployError(f"a static network takes a current [1, B, ...], got {current.shape}")
        steps = current if self.static else np.broadcast_to(current, (self.net.T, *current.shape[1:]))
        names = [output.name for output in self.session.get_outputs()]
        values = self.session.run(names, {"current": np.ascontiguousarray(steps)})
        results = dict(zip(names, values, strict=True))
        taps = [[results[f"{stage.name}.{tap}"] for stage in self.net.stages] for tap in ("spikes", "membrane")]
        exits = None if self.net.exit_margin is None else np.stack([results[name] for name in onnx_exit.OUTPUTS])
        return Trace(taps[0], taps[1], results["logits"], exits=exits)
