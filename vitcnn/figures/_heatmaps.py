"""Heatmaps of the similarity of layers (paper: Figs 1, 2, B.1, G.2, H.1, H.2)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import xarray
from jaxtyping import Float

from vitcnn.figures._describe import describe_cka, kind, origin, panel_title
from vitcnn.figures._style import (
    COLOUR_MAP,
    LABEL_GAP,
    NOTE,
    add_axes,
    new_figure,
    note,
    short,
    styled,
    title,
)
from vitcnn.figures._ticks import label_layers
from vitcnn.numerics.arrays import Names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CKA = MappingProxyType({"cka": "CKA"})
PANEL = 1.5  # side of a heatmap, in inches; three make a page 7 inches wide


@dataclasses.dataclass(frozen=True)
class Panel:
    """One heatmap: layers of model y (rows) by layers of model x (columns).

    Attributes:
      title, subtitle: from provenance.
      models: names of model x and model y.
      x_layers, y_layers: names of the layers, from input to output.
      values: row i, column j is layer i of model y with layer j of model x; NaN is undefined.
      errors: standard errors.
    """

    title: str
    subtitle: tuple[str, ...]
    models: tuple[str, str]
    x_layers: tuple[str, ...]
    y_layers: tuple[str, ...]
    values: Float[np.ndarray, "y x"]
    errors: Float[np.ndarray, "y x"]


def panels(result: xarray.Dataset, name: str = "cka", what: str = "CKA") -> list[Panel]:
    """Returns the heatmaps of one Result: every model with itself, then every pair.

    In a pair with one ViT, the ViT is model y (paper: Fig. 2); in any other pair the first model is
    model x. The Dataset of `vitcnn.cka` or `vitcnn.compare` gives one heatmap.

    Args:
      result: Result with similarities of layers.
      name: variable [layer_x, layer_y].
      what: title of the heatmap of a Dataset without models.
    """
    matrix, errors = result[name], result[f"{name}_standard_error"]
    if "model_of_x" not in result.coords:
        x, y = (tuple(map(str, result[d].values)) for d in ("layer_x", "layer_y"))
        return [Panel(what, (), ("x", "y"), x, y, matrix.values.T, errors.values.T)]
    provenance = origin(result)
    names = list(dict.fromkeys(map(str, result.model_of_x.values)))
    measure = describe_cka(result) if name == "cka" else ""
    pairs = []
    for a, b in [(n, n) for n in names] + list(itertools.combinations(names, 2)):
        x, y = (b, a) if kind(provenance, a) == "vit" != kind(provenance, b) else (a, b)
        at = {"layer_x": result.model_of_x.values == x, "layer_y": result.model_of_y.values == y}
        who, lines = panel_title(result, (y, x), measure)
        part = matrix.isel(at).transpose("layer_y", "layer_x")
        pairs.append(
            Panel(
                title=who,
                subtitle=lines,
                models=(x, y),
                x_layers=layer_names(part.layer_x.values, x),
                y_layers=layer_names(part.layer_y.values, y),
                values=part.values,
                errors=errors.isel(at).transpose("layer_y", "layer_x").values,
            )
        )
    return pairs


def layer_names(names: Names, model: str) -> tuple[str, ...]:
    """Returns the names of layers without their model."""
    return tuple(str(name).removeprefix(f"{model}/") for name in names)


@styled
def heatmaps(results: Sequence[xarray.Dataset], measures: Mapping[str, str] = CKA) -> Figure:
    """Draws the similarity of all layers: a heatmap for each model and pair of models (Figs 1, 2).

    Panels are square, so that the diagonal joins layers of the same relative depth. Layers without
    a value are hatched. One measure is drawn from 0 to 1, and the colour bar shows whether values
    below 0 occur. Several measures stand side by side, each with a scale of its own up to 1.

    Args:
      results: Results of the analyses `cka` or `similarity`, or Datasets of `vitcnn.compare`.
      measures: variable [layer_x, layer_y] -> what it is called.
    """
    import matplotlib

    drawn = {
        name: [panel for result in results for panel in panels(result, name, what)]
        for name, what in measures.items()
    }
    several, count = len(drawn) > 1, max(map(len, drawn.values()))
    columns = len(drawn) if several else min(count, 3)
    rows = count if several else -(-count // columns)
    lowest = {name: min(_lowest(panel) for panel in column) for name, column in drawn.items()}
    notes = []
    if not several and min(lowest.values()) < 0:
        notes.append(f"Lowest {''.join(measures.values())} {min(lowest.values()):.3f}, drawn as 0.")
    if any(np.isnan(panel.values).any() for column in drawn.values() for panel in column):
        what = "" if several else f"{''.join(measures.values())} is "
        notes.append(f"Hatched: {what}undefined.")
    left, right, bottom, top = 0.68, 0.55 if several else 0.06, 0.65, 0.6 if several else 0.5
    strip = NOTE if notes else 0
    height = rows * (bottom + PANEL + top) + strip
    width = columns * (left + PANEL + right)
    figure = new_figure(width if several else width + 0.55, height)
    for i, (name, name_panels) in enumerate(drawn.items()):
        low = np.floor(10 * min(lowest[name], 0.9)) / 10 if several else 0
        norm = matplotlib.colors.Normalize(low, 1)
        for k, panel in enumerate(name_panels):
            row, column = (k, i) if several else divmod(k, columns)
            x = column * (left + PANEL + right) + left
            y = strip + (rows - 1 - row) * (bottom + PANEL + top) + bottom
            axes = add_axes(figure, x, y, PANEL, PANEL)
            image = _heatmap(axes, panel, norm)
            if several:
                lines = () if panel.title == measures[name] else (panel.title, *panel.subtitle)
                title(axes, measures[name], lines)
            else:
                title(axes, panel.title, panel.subtitle)
        first = strip + (rows - 1) * (bottom + PANEL + top) + bottom
        side = (i + 1) * (left + PANEL + right) - 0.47 if several else width + 0.05
        scale = add_axes(figure, side, first, 0.09, PANEL)
        extend = "min" if lowest[name] < low else "neither"
        ticks = np.linspace(0, 1, 6) if low == 0 else None
        figure.colorbar(image, cax=scale, ticks=ticks, extend=extend)
        if not several:
            scale.set_title(measures[name], loc="left")
    note(figure, " ".join(notes))
    return figure


def _lowest(panel: Panel) -> float:
    return float(np.min(panel.values, where=~np.isnan(panel.values), initial=1))


def _heatmap(axes, panel, norm):
    """Draws one heatmap, undefined cells hatched, with the names of its layers."""
    import matplotlib
    from matplotlib.patches import Rectangle

    undefined = {"facecolor": "0.88", "edgecolor": "0.6", "hatch": "/" * 6, "linewidth": 0}
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, zorder=-1, **undefined))
    image = axes.imshow(
        panel.values,
        origin="lower",
        aspect="auto",
        cmap=matplotlib.colormaps[COLOUR_MAP].with_extremes(bad=(0, 0, 0, 0)),
        norm=norm,
        interpolation="nearest",
    )
    for axis, names in ((axes.xaxis, panel.x_layers), (axes.yaxis, panel.y_layers)):
        label_layers(axis, names, LABEL_GAP / 72 / PANEL)
    axes.set_xlabel(f"{short(panel.models[0])} layers")
    axes.set_ylabel(f"{short(panel.models[1])} layers")
    return image
