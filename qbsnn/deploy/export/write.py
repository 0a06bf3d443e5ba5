"""Exports with proof: written beside the target, read back, compared with the numpy engine, and only then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.deploy.engines import c_engine, c_source, onnx_graph, reference
from qbsnn.deploy.engines.onnx_engine import OnnxEngine
from qbsnn.deploy.export import bundle, bundle_reader, nir_graph, nir_reader
from qbsnn.deploy.format.bounds import bounds
from qbsnn.deploy.format.network import IntegerNetwork, Trace
from qbsnn.deploy.verify.traces import compare, flip_weight, identical
from qbsnn.errors import ArgumentError, DeployError, VerificationError

ABANDONED = 3600.0  # seconds after which what an export was writing is of a process that was killed


@dataclass(frozen=True)
class Job:
    """What is exported, and the encoded test images ``[T or 1, B, C, H, W]`` that prove it.

    name: what the network is called; classes: the names of its classes; allow_metadata_only: see ``nir_graph.write``.
    """

    quantized: Quantized
    encoded: Tensor
    name: str
    classes: Sequence[str]
    allow_metadata_only: bool = False

    @property
    def net(self) -> IntegerNetwork:
        """The integer network."""
        return self.quantized.net


class Proof(NamedTuple):
    """What was compared: images, values (spikes, membranes, logits), sum of bursts, layers without any, a remark."""

    images: int
    values: int
    spikes: int
    silent: list[str]
    remark: str


class Format(NamedTuple):
    """How a format is written to a path, and how a file or folder of it is run on J; the latter returns a remark too.

    The trace may lack membranes, and then lacks exits too, where the format has none.
    """

    suffix: str
    folder: bool
    write: Callable[[Job, NDArray[np.int32], Path], None]
    run: Callable[[Job, NDArray[np.int32], Path], tuple[Trace, str]]


def export(job: Job, kind: str, out: Path) -> Proof:
    """Write ``job`` in the format ``kind`` (a key of ``FORMATS``) to ``out``, which must not exist.

    Raises:
        ArgumentError: there are no images, or more or fewer class names than classes.
        DeployError: the network has no such form, a package or compiler is missing, or ``out`` cannot be written.
        VerificationError: what was read back does not do the same. Nothing is left behind in either case.
    """
    form = FORMATS[kind]
    if not job.encoded.numel():
        raise ArgumentError(f"encoded must be images [T or 1, B, C, H, W], got {list(job.encoded.shape)}")
    if len(job.classes) != len(job.net.readout.bias):
        raise ArgumentError(f"classes must be the names of {len(job.net.readout.bias)} classes, got {len(job.classes)}")
    if os.path.lexists(out):
        raise DeployError(f"{out} exists already; name another path or remove it")
    current = job.quantized.current_of(job.encoded)
    fresh = [folder for folder in out.parents if not os.path.lexists(folder)]
    part = out.with_name(f".{secrets.token_hex(8)}.export")  # a process number would be that of other threads too
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.glob(f".{16 * '?'}.export"):
            with suppress(FileNotFoundError):  # another export was done with it meanwhile
                if time.time() - left.stat().st_mtime > ABANDONED:
                    _remove(left)
        if form.folder:
            part.mkdir()
        form.write(job, current, part)
        proof = _prove(job, current, *form.run(job, current, part))
        if os.path.lexists(out):  # meanwhile
            raise FileExistsError("it exists already")
        part.rename(out)
    except OSError as error:
        raise DeployError(f"{out} cannot be written: {error}") from error
    finally:
        _remove(part)
        for folder in fresh:  # those that hold nothing
            with suppress(OSError):
                folder.rmdir()
    return proof


def _remove(part: Path) -> None:
    shutil.rmtree(part, ignore_errors=True)
    with suppress(OSError):
        part.unlink()


def _prove(job: Job, current: NDArray[np.int32], found: Trace, remark: str) -> Proof:
    """Compare with the numpy engine, and make sure that the comparison would notice a weight that is one unit off."""
    expected = reference.run(job.net, current)
    if not found.membranes:
        expected = replace(expected, membranes=[], exits=None)
    mismatches = compare(found, expected)
    values = sum(array.size for array in (*expected.spikes, *expected.membranes, expected.logits))
    if mismatches:
        raise VerificationError(f"the export differs from the numpy engine in {mismatches} of {values} values")
    if expected.overflows and job.net.overflow == "error":
        raise VerificationError(f"{expected.overflows} values left their register, first {expected.first_overflow}")
    # Without membranes a unit may well show nowhere; such a format is compared array by array instead.
    if found.membranes and compare(found, reference.run(flip_weight(job.net, expected), current)) == 0:
        raise VerificationError(f"{current.shape[1]} images do not show a weight that is one unit off; use more images")
    silent = [stage.name for stage, s in zip(job.net.stages, expected.spikes, strict=True) if not s.any()]
    return Proof(current.shape[1], values, sum(int(np.abs(s).sum()) for s in expected.spikes), silent, remark)


def _same_network(job: Job, found: IntegerNetwork) -> None:
    if not identical(found, job.net):
        raise VerificationError("the network that was read back is not the one that was written")


def _write_onnx(job: Job, current: NDArray[np.int32], path: Path) -> None:
    onnx_graph.export(job.net, path, static=current.shape[0] == 1)


def _run_onnx(job: Job, current: NDArray[np.int32], path: Path) -> tuple[Trace, str]:
    return OnnxEngine(job.net, static=current.shape[0] == 1, model=path).run(current), "run in onnxruntime"


def _write_bundle(job: Job, current: NDArray[np.int32], path: Path) -> None:
    bundle.write(job.quantized, path, job.name, job.classes)


def _run_bundle(job: Job, current: NDArray[np.int32], path: Path) -> tuple[Trace, str]:
    _same_network(job, bundle.read(path))
    reader = bundle_reader.read(path)
    own = reader.current_of(job.encoded.cpu().numpy()).astype(np.int64)
    difference = np.abs(own - current)
    if difference.max() > 1:
        raise VerificationError(f"the reader's input current differs by {difference.max()}, at most 1 is rounding")
    remark = f"{np.count_nonzero(difference)} of {difference.size} input currents differ by one unit of rounding"
    found = reader.run(current)
    trace = Trace(list(found.spikes), list(found.membranes), found.logits, found.overflows, exits=found.exits)
    return trace, f"run in numpy; {remark}"


def _write_nir(job: Job, current: NDArray[np.int32], path: Path) -> None:
    nir_graph.write(job.net, bounds(job.net, job.quantized.current_bounds), path, job.allow_metadata_only)


def _run_nir(job: Job, current: NDArray[np.int32], path: Path) -> tuple[Trace, str]:
    net = nir_reader.read(path)
    _same_network(job, net)
    if nir_graph.misreadings(net, bounds(job.net, job.quantized.current_bounds)):
        return reference.run(net, current), "read by its metadata, which plain NIR readers ignore"
    steps = np.broadcast_to(current, (net.T, *current.shape[1:])).copy()
    spikes, logits = nir_reader.run_plain(path, steps, nir_graph.DT)
    return Trace(list(spikes), [], logits), "run by NIR's own equations, metadata ignored"


def _write_c(job: Job, current: NDArray[np.int32], path: Path) -> None:
    c_source.write(job.net, path, current)


def _run_c(job: Job, current: NDArray[np.int32], path: Path) -> tuple[Trace, str]:
    return c_engine.run(path, job.net, current), f"compiled with {' '.join(c_engine.compiler())}"


FORMATS = {
    "onnx": Format(".onnx", False, _write_onnx, _run_onnx),
    "bundle": Format("", True, _write_bundle, _run_bundle),
    "nir": Format(".nir", False, _write_nir, _run_nir),
    "c": Format("", True, _write_c, _run_c),
}
