"""Values of every token at every depth (paper: Figs 7 left, E.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray
from jaxtyping import Float

from vitcnn.figures._describe import panel_title
from vitcnn.figures._style import COLOUR_MAP, add_axes, new_figure, styled, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT, STRIP = 1.7, 1.7, 0.13  # of a panel and of the strip of prefix tokens, in inches


@styled
def tokens(
    results: Sequence[xarray.Dataset],
    panels: Sequence[Mapping[str, Float[np.ndarray, "_ _"]]],
    prefix: Sequence[int],
    x_title: str | Sequence[str],
    scale: str,
) -> Figure:
    """Draws a row of heatmaps for each Result, depth to the right and tokens downwards.

    Prefix tokens (the class token) have a strip of their own on top, because a single row would be
    too thin to see. All heatmaps share one logarithmic colour scale, since the values are ratios.

    Args:
      results: Results, which title the rows.
      panels: for each Result, name of a panel -> values; what is not finite and above 0 is grey.
      prefix: for each Result, the number of prefix tokens.
      x_title: title of the horizontal axis, where the first column is 0; or one for each Result.
      scale: what the colours mean, with units; the title of the colour bar.
    """
    import matplotlib
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    x_titles = [x_title] * len(panels) if isinstance(x_title, str) else x_title
    drawn = np.concatenate([np.ravel(v) for named in panels for v in named.values()])
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    low, high = (drawn.min(), drawn.max()) if drawn.size else (1, 10)
    norm = LogNorm(low, high if high > low else low * 1.01)
    colours = matplotlib.colormaps[COLOUR_MAP].with_extremes(bad="0.8")
    left, gap, bottom, top, bar = 0.7, 0.15, 0.45, 0.55, 0.75
    columns = max(map(len, panels))
    height = bottom + HEIGHT + top
    figure = new_figure(left + columns * (WIDTH + gap) + bar, len(panels) * height)
    for k, (result, named, p) in enumerate(zip(results, panels, prefix, strict=True)):
        base = (len(panels) - 1 - k) * height + bottom
        strip = STRIP + 0.04 if p else 0
        for j, (name, values) in enumerate(named.items()):
            at = left + j * (WIDTH + gap)
            axes = add_axes(figure, at, base, WIDTH, HEIGHT - strip)
            whole = np.where(np.isfinite(values) & (values > 0), values, np.nan)
            parts = {axes: (p, len(values))}
            if p:
                head = add_axes(figure, at, base + HEIGHT - STRIP, WIDTH, STRIP)
                parts[head] = (0, p)
            for part, (start, stop) in parts.items():
                extent = (-0.5, values.shape[1] - 0.5, stop - 0.5, start - 0.5)
                how = {"aspect": "auto", "interpolation": "nearest", "extent": extent}
                image = part.imshow(whole[start:stop], cmap=colours, norm=norm, **how)
                part.spines[:].set_visible(False)
                part.tick_params(labelleft=j == 0, left=j == 0)
            axes.locator_params(axis="both", integer=True)
            axes.set_xlabel(x_titles[k])
            if j == 0:
                axes.set_ylabel("token")
            upper = axes
            if p:
                upper = head
                head.set_xticks([])
                middle, label = (p - 1) / 2, "class token" if p == 1 else "prefix tokens"
                head.set_yticks([middle], [label] if j == 0 else [""])
                head.tick_params(left=False)
            who, lines = panel_title(result) if j == 0 else ("", ())
            title(upper, who, [*lines, name])
    at = left + columns * (WIDTH + gap)
    cax = add_axes(figure, at, (len(panels) - 1) * height + bottom, 0.09, HEIGHT)
    legend = figure.colorbar(image, cax=cax)
    legend.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    legend.ax.yaxis.set_major_formatter(ScalarFormatter())
    legend.ax.yaxis.set_minor_formatter(NullFormatter())
    legend.ax.set_title(scale, loc="left", size=6, pad=5)
    return figure
