"""Sweeps for the tests of tables and figures, with result files of chosen numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qbsnn.report.tables.documents import store_sweeps
from qbsnn.results.fingerprint import fingerprint, identity
from qbsnn.results.schema import Metrics
from tests.report.samples import make_result, write_metrics

PLAN = """
title: Some_data
seeds: [0, 1, 2]
baseline: "LIF, T = 4"
figure: rows
rows:
  - {label: "LIF, T = 4", overrides: [neuron=lif], published: [cifar10/document_lif_t4]}
  - {label: "QB-LIF, T = 4", overrides: [], published: [cifar10/document_qb_t4]}
"""
LIF = {"LIF, T = 4": {0: 0.90, 1: 0.91, 2: 0.92}}
QB = "QB-LIF, T = 4"
BOTH = {**LIF, QB: {0: 0.91, 1: 0.93, 2: 0.95}}
NEURONS = {"LIF": {"_target_": "qbsnn.neurons.LIF"}, "QB": {"_target_": "qbsnn.neurons.QBLIF", "s_max": 8}}


def write_sweep(
    folder: Path,
    accuracies: Mapping[str, Mapping[int, float | str]] = BOTH,
    settings: Mapping[str, dict[str, Any]] | None = None,
    name: str = "table_some",
    **changes: Any,
) -> Path:
    """``folder``/NAME with ``cells.json`` and a run for every accuracy; text in its place is the cell's status.

    settings: by label, changes of the configuration; changes: of every result. Returns ``folder``.
    """
    entries = []
    for label, seeds in accuracies.items():
        for seed, value in seeds.items():
            config = {
                "T": 4,
                "seed": seed,
                "neuron": NEURONS["LIF" if label.startswith("LIF") else "QB"],
                "label": label,
            }
            config |= (settings or {}).get(label, {})
            entry = {"label": label, "row": label, "seed": seed, "overrides": [f"seed={seed}"], "error": None,
                     "seconds": None, "run": None, "status": value, "identity": identity(config, {}),
                     "fingerprint": fingerprint(identity(config, {}))}  # fmt: skip
            if isinstance(value, str):
                entry["error"] = "it broke\nin two lines" if value == "failed" else None
            else:
                run = folder / name / f"{len(entries)}_{entry['fingerprint']}"
                run.mkdir(parents=True)
                metrics = Metrics({"test/acc": value - 0.01}, {"test/acc": value})
                fields = {"config": config, "seed": seed, "metrics": metrics, "cell": entry["fingerprint"],
                          "identity": entry["identity"]}  # fmt: skip
                make_result(**{**fields, **changes}).write(run / "result.json")
                write_metrics(run / "metrics.csv")
                entry |= {"status": "done", "run": str(run), "seconds": 12.0}
            entries.append(entry)
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "cells.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


def write_plan(folder: Path, text: str = PLAN, name: str = "table_some") -> Path:
    """``folder``/NAME.yaml; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def stored(folder: Path, accuracies: Mapping[str, Mapping[int, float | str]] = BOTH, **changes: Any) -> None:
    """Make the runs of the sweep ``some`` of a project anew and store them."""
    sweeps = folder / f"sweeps{len(list(folder.glob('sweeps*')))}"
    store_sweeps("some", folder / "conf", write_sweep(sweeps, accuracies, **changes), folder / "docs/results")
