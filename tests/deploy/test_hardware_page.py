"""docs/hardware.md: the worked trace, recomputed from the page's own tables."""

from pathlib import Path

import numpy as np
import pytest

from qbsnn.deploy.convert.settings import PROFILES
from qbsnn.deploy.engines import onnx_engine, reference, scalar
from qbsnn.deploy.engines.torch_engine import TorchEngine
from qbsnn.deploy.format.network import INPUT, IntBranch, IntegerNetwork, IntReadout, IntStage, Leak
from tests.deploy import networks

PAGE = (Path(__file__).parents[2] / "docs/hardware.md").read_text(encoding="utf-8")


def table(first: str) -> list[dict[str, str]]:
    """The rows of the table whose header starts with ``first``."""
    lines = PAGE.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    names = [cell.strip() for cell in lines[start].strip("|").split("|")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append(dict(zip(names, (cell.strip() for cell in line.strip("|").split("|")), strict=True)))
    return rows


def stage(row: dict[str, str], source: int) -> IntStage:
    kind, amount = row["leak"].split()
    weight = np.array([[int(row["weight"])]], np.int8) if row["weight"] else None
    branch = IntBranch(INPUT, "input") if weight is None else IntBranch(source, "linear", weight)
    return IntStage(
        row["neuron"],
        (branch,),
        np.array([int(row["bias"])], np.int32),
        np.array([int(row["θ"])], np.int32),
        int(row["s_max"]),
        (1,),
        Leak(kind, int(amount)),
        int(row["s_min"]),
        row["rounding"],
        row["reset"],
    )


def the_network() -> tuple[IntegerNetwork, np.ndarray]:
    a, b = (stage(row, 0) for row in table("neuron"))
    assert "Membranes saturate, and have 7 bits" in PAGE
    assert "weights 3 and -1 from B and biases 1 and 0" in PAGE
    readout = IntReadout(IntBranch(1, "linear", np.array([[3], [-1]], np.int8)), np.array([1, 0], np.int32), 1.0)
    current = np.array([int(row["J"]) for row in table("step")], np.int32).reshape(-1, 1, 1)
    return IntegerNetwork((a, b), readout, len(current), 7, "saturate"), current


def engines(net, current):
    runs = [
        lambda j: scalar.run(net, j),
        lambda j: reference.run(net, j),
        TorchEngine(networks.loose(net, current)).run,
    ]
    return runs + ([onnx_engine.OnnxEngine(net).run] if onnx_engine.available() is None else [])


def test_the_engines_reproduce_the_page():
    net, current = the_network()
    rows = table("step")
    assert len(rows) == 6 and [int(row["step"]) for row in rows] == list(range(6))
    for run in engines(net, current):
        trace = run(current)
        for i, name in enumerate("AB"):
            assert trace.spikes[i].ravel().tolist() == [int(row[f"s of {name}"]) for row in rows]
            assert trace.membranes[i].ravel().tolist() == [int(row[f"{name} reset"]) for row in rows]
        assert f"Z = {trace.logits[0, 0]} and {trace.logits[0, 1]}." in PAGE


def test_every_other_column_follows_from_its_neighbours():
    before = {"A": 0, "B": 0}
    parameters = {row["neuron"]: row for row in table("neuron")}
    for row in table("step"):
        value = {key: int(cell) for key, cell in row.items()}
        assert value["sum of B"] == int(parameters["B"]["weight"]) * value["s of A"] + int(parameters["B"]["bias"])
        for name, added, total in (("A", "J", "A + J"), ("B", "sum of B", "B + sum")):
            shift = int(parameters[name]["leak"].split()[1])
            assert value[f"{name} leaked"] == before[name] - before[name] // 2**shift
            assert value[total] == value[f"{name} leaked"] + value[added]
            assert value[f"{name} fit"] == min(max(value[total], -64), 63)
            theta, s_max = int(parameters[name]["θ"]), int(parameters[name]["s_max"])
            assert value[f"s of {name}"] == min(max(value[f"{name} fit"] // theta, 0), s_max)
            assert value[f"{name} reset"] == value[f"{name} fit"] - theta * value[f"s of {name}"]
            before[name] = value[f"{name} reset"]


def test_the_page_lists_the_profiles_as_they_are():
    rows = {row["profile"].strip("`"): row for row in table("profile")}
    assert set(rows) == set(PROFILES)
    for name, row in rows.items():
        chosen = PROFILES[name]
        assert [row["leak"], row["membrane"], row["overflow"]] == [
            chosen["leak"],
            f"{chosen['membrane_bits']} bits",
            chosen["overflow"],
        ]


@pytest.mark.parametrize("change", [("J", "7", "13"), ("weight", "9", "8")])
def test_another_number_on_the_page_would_be_noticed(change, monkeypatch):
    column, old, new = change
    rows = {name: table(name) for name in ("neuron", "step")}
    for row in (row for part in rows.values() for row in part if row.get(column) == old):
        row[column] = new
    monkeypatch.setitem(globals(), "table", rows.__getitem__)
    with pytest.raises(AssertionError):
        test_the_engines_reproduce_the_page()
