"""What an ONNX graph is collected in: nodes, constants and outputs, under names that are given once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.format.network import IntegerNetwork, IntStage

if TYPE_CHECKING:
    import onnx


class Nodes:
    """Collects nodes, constants and outputs; each method adds some and returns the names of the values they make.

    Args:
        net: the network that becomes a graph.
        taken: public names. A stage may be called anything, so inner names give way to them and to one another.
    """

    def __init__(self, net: IntegerNetwork, taken: Iterable[str]) -> None:
        import onnx

        self.net, self.taken, self.onnx = net, set(taken), onnx
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def node(self, op: str, inputs: list[str], name: str, *, public: bool = False, **attributes: Any) -> str:
        """Add a node with one output; a ``public`` name is kept as it is."""
        name = name if public else self._fresh(name)
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: Any, name: str, dtype: Any = np.int32) -> str:
        """Add a constant."""
        name = self._fresh(name)
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def nodes_of(self, op: str, inputs: list[str], names: list[str], **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        outputs = [self._fresh(name) for name in names]
        self.nodes.append(self.onnx.helper.make_node(op, inputs, outputs, name=outputs[0], **attributes))
        return outputs

    def reshape(self, value: str, shape: tuple[int, ...], name: str, *, public: bool = False) -> str:
        """Add a reshape."""
        return self.node("Reshape", [value, self.constant(shape, f"{name}.shape", np.int64)], name, public=public)

    def cast(self, value: str, dtype: str, name: str) -> str:
        """Add a cast to the type of this name in ``TensorProto``."""
        return self.node("Cast", [value], name, to=getattr(self.onnx.TensorProto, dtype))

    def output(self, name: str, dtype: str, shape: list[Any]) -> None:
        """Say that the value ``name`` leaves the graph."""
        element = getattr(self.onnx.TensorProto, dtype)
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, element, shape))

    def per_channel(self, values: NDArray[Any], stage: IntStage, name: str, dtype: Any = np.int32) -> str:
        """Add a constant that broadcasts over ``[B, *shape]``."""
        return self.constant(values.reshape(-1, *(1,) * (len(stage.shape) - 1)), name, dtype)

    def _fresh(self, name: str) -> str:
        candidate, k = name, 1
        while candidate in self.taken:
            candidate, k = f"{name}~{k}", k + 1
        self.taken.add(candidate)
        return candidate
