"""All engines against the int64 engine, layer by layer: ``python scripts/verify.py ckpt=PATH``.

Other words change single keys of the checkpoint's configuration: deploy.overflow=wrap deploy.membrane_bits=16;
compile=neuron or block also has the int8 engine run its neurons as compiled kernels.
Exits with 1 at the first batch in which anything differs, or in which a membrane overflows under the policy "error".
"""

from __future__ import annotations

from pydantic import Field

from qbsnn.cli import launch as cli
from qbsnn.cli.keys import CheckpointKeys
from qbsnn.errors import VerificationError


class Verification(CheckpointKeys):
    """The keys of this tool."""

    images: int | None = Field(default=None, ge=1, description="how many test images; default: all")
    scalar: int = Field(default=1, ge=0, description="how many of them also go through plain Python, which is slow")


def main(given: Verification) -> None:
    from qbsnn.cli.checkpoints import changes, deployed_network, opened
    from qbsnn.data.loading import first_inputs
    from qbsnn.deploy.convert.profiles import misfits
    from qbsnn.deploy.verify.agreement import Row, compare_engines

    checkpoint = opened(given)
    parts, deployed = deployed_network(checkpoint, given.outputs / "verify")
    quantized = deployed.quantized

    totals: dict[tuple[str, str], Row] = {}
    seen, wrong, spiked = 0, None, set()
    images = first_inputs(parts.data.test_dataloader(), given.images)
    compared = compare_engines(quantized, deployed.grid, images, given.scalar, parts.module.network.compiled)
    for rows, yardstick in compared:
        seen += len(yardstick.logits)
        spiked |= {stage.name for stage, s in zip(quantized.net.stages, yardstick.spikes, strict=True) if s.any()}
        for row in rows:
            total = totals.setdefault((row.engine, row.layer), Row(row.engine, row.layer))
            total.spikes, total.membranes = total.spikes + row.spikes, total.membranes + row.membranes
            total.values += row.values
            wrong = wrong or (f"{row.engine}, {row.layer}: {row.first}" if row.first else None)
        if yardstick.first_overflow is not None and quantized.net.overflow == "error":
            width = quantized.net.membrane_bits
            raise VerificationError(f"a value does not fit {width} bits: {yardstick.first_overflow}")
        if wrong:
            break
    show(list(totals.values()), seen, deployed.mode)
    print(*(f"warning: {line}\n" for line in [*changes(checkpoint), *misfits(quantized)]), sep="", end="")
    if wrong:
        raise VerificationError(f"engines differ: {wrong}")
    silent = ", ".join(stage.name for stage in quantized.net.stages if stage.name not in spiked)
    print("all engines agree" + (f"; this says nothing of layers without spikes: {silent}" if silent else ""))


def show(rows: list, images: int, mode: str) -> None:
    """Print differences per layer and engine."""
    names = list(dict.fromkeys(row.engine for row in rows))
    layers = list(dict.fromkeys(row.layer for row in rows))
    cells = {(row.engine, row.layer): f"{row.spikes}+{row.membranes}" for row in rows}
    width = max(len(layer) for layer in [*layers, "layer"])
    print(f"{mode}, {images} images; differing spikes + membranes against the numpy int64 engine")
    print("  ".join([f"{'layer':<{width}}", *(f"{name:>12}" for name in names), f"{'positions':>12}"]))
    sizes = {layer: max(row.values for row in rows if row.layer == layer) for layer in layers}
    for layer in layers:
        line = [f"{layer:<{width}}", *(f"{cells.get((name, layer), ''):>12}" for name in names), f"{sizes[layer]:>12,}"]
        print("  ".join(line))


if __name__ == "__main__":
    cli.script(main, Verification, __doc__)
