"""All runs below a folder as a pandas DataFrame: what tables and pages are made from, and what a notebook opens."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbsnn import checks
from qbsnn.errors import DataError
from qbsnn.results.formatting import chosen
from qbsnn.results.quantities import listed, of_columns, values
from qbsnn.results.reading import read_result
from qbsnn.results.schema import Result, ran

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = (
    "run", "name", "status", "data", "samples", "model", "neuron", "T", "s_max", "alpha", "beta", "seed", "sweep",
    "fingerprint", "started", "commit", "dirty", "device", "torch", "precision", "command", "error", "folder", "config",
)  # fmt: skip
"""The columns that say which run it is, in front of those of the quantities.

``run``: its directory relative to the folder that was read; ``folder``: the same as an absolute path. ``samples``: how
many were read of each part. ``fingerprint``:
of the settings that determine the result, empty for an evaluation. ``commit``, ``dirty``: of the code. ``device``,
``torch``: what it ran on. ``precision``: of training. ``config``: the resolved settings, nested.
"""


def frame(folder: Path | str) -> pd.DataFrame:
    """All runs below a folder, a row each, the newest first.

    Args:
        folder: For example ``outputs``, or one sweep in it.

    Returns:
        The columns :data:`SETTINGS`, then those of :data:`~qbsnn.results.QUANTITIES` in the units of ``result.json``:
        shares in [0, 1], picojoules, seconds. What a run does not have is missing. ``attrs["refused"]`` lists the files
        that are no results, as pairs of path and reason; ``attrs["models"]`` names the energy models by key.

    Raises:
        ArgumentError: ``folder`` is no path.
        DataError: It is no directory.

    >>> import tempfile
    >>> from qbsnn.results.schema import Host, Metrics, Result
    >>> outputs, host = Path(tempfile.mkdtemp()), Host("a CPU", 2, [], None, "Linux", {})
    >>> for seed, accuracy in enumerate((0.75, 0.5)):
    ...     run = Result("train.py", {"T": 4}, seed, host, None, None, metrics=Metrics(best={"test/acc": accuracy}))
    ...     (outputs / f"run{seed}").mkdir()
    ...     run.write(outputs / f"run{seed}" / "result.json")
    >>> runs = frame(outputs)
    >>> print(runs[["run", "T", "seed", "test/acc"]].to_string(index=False))
     run  T  seed  test/acc
    run1  4     1      0.50
    run0  4     0      0.75
    >>> float(runs.groupby("T")["test/acc"].mean()[4])
    0.625
    """
    root = checks.path("folder", folder, "a folder of runs")
    if not root.is_dir():
        raise DataError(f"{root} is no directory; name the one that holds the runs")
    results, refused = read_runs(root)
    found = frame_of(results, root)
    found.attrs["refused"] = refused
    return found


def read_runs(root: Path) -> tuple[dict[Path, Result], list[tuple[str, str]]]:
    """Every ``result.json`` below a folder, hidden folders aside.

    Returns:
        The results by run directory, the newest first; and the files that are no results, as pairs of the path below
        ``root`` and the reason.
    """
    results, refused = {}, []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if "result.json" not in files:
            continue
        path = Path(folder) / "result.json"
        try:
            results[path.parent] = read_result(path)
        except DataError as error:
            place = path.relative_to(root).as_posix()
            refused.append((place, str(error).replace(str(path), place)))
    newest = sorted(results, key=lambda path: (results[path].started, path.as_posix()), reverse=True)
    return {path: results[path] for path in newest}, sorted(refused)


def frame_of(results: Mapping[Path, Result], root: Path) -> pd.DataFrame:
    """The frame of results that were read already, by run directory, in their order; see :func:`frame`."""
    import pandas as pd

    rows = [_settings(folder, result, root) | values(result) for folder, result in results.items()]
    always = [quantity.key for quantity in listed() if not quantity.by]
    columns = [*SETTINGS, *of_columns(dict.fromkeys([*always, *(name for row in rows for name in row)]))]
    # As objects first: pandas' own strings refuse what a file name may hold, and integers with gaps become floats.
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    for name in columns:
        table[name] = _typed(table[name], of_quantity=name not in SETTINGS)
    table.attrs["models"] = {
        key: title for result in results.values() for key, title in getattr(ran(result.energy), "models", {}).items()
    }
    return table


def _typed(column: pd.Series[Any], of_quantity: bool) -> pd.Series[Any]:
    """Numbers as numbers with gaps where they are missing; anything else as it is."""
    import pandas as pd

    kind = pd.api.types.infer_dtype(column)
    if kind == "integer":
        return column.astype("Int64")
    return column.astype("float64") if of_quantity or kind in ("floating", "mixed-integer-float") else column


def _settings(folder: Path, result: Result, root: Path) -> dict[str, Any]:
    """The values of :data:`SETTINGS`; the configuration of a stranger may hold anything in any place."""
    config, host, absolute = result.config, result.host, folder.resolve()
    neuron = config.get("neuron")
    names = {key: chosen(config, key) for key in ("data", "model", "neuron")}
    numbers = {key: neuron.get(key) for key in ("s_max", "alpha", "beta")} if isinstance(neuron, Mapping) else {}
    found = {"name": config.get("name"), **names, "T": config.get("T"), **numbers}
    above = absolute.parts[:-1]
    return {
        **{key: _plain(value) for key, value in found.items()},
        "run": Path(os.path.relpath(folder, root)).as_posix(),
        "status": result.status,
        "samples": _samples(result.data.get("samples")),
        "seed": result.seed,
        "sweep": above[above.index("sweeps") + 1] if "sweeps" in above[:-1] else None,
        "fingerprint": result.cell,
        "started": result.started or None,
        "commit": result.git_commit,
        "dirty": result.git_dirty,
        "device": host.device,
        "torch": host.versions.get("torch"),
        "precision": result.precision,
        "command": result.command,
        "error": result.error,
        "folder": str(absolute),
        "config": config,
    }


def _samples(parts: Any) -> str | None:
    """The numbers of samples by part, in words.

    >>> _samples({"train": 1293, "val": 144, "test": 360})
    '1,293 train, 144 val, 360 test'
    """
    if not isinstance(parts, Mapping):
        return None
    return ", ".join(f"{count:,} {part}" for part, count in parts.items() if isinstance(count, int)) or None


def _plain(value: Any) -> Any:
    """A value that fits in a cell; another one as text."""
    fits = value is None or isinstance(value, (str, float)) or (isinstance(value, int) and abs(value) < 2**63)
    return value if fits else json.dumps(value, ensure_ascii=False)
