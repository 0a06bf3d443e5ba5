"""Export a checkpoint's integer network: ``python scripts/export.py ckpt=PATH format=onnx|bundle|nir|c [out=PATH]``.

The checkpoint carries its configuration; other arguments change single keys of it. ``images=N`` sets how many test
images prove the export (default 4), ``allow_metadata_only=true`` lets NIR carry what plain readers would misread.
Formats: docs/exports.md.
"""

from datetime import datetime
from pathlib import Path

import torch
from torch import Tensor

from qbsnn import checks
from qbsnn.cli import launch as cli
from qbsnn.data import DataModule
from qbsnn.deploy.export.write import FORMATS, Job, export

USAGE = (
    f"python scripts/export.py ckpt=PATH format={'|'.join(FORMATS)} [out=PATH] [images=N] "
    "[allow_metadata_only=true] [key=value ...]"
)


def main(arguments: list[str]) -> None:
    """Quantise, export, prove, and say where it is."""
    from qbsnn.cli.checkpoints import deployed_network, read_arguments

    given = read_arguments(arguments, USAGE, ["format"], ["out", "images", "allow_metadata_only"])
    kind = checks.choice("format", given.own["format"], FORMATS)
    images = checks.integer("images", _number(given.own.get("images", "4")), 1)
    allow = checks.choice("allow_metadata_only", given.own.get("allow_metadata_only", "false"), ("true", "false"))
    run = Path("outputs/export") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{cli.uid()}"
    with torch.no_grad():
        parts, deployed = deployed_network(given, run)
        pixels = first_images(parts.data, images)
        encoded = deployed.quantized.front.encoder(pixels)
        name = parts.result.config["name"]
        out = Path(given.own["out"]) if "out" in given.own else run / f"{name}-{kind}{FORMATS[kind].suffix}"
        job = Job(deployed.quantized, encoded, name, parts.data.class_names, allow == "true")
        proof = export(job, kind, out)
    print(f"{out}: {job.name}, T = {job.net.T}, {len(job.net.stages)} layers; {proof.remark}")
    print(f"checked on {proof.images} test images: {proof.spikes:,} spikes, 0 of {proof.values:,} values differ")
    if proof.silent:
        print(f"warning: no spikes in {', '.join(proof.silent)}: the check says nothing of these layers")


def first_images(data: DataModule, count: int) -> Tensor:
    """The first test images, ``[N, C, H, W]``, all there are if they are fewer."""
    batches: list[Tensor] = []
    for pixels, _ in data.test_dataloader():
        batches.append(pixels[: count - sum(map(len, batches))])
        if sum(map(len, batches)) == count:
            break
    return torch.cat(batches)


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() else text


if __name__ == "__main__":
    cli.script(main, __doc__)
