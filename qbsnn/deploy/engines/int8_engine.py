"""The int8 engine: QB-INT 1 on int8 kernels, with the neurons of a stage as one kernel over all steps.

What provably cannot be exact on these kernels runs as in
:class:`~qbsnn.deploy.engines.torch_engine.TorchEngine`: a branch with weights by
:func:`~qbsnn.deploy.engines.int8_kernels.obstacle`, the neurons of a stage whose membranes may leave their register.
Spikes lie channels last in memory all the way through.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.deploy.engines.int8_kernels import Kernel, kernel, obstacle, unit
from qbsnn.deploy.engines.neuron_step import NeuronKind, Part, scan_neurons
from qbsnn.deploy.engines.torch_engine import Overflows, TorchEngine, largest_value, register_max
from qbsnn.deploy.format.network import IntBranch, IntPool, IntStage
from qbsnn.errors import DeployError
from qbsnn.functional.exact import exact_float, full_float32

ALONE = 2**27
"""Products of a batch, all steps together, below which a second thread of a CPU gains nothing and may be late."""


class Int8Engine(TorchEngine):
    """Runs a quantised network on ``device``; a batch of few products on one thread of a CPU (:data:`ALONE`).

    compiled: whether the neurons of a stage are one kernel, which takes seconds to build; else they run step by step.
    """

    def __init__(self, quantized: Quantized, device: torch.device | str = "cpu", compiled: bool = False) -> None:
        super().__init__(quantized, device)
        self.quantized, self.compiled = quantized, compiled
        self.unit = unit(self.device)
        self._kernels: dict[int, Kernel] = {}
        self._obstacles: dict[int, str] = {}
        for branch in self._weighted():
            reason = obstacle(self.net, branch, self.unit)
            if reason is None:
                self._kernels[id(branch)] = kernel(branch, self.unit, self.device)
            else:
                self._obstacles[id(branch)] = reason
        self._constants: dict[tuple[int, torch.dtype], Tensor] = {}
        self._neuron_types = [self._neuron_type(i) for i in range(len(self.net.stages))]
        last = {branch.source: i for i, stage in enumerate(self.net.stages) for branch in stage.branches}
        last[self.net.readout.branch.source] = len(self.net.stages)
        self._last_use = last
        sizes = [(branch.weight, stage.shape) for stage in self.net.stages for branch in stage.branches]
        sizes.append((self.net.readout.branch.weight, self.net.readout.bias.shape))
        per_output = [(math.prod(weight.shape[1:]), shape) for weight, shape in sizes if weight is not None]
        self._products = self.net.T * sum(inputs * math.prod(shape) for inputs, shape in per_output)  # of an image

    def kernels(self) -> dict[str, str]:
        """Per stage, and for the ``readout``, what multiplies there: the int8 unit, or ``exact float`` and why."""
        named = [*((stage.name, stage.branches) for stage in self.net.stages), ("readout", (self.net.readout.branch,))]
        found = {}
        for name, branches in named:
            parts = [
                f"exact float: {self._obstacles[id(branch)]}" if id(branch) in self._obstacles else f"int8 {self.unit}"
                for branch in branches
                if branch.weight is not None
            ]
            found[name] = "; ".join(dict.fromkeys(parts)) or "none: the input current"
        return found

    @torch.no_grad()
    def logits(self, current: Tensor) -> Tensor:
        """Z ``[B, classes]``, int64, for the input current J, int32 ``[T or 1, B, *first shape]``. Keeps nothing else.

        Raises DeployError where J has another type or shape or lies outside the bounds of an input, and where Z or a
        step's sum leaves its register under the policy ``error``.
        """
        seen = Overflows()
        with self._threads(current.shape[1] if current.dim() > 1 else 1):
            z = self.running(current, seen)[-1]
        if seen.first is not None and self.net.overflow == "error":
            raise DeployError(f"a value does not fit {self.net.membrane_bits} bits: {seen.first}")
        return z

    @torch.no_grad()
    @full_float32()
    def running(self, current: Tensor, seen: Overflows) -> Tensor:
        """Z after every step, ``[T, B, classes]``; ``seen`` hears of what left its register."""
        j = self._checked(current.to(self.device))
        outputs: list[Tensor] = []
        for index, stage in enumerate(self.net.stages):
            s, _ = self._stage(index, j, outputs, seen, keep=False)
            outputs.append(s if stage.pool is None else self._pool(s, stage.pool))
            for source in range(index):
                if self._last_use.get(source, -1) == index:
                    outputs[source] = outputs[source].new_empty(0)  # a slice would keep its memory
        return self._readout(outputs[self.net.readout.branch.source], seen)

    @torch.no_grad()
    def predict(self, pixels: Tensor) -> Tensor:
        """Classes ``[B]`` of pixels ``[B, C, H, W]``: the lowest index among the largest Z.

        Raises as :meth:`~qbsnn.deploy.convert.quantized.Quantized.current` and :meth:`logits` do.
        """
        with self._threads(len(pixels)):
            return self.logits(self.quantized.current_tensor(self.quantized.encoded(pixels))).argmax(1)

    @contextmanager
    def _threads(self, images: int) -> Iterator[None]:
        before = torch.get_num_threads()
        alone = self.device.type == "cpu" and images * self._products < ALONE
        if alone:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if alone:
                torch.set_num_threads(before)

    def _weighted(self) -> list[IntBranch]:
        branches = [*(b for stage in self.net.stages for b in stage.branches), self.net.readout.branch]
        return [branch for branch in branches if branch.weight is not None]

    def _neuron_type(self, index: int) -> torch.dtype | None:
        """The floating-point type that holds all values of a stage's neurons; ``None`` if V may leave its register."""
        stage, bound = self.net.stages[index], self.bounds[index]
        if bound.membrane > register_max(self.net):
            return None
        largest = max(bound.accumulator, largest_value(stage, bound.membrane))
        return torch.float32 if largest < 2**24 else exact_float(largest, self.device)

    def _stage(
        self, index: int, j: Tensor, outputs: Sequence[Tensor], seen: Overflows, keep: bool = True
    ) -> tuple[Tensor, Tensor]:
        dtype = self._neuron_types[index]
        if dtype is None:
            return super()._stage(index, j, outputs, seen)
        stage = self.net.stages[index]
        parts = [self._part(branch, j, outputs, dtype) for branch in stage.branches]
        bias, theta = self._constant(stage.bias, dtype), self._constant(stage.theta, dtype)
        s, v = scan_neurons(NeuronKind.of(stage), self.net.T, parts, bias, theta, keep, self.compiled)
        return _spread(s, stage), s if v is None else _spread(v.to(torch.int64), stage)

    def _part(self, branch: IntBranch, j: Tensor, outputs: Sequence[Tensor], dtype: torch.dtype) -> Part:
        if branch.kind == "input":
            return _flat(j), None
        x = outputs[branch.source]
        if branch.scale is not None:
            return _flat(x), self._constant(branch.scale, dtype)
        return _flat(self._contract(branch, x)), None

    def _constant(self, values: NDArray[np.int32], dtype: torch.dtype) -> Tensor:
        """An array of the network as a tensor, made once: that costs as much as a small layer."""
        key = id(values), dtype
        if key not in self._constants:
            self._constants[key] = torch.from_numpy(values).to(self.device, dtype)
        return self._constants[key]

    def _contract(self, branch: IntBranch, x: Tensor) -> Tensor:
        run = self._kernels.get(id(branch))
        return super()._contract(branch, x) if run is None else run(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _pool(self, s: Tensor, pool: IntPool) -> Tensor:
        # torch's quantised max pool pads with 0, the smallest burst, and by half a window at most
        fits = all(2 * p <= k for p, k in zip(pool.padding, pool.kernel, strict=True))
        if pool.kind == "max" and fits and s.dtype == torch.uint8 and s.device.type == "cpu":
            merged = s.flatten(0, 1)
            out = torch.ops.quantized.max_pool2d(merged, pool.kernel, pool.stride, pool.padding, [1, 1], False)
            return out.unflatten(0, s.shape[:2])
        return super()._pool(s, pool)


def _flat(x: Tensor) -> Tensor:
    """``[T, B, C, ...]`` as ``[T, N, C]``, a view where channels come last in memory."""
    return x.movedim(2, -1).flatten(1, -2)


def _spread(x: Tensor, stage: IntStage) -> Tensor:
    """``[T, N, C]`` as ``[T, B, *shape]``, channels last in memory."""
    return x.unflatten(1, (-1, *stage.shape[1:])).movedim(-1, 2)
