"""What a run proved, in plain words, from nothing but its result."""

from __future__ import annotations

from dataclasses import dataclass, field

from qbsnn.results.formatting import counted, number, percent
from qbsnn.results.schema import Absorption, Integer, Result


@dataclass
class Verdict:
    """One check. ``state``: ``passed``, ``failed`` or ``skipped``. ``lines``: a tone and a sentence each.

    The tones: ``good`` (shown), ``bad`` (shown to be wrong, or not shown though it should be), ``warn`` and ``note``.
    """

    title: str
    state: str = "skipped"
    lines: list[tuple[str, str]] = field(default_factory=list)

    def add(self, tone: str, text: str) -> None:
        """Append a sentence."""
        self.lines.append((tone, text))

    def settle(self, passed: bool) -> Verdict:
        """Set the state. A check recorded as passed whose own figures say otherwise has failed."""
        wrong = any(tone == "bad" for tone, _ in self.lines)
        if not passed and not wrong:
            self.add("bad", "The run recorded this check as not passed.")
        if passed and wrong:
            self.add("bad", "The run recorded this check as passed, which the figures above contradict.")
        self.state = "passed" if passed and not wrong else "failed"
        return self


def verdicts(result: Result) -> list[Verdict]:
    """The verdicts on absorption and on the integer network."""
    return [_absorption(result.absorption), _integer(result.integer)]


def reason(block: Absorption | Integer | dict[str, str] | None) -> str | None:
    """Why a check did not run, in words; ``None`` for one that did."""
    if block is None:
        return "Not run: result.json holds no such check."
    skipped = block.get("skipped") if isinstance(block, dict) else block.skipped
    return f"Skipped: {skipped}" if skipped is not None else None


def _absorption(block: Absorption | dict[str, str] | None) -> Verdict:
    verdict = Verdict("Absorbed network = trained network")
    why = reason(block)
    if why or not isinstance(block, Absorption):
        verdict.add("note", why or "")
        return verdict
    wrong = block.spike_mismatches or sum(layer.mismatches for layer in block.layers)
    if wrong:
        text = f"{number(wrong)} of {number(block.positions)} positions differ outside ties; there must be none."
        verdict.add("bad", f"The absorbed network does not emit the trained network's spikes: {text}")
    elif block.positions:
        verdict.add(
            "good",
            f"The absorbed network emits the trained network's spikes: 0 mismatches outside ties in "
            f"{number(block.positions)} positions ({counted(block.ties, 'tie')}), "
            f"{counted(block.images, 'image')}, {counted(block.spikes, 'spike')}.",
        )
    _alive(verdict, block)
    if block.free_running_mismatches:
        differ = number(block.free_running_mismatches)
        text = f"Each network on its own spikes: {differ} positions differ (one flip changes what follows it)."
        verdict.add("note", text)
    else:
        verdict.add("note", "Each network on its own spikes: no position differs.")
    trained, absorbed = percent(block.trained_acc), percent(block.acc)
    verdict.add("note", f"Accuracy on these images: trained {trained}, absorbed {absorbed}.")
    verdict.add("note", f"Checkpoint: {block.checkpoint}.")
    return verdict.settle(block.passed)


def _integer(block: Integer | dict[str, str] | None) -> Verdict:
    verdict = Verdict("Integer network = independent int64 engine")
    why = reason(block)
    if why or not isinstance(block, Integer):
        verdict.add("note", why or "")
        return verdict
    spikes = block.spike_mismatches or sum(layer.mismatches for layer in block.layers)
    membranes = block.membrane_mismatches or sum(layer.membrane_mismatches for layer in block.layers)
    if spikes or membranes or block.logit_mismatches:
        verdict.add(
            "bad",
            f"The integer network differs from the independent int64 engine: "
            f"{number(spikes)} spike, {number(membranes)} membrane and "
            f"{number(block.logit_mismatches)} logit mismatches in {number(block.positions)} positions.",
        )
    elif block.positions:
        verdict.add(
            "good",
            f"The integer network equals the independent int64 engine in every spike, membrane and logit: 0 mismatches "
            f"in {number(block.positions)} positions, {counted(block.images, 'image')}, "
            f"{counted(block.spikes, 'spike')}.",
        )
    _alive(verdict, block)
    if block.flip_mismatches > 0:
        seen = counted(block.flip_mismatches, "mismatch", "mismatches")
        verdict.add("good", f"The comparison can fail: one weight changed by one unit was noticed ({seen}).")
    else:
        verdict.add("bad", "One weight changed by one unit was not noticed: the comparison proves nothing.")
    _onnxruntime(verdict, block)
    _grid(verdict, block)
    _early(verdict, block)
    _facts(verdict, block)
    return verdict.settle(block.passed)


def _alive(verdict: Verdict, block: Absorption | Integer) -> None:
    if not block.positions:
        verdict.add("bad", "Nothing was compared: 0 positions.")
    silent = [layer.name for layer in block.layers if layer.spikes == 0]
    if not block.spikes:
        verdict.add("bad", "No layer emitted a spike, so agreement proves nothing.")
    elif silent:
        verdict.add("bad", f"Silent, so agreement proves nothing there: {', '.join(silent)}.")


def _onnxruntime(verdict: Verdict, block: Integer) -> None:
    if block.onnxruntime_skipped is not None:
        verdict.add("note", f"onnxruntime: skipped, {block.onnxruntime_skipped}")
    elif not block.onnxruntime_images or block.onnxruntime_mismatches is None:
        verdict.add("note", "onnxruntime: not run.")
    else:
        found = counted(block.onnxruntime_mismatches, "mismatch", "mismatches")
        tone = "bad" if block.onnxruntime_mismatches else "good"
        verdict.add(tone, f"onnxruntime, {counted(block.onnxruntime_images, 'image')}: {found}.")


def _grid(verdict: Verdict, block: Integer) -> None:
    """The network that training on the grid computes, and what that training gained."""
    if block.grid_mismatches is not None:
        found = counted(block.grid_mismatches, "mismatch", "mismatches")
        words = "trained on the grid" if block.mode == "qat" else "rounded after training"
        verdict.add("bad" if block.grid_mismatches else "good", f"Grid network ({words}), all images: {found}.")
    if block.qat_acc is not None and block.ptq_acc is not None and block.float_comparator_acc is not None:
        accuracies = [percent(value) for value in (block.ptq_acc, block.qat_acc, block.float_comparator_acc)]
        text = "Accuracy only rounded {}, fine-tuned on the grid {}, float network after as many epochs {}."
        verdict.add("note", text.format(*accuracies))


def _early(verdict: Verdict, block: Integer) -> None:
    """What early exit gives."""
    if isinstance(block.exit, dict):
        verdict.add("note", f"Early exit: {block.exit['skipped']}.")
    elif block.exit is not None and block.exit.images:
        found, whole = block.exit, percent(block.exit.right_whole / block.exit.images)
        wrong = counted(found.mismatches, "mismatch", "mismatches")
        verdict.add(
            "bad" if found.mismatches else "good",
            f"Early exit at a margin of {number(found.margin)}: {percent(found.acc)} ({whole} with all steps), "
            f"{found.mean_steps:.2f} of {len(found.steps)} steps, {percent(found.share)} of the accumulates; {wrong} "
            "in steps and classes between the engines.",
        )


def _facts(verdict: Verdict, block: Integer) -> None:
    if block.overflows:
        first = f" (the first: {block.first_overflow})" if block.first_overflow else ""
        handled = {"saturate": "saturated", "wrap": "wrapped around"}.get(block.overflow)
        tone, what = ("warn", "overflow") if handled is None else ("note", "membrane overflow")
        text = counted(block.overflows, what)
        verdict.add(tone, f"{text}{first}, {handled}." if handled else f"{text} during the run{first}.")
    if block.multiplying_layers:
        verdict.add("note", f"Not free of products: {', '.join(block.multiplying_layers)}.")
    if block.promise:
        verdict.add("note", f"Profile {block.profile}, {block.promise}.")
    for finding in block.findings:
        text = f"{finding.layer}: {finding.what} {finding.value}, the target has {finding.limit}"
        verdict.add("warn", f"Does not fit {block.profile}: {text}.")
    bits = f"{block.accumulator_bits} of 32 bits, membranes {block.membrane_bits} of {block.register_bits}"
    narrow = block.overflow == "error" and block.membrane_bits > block.register_bits
    tone = "warn" if narrow or block.accumulator_bits > 32 else "note"
    verdict.add(tone, f"Weights have {block.weight_bits} bits; accumulators need {bits}.")
    if block.layers:
        most = max(block.layers, key=lambda layer: layer.disagreement)
        verdict.add(
            "note",
            f"Rounding the weights changes spikes: up to {percent(most.disagreement)} of the positions in a layer "
            f"({most.name}) differ from the absorbed network. A fact to know, not a check.",
        )
    integer, absorbed = percent(block.acc), percent(block.absorbed_acc)
    before = "before rounding" if block.mode == "qat" else "absorbed"
    verdict.add("note", f"Accuracy on these images: {before} {absorbed}, integer {integer}.")
    verdict.add("note", f"Checkpoint: {block.checkpoint}.")
