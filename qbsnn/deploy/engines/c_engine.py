"""The exported C as an engine: compiled here, run on the current J, and its output read back."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.engines.c_source import HEADER, MAIN, ORIGIN, SEAL, vectors
from qbsnn.deploy.format.network import IntegerNetwork, Trace
from qbsnn.deploy.format.seal import digest, opened
from qbsnn.errors import DeployError

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
VECTORISED = ("-O3", "-march=native", "-funroll-loops", "-DQBSNN_MULTIPLY")
"""Flags with which the loops over channels become vector instructions; other flags give the same numbers."""
SECONDS = 600
"""How long a compilation or a run may take."""


def compiler() -> list[str]:
    """The command of a C compiler: ``CC``, or the first of cc, gcc and clang. Raises DeployError without one."""
    wanted = os.environ.get("CC", "").split()
    for command in [wanted] if wanted else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    raise DeployError(f"no C compiler: {wanted[0] if wanted else 'cc, gcc, clang'} not found; install one or set CC")


def run(folder: Path, net: IntegerNetwork, current: NDArray[np.int32], flags: Sequence[str] = ("-O2",)) -> Trace:
    """Compile what ``c_source.write`` put into ``folder``, with ``FLAGS`` and ``flags``, and run it on J.

    current: int32 ``[T or 1, B, *shape of stage 0]``. net: of which the folder is. Raises DeployError when there is no
    C compiler, when it or the program fails, or when the folder is damaged or of another network.
    """
    _check_origin(folder, net)
    with tempfile.TemporaryDirectory() as build:
        program = str(Path(build) / "qbsnn")
        execute([*compiler(), *FLAGS, *flags, str(folder / MAIN), "-o", program])
        # 1 says that a membrane overflowed under the policy "error"; the number is in the output
        return _parse(net, current.shape[1], execute([program], vectors(current), allowed=(0, 1)))


def _check_origin(folder: Path, net: IntegerNetwork) -> None:
    """Raise a DeployError where a header is damaged or of another network, or ``main.c`` is not the one beside it."""
    found = re.search(ORIGIN.format("(.{64})", "(.{64})").replace("*", r"\*"), opened(folder / HEADER, *SEAL).decode())
    if found is None:  # an earlier header, which does not say
        return
    if found[1] != digest(net):
        raise DeployError(f"{folder / HEADER} is that of another network")
    try:
        program = (folder / MAIN).read_bytes()
    except OSError as error:
        raise DeployError(f"{folder / MAIN} cannot be read: {error.strerror}") from error
    if hashlib.sha256(program).hexdigest() != found[2]:
        raise DeployError(f"{folder / MAIN} is not the one that was written with {folder / HEADER}")


def execute(command: list[str], text: str = "", allowed: Sequence[int] = (0,)) -> str:
    """What a command prints for ``text`` as its input. Raises DeployError for other exit codes and for any message."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeployError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode not in allowed or done.stderr:
        raise DeployError(f"{command[0]} ended with code {done.returncode}: {done.stderr.strip()[:2000]}")
    return done.stdout


def _parse(net: IntegerNetwork, samples: int, text: str) -> Trace:
    """The trace that ``main.c`` printed: per sample, step and stage a line of spikes and one of membranes, then Z."""
    lines = [np.array(line.rpartition(":")[2].split(), np.int64) for line in text.splitlines()]
    stages = len(net.stages)
    leaves = net.exit_margin is not None
    per_sample = 2 * stages * net.T + 2 + leaves
    if len(lines) != samples * per_sample + 1:
        raise DeployError(f"the compiled network printed {len(lines)} lines, expected {samples * per_sample + 1}")

    def tap(k: int, offset: int) -> NDArray[np.int64]:
        rows = [lines[b * per_sample + 2 * (t * stages + k) + offset] for t in range(net.T) for b in range(samples)]
        return np.array(rows).reshape(net.T, samples, *net.stages[k].shape)

    spikes: list[NDArray[np.integer]] = [tap(k, 0) for k in range(stages)]
    membranes: list[NDArray[np.integer]] = [tap(k, 1) for k in range(stages)]
    ends = [lines[(b + 1) * per_sample - 2 - leaves : (b + 1) * per_sample] for b in range(samples)]
    exits = np.array([end[2] for end in ends]).T if leaves else None
    return Trace(spikes, membranes, np.array([end[0] for end in ends]), int(lines[-1][0]), exits=exits)
