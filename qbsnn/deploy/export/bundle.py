"""The plain bundle: a quantised network as a folder that numpy alone can read. Format: docs/exports.md.

Writing is here; reading, checking and running is :mod:`qbsnn.deploy.export.bundle_reader`, a file that imports
nothing of this package and of which every bundle carries a copy.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from qbsnn import __version__
from qbsnn.deploy.convert.folding import pair
from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.deploy.export import bundle_reader
from qbsnn.deploy.export.bundle_reader import ARRAYS, FORMAT, MANIFEST, SEMANTICS, SUMS, BundleError
from qbsnn.deploy.format.network import INPUT, IntBranch, IntegerNetwork, IntPool, IntReadout, IntStage, Leak
from qbsnn.deploy.format.validation import check
from qbsnn.errors import DeployError

Arrays = dict[str, NDArray[Any]]


def write(quantized: Quantized, folder: Path, name: str, classes: Sequence[str]) -> None:
    """Write ``quantized`` into the empty ``folder``, with a copy of the reader.

    name: what the summary calls the network; classes: the name of every class, in the order of the logits.
    """
    arrays: Arrays = {}
    manifest = _network(quantized.net, arrays)
    version = 2 if "exit_margin" in manifest else 1  # which every reader reads
    manifest |= {"format": FORMAT, "version": version, "semantics": SEMANTICS, "name": name, "classes": list(classes)}
    manifest["input"] = _input(quantized, arrays)
    manifest["arrays"] = {key: bundle_reader.describe(array) for key, array in arrays.items()}
    manifest["versions"] = {
        "qbsnn": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    reader = Path(bundle_reader.__file__)
    np.savez(folder / ARRAYS, **arrays)  # type: ignore[arg-type]  # its stubs take every keyword for a bool
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    (folder / reader.name).write_bytes(reader.read_bytes())
    files = (MANIFEST, ARRAYS, reader.name)
    sums = [f"{hashlib.sha256((folder / file).read_bytes()).hexdigest()}  {file}\n" for file in files]
    (folder / SUMS).write_text("".join(sums), encoding="ascii")


def read(folder: Path) -> IntegerNetwork:
    """The integer network of a bundle. Raises DeployError, naming what is wrong, where it is none."""
    try:
        net = _read_network(bundle_reader.read(folder))
    except BundleError as error:
        raise DeployError(str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise DeployError(f"{folder / MANIFEST}: malformed: {type(error).__name__}: {error}") from error
    check(net)
    return net


def _read_network(bundle: bundle_reader.Bundle) -> IntegerNetwork:
    manifest, arrays = bundle.manifest, bundle.arrays
    stages = tuple(
        IntStage(
            name=node["name"],
            branches=tuple(_read_branch(branch, arrays) for branch in node["branches"]),
            bias=arrays[node["bias"]],
            theta=arrays[node["theta"]],
            shape=tuple(node["shape"]),
            leak=Leak(**node["leak"]),
            pool=_read_pool(node["pool"]),
            **{key: node[key] for key in ("s_max", "s_min", "rounding", "reset")},
        )
        for node in manifest["stages"]
    )
    node = manifest["readout"]
    readout = IntReadout(_read_branch(node["branch"], arrays), arrays[node["bias"]], node["scale"])
    fields = {key: manifest[key] for key in ("T", "membrane_bits", "overflow")}
    return IntegerNetwork(stages, readout, exit_margin=manifest.get("exit_margin"), **fields)


def _network(net: IntegerNetwork, arrays: Arrays) -> dict[str, Any]:
    """The manifest's part about the integer network; its arrays are added to ``arrays``."""
    stages = [
        {
            "name": stage.name,
            "shape": list(stage.shape),
            "branches": [_branch(b, f"stages.{i}.branches.{j}", arrays) for j, b in enumerate(stage.branches)],
            "bias": _keep(arrays, f"stages.{i}.bias", stage.bias),
            "theta": _keep(arrays, f"stages.{i}.theta", stage.theta),
            "s_max": stage.s_max,
            "s_min": stage.s_min,
            "leak": {"kind": stage.leak.kind, "amount": stage.leak.amount},
            "rounding": stage.rounding,
            "reset": stage.reset,
            "pool": None if stage.pool is None else asdict(stage.pool),
        }
        for i, stage in enumerate(net.stages)
    ]
    readout = {
        "branch": _branch(net.readout.branch, "readout", arrays),
        "bias": _keep(arrays, "readout.bias", net.readout.bias),
        "scale": net.readout.scale,
    }
    return {
        "T": net.T,
        "membrane_bits": net.membrane_bits,
        "overflow": net.overflow,
        "stages": stages,
        "readout": readout,
        **({} if net.exit_margin is None else {"exit_margin": net.exit_margin}),
    }


def _input(quantized: Quantized, arrays: Arrays) -> dict[str, Any]:
    """How pixels become the current J: encoding, normalisation and the float first layer."""
    front = quantized.front
    name, stage = next(front.named_stages())
    layer = stage.parts[0].weight
    assert layer is not None and layer.bias is not None, "absorb() gives every layer a bias"
    node: dict[str, Any] = {"kind": "linear"}
    if isinstance(layer, nn.Conv2d):
        if pair(layer.dilation) != (1, 1):
            raise DeployError(f"{name}: a bundle has no dilation, got a convolution with {layer.dilation}")
        stride, padding = list(pair(layer.stride)), list(pair(layer.padding))
        node = {"kind": "conv", "stride": stride, "padding": padding, "groups": layer.groups}
    node["weight"] = _keep(arrays, "input.weight", layer.weight.detach().cpu().numpy(), "<f4")
    node["bias"] = _keep(arrays, "input.bias", layer.bias.detach().cpu().numpy(), "<f4")
    encoder = front.encoder
    return {
        "shape": list(front.in_shape),
        "encoding": encoder.coding,
        "mean": encoder.mean.flatten().tolist(),
        "std": encoder.std.flatten().tolist(),
        "layer": node,
    }


def _branch(branch: IntBranch, at: str, arrays: Arrays) -> dict[str, Any]:
    node: dict[str, Any] = {"source": branch.source, "kind": branch.kind}
    if branch.weight is not None:
        node["weight"] = _keep(arrays, f"{at}.weight", branch.weight, "|i1")
    if branch.scale is not None:
        node["scale"] = _keep(arrays, f"{at}.scale", branch.scale)
    if branch.kind == "conv":
        node |= {"stride": list(branch.stride), "padding": list(branch.padding), "groups": branch.groups}
    return node


def _keep(arrays: Arrays, name: str, array: NDArray[Any], dtype: str = "<i4") -> str:
    """Add an array, little-endian and in C order, and return its name."""
    arrays[name] = np.ascontiguousarray(array, dtype)
    return name


def _read_branch(node: dict[str, Any], arrays: Arrays) -> IntBranch:
    source = INPUT if node["kind"] == "input" else node["source"]
    weight, scale = (arrays[node[key]] if key in node else None for key in ("weight", "scale"))
    if node["kind"] != "conv":
        return IntBranch(source, node["kind"], weight, scale)
    return IntBranch(source, "conv", weight, None, tuple(node["stride"]), tuple(node["padding"]), node["groups"])


def _read_pool(node: dict[str, Any] | None) -> IntPool | None:
    if node is None:
        return None
    return IntPool(node["kind"], *(tuple(node[key]) for key in ("kernel", "stride", "padding")))
