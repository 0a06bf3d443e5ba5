"""A callback of :mod:`benchmarks.startup`."""

import os
from typing import Any

from lightning.pytorch.callbacks import Callback


class EndAtFirstStep(Callback):
    """Ends the process when the first training step is done, without saving anything."""

    def on_train_batch_end(self, *args: Any) -> None:
        """Leave no time for what follows a step."""
        os._exit(0)
