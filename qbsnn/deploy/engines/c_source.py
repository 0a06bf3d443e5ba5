"""The integer network in C99 for microcontrollers. Compiling and running it: :mod:`qbsnn.deploy.engines.c_engine`.

The header ``qbsnn_net.h`` holds everything: the operations of ``c/ops.h``, the weights as ``int8_t`` arrays, the stages
unrolled to calls. It allocates nothing and uses no floating point. Sums are ``int32_t``, which is proved here from the
weights before anything is written; membranes are ``int32_t`` and follow the network's width and overflow policy.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from qbsnn import __version__
from qbsnn.deploy.engines import reference
from qbsnn.deploy.format.bounds import output_range
from qbsnn.deploy.format.network import INPUT, IntBranch, IntegerNetwork, IntPool, Trace
from qbsnn.deploy.format.seal import digest, sealed
from qbsnn.deploy.format.validation import check
from qbsnn.errors import DeployError

HEADER, MAIN, CURRENT, EXPECTED = "qbsnn_net.h", "main.c", "current.txt", "expected.txt"
SEAL = (b"/* sha256 of all above this line: ", b" */\n")
"""Stands before and behind the digest in the last line of the header."""
ORIGIN = f"/* of network {{}}, for {MAIN} {{}} */\n"
"""What the header says of the digests of its network and of the program that was written with it."""
SOURCES = Path(__file__).with_name("c")
TYPES = (("uint8_t", 0, 2**8), ("int8_t", -(2**7), 2**7), ("int16_t", -(2**15), 2**15), ("int32_t", -(2**31), 2**31))
Shape = tuple[int, ...]


def write(net: IntegerNetwork, folder: Path, current: NDArray[np.int32]) -> None:
    """Write header, ``main.c``, the test vectors J and what must come out of them into ``folder``.

    current: int32 ``[T or 1, B, *shape of stage 0]``. Raises DeployError where a sum is not proved to fit int32.
    """
    program = (SOURCES / MAIN).read_bytes()
    origin = ORIGIN.format(digest(net), hashlib.sha256(program).hexdigest())
    (folder / HEADER).write_bytes(sealed((header(net) + origin).encode("ascii"), *SEAL))
    (folder / MAIN).write_bytes(program)
    (folder / CURRENT).write_text(vectors(current), encoding="ascii")
    (folder / EXPECTED).write_text(printed(net, reference.run(net, current)), encoding="ascii")


def header(net: IntegerNetwork) -> str:
    """The text of ``qbsnn_net.h``."""
    pooled = check(net)
    _prove_sums(net)
    stages = [_stage(net, k, pooled) for k in range(len(net.stages))]
    spike, width = _spike_type(net)
    neurons, sums = sum(stage["size"] for stage in stages), max([0, *(stage["size"] for stage in stages[1:])])
    spikes = neurons + sum(stage["pooled"] for stage in stages if stage["pool"])
    loader = jinja2.FileSystemLoader(SOURCES, encoding="ascii")
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["rows"] = _rows
    return environment.get_template(f"{HEADER}.j2").render(
        version=__version__,
        net=net,
        stages=stages,
        readout=_branch(net, "", net.readout.branch, net.readout.bias.shape, pooled),
        spike=spike,
        sums=sums,
        ram=4 * (neurons + sums + len(net.readout.bias) + 1) + width * spikes,
        flash=_constant_bytes(net),
    )


def vectors(current: NDArray[np.int32]) -> str:
    """J ``[T or 1, B, ...]`` as ``main.c`` reads it."""
    steps, samples = current.shape[:2]
    rows = current.swapaxes(0, 1).reshape(samples * steps, -1)
    return f"{samples} {steps}\n" + "".join(f"{_numbers(row)[1:]}\n" for row in rows)


def printed(net: IntegerNetwork, trace: Trace) -> str:
    """What ``main.c`` prints when it does what ``trace`` says."""
    lines = []
    for b, z in enumerate(trace.logits):
        for t in range(net.T):
            for stage, spikes, membranes in zip(net.stages, trace.spikes, trace.membranes, strict=True):
                lines.append(f"spikes {b} {t} {_word(stage.name)}:{_numbers(spikes[t, b])}")
                lines.append(f"membrane {b} {t} {_word(stage.name)}:{_numbers(membranes[t, b])}")
        lines += [f"logits {b}:{_numbers(z)}", f"class {b}: {z.argmax()}"]
        if trace.exits is not None:
            lines.append(f"exit {b}:{_numbers(trace.exits[:, b])}")
    return "\n".join([*lines, f"overflows: {trace.overflows}"]) + "\n"


def _stage(net: IntegerNetwork, k: int, pooled: Sequence[Shape]) -> dict[str, Any]:
    """What the template needs of a stage."""
    stage = net.stages[k]
    branches = enumerate(branch for branch in stage.branches if branch.kind != "input")
    fields = ("bias", "theta", "shape", "s_min", "s_max", "leak", "rounding", "reset")
    return {
        **{name: getattr(stage, name) for name in fields},
        "word": _word(stage.name),
        "size": prod(stage.shape),
        "positions": prod(stage.shape[1:]),
        "branches": [_branch(net, f"{k}_{j}", branch, stage.shape, pooled) for j, branch in branches],
        "pool": None if stage.pool is None else _pool(stage.pool, stage.shape, pooled[k]),
        "pooled": prod(pooled[k]),
    }


def _branch(net: IntegerNetwork, name: str, branch: IntBranch, shape: Shape, pooled: Sequence[Shape]) -> dict[str, Any]:
    source = pooled[branch.source]
    conv: tuple[int, ...] = ()
    if branch.kind == "conv":
        assert branch.weight is not None
        kernel = branch.weight.shape[2:]
        conv = (*source, *shape, branch.groups, *kernel, *branch.stride, *branch.padding)  # as in struct qb_conv
    return {
        "id": name,
        "kind": branch.kind,
        "weight": _outputs_last(branch, source),
        "scale": branch.scale,
        "conv": conv,
        "spikes": f"qbsnn_{'out' if net.stages[branch.source].pool else 's'}{branch.source}",
        "inputs": prod(source),
        "channels": shape[0],
        "positions": prod(shape[1:]),
    }


def _outputs_last(branch: IntBranch, source: Shape) -> NDArray[np.int8] | None:
    """The weights as ``c/ops.h`` reads them: outputs innermost, before them inputs as they lie in a map."""
    if branch.weight is None:
        return None
    outputs = len(branch.weight)
    if branch.kind == "linear":
        return branch.weight.reshape(outputs, source[0], -1).transpose(2, 1, 0)
    grouped = branch.weight.reshape(branch.groups, -1, *branch.weight.shape[1:])
    return grouped.transpose(3, 4, 0, 2, 1)  # [kernel rows, kernel columns, groups, I / groups, O / groups]


def _pool(pool: IntPool, shape: Shape, pooled: Shape) -> tuple[int, ...]:
    """The fields of ``struct qb_pool``."""
    return (*shape, *pooled[1:], *pool.kernel, *pool.stride, *pool.padding, int(pool.kind == "max"))


def _prove_sums(net: IntegerNetwork) -> None:
    """Raise DeployError unless every int32 sum and the readout's Z fit, whatever the spikes are."""
    largest = [output_range(net, k)[1] for k in range(len(net.stages))]
    for stage in net.stages:
        reach = sum((_reach(branch, largest) for branch in stage.branches), np.zeros(1, np.int64))
        _fits(f"stage {stage.name!r}: a step's sum", int(reach.max()))
    steps = _reach(net.readout.branch, largest) + np.abs(net.readout.bias.astype(np.int64))
    _fits("readout: the sum over all steps", int(steps.max()) * net.T)


def _reach(branch: IntBranch, largest: Sequence[int]) -> NDArray[np.int64]:
    """How far a branch can move each output in one step, ``[O]``; no partial sum exceeds it."""
    if branch.source == INPUT:
        return np.zeros(1, np.int64)
    factors = branch.weight if branch.scale is None else branch.scale
    assert factors is not None
    return np.abs(factors.astype(np.int64)).reshape(len(factors), -1).sum(1) * largest[branch.source]


def _fits(what: str, value: int) -> None:
    if value >= 2**31:
        raise DeployError(f"{what} can reach {value}, but the exported C adds up in int32, at most {2**31 - 1}")


def _spike_type(net: IntegerNetwork) -> tuple[str, int]:
    """The smallest type that holds all that leaves the stages, and its bytes."""
    high = max(output_range(net, k)[1] for k in range(len(net.stages)))
    low = -high if any(stage.s_min < 0 for stage in net.stages) else 0
    name = next(name for name, least, above in TYPES if least <= low and high < above)
    return name, np.dtype(name.removesuffix("_t")).itemsize


def _constant_bytes(net: IntegerNetwork) -> int:
    branches = [branch for stage in net.stages for branch in stage.branches] + [net.readout.branch]
    arrays = [array for branch in branches for array in (branch.weight, branch.scale) if array is not None]
    arrays += [array for stage in net.stages for array in (stage.bias, stage.theta)] + [net.readout.bias]
    return sum(array.nbytes for array in arrays)


def _rows(values: NDArray[Any]) -> str:
    """The initialiser of an array. -2147483648 is an expression of a wider type in C, converted back unchanged."""
    numbers = [str(value) for value in values.reshape(-1).tolist()]
    return ",\n    ".join(", ".join(numbers[i : i + 24]) for i in range(0, len(numbers), 24))


def _numbers(values: NDArray[Any]) -> str:
    return "".join(f" {value}" for value in values.reshape(-1).tolist())


def _word(name: str) -> str:
    """A stage's name as it may stand in a comment, a string and a line of output."""
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", name)
