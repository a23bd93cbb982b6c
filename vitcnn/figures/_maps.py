"""Maps: small images of values over a grid, in one block for each Result."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray
from jaxtyping import Float

from vitcnn.figures._describe import panel_title
from vitcnn.figures._style import (
    COLOUR_MAP,
    GREY,
    LINE,
    NOTE,
    add_axes,
    new_figure,
    note,
    short,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE, GAP = 0.97, 0.1  # longer side of the largest map and space between maps, in inches
COLUMNS = 6  # with the colour bar a page 7 inches wide


@dataclasses.dataclass(frozen=True)
class Map:
    """One small heatmap over positions of an image.

    Attributes:
      title: such as "block 1, attention" or "token (2, 1)"; about 20 letters have room.
      values: row 0 is drawn on top, cells are square, as in an image; NaN is grey.
      mark: (row, column) of a cell that is outlined; or (row, column, height, width) of a box in
        cells, which need not be whole. Row 0 and column 0 begin at the upper left corner.
    """

    title: str
    values: Float[np.ndarray, "rows columns"]
    mark: tuple[int, int] | tuple[float, float, float, float] | None = None


@styled
def maps(
    results: Sequence[xarray.Dataset],
    panels: Sequence[Sequence[Map]],
    scale: str,
    shared: bool | str = True,
    limits: tuple[float | None, float | None] = (None, None),
    remark: str = "",
) -> Figure:
    """Draws a block of maps for each Result, row by row, at most six in a row.

    Args:
      results: Results, which title the blocks.
      panels: for each Result, its maps, at least one.
      scale: what the colours mean, with units; the title of the colour bar.
      shared: one colour scale for the whole figure (True), one for each Result ("result"), or one
        for each map, with its range printed below it (False).
      limits: ends of every colour scale; None stands for the least or greatest finite value of
        the maps that share the scale.
      remark: a line at the bottom of the figure.

    Raises:
      ValueError: a Result has no maps, or `shared` is none of True, False and "result".
    """
    if shared not in (True, False, "result"):
        raise ValueError(f'shared = {shared!r} is not True, False or "result"')
    if not panels or not all(panels):
        raise ValueError("every Result needs at least one map")
    every = [m for block in panels for m in block]
    # Height and width of each map in inches: the longer side is the same for all maps.
    sizes = {id(m): SIDE * np.array(m.values.shape) / max(m.values.shape) for m in every}
    height, width = np.max([sizes[id(m)] for m in every], axis=0)
    row = 0.15 + height + (0.07 if shared else 0.17)  # title, map, range
    rows = [math.ceil(len(block) / COLUMNS) for block in panels]
    columns = [math.ceil(len(block) / n) for block, n in zip(panels, rows, strict=True)]
    head, left, bar = 0.38, 0.08, 0.95  # inches: titles of a block, margin, column of colour bars
    strip = NOTE if remark else 0.03
    across = max((width + GAP) * max(columns), 2.2)  # room for the titles of a block
    figure = new_figure(left + across + bar, sum(head + n * row for n in rows) + strip)
    full = figure.get_size_inches()[1]
    top, norm = full, _norm(every, limits)
    for k, (result, block) in enumerate(zip(results, panels, strict=True)):
        _block_title(figure, result, left, top)
        norm = _norm(block, limits) if shared == "result" else norm
        for i, m in enumerate(block):
            r, c = divmod(i, columns[k])
            norm = _norm([m], limits) if not shared else norm
            h, w = sizes[id(m)]
            y = top - head - r * row - 0.15 - h
            axes = add_axes(figure, left + c * (width + GAP), y, w, h)
            image = _draw(axes, m, norm)
            if not shared:
                text = f"{_number(norm.vmin)} to {_number(norm.vmax)}"
                place = {"xytext": (0, -2), "textcoords": "offset points", "va": "top"}
                axes.annotate(text, (0, 0), xycoords="axes fraction", **place, color=GREY, size=5.5)
        if k == 0 or shared == "result":
            at = (left + (width + GAP) * max(columns) + 0.04, top - head - 0.15 - height)
            sharing = every if shared is True else block
            _bar(figure, image, at, height, scale, _beyond(sharing, limits), not shared)
        top -= head + rows[k] * row
    note(figure, remark)
    return figure


def _norm(sharing, limits):
    """Returns the colour scale of maps that share one."""
    from matplotlib.colors import Normalize

    values = np.concatenate([np.ravel(m.values) for m in sharing])
    values = values[np.isfinite(values)]
    ends = (values.min(), values.max()) if values.size else (0.0, 1.0)
    low, high = (float(e if s is None else s) for e, s in zip(ends, limits, strict=True))
    return Normalize(low, high)


def _beyond(sharing, limits) -> str:
    """Returns the ends of a colour bar beyond which there are values, as `colorbar` calls them."""
    low, high = limits
    low = low is not None and any(np.any(m.values < low) for m in sharing)
    high = high is not None and any(np.any(m.values > high) for m in sharing)
    return {(1, 1): "both", (1, 0): "min", (0, 1): "max", (0, 0): "neither"}[low, high]


def _draw(axes, m, norm):
    import matplotlib
    from matplotlib.patches import Rectangle

    image = axes.imshow(
        m.values,
        aspect="auto",
        cmap=matplotlib.colormaps[COLOUR_MAP].with_extremes(bad="0.8"),
        norm=norm,
        interpolation="antialiased",  # cells stay sharp, pixels of a photograph do not alias
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(short(m.title, 22), loc="left", size=6, pad=2.5)
    if m.mark is not None:
        y, x, h, w = m.mark if len(m.mark) == 4 else (*m.mark, 1, 1)
        points = 72 * SIDE * min(h, w) / max(m.values.shape)
        fine = min(1, points / 10)  # a thick frame would hide what is in a small box
        for colour, line in (("black", 1.8 * fine), ("white", 0.9 * fine)):  # on dark, on bright
            box = Rectangle((x - 0.5, y - 0.5), w, h, clip_on=False, zorder=3)
            box.set(facecolor="none", edgecolor=colour, linewidth=line)
            axes.add_patch(box)
    return image


def _bar(figure, image, at, height, scale, beyond, own) -> None:
    axes = add_axes(figure, *at, 0.09, height)
    bar = figure.colorbar(image, cax=axes, extend=beyond)
    if own:  # the range of each map is printed below it
        low, high = image.norm.vmin, image.norm.vmax
        bar.set_ticks([low, high], labels=["low", "high"])
    axes.set_title("\n".join(textwrap.wrap(scale, 17)), loc="left", size=6, pad=7)


def _block_title(figure, result, left, top) -> None:
    """Titles a block in two lines; it is wide, so the lines of a panel's title share one here."""
    who, lines = panel_title(result)
    width, height = figure.get_size_inches()
    place = {"ha": "left", "va": "top"}
    figure.text(left / width, (top - 0.06) / height, short(who, 40), weight="bold", **place)
    y = top - 0.06 - (LINE + 1.5) / 72
    about = short(" \u00b7 ".join(lines), 60)
    figure.text(left / width, y / height, about, color=GREY, size=6, **place)


def _number(value: float) -> str:
    return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "\u2212")
