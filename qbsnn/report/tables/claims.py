"""Claims and what the stored results say of each: a ledger whose verdicts are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qbsnn.errors import DataError
from qbsnn.report.tables.evidence import Evidence, of_runs, values
from qbsnn.results.formatting import NONE
from qbsnn.results.statistics import paired

SEEDS = 3
"""Seeds from which on a claim can hold or fail; with fewer it is open."""


class Side(BaseModel):
    """A quantity of a row of a sweep."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sweep: str
    row: str
    quantity: str = "test/acc"


class Claim(BaseModel):
    """One row of the ledger.

    section: which page's ledger it stands in. is: what is measured, by seed. over: what that is compared with. by:
    whether the two are subtracted or divided. at_least, at_most: the bound, in the units of ``result.json``.
    everywhere: a quantity that is to keep the bound in every stored run. needs: what would decide a claim that no
    sweep decides.
    """

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    claim: str
    section: str
    what: Side | None = Field(default=None, alias="is")
    over: Side | None = None
    by: Literal["difference", "ratio"] = "difference"
    at_least: float | None = None
    at_most: float | None = None
    everywhere: str | None = None
    needs: str | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Claim:
        if sum(kind is not None for kind in (self.what, self.everywhere, self.needs)) != 1:
            raise ValueError("a claim has one of is, everywhere and needs")
        if self.needs is None and (self.at_least is None) == (self.at_most is None):
            raise ValueError("a claim has one of at_least and at_most")
        return self


@dataclass(frozen=True)
class Verdict:
    """What was found: ``holds``, ``fails`` or ``open``, the numbers, the sweeps they are from, how many seeds."""

    word: str
    found: str
    sweeps: list[str]
    seeds: str


def read_claims(path: Path) -> list[Claim]:
    """The claims of a YAML file.

    Raises:
        DataError: The file is absent or has a claim that is not one; the message names it.
    """
    try:
        return [Claim.model_validate(entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: {first['loc']} {first['msg']}, got {str(first['input'])[:120]}") from error


def judge(claim: Claim, evidence: Mapping[str, Evidence]) -> Verdict:
    """Decide a claim: it holds or fails where the whole 95 % interval over at least three seeds does.

    Raises:
        DataError: The claim names a sweep, row or quantity that there is not.
    """
    if claim.needs is not None:
        return Verdict("open", f"not run: {claim.needs}", [], NONE)
    if claim.everywhere is not None:
        return _everywhere(claim, claim.everywhere, evidence)
    assert claim.what is not None
    sides = [side for side in (claim.what, claim.over) if side is not None]
    ours, *others = (values(_of(side, evidence), side.row, side.quantity) for side in sides)
    if others:
        both = [seed for seed in ours if seed in others[0]]
        divide = claim.by == "ratio"
        ours = {seed: ours[seed] / others[0][seed] if divide else ours[seed] - others[0][seed] for seed in both}
    sweeps = list(dict.fromkeys(side.sweep for side in sides))
    bound, sign = (claim.at_least, 1) if claim.at_least is not None else (claim.at_most, -1)
    assert bound is not None
    margin = paired(ours, dict.fromkeys(ours, bound))
    if margin is None:
        return Verdict("open", "not run", sweeps, "0")
    shown, unit = _shown(claim)
    text = shown(margin.mean + bound)
    if margin.low is not None and margin.high is not None:
        text += f" [{shown(margin.low + bound)}, {shown(margin.high + bound)}]"
    ends = sorted(sign * end for end in (margin.low, margin.high) if end is not None) if margin.pairs >= SEEDS else []
    tiny = 1e-12  # of rounding, where all seeds are equal to the bound
    word = "open" if not ends else "holds" if ends[0] >= -tiny else "fails" if ends[1] < 0 else "open"
    asked = f"asked: {'≥' if sign > 0 else '≤'} {shown(bound)}{unit}"
    return Verdict(word, f"{text}{unit}; {asked}", sweeps, str(margin.pairs))


def _of(side: Side, evidence: Mapping[str, Evidence]) -> Evidence:
    if side.sweep not in evidence:
        raise DataError(f"a claim names the sweep {side.sweep}, which conf/sweep has not")
    return evidence[side.sweep]


def _everywhere(claim: Claim, key: str, evidence: Mapping[str, Evidence]) -> Verdict:
    """Over the runs that have the quantity, and those whose checks failed: a run of two sweeps counts once."""
    found = {name: of_runs(each, key) for name, each in evidence.items()}
    unproven = frozenset[str]().union(*(each.unproven for each in evidence.values()))
    every = unproven.union(*found.values())
    if not every:
        return Verdict("open", "not run", [], "0")
    low, high = claim.at_least, claim.at_most
    wrong = unproven | {
        run
        for each in found.values()
        for run, value in each.items()
        if (low is not None and value < low) or (high is not None and value > high)
    }
    text = f"kept in {len(every) - len(wrong)} of {len(every)} runs"
    if unproven:
        text += f"; the checks of {len(unproven)} failed or prove nothing"
    sweeps = [name for name, each in found.items() if each or evidence[name].unproven]
    return Verdict("fails" if wrong else "holds", text, sweeps, NONE)


def _shown(claim: Claim) -> tuple[Callable[[float], str], str]:
    """How the compared number is written, and its unit: a ratio, points, per cent, or as it is."""
    assert claim.what is not None
    share = claim.what.quantity == "relative_energy" or claim.what.quantity.endswith("acc")
    if claim.by == "ratio" and claim.over is not None:
        return lambda value: f"{value:.2f}", " ×"
    if not share:
        return lambda value: f"{value:.4g}".replace("-", "−"), ""
    plus, unit = ("+", " points") if claim.over is not None else ("", " %")
    return lambda value: f"{100 * value:{plus}.2f}".replace("-", "−"), unit


def ledger(claims: list[Claim], evidence: Mapping[str, Evidence], results: str) -> list[str]:
    """The lines of a Markdown table; ``results`` is the folder of stored files as a link has it."""
    lines = ["| claim | verdict | found | evidence | seeds |", "|---|---|---|---|--:|"]
    for claim in claims:
        verdict = judge(claim, evidence)
        if len(verdict.sweeps) > 2:
            proof = f"{len(verdict.sweeps)} files of [results]({results})"
        else:
            stored = [f"[{n}]({results}/{n}.json)" if evidence[n].table else f"`{n}`" for n in verdict.sweeps]
            proof = ", ".join(stored) or NONE
        lines.append(f"| {claim.claim} | {verdict.word} | {verdict.found} | {proof} | {verdict.seeds} |")
    return lines
