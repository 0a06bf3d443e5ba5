"""``compile=auto`` and ``memory=auto``: decided at the start of the fit, when the number of samples is known."""

from __future__ import annotations

import copy
import logging
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from qbsnn.models import execution
from qbsnn.models.network import SpikingNetwork
from qbsnn.training.devices import machine, memory
from qbsnn.training.module import Classifier

log = logging.getLogger(__name__)

AUTO = "auto"


class Execution(Callback):
    """Sets how the network runs, and says what it decided; a fit that goes on runs as it began.

    The first of several processes decides for all.

    Args:
        compile, memory: as :func:`qbsnn.models.execution.prepare` takes them, or ``auto``.
        network: as it was built, without hooks; copied if its memory is to be measured.
        recomputes: whether ``memory=checkpoint`` may be chosen.

    Attributes:
        compile, memory: what was decided, or still ``auto``.
    """

    def __init__(self, compile: str, memory: str, network: SpikingNetwork, recomputes: bool = True) -> None:
        self.compile, self.memory, self.recomputes = compile, memory, recomputes
        self.sample = copy.deepcopy(network) if memory == AUTO else None
        execution.prepare(network, *("none" if value == AUTO else value for value in (compile, memory)))

    def __str__(self) -> str:
        """As ``result.json`` keeps it."""
        return f"compile={self.compile}, memory={self.memory}"

    def state_dict(self) -> dict[str, Any]:
        """What was decided."""
        return {"compile": self.compile, "memory": self.memory}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Decide nothing anew: rounding is another in another choice."""
        self.compile = state_dict["compile"] if self.compile == AUTO else self.compile
        self.memory = state_dict["memory"] if self.memory == AUTO else self.memory

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Decide."""
        assert isinstance(pl_module, Classifier)
        if trainer.is_global_zero:
            self._choose_compile(trainer, pl_module)
            self._choose_memory(trainer, pl_module)
        self.compile, self.memory = trainer.strategy.broadcast((self.compile, self.memory))
        self.sample = None
        execution.prepare(pl_module.network, self.compile, self.memory)

    def _choose_compile(self, trainer: lightning.Trainer, module: Classifier) -> None:
        if self.compile != AUTO:
            return
        # All epochs, not those that are left: a fit that goes on after a stop must decide as one without.
        epochs = float("inf") if trainer.max_epochs in (None, -1) else trainer.max_epochs
        batches = epochs * trainer.num_training_batches
        self.compile, why = execution.choose(module.network, batches, share(trainer), module.device, machine.costs)
        log.info("compile=auto chose %s: %s", self.compile, why)

    def _choose_memory(self, trainer: lightning.Trainer, module: Classifier) -> None:
        if self.memory != AUTO:
            return
        if self.compile == "model":
            self.memory, why = "none", "compile=model decides by itself what is kept"
        else:
            assert self.sample is not None
            kept = {
                name: memory.kept_bytes(
                    self.sample.to(next(module.network.parameters())),  # its device and its type
                    self.compile,
                    name,
                    share(trainer),
                    trainer.precision_plugin.forward_context,
                )
                for name in ("none", "packed")
            }
            free = memory.free_bytes(module.device)
            if free is not None and module.device.type == "cpu":
                free //= trainer.num_devices
            self.memory, why = memory.choose(kept, free, "checkpoint" if self.recomputes else "packed")
        log.info("memory=auto chose %s: %s", self.memory, why)


def share(trainer: lightning.Trainer) -> int:
    """Samples of a batch that one process takes."""
    batch_size = getattr(trainer.datamodule, "batch_size", None) or 1  # type: ignore[attr-defined]
    return max(batch_size // trainer.world_size, 1)
