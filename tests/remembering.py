"""Composes settings with what was read before: over a thousand compositions read the same files and words.

A third of the time of a composition is YAML and the grammar of ``${...}``, read by Python; what is read stays the same.
"""

import copy
import functools
from typing import Any, TextIO

import omegaconf
import yaml
from omegaconf import _utils


class Remembering:
    """The module ``yaml`` as OmegaConf uses it, which reads a text once."""

    def load(self, stream: TextIO | str, Loader: Any) -> Any:
        try:
            return copy.deepcopy(_loaded(stream if isinstance(stream, str) else stream.read()))
        except yaml.YAMLError:  # read it from the file, which the error names
            if not isinstance(stream, str):
                stream.seek(0)
            return yaml.load(stream, Loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(yaml, name)


@functools.cache
def _loaded(text: str) -> Any:
    return yaml.load(text, _utils.get_yaml_loader())


def remember() -> None:
    """From now on, in this process."""
    omegaconf.base.parse = _utils.parse = functools.cache(_utils.parse)
    omegaconf.omegaconf.yaml = Remembering()
