"""Guards of training: Δ kept in bounds, gradients watched; a run stopped where it diverges, or gains nothing more."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from qbsnn import checks
from qbsnn.errors import ArgumentError, DivergenceError
from qbsnn.functional.parameters import log_ratio_penalty
from qbsnn.layers.stage import Stage
from qbsnn.models.network import SpikingNetwork
from qbsnn.training.module import Classifier

GPU_INTERVAL = 25  # steps between two looks at values that a graphics card would have to be waited for


class DeltaGuard(Callback):
    """Regularises the learned scales and keeps them in bounds.

    penalty: weight of the sum over layers of the mean of ln(Δ/Δ_0)², Δ_0 the scale before the first optimiser step,
    whose gradient is added before each optimiser step. low, high: Δ is clipped to them after each step; None is no
    bound. Raises SettingsError for bad arguments.
    """

    def __init__(self, penalty: float = 0.0, low: float | None = None, high: float | None = None) -> None:
        self.penalty = checks.number("penalty", penalty, 0)
        self.low = 0.0 if low is None else checks.number("low", low, 0, open_low=True)
        self.high = float("inf") if high is None else checks.number("high", high, 0, open_low=True)
        if self.low > self.high:
            raise ArgumentError(f"low must be at most high = {high:g}, got {low:g}")
        self._initial: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """The scales that a resumed fit began with."""
        return {"initial": {name: scale.cpu() for name, scale in self._initial.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them."""
        self._initial = state_dict["initial"]

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        """Add the gradient of the penalty; before the first step remember the scales, which a batch may have set."""
        if not self.penalty:
            return
        stages = [(name, neuron.scale()) for name, _, neuron in _network(pl_module).spiking_stages()]
        self._initial = self._initial or {name: scale.detach().clone() for name, scale in stages}
        pairs = [(scale, self._initial[name].to(scale.device)) for name, scale in stages]
        learned = [(delta, initial) for delta, initial in pairs if delta.requires_grad]
        if learned:
            torch.stack([self.penalty * log_ratio_penalty(*pair) for pair in learned]).sum().backward()
            _classifier(pl_module).forget_gradient_norm()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Clip the scales."""
        if self.low == 0 and self.high == float("inf"):
            return
        for _, _, neuron in _network(pl_module).spiking_stages():
            if (module := neuron.delta_module) is not None and module.raw.requires_grad:
                module.clip(self.low, self.high)


class GradientNorms(Callback):
    """Logs ``grad/<stage>``, the 2-norm of a stage's gradients before clipping, a mean over every ``every``-th step.

    A step that a gradient scaler for float16 leaves out, since its gradients overflow, does not count.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = checks.integer("every", every, 1)
        self._norms: dict[str, list[Tensor]] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the norms of an earlier process where the next ones will be."""
        self._norms = {name: [norm.to(pl_module.device) for norm in norms] for name, norms in self._norms.items()}

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        """Compute the norms."""
        if trainer.global_step % self.every:
            return
        for name, stage in _network(pl_module).named_stages():
            if grads := [p.grad for p in stage.parameters() if p.grad is not None]:
                self._norms.setdefault(name, []).append(get_total_norm(grads))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log their means."""
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        for name, norms in self._norms.items():
            values = torch.stack(norms)
            finite = values[torch.isfinite(values)] if scaled else values
            pl_module.log(f"grad/{name}", (finite if len(finite) else values).mean(), sync_dist=True)
        self._norms.clear()

    def state_dict(self) -> dict[str, Any]:
        """The norms of the epoch so far."""
        return {name: torch.stack(norms).cpu() for name, norms in self._norms.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the norms of an earlier process."""
        self._norms = {name: list(norms) for name, norms in state_dict.items()}


class StopOnDivergence(Callback):
    """Stops a run at a loss or gradient that is not finite, or a scale Δ that is not above 0.

    The DivergenceError names the step, the layer and the last good checkpoint. every: steps between two looks; None is
    1 on a CPU and 25 on a GPU, where a look waits for the device.
    """

    def __init__(self, every: int | None = None) -> None:
        self.every = None if every is None else checks.integer("every", every, 1)
        self._pixels: Tensor | None = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Keep the batch, to find the layer that broke."""
        self._pixels = batch[0] if self._due(trainer, pl_module) else None

    def on_before_backward(self, trainer: Any, pl_module: lightning.LightningModule, loss: Tensor) -> None:
        """Look at the loss."""
        if self._pixels is None or bool(torch.isfinite(loss)):
            return
        stage = _first_broken_stage(_network(pl_module), self._pixels)
        where = f"; the first layer whose output is not finite is {stage}" if stage else ""
        raise self._error(trainer, f"the loss is {float(loss.detach()):g}{where}")

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at the gradients; a gradient scaler for float16 has its own answer to infinite ones."""
        if self._pixels is None or getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        if bool(torch.isfinite(_classifier(pl_module).gradient_norm(optimizer))):
            return
        grads = {name: p.grad for name, p in _network(pl_module).named_parameters() if p.grad is not None}
        # deepest first: the backward pass comes from there
        broken = [name for name, grad in grads.items() if not bool(torch.isfinite(grad).all())]
        named = f"of {broken[-1].removeprefix('stages.')} is not finite" if broken else "overflows in its norm"
        raise self._error(trainer, f"the gradient {named}")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look at the scales."""
        if self._pixels is None:
            return
        self._pixels = None
        scales = {name: neuron.scale().detach().flatten() for name, _, neuron in _network(pl_module).spiking_stages()}
        if not scales or not bool(_wrong(torch.cat(list(scales.values()))).any()):
            return
        for name, scale in scales.items():
            if (wrong := scale[_wrong(scale)]).numel():
                raise self._error(trainer, f"the scale of {name} is {float(wrong[0]):g}, and must be above 0")

    def _due(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> bool:
        every = self.every or (1 if pl_module.device.type == "cpu" else GPU_INTERVAL)
        return trainer.global_step % every == 0

    def _error(self, trainer: lightning.Trainer, what: str) -> DivergenceError:
        saver = trainer.checkpoint_callback
        last = getattr(saver, "last_model_path", "") or getattr(saver, "best_model_path", "")
        return DivergenceError(
            f"training diverged at step {trainer.global_step} (epoch {trainer.current_epoch + 1}): {what}. "
            f"Last good checkpoint: {last or 'none yet'}. Try a smaller optim.optimizer.lr, gradient clipping "
            "(trainer.gradient_clip_val) or bounds for the scale (callbacks.delta.low)"
        )


class StopOnPlateau(EarlyStopping):
    """Lightning's early stopping, which looks away while training is not yet that of the network that is asked for.

    That is while a schedule trains fewer than all T steps, and until the target of a budget of energy stays: what is
    monitored before says nothing of that network, and the selected one would exceed its budget.

    Args:
        monitor: what a validation must improve.
        mode: ``max``, or ``min`` for a loss and for ``val/excess``.
        patience: validations without improvement after which training ends.
        options: more arguments of Lightning's callback.

    Raises:
        ArgumentError: patience is no integer of at least 0.
    """

    def __init__(self, monitor: str = "val/acc", mode: str = "max", patience: int = 10, **options: Any) -> None:
        super().__init__(monitor, patience=checks.integer("patience", patience, 0), mode=mode, **options)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look, where the epoch's end is the time for it."""
        if _judges(_classifier(pl_module)):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The same where validation does not come once per epoch."""
        if _judges(_classifier(pl_module)):
            super().on_validation_end(trainer, pl_module)


def _judges(module: Classifier) -> bool:
    """Whether a validation judges the network that is asked for: trained with all T steps, and for its final budget."""
    if module.trained_steps < module.network.T:
        return False
    return module.budget is None or (not module.before_final_target() and not module.budget.estimated)


def _classifier(module: lightning.LightningModule) -> Classifier:
    assert isinstance(module, Classifier)
    return module


def _network(module: lightning.LightningModule) -> SpikingNetwork:
    return _classifier(module).network


def _wrong(scale: Tensor) -> Tensor:
    return ~((scale > 0) & torch.isfinite(scale))


@torch.no_grad()
def _first_broken_stage(network: SpikingNetwork, pixels: Tensor) -> str | None:
    """The first stage whose output for these pixels is not finite."""
    broken: list[str] = []

    def visit(name: str, stage: Stage, inputs: list[Tensor]) -> Tensor:
        output = stage(inputs, network.T)
        if not broken and not bool(torch.isfinite(output).all()):
            broken.append(name)
        return output

    network.walk(network.encoder(pixels), visit)
    return broken[0] if broken else None
