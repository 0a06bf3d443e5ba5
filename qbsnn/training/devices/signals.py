"""Signals that end a run, or ask it to save: what came is kept until a moment at which the run can answer.

SIGTERM ends a run with exit code 143. A training step is finished and saved first; a second SIGTERM, or one outside
training, ends it at once. SIGUSR1, which schedulers send as a warning, has the state saved and training go on.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

CODE = 128 + signal.SIGTERM


class Signals:
    """What has come. ``deferring``: whether a step is under way that must be finished first."""

    def __init__(self) -> None:
        self.stop, self.save, self.deferring = False, False, False

    def _terminate(self, number: int, frame: Any) -> None:
        if self.stop or not self.deferring:
            self.stop = True
            raise SystemExit(CODE)
        self.stop = True

    def _warn(self, number: int, frame: Any) -> None:
        self.save = True

    def install(self) -> dict[int, Any]:
        """Take over the signals, in the main thread; returns the handlers that were there."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        mine = {signal.SIGTERM: self._terminate, signal.SIGUSR1: self._warn}
        return {int(number): signal.signal(number, handler) for number, handler in mine.items()}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer signals while the body runs."""
        self.stop, self.save, self.deferring = False, False, False
        before = self.install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


SIGNALS = Signals()
"""Of this process: signals reach a process, not an object."""
LOOK_SECONDS = 0.5
"""Between two looks at whether the parent still runs."""
PATIENCE_SECONDS = 10.0
"""From SIGTERM to SIGKILL."""


@cache  # a process that does many jobs is watched once
def end_with(parent: int) -> None:
    """End this process when its parent has ended: by SIGTERM, and by SIGKILL where that does not help in time.

    parent: process id of the parent, as it was when this process was asked for.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end with the parent", daemon=True).start()
