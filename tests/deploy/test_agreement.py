"""The rows of ``scripts/verify.py``: every part of a trace that differs has a place and words."""

from dataclasses import replace

import numpy as np

from qbsnn.deploy.engines import reference
from qbsnn.deploy.verify.agreement import compare_layers, compare_overflows
from tests.deploy import networks


def test_steps_and_classes_of_early_exit_are_compared():
    net, current, _ = networks.worked_by_hand()
    net = replace(net, exit_margin=8)
    right = reference.run(net, current)
    assert right.exits.tolist() == [[2], [0]]  # Z is 6 and −1 after the first step, 7 and −1 after the second
    assert not [row for row in compare_layers("fast", net, right, right) if row.first]
    late = replace(right, exits=right.exits + np.array([[1], [0]]))
    rows = {row.layer: row for row in compare_layers("fast", net, late, right)}
    assert [layer for layer, row in rows.items() if row.first] == ["exits"]
    assert rows["exits"].spikes == 1 and rows["exits"].values == 2
    assert "exits" not in {row.layer for row in compare_layers("grid", net, replace(right, exits=None), right)}


def test_the_number_of_overflows_and_the_first_are_compared():
    net = networks.single_stage(np.array([7]), 2, s_max=1, leak=networks.NONE, membrane_bits=4, overflow="wrap")
    right = reference.run(net, np.full((2, 1, 1), 6, np.int32))  # 6, then 12, which is no number of 4 bits
    assert right.overflows == 1 and compare_overflows("fast", right, right).first is None
    row = compare_overflows("fast", replace(right, overflows=2), right)
    assert row.spikes == 1 and row.layer == "overflows"
    assert row.first == f"2, the first {right.first_overflow} instead of 1, the first {right.first_overflow}"
    first = replace(right.first_overflow, step=0)
    assert "step 0" in compare_overflows("fast", replace(right, first_overflow=first), right).first
