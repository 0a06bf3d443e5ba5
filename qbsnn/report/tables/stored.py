"""The cells of a sweep in one small file that can be committed: no weights, no number rounded.

Where files lay is left out, but for the folder of data that were not verified, by which such a run is known.

A file is a JSON object with ``sweep``, the name, and ``cells``, one a line. Of a result it keeps what tables, figures
and pages read: operations are summed over the layers, and checks by layer are left out.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from qbsnn.errors import DataError
from qbsnn.results.energy_schema import EnergyLayer
from qbsnn.results.files import write_atomically
from qbsnn.results.fingerprint import differing, fingerprint, within
from qbsnn.results.reading import parse_result, read_json
from qbsnn.results.run_files import Series
from qbsnn.results.schema import Result, ran
from qbsnn.results.sweeps import Cell

log = logging.getLogger(__name__)

SETTINGS = {"model": ("_target_",), "data": ("_target_",), "neuron": ("_target_", "s_max", "alpha", "beta"),
            "budget": ("quantity", "target")}  # fmt: skip
"""What is kept of the groups of the configuration; ``identity`` has every setting that differs from its default."""
NOT_SAID = ("status", "error", "checkpoints")
PLACES = ("paths", "data.root", "data.cache_dir")
"""Overrides that say where files lie on the machine of the run."""
RUNS = ("teacher", "init_from")
"""Overrides that name another run; what lies there is known by its digest."""


def store(cells: Sequence[Cell], path: Path) -> None:
    """Write the cells of a sweep to ``path``. A cell that is still running counts as missing."""
    lines = ",\n".join(json.dumps(_entry(cell), allow_nan=False, ensure_ascii=False) for cell in cells)
    text = f'{{"sweep": {json.dumps(path.stem)}, "cells": [\n{lines}\n]}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode("utf-8", "backslashreplace"))  # undecodable file names, as in result.json


def read_stored(path: Path) -> list[Cell]:
    """The cells that :func:`store` wrote.

    Raises:
        DataError: The file is not one of these, a result is of another configuration than its fingerprint says, or two
            cells have one label and seed or one fingerprint.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("sweep") != path.stem or not isinstance(content.get("cells"), list):
        raise DataError(
            f"{path} must hold the cells of the sweep {path.stem}: make_tables.py store={path.stem} writes it"
        )
    cells = [_cell(f"{path}, cell {index + 1}", entry) for index, entry in enumerate(content["cells"])]
    unique: dict[str, list[Any]] = {
        "one label and seed": [(cell.label, cell.seed) for cell in cells],
        "one fingerprint": [cell.fingerprint for cell in cells],
    }
    for what, marks in unique.items():
        for at, mark in enumerate(marks):
            if mark and (first := marks.index(mark)) < at:
                named = " and ".join(f"cell {i + 1} ({cells[i].label}, seed {cells[i].seed})" for i in (first, at))
                raise DataError(f"{path}: {named} have {what}: a run counts once, take one of them out")
    return cells


def merged(new: Sequence[Cell], old: Sequence[Cell]) -> list[Cell]:
    """The new cells, and in place of each that is not done the old one of its label and seed that is.

    One whose checks failed or prove nothing stays until it is done.

    An old one of another recipe than the new ones of its label is left out, and the log says so: seeds of a row differ
    in nothing else. The log also names what is kept of a row whose new recipe is not known.
    """
    last = sorted(new, key=lambda cell: cell.result is not None)
    recipes = {cell.label: _recipe(cell) for cell in last if cell.identity}
    rows = {cell.label for cell in new}
    done = {}
    unproven = {cell.fingerprint: cell for cell in old if cell.unproven}
    for cell in old:
        if cell.result is None:
            continue
        if (cell.label, cell.seed) not in {(one.label, one.seed) for one in new}:
            log.warning("%s, seed %d: left out, a finished run that the sweep no longer has", cell.label, cell.seed)
        differ = differing(_recipe(cell), recipes.get(cell.label, _recipe(cell)))
        if differ:
            keys = ", ".join(differ)
            log.warning("%s, seed %d: left out, its %s is not that of the new runs", cell.label, cell.seed, keys)
            continue
        if cell.label in rows - set(recipes):
            log.warning("%s, seed %d: kept, though its settings now are not known", cell.label, cell.seed)
        done[cell.label, cell.seed] = cell
    return [
        cell if cell.result or cell.unproven
        else unproven.get(cell.fingerprint) or done.get((cell.label, cell.seed), cell)
        for cell in new
    ]  # fmt: skip


def _recipe(cell: Cell) -> dict[str, Any]:
    """What determines the result but seeds and the folder of data that are not verified."""
    return {key: value for key, value in cell.identity.items() if f".{key}".rpartition(".")[2] not in ("seed", "root")}


def _entry(cell: Cell) -> dict[str, Any]:
    cell = replace(cell, overrides=_elsewhere(cell.overrides))
    status = "missing" if cell.status == "running" else cell.status
    told = {"label": cell.label, "row": cell.row, "seed": cell.seed, "status": status, "overrides": cell.overrides}
    if cell.error is not None:
        told |= {"error": cell.error, "fingerprint": cell.fingerprint}
    if cell.result is not None:
        told["result"] = _kept(cell)
        told["scales"] = {name: [line.epoch.tolist(), line.value.tolist()] for name, line in cell.scales.items()}
    return told


def _kept(cell: Cell) -> dict[str, Any]:
    result = cell.result
    assert result is not None
    groups = {
        name: {key: group[key] for key in keys if key in group}
        for name, keys in SETTINGS.items()
        if isinstance(group := result.config.get(name), dict)
    }
    checks = {
        name: replace(block, layers=[])
        for name in ("absorption", "integer")
        if (block := ran(getattr(result, name))) is not None
    }
    if (energy := ran(result.energy)) is not None:
        energy = replace(energy, layers=[_summed(energy.layers)])
    few = replace(
        result,
        command=f"train.py {cell.overrides}",
        data={key: value for key, value in result.data.items() if key not in ("cache", "skipped")},
        config={"name": result.config.get("name"), "T": result.config.get("T"), **groups},
        host=replace(
            result.host, platform="", isa=[], versions={k: v for k, v in result.host.versions.items() if k == "torch"}
        ),
        energy=energy or result.energy,
        **checks,
    )
    return {key: value for key, value in few.as_json().items() if key not in NOT_SAID}


def _elsewhere(overrides: str) -> str:
    """The overrides as they hold on any machine."""
    kept = (word for word in words(overrides) if not within(word.lstrip("+").partition("=")[0], PLACES))
    return " ".join(_below_outputs(word) for word in kept)


def _below_outputs(override: str) -> str:
    """The path of another run, from the last folder ``outputs`` on or by its own name; any other override as it is.

    >>> _below_outputs("teacher=/home/me/outputs/runs/TWIN"), _below_outputs("init_from='/tmp/a b'")
    ('teacher=outputs/runs/TWIN', "init_from='a b'")
    """
    key, _, value = override.partition("=")
    path = Path(value.strip("\"'"))
    if key not in RUNS or not path.is_absolute():
        return override
    above = [i for i, part in enumerate(path.parts) if part == "outputs"]
    return f"{key}={value.replace(str(path), str(Path(*path.parts[above[-1] if above else -1 :])))}"


def words(overrides: str) -> list[str]:
    """The single overrides; those in quotes, brackets or braces may hold spaces.

    >>> words("T=4 model.channels=[64, 128] name='a b' search={low: [1, 2], high: ' }'}")
    ['T=4', 'model.channels=[64, 128]', "name='a b'", "search={low: [1, 2], high: ' }'}"]
    """
    found, depth = [""], 0
    for part in re.findall(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|.""", overrides, re.DOTALL):
        depth += (part in "[{") - (part in "]}")
        if part.isspace() and depth <= 0:
            found.append("")
        else:
            found[-1] += part
    return [word for word in found if word]


def _summed(layers: Sequence[EnergyLayer]) -> EnergyLayer:
    """The counts of all layers as one."""
    counts = [entry.name for entry in fields(EnergyLayer) if entry.type == "int" and entry.name != "steps"]
    sums = {name: sum(getattr(layer, name) for layer in layers) for name in counts}
    return EnergyLayer(name="all", steps=layers[0].steps, rate=None, spikes_per_synapse=None, estimates={}, **sums)


def _cell(place: str, entry: Any) -> Cell:
    try:
        found = {"error": None, "result": None, "scales": {}, "fingerprint": "", **entry}
        cell = Cell(
            label=str(found["label"]),
            row=str(found["row"]),
            status=str(found["status"]),
            overrides=str(found["overrides"]),
            seed=int(found["seed"]),
            error=None if found["error"] is None else str(found["error"]),
            fingerprint=str(found["fingerprint"]),
        )
        scales = {
            str(name): Series(np.array(epochs, np.int64), np.array(numbers, np.float64))
            for name, (epochs, numbers) in found["scales"].items()
        }
        data = None if found["result"] is None else {**found["result"], "status": "finished"}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place}: not a cell of a sweep ({error!r}): {str(entry)[:80]}") from error
    if (cell.status == "done") != (data is not None):
        raise DataError(f"{place}: a cell that is done has a result and no other has, got status {cell.status}")
    if data is None:
        return cell
    result: Result = parse_result(data, place)
    if (mark := fingerprint(result.identity)) != result.cell:
        raise DataError(f"{place}: its fingerprint must be that of its identity, {mark}, got {result.cell or 'none'}")
    if result.seed != cell.seed:
        raise DataError(f"{place}: seed must be that of its result, {result.seed}, got {cell.seed}")
    return replace(cell, identity=result.identity, fingerprint=result.cell, result=result, scales=scales)
