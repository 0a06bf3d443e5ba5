"""Files with flipped bits and cut files, each of which its reader must refuse by name."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qbsnn.deploy.engines import c_source, onnx_graph
from qbsnn.deploy.export import bundle, bundle_reader, nir_graph, nir_reader
from qbsnn.deploy.format.bounds import bounds
from qbsnn.deploy.format.seal import opened
from qbsnn.errors import QBSNNError
from qbsnn.training import checkpoints
from tests.deploy.export.exporting import trained

READERS: dict[str, Callable[[Path], Any]] = {
    "checkpoint, copied alone": checkpoints.load,
    "bundle": bundle_reader.read,
    "ONNX file": partial(opened, mark=onnx_graph.ENTRY),
    "NIR graph": nir_reader.read,
    "header of the C export": partial(opened, mark=c_source.SEAL[0], end=c_source.SEAL[1]),
}


def make(folder: Path) -> dict[str, Path]:
    """A whole file of each kind; of the bundle its folder."""
    quantized, pixels = trained("vgg5-max")
    paths = {
        kind: folder / name
        for kind, name in zip(READERS, ("a.ckpt", "bundle", "a.onnx", "a.nir", c_source.HEADER), strict=True)
    }
    checkpoints.AtomicCheckpointIO().save_checkpoint(
        {"state_dict": quantized.front.state_dict()}, paths["checkpoint, copied alone"]
    )
    paths["bundle"].mkdir()
    bundle.write(quantized, paths["bundle"], "vgg", list("abcde"))
    onnx_graph.export(quantized.net, paths["ONNX file"])
    nir_graph.write(quantized.net, bounds(quantized.net, quantized.current_bounds), paths["NIR graph"], True)
    c_source.write(quantized.net, folder, quantized.current(pixels))
    return paths


def measure(path: Path, read: Callable[[Path], Any], flips: int, cuts: int, seed: int) -> dict[str, Any]:
    """Damage a file, or the files of a folder in turn.

    Returns:
        ``flips`` and ``cuts`` tried, ``refused``, and ``passed``: what came through, or was refused without a name.
    """
    read(path)
    rng, passed = random.Random(seed), []
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for number in range(flips + cuts):
        file = files[number % len(files)]
        whole = file.read_bytes()
        how, damaged = (_flipped if number < flips else _cut)(whole, rng)
        file.write_bytes(damaged)
        try:
            read(path)
            passed.append(f"{file.name}: {how}")
        except (QBSNNError, bundle_reader.BundleError) as error:
            if path.name not in str(error):
                passed.append(f"{file.name}: {how}: refused without its name: {error}")
        except Exception as error:
            passed.append(f"{file.name}: {how}: {type(error).__name__}: {error}")
        file.write_bytes(whole)
    read(path)
    return {"flips": flips, "cuts": cuts, "refused": flips + cuts - len(passed), "passed": passed}


def _flipped(whole: bytes, rng: random.Random) -> tuple[str, bytes]:
    position, bit = rng.randrange(len(whole)), rng.randrange(8)
    damaged = bytearray(whole)
    damaged[position] ^= 1 << bit
    return f"bit {bit} of byte {position}", bytes(damaged)


def _cut(whole: bytes, rng: random.Random) -> tuple[str, bytes]:
    length = rng.randrange(len(whole))
    return f"cut to {length} bytes", whole[:length]
