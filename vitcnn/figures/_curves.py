"""Curves: one panel for each Result, one curve for each thing that is compared in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray

from vitcnn.figures._describe import describe_images, describe_model, origin
from vitcnn.figures._house import GREY, Z, add_axes, new_figure, styled, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, made for colour-blind readers, in an order of contrast; with markers, so
# that curves can be told apart in grey too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
WIDTH, HEIGHT = 2.3, 1.7  # of a panel, in inches
COLUMNS = 3

Curve = tuple[Sequence[float], Sequence[float], Sequence[float]]  # x, y, standard error


@styled
def curves(
    results: Sequence[xarray.Dataset],
    panels: Sequence[Mapping[str, Curve]],
    x_title: str,
    y_title: str,
    reference: Sequence[tuple[float, str]] = (),
) -> Figure:
    """Draws curves with bands of 95%, one panel for each Result, all on one scale.

    Args:
      results: Results, which title the panels.
      panels: for each Result, name of a curve -> (x, y, standard error).
      x_title, y_title: titles of the axes, with units.
      reference: for each Result, a value that is drawn dashed, and its name; () for none.
    """
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    left, right, bottom, top, legend = 0.5, 0.15, 0.45, 0.42, 1.25
    cell = (left + WIDTH + right, bottom + HEIGHT + top)
    figure = new_figure(columns * cell[0] + legend, rows * cell[1])
    drawn, known = [], list(dict.fromkeys(name for panel in panels for name in panel))
    for k, (result, named) in enumerate(zip(results, panels, strict=True)):
        row, column = divmod(k, columns)
        base = (rows - 1 - row) * cell[1] + bottom
        axes = add_axes(figure, column * cell[0] + left, base, WIDTH, HEIGHT)
        for name, curve in named.items():
            i = known.index(name)  # one name, one colour, in every panel
            x, y, error = (np.asarray(a, float) for a in curve)
            look = {"color": COLOURS[i % len(COLOURS)], "label": name}
            mark = {"marker": MARKERS[i % len(MARKERS)], "markersize": 2.2, "mew": 0}
            axes.plot(x, y, linewidth=0.8, **mark, **look)
            band = {"alpha": 0.2, "linewidth": 0, "color": look["color"]}
            axes.fill_between(x, y - Z * error, y + Z * error, **band)
        if reference:
            value, name = reference[k]
            dashes = (0, (4, 3))
            axes.axhline(value, color=GREY, linestyle=dashes, linewidth=0.7, label=name, zorder=1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel(x_title)
        axes.set_ylabel(y_title)
        provenance = origin(result)
        models = list(provenance.get("models", {}))
        made_of = ", ".join(describe_model(provenance, name) for name in models)
        lines = [line for line in (made_of, describe_images(provenance)) if line]
        title(axes, " and ".join(models), lines)
        drawn.append(axes)
    finite = [v for axes in drawn for v in axes.get_ylim()]
    for axes in drawn:
        axes.set_ylim(min(0, *finite), max(finite))
    handles = {}
    for axes in drawn:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    place = {"loc": "upper left", "bbox_to_anchor": (1.03, 1.02), "borderaxespad": 0}
    drawn[columns - 1].legend(handles.values(), handles, frameon=False, fontsize=6, **place)
    return figure
