"""Operations of a recorded step in forms that the compiler turns into fewer instructions of a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node, Proxy

from qbsnn.functional.scan import HALF

_ATEN: Any = torch.ops.aten
_WHOLE = {_ATEN.floor.default, _ATEN.round.default}
_CLAMP = {_ATEN.clamp.default, _ATEN.clamp_.default}
_EXP = {_ATEN.exp.default, _ATEN.exp_.default}
_THRESHOLD = {_ATEN.threshold.default, _ATEN.threshold_.default}
_TIMES = {_ATEN.mul.Tensor, _ATEN.mul_.Tensor}
_LARGEST = 2**22
"""Whole float32 numbers up to twice this have exact differences."""

# The logarithm of 2 in two parts, and the polynomial of exp on ±ln(2)/2, from Sleef's expf of 1 ulp (sleef.org).
_LN2 = 0.693145751953125, 1.428606765330187045e-06
_POLYNOMIAL = (
    0.000198527617612853646278381, 0.00139304355252534151077271, 0.00833336077630519866943359,
    0.0416664853692054748535156, 0.166666671633720397949219, 0.5,
)  # fmt: skip


def for_cpu(graph: GraphModule) -> GraphModule:
    """The graph with cheaper forms of two operations, changed in place. Outputs and NaN stay what they are.

    A clamp of whole numbers between whole numbers becomes maxima with 0: a minimum or maximum is compiled to four
    instructions, for NaN, a maximum with 0 to one. An exponential in float32 becomes its arithmetic, for the call of a
    function empties all registers; the result is that of the function, Sleef's, which compiled code calls otherwise.
    """
    for node in list(graph.graph.nodes):
        if node.target in _CLAMP and _clamps_levels(node):
            _replace(graph, node, clamp_levels, *map(int, node.args[1:3]))
        elif node.target in _EXP and node.meta["val"].dtype is torch.float32 and _multiplies_and_adds():
            _replace(graph, node, exponential, _never_positive(node.args[0]))
    graph.recompile()
    return graph


def _clamps_levels(node: Any) -> bool:
    source, *bounds = node.args
    return (
        isinstance(source, Node)
        and source.target in _WHOLE
        and node.meta["val"].dtype not in HALF
        and len(bounds) == 2
        and _numbers(bounds)
        and all(bound % 1 == 0 and abs(bound) <= _LARGEST for bound in bounds)
        and bounds[0] <= bounds[1]
    )


def _never_positive(node: Any) -> bool:
    """Whether a number is known to be 0, negative or NaN: a negative multiple of one that was cut off below at 0."""
    if node.target not in _TIMES or not _numbers(factor := node.args[1:2]) or factor[0] > 0:
        return False
    cut = node.args[0]
    least = cut.args[1:3] if cut.target in _THRESHOLD else cut.args[1:2] if cut.target in _CLAMP else ()
    return _numbers(least) and min(least) >= 0


def _numbers(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, int | float) for value in values)


def _multiplies_and_adds() -> bool:
    """Whether the processor multiplies and adds with one rounding, and this torch's compiler does so in vectors."""
    from torch._inductor.codegen import common

    known = getattr(common, "pointwise_overrides_data", {}).get("fma")
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") and getattr(known, "cppvec", None) is not None


def _replace(graph: GraphModule, node: Any, function: Callable[..., Any], *constants: Any) -> None:
    with graph.graph.inserting_before(node):
        new = function(Proxy(node.args[0]), *constants).node
    node.replace_all_uses_with(new)
    graph.graph.erase_node(node)


def clamp_levels(x: Any, low: int, high: int) -> Any:
    """``x.clamp(low, high)`` for whole x.

    >>> clamp_levels(torch.tensor([-3.0, 1.0, 2.0, 9.0]), 1, 4).tolist()
    [1.0, 1.0, 2.0, 4.0]
    """
    above = torch.relu(x - low if low else x)
    return high - torch.relu(high - low - above)


def exponential(x: Any, falls: bool = False) -> Any:
    """``exp(x)`` for float32 x, as Sleef computes it: exp(x) = 2ⁿ exp(r) with n = round(x/ln 2), |r| ≤ ln(2)/2.

    Args:
        x: The exponent.
        falls: Whether it is known to be 0, negative or NaN, which saves instructions.
    """
    fma = torch.ops.prims.fma
    n = (x * 1.4426950408889634).round()
    r = x
    for part in _LN2:
        r = fma(n, x.new_full((), -part), r)
    p = x.new_full((), _POLYNOMIAL[0])
    for coefficient in _POLYNOMIAL[1:]:
        p = fma(p, r, x.new_full((), coefficient))
    p = fma(r * r, p, r) + 1
    n = n.to(torch.int32)
    # 2ⁿ in two factors, for alone it is no normal number where exp(x) is just one, or is smaller than any.
    first = n + 64 if falls else n >> 1
    second = 2.0**-64 if falls else _power_of_two(n - first)
    y = torch.where(x < -104, 0.0, p * _power_of_two(first) * second)
    return y if falls else torch.where(x > 100, torch.inf, y)


def _power_of_two(n: Any) -> Any:
    return ((n + 127) << 23).view(torch.float32)
