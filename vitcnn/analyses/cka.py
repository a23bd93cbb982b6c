"""CKA of every layer with every layer, within and across models (Figs 1, 2, B.1, G.2, H.1, H.2).

CKA is the cosine of two centred Gram matrices; see `vitcnn.similarity.hsic`. The default taps are
the paper's layers as its axes imply them (paper: layer counts of Figs 1, 2 and B.1; the paper does
not list the layers). In a ViT these are six layers of each block (both normalisations, attention
and MLP branch, MLP hidden, block output), the embedding, the final norm, pooled and logits. In a
ResNet they are every convolution, norm and residual sum. That makes 76, 148 and 196 layers for
ViT-B, L and H (one more with `pre_logits`), 125 for ResNet-50 and 363 for ResNet-152.

The paper takes all tokens and the linear kernel. The setting `tokens` takes the class token or the
image positions alone, at taps that have a class token. The setting `kernel` may be "rbf", whose
width `bandwidth` is in median distances between the images of a group (Kornblith et al. 2019).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray
from jaxtyping import Bool, Float

from vitcnn import tap_layout
from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.results.datasets import coordinates, variable
from vitcnn.similarity import distances, gram, hsic, maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = tap_layout.PAPER_LAYERS
TRAITS = Traits(
    images=10_240,  # 10 groups of 1024 in the paper
    least_group=hsic.MIN_GROUP,
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      tokens: "all"; or "class" or "spatial", of taps with a class token.
      kernel: "linear" or "rbf".
      bandwidth: width of the RBF kernel, in median distances of the images of a group.
    """

    tokens: str = "all"
    kernel: str = "linear"
    bandwidth: float = 1.0


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns the HSIC sums of all layers of all models for one group of images.

    With the linear kernel, "permuted" has the same products with the images of one layer permuted.
    """
    tap_layout.check_tokens(config.tokens, config.infos)
    gram.check_kernel(config.kernel, config.bandwidth)
    layers = [(view, tap) for view in group.models.values() for tap in view.taps]
    if config.kernel == "linear":
        grams = [view.u_centred_gram(tap, config.tokens) for view, tap in layers]
        return {"hsic": hsic.hsic_sums(grams), "permuted": hsic.permuted_products(grams)}
    noise = gram.noise([view.gram(tap, config.tokens) for view, tap in layers])
    squared = [view.squared_distances(tap, config.tokens) for view, tap in layers]
    squared = distances.stacked(squared)
    return {"hsic": hsic.RbfSums(squared, noise, len(group.label), config.bandwidth)}


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns the CKA matrix and the summaries of it on which the paper's claims rest.

    Layers of all models are stacked: layer_x = layer_y = "<model>/<tap>", from input to output.

    Variables:
      cka [layer_x, layer_y]: unbiased CKA.
      lower_upper [model_x]: mean CKA of the lowest third of a model's layers with its highest
        third.
      lower_upper_difference [model_x, model_y]: lower_upper of model x minus lower_upper of model
        y.
      match_depth [layer_x, model_y]: depth of the layer of model y that is most similar to layer x;
        depth is 0 at the first layer of a model and 1 at the last (coordinates depth_x, depth_y).
      match_cka [layer_x, model_y]: CKA with that layer.
      match_null [layer_x, model_y]: CKA with the most similar layer of model y when each group of
        images is permuted in model y: how good the best of so many layers is by chance. Only of the
        linear kernel.
      lower_match_lag [model_x, model_y]: depth of a layer of model x minus the depth of its match
        in model y, mean over the lower half of the layers of model x.
      upper_match_drop [model_x, model_y]: CKA with the best match in model y, averaged over each
        third of the depth of model x: the lesser mean of the first and middle third, minus the mean
        of the last third.
      mean_cka [model_x, model_y]: mean CKA of all layers of model x with all layers of model y.
      two_blocks [model_x]: see the function of this name.
    """
    coords = coordinates(config.layers)
    layers, (_, owner), (_, depth) = (coords[c] for c in ("layer_x", "model_of_x", "depth_x"))
    names = list(dict.fromkeys(owner))
    why = "do not vary over the images beyond rounding noise"
    if config.kernel == "rbf":
        why += f", or {hsic.NO_KERNEL}"
    matrix = hsic.cka(sums["hsic"], layers, why)
    matches = [maps.match(matrix[:, owner == n], depth[owner == n]) for n in names]
    match_depth, match_cka = (np.stack(columns, axis=1) for columns in zip(*matches, strict=True))
    lower_upper = np.array([lower_upper_similarity(matrix, depth, owner == n) for n in names])
    lag, drop = np.zeros((2, len(names), len(names)))
    for i, x in enumerate(names):
        for j in range(len(names)):
            lag[i, j] = lower_match_lag(depth[owner == x], match_depth[owner == x, j])
            drop[i, j] = upper_match_drop(depth[owner == x], match_cka[owner == x, j])
    difference = lower_upper[:, None] - lower_upper[None, :]
    pairs = [[mean(matrix[np.ix_(owner == x, owner == y)]) for y in names] for x in names]
    blocks = [two_blocks(matrix[np.ix_(owner == n, owner == n)], depth[owner == n]) for n in names]
    kind = "linear CKA" if config.kernel == "linear" else "CKA, RBF kernel"
    title = f"unbiased {kind}{tap_layout.TOKENS[config.tokens]}"
    layer_pair, matched, model_pair = (
        ("layer_x", "layer_y"),
        ("layer_x", "model_y"),
        ("model_x", "model_y"),
    )
    null = {}
    if "permuted" in sums:
        norm = np.sqrt(
            np.where(np.isnan(np.diagonal(matrix)), np.nan, np.diagonal(sums["hsic"].hsic))
        )
        permuted = sums["permuted"] / norm[:, None] / norm[None, :]
        best = [maps.match(permuted[:, owner == n], depth[owner == n])[1] for n in names]
        of_null = "CKA with the most similar layer, images permuted"
        null["match_null"] = variable(matched, np.stack(best, axis=1), of_null)
    return xarray.Dataset(
        {
            "cka": variable(layer_pair, matrix, title),
            "lower_upper": variable(
                "model_x", lower_upper, "mean CKA of the lowest with the highest third"
            ),
            "lower_upper_difference": variable(
                model_pair, difference, "difference of lower_upper, model x minus model y"
            ),
            "match_depth": variable(matched, match_depth, "depth of the most similar layer"),
            "match_cka": variable(matched, match_cka, "CKA with the most similar layer"),
            **null,
            "lower_match_lag": variable(
                model_pair, lag, "own depth minus depth of the match, lower half"
            ),
            "upper_match_drop": variable(
                model_pair, drop, "best-match CKA, lesser of the lower thirds minus last"
            ),
            "mean_cka": variable(model_pair, np.array(pairs), "mean CKA of all pairs of layers"),
            "two_blocks": variable(
                "model_x",
                np.array(blocks),
                "how clearly layers fall into a small and a large block",
            ),
        },
        coords={**coords, "model_x": names, "model_y": names},
    )


def lower_match_lag(
    depth: Float[np.ndarray, " layer"], match: Float[np.ndarray, " layer"]
) -> float:
    """Returns the mean of depth minus depth of the match, over the lower half of the layers."""
    lower = depth <= 1 / 2
    return mean(depth[lower] - match[lower])


def upper_match_drop(
    depth: Float[np.ndarray, " layer"], match_cka: Float[np.ndarray, " layer"]
) -> float:
    """Returns how much worse the last third of the layers is matched than both thirds below it.

    NaN if a third has no live layer.
    """
    third = np.minimum(depth * 3, 2).astype(int)
    first, middle, last = (mean(match_cka[third == k]) for k in range(3))
    return np.minimum(first, middle) - last


def lower_upper_similarity(
    matrix: Float[np.ndarray, "layer layer"],
    depth: Float[np.ndarray, " layer"],
    in_model: Bool[np.ndarray, " layer"],
) -> float:
    """Returns the mean CKA of the lowest third of a model's layers with the highest third.

    Args:
      matrix: CKA of all layers.
      depth: depth of every layer in its model, in [0, 1].
      in_model: whether a layer belongs to the model.
    """
    return mean(matrix[np.ix_(in_model & (depth < 1 / 3), in_model & (depth > 2 / 3))])


def two_blocks(
    matrix: Float[np.ndarray, "layer layer"], depth: Float[np.ndarray, " layer"]
) -> float:
    """Returns how clearly layers fall into a small first and a large second block (Fig. H.1).

    Two descriptions of the CKA of different layers compete: one level within either of two blocks
    and a lower one between them, for the cut that explains most; and a line that falls with the
    distance of the layers in depth. The result is the lesser of two margins: the share of the
    variance that blocks explain minus the share that distance explains; and 1/2 minus the depth of
    the cut. NaN with fewer than six live layers.

    Args:
      matrix: CKA of the layers of one model.
      depth: their depth, in [0, 1].
    """
    live = np.isfinite(np.diagonal(matrix))
    depth = depth[live]
    first, second = np.triu_indices(len(depth), 1)
    values = matrix[np.ix_(live, live)][first, second]
    if len(depth) < 6 or not values.std() > 0:
        return float("nan")
    cuts = np.arange(2, len(depth) - 1)  # each block has two layers at least
    # The more alike, the nearer: within a block, and at a small distance.
    inside = [_explained((first < cut) == (second < cut), values) for cut in cuts]
    best = int(np.argmax(inside))
    at = (depth[cuts[best] - 1] + depth[cuts[best]]) / 2
    distance = _explained(depth[first] - depth[second], values)
    return float(min(inside[best] - distance, 1 / 2 - at))


def _explained(x: np.ndarray, y: Float[np.ndarray, " pairs"]) -> float:
    """Returns the share of the variance of y that a line in x explains, 0 if y falls with x."""
    x, y = np.float64(x) - np.mean(x), y - y.mean()
    covariance = x @ y
    return float(covariance**2 / (x @ x) / (y @ y)) if covariance > 0 else 0.0


def mean(values: Float[np.ndarray, "..."]) -> float:
    """Returns the mean of the finite values (those of live layers), NaN if there is none."""
    values = np.asarray(values)[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


@figure(
    "Similarity of layers",
    "Unbiased CKA of every layer with every layer, from input to output (paper: Figs 1, 2); "
    "panels are square, so the diagonal joins layers of the same relative depth. Point at a "
    "cell to read its layers, value and standard error.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws one heatmap for every pair of models of every Result, axes from input to output."""
    from vitcnn import figures

    return figures.heatmaps(results)


@figure(
    "Which layer matches which",
    "For every layer of one model, the relative depth of the most similar layer of the "
    "other, and their CKA. Where a curve is below the dashed line, the first model takes more "
    "layers to get as far as the second model.",
)
def draw_correspondence(results: Sequence[xarray.Dataset]) -> Figure | None:
    """Draws, for every pair of models, the depth and the CKA of the best match of every layer.

    Returns None if no Result has two models.
    """
    from vitcnn import figures

    pairs = [result for result in results if result.sizes["model_x"] > 1]
    return figures.correspondence(pairs) if pairs else None
