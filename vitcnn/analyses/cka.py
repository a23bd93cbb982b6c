"""CKA of every layer with every layer, within and across models (Figs 1, 2, B.1, G.2, H.1, H.2).

CKA is the cosine of two centred Gram matrices; see `vitcnn.similarity.hsic`. The default taps are
the paper's layers as its axes imply them (paper: layer counts of Figs 1, 2 and B.1; the list
itself is not given): for ViT six per block (both normalisations, attention and MLP branch, MLP
hidden, block output) with the embedding, final norm, pooled and logits; for ResNet every
convolution, norm and residual sum. That makes 76, 148 and 196 layers for ViT-B, L and H (one more
with `pre_logits`), 125 for ResNet-50 and 363 for ResNet-152.

The paper takes all tokens and the linear kernel. `tokens` takes the class token or the image
positions alone, where a tap has a class token; `kernel` may be "rbf", of a width `bandwidth` in
median distances of the images of a group (Kornblith et al. 2019).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import xarray

from vitcnn import tap_layout
from vitcnn.analyses import Traits, figure
from vitcnn.results.datasets import coordinates
from vitcnn.similarity import hsic, maps

TAPS = tap_layout.PAPER_LAYERS
TRAITS = Traits(
    images=10_240,  # 10 groups of 1024 in the paper
    least_group=hsic.MIN_GROUP,
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a config sets.

    Attributes:
      tokens: "all"; or "class" or "spatial", of taps with a class token.
      kernel: "linear" or "rbf".
      bandwidth: width of the RBF kernel, in median distances of the images of a group.
    """

    tokens: str = "all"
    kernel: str = "linear"
    bandwidth: float = 1.0


def measure(group, config, given):
    """Returns the HSIC sums of all layers of all models of one group of images."""
    tap_layout.check_tokens(config.tokens, config.infos)
    kernel = config.kernel, config.bandwidth
    grams = [
        view.u_centred_gram(tap, config.tokens, *kernel)
        for view in group.models.values()
        for tap in view.taps
    ]
    return hsic.hsic_sums(grams)


def finalize(sums, config) -> xarray.Dataset:
    """Returns the CKA matrix and what the paper's claims 1 to 3 read off it.

    Layers of all models are stacked: layer_x = layer_y = "<model>/<tap>", from input to output.

    Variables:
      cka [layer_x, layer_y]: unbiased CKA.
      lower_upper [model_x]: mean CKA of the lowest third of a model's layers with its highest.
      lower_upper_difference [model_x, model_y]: that of model x minus that of model y.
      match_depth [layer_x, model_y]: depth of the layer of model y that is most similar to layer x;
        depth is 0 at the first layer of a model and 1 at the last (coordinates depth_x, depth_y).
      match_cka [layer_x, model_y]: CKA with that layer.
      lower_match_lag [model_x, model_y]: how much lower than the layer itself its match lies in
        model y, mean over the lower half of the layers of model x.
      upper_match_drop [model_x, model_y]: CKA with the best match in model y, mean over a third of
        the depth of model x: the lesser of its first and middle third, minus its last third.
    """
    coords = coordinates(config)
    layers, (_, owner), (_, depth) = (coords[c] for c in ("layer_x", "model_of_x", "depth_x"))
    names = list(dict.fromkeys(owner))
    matrix = hsic.cka(sums, layers)
    read = [maps.match(matrix[:, owner == name], depth[owner == name]) for name in names]
    match_depth = np.stack([d for d, _ in read], axis=1)
    match_cka = np.stack([c for _, c in read], axis=1)
    lower_upper = np.array([lower_upper_similarity(matrix, depth, owner == n) for n in names])
    lag, drop = np.zeros((2, len(names), len(names)))
    for i, x in enumerate(names):
        mine = owner == x
        low, third = mine & (depth <= 1 / 2), np.minimum(depth * 3, 2).astype(int)
        for j in range(len(names)):
            lag[i, j] = mean(depth[low] - match_depth[low, j])
            first, middle, last = (mean(match_cka[mine & (third == k), j]) for k in range(3))
            drop[i, j] = np.minimum(first, middle) - last  # NaN if one has no live layer
    one = {"units": "1"}
    made_of = "linear CKA" if config.kernel == "linear" else "CKA, RBF kernel"
    long_name = f"unbiased {made_of}{tap_layout.TOKENS[config.tokens]}"
    model_pair = ("model_x", "model_y")
    return xarray.Dataset(
        {
            "cka": (("layer_x", "layer_y"), matrix, {"long_name": long_name, **one}),
            "lower_upper": (
                "model_x",
                lower_upper,
                {"long_name": "mean CKA of the lowest with the highest third", **one},
            ),
            "lower_upper_difference": (
                model_pair,
                lower_upper[:, None] - lower_upper[None, :],
                {"long_name": "difference of lower_upper, model x minus model y", **one},
            ),
            "match_depth": (
                ("layer_x", "model_y"),
                match_depth,
                {"long_name": "depth of the most similar layer", **one},
            ),
            "match_cka": (
                ("layer_x", "model_y"),
                match_cka,
                {"long_name": "CKA with the most similar layer", **one},
            ),
            "lower_match_lag": (
                model_pair,
                lag,
                {"long_name": "own depth minus depth of the match, lower half", **one},
            ),
            "upper_match_drop": (
                model_pair,
                drop,
                {
                    "long_name": "best-match CKA, lesser of the lower thirds minus last",
                    **one,
                },
            ),
        },
        coords={**coords, "model_x": names, "model_y": names},
    )


def lower_upper_similarity(matrix, depth, mine) -> float:
    """Returns the mean CKA of the lowest third of a model's layers with the highest third.

    Args:
      matrix: CKA of all layers.
      depth: depth of every layer in its model, in [0, 1].
      mine: whether a layer is of this model.
    """
    return mean(matrix[np.ix_(mine & (depth < 1 / 3), mine & (depth > 2 / 3))])


def mean(values) -> float:
    """Returns the mean over live layers, NaN if there is none."""
    values = np.asarray(values)[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


@figure(
    "Similarity of layers",
    "Unbiased CKA of every layer with every layer, from input to output (paper: Figs 1, 2); "
    "panels are square, so the diagonal joins layers of the same relative depth. Point at a "
    "cell to read its layers, value and standard error.",
)
def draw(results: Sequence[xarray.Dataset]):
    """Draws one heatmap for every pair of models of every result, axes from input to output."""
    from vitcnn import figures

    return figures.heatmaps(results)


@figure(
    "Which layer matches which",
    "For every layer of one model, the relative depth of the most similar layer of the "
    "other, and their CKA. A curve below the dashed line says that it takes more layers of "
    "the first model to get as far as the second does.",
)
def draw_correspondence(results: Sequence[xarray.Dataset]):
    """Draws, for every pair of models, the depth and the CKA of the best match of every layer.

    Returns None if no Result has two models.
    """
    from vitcnn import figures

    pairs = [result for result in results if result.sizes["model_x"] > 1]
    return figures.correspondence(pairs) if pairs else None
