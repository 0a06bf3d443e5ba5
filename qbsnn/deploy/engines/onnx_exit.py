"""Early exit as ONNX nodes: when each sample leaves and with which class. The graph computes all steps all the same."""

from __future__ import annotations

import numpy as np

from qbsnn.deploy.engines.onnx_nodes import Nodes

OUTPUTS = ("exit_steps", "exit_class")
"""int64 ``[B]`` each."""


def add(graph: Nodes, steps: str, margin: int) -> None:
    """Add ``OUTPUTS``, from what every step adds to Z, int32 ``[T, B, classes]``."""
    running = graph.node("CumSum", [steps, graph.constant(0, "exit.time")], "exit.running")
    classes = graph.node("ArgMax", [running], "exit.classes", axis=2, keepdims=0)
    wide = graph.cast(running, "INT64", "exit.wide")  # a difference of two Z may leave int32
    count = graph.constant([2], "exit.two", np.int64)
    top, _ = graph.nodes_of("TopK", [wide, count], ["exit.top", "exit.places"], axis=2)
    first, second = (graph.node("Gather", [top, graph.constant(i, f"exit.{i}")], f"exit.z{i}", axis=2) for i in (0, 1))
    found = graph.node("Sub", [first, second], "exit.margins")
    unsafe = graph.node("Less", [found, graph.constant(margin, "exit.margin", np.int64)], "exit.unsafe")
    before_last = graph.constant(np.arange(graph.net.T)[:, None] < graph.net.T - 1, "exit.before_last", np.bool_)
    stays = graph.cast(graph.node("And", [unsafe, before_last], "exit.stays"), "INT32", "exit.stays.int32")
    last = graph.node("ArgMin", [stays], "exit.last", axis=0, keepdims=1)
    flat = graph.constant([-1], "exit.flat", np.int64)
    chosen = graph.node("GatherElements", [classes, last], "exit.chosen", axis=0)
    graph.node("Reshape", [chosen, flat], OUTPUTS[1], public=True)
    from_zero = graph.node("Reshape", [last, flat], "exit.from_zero")
    graph.node("Add", [from_zero, graph.constant([1], "exit.one", np.int64)], OUTPUTS[0], public=True)
