"""Cues: what a layer knows of the whole image: its texture, its arrangement, its class.

Do the features of a CNN go from textures to patterns, and those of a ViT not? This measurement is
not in the paper. It needs images whose cues are known and do not always agree, such as `scenes`,
where the texture and the arrangement of two discs each show the class of the image, or another one.

A linear map goes from one vector of a layer, the mean of its positions or its class token, to the
class of a cue, as one number for each class that is 1 for the true class and else 0. R^2 on
held-out images is 0 for a map that knows nothing but how frequent classes are, and 1 for one that
hits every number. Folds and penalties are those of `vitcnn.analyses.decoding`, with one image in
the place of all its tokens.

The sums of a layer of D channels and C classes take 8 folds (D + 1) (D + 3 C + 1) bytes for each of
its features on the host, and the engine counts four times as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import xarray

from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.numerics.exact import Product
from vitcnn.numerics.ridge import Moments, over_folds
from vitcnn.probes import features as probe_features
from vitcnn.probes import folds as folds_of_images
from vitcnn.probes.folds import R2
from vitcnn.results.datasets import DEPTH_TITLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = ("embed", "*block*/out", "stage*/unit*/out")
TRAITS = Traits(
    one_model=True,
    images=5000,
    labels=True,
    needs=("cues",),
    blocks=1,  # the spread over folds is the standard error
)
FEATURES = {"spatial": "mean of positions", "class": "class token", "whole": "whole layer"}
Settings = folds_of_images.Settings


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns by tap, feature and fold the products of features and targets, summed over images.

    Raises:
      ValueError: a field is out of its range, or a tap has no vector at each position.
    """
    folds_of_images.check_folds(config.folds, config.penalties)
    (view,) = group.models.values()
    folds = folds_of_images.fold_of(group.index, config.folds)
    labels = {"class": group.label, **group.cues}
    y = [jax.nn.one_hot(labels[target], classes) for target, classes in targets(config).items()]
    ones = jnp.ones((len(group.label), 1), jnp.float32)
    right = jnp.concatenate([*y, ones], axis=1)
    sums = {}
    for name, info in view.info.items():
        sums[name] = {}
        for feature in probe_features.available(info, ("spatial", "class")):
            x = probe_features.take(view.taps[name], info, feature, 1, None)
            left = jnp.concatenate([x, ones], axis=1)
            both = jnp.concatenate([x, right], axis=1)
            sums[name][feature] = [
                Product.of(left, both, (folds == f) & (group.label >= 0))
                for f in range(config.folds)
            ]
    return sums


def targets(config: Config) -> dict[str, int]:
    """Returns the number of classes of each target: the class of the image, and its cues."""
    return {"class": config.classes, **dict(config.cue_classes)}


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns R^2 on held-out images.

    Variables:
      r2 [layer, feature, target]: mean over the held-out folds; its standard error is over folds,
        and rough, because they share training images. NaN for a feature that a layer does not have.
      r2_fold [layer, feature, target, fold]: R^2 of each held-out fold.
      penalty [layer, feature, target, fold]: the chosen penalty, in units of the mean eigenvalue.
    Coordinate depth [layer]: 0 is the first layer, 1 the last.
    """
    sizes = targets(config)
    ends = np.cumsum(list(sizes.values())).tolist()
    parts = {t: slice(end - n, end) for (t, n), end in zip(sizes.items(), ends, strict=True)}
    layers = [tap for _, tap in config.layers]
    features = [f for f in FEATURES if any(f in sums[tap] for tap in layers)]
    scores, penalties = np.full((2, len(layers), len(features), len(sizes), config.folds), np.nan)
    for i, tap in enumerate(layers):
        for feature, products in sums[tap].items():
            # The square of a target that is 0 or 1 is the target itself.
            folds = [Moments(p, p[-1, len(p) - 1 : -1]) for p in products]
            j = features.index(feature)
            scores[i, j], penalties[i, j] = over_folds(folds, parts, config.penalties)
    coords = {"layer": layers, "feature": features, "target": list(sizes)}
    return folds_of_images.dataset(scores, penalties, coords)


@figure(
    "What a layer knows of the image",
    "Held-out R\u00b2 of linear maps from the mean of positions, or from the class token, to the "
    "class of the image and to what each cue shows, by relative depth.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws R^2 by depth, one curve for each target and feature."""
    from vitcnn import figures

    panels = []
    for result in results:
        panels.append({})
        for feature in result.feature.values.tolist():
            for target in result.target.values.tolist():
                rows = result.sel(feature=feature, target=target)
                rows = rows.isel(layer=np.isfinite(rows.r2.values))
                curve = (rows.depth, rows.r2, rows.r2_standard_error)
                panels[-1][f"{target}, {FEATURES[feature]}"] = curve
    return figures.curves(results, panels, DEPTH_TITLE, R2)
