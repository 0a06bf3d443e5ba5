"""The nodes, constants and outputs of an ONNX graph while it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.format.network import IntegerNetwork, IntStage

if TYPE_CHECKING:
    import onnx


class Nodes:
    """Collects the parts of a graph. A method returns the name of the value that it makes.

    Args:
        net: the network that the graph computes.
        taken: names that inner values must not have; theirs give way to these and to one another.
    """

    def __init__(self, net: IntegerNetwork, taken: set[str]) -> None:
        import onnx

        self.net, self.taken, self.onnx = net, taken, onnx
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def node(self, op: str, inputs: list[str], name: str, *, public: bool = False, **attributes: Any) -> str:
        """Add a node with one output; a ``public`` one keeps its name."""
        name = name if public else self._fresh(name)
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def nodes_of(self, op: str, inputs: list[str], names: list[str], **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        outputs = [self._fresh(name) for name in names]
        self.nodes.append(self.onnx.helper.make_node(op, inputs, outputs, name=outputs[0], **attributes))
        return outputs

    def constant(self, value: Any, name: str, dtype: Any = np.int32) -> str:
        """Add a constant."""
        name = self._fresh(name)
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def per_channel(self, values: NDArray[Any], stage: IntStage, name: str, dtype: Any = np.int32) -> str:
        """Add a constant that broadcasts over ``[B, *shape]`` of a stage."""
        return self.constant(values.reshape(-1, *(1,) * (len(stage.shape) - 1)), name, dtype)

    def reshape(self, value: str, shape: tuple[int, ...], name: str, *, public: bool = False) -> str:
        """Add a reshape."""
        return self.node("Reshape", [value, self.constant(shape, f"{name}.shape", np.int64)], name, public=public)

    def cast(self, value: str, dtype: str, name: str) -> str:
        """Add a cast to a type of ``onnx.TensorProto``."""
        return self.node("Cast", [value], name, to=getattr(self.onnx.TensorProto, dtype))

    def output(self, name: str, dtype: str, shape: list[Any]) -> None:
        """Say that a value is an output of the graph."""
        element = getattr(self.onnx.TensorProto, dtype)
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, element, shape))

    def _fresh(self, name: str) -> str:
        candidate, k = name, 1
        while candidate in self.taken:
            candidate, k = f"{name}~{k}", k + 1
        self.taken.add(candidate)
        return candidate
