"""What compiling saves and takes on this machine: measured where ``compile=auto`` asks, then kept."""

from __future__ import annotations

import json
import logging
import math
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from qbsnn.kernels.compiled import compiler
from qbsnn.layers.norm import BatchNorm2d
from qbsnn.models.execution import Costs
from qbsnn.neurons import QBLIF
from qbsnn.results.files import cache_folder, write_atomically
from qbsnn.training.devices.host import cpu_name

log = logging.getLogger(__name__)

FILE = "machine.json"
SHAPE = (4, 32, 16, 32, 32)
"""[T, B, C, H, W] of the stage that is timed: 2^21 neuron-steps, more than a cache holds."""

SAVED = 0.5
"""Of the time of an eager stage, that a compiled one saves: 0.49 to 0.52 of norm and QB-LIF at T = 4 on AVX2. With
AVX-512 it is 0.74 of the neuron (docs/benchmarks.md), so compiling pays there where this says that it does."""

KERNEL = 11.0
"""Seconds to compile a kernel ÷ seconds to compile ``SOURCE``: six kernels of a VGG-5, torch's compiler imported for
them, took 10.4 s of processor time each beside 0.94 s for ``SOURCE``, and 23.7 s beside 2.1 s by the clock of a busy
machine (AVX2, one thread, torch 2.13, g++ 12.2)."""

SOURCE = """
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>
extern "C" void kernel(const float *x, float *y, long n) {
    for (long i = 0; i < n; ++i) y[i] = std::exp(-std::abs(x[i])) + std::max(x[i], 0.0f);
}
"""


def costs() -> Costs:
    """What is known of this machine, or measured and kept. A cache that cannot be read or written is none."""
    key = f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {_version()}"
    known = _read()
    if (found := _costs(known.get(key))) is not None:
        return found
    found = Costs(eager_seconds(), kernel_seconds())
    if all(map(math.isfinite, found)):
        _write({**known, key: found._asdict()})
    return found


def eager_seconds() -> float:
    """What an eager stage takes longer than a compiled one, per neuron-step of a forward and a backward pass.

    The compiled stage is not run, its cost is a share (``SAVED``) of the eager one's.
    """
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(SHAPE, generator=generator, dtype=torch.float32).requires_grad_()
    grad = torch.randn(SHAPE, generator=generator, dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        norm, neuron = BatchNorm2d(SHAPE[2]).float(), QBLIF().float()

    def stage() -> None:
        with torch.enable_grad():
            neuron(norm(y.flatten(0, 1)).unflatten(0, SHAPE[:2])).backward(grad)

    return SAVED * _median(stage) / y.numel()


def kernel_seconds() -> float:
    """What compiling a kernel takes, judged by a small source; infinite where that does not compile."""
    with tempfile.TemporaryDirectory(prefix="qbsnn-") as folder:
        source = Path(folder) / "kernel.cpp"
        source.write_text(SOURCE, encoding="ascii")
        command = [str(compiler()), "-O3", "-std=c++17", "-fPIC", "-shared", "-o", f"{folder}/kernel.so", str(source)]
        started = time.perf_counter()
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return math.inf
        return KERNEL * (time.perf_counter() - started)


def _median(work: Callable[[], None], times: int = 5) -> float:
    """Seconds, the first and slow time aside."""
    taken = []
    for _ in range(times + 1):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def _version() -> str:
    """Of the compiler."""
    command = [str(compiler()), "--version"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return command[0]
    return f"{command[0]}, {done.stdout.partition(chr(10))[0]}"


def _read() -> dict[str, Any]:
    try:
        known = json.loads((cache_folder() / FILE).read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _costs(entry: Any) -> Costs | None:
    """What the cache says, if it says two numbers that can be."""
    try:
        found = Costs(float(entry["eager"]), float(entry["kernel"]))
    except (KeyError, TypeError, ValueError):
        return None
    return found if math.isfinite(sum(found)) and min(found) >= 0 else None


def _write(known: dict[str, Any]) -> None:
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, json.dumps(known, indent=1).encode())
    except (OSError, RuntimeError, ValueError) as error:
        log.debug("%s is not kept: %s", FILE, error)
