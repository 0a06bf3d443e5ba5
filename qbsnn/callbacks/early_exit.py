"""Early exit: how many time steps a decision needs, and what that saves."""

from __future__ import annotations

import logging
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from qbsnn import checks
from qbsnn.energy.spending import StepSpending, Synapses
from qbsnn.errors import DeployError
from qbsnn.functional.early_exit import choose_margin, leave, means, running_sum
from qbsnn.layers.stage import INPUT
from qbsnn.results.exit_schema import EarlyExit as Block
from qbsnn.training.deployment import Listener
from qbsnn.training.module import Classifier

log = logging.getLogger(__name__)

SCORES = {"mean": means, "sum": running_sum}
"""What is compared after every step."""


class EarlyExit(Listener):
    """Chooses the margin of :mod:`qbsnn.functional.early_exit` on validation samples, then counts on test samples.

    Args:
        loss: accuracy that may be given up on the validation samples, as a share.
        score: ``mean`` of the logits so far, or their ``sum``, as in the integer network. A constant bound on a sum is
            the one of Wald's sequential test: the longer a sample stays, the smaller a mean is enough.

    Raises:
        ArgumentError: ``loss`` is no number from 0 to 1, or ``score`` something else.
    """

    block = "early_exit"

    def __init__(self, loss: float = 0.002, score: str = "mean") -> None:
        self.loss = checks.number("loss", loss, 0, 1)
        self._scores = SCORES[checks.choice("score", score, SCORES)]
        self._found: Block | str = "nothing was tested"
        self._handles: list[RemovableHandle] = []
        self._synapses: Synapses | None = None
        self._spending: StepSpending | None = None
        self._logits: Tensor | None = None

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Choose the margin, before anything listens to the network."""
        assert isinstance(pl_module, Classifier)
        network, data = pl_module.network, trainer.datamodule  # type: ignore[attr-defined]
        if network.decision != "mean":
            self._skip(f"the decision is the {network.decision} over time; steps can only be left out of a mean")
            return
        data.setup("fit")
        logits, labels = [], []
        with torch.no_grad():
            for pixels, classes in data.val_dataloader():
                logits.append(network(pixels.to(next(network.parameters()))).float())
                labels.append(classes.to(pl_module.device))
        margin = choose_margin(self._scores(torch.cat(logits, 1)), torch.cat(labels), self.loss)
        self._found = Block(margin=margin, loss=self.loss, steps=[0] * network.T)

    def on_test_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen to the encoder, every stage and the logits."""
        assert isinstance(pl_module, Classifier)
        network = pl_module.network
        if isinstance(self._found, str):
            return
        try:
            self._synapses = Synapses(network)
        except DeployError as error:
            self._skip(str(error))
            return
        parts = {INPUT: network.encoder, **dict(network.named_stages())}
        self._handles = [
            part.register_forward_hook(lambda _, __, output, name=name: self._hear(name, output))
            for name, part in parts.items()
        ]
        self._handles.append(network.register_forward_hook(self._keep))

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin to count anew."""
        if self._synapses is not None:
            self._spending = StepSpending(self._synapses)

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count when the samples of a batch leave."""
        found, labels, logits, spending = self._found, batch[1], self._logits, self._spending
        if isinstance(found, str) or logits is None or spending is None:
            return
        scores = self._scores(logits)
        steps, classes = leave(scores, found.margin)
        found.add(steps.tolist(), (classes == labels).tolist(), (scores[-1].argmax(1) == labels).tolist())
        if spending.steps is not None:
            spent = running_sum(spending.steps)
            last = steps.clamp(max=len(spent)) - 1
            found.acs += int(spent.gather(0, last[None]).sum().round())
            found.acs_whole += int(spent[-1].sum().round())

    def found(self, name: str) -> Block | dict[str, str]:
        """What was counted; where there is nothing to leave out, the reason."""
        if isinstance(self._found, str):
            return {"checkpoint": name, "skipped": self._found}
        self._found.checkpoint = name
        return self._found

    def _skip(self, why: str) -> None:
        self._found = why
        log.info("early exit: skipped, %s", why)

    def _hear(self, name: str, output: Tensor) -> None:
        if self._spending is not None:
            self._spending(name, output.detach())

    def _keep(self, network: Any, inputs: Any, logits: Tensor) -> None:
        self._logits = logits.detach().float()
