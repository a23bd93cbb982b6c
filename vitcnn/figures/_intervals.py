"""Single numbers of several models, each with its 95% interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray

from vitcnn.figures._describe import describe_images, describe_model, origin
from vitcnn.figures._style import BLUE, NOTE, add_axes, new_figure, note, short, styled
from vitcnn.numerics.arrays import Numbers
from vitcnn.numerics.statistics import Z

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def intervals(
    results: Sequence[xarray.Dataset],
    variables: Mapping[str, tuple[str, float]],
    over: str = "images",
) -> Figure:
    """Draws a dot, its 95% interval and the number, for each Result (line) and variable (panel).

    The place of a number that is NaN stays empty.

    Args:
      results: Results of one model each, of an analysis whose variables are single numbers.
      variables: name of a variable -> (title of its axis, factor to multiply by), such as {"top1":
        ("top-1 accuracy (%)", 100)}.
      over: what the intervals are over, such as "images" or "5 seeds".
    """
    line, bottom, top = 0.3, 0.4 + NOTE, 0.1
    width, right = (1.6, 1.1) if len(variables) < 3 else (1.2, 0.85)  # a page is 7 inches wide
    height = line * len(results)
    total = bottom + height + top
    names = []
    for result in results:
        provenance = origin(result)
        model = next(iter(provenance.get("models", {})), "")
        names.append(short(model) + "\n" + short(describe_model(provenance, model), 28))
    left = 0.2 + 0.055 * max(len(line) for name in names for line in name.split("\n"))
    figure = new_figure(left + (width + right) * len(variables), total)
    images = list(dict.fromkeys(describe_images(origin(result)) for result in results))
    rows = np.arange(len(results))
    for k, (name, (label, factor)) in enumerate(variables.items()):
        axes = add_axes(figure, left + k * (width + right), bottom, width, height)
        value = factor * np.array([float(result[name]) for result in results])
        error = factor * Z * np.array([float(r[f"{name}_standard_error"]) for r in results])
        bars = np.nan_to_num(error)
        digits = _digits(bars)
        axes.errorbar(
            value, rows, xerr=bars, fmt="o", color=BLUE, markersize=3.5, elinewidth=1, capsize=0
        )
        for y, (v, e) in enumerate(zip(value, error, strict=True)):
            if np.isnan(v):
                continue
            text = f"{v:.{digits}f}" + ("" if np.isnan(e) else f" \u00b1 {e:.{digits}f}")
            text = text.replace("-", "\u2212")  # a minus sign, as on the axis
            at = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
            axes.annotate(text, (1.05, y), size=6.5, **at)
        axes.set_ylim(len(results) - 0.5, -0.5)
        axes.set_yticks(rows, names if k == 0 else [])
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.15)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="y", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_xlabel(label)
    text = f"Mean and 95% interval over {over}. " + "; ".join(text for text in images if text)
    note(figure, short(text, int(figure.get_size_inches()[0] * 20)))
    return figure


def _digits(errors: Numbers) -> int:
    """Returns how many decimals show two digits of the smallest error."""
    smallest = min((e for e in errors if e > 0), default=0.01)
    return max(0, 1 - int(np.floor(np.log10(smallest))))
