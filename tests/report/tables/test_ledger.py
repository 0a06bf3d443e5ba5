"""Verdicts of claims, against numbers worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qbsnn.errors import DataError
from qbsnn.report.tables.claims import judge, read_claims
from qbsnn.report.tables.evidence import gather, reading
from qbsnn.report.tables.stored import merged, read_stored, store
from tests.report.sweeps import BOTH, QB, stored


def verdict(project: Path, **claim) -> tuple:
    (project / "docs/claims.yaml").write_text(json.dumps([{"claim": "c", "section": "s", **claim}]))
    found = judge(read_claims(project / "docs/claims.yaml")[0], gather(project / "conf", project / "docs/results"))
    return found.word, found.found, found.seeds


def test_verdicts_by_hand(project):
    side, lif = {"sweep": "table_some", "row": QB}, {"sweep": "table_some", "row": "LIF, T = 4"}
    # differences of 1, 2 and 3 points: 2 ± 4.3027/√3 = [−0.48, 4.48]
    shown = "+2.00 [−0.48, +4.48] points; asked: ≥ {}"
    assert verdict(project, **{"is": side}, over=lif, at_least=-0.005) == ("holds", shown.format("−0.50 points"), "3")
    assert verdict(project, **{"is": side}, over=lif, at_least=0.01)[0] == "open"
    assert verdict(project, **{"is": side}, over=lif, at_least=0.05)[0] == "fails"
    assert verdict(project, **{"is": side}, over=lif, at_most=0.05)[0] == "holds"
    assert verdict(project, **{"is": side}, over=lif, at_most=-0.01)[0] == "fails"
    assert verdict(project, **{"is": side}, over={**side, "quantity": "last/test/acc"}, at_least=0.01)[0] == "holds"
    energy = {**side, "quantity": "relative_energy"}
    assert verdict(project, **{"is": energy}, at_most=0.15) == (
        "fails",
        "18.75 [18.75, 18.75] %; asked: ≤ 15.00 %",
        "3",
    )
    acs = {**side, "quantity": "acs_per_image"}
    assert verdict(project, **{"is": acs}, over={**acs, "row": "LIF, T = 4"}, by="ratio", at_most=1.0) == (
        "holds", "1.00 [1.00, 1.00] ×; asked: ≤ 1.00 ×", "3"
    )  # fmt: skip
    mismatches = {"everywhere": "integer/spike_mismatches"}
    assert verdict(project, **mismatches, at_most=0) == ("holds", "kept in 6 of 6 runs", "–")
    assert verdict(project, **mismatches, at_least=1)[0] == "fails"
    assert verdict(project, needs="a chip") == ("open", "not run: a chip", "–")
    absent = {"sweep": "table_cifar10", "row": QB}
    assert verdict(project, **{"is": absent}, over=lif, at_least=0.0) == ("open", "not run", "0")


def test_one_seed_leaves_a_claim_open(project):
    (project / "docs/results/table_some.json").unlink()
    stored(project, {label: {0: seeds[0]} for label, seeds in BOTH.items()})
    side, lif = {"sweep": "table_some", "row": QB}, {"sweep": "table_some", "row": "LIF, T = 4"}
    assert verdict(project, **{"is": side}, over=lif, at_least=0.0) == (
        "open",
        "+1.00 points; asked: ≥ +0.00 points",
        "1",
    )
    assert "Too few seeds" in reading(gather(project / "conf", project / "docs/results")["table_some"].table)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({}, "a claim has one of is, everywhere and needs"),
        ({"everywhere": "integer/acc"}, "a claim has one of at_least and at_most"),
        ({"needs": "x", "claims": 1}, "Extra inputs are not permitted"),
        ({"is": {"sweep": "gone", "row": QB}, "at_least": 0.0}, "names the sweep gone"),
    ],
)
def test_a_claim_that_is_none_is_named(project, claim, message):
    with pytest.raises(DataError, match=message):
        verdict(project, **claim)


MISMATCHES = {"everywhere": "integer/spike_mismatches", "at_most": 0}


@pytest.mark.parametrize("error", ["VerificationError: integer check failed", "unproven: layers without spikes: conv1"])
def test_a_run_whose_checks_failed_breaks_what_is_claimed_of_every_run(project, error):
    path = project / "docs/results/table_some.json"
    first, *rest = read_stored(path)
    bad = replace(first, result=None, status="failed", error=error)
    store([bad, *rest], path)
    told = "kept in 5 of 6 runs; the checks of 1 failed or prove nothing"
    assert verdict(project, **MISMATCHES) == ("fails", told, "–")
    assert read_stored(path)[0].fingerprint == first.fingerprint
    store([bad, replace(rest[0], result=None, status="failed", error="the disk is full")], path)
    assert verdict(project, **MISMATCHES)[1] == "kept in 0 of 1 runs; the checks of 1 failed or prove nothing"


def test_a_run_whose_checks_failed_stays_until_it_is_done(project):
    first = read_stored(project / "docs/results/table_some.json")[0]
    bad = replace(first, result=None, status="failed", error="unproven: layers without spikes: conv1")
    gone = replace(bad, status="missing", error=None)
    assert merged([bad], [first]) == [bad] == merged([gone], [bad])
    assert merged([first], [bad]) == [first] == merged([gone], [first])


def test_a_run_of_two_sweeps_counts_once(project):
    other = project / "docs/results/table_cifar10.json"
    store(read_stored(project / "docs/results/table_some.json"), other)
    assert verdict(project, **MISMATCHES)[:2] == ("holds", "kept in 6 of 6 runs")
