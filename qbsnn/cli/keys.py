"""The one dialect of all tools: ``key=value``, from a model of the keys to the values, the help and the errors."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from qbsnn.checked import explained
from qbsnn.checks import at_home, nearest, place
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.errors import SettingsError
from qbsnn.results.files import checkpoint_of, runs_below
from qbsnn.sweeps.plan import value_of

WIDTH = 110


class Keys(BaseModel):
    """Base of the keys of a tool. A field is a key; its ``description`` is its line of the help, hidden without one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Overriding(Keys):
    """Base of the keys of a tool that hands all other words on as overrides of a configuration."""

    overrides: tuple[str, ...] = ()

    @property
    def outputs(self) -> Path:
        """Where the tool writes, ``outputs`` unless ``paths.outputs=DIR`` is among the overrides.

        Raises:
            SettingsError: DIR is no path, or names settings that are not known here.
        """
        key, folder = "paths.outputs", "outputs"
        for text in (word.partition("=")[2] for word in self.overrides if word.lstrip("+").startswith(f"{key}=")):
            try:
                folder = OmegaConf.create({"folder": value_of(key, text)}).folder  # an environment variable resolves
            except OmegaConfBaseException:
                folder = ""
            if not isinstance(folder, str) or not folder:
                raise SettingsError(f"{key} must be the path of a folder, got {text}")
        return at_home(folder)


class CheckpointKeys(Overriding):
    """The keys of a tool on a checkpoint; other words change single keys of the configuration that it carries."""

    trust: tuple[str, ...] = Field(default=(), description="packages of yours that the configuration may name")
    ckpt: Path = Field(description="the checkpoint, such as outputs/runs/RUN/checkpoints/best.ckpt, or a run's folder")

    @field_validator("overrides")
    @classmethod
    def _deployed(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        for key, _, text in (
            word.removeprefix("deploy.").partition("=") for word in words if word.startswith("deploy.")
        ):
            if key in DeploySettings.model_fields:
                value = value_of(f"deploy.{key}", text)
                if "${" not in text:  # long before the checkpoint could be read, which has what is named so
                    with place("deploy"):
                        DeploySettings(**{key: value})
        return words

    @field_validator("ckpt")
    @classmethod
    def _there(cls, ckpt: Path) -> Path:
        if not ckpt.exists():
            raise ValueError(f"checkpoint {ckpt.resolve()} does not exist")
        checkpoint_of(ckpt)
        return ckpt


class ResumeKeys(Overriding):
    """The keys of going on with a run; other words change what a run may change of its settings."""

    resume: Path = Field(description="the run directory")
    logger: str | None = Field(default=None, description="wandb or csv: in place of the loggers that the run had")
    trust: tuple[str, ...] = Field(default=(), description="packages of yours that the configuration may name")

    @field_validator("resume")
    @classmethod
    def _begun(cls, resume: Path) -> Path:
        if not (resume / "checkpoints").is_dir():
            absent = f"there is no folder {resume / 'checkpoints'}{runs_below(resume)}"
            raise ValueError(f"{resume} has no checkpoint to go on from: {absent}")
        return resume


class ComparisonKeys(Keys):
    """The keys of a tool that compares the work tree with another commit."""

    ref: str = Field(default="main", description="the commit to compare with")


Given = TypeVar("Given", bound=Keys)


def read(keys: type[Given], words: Iterable[str]) -> Given:
    """Read the words of a command line.

    Args:
        keys: the model of the keys. A field that is a list or tuple takes values with commas between them, or none;
            brackets may stand around them, as in a configuration.
        words: ``key=value`` each.

    Returns:
        The model, with the words that are no key of its own in ``overrides`` if it has that field.

    Raises:
        SettingsError: a word is no ``key=value``, a key is unknown, missing or given twice, a value is refused.

    >>> class Size(Keys):
    ...     images: int
    ...     names: list[str] = []
    >>> read(Size, ["images=3", "names=a,b"])
    Size(images=3, names=['a', 'b'])
    >>> read(Size, ["images=3", "names=[a, b]"])
    Size(images=3, names=['a', 'b'])
    >>> read(Size, ["images=3", "names="])
    Size(images=3, names=[])
    >>> read(Size, ["imagse=3"])
    Traceback (most recent call last):
    ...
    qbsnn.errors.SettingsError: imagse is not a key of this tool: did you mean images?
    """
    own = {name: field for name, field in keys.model_fields.items() if name != "overrides"}
    values: dict[str, Any] = {}
    others: list[str] = []
    for word in words:
        key, equals, text = word.partition("=")
        if key in own and equals:
            if key in values:
                raise SettingsError(f"{key} is given twice")
            if not text and not _many(own[key]):
                raise SettingsError(f"{key} has no value: write {key}=VALUE, or leave it out")
            values[key] = _parts(text) if _many(own[key]) else text
        elif "overrides" in keys.model_fields and (equals or word.startswith("~")):
            others.append(word)
        elif equals:
            raise SettingsError(f"{key} is not a key of this tool: {nearest(key, own)}")
        else:
            wanted = next((name for name, field in own.items() if field.is_required()), next(iter(own)))
            example = f"{word}=VALUE" if word in own else f"{wanted}={word}"
            raise SettingsError(f"{word} is no key=value: did you mean {example}? --help shows all keys")
    try:
        return keys.model_validate(values | ({"overrides": tuple(others)} if others else {}))
    except ValidationError as error:
        wrong = [_explained(keys, item) for item in error.errors()]
        raise SettingsError("; ".join([*wrong, "--help shows all keys"])) from None


def help_text(keys: type[Keys], doc: str | None) -> str:
    """What ``--help`` prints: the tool's docstring, and a line for each key with its default.

    >>> from pydantic import Field
    >>> class Size(Keys):
    ...     images: int = Field(default=4, description="how many")
    >>> print(help_text(Size, "Measure."))
    Measure.
    <BLANKLINE>
      images=4  how many
    """
    shown = {_shown(name, field): field.description or "" for name, field in keys.model_fields.items()
             if field.description}  # fmt: skip
    width = min(max(map(len, shown), default=0), 30)
    lines = []
    for left, words in shown.items():
        first = f"  {left:<{width}}  "
        lines.append(textwrap.fill(words, WIDTH, initial_indent=first, subsequent_indent=" " * (width + 4)))
    return "\n".join([(doc or "").replace("``", "").strip(), "", *lines])


def _shown(name: str, field: FieldInfo) -> str:
    """A key as the help shows it, with its default or with what it takes."""
    if field.is_required():
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        return f"{name}={'|'.join(choices) or ('PATH' if field.annotation is Path else 'VALUE')}"
    default = field.get_default()
    if default is None:
        return f"{name}="
    if isinstance(default, (list, tuple)):
        return f"{name}={','.join(map(str, default))}"
    return f"{name}={str(default).lower() if isinstance(default, bool) else default}"


def _explained(keys: type[Keys], item: Any) -> str:
    if item["type"] == "missing":
        name = str(item["loc"][0])
        return f"{name} is missing: write {_shown(name, keys.model_fields[name])}"
    return explained(keys, item)


def _many(field: FieldInfo) -> bool:
    return get_origin(field.annotation) in (list, tuple)


def _parts(text: str) -> list[str]:
    """The values of a list, without the spaces and the brackets around them."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    return [part.strip() for part in inner.split(",")] if inner.strip() else []
