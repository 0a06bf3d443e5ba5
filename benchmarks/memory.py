"""Memory of one training step: the peak of the process over the step, and what the forward pass keeps for the backward.

Each contender is measured in a process of its own, after a step that does not count. glibc is told to map every tensor
by itself and to give it back when it is freed, the same for all: the resident size then follows the live tensors, with
neither memory that a heap keeps for later nor its fragmentation, so that the peak is what a step needs at least. The
resting size before the step holds the network and the optimiser's state, and is taken off. On a GPU torch's own
counters are read. ``python -m benchmarks.memory CONTENDER PROBLEM PRECISION`` prints the bytes as JSON, for
:func:`measure`.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import torch

from benchmarks.contenders import Problem, Training
from benchmarks.harness import UNAVAILABLE, Unavailable, child, device

MIB = 2**20
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_M_MMAP_THRESHOLD = -3  # glibc's malloc.h


class _MallocInfo(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_: ClassVar = [(name, ctypes.c_size_t) for name in _names]


def live_bytes() -> int:
    """Bytes in live allocations: of the C heap, or of the GPU. Raises Unavailable without glibc 2.33 or newer."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        raise Unavailable(f"needs the heap statistics of glibc 2.33, which {platform.system()} does not have here")
    libc.mallinfo2.restype = _MallocInfo
    info = libc.mallinfo2()
    return info.uordblks + info.hblkhd


def saved_bytes(training: Training) -> int:
    """Bytes alive after a forward pass, its graph included, beyond those alive before."""
    training.rest()
    before = live_bytes()
    loss = training.forward()
    after = live_bytes()
    del loss
    return after - before


def map_every_tensor() -> None:
    """Let glibc map blocks of 128 KiB and more, and unmap them when they are freed; other libraries are left alone."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 128 * 1024)


def peak_bytes(training: Training) -> int:
    """Largest size over one step above the resting size. Raises Unavailable without Linux's /proc or a GPU."""
    training.rest()
    resting = live_bytes()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        training.step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - resting
    if not _CLEAR.exists():
        raise Unavailable("needs Linux's /proc to read the peak resident size")
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text("5", encoding="ascii")  # sets the peak to the present size
    resting = _status("VmRSS")
    training.step()
    return _status("VmHWM") - resting


def _status(key: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise Unavailable(f"/proc/self/status has no {key}")


def measure(contender: str, problem: Problem, precision: str = "fp32") -> dict[str, int]:
    """``{"peak": bytes, "saved": bytes}`` of a contender, in a new process. Raises Unavailable with its reason."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    arguments = [contender, json.dumps(asdict(problem)), precision]
    return child("benchmarks.memory", arguments, environment, f"measuring the memory of {contender}")


def main(contender: str, problem: str, precision: str) -> int:
    """Measure in this process and print."""
    map_every_tensor()
    fields = json.loads(problem)
    try:
        training = Training(
            contender, Problem(**{**fields, "in_shape": tuple(fields["in_shape"])}), device(), precision
        )
        training.step()
        print(json.dumps({"saved": saved_bytes(training), "peak": peak_bytes(training)}))
    except (Unavailable, torch.OutOfMemoryError) as why:
        print(str(why).partition("\n")[0])
        return UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
