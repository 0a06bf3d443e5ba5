"""Run directories for the tests of the report."""

from __future__ import annotations

import csv
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from qbsnn.results.energy_schema import Energy, EnergyLayer, Parts
from qbsnn.results.schema import Absorption, Host, Integer, Layer, LayerCheck, Metrics, Result, Timing

LAYERS = ("stem.neuron", "block.neuron")


def make_result(**changes: Any) -> Result:
    checks = [
        LayerCheck(name, spikes=4_000 + index, positions=50_000, mismatches=0, ties=index, disagreement=0.0125,
                   accumulator_bits=17, membrane_bits=19, theta_min=16, theta_max=64)
        for index, name in enumerate(LAYERS)
    ]  # fmt: skip
    fields: dict[str, Any] = {
        "command": "python -m qbsnn.train seed=3",
        "config": {"model": {"name": "vgg9"}, "optim": {"lr": 0.1}, "seed": 3},
        "seed": 3,
        "host": Host("a CPU", 2, ["avx2"], None, "Linux", {"python": "3.11.7"}),
        "git_commit": "0123abc",
        "git_dirty": True,
        "status": "finished",
        "started": "2025-06-01T12:00:00+00:00",
        "params": 1_234_567,
        "metrics": Metrics(
            {"test/acc": 0.9712, "test/loss": 0.25}, {"test/acc": 0.9783, "val/acc": 0.9801, "epoch": 1.0}
        ),
        "layers": [Layer(name, "QBLIF", 0.5, 0.4, 0.01, 0.1) for name in LAYERS],
        "absorption": Absorption("best", True, 512, 8_001, 100_000, 0, 3, 7, 0.975, 0.975, checks),
        "integer": Integer(
            "best", True, 256, 8_001, 100_000, 0, 0, 0, 432, 0.9688, 0.975, 8, 17, 19, 0, deepcopy(checks),
            onnxruntime_images=128, onnxruntime_mismatches=0,
        ),
        "energy": make_energy(),
        "timing": Timing(204.0, 260.0, 3, 1_500.0),
    }  # fmt: skip
    return Result(**{**fields, **changes})


def make_energy(**changes: Any) -> Energy:
    """One model without and one with memory; half of everything in each of two layers."""
    half = {"network": 2_000.0, "relu": 4_000.0, "quantized": 1_000.0, "relu_dense": 8_000.0}
    estimates = {
        "fp32": {name: Parts(0.75 * total, 0.25 * total, 0.0) for name, total in half.items()},
        "memory": {name: Parts(0.1 * total, 0.1 * total, 0.8 * total) for name, total in half.items()},
    }
    totals = {
        model: {name: Parts(2 * p.synapses, 2 * p.neurons, 2 * p.memory) for name, p in networks.items()}
        for model, networks in estimates.items()
    }
    layers = [
        EnergyLayer(name, neurons=64, steps=4, dense=1_152, events=3_000, acs=123_456, macs=0, shortcut_adds=7,
                    bias_adds=256, current_adds=64, leaks=256, compares=256, resets=256, pool_ops=12, spikes=640,
                    rate=0.025, spikes_per_synapse=0.1, estimates=deepcopy(estimates))
        for name in LAYERS
    ]  # fmt: skip
    shares = {"relu": 0.5, "quantized": 2.0, "relu_dense": 0.25}
    fields: dict[str, Any] = {
        "checkpoint": "best",
        "images": 512,
        "models": {"fp32": "45 nm, fp32", "memory": "45 nm, with SRAM"},
        "levels": 33,
        "level_bits": 6,
        "spikes_per_synapse": 0.1,
        "break_even": [0.15, 1.38],
        "mean_rate": 0.025,
        "break_even_rate": 0.057,
        "relative_synapses": 0.1875,
        "relative": {model: dict(shares) for model in estimates},
        "totals": totals,
        "layers": layers,
    }
    return Energy(**{**fields, **changes})


def write_metrics(path: Path, layers: tuple[str, ...] = LAYERS) -> None:
    columns = ["epoch", "step", "lr", "train/loss", "train/acc", "val/loss", "val/acc"]
    columns += [f"{kind}/{name}" for kind in ("delta", "burst", "saturation") for name in layers]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for epoch, accuracy in enumerate((0.5, 0.9, 0.8)):
            row = {"epoch": epoch, "step": 10 * epoch, "lr": 0.1 / (epoch + 1), "train/loss": 0.3, "train/acc": 0.6}
            row |= {"val/loss": 1 - accuracy, "val/acc": accuracy}
            writer.writerow(row | dict.fromkeys(columns[7:], 0.5 + 0.01 * epoch))


def write_diagnostics(path: Path, layers: tuple[str, ...] = LAYERS, **changes: Any) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "image": rng.random((1, 8, 8), dtype=np.float32),
        "label": 1,
        "prediction": 0,
        "class_names": np.array(["cat", "dog"]),
        "confusion": np.array([[40, 2], [1, 50]]),
    }
    for name in layers:
        arrays[f"histogram/{name}"] = np.array([9_000, 800, 70, 0, 5])
        arrays[f"raster/{name}"] = rng.integers(0, 5, (4, 12)).astype(np.uint8)
    np.savez(path, **{**arrays, **changes})
