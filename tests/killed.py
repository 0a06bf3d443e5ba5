"""Runs a tool in a process that kills itself: ``python -m tests.killed step|write N train.py ARGUMENTS``.

``step``: before the N-th training step of the process. ``write``: in the middle of writing its N-th checkpoint, when
part of the file is on disk. SIGKILL leaves no moment for cleaning up.
"""

import os
import runpy
import signal
import sys

from qbsnn.training import checkpoints
from qbsnn.training.module import Classifier
from tests.tool import ROOT


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(kind: str, count: int, script: str) -> None:
    left = [count]
    owner, name = {
        "step": (Classifier, "training_step"),
        "write": (checkpoints.AtomicCheckpointIO, "save_checkpoint"),
    }[kind]
    honest = getattr(owner, name)

    def write_a_part(self, data):
        self.file.write(bytes(data)[: len(data) // 2 + 1])
        self.file.flush()
        die()

    def counted(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            if kind == "step":
                die()
            checkpoints._HashingWriter.write = write_a_part
        return honest(*args, **kwargs)

    setattr(owner, name, counted)
    runpy.run_path(str(ROOT / script), run_name="__main__")


if __name__ == "__main__":
    kind, count, script, *arguments = sys.argv[1:]
    sys.argv = [script, *arguments]
    main(kind, int(count), script)
