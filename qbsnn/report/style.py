"""The look of the figures: colours, safe labels, and a figure turned into PNGs for light and for dark pages."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from numpy.typing import NDArray
from PIL import Image

DPI = 110
WIDTH = 10.0  # inches; the page's column at DPI
INK, MUTED, GRID = "#1c2430", "#667085", "#e6e9ee"
FIRST, SECOND, GOOD, BAD = "#2166ac", "#d6700a", "#1b7f4b", "#c42b2b"
# From the first layer to the last, and from no spike to the largest burst.
DEPTH = LinearSegmentedColormap.from_list("depth", ["#3b1f6e", "#2f5fa8", "#16928f", "#5fae3a", "#d9a400"])
HEAT = LinearSegmentedColormap.from_list("heat", ["#ffffff", "#bcd6ee", "#5a9bd1", "#1f5fa6", "#0b2a57"])
DARK_PAPER = (0x1A, 0x20, 0x29)  # --card of the page's dark mode: a figure then has no visible edge
PHOTO = "photo"  # the gid of an artist whose colours dark mode keeps
# A reader's own matplotlibrc must not change a report. Typed loosely: the type of the keys differs between versions.
SETTINGS: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.usetex": False,
    "text.color": INK,
    "axes.facecolor": "#ffffff",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.facecolor": "#ffffff",
    "legend.edgecolor": "none",
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.facecolor": "#ffffff",
    "figure.dpi": DPI,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
}
Draw = TypeVar("Draw", bound=Callable[..., Any])


def styled(draw: Draw) -> Draw:
    """Let ``draw`` run under :data:`SETTINGS`, and leave matplotlib's own as they were."""

    @wraps(draw)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with mpl.rc_context(SETTINGS):
            return draw(*args, **kwargs)

    return inside  # type: ignore[return-value]


@styled
def render(figure: Figure) -> tuple[bytes, bytes]:
    """The figure as a PNG for light pages and one for dark pages; the same bytes for the same figure.

    The dark one is made from the light one's pixels, which costs a twentieth of drawing twice.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    light = np.asarray(canvas.buffer_rgba())[..., :3]
    dark = darkened(light)
    for photo in figure.findobj(lambda artist: artist.get_gid() == PHOTO):
        box = photo.get_window_extent(canvas.get_renderer())
        x0, x1 = math.ceil(box.x0), math.floor(box.x1)
        y0, y1 = math.ceil(len(light) - box.y1), math.floor(len(light) - box.y0)
        dark[y0:y1, x0:x1] = light[y0:y1, x0:x1]
    return _png(light), _png(dark)


def darkened(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB pixels [H, W, 3] with the lightness turned round and hue and chroma kept; white becomes the dark paper."""
    colour = pixels.astype(np.float32) / 255
    lightness = colour @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    turned = np.clip(colour + (1 - 2 * lightness)[..., None], 0, 1)
    paper = np.array(DARK_PAPER, dtype=np.float32)
    return np.round(paper + turned * (255 - paper)).astype(np.uint8)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


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


def wrapped(name: str, length: int) -> str:
    """A layer's name on at most two lines of ``length`` characters, broken after a dot where that fits."""
    if len(name) <= length:
        return label(name, length)
    cut = name.rfind(".", 0, length) + 1 or length
    return f"{label(name[:cut], length)}\n{label(name[cut:], length)}"


def grid(axes: Axes, axis: Any = "y") -> None:
    """Faint lines behind the data."""
    axes.grid(True, axis=axis)
    axes.tick_params(length=2.5)


def row_of_axes(
    width: float, height: float, widths: list[float], left: float, right: float, gap: float = 0.6
) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side, shares ``widths`` of what the margins and gaps (in inches) leave.

    Fixed margins, because matplotlib's automatic layouts double the time a figure takes.
    """
    figure = Figure(figsize=(width, height))
    room = width - left - right - gap * (len(widths) - 1)
    bottom, top = 0.48, 0.32
    places, at = [], left
    for share in widths:
        size = room * share / sum(widths)
        places.append(figure.add_axes((at / width, bottom / height, size / width, (height - bottom - top) / height)))
        at += size + gap
    return figure, places


def sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure and one bare axes over all of it, in inches from the top left: many panels without many axes."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    return figure, axes
