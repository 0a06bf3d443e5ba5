"""The look of the figures: style sheets for light and for dark paper, colours, and safe labels."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache, wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from matplotlib import style
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from PIL import Image

WIDTH = 10.0  # inches; the page's column
FIRST, SECOND, GOOD, BAD, MUTED = "C0", "C1", "C2", "C3", "C4"  # of the style sheets' cycle
# From the first layer to the last; to be seen on light and on dark paper.
DEPTH = LinearSegmentedColormap.from_list("depth", ["#7b5cc7", "#3f7fd0", "#1a9e98", "#5fae3a", "#d9a400"])
Draw = TypeVar("Draw", bound=Callable[..., Any])


class Rendered(NamedTuple):
    """A figure as a PNG for light pages and one for dark pages, with its width and height in pixels."""

    light: bytes
    dark: bytes
    width: int
    height: int


def look(dark: bool = False) -> AbstractContextManager[None]:
    """The look of a figure on light or on dark paper; a reader's own matplotlibrc does not change it."""
    sheets = [Path(__file__).with_name("light.mplstyle"), Path(__file__).with_name("dark.mplstyle")]
    return style.context(sheets if dark else sheets[:1], after_reset=True)


def styled(draw: Draw) -> Draw:
    """Let ``draw`` run under the look of light paper, and leave Matplotlib's own as it was."""

    @wraps(draw)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with look():
            return draw(*args, **kwargs)

    return inside  # type: ignore[return-value]


def render(draw: Callable[[], Figure | None]) -> Rendered | None:
    """The figure that ``draw`` makes, drawn for light and for dark pages; the same bytes for the same figure."""
    found = []
    for dark in (False, True):
        with look(dark):
            figure = draw()
            if figure is None:
                return None
            content = io.BytesIO()
            figure.savefig(content, format="png", metadata={"Software": None})
        found.append(content.getvalue())
    with Image.open(content) as image:
        return Rendered(found[0], found[1], *image.size)


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def label(text: str, length: int = 28) -> str:
    r"""``text`` as matplotlib shows it literally, shortened in the middle to ``length`` characters.

    Dollar signs start no formula, a leading underscore hides no legend entry, and a character that the font lacks
    becomes a box instead of a warning.

    >>> label("$x$"), label("_hidden"), label("layer4.1.residual.conv2.neuron", 16)
    ('\\$x\\$', ' _hidden', 'layer4.…2.neuron')
    """
    shown = "".join(char if ord(char) in _glyphs() and char.isprintable() else "□" for char in text)
    if len(shown) > length:
        head = (length - 1) // 2
        shown = f"{shown[:head]}…{shown[head + 1 - length :]}"
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
