"""Runs of ``train.py`` in forked processes: importing the libraries anew takes ten seconds, and a run less than three.

The process that forks must have computed nothing yet with more than one thread.
"""

import faulthandler
import functools
import os
import runpy
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop

from qbsnn.training import run as story
from qbsnn.training.checkpoints import AtomicCheckpointIO
from qbsnn.training.module import Classifier
from tests.tool import ROOT

PHASES = {"t": "training", "v": "validation", "w": "checkpoint write", "c": "checks after training"}
REST = "-"  # before training, and after the checks


def begin(folder: Path, words: Sequence[str], prepare: Callable[[], Any] = lambda: None) -> int:
    """Start ``train.py`` in a folder; what it shows goes to ``out.txt`` and ``err.txt`` beside the folder."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(shown(folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        faulthandler.enable()
        prepare()
        sys.argv = ["train.py", *words]
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def shown(folder: Path, name: str) -> Path:
    """Where a run in a folder shows what it prints, ``out`` or ``err``."""
    return folder.with_name(f"{folder.name}.{name}.txt")


def remove(folder: Path) -> None:
    """Remove a run's folder and what :func:`shown` names beside it."""
    shutil.rmtree(folder)
    for path in folder.parent.glob(f"{folder.name}.*"):
        path.unlink()


def ended(pid: int, seconds: float) -> int | None:
    """The exit code of a process, negative for a signal; ``None`` if it runs on after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.01)


def stop(pid: int, seconds: float = 0.0) -> int:
    """End a process and all that it started, asked for it at first if it is given some seconds."""
    if seconds:
        os.kill(pid, signal.SIGTERM)
    code = ended(pid, seconds)
    if code is None:
        os.kill(pid, signal.SIGABRT)  # has the stacks of a process that hangs shown
        time.sleep(1)
        os.killpg(pid, signal.SIGKILL)
        code = ended(pid, 60)
    assert code is not None
    return code


class Watched:
    """One or two processes of a run that tell what they are doing and note the loss of every step.

    Args:
        folder: where it runs; losses go to ``losses.txt`` beside it.
        words: the command line.
        world: the number of processes; two are started as torchrun starts them.
    """

    def __init__(self, folder: Path, words: Sequence[str], world: int = 1) -> None:
        port = _free_port() if world > 1 else 0
        self.pids, self.pipes, self.seen = [], [], [REST] * world
        for rank in range(world):
            read, write = os.pipe()
            losses = folder.with_name(f"{folder.name}.losses.txt")
            prepare = functools.partial(_prepare, read, write, losses, rank, world, port)
            self.pids.append(begin(folder, words, prepare))
            self.pipes.append(read)
            os.close(write)

    def next(self, rank: int) -> str:
        """Wait for the next change of phase; empty at the end of the process."""
        letter = os.read(self.pipes[rank], 1).decode()
        self.seen[rank] = letter or self.seen[rank]
        return letter

    def timeline(self, rank: int) -> list[tuple[str, float]]:
        """Phases with their seconds, until the process ends."""
        found, last, began = [], REST, time.monotonic()
        while True:
            letter = self.next(rank)
            now = time.monotonic()
            found.append((last, now - began))
            last, began = letter, now
            if not letter:
                return found

    def close(self, seconds: float) -> list[int]:
        """Exit codes; processes that run on are ended."""
        codes = [ended(pid, seconds) for pid in self.pids]
        codes = [stop(pid) if code is None else code for pid, code in zip(self.pids, codes, strict=True)]
        for pipe in self.pipes:
            os.close(pipe)
        return codes


def _prepare(read: int, write: int, losses: Path, rank: int, world: int, port: int) -> None:
    os.close(read)
    os.set_inheritable(write, False)
    if world > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "reliability",
        }  # fmt: skip
    stack: list[str] = [REST]

    def around(owner: Any, name: str, letter: Callable[[Any], str]) -> None:
        honest = getattr(owner, name)

        @functools.wraps(honest)
        def call(*args: Any, **options: Any) -> Any:
            stack.append(letter(args[0]))
            os.write(write, stack[-1].encode())
            try:
                return honest(*args, **options)
            finally:
                stack.pop()
                os.write(write, stack[-1].encode())

        setattr(owner, name, call)

    around(Trainer, "fit", lambda trainer: "t")
    around(_EvaluationLoop, "run", lambda loop: "v" if loop.trainer.state.fn == "fit" else stack[-1])
    around(AtomicCheckpointIO, "save_checkpoint", lambda io: "w")
    around(story, "measure_last_and_best", lambda parts: "c")
    honest, file = Classifier.training_step, os.open(losses, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def step(self: Classifier, batch: Any, batch_idx: int) -> Any:
        loss = honest(self, batch, batch_idx)
        os.write(file, f"{rank} {self.trainer.global_step} {float(loss.detach()).hex()}\n".encode())
        return loss

    Classifier.training_step = step  # type: ignore[method-assign]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
