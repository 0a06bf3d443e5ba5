"""Verdicts of claims, against numbers worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from scipy import stats

from qbsnn.errors import DataError
from qbsnn.report.tables.claims import Claim, count_tested, judge, ledger, read_claims
from qbsnn.report.tables.evidence import COMPARED, gather, reading
from qbsnn.report.tables.pages import KINDS, Pages
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
    assert verdict(project, **{"is": side}, over={**side, "quantity": "last/test/acc"}, at_least=0.01)[0] == "open"
    energy = {**side, "quantity": "relative_energy"}
    assert verdict(project, **{"is": energy}, at_most=0.15) == ("open", "18.75 %; asked: ≤ 15.00 %", "3")  # all equal
    acs = {**side, "quantity": "acs_per_image"}
    assert verdict(project, **{"is": acs}, over={**acs, "row": "LIF, T = 4"}, by="ratio", at_most=1.0) == (
        "open", "1.00 ×; asked: ≤ 1.00 ×", "3"
    )  # fmt: skip
    none = {**side, "quantity": "integer/spike_mismatches"}
    with pytest.raises(DataError, match=r"'c': no ratio to QB-LIF.*, whose integer/spike_mismatches is 0"):
        verdict(project, **{"is": acs}, over=none, by="ratio", at_most=1.0)
    mismatches = {"everywhere": "integer/spike_mismatches"}
    assert verdict(project, **mismatches, at_most=0) == ("holds", "kept in 6 of 6 runs", "–")
    assert verdict(project, **mismatches, at_least=1)[0] == "fails"
    assert verdict(project, needs="a chip") == ("open", "not run: a chip", "–")
    absent = {"sweep": "table_cifar10", "row": QB}
    assert verdict(project, **{"is": absent}, over=lif, at_least=0.0) == ("open", "not run", "0")


def test_better_is_more_than_equal(project):
    side, lif = {"sweep": "table_some", "row": QB}, {"sweep": "table_some", "row": "LIF, T = 4"}
    low = 0.02 - stats.t.ppf(0.975, 2) * 0.01 / 3**0.5
    assert verdict(project, **{"is": side}, over=lif, above=low - 1e-9)[0] == "holds"
    assert verdict(project, **{"is": side}, over=lif, above=0.01)[1].endswith("asked: > +1.00 points")
    for bound in ({"at_least": 0.0}, {"above": 0.0}):
        found = verdict(project, **{"is": side}, over=side, **bound)
        assert found[0] == "open" and found[1].startswith("+0.00 points; asked: ")


def test_accuracies_one_image_apart_in_every_pair_leave_a_claim_open(project):
    """Stored as float32, their differences are not the same number; that is rounding and no spread of seeds."""
    more = {seed: torch.tensor(images / 360).item() for seed, images in enumerate((350, 341, 333))}
    fewer = {seed: torch.tensor(images / 360).item() for seed, images in enumerate((349, 340, 332))}
    (project / "docs/results/table_some.json").unlink()
    stored(project, {"LIF, T = 4": fewer, QB: more})
    side, lif = {"sweep": "table_some", "row": QB}, {"sweep": "table_some", "row": "LIF, T = 4"}
    found = verdict(project, **{"is": side}, over=lif, above=0.0)
    assert found == ("open", "+0.28 points; asked: > +0.00 points", "3")


def test_the_ledger_says_how_many_claims_are_tested_and_what_correction_leaves(project):
    side = {"is": {"sweep": "table_some", "row": QB}, "section": "s"}
    # accuracies of 0.91, 0.93, 0.95: t of the distance from 0.86 is 0.07 √3 / 0.02
    claims = [
        Claim.model_validate({"claim": name, **side, "after": name == "a", "at_least": bound})
        for name, bound in (("a", 0.86), ("b", 0.88), ("c", 0.92))
    ]
    claims.append(Claim(claim="d", section="s", needs="a chip"))
    evidence = gather(project / "conf", project / "docs/results")
    a, b, c, d = [line.split(" | ") for line in ledger(claims, evidence, "results")[2:]]
    ps = [2 * stats.t.sf(t * 3**0.5 / 0.02, 2) for t in (0.07, 0.05, 0.01)]
    assert a[0] == "| a †" and (a[3], a[4]) == (f"{ps[0]:.2g}", f"{3 * ps[0]:.2g}")
    assert (b[1], b[3], b[4]) == ("open" if ps[1] > 0.05 else "holds", f"{ps[1]:.2g}", f"{2 * ps[1]:.2g}")
    assert (c[3], c[4]) == (f"{ps[2]:.2g}", f"{ps[2]:.2g}") and (d[3], d[4]) == ("–", "–")
    text = count_tested(claims, evidence)
    assert "3 claims are tested, 2 of them hold or fail, and 0 of these keep p < 0.05" in text
    assert "† (1 of the tested claims): written when some of its runs had already finished. ‡ (0 of them)" in text


def test_a_number_of_runs_of_several_commits_is_marked(project):
    path, docs = project / "docs/results/table_some.json", project / "docs"
    first, *rest = read_stored(path)
    store([replace(first, result=replace(first.result, git_commit="f00", execution="compile=none")), *rest], path)
    assert read_stored(path)[0].result.execution == "compile=none"
    evidence = gather(project / "conf", docs / "results")
    sides = {"is": {"sweep": "table_some", "row": QB}, "over": {"sweep": "table_some", "row": "LIF, T = 4"}}
    claim = Claim.model_validate({"claim": "c", "section": "s", **sides, "above": 0.0})
    assert " points ‡ | " in ledger([claim], evidence, "results")[2]
    costs = KINDS["costs"](Pages(evidence, docs), "", "")
    assert costs.splitlines()[-1].endswith("| f00, 0123abc | LIF, T = 4 |")


@pytest.mark.parametrize(("spread", "words"), [(1, "differ by"), (3, "do not differ by")])
def test_what_seeds_explain_by_hand(spread, words):
    """Two rows of three, means 4 apart. Of ±1 F = 24 and p = 0.008; of ±3 F = 24/9 and p = 0.18."""
    cells = pd.DataFrame({"label": list("aaabbb"), COMPARED: [0, spread, -spread, 4, 4 + spread, 4 - spread]})
    means = pd.concat({COMPARED: pd.DataFrame({"mean": [0, 4], "std": spread, "count": 3}, ["a", "b"])}, axis=1)
    text = reading(SimpleNamespace(cells=cells, means=means))
    assert f"The rows {words} more than seeds explain (one-way" in text
    assert f"p = {0.008 if spread == 1 else 0.18}" in text
    cells[COMPARED] = means[COMPARED, "mean"] = 0.5
    assert reading(SimpleNamespace(cells=cells, means=means)).startswith("All rows have the same test accuracy")


@pytest.mark.parametrize(("seeds", "found"), [(1, "+1.00"), (2, "+1.50 [−4.85, +7.85]")])
def test_fewer_than_three_seeds_leave_a_claim_open(project, seeds, found):
    """A difference of 1 point, or of 1 and 2: 1.5 ± 12.706/2."""
    (project / "docs/results/table_some.json").unlink()
    stored(project, {label: {seed: each[seed] for seed in range(seeds)} for label, each in BOTH.items()})
    side, lif = {"sweep": "table_some", "row": QB}, {"sweep": "table_some", "row": "LIF, T = 4"}
    for bound, asked in ((-0.2, "−20.00"), (0.0, "+0.00"), (0.2, "+20.00")):
        text = f"{found} points; asked: ≥ {asked} points"
        assert verdict(project, **{"is": side}, over=lif, at_least=bound) == ("open", text, str(seeds))
    found = reading(gather(project / "conf", project / "docs/results")["table_some"].table)
    assert ("Too few seeds" in found) == (seeds == 1)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({}, "a claim has one of is, everywhere and needs"),
        ({"everywhere": "integer/acc"}, "a claim has one of at_least, above and at_most"),
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
