"""Reads, checks and runs a qbsnn bundle. This one file needs numpy and nothing else; a bundle carries a copy of it.

    python bundle_reader.py BUNDLE                  check every digest and shape, print a summary
    python bundle_reader.py BUNDLE PIXELS.npy       print the class of each sample; see Bundle.current

A bundle is a folder: ``manifest.json`` (the network, its shapes and digests), ``arrays.npz`` (little-endian, no
pickle), this file, and ``SHA256SUMS``, which ``sha256sum -c SHA256SUMS`` checks too. Semantics "QB-INT 1", per step:

    V ← leak(V)      none | shift_floor: V − (V >> n) | shift_xylo: V − (V >> n), or V − sign(V) where V >> n is 0
                     | mul12_to_zero: V·(4096 − d)/4096, cut towards 0
    V ← fit(V + Σ q·s + b + Σ m·s)      fit: error (counted) | saturate | wrap, at ``membrane_bits``
    s ← clamp(⌊V/θ⌋, s_min, s_max)      rounding "round": ⌊(V + ⌊θ/2⌋)/θ⌋, "to_zero": V/θ cut
    V ← V − θ·s                         hard reset: V ← 0 where s ≠ 0

The first stage is fed J = round_half_even(θ·I), I the float input layer's output with bias. Z = Σ_t (Σ q·s + b) in the
readout; the class is the lowest index among the largest Z. With an exit margin a sample leaves after the first step
whose largest Z exceeds the second largest by at least that, or after step T.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FORMAT, SEMANTICS, ENCODINGS = "qbsnn-bundle", "QB-INT 1", ("direct", "rate", "latency", "events")
SUMS, MANIFEST, ARRAYS, READER = "SHA256SUMS", "manifest.json", "arrays.npz", "bundle_reader.py"
LEAKS, ROUNDINGS = ("none", "shift_floor", "shift_xylo", "mul12_to_zero"), ("floor", "round", "to_zero")
KINDS, POLICIES, SIZES = ("conv", "linear", "identity"), ("error", "saturate", "wrap"), range(1, 2**28)


class BundleError(Exception):
    """A bundle is damaged, of another version, or inconsistent; or its input is not what it takes."""


class Output(NamedTuple):
    """Per stage ``[T, B, *shape]``: spikes before pooling, V after the reset. Z ``[B, classes]``, exits ``[2, B]``."""

    spikes: list[np.ndarray]
    membranes: list[np.ndarray]
    logits: np.ndarray
    overflows: int
    exits: np.ndarray | None = None


class Bundle(NamedTuple):
    """A checked bundle: the manifest, and the arrays that it names."""

    manifest: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def current(self, pixels: np.ndarray) -> np.ndarray:
        """J, int32 ``[T or 1, B, ...]``, for pixels ``[B, C, H, W]`` in [0, 1], events ``[B, T, C, H, W]`` in [0, 255].

        Computed in float64. Training sums in float32, so its J may differ by 1 where θ·I is within rounding of a half.
        """
        source, events = self.manifest["input"], self.manifest["input"]["encoding"] == "events"
        shape, most = ([self.manifest["T"], *source["shape"]], 255) if events else (source["shape"], 1)
        given, more = list(pixels.shape), "; add a batch dimension" if list(pixels.shape) == shape else ""
        fits = given[1:] == shape and pixels.size > 0 and pixels.dtype.kind in "buif"
        _require(fits, f"pixels must be numbers of shape [B, {str(shape)[1:]}, got {given} of {pixels.dtype}{more}")
        low, high, more = pixels.min(), pixels.max(), "; divide by 255" if most == 1 < pixels.max() <= 255 else ""
        _require(bool(low >= 0 and high <= most), f"pixels must be numbers from 0 to {most}, got {low} to {high}{more}")
        x = np.asarray(pixels, np.float32)
        if events:
            return self.current_of(np.swapaxes(x, 0, 1))
        if source["encoding"] == "direct":
            mean, std = (np.array(source[key], np.float32).reshape(-1, 1, 1) for key in ("mean", "std"))
            return self.current_of(((x - mean) / std)[None])
        if source["encoding"] == "latency":
            when = np.rint((1 - x) * np.float32(self.manifest["T"] - 1))
            return self.current_of(np.stack([(when == t) & (x > 0) for t in range(self.manifest["T"])]))
        raise BundleError(f"{source['encoding']} coding draws random numbers: encode yourself and call current_of")

    def current_of(self, encoded: np.ndarray) -> np.ndarray:
        """J for an input ``[T or 1, B, C, H, W]`` that is encoded already."""
        layer, first = self.manifest["input"]["layer"], self.manifest["stages"][0]
        analog = _contract(layer, self.arrays[layer["weight"]].astype(np.float64), encoded.astype(np.float64))
        _require(list(analog.shape[2:]) == first["shape"], f"the input layer gives {list(analog.shape[2:])}")
        bias, theta = (self._vector(name, first["shape"]) for name in (layer["bias"], first["theta"]))
        j = np.rint((analog + bias) * theta)
        _require(bool(np.all(np.abs(j) < 2**31)), "the input current leaves the int32 range or is not a number")
        return j.astype(np.int32)

    def run(self, current: np.ndarray) -> Output:
        """Spikes, membranes and logits for the current J, int32 ``[T or 1, B, *shape of the first stage]``."""
        steps, shape, given = self.manifest["T"], self.manifest["stages"][0]["shape"], list(current.shape)
        fits = current.dtype == np.int32 and current.size > 0 and given[2:] == shape and given[0] in (1, steps)
        _require(fits, f"J must be int32 [{steps} or 1, B, *{shape}], got {current.dtype} {given}")
        traces, outputs = list[tuple[np.ndarray, np.ndarray, int]](), list[np.ndarray]()
        for stage, shape in ((stage, stage["shape"]) for stage in self.manifest["stages"]):
            drive = self._vector(stage["bias"], shape)[None, None]
            for branch in stage["branches"]:
                part = current if branch["kind"] == "input" else self._branch(stage["name"], branch, outputs)
                fits = list(part.shape[2:]) == shape
                _require(fits, f"{stage['name']}: a branch gives {list(part.shape[2:])}, the stage's shape is {shape}")
                drive = drive + part
            traces.append(self._neurons(stage, np.broadcast_to(drive, (steps, *drive.shape[1:]))))
            outputs.append(traces[-1][0])
            if pool := stage["pool"]:  # no burst is below -128
                windows = _windows(outputs[-1], pool["kernel"], pool, -128 if pool["kind"] == "max" else 0)
                outputs[-1] = windows.max((5, 6)) if pool["kind"] == "max" else windows.sum((5, 6))
        z = self._branch("readout", self.manifest["readout"]["branch"], outputs)
        z = (z + self._vector(self.manifest["readout"]["bias"], z.shape[2:])).cumsum(0)
        exits, (spikes, membranes, outside) = None, zip(*traces, strict=True)
        if "exit_margin" in self.manifest:
            best, second = np.moveaxis(np.sort(z, 2)[..., :-3:-1], 2, 0)
            safe = best - second >= self.manifest["exit_margin"]
            last = np.where(safe.any(0), safe.argmax(0), steps - 1)
            exits = np.stack([last + 1, z[last, np.arange(len(last))].argmax(1)])
        return Output(list(spikes), list(membranes), z[-1], sum(outside), exits)

    def _vector(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        values = self.arrays[name].astype(np.float64 if name.startswith("input") else np.int64)
        _require(values.shape == (shape[0],), f"array {name!r} must have {shape[0]} elements, got {values.shape}")
        return values.reshape(-1, *[1] * (len(shape) - 1))

    def _branch(self, at: str, branch: dict[str, Any], outputs: list[np.ndarray]) -> np.ndarray:
        _allowed(at, source=(branch["source"], range(len(outputs))), kind=(branch["kind"], KINDS))
        s = outputs[branch["source"]]
        if branch["kind"] == "identity":
            return s * self._vector(branch["scale"], s.shape[2:])
        try:  # sums of int8 weights times bursts stay far below 2**53, up to which float64 is exact in any order
            return _contract(branch, self.arrays[branch["weight"]].astype("f8"), s.astype("f8")).astype(np.int64)
        except ValueError as error:
            raise BundleError(f"{at}: array {branch['weight']!r} does not fit its source: {error}") from error

    def _neurons(self, stage: dict[str, Any], drive: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """The equations above for sums ``[T, B, *shape]``; how many left the register comes last."""
        theta = self._vector(stage["theta"], stage["shape"])
        top, policy = 2 ** (self.manifest["membrane_bits"] - 1), self.manifest["overflow"]
        spikes, membranes = np.empty(drive.shape, np.int64), np.empty(drive.shape, np.int64)
        v, outside, n = np.zeros(drive.shape[1:], np.int64), 0, stage["leak"]["amount"]
        for t, step in enumerate(drive):
            left = {"none": v, "shift_floor": v - (v >> n), "shift_xylo": v - np.where(v >> n, v >> n, np.sign(v))}
            left["mul12_to_zero"] = np.sign(v) * (np.abs(v) * (4096 - n) >> 12)
            v = left[stage["leak"]["kind"]] + step
            outside += int(((v < -top) | (v >= top) | (step != step.astype(np.int32))).sum())
            v = {"error": v, "saturate": np.clip(v, -top, top - 1), "wrap": (v + top) % (2 * top) - top}[policy]
            level = {"floor": v, "round": v + theta // 2, "to_zero": np.where(v < 0, v + theta - 1, v)}
            s = np.clip(level[stage["rounding"]] // theta, stage["s_min"], stage["s_max"])
            v = v - theta * s if stage["reset"] == "soft" else np.where(s == 0, v, 0)
            spikes[t], membranes[t] = s, v
        return spikes, membranes, outside

    def summary(self) -> str:
        """One line for the network and one per stage."""
        m = self.manifest
        weights = sum(array.size for array in self.arrays.values() if array.dtype == np.int8)
        margin = f", exit margin {m['exit_margin']}" if "exit_margin" in m else ""
        versions = ", ".join(f"{key} {value}" for key, value in m["versions"].items())
        head = f"{m['name']}: {m['semantics']}, T = {m['T']}, V {m['membrane_bits']} bit ({m['overflow']})"
        lines = [f"{head}, {weights:,} int8 weights, {len(m['classes'])} classes{margin}; {versions}"]
        for stage in m["stages"]:
            theta, leak, pool = self.arrays[stage["theta"]], stage["leak"], stage["pool"]
            parts = ["+".join(branch["kind"] for branch in stage["branches"]), f"s {stage['s_min']}..{stage['s_max']}"]
            parts += [f"theta {theta.min()}..{theta.max()}", f"leak {leak['kind']} {leak['amount']}", stage["rounding"]]
            parts += [f"{stage['reset']} reset"] + [f"{pool['kind']} pool" for _ in range(bool(pool))]
            lines.append(f"  {stage['name']:12} {'x'.join(map(str, stage['shape'])):>10}  {', '.join(parts)}")
        return "\n".join(lines)


def read(folder: str | Path) -> Bundle:
    """Read a bundle and check every digest, shape and value. Raises BundleError naming what is wrong."""
    folder, names = Path(folder), (MANIFEST, ARRAYS, READER)
    try:
        text = (folder / SUMS).read_bytes()
        lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n".encode() for name in names]
    except OSError as error:
        raise BundleError(f"{folder} is no bundle: {error}") from error
    for name, line in zip(names, lines, strict=True):
        _require(line in text, f"{folder / name} is damaged: {SUMS} does not list its SHA-256, {line[:64].decode()}")
    _require(text == b"".join(lines), f"{folder / SUMS} is damaged: it must list {', '.join(names)} and nothing else")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for key, value in (("format", FORMAT), ("version", 1 + ("exit_margin" in manifest)), ("semantics", SEMANTICS)):
            _require(manifest[key] == value, f"{key} must be {value!r}, got {manifest[key]!r}")
        return _check(Bundle(manifest, _arrays(folder, manifest["arrays"])))
    except (BundleError, LookupError, TypeError, AttributeError, ValueError, RecursionError, MemoryError) as error:
        what = "" if isinstance(error, BundleError) else f"malformed: {type(error).__name__}: "
        raise BundleError(f"{folder / MANIFEST}: {what}{error}") from error


def describe(array: np.ndarray) -> dict[str, Any]:
    """What the manifest says of an array; the digest is over its elements in C order, in the byte order of dtype."""
    return {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": hashlib.sha256(array.tobytes()).hexdigest()}


def _arrays(folder: Path, declared: dict[str, dict[str, Any]]) -> dict[str, np.ndarray]:
    path = folder / ARRAYS
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaks a file that is no archive
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{path} cannot be read without pickle: {error}") from error
    for name in sorted(declared.keys() ^ found.keys()):
        raise BundleError(f"array {name!r} is {'missing from' if name in declared else 'not declared, but in'} {path}")
    for name, about in declared.items():
        for key, value in describe(found[name]).items():
            _require(about[key] == value, f"array {name!r}: {key} must be {about[key]}, got {value}")
    return found


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise BundleError(message)


def _check(bundle: Bundle) -> Bundle:
    """Values within their bounds, no array as large as memory; then a black image is run, which tries every shape."""
    manifest, arrays = bundle.manifest, bundle.arrays
    source, stages, bits = manifest["input"], manifest["stages"], manifest["membrane_bits"]
    _allowed("network", T=(manifest["T"], range(1, 2**31)), overflow=(manifest["overflow"], POLICIES))
    _allowed("network", membrane_bits=(bits, range(2, 33)), exit_margin=(manifest.get("exit_margin", 0), range(2**32)))
    for i, stage in enumerate(stages):
        at, leak, s_max, pool = f"stage {stage['name']!r}", stage["leak"], stage["s_max"], stage["pool"]
        _require([other["name"] for other in stages].count(stage["name"]) == 1, f"{at}: its name is not unique")
        _allowed(at, values_per_image=(math.prod((manifest["T"], *stage["shape"])), SIZES))
        _allowed(at, s_max=(s_max, range(1, 128)), s_min=(stage["s_min"], (0, -s_max)), leak=(leak["kind"], LEAKS))
        _allowed(at, amount=(leak["amount"], range(4097 if leak["kind"] == "mul12_to_zero" else 31)))
        _allowed(at, rounding=(stage["rounding"], ROUNDINGS), reset=(stage["reset"], ("soft", "hard")))
        for value in (arrays[stage["theta"]].min(), arrays[stage["theta"]].max()):
            _allowed(at, theta=(int(value), range(1, 2 ** (bits - 1))))
        kinds = [branch["kind"] for branch in stage["branches"]]
        alone = kinds == ["input"] if i == 0 else "input" not in kinds
        _require(alone, f"{at}: 'input' is the only branch of the first stage and of no other, got {kinds}")
        _allowed(at, pool=(pool["kind"] if pool else "max", ("max", "sum")))
    for name, array in arrays.items():
        dtype = "float32" if name.startswith("input") else "int8" if name.endswith("weight") else "int32"
        _require(array.dtype.name == dtype, f"array {name!r} must be {dtype}, got {array.dtype}")
        _require(dtype != "int8" or array.min() > -128, f"array {name!r} must be -127 to 127, got -128")
    _allowed("input", values=(math.prod(source["shape"]), SIZES), encoding=(source["encoding"], ENCODINGS))
    scale = [manifest["readout"]["scale"]]
    for name, values, low in (("scale", scale, 0), ("std", source["std"], 0), ("mean", source["mean"], -math.inf)):
        good = all(type(value) in (int, float) and low < value < math.inf for value in values)
        _require(good, f"{name} must be finite and above {low}, got {values}")
    classes = bundle.run(bundle.current_of(np.zeros((1, 1, *source["shape"])))).logits.shape[1]
    _require(len(manifest["classes"]) == classes, f"{len(manifest['classes'])} class names for {classes} classes")
    bundle.summary()  # reads all else
    return bundle


def _allowed(at: str, **values: tuple[Any, Any]) -> None:
    for key, (value, allowed) in values.items():
        options = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) and allowed else f"one of {allowed}"
        good = type(value) in (int, str) and value in allowed
        _require(good, f"{at}: {key} must be {options}, got {value!r}")


def _windows(x: np.ndarray, kernel: tuple[int, ...], node: dict[str, Any], outside: int = 0) -> np.ndarray:
    """``x [T, B, C, H, W]`` as ``[T, B, C, rows, columns, *kernel]``."""
    (rows, columns), (down, right) = node["padding"], node["stride"]
    _allowed("layer", groups=(node.get("groups", 1), SIZES), stride=(min(down, right), SIZES))
    size = x[:, 0, :, 0, 0].size * (x.shape[3] + 2 * rows) * (x.shape[4] + 2 * columns)
    _allowed(f"padding {node['padding']}", values_per_image=(size, SIZES))
    padded = np.pad(x, [(0, 0)] * 3 + [(rows, rows), (columns, columns)], constant_values=outside)
    return np.lib.stride_tricks.sliding_window_view(padded, tuple(kernel), axis=(3, 4))[:, :, :, ::down, ::right]


def _contract(layer: dict[str, Any], weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Σ w·x of a conv or linear layer for ``x [T, B, ...]``, both float64."""
    if layer["kind"] == "linear":
        return x.reshape(*x.shape[:2], -1) @ weight.T
    views, groups = _windows(x, weight.shape[2:], layer), layer["groups"]
    parts = zip(np.split(views, groups, axis=2), np.split(weight, groups), strict=True)
    products = [np.tensordot(view, w, axes=((2, 5, 6), (1, 2, 3))) for view, w in parts]
    return np.moveaxis(np.concatenate(products, axis=-1), -1, 2)


def main(arguments: list[str]) -> int:
    """Print a summary, or the classes of images."""
    if len(arguments) not in (1, 2) or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments and arguments[0].startswith("-") else 2
    try:
        bundle = read(arguments[0])
        if len(arguments) == 1:
            print(bundle.summary())
            return 0
        pixels = np.load(arguments[1], allow_pickle=False)
        _require(getattr(pixels, "ndim", 0) > 0, f"{arguments[1]} must hold one array [B, ...], got {pixels!r}")
        for i in range(len(pixels)):
            _, _, (z,), _, exits = bundle.run(bundle.current(pixels[i : i + 1]))
            early = "" if exits is None else f"; early exit: class {exits[1, 0]} after {exits[0, 0]} steps"
            print(f"{i}: class {z.argmax()} ({bundle.manifest['classes'][z.argmax()]}), Z = {z.tolist()}{early}")
    except (BundleError, OSError, ValueError, EOFError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
