"""The most similar layer of another model, for every layer (paper: read off Fig. 2)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray

from vitcnn.figures._describe import describe_cka, panel_title
from vitcnn.figures._heatmaps import layer_names
from vitcnn.figures._style import (
    BLUE,
    GREY,
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
from vitcnn.numerics.statistics import Z

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, DEPTH, CKA = 2.3, 1.6, 0.75  # of a panel; heights of its two parts, in inches


@styled
def correspondence(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws for every layer the relative depth of its best match in each other model, and its CKA.

    Depth is 0 at the first layer of a model and 1 at its last. Bands are 95% intervals of the
    jackknife, rough where the best match jumps between layers.

    Args:
      results: Results of the analysis `cka`.

    Raises:
      ValueError: every Result is of one model only.
    """
    directions = []
    for result in results:
        for a, b in itertools.combinations(result.model_x.values.tolist(), 2):
            directions += [(result, a, b), (result, b, a)]
    if not directions:
        raise ValueError("a correspondence needs a CKA Result of at least two models")
    left, right, bottom, top, between = 0.55, 0.6, 0.65, 0.5, 0.12
    cell = bottom + CKA + between + DEPTH + top
    rows = len(directions) // 2
    figure = new_figure(2 * (left + WIDTH + right), rows * cell + NOTE)
    for k, (result, x, y) in enumerate(directions):
        row, column = divmod(k, 2)
        at = column * (left + WIDTH + right) + left
        base = (rows - 1 - row) * cell + bottom + NOTE
        upper = add_axes(figure, at, base + CKA + between, WIDTH, DEPTH)
        lower = add_axes(figure, at, base, WIDTH, CKA)
        matches = result.isel(layer_x=result.model_of_x.values == x).sel(model_y=y)
        layers = layer_names(matches.layer_x.values, x)
        others = layer_names(result.layer_x.values[result.model_of_x.values == y], y)
        place = np.arange(len(layers))
        upper.plot(
            place[[0, -1]], [0, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=0.7, zorder=1
        )
        for axes, name in ((upper, "match_depth"), (lower, "match_cka")):
            value, error = matches[name].values, Z * matches[f"{name}_standard_error"].values
            low = 0 if name == "match_depth" else -1
            floor, ceiling = np.clip((value - error, value + error), low, 1)
            band = {"step": "mid", "color": BLUE, "alpha": 0.25, "linewidth": 0}
            axes.fill_between(place, floor, ceiling, **band)
            axes.plot(place, value, color=BLUE, linewidth=0.6, marker="o", markersize=1.8, mew=0)
            axes.set_xlim(-0.5, len(layers) - 0.5)
            axes.spines[["top", "right"]].set_visible(False)
        if "match_null" in matches:
            dashed = {"color": GREY, "linestyle": (0, (4, 3)), "linewidth": 0.7, "zorder": 1}
            lower.plot(place, matches.match_null.values, **dashed)
        upper.set_ylim(-0.02, 1.02)
        lower.set_ylim(min(0, np.min(value, where=~np.isnan(value), initial=0)) * 1.1, 1.02)
        upper.set_yticks(np.linspace(0, 1, 6))
        lower.set_yticks([0, 0.5, 1])
        upper.set_ylabel("relative depth of best match")
        lower.set_ylabel("CKA of match")
        label_layers(upper.xaxis, layers, LABEL_GAP / 72 / WIDTH)
        label_layers(lower.xaxis, layers, LABEL_GAP / 72 / WIDTH)
        upper.tick_params(labelbottom=False)
        lower.set_xlabel(f"{short(x)} layers")
        # depth 0 and 1 are the middles of the first and of the last layer of the other model
        names = upper.secondary_yaxis("right", functions=_depth_to_layer(len(others)))
        label_layers(names.yaxis, others, LABEL_GAP / 72 / DEPTH)
        names.set_ylabel(f"{short(y)} layers")
        _, lines = panel_title(result, (x, y), describe_cka(result))
        title(upper, f"{short(x, 18)} \u2192 {short(y, 18)}", lines)
    text = (
        "Each layer of the first model and its most similar layer (highest CKA) in the second. "
        "Dashed: the same relative depth; the best match by chance. Bands: 95%."
    )
    note(figure, text)
    return figure


def _depth_to_layer(layers: int):
    last = max(layers - 1, 1)
    return lambda depth: depth * last, lambda layer: layer / last
