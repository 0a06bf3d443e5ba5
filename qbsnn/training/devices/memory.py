"""``memory=auto``: what a training step keeps for the backward pass, beside the memory that is free."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qbsnn.models.execution import prepare
from qbsnn.models.network import SpikingNetwork

SHARE = 0.5
"""Of the free memory, that may be kept; gradients, the optimiser's state and what a step frees again take the rest."""

SAMPLES = (2, 4)
"""Of the batches that are measured: what does not grow from one to the other is no sample's."""

GIB = 2**30


def choose(kept: Mapping[str, float], free: float | None, last: str) -> tuple[str, str]:
    """The first of ``kept`` that fits, else ``last``, and the reason in one clause.

    Args:
        kept: value of ``memory`` -> bytes that a step keeps, in the order of preference.
        free: bytes, if known.
        last: what is taken if nothing fits.

    >>> choose({"none": 6 * GIB, "packed": 3 * GIB}, 8 * GIB, "checkpoint")
    ('packed', 'a training step keeps 6.0 GiB with none, 3.0 GiB with packed, and may keep 50% of 8.0 GiB')
    """
    if free is None:
        return next(iter(kept)), "how much memory is free is not known here"
    found = next((name for name, size in kept.items() if size <= SHARE * free), last)
    sizes = ", ".join(f"{size / GIB:.1f} GiB with {name}" for name, size in kept.items())
    return found, f"a training step keeps {sizes}, and may keep {SHARE:.0%} of {free / GIB:.1f} GiB"


def kept_bytes(
    network: SpikingNetwork,
    compile: str,
    memory: str,
    batch_size: int,
    cast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> float:
    """Bytes that a training step of ``batch_size`` samples keeps, logits included and parameters and buffers not.

    Passes forward through a copy. ``compile=neuron`` counts as ``none``, which keeps more. A network that is compiled
    has hooks or lies on several devices is none for this: give one as it was built.

    Args:
        network: on the device of training.
        compile, memory: as :func:`qbsnn.models.execution.prepare` takes them.
        batch_size: of this process.
        cast: gives the context of a forward pass, for mixed precision.
    """
    few, more = (_kept(network, compile, memory, samples, cast) for samples in SAMPLES)
    slope = (more - few) / (SAMPLES[1] - SAMPLES[0])
    return few + slope * (batch_size - SAMPLES[0])


def _kept(
    network: SpikingNetwork, compile: str, memory: str, samples: int, cast: Callable[[], AbstractContextManager[Any]]
) -> int:
    network = prepare(copy.deepcopy(network).train(), "none", memory)
    for _, stage in network.named_stages():
        stage.fused = stage.fused or compile == "block"
    like = next(network.parameters())
    frames = (network.T,) if network.encoder.coding == "events" else ()
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []), torch.enable_grad(), cast():
        pixels = torch.rand(samples, *frames, *network.in_shape, device=like.device, dtype=like.dtype)
        with _Allocations() as allocations:
            logits = network(pixels)
        known = {x.untyped_storage().data_ptr() for x in (pixels, *network.parameters(), *network.buffers())}
        kept = allocations.alive(known)
        del logits
    return kept


class _Allocations(TorchDispatchMode):
    """Remembers the memory of every tensor that an operator gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, tuple[StorageWeakRef, int, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator."""
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                ref = StorageWeakRef(x.untyped_storage())
                self.seen[ref.cdata] = (ref, x.untyped_storage().data_ptr(), x.untyped_storage().nbytes())
        return out

    def alive(self, known: set[int]) -> int:
        """Bytes that still live, those at the addresses ``known`` aside."""
        return sum(size for ref, place, size in self.seen.values() if not ref.expired() and place not in known)


def free_bytes(device: torch.device) -> int | None:
    """Memory that may still be taken: of a card, or of this machine within the limits of its control groups."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return _free_on_cpu(Path("/")) if device.type == "cpu" else None


def _free_on_cpu(root: Path) -> int | None:
    """The least of what Linux has available and what each control group of this process leaves; ``None`` elsewhere."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for line in groups:
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            folder = root / "sys/fs/cgroup" / kinds
            below = folder / path.lstrip("/")
            free += [
                left
                for group in (below, *below.parents)
                if group.is_relative_to(folder)
                if (left := _left(group)) is not None
            ]
    return max(min(free), 0) if free else None


def _left(group: Path) -> int | None:
    """What the limit of a control group leaves, its file cache counted as free; ``None`` without a limit."""
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, now = int((group / limit).read_text()), int((group / used).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            return most - now + int(stat.get(cache, 0))
        except (OSError, ValueError):  # absent, or "max"
            continue
    return None
