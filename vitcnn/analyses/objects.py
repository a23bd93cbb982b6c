"""Objects: whether a position shows an object, and where the box of the object lies.

A detector reads the positions of a layer. How much of what it needs can a linear map read there:
from positions of a ViT with a class token, of one with GAP, of a ResNet? This measurement is not in
the paper. It needs a source with boxes, such as `scenes` (its discs), or voc and coco in TFDS.

A position shows an object if the middle of its cell lies in a box; if it lies in several, the
smallest counts. The two targets are

- presence: 1 for a position that shows an object, else 0, over all positions;
- box: how far the top, left, bottom and right of the box are from the middle of the cell, in parts
  of the image, over the positions that show an object.

R^2 is on held-out images, 0 for a map that knows only the mean. Folds and penalties are those of
`vitcnn.analyses.decoding`. Each layer is read on its own grid: a coarse grid has fewer positions
with objects, and misses small ones, so compare networks on layers of one grid.

The sums of a layer of D channels take 16 folds (D + 1) (D + 8) bytes on the host: 0.5 GB for the 13
layers of ViT-B/32. The engine counts four times as much, because it holds copies while it adds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Bool, Float

from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.numerics.arrays import Array
from vitcnn.numerics.exact import Product
from vitcnn.numerics.ridge import Moments, over_folds
from vitcnn.probes import features as probe_features
from vitcnn.probes import folds as folds_of_images
from vitcnn.probes.folds import R2
from vitcnn.results.datasets import DEPTH_TITLE, variable
from vitcnn.tap_layout import grid_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = ("embed", "*block*/out", "stage*/unit*/out")
TRAITS = Traits(
    one_model=True,
    images=5000,
    needs=("boxes",),
    blocks=1,  # the sums are large; the spread over folds is the standard error
)
TARGETS = {"presence": 1, "box": 4}  # target -> how many numbers it has
Settings = folds_of_images.Settings


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns by tap, target and fold the products of features and targets, summed over positions.

    Raises:
      ValueError: a field is out of its range, or a tap has no vector at each position.
    """
    folds_of_images.check_folds(config.folds, config.penalties)
    (view,) = group.models.values()
    folds = folds_of_images.fold_of(group.index, config.folds)
    sums = {}
    for name, x in view.taps.items():
        info = view.info[name]
        if info.grid is None:
            raise ValueError(f"{name} has no positions: choose other taps in the field taps")
        probe_features.channels(info)
        x = info.positions(x).reshape(len(x), math.prod(info.grid), -1)
        shown, box = objects_at(view.boxes, info.grid)
        x, presence, box = (
            a.astype(jnp.float32).reshape(math.prod(x.shape[:2]), -1)
            for a in (x, shown[..., None], box)
        )
        ones = jnp.ones((len(x), 1), jnp.float32)
        left = jnp.concatenate([x, ones], axis=1)
        sums[name] = {}
        for target, y, counts in (("presence", presence, True), ("box", box, presence[:, 0] > 0)):
            right = jnp.concatenate([x, y, jnp.square(y), ones], axis=1)
            inside = [jnp.repeat(folds == f, shown.shape[1]) for f in range(config.folds)]
            sums[name][target] = [Product.of(left, right, part & counts) for part in inside]
    return sums


def objects_at(
    boxes: Float[Array, "n objects 4"], grid: Sequence[int]
) -> tuple[Bool[Array, "n positions"], Float[Array, "n positions 4"]]:
    """Returns whether each position shows an object, and where its box is, 0 without an object.

    Args:
      boxes: top, left, bottom and right of each object in parts of the image; NaN is no object.
      grid: (rows, columns) of positions.

    Returns:
      (whether the middle of the cell lies in a box; top, left, bottom and right of the smallest
      such box minus the middle of the cell).
    """
    rows, columns = ((np.arange(size, dtype=np.float32) + 0.5) / size for size in grid)
    y, x = (axis.reshape(-1, 1) for axis in np.meshgrid(rows, columns, indexing="ij"))
    top, left, bottom, right = (boxes[:, None, :, k] for k in range(4))
    inside = (top <= y) & (y < bottom) & (left <= x) & (x < right)  # never of NaN
    area = jnp.where(inside, (bottom - top) * (right - left), jnp.inf)
    smallest = jnp.argmin(area, axis=2)[..., None]
    box = jnp.take_along_axis(boxes, smallest, axis=1)
    shown = inside.any(axis=2)
    middle = np.concatenate([y, x, y, x], axis=1)
    return shown, jnp.where(shown[..., None], box - middle, 0)


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns R^2 on held-out images.

    Variables:
      r2 [layer, target]: mean over the held-out folds; its standard error is over folds, and rough,
        because they share training images.
      r2_fold [layer, target, fold]: R^2 of each held-out fold. NaN where no position shows an
        object.
      penalty [layer, target, fold]: the chosen penalty, in units of the mean eigenvalue.
      share [layer]: share of the positions that show an object.
    Coordinates of a layer: depth, 0 for the first and 1 for the last; and grid.
    """
    layers = [tap for _, tap in config.layers]
    scores, penalties = np.full((2, len(layers), len(TARGETS), config.folds), np.nan)
    share = np.full(len(layers), np.nan)
    for i, tap in enumerate(layers):
        for j, (target, numbers) in enumerate(TARGETS.items()):
            folds = []
            for product in sums[tap][target]:
                width = len(product) - 1
                squares = product[-1, width + numbers : -1]
                product = np.delete(product, np.s_[width + numbers : -1], axis=1)
                folds.append(Moments(product, squares))
            parts = {target: slice(0, numbers)}
            (scores[i, j],), (penalties[i, j],) = over_folds(folds, parts, config.penalties)
            if target == "presence":
                total = sum(folds[1:], folds[0])
                share[i] = total.means[1][0]
    if not (share > 0).any():
        warnings.warn("no position shows an object: there is nothing to read", stacklevel=2)
    result = folds_of_images.dataset(scores, penalties, {"layer": layers, "target": list(TARGETS)})
    grids = ("layer", [grid_name(info.grid) for info in config.infos])
    share = variable("layer", share, "positions that show an object", estimate=False)
    return result.assign(share=share).assign_coords(grid=grids)


@figure(
    "What positions know of objects",
    "Held-out R\u00b2 of linear maps from one position to whether it shows an object, and to where "
    "the box of that object lies, by relative depth.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws R^2 by depth, one curve for each target."""
    from vitcnn import figures

    names = {"presence": "whether there is an object", "box": "where its box lies"}
    panels = []
    for result in results:
        panels.append({})
        for target, name in names.items():
            rows = result.sel(target=target)
            panels[-1][name] = (rows.depth, rows.r2, rows.r2_standard_error)
    return figures.curves(results, panels, DEPTH_TITLE, R2)
