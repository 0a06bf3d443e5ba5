from functools import partial
from types import SimpleNamespace

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.optim.swa_utils import AveragedModel

from qbsnn.callbacks import DeltaGuard, StopOnDivergence
from qbsnn.data import Digits
from qbsnn.functional import decided_cross_entropy
from qbsnn.models import mlp, resnet
from qbsnn.neurons import QBLIF
from qbsnn.training import module as module_of
from qbsnn.training import optim
from qbsnn.training.module import Classifier
from qbsnn.training.optim import AverageFollows, make_optimizer, parameter_groups


def test_weight_decay_reaches_layer_weights_only():
    network = resnet(partial(QBLIF, s_max=4), (3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3, name="resnet20", width=0.25)
    decayed, free = parameter_groups(network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert all(names[id(p)].endswith("weight.weight") for p in decayed["params"])
    assert {names[id(p)].rsplit(".", 1)[-1] for p in free["params"]} == {"raw", "weight", "bias"}
    assert sum(names[id(p)].endswith("neuron.delta.raw") for p in free["params"]) == 19
    assert len(decayed["params"]) + len(free["params"]) == len(names)

    optimizer = torch.optim.AdamW(parameter_groups(network), lr=0.1, weight_decay=0.5)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in network.named_parameters():
        shrunk = before[name] * 0.95 if name.endswith("weight.weight") else before[name]
        assert torch.allclose(parameter, shrunk), name


def trained(make, steps=6):
    """Weights after a few steps with fixed gradients that differ between steps."""
    torch.manual_seed(0)
    network = resnet(partial(QBLIF, s_max=4), (3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3, name="resnet20", width=0.25)
    optimizer = make_optimizer(make, parameter_groups(network))
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return optimizer, [parameter.detach() for parameter in network.parameters()]


@pytest.mark.parametrize(
    "make",
    [
        partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-2),
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4),
    ],
    ids=["adamw", "sgd"],
)
def test_fused_kernels_are_taken_and_change_nothing(make):
    fused, weights = trained(make)
    plain, expected = trained(partial(make, fused=False))
    assert fused.defaults["fused"] is True and not plain.defaults["fused"]
    for found, right in zip(weights, expected, strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=1e-6)


def test_a_choice_of_the_user_and_optimisers_without_fused_kernels_are_left_alone():
    assert trained(partial(torch.optim.AdamW, fused=False), 1)[0].defaults["fused"] is False
    assert not trained(partial(torch.optim.AdamW, foreach=True), 1)[0].defaults["fused"]
    free = [{"params": [torch.zeros(2)]}]
    assert not make_optimizer(partial(torch.optim.AdamW, differentiable=True), free).defaults["fused"]
    assert "fused" not in trained(torch.optim.RMSprop, 1)[0].defaults
    for kind in ({"device": "meta"}, {"dtype": torch.complex64}):
        layer = torch.nn.Linear(2, 2, **kind)
        assert not make_optimizer(partial(torch.optim.SGD, lr=0.1), parameter_groups(layer)).defaults["fused"], kind


class Clipped(lightning.Callback):
    """The gradients that the optimiser meets, and the largest norm before clipping."""

    def __init__(self):
        self.before, self.after = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        grads = [p.grad.flatten() for p in pl_module.network.parameters()]
        self.before.append(torch.linalg.vector_norm(torch.cat(grads)).item())
        if len(self.before) == 1:
            optimizer.register_step_post_hook(self.look)  # the gradients are still there

    def look(self, optimizer, args, kwargs):
        grads = torch.cat([p.grad.flatten() for group in optimizer.param_groups for p in group["params"]])
        self.after.append((torch.linalg.vector_norm(grads).item(), grads.abs().max().item()))


def fitted(tmp_path, watch, optimizer=torch.optim.AdamW, **options):
    lightning.seed_everything(0, verbose=False)
    data = Digits(batch_size=64, limit_train=256, limit_val=64)
    network = mlp(QBLIF, data.in_shape, 10, data.mean, data.std, hidden=(32, 16))
    module = Classifier(network, 10, decided_cross_entropy, partial(optimizer, lr=1e-3), None, {})
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[watch], logger=False, default_root_dir=tmp_path,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return [parameter.detach() for parameter in network.parameters()], module


def test_the_norm_is_computed_once_and_clips_as_lightning_does(tmp_path, monkeypatch):
    watch, calls = Clipped(), []
    honest = module_of.get_total_norm
    monkeypatch.setattr(module_of, "get_total_norm", lambda grads: calls.append(1) or honest(grads))
    ours, _ = fitted(tmp_path, watch, gradient_clip_val=0.05)
    assert len(calls) == len(watch.before) == 4
    assert all(norm > 0.05 for norm in watch.before)
    assert [norm for norm, _ in watch.after] == pytest.approx([0.05] * 4, rel=1e-4)

    monkeypatch.setattr(
        Classifier, "configure_gradient_clipping", lightning.LightningModule.configure_gradient_clipping
    )
    theirs, _ = fitted(tmp_path, Clipped(), gradient_clip_val=0.05)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_guards_share_that_norm_and_a_penalty_renews_it(tmp_path, monkeypatch):
    calls = []
    honest = module_of.get_total_norm
    monkeypatch.setattr(module_of, "get_total_norm", lambda grads: calls.append(1) or honest(grads))
    watch = Clipped()
    fitted(tmp_path, StopOnDivergence(), gradient_clip_val=0.05)
    assert len(calls) == 4

    class Early(lightning.Callback):
        """Asks before the penalty is added, so that a stale norm would clip too little."""

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            pl_module.gradient_norm(optimizer)
            held.on_before_optimizer_step(trainer, pl_module, optimizer)
            watch.on_before_optimizer_step(trainer, pl_module, optimizer)

        def on_fit_start(self, trainer, pl_module):
            scales = {name: neuron.scale().detach() for name, _, neuron in pl_module.network.spiking_stages()}
            held.load_state_dict({"initial": {name: scale * 2 for name, scale in scales.items()}})

    held = DeltaGuard(penalty=100.0)
    fitted(tmp_path, Early(), gradient_clip_val=0.05)
    assert min(watch.before) > 10
    assert [norm for norm, _ in watch.after] == pytest.approx([0.05] * 4, rel=1e-4)


def test_other_ways_of_clipping(tmp_path):
    watch = Clipped()
    fitted(tmp_path, watch, gradient_clip_val=0.001, gradient_clip_algorithm="value")
    assert all(largest == pytest.approx(0.001) for _, largest in watch.after)
    watch = Clipped()
    fitted(tmp_path, watch, gradient_clip_val=None)
    assert [norm for norm, _ in watch.after] == pytest.approx(watch.before)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, partial(torch.optim.SGD, fused=True)])
def test_fused_steps_under_a_gradient_scaler_are_unscaled_then_clipped(tmp_path, optimizer):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    watch = Clipped()
    _, module = fitted(tmp_path, watch, optimizer, gradient_clip_val=0.05, plugins=[plugin])
    assert module.optimizers().optimizer.defaults["fused"] is True
    assert len(watch.after) == 4 and all(0.05 < norm < 100 for norm in watch.before)
    assert [norm for norm, _ in watch.after] == pytest.approx([0.05] * 4, rel=1e-4)
    assert scaler.get_scale() == 1024


@pytest.mark.parametrize("given, place", [(None, "meta"), ("cpu", "cpu")])
def test_an_average_is_kept_where_the_module_trains_unless_it_is_told(monkeypatch, given, place):
    monkeypatch.setattr(optim, "fit_steps", lambda trainer: 10)
    module = lightning.LightningModule()
    module.layers = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = EMAWeightAveraging(device=given)
    average._average_model = AveragedModel(module, use_buffers=True)  # in Lightning's setup, before the module moves
    AverageFollows("ema", average).on_train_start(SimpleNamespace(max_epochs=1), module.to("meta"))
    assert {value.device.type for value in average._average_model.module.state_dict().values()} == {place}
