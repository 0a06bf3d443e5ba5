"""Warnings, bounds and stops, in real runs that are made to need them."""

import logging
from functools import partial

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from qbsnn.callbacks import BurstMonitor, DeltaGuard, GradientNorms, StopOnDivergence
from qbsnn.data import Digits
from qbsnn.errors import DivergenceError, SettingsError
from qbsnn.functional import decided_cross_entropy
from qbsnn.functional.statistics import burst_statistics, temporal_variation
from qbsnn.models import mlp
from qbsnn.neurons import QBLIF, TernaryBurst
from qbsnn.training.module import Classifier


@pytest.fixture
def fit(tmp_path):
    """``fit(callback, neuron)`` trains a small network on digits and returns the module and all logged metrics."""

    def run(callback, neuron=QBLIF, epochs=1, lr=1e-3, breaks=None, limit_val=64, **options):
        lightning.seed_everything(0, verbose=False)
        data = Digits(batch_size=64, limit_train=256, limit_val=limit_val)
        network = mlp(neuron, data.in_shape, 10, data.mean, data.std, hidden=(32, 16))
        if breaks is not None:
            breaks(network)
        module = Classifier(network, 10, decided_cross_entropy, partial(torch.optim.Adam, lr=lr), None, {})
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=epochs, callbacks=[callback], logger=False, default_root_dir=tmp_path,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            **options,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        return network, trainer.callback_metrics

    return run


def test_statistics_of_bursts_by_hand():
    # [T=2, B=1, 4 neurons]; sizes 0, 1, 2, 2 | 0, 1, 0, 2 of s_max = 2: three 0, two 1, three 2
    bursts = torch.tensor([[[0.0, 1, -2, 2]], [[0, 1, 0, 2]]])
    found = burst_statistics(bursts, 2)
    assert found.mean == 8 / 8 and found.saturation == 3 / 8
    assert found.fired.tolist() == [False, True, True, True]
    # values 0 ×3, 1 ×2, −2 ×1, 2 ×2 of 8
    expected = -(3 / 8) * torch.log2(torch.tensor(3 / 8)) + 2 * (1 / 4) * 2 + (1 / 8) * 3
    assert found.bits == pytest.approx(expected.item(), rel=1e-6)
    assert found.variation == (2 / 4) / (8 / 8)
    assert temporal_variation(bursts[:1]) == 0
    assert temporal_variation(torch.zeros(3, 1, 2)) == 0


def test_saturation_is_named_with_a_remedy_once(fit, caplog):
    with caplog.at_level(logging.WARNING, "qbsnn"):
        _, metrics = fit(
            BurstMonitor(warn_saturation=0.3), partial(QBLIF, s_max=2, delta=1e-3, learn_delta=False), epochs=2
        )
    said = [record.getMessage() for record in caplog.records if "saturates" in record.getMessage()]
    assert [text.split()[0] for text in said] == ["fc1", "fc2"]
    assert "are at s_max = 2" in said[0] and "Raise neuron.s_max" in said[0]
    # about half of all currents are negative, nearly all others saturate
    assert 0.3 < metrics["saturation/fc1"] < 0.7


def test_dead_layers_are_named(fit, caplog):
    with caplog.at_level(logging.WARNING, "qbsnn"):
        _, metrics = fit(BurstMonitor(), partial(QBLIF, delta=100.0, learn_delta=False))
    assert metrics["dead/fc1"] == 1 and metrics["bits/fc1"] == 0
    assert any("fc1 is nearly silent: 100 % of its neurons never fire" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("neuron", [QBLIF, TernaryBurst])
def test_a_healthy_network_raises_no_warning(fit, caplog, neuron):
    with caplog.at_level(logging.WARNING, "qbsnn"):
        _, metrics = fit(BurstMonitor(), neuron)
    assert not [r for r in caplog.records if r.name.startswith("qbsnn")]
    for figure in ("delta", "burst", "saturation", "bits", "variation", "dead"):
        assert torch.isfinite(metrics[f"{figure}/fc1"]) and f"{figure}/fc2" in metrics
    assert metrics["bits/fc1"] > 0.5 and metrics["variation/fc1"] > 0


def test_a_smaller_batch_counts_by_its_neuron_steps(fit, monkeypatch):
    kept = []
    honest = BurstMonitor.on_validation_epoch_end

    def end(self, trainer, pl_module):
        kept[:] = [found.counts for found in self._seen["fc1"]]
        honest(self, trainer, pl_module)

    monkeypatch.setattr(BurstMonitor, "on_validation_epoch_end", end)
    _, metrics = fit(BurstMonitor(), partial(QBLIF, s_max=2, delta=0.2), limit_val=68)
    assert len({int(counts.sum()) for counts in kept}) == 2
    counts = torch.stack(kept).sum(0)  # of bursts from -2 to 2
    size = torch.tensor([2.0, 1, 0, 1, 2])
    assert metrics["burst/fc1"] == pytest.approx(float((counts * size).sum() / counts.sum()), rel=1e-5)
    assert metrics["saturation/fc1"] == pytest.approx(float((counts[0] + counts[4]) / counts.sum()), rel=1e-5)
    plain = torch.stack([(found * size).sum() / found.sum() for found in kept]).mean()
    assert metrics["burst/fc1"] != pytest.approx(float(plain), rel=1e-5)


def test_scales_stay_in_bounds(fit):
    network, _ = fit(DeltaGuard(low=0.49, high=0.51), lr=0.1)
    scales = [neuron.scale().item() for _, _, neuron in network.spiking_stages()]
    assert all(0.49 <= scale <= 0.51 for scale in scales)
    assert any(scale != 0.5 for scale in scales)


def test_a_penalty_pulls_scales_back_to_their_start(fit):
    free, _ = fit(DeltaGuard(), lr=0.02, epochs=3)
    held, _ = fit(DeltaGuard(penalty=100.0), lr=0.02, epochs=3)

    def drift(network):
        return max(abs(neuron.scale().item() - 0.5) for _, _, neuron in network.spiking_stages())

    assert drift(held) < drift(free) / 2


def test_a_penalty_pulls_scales_to_what_the_first_batch_set(fit):
    guard = DeltaGuard(penalty=1.0)
    fit(guard, partial(QBLIF, init="percentile", delta=0.5), lr=0.0)
    initial = guard.state_dict()["initial"]
    assert len(initial) == 2 and all(abs(float(scale) - 0.5) > 0.01 for scale in initial.values())


def test_gradient_norms_are_logged_per_stage(fit):
    _, metrics = fit(GradientNorms(every=1))
    assert {name for name in metrics if name.startswith("grad/")} == {"grad/fc1", "grad/fc2", "grad/readout"}
    assert all(metrics[name] > 0 for name in metrics if name.startswith("grad/"))


def test_a_step_that_a_gradient_scaler_leaves_out_is_not_in_the_norms(fit):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**19)
    seen = []

    class Norms(GradientNorms):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.extend(float(norm) for norm in self._norms["fc1"])
            super().on_train_epoch_end(trainer, pl_module)

    _, metrics = fit(Norms(every=1), plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    finite = [norm for norm in seen if np.isfinite(norm)]
    assert 0 < len(finite) < len(seen)
    assert metrics["grad/fc1"] == pytest.approx(np.mean(finite), rel=1e-5)


def test_a_loss_that_is_no_number_names_step_layer_and_checkpoint(fit):
    def breaks(network):
        network.stages["fc2"].branches[0].norm.bias.data.fill_(float("nan"))

    with pytest.raises(DivergenceError) as caught:
        fit(StopOnDivergence(), partial(QBLIF, output="graded"), breaks=breaks)
    assert "diverged at step 0 (epoch 1): the loss is nan" in str(caught.value)
    assert "the first layer whose output is not finite is fc2" in str(caught.value)
    assert "Last good checkpoint: none yet" in str(caught.value)


def test_a_gradient_that_is_not_finite_names_the_parameter(fit):
    def breaks(network):
        network.stages["fc2"].branches[0].weight.weight.register_hook(lambda grad: grad * float("inf"))

    with pytest.raises(DivergenceError, match=r"the gradient of fc2\.branches\.0\.weight\.weight is not finite"):
        fit(StopOnDivergence(), breaks=breaks)


def test_a_scale_that_left_the_positive_numbers_is_noticed(fit):
    # Adam's first step is lr: exp(ln 0.5 ± 1000) is 0 or infinite.
    with pytest.raises(
        DivergenceError, match=r"at step 1 \(epoch 1\): the scale of fc1 is (0|inf), and must be above 0"
    ):
        fit(StopOnDivergence(), partial(QBLIF, parametrisation="exp"), lr=1000.0)


def test_a_healthy_run_is_not_stopped(fit):
    fit(StopOnDivergence())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            partial(BurstMonitor, warn_saturation=2),
            "warn_saturation must be a number of at least 0 and",
        ),
        (partial(BurstMonitor, batches=0), "batches"),
        (partial(DeltaGuard, penalty=-1), "penalty must be a number of at least 0, got -1"),
        (partial(DeltaGuard, low=0), "low must be a number above 0, got 0"),
        (partial(DeltaGuard, low=2.0, high=1.0), "low must be at most high = 1, got 2"),
        (partial(GradientNorms, every=0), "every"),
        (partial(StopOnDivergence, every=-3), "every"),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(SettingsError) as caught:
        make()
    assert words in str(caught.value)
