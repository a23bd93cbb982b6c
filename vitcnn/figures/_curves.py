"""Curves: one panel for each Result, one curve for each thing that is compared in it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

from vitcnn.figures._describe import panel_title
from vitcnn.figures._style import GREY, LINE, add_axes, new_figure, short, styled, title
from vitcnn.numerics.arrays import Numbers
from vitcnn.numerics.statistics import Z

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, made for colour-blind readers, in an order of contrast; with markers, so
# that curves can be told apart in grey too. From the seventh curve on, the colours start again with
# another dash and marker.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
WIDTH, HEIGHT = 2.3, 1.7  # of a panel, in inches
COLUMNS = 3
ENTRY = 0.125  # height of a line of the legend, in inches
LONGEST = 34  # letters of a name in the legend
LETTERS = 36  # of a line of the title of the vertical axis

Curve = tuple[Numbers, Numbers, Numbers]  # x, y, standard error
# A level, or (x, y) of a line, and its name.
Reference = tuple[float | tuple[Numbers, Numbers], str]


@styled
def curves(
    results: Sequence[xarray.Dataset],
    panels: Sequence[Mapping[str, Curve]],
    x_title: str | Sequence[str],
    y_title: str,
    reference: Sequence[Reference] = (),
    share: bool = False,
    ordered: bool = False,
) -> Figure:
    """Draws curves with 95% bands, one panel for each Result, all with the same vertical scale.

    A curve looks the same in every panel. Ticks are whole numbers where x is.

    Args:
      results: Results, which title the panels.
      panels: for each Result, name of a curve -> (x, y, standard error); NaN is a gap.
      x_title: title of the horizontal axis, with units; or one for each Result.
      y_title: title of the vertical axis, with units.
      reference: for each Result, a level or a line that is drawn dashed, and its name; () for
        none.
      share: whether all values are shares, so that bands end at 0 and 1.
      ordered: whether the curves have an order, such as layers: colours then run from the first to
        the last.
    """
    x_titles = [x_title] * len(panels) if isinstance(x_title, str) else x_title
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    curve_names = list(dict.fromkeys(name for panel in panels for name in panel))
    names = [*curve_names, *dict.fromkeys(name for _, name in reference)]
    titles = [panel_title(result) for result in results]
    y_lines = textwrap.wrap(y_title, LETTERS) or [""]
    left, right, bottom = 0.55 + 0.11 * (len(y_lines) - 1), 0.15, 0.45
    top = (14 + LINE * max((len(lines) for _, lines in titles), default=0)) / 72
    cell = (left + WIDTH + right, bottom + HEIGHT + top)
    lines = max(1, int((rows * cell[1] - top) / ENTRY))  # as many as the legend has room for
    blocks = math.ceil(len(names) / lines)
    entries = [short(name, LONGEST) for name in names]
    legend = max(1.25, blocks * (0.42 + max(map(_inches, entries), default=0)) + 0.05)
    figure = new_figure(columns * cell[0] + legend, rows * cell[1])
    drawn = []
    for k, (heading, named) in enumerate(zip(titles, panels, strict=True)):
        row, column = divmod(k, columns)
        base = (rows - 1 - row) * cell[1] + bottom
        axes = add_axes(figure, column * cell[0] + left, base, WIDTH, HEIGHT)
        for name, curve in named.items():
            i = curve_names.index(name)
            _draw(axes, name, curve, _look(i, len(curve_names), ordered), share)
        if reference:
            dashed = {"color": GREY, "linestyle": (0, (4, 3)), "linewidth": 0.7, "zorder": 1}
            where, name = reference[k]
            if np.ndim(where):
                axes.plot(*where, label=name, **dashed)
            else:
                axes.axhline(where, label=name, **dashed)
        axes.spines[["top", "right"]].set_visible(False)
        places = np.concatenate([np.ravel(x) for x, _, _ in named.values()] or [np.zeros(1)])
        whole = bool(np.all(np.mod(places, 1) == 0))
        axes.xaxis.get_major_locator().set_params(integer=whole)
        axes.set_xlabel(short(x_titles[k], 46))
        axes.set_ylabel("\n".join(y_lines))
        title(axes, *heading)
        drawn.append(axes)
    ends = [v for axes in drawn for v in axes.get_ylim()]
    for axes in drawn:
        axes.set_ylim(min(0, *ends), max(ends))
    handles = {}
    for axes in drawn:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    drawn[columns - 1].legend(
        [handles[name] for name in names],
        entries,
        loc="upper left",
        bbox_to_anchor=(1.03, 1.02),
        borderaxespad=0,
        frameon=False,
        fontsize=6,
        ncols=blocks,
        handlelength=2.6,  # so that dashes show
        labelspacing=0.4,
        columnspacing=1,
    )
    return figure


def _look(i: int, curves: int, ordered: bool) -> dict[str, Any]:
    """Returns how the i-th of all curves is drawn."""
    look = {"linewidth": 0.8, "markersize": 2.2, "mew": 0}
    around = 0 if ordered else i // len(COLOURS)
    colour = COLOURS[i % len(COLOURS)]
    if ordered:
        import matplotlib

        # The last colours of the map are too light on white.
        colour = matplotlib.colormaps["viridis"](0.9 * i / max(curves - 1, 1))
    mark = MARKERS[(i + around) % len(MARKERS)]
    return look | {"color": colour, "marker": mark, "linestyle": DASHES[around % len(DASHES)]}


def _draw(axes, name: str, curve: Curve, look: Mapping[str, Any], share: bool) -> None:
    """Draws a curve with its band."""
    x, y, error = (np.asarray(a, float) for a in curve)
    axes.plot(x, y, label=name, **look)
    band = [np.clip(end, 0, 1) if share else end for end in (y - Z * error, y + Z * error)]
    axes.fill_between(x, *band, color=look["color"], alpha=0.2, linewidth=0)


def _inches(text: str, size: float = 6) -> float:
    """Returns the width of a text of a size in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(size=size)
    return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0] / 72
