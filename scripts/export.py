"""Export a checkpoint's integer network: ``python scripts/export.py ckpt=PATH format=onnx|bundle|nir|c``.

The checkpoint carries its configuration; other words change single keys of it. Formats: docs/exports.md.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from pydantic import Field, field_validator

from qbsnn.checks import choice
from qbsnn.cli import launch as cli
from qbsnn.cli.keys import CheckpointKeys


class Export(CheckpointKeys):
    """The keys of this tool."""

    format: str = Field(description="what to write: onnx, bundle, nir or c")
    out: Path | None = Field(default=None, description="where; default: below outputs/export")
    images: int = Field(default=4, ge=1, description="how many test images prove the export")
    allow_metadata_only: bool = Field(
        default=False, description="let NIR carry what plain readers would misread as metadata"
    )

    @field_validator("out")
    @classmethod
    def _free(cls, out: Path | None) -> Path | None:
        if out is not None and os.path.lexists(out):
            raise ValueError(f"{out} exists already; name another path or remove it")
        return out


def main(given: Export) -> None:
    """Quantise, export, prove, and say where it is."""
    import torch

    from qbsnn.cli.checkpoints import changes, deployed_network, opened
    from qbsnn.data.loading import first_inputs
    from qbsnn.deploy.convert.profiles import misfits, promised
    from qbsnn.deploy.export.write import FORMATS, Job, export

    kind = choice("format", given.format, FORMATS)
    run = given.outputs / "export" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{cli.uid()}"
    with torch.no_grad():
        checkpoint = opened(given)
        parts, deployed = deployed_network(checkpoint, run)
        pixels = torch.cat(list(first_inputs(parts.data.test_dataloader(), given.images)))
        encoded = deployed.quantized.front.encoder(pixels)
        name = parts.result.config["name"]
        out = given.out or run / f"{name}-{kind}{FORMATS[kind].suffix}"
        job = Job(deployed.quantized, encoded, name, parts.data.class_names, given.allow_metadata_only)
        proof = export(job, kind, out)
    print(f"{out}: {job.name}, T = {job.net.T}, {len(job.net.stages)} layers; {proof.remark}")
    print(f"checked on {proof.images} test images: {proof.spikes:,} spikes, 0 of {proof.values:,} values differ")
    if (profile := deployed.quantized.settings.profile) is not None:
        print(f"profile {profile}, {promised(profile)}")
    print(*(f"warning: {line}\n" for line in [*changes(checkpoint), *misfits(deployed.quantized)]), sep="", end="")
    if proof.silent:
        print(f"warning: no spikes in {', '.join(proof.silent)}: the check says nothing of these layers")


if __name__ == "__main__":
    cli.script(main, Export, __doc__)
