"""The style that all figures share: sizes, colours, titles, and figures that need no pyplot."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vitcnn import storage
from vitcnn.numerics.arrays import Names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: Mapping[str, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 2.5,
    "ytick.minor.size": 2.5,
    "pdf.fonttype": 42,  # text stays text, as journals ask
}
COLOUR_MAP = "magma"  # perceptually even, for colour-blind readers and grey print too
BLUE, GREY = "#0072B2", "0.45"  # the blue of Okabe and Ito, made for colour-blind readers
LABEL_GAP = 9.0  # least distance of two tick labels, in points
NOTE = 0.17  # height of the line of notes at the bottom, in inches
LINE = 7.5  # height of a line of a panel's title, in points


def styled(draw: Callable) -> Callable:
    """Returns a drawing function that draws in this style, whatever the user's own settings are."""

    @functools.wraps(draw)
    def wrapped(*args, **kwargs):
        import matplotlib.style

        with matplotlib.style.context(["default", dict(STYLE)]):
            return draw(*args, **kwargs)

    return wrapped


@styled
def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a figure to a .png, .pdf or .svg file, atomically.

    A .png or .pdf file holds no date, so that the same figure gives the same bytes.
    """
    path = storage.as_path(path, "the path of the figure")
    extension = path.suffix[1:]
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    dpi = 300 if extension == "png" else 600  # of the heatmaps; everything else is vectors
    with storage.atomic(path) as partial:
        figure.savefig(partial, format=extension, dpi=dpi, metadata=dates.get(extension))


@styled
def png(figure: Figure, dpi: int = 220) -> bytes:
    """Returns a figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    figure = Figure((width, height))
    figure._repr_png_ = functools.partial(png, figure)  # a notebook shows it without pyplot
    return figure


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float):
    """Adds axes at a place in inches, which keeps the room for labels independent of the figure."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def title(axes: Any, text: str, lines: Names = ()) -> None:
    """Titles a panel: a bold line, then small grey lines below it."""
    axes.set_title(short(text, 25), loc="left", weight="bold", pad=3 + LINE * len(lines))
    for i, line in enumerate(reversed(lines)):
        axes.annotate(
            short(line, 42),
            (0, 1),
            (0, 3 + LINE * i),
            xycoords="axes fraction",
            textcoords="offset points",
            color=GREY,
            size=6,
        )


def note(figure: Figure, text: str) -> None:
    """Writes a line into the bottom `NOTE` inches of a figure."""
    height = figure.get_size_inches()[1]
    figure.text(0.06 / figure.get_size_inches()[0], 0.05 / height, text, color=GREY, size=6)


def short(text: str, length: int = 24) -> str:
    """Returns a text cut to a length, so that it fits its place."""
    return text if len(text) <= length else text[: length - 1] + "\u2026"
