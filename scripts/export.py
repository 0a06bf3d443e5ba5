"""Export a checkpoint's integer network: ``python scripts/export.py ckpt=PATH format=onnx|bundle|nir|c [out=PATH]``.

The checkpoint carries its configuration; other arguments change single keys of it. ``images=N`` sets how many test
images prove the export (default 4), ``allow_metadata_only=true`` lets NIR carry what plain readers would misread.
Formats: docs/exports.md.
"""

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from qbsnn import checks
from qbsnn.deploy.exports import FORMATS, Job, export
from qbsnn.errors import QBSNNError, SettingsError
from qbsnn.training import cli

OWN = ("ckpt", "format", "out", "images", "allow_metadata_only")


def main(arguments: list[str]) -> None:
    """Quantise, export, prove, and say where it is."""
    from qbsnn.training.checkpoint_io import load
    from qbsnn.training.settings import stored_config

    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if "ckpt" not in given or "format" not in given or len(given) != len(arguments):
        raise SettingsError(
            f"usage: python scripts/export.py ckpt=PATH format={'|'.join(FORMATS)} [out=PATH] [images=N] "
            f"[allow_metadata_only=true] [key=value ...], got {' '.join(arguments) or 'nothing'}"
        )
    kind = checks.choice("format", given["format"], FORMATS)
    images = checks.integer("images", _number(given.get("images", "4")), 1)
    allow = checks.choice("allow_metadata_only", given.get("allow_metadata_only", "false"), ("true", "false"))
    checkpoint = Path(given["ckpt"]).resolve()
    contents = load(checkpoint)
    run = Path("outputs/export") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{cli.uid()}"
    overrides = [f"{key}={value}" for key, value in given.items() if key not in OWN]
    cfg = stored_config(contents, checkpoint, overrides, run)
    out = Path(given["out"]) if "out" in given else run / f"{cfg.name}-{kind}{FORMATS[kind].suffix}"
    with torch.no_grad():
        job = prepare(cfg, contents, checkpoint, images, allow == "true")
        proof = export(job, kind, out)
    print(f"{out}: {job.name}, T = {job.net.T}, {len(job.net.stages)} layers; {proof.remark}")
    print(f"checked on {proof.images} test images: {proof.spikes:,} spikes, 0 of {proof.values:,} values differ")
    if proof.silent:
        print(f"warning: no spikes in {', '.join(proof.silent)}: the check says nothing of these layers")


def prepare(cfg: Any, contents: dict[str, Any], checkpoint: Path, images: int, allow_metadata_only: bool) -> Job:
    """The integer network of a checkpoint, made as its run did, and its first test images."""
    from qbsnn.training import finetune
    from qbsnn.training.run import build, load_weights
    from qbsnn.training.settings import validate

    parts = build(validate(cfg))
    load_weights(parts.module, contents, checkpoint)
    parts.module.tuned = finetune.stored(parts.module, checkpoint)
    parts.data.prepare_data()
    quantized = finetune.deployed(parts.module.network.eval(), parts.module, parts.data).quantized
    parts.data.setup("test")
    batches, found = [], 0
    for pixels, _ in parts.data.test_dataloader():
        batches.append(pixels[: images - found])
        found += len(batches[-1])
        if found == images:
            break
    encoded = quantized.front.encoder(torch.cat(batches))
    return Job(quantized, encoded, cfg.name, parts.data.class_names, allow_metadata_only)


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() else text


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0)
    try:
        main(sys.argv[1:])
    except QBSNNError as problem:
        cli.fail(problem)
        sys.exit(1)
