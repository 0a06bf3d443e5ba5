"""What a run must prove to be called finished."""

from __future__ import annotations

import logging

from qbsnn.errors import VerificationError
from qbsnn.results.schema import Absorption, Integer, Result

log = logging.getLogger(__name__)


def require_proof(result: Result) -> None:
    """Fail a run whose engines disagree (VerificationError). A silent layer proves nothing, which is a warning."""
    for name in ("absorption", "integer"):
        block: Absorption | Integer | dict[str, str] | None = getattr(result, name)
        if block is None or isinstance(block, dict):
            continue
        silent = [layer.name for layer in block.layers if not layer.spikes]
        if silent:
            log.warning("%s proves nothing: no spikes in %s", name, ", ".join(silent))
        elif not block.passed:
            raise VerificationError(f"{name} check failed: {_disagreement(block)}; see result.json for every layer")


def _disagreement(block: Absorption | Integer) -> str:
    facts = [f"{block.spike_mismatches} of {block.positions} spikes differ"]
    if isinstance(block, Integer):
        facts += [
            f"{block.membrane_mismatches} membranes differ",
            f"{block.logit_mismatches} logits differ",
            f"{block.onnxruntime_mismatches} values differ in onnxruntime",
            f"{block.grid_mismatches} values differ in the grid network",
            f"{block.overflows} overflows" + (f", the first: {block.first_overflow}" if block.first_overflow else ""),
            f"a flipped weight gave {block.flip_mismatches} differences",
        ]
    return ", ".join(facts)
