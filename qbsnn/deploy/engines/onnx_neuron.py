"""The neuron of QB-INT 1 as ONNX nodes, one step after the other.

Membranes are int32 where nothing a step computes can leave it (unsigned bursts, ``floor``, no leak or the floor shift,
policy ``error``), else int64.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from qbsnn.deploy.engines.onnx_nodes import Nodes
from qbsnn.deploy.format.network import IntStage


class Step:
    """The steps of one stage. Its constants are added once."""

    def __init__(self, graph: Nodes, stage: IntStage) -> None:
        self.graph, self.stage, self.name = graph, stage, stage.name
        plain = stage.s_min == 0 and stage.rounding != "round" and stage.leak.kind in ("none", "shift_floor")
        self.wide = not plain or graph.net.overflow != "error"
        self.dtype = np.int64 if self.wide else np.int32
        self.known: dict[int, str] = {}
        self.theta = graph.per_channel(stage.theta, stage, f"{self.name}.theta", self.dtype)
        self.offset = None
        if stage.rounding == "round":
            self.offset = graph.per_channel(stage.theta // 2, stage, f"{self.name}.half_theta", self.dtype)

    def widened(self, value: str, name: str) -> str:
        """An int32 value in the type of the membranes."""
        return self.graph.cast(value, "INT64", name) if self.wide else value

    def narrowed(self, value: str, name: str) -> str:
        """A membrane as int32."""
        return self.graph.cast(value, "INT32", name) if self.wide else value

    def unrolled(self, drives: list[str]) -> tuple[list[str], list[str]]:
        """Bursts s and V after the reset of every step, each ``[B, *shape]``, for the sums of every step."""
        spikes: list[str] = []
        membranes: list[str] = []
        for t, drive in enumerate(drives):
            at = f"{self.name}.t{t}"
            # V is 0 before the first step
            v = self._node("Add", [self._leak(membranes[-1], at), drive], f"{at}.v") if membranes else drive
            v = self._fit(v, at)
            s = self._burst(v, at)
            if self.stage.reset == "soft":
                u = self._node("Sub", [v, self._node("Mul", [self.theta, s], f"{at}.reset")], f"{at}.u")
            else:
                silent = self._node("Equal", [s, self._constant(0)], f"{at}.silent")
                u = self._node("Where", [silent, v, self._constant(0)], f"{at}.u")
            spikes.append(s)
            membranes.append(u)
        return spikes, membranes

    def _burst(self, v: str, at: str) -> str:
        """clamp(⌊V/θ⌋, s_min, s_max). Div truncates; that is the floor where its first operand is not negative."""
        levels = self._node("Add", [v, self.offset], f"{at}.offset") if self.offset else v
        if self.stage.s_min < 0:
            divide = partial(self._node, "Div") if self.stage.rounding == "to_zero" else self._floor_div
            levels = divide([levels, self.theta], f"{at}.levels")
            levels = self._node("Max", [levels, self._constant(self.stage.s_min)], f"{at}.at_least")
        else:
            positive = self._node("Max", [levels, self._constant(0)], f"{at}.positive")
            levels = self._node("Div", [positive, self.theta], f"{at}.levels")
        return self._node("Min", [levels, self._constant(self.stage.s_max)], f"{at}.s")

    def _leak(self, v: str, at: str) -> str:
        kind, amount = self.stage.leak.kind, self.stage.leak.amount
        if kind == "shift_floor":
            lost = self._floor_div([v, self._constant(2**amount)], f"{at}.leak")
        elif kind == "shift_xylo":
            shifted = self._floor_div([v, self._constant(2**amount)], f"{at}.shifted")
            # The shift is 0 for V from 0 to 2^n − 1, whose sign is min(V, 1); for V < 0 the shift is at least V.
            least = self._node("Min", [v, self._constant(1)], f"{at}.least")
            lost = self._node("Max", [shifted, least], f"{at}.leak")
        elif kind == "mul12_to_zero":
            product = self._node("Mul", [v, self._constant(4096 - amount)], f"{at}.product")
            return self._node("Div", [product, self._constant(4096)], f"{at}.leaked")
        else:
            return v
        return self._node("Sub", [v, lost], f"{at}.leaked")

    def _fit(self, v: str, at: str) -> str:
        half = 2 ** (self.graph.net.membrane_bits - 1)
        if self.graph.net.overflow == "saturate":
            low = self._node("Max", [v, self._constant(-half)], f"{at}.low")
            return self._node("Min", [low, self._constant(half - 1)], f"{at}.fit")
        if self.graph.net.overflow == "wrap":
            raised = self._node("Add", [v, self._constant(half)], f"{at}.raised")
            rest = self._node("Mod", [raised, self._constant(2 * half)], f"{at}.register")
            return self._node("Sub", [rest, self._constant(half)], f"{at}.fit")
        return v

    def _floor_div(self, operands: list[str], name: str) -> str:
        """⌊V/d⌋ for d > 0: Mod takes the sign of the divisor, so V − Mod(V, d) divides exactly."""
        v, divisor = operands
        multiple = self._node("Sub", [v, self._node("Mod", operands, f"{name}.rest")], f"{name}.multiple")
        return self._node("Div", [multiple, divisor], name)

    def _node(self, op: str, inputs: list[str], name: str) -> str:
        return self.graph.node(op, inputs, name)

    def _constant(self, value: int) -> str:
        if value not in self.known:
            self.known[value] = self.graph.constant(value, f"{self.name}.is{value}", self.dtype)
        return self.known[value]
