from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qbsnn.report.run.verdicts import Verdict, verdicts
from qbsnn.results.schema import Absorption, Integer
from tests.report.samples import make_result


def absorption(**changes: Any) -> Verdict:
    block = make_result().absorption
    assert isinstance(block, Absorption)
    return verdicts(make_result(absorption=replace(block, **changes)))[0]


def integer(**changes: Any) -> Verdict:
    block = make_result().integer
    assert isinstance(block, Integer)
    return verdicts(make_result(integer=replace(block, **changes)))[1]


def test_sound_checks_pass_and_say_what_they_compared() -> None:
    first, second = verdicts(make_result())
    assert (first.state, second.state) == ("passed", "passed")
    assert first.lines[0] == (
        "good",
        "The absorbed network emits the trained network's spikes: 0 mismatches outside ties in 100,000 positions "
        "(3 ties), 512 images, 8,001 spikes.",
    )
    assert (
        "good",
        "The comparison can fail: one weight changed by one unit was noticed (432 mismatches).",
    ) in second.lines
    assert ("good", "onnxruntime, 128 images: 0 mismatches.") in second.lines


def silent_layers() -> list[Any]:
    block = make_result().absorption
    assert isinstance(block, Absorption)
    return [replace(block.layers[0], spikes=0), block.layers[1]]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (absorption(spike_mismatches=5), "5 of 100,000 positions differ"),
        (absorption(positions=0), "Nothing was compared"),
        (absorption(layers=silent_layers()), "proves nothing there: stem.neuron."),
        (absorption(spikes=0), "No layer emitted a spike"),
        (absorption(passed=False), "recorded this check as not passed"),
        (integer(flip_mismatches=0), "was not noticed"),
        (integer(membrane_mismatches=2), "0 spike, 2 membrane and 0 logit mismatches"),
        (integer(logit_mismatches=1), "1 logit mismatches"),
        (integer(onnxruntime_mismatches=9), "onnxruntime, 128 images: 9 mismatches"),
        (integer(layers=silent_layers()), "proves nothing there"),
    ],
)
def test_failures_are_found_even_where_the_file_says_passed(verdict: Verdict, words: str) -> None:
    assert verdict.state == "failed"
    assert any(tone == "bad" and words in text for tone, text in verdict.lines)


def test_checks_that_did_not_run() -> None:
    first, second = verdicts(make_result(absorption=None, integer={"skipped": "tau = 3"}))
    assert (first.state, second.state) == ("skipped", "skipped")
    assert "no such check" in first.lines[0][1] and second.lines == [("note", "Skipped: tau = 3")]
    assert integer(skipped="no time").state == "skipped"
    unsure = integer(onnxruntime_images=None, onnxruntime_mismatches=None)
    assert unsure.state == "passed" and ("note", "onnxruntime: not run.") in unsure.lines
