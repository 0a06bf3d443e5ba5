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
from qbsnn.results.statistics import holm, paired

SEEDS = 3
"""Seeds from which on a claim can hold or fail; with fewer it is open."""


MARK = " †"
"""Of a claim that was committed after runs of it."""
MIXED = " ‡"
"""Of a number whose runs are of more than one commit."""


class Side(BaseModel):
    """A quantity of a row of a sweep."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sweep: str
    row: str
    quantity: str = "test/acc"


class Claim(BaseModel):
    """One row of the ledger.

    section: which page's ledger it stands in. is: what is measured, by seed. over: what that is compared with. by:
    whether the two are subtracted or divided. at_least, above, at_most: the bound, in the units of ``result.json``.
    everywhere: a quantity that is to keep the bound in every stored run. needs: what would decide a claim that no
    sweep decides. after: whether it was committed when runs of it were already finished.
    """

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    claim: str
    section: str
    what: Side | None = Field(default=None, alias="is")
    over: Side | None = None
    by: Literal["difference", "ratio"] = "difference"
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    everywhere: str | None = None
    needs: str | None = None
    after: bool = False

    @model_validator(mode="after")
    def _one_of_each(self) -> Claim:
        if sum(kind is not None for kind in (self.what, self.everywhere, self.needs)) != 1:
            raise ValueError("a claim has one of is, everywhere and needs")
        if self.needs is None and sum(bound is not None for bound in (self.at_least, self.above, self.at_most)) != 1:
            raise ValueError("a claim has one of at_least, above and at_most")
        if self.everywhere is not None and self.above is not None:
            raise ValueError("a claim of every run has one of at_least and at_most")
        return self


@dataclass(frozen=True)
class Verdict:
    """What was found: ``holds``, ``fails`` or ``open``, the numbers, the sweeps they are from, how many seeds.

    p: two-sided, of Student's paired t against the bound; ``None`` without an interval of at least three seeds. mixed:
    whether the runs are of more than one commit.
    """

    word: str
    found: str
    sweeps: list[str]
    seeds: str
    p: float | None = None
    mixed: bool = False


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

    Seeds that are all equal have no interval and leave it open.

    Raises:
        DataError: The claim names a sweep, row or quantity that there is not, or is a ratio to 0.
    """
    if claim.needs is not None:
        return Verdict("open", f"not run: {claim.needs}", [], NONE)
    if claim.everywhere is not None:
        return _everywhere(claim, claim.everywhere, evidence)
    assert claim.what is not None
    sides = [side for side in (claim.what, claim.over) if side is not None]
    ours, *others = (values(_of(side, evidence), side.row, side.quantity) for side in sides)
    bound, sign = next(
        (bound, sign)
        for bound, sign in ((claim.at_least, "≥"), (claim.above, ">"), (claim.at_most, "≤"))
        if bound is not None
    )
    against = dict.fromkeys(ours, bound)
    if others:
        both = [seed for seed in ours if seed in others[0]]
        divide = claim.by == "ratio"
        if divide and not all(others[0][seed] for seed in both):
            raise DataError(f"{claim.claim!r}: no ratio to {sides[1].row}, whose {sides[1].quantity} is 0")
        ours = {seed: ours[seed] / others[0][seed] if divide else ours[seed] for seed in both}
        if not divide:  # the compared values themselves, by whose size their rounding is judged
            against = {seed: others[0][seed] + bound for seed in both}
    sweeps = list(dict.fromkeys(side.sweep for side in sides))
    margin = paired(ours, against)
    if margin is None:
        return Verdict("open", "not run", sweeps, "0")
    shown, unit = _shown(claim)
    text = shown(margin.mean + bound)
    if margin.low is not None and margin.high is not None:
        text += f" [{shown(margin.low + bound)}, {shown(margin.high + bound)}]"
    ends = [(-end if sign == "≤" else end) for end in (margin.low, margin.high) if end is not None]
    word = "open"
    if ends and margin.pairs >= SEEDS:
        holds = min(ends) > 0 if sign == ">" else min(ends) >= 0
        word = "holds" if holds else "fails" if max(ends) < 0 else word
    asked = f"asked: {sign} {shown(bound)}{unit}"
    p = margin.p if margin.pairs >= SEEDS else None
    runs = [cells[cells["seed"].isin(list(ours))] for cells in (_of(side, evidence).cells(side.row) for side in sides)]
    mixed = len({commit for each in runs for commit in each["commit"]}) > 1
    return Verdict(word, f"{text}{unit}; {asked}", sweeps, str(margin.pairs), p, mixed)


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
    """The lines of a Markdown table; ``results`` is the folder of stored files as a link has it.

    p is corrected among the tested claims of one section.
    """
    verdicts = [judge(claim, evidence) for claim in claims]
    corrected: dict[int, float] = {}
    for section in {claim.section for claim in claims}:
        tested = {at: v.p for at, v in enumerate(verdicts) if claims[at].section == section and v.p is not None}
        corrected |= zip(tested, holm([*tested.values()]), strict=True)
    lines = ["| claim | verdict | found | p | p, Holm | evidence | seeds |", "|---|---|---|--:|--:|---|--:|"]
    for at, (claim, verdict) in enumerate(zip(claims, verdicts, strict=True)):
        if len(verdict.sweeps) > 2:
            proof = f"{len(verdict.sweeps)} files of [results]({results})"
        else:
            stored = [f"[{n}]({results}/{n}.json)" if evidence[n].table else f"`{n}`" for n in verdict.sweeps]
            proof = ", ".join(stored) or NONE
        text, found = claim.claim + MARK * claim.after, verdict.found + MIXED * verdict.mixed
        ps = f"{_p(verdict.p)} | {_p(corrected.get(at))}"
        lines.append(f"| {text} | {verdict.word} | {found} | {ps} | {proof} | {verdict.seeds} |")
    return lines


def _p(p: float | None) -> str:
    return NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"


def count_tested(claims: list[Claim], evidence: Mapping[str, Evidence]) -> str:
    """How many claims are tested, and how many verdicts are left when all of them are corrected for."""
    found = [(claim, verdict) for claim in claims if (verdict := judge(claim, evidence)).p is not None]
    decided = [verdict.word != "open" for _, verdict in found]
    kept = [p < 0.05 for p in holm([verdict.p for _, verdict in found if verdict.p is not None])]
    left = sum(word and p for word, p in zip(decided, kept, strict=True))
    return (
        f"Verdicts are by single 95 % intervals: {len(found)} claims are tested, {sum(decided)} of them hold or fail, "
        f"and {left} of these keep p < 0.05 after Holm's correction over all tested claims. p is that of the interval, "
        f"two-sided; *p, Holm* is corrected within its section.{MARK} ({sum(claim.after for claim, _ in found)} of the "
        "tested claims): written when some of its runs had already finished."
        f"{MIXED} ({sum(verdict.mixed for _, verdict in found)} of them): its runs come from more than one commit."
    )
