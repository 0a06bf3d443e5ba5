"""A sweep file (``conf/sweep/NAME.yaml``) and the cells that it stands for. Composes and trains nothing."""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml import YAMLError

from qbsnn.checked import explained
from qbsnn.errors import SettingsError


class Row(BaseModel):
    """A row of a table: its label, the settings that make it, keys of published figures to stand beside it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    label: str = Field(min_length=1)
    overrides: list[str] = []
    published: list[str] = []


class Sweep(BaseModel):
    """The keys of a sweep file. Cells are rows × grid × seeds.

    overrides: settings of every cell. grid: a setting -> the values it takes. rows: see :class:`Row`. baseline: the
    label of the row that others are compared with. figure: which figure is drawn of the results. list: only tell
    what is done and what is missing.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    title: str = Field(min_length=1)
    overrides: list[str] = []
    grid: dict[str, list[Any]] = {}
    rows: list[Row] = []
    seeds: list[int] = Field(default=[0], min_length=1)
    baseline: str | None = None
    figure: str | None = None
    list_only: bool = Field(default=False, alias="list")

    @model_validator(mode="after")
    def _consistent(self) -> Sweep:
        rows = [override for row in self.rows for override in row.overrides]
        refuse_of_files([*self.overrides, *rows, *self.grid])
        for override in [*self.overrides, *rows, *self.grid]:
            if _key(override) == "seed":
                raise ValueError(f"{override} is overruled by the seeds of the sweep: write them as seeds: [0, 1]")
        labels = [row.label for row in self.rows]
        if len(set(labels)) < len(labels):
            raise ValueError(f"rows must have different labels, got {labels}")
        if self.baseline is not None and self.baseline not in labels:
            raise ValueError(f"baseline must be the label of a row, one of {labels}, got {self.baseline!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {self.seeds}")
        empty = [key for key, values in self.grid.items() if not values]
        if empty:
            raise ValueError(f"grid.{empty[0]} needs at least one value")
        return self


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    row: label of its row, empty without rows. overrides: all of its settings, the seed among them. label: row and grid
    values in words; cells that differ in their seed alone share it. axes: the overrides that tell cells apart.
    """

    row: str
    overrides: tuple[str, ...]
    seed: int
    label: str
    axes: tuple[str, ...]


def refuse_of_files(overrides: Iterable[str]) -> None:
    """See that overrides in a file do not say what only the command line may: whom to trust, what Hydra does.

    Args:
        overrides: ``KEY=VALUE``, or keys.

    Raises:
        ValueError: naming the override.
    """
    for override in overrides:
        if re.match(r"[\s+~]*(hydra|trust|paths\.run|paths\.outputs|paths\s*=)(?!\w)", override):
            raise ValueError(f"{override} belongs on the command line; a file may not say it")


def read(node: Mapping[str, Any], name: str) -> Sweep:
    """The contents of a sweep file. Raises SettingsError naming the file's group choice and the bad key."""
    try:
        return Sweep.model_validate(dict(node))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":
            raise SettingsError(f"sweep={name}: {explained(Sweep, first)}") from error
        if first["type"] != "extra_forbidden":
            raise SettingsError(f"sweep={name}: sweep.{explained(Sweep, first)}") from error
        where = ".".join(["sweep", *(str(part) for part in first["loc"])])
        fields = (Row if len(first["loc"]) > 1 else Sweep).model_fields
        known = ", ".join(field.alias or key for key, field in fields.items())
        raise SettingsError(f"sweep={name}: {where} is not a key; there are {known}") from error


def cells(sweep: Sweep, extra: Sequence[str] = ()) -> list[Cell]:
    """All cells, in the order rows, grid, seeds; ``extra`` are overrides of the command line, for every cell.

    Of two overrides of one key the later counts: file, row, grid, command line. Raises SettingsError where the command
    line sets a key that the sweep itself varies, and where two cells have the same overrides.

    >>> found = cells(Sweep(title="t", grid={"T": [2, 4]}, seeds=[0, 1]), ["neuron=lif"])
    >>> [(cell.label, cell.seed) for cell in found]
    [('T=2', 0), ('T=2', 1), ('T=4', 0), ('T=4', 1)]
    >>> found[0].overrides
    ('T=2', 'neuron=lif', 'seed=0')
    """
    varied = {_key(override) for row in sweep.rows for override in row.overrides}
    for override in extra:
        if (key := _key(override)) in varied or key in sweep.grid:
            where = "sweep.grid" if key in sweep.grid else "its rows"
            raise SettingsError(f"{override}: the sweep varies this setting; change {where} instead")
        if _key(override) == "seed":
            value = override.split("=", 1)[-1]
            raise SettingsError(f"{override}: a sweep has several seeds; use sweep.seeds=[{value}] instead")
    found = []
    rows: list[Row | None] = [*sweep.rows] or [None]
    points = itertools.product(*([f"{key}={written(v)}" for v in values] for key, values in sweep.grid.items()))
    for row, point in itertools.product(rows, list(points)):
        settings = row.overrides if row else []
        label = ", ".join(([row.label] if row else []) + list(point)) or sweep.title
        for seed in sweep.seeds:
            last = _last_of_each_key([*sweep.overrides, *settings, *point, *extra, f"seed={seed}"])
            axes = (*settings, *point, f"seed={seed}")
            found.append(Cell(row.label if row else "", tuple(last), seed, label, axes))
    refuse_twins((frozenset(cell.overrides), cell) for cell in found)
    return found


def refuse_twins(marked: Iterable[tuple[Hashable, Cell]]) -> None:
    """Raise a SettingsError where two cells have the same mark: one run cannot be compared with itself."""
    first: dict[Hashable, Cell] = {}
    for mark, cell in marked:
        twin = first.setdefault(mark, cell)
        if twin is not cell:
            raise SettingsError(
                f"{twin.label} and {cell.label} (seed {cell.seed}) are the same run, which cannot be compared with "
                "itself: leave one of them out, or change a setting of it"
            )


def folder_name(overrides: Iterable[str], mark: str) -> str:
    """A directory name that says what was set, safe on every file system, of at most 120 bytes.

    Args:
        overrides: what tells directories apart. What is not a letter, digit or one of ``._-`` is left out.
        mark: a hash, which keeps names apart that are cut or have lost a sign.

    >>> folder_name(["neuron.s_max=4", "data=digits", "paths.data=../a", "seed=0"], "0123456789abcdef")
    'neuron.s_max-4_data-digits_paths.data-a_seed-0_0123456789abcdef'
    """
    readable = "_".join(override.replace("=", "-").replace("/", ".") for override in overrides)
    words = re.sub(r"\.{2,}", "", re.sub(r"[^\w.\-]+", "", readable, flags=re.ASCII))
    return f"{words[:100].strip('._-')}_{mark}"


def written(value: Any) -> str:
    """A value of a YAML file as the command line has it.

    >>> [written(value) for value in (None, True, 4, 1e-4, "lif", [1, 2], "a b", "4")]
    ['null', 'true', '4', '0.0001', 'lif', '[1,2]', "'a b'", "'4'"]
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(written(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    text = str(value)
    plain = r"(?!(?i:null|true|false|nan|inf)$)[A-Za-z_][\w./+@:-]*"
    if isinstance(value, str) and not re.fullmatch(plain, text, re.ASCII):
        # Hydra reads backslashes as they are but before a quote and at the end.
        return "'" + re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text) + "'"
    return text


def value_of(key: str, text: str) -> Any:
    """The value of an override ``key=text``, read as YAML; what names other settings in it stays as it is.

    Raises:
        SettingsError: the text cannot be read.

    >>> value_of("T", "4"), value_of("data.root", "'a b'"), value_of("data.root", "${paths.data}/x")
    (4, 'a b', '${paths.data}/x')
    """
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)["value"]  # type: ignore
    except (YAMLError, OmegaConfBaseException):
        raise SettingsError(
            f"{key} must have a value that can be read as YAML, such as 0.1 or [1,2], got {text}"
        ) from None


def _last_of_each_key(overrides: Sequence[str]) -> list[str]:
    last: dict[str, str] = {}
    for override in overrides:
        last.pop(_key(override), None)
        last[_key(override)] = override
    return list(last.values())


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~")
