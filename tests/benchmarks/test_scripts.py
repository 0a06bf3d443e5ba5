"""Every script with ``small=true``, as ``make bench`` runs it."""

import json
import os
import subprocess
import sys

import pytest

from tests.tool import ROOT

pytestmark = pytest.mark.slow


def run(name, folder, *arguments):
    """Run a script in a process of its own; returns its result file."""
    out = folder / f"{name}.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "small=true", "rounds=1", f"out={out}", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "written to" in done.stdout
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["benchmark"] == name and result["small"] and result["rows"]
    return result


def test_startup(tmp_path):
    result = run("startup", tmp_path)
    assert set(table(result, "Wall")) == {"import torch", "a wrong value"} == set(table(result, "CPU"))
    assert table(result, "Wall")["a wrong value"]["goal"] == "≤ 1.5"


def table(result, word):
    return {row["name"]: row for row in result["rows"] if word in row["table"]}


def test_neuron(tmp_path):
    result = run("neuron", tmp_path, "steps=2")
    for kind in ("forward + backward", "inference"):
        rows = table(result, kind)
        assert rows["copy"]["ratio"] == 1 and rows["QB-LIF, s_max = 8, compiled"]["goal"]
        assert all(row["median"] > 0 for row in rows.values())


def test_train_step(tmp_path):
    result = run("train_step", tmp_path, "only=QB-LIF block,SpikingJelly")
    assert table(result, "Step time, fp32")["QB-LIF block"]["goal"] == "≤ 1.05"
    rows = table(result, "budget of energy")
    assert rows["without"]["ratio"] == 1 and rows["with a budget of energy"]["goal"] == "≤ 1.02"
    for word in ("peak over the step", "saved for the backward"):
        rows = table(result, word)
        if not rows:
            assert any("memory" in line for line in result["skipped"])
            continue
        assert rows["ReLU twin"]["ratio"] == 1 and rows["QB-LIF block"]["goal"] == "≤ 1.0"
        assert all(row["median"] > 0 for row in rows.values())


def test_inference(tmp_path):
    result = run("inference", tmp_path, "models=vgg9,digits", "s_max=3")
    goals = {row["goal_name"]: row["goal"] for row in result["rows"] if row["goal"]}
    assert goals["latency of one digit in Python, ms"] == "≤ 2" and goals["latency of one digit in C, ms"] == "≤ 0.2"
    for network in ("vgg9", "digits"):
        rows = table(result, f"Throughput, {network}")
        assert rows["own fp32"]["ratio"] == 1 and "0 values not exact" in rows["int8 kernels"]["table"]
    assert all(row["median"] > 0 for row in result["rows"])


def test_scaling(tmp_path):
    result = run("scaling", tmp_path)
    assert [point["T"] for point in result["curves"]["T"]] == [1, 2, 4]
    assert table(result, "no more than") == {} and table(result, "Cost in T: time")["QB-LIF block"]["goal"] == "≤ 1.05"
    assert {path.suffix for path in tmp_path.glob("bench_T.*")} == {".png", ".svg"}


def test_time_to_accuracy(tmp_path):
    result = run("time_to_accuracy", tmp_path, f"root={tmp_path / 'data'}")
    rows = table(result, "digits: time to")
    assert rows["QB-LIF"]["median"] > 0
    assert any("fashion_mnist" in line and "is missing" in line for line in result["skipped"])
    result = run("time_to_accuracy", tmp_path, f"root={tmp_path / 'data'}", "sets=digits,cifar10")
    assert any("QB-LIF on cifar10: " in line and "is missing" in line for line in result["skipped"])
