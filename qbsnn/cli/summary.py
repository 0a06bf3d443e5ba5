"""The table printed at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qbsnn.callbacks.progress import summary_table
from qbsnn.results.files import BEST, from_here
from qbsnn.results.formatting import NONE, SPACE, counted, percent
from qbsnn.results.quantities import SUMMARY, listed, texts
from qbsnn.results.schema import Absorption, Energy, Integer, Result


def summarise(result: Result) -> None:
    """Print what a newcomer wants to know: accuracies, what was proven, where the files are.

    A quantity with the view ``summary`` has a line of its own; the other lines say what was proven and of what.
    """
    shown = texts(result)
    rows = [("data", _data(result.data))] if result.data else []
    rows.append(("test accuracy", _accuracies(shown, result)))
    rows.append(("absorbed network", _absorption(result.absorption)))
    rows += _integer(result.integer)
    for quantity in listed(SUMMARY):
        if shown[quantity.key] != NONE:
            rows.append((quantity.title, "; ".join(filter(None, (shown[quantity.key], quantity.meaning)))))
    rows += _energy(result.energy)
    if result.timing.epochs:
        rows.append(("training", f"{counted(result.timing.epochs, 'epoch')} in {result.timing.fit_seconds:.1f} s"))
    rows = [(name, text.replace(SPACE, " ")) for name, text in rows]
    folder = Path(result.config["paths"]["run"])
    for name, what in (("report.html", "report"), ("result.json", "numbers")):
        if (folder / name).is_file():
            rows.append((what, str(from_here(folder / name))))
    if "best" in result.checkpoints:
        rows.append(("checkpoint", str(from_here(folder / result.checkpoints["best"]))))
    s_max = result.config["neuron"].get("s_max")
    settings = [f"s_max = {s_max}"] * (s_max is not None) + [f"T = {result.config['T']}", f"seed {result.seed}"]
    summary_table(rows, f"qbsnn: {', '.join([result.config['name'], *settings])}")


def _data(data: dict[str, Any]) -> str:
    kind = " (simulated events)" if data["simulated"] else ""
    skipped = {part: len(names) for part, names in data.get("skipped", {}).items()}
    told = [
        f"{count:,} of {count + skipped[part]:,} {part} (the others cannot be read)"
        if part in skipped
        else f"{count:,} {part}"
        for part, count in data["samples"].items()
    ]
    return f"{data['name']}{kind}: {', '.join(told)}"


def _accuracies(shown: dict[str, str], result: Result) -> str:
    """The accuracies with the weights that they are of; without a selected epoch there are those of the last alone."""
    if result.metrics.best == result.metrics.last:
        shown = {**shown, "test/acc": NONE}
    given = Path(result.checkpoints.get("best", BEST.name)).name  # evaluate.py takes any
    named = (("test/acc", "best by validation" if given == BEST.name else given), ("last/test/acc", "last epoch"))
    return ", ".join(f"{shown[key]} ({name})" for key, name in named if shown[key] != NONE)


def _absorption(block: Absorption | dict[str, str] | None) -> str:
    if not isinstance(block, Absorption):
        return _why_not(block)
    verdict = "equal" if block.passed else "NOT PROVEN"
    return f"{verdict}: {block.spike_mismatches} mismatches in {block.positions:,} positions ({block.ties} ties)"


def _integer(block: Integer | dict[str, str] | None) -> list[tuple[str, str]]:
    if not isinstance(block, Integer):
        return [("integer network", _why_not(block))]
    verdict = "equal" if block.passed else "NOT PROVEN"
    bits = f"{block.weight_bits}-bit weights, {block.membrane_bits}-bit membrane"
    rows = [
        ("integer accuracy", f"{percent(block.acc)} ({block.mode}, {bits})"),
        (
            "against int64 engine",
            f"{verdict}: {block.spike_mismatches} spike and {block.membrane_mismatches} membrane mismatches, "
            f"{block.images:,} images (one flipped weight: {block.flip_mismatches:,})",
        ),
    ]
    if block.qat_acc is not None and block.ptq_acc is not None and block.float_comparator_acc is not None:
        rounded, floating = percent(block.ptq_acc), percent(block.float_comparator_acc)
        found = f"{percent(block.qat_acc)}; only rounded {rounded}, float after as many epochs {floating}"
        rows.insert(1, ("fine-tuned on the grid", found))
    if block.findings:
        layers = ", ".join(dict.fromkeys(finding.layer for finding in block.findings))
        rows.append((f"does not fit {block.profile}", f"{len(block.findings)} findings in {layers}"))
    if block.onnxruntime_images is not None:
        rows.append(
            ("against onnxruntime", f"{block.onnxruntime_mismatches} mismatches, {block.onnxruntime_images:,} images")
        )
    else:
        rows.append(("against onnxruntime", f"not run: {block.onnxruntime_skipped}"))
    return rows


def _energy(block: Energy | dict[str, str] | None) -> list[tuple[str, str]]:
    if not isinstance(block, Energy):
        return [("energy (estimate)", _why_not(block))]
    if block.spikes_per_synapse is not None and block.mean_rate is not None:
        low, high = block.break_even
        found = f"{block.spikes_per_synapse:.3g} per inference (published break-even {low:g} to {high:g})"
        rate = f"mean rate {percent(block.mean_rate)} (published {percent(block.break_even_rate)})"
        return [("spikes per synapse", f"{found}, {rate}")]
    return []


def _why_not(block: dict[str, str] | None) -> str:
    return "not run" if block is None else f"none: {block['skipped']}"
