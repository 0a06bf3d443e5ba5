"""What a run comes to: the numbers that runs are compared by, and whether its proofs hold."""

from __future__ import annotations

import logging

from qbsnn.errors import VerificationError
from qbsnn.report.schema import Absorption, Integer, Result

log = logging.getLogger(__name__)


def final_metrics(result: Result) -> dict[str, float]:
    """The numbers a dashboard compares runs by."""
    final = {f"final/{name}": value for name, value in result.metrics.best.items()}
    final |= {f"final/last/{name}": value for name, value in result.metrics.last.items()}
    for name in ("absorption", "integer"):
        block = getattr(result, name)
        for key in ("acc", "spike_mismatches", "membrane_mismatches", "ties"):
            if hasattr(block, key):
                final[f"final/{name}/{key}"] = float(getattr(block, key))
    return final


def require_proof(result: Result) -> None:
    """Fail a run whose engines disagree. A silent layer proves nothing, which is a warning and not a disagreement."""
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
