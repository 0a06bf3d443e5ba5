"""The table of quantities and the frame of all runs: what they hold, and that a new row reaches every view."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qbsnn import results
from qbsnn.errors import DataError
from qbsnn.results.frames import SETTINGS
from qbsnn.results.quantities import of_columns
from qbsnn.results.schema import EarlyExit, Metrics
from tests.report.samples import make_energy, make_result

CONFIG = {
    "name": "digits-vgg5-qb_lif", "T": 4, "seed": 3,
    "data": {"_target_": "qbsnn.data.Digits"}, "model": {"name": "vgg5"},
    "neuron": {"_target_": "qbsnn.neurons.QBLIF", "s_max": 8, "alpha": 0.5, "beta": 2.0},
}  # fmt: skip


def add_run(outputs: Path, place: str, **changes: Any) -> Path:
    """``outputs``/PLACE with the sample's result; returns the run directory."""
    folder = outputs / place
    folder.mkdir(parents=True)
    make_result(**{"config": CONFIG, **changes}).write(folder / "result.json")
    return folder


def test_a_row_has_the_settings_and_the_quantities_of_its_run(tmp_path):
    folder = add_run(tmp_path, "sweeps/s_max/3_a", cell="f" * 16)
    (row,) = results.frame(tmp_path).to_dict("records")
    expected = {
        "run": "sweeps/s_max/3_a", "name": "digits-vgg5-qb_lif", "status": "finished", "data": "Digits",
        "model": "vgg5", "neuron": "QBLIF", "T": 4, "s_max": 8, "alpha": 0.5, "beta": 2.0, "seed": 3, "sweep": "s_max",
        "fingerprint": "f" * 16, "started": "2025-06-01T12:00:00+00:00", "commit": "0123abc", "dirty": True,
        "device": "a CPU, 2 cores", "torch": None, "precision": "32-true", "command": "python -m qbsnn.train seed=3",
        "error": None,
        "folder": str(folder), "config": CONFIG,
        # the sample: two layers of 123,456 accumulates on 512 images, 4,000 pJ in either model
        "test/acc": 0.9783, "last/test/acc": 0.9712, "val/acc": 0.9801, "integer/acc": 0.9688,
        "integer/proven_acc": 0.9688, "integer/spike_mismatches": 0, "absorption/ties": 3, "params": 1_234_567,
        "mean_burst": 0.025, "acs_per_image": 2 * 123_456 / 512, "macs_per_image": 0.0, "relative_energy": 0.1875,
        "energy_estimate/fp32": 4_000.0, "energy_estimate/memory": pytest.approx(4_000), "energy_over_relu/fp32": 0.5,
        "energy_over_quantized/memory": 2.0, "energy_over_relu_dense/fp32": 0.25, "epochs": 3, "fit_seconds": 204.0,
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected
    assert list(row)[: len(SETTINGS)] == list(SETTINGS)


def test_what_a_run_lacks_is_missing_and_integers_stay_integers(tmp_path):
    nothing = {"absorption": None, "integer": {"skipped": "ReLU"}, "energy": None, "metrics": Metrics()}
    add_run(tmp_path, "new", started="2026-01-01", status="running", config={"T": None, "neuron": 3}, **nothing)
    add_run(tmp_path, "old", started="2025-01-01", metrics=Metrics({}, {"test/acc": math.nan}))
    found = results.frame(tmp_path)
    assert found["run"].tolist() == ["new", "old"]
    assert found["test/acc"].isna().all() and found["integer/acc"].tolist()[1:] == [0.9688]
    assert found["T"].tolist() == [pd.NA, 4] and found["s_max"].dtype == found["params"].dtype == "Int64"
    assert found["relative_energy"].dtype == np.float64 and found["neuron"].tolist() == ["3", "QBLIF"]
    assert found.attrs["models"] == {"fp32": "45 nm, fp32", "memory": "45 nm, with SRAM"}
    assert found.attrs["refused"] == []


def test_no_run_is_an_empty_frame_with_its_columns_and_no_folder_an_error(tmp_path):
    found = results.frame(tmp_path)
    assert len(found) == 0 and {"run", "T", "test/acc", "relative_energy"} <= set(found.columns)
    with pytest.raises(DataError, match="absent is no directory"):
        results.frame(tmp_path / "absent")


HOSTILE = {
    "brackets": "[" * 200_000,
    "objects": '{"a":' * 5_000 + "1" + "}" * 5_000,
    "deep": '{"schema_version": 1, "config": ' + '{"a":' * 200 + "1" + "}" * 201,
    "nan": '{"schema_version": 1, "seed": NaN}',
    "digits": '{"schema_version": ' + "9" * 10_000 + "}",
    "binary": "\x00\x01",
    "number": "1",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_an_error_that_names_it(tmp_path, name):
    path = tmp_path / "result.json"
    path.write_text(HOSTILE[name])
    with pytest.raises(DataError) as error:
        results.read_result(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 400


def test_files_that_are_no_results_are_listed_and_not_fatal(tmp_path):
    for name, text in HOSTILE.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(text)
    (tmp_path / "utf").mkdir()
    (tmp_path / "utf" / "result.json").write_bytes(b"\xff\xfe")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "result.json")
    add_run(tmp_path, "good")
    found = results.frame(tmp_path)
    assert found["run"].tolist() == ["good"]
    refused = dict(found.attrs["refused"])
    assert set(refused) == {f"{name}/result.json" for name in (*HOSTILE, "utf", "pipe")}
    assert all(reason.startswith(place) for place, reason in refused.items())
    assert "nests too deep" in refused["brackets/result.json"] and "NaN is no JSON" in refused["nan/result.json"]


def test_values_of_any_kind_in_the_places_of_a_result_are_read_or_refused(tmp_path):
    """Each value of a sound result is replaced by one of another kind, in turn."""
    whole = json.loads((add_run(tmp_path, "run") / "result.json").read_text())
    path = tmp_path / "run" / "result.json"
    draw = random.Random(0)
    for _ in range(400):
        content = json.loads(json.dumps(whole))
        node: Any = content
        while True:
            key = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if not (isinstance(node[key], (dict, list)) and node[key]) or draw.random() < 0.2:
                break
            node = node[key]
        node[key] = draw.choice([None, -1, 0, 10**400, 1e308, "\ud800", "a|*<b>", True, [], [[1]], {}, {"a": {}}])
        path.write_text(json.dumps(content))
        found = results.frame(tmp_path)
        assert len(found) + len(found.attrs["refused"]) == 1
        of_columns(found.columns)


def test_members_of_a_quantity_are_columns_with_rows_of_their_own():
    found = of_columns(["energy_estimate/int", "config", "integer/acc", "energy_over_relu_dense/a/b"])
    assert {key: quantity.title for key, quantity in found.items()} == {
        "integer/acc": "integer accuracy",
        "energy_estimate/int": "energy per image, estimates, int",
        "energy_over_relu_dense/a/b": "energy ÷ dense ReLU network's, a/b",
    }


def test_early_exit_saves_accumulates_and_no_products():
    energy = make_energy(relative_synapses=0.2)
    for layer in energy.layers:  # 1/16 of the dense operations are products: 0.0625 of 0.2 stays, 0.1375 halves
        layer.macs = layer.dense * energy.images // 16
    half = EarlyExit(1.0, 0.0, [256, 256], images=512, acs=50, acs_whole=100)
    found = results.values(make_result(energy=energy, early_exit=half))
    assert found["exit/acs"] == 0.5 and found["exit/steps"] == 1.5
    assert found["exit/relative_energy"] == pytest.approx(0.0625 + 0.1375 / 2)
    for lacks in ({"energy": None, "early_exit": half}, {"energy": energy, "early_exit": None}):
        assert "exit/relative_energy" not in results.values(make_result(**lacks))


def test_texts_are_as_people_read_them():
    shown = results.texts(make_result(energy=make_energy(relative_synapses=0.9012)))
    assert shown["test/acc"] == "97.83\u00a0%" and shown["relative_energy"] == "90.1\u00a0%"
    assert shown["energy_estimate"] == "4\u00a0nJ (fp32), 4\u00a0nJ (memory)"
    assert shown["energy_over_relu"] == "0.50 (fp32), 0.50 (memory)" and shown["params"] == "1,234,567"
    assert results.texts(make_result(energy=None))["energy_estimate"] == "–"


def test_every_row_has_a_key_of_its_own_and_says_what_it_is():
    keys = [quantity.key for quantity in results.QUANTITIES]
    assert len(set(keys)) == len(keys) and not set(keys) & set(SETTINGS)
    assert all(quantity.title and quantity.views for quantity in results.QUANTITIES)


def test_reading_results_needs_neither_torch_nor_matplotlib():
    code = "import sys, qbsnn.results; sys.exit(' '.join({'torch', 'matplotlib', 'pandas'} & sys.modules.keys()) or 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True).stderr == ""
