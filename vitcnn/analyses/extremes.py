"""Extremes: how far CKA rests on the most extreme images.

CKA weighs an image by the squares of its similarities, so that a few images far from all others can
make it or break it (Davari et al. 2023, arXiv 2210.16156). This analysis measures CKA with all
images and without the share of them that is most extreme: those with the largest diagonal of the
centred Gram matrix of their group, that is the farthest from the mean. A layer has its own extreme
images; row x of the matrix is without those of layer x, in both layers of each pair. This is not in
the paper.

Each row centres all Gram matrices anew, L^2 n^2 operations for L layers and n images of a group,
which is little for the outputs of blocks and much for hundreds of layers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import xarray

from vitcnn import tap_layout
from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.numerics.exact import Scaled
from vitcnn.results.datasets import coordinates, variable
from vitcnn.similarity import gram, hsic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = ("embed", "*block*/out", "stage*/unit*/out")
TRAITS = Traits(
    images=5000,
    least_group=2 * hsic.MIN_GROUP,
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      share: share of the images of a group that are left out, rounded up to whole images.
      tokens: "all"; or "class" or "spatial", of taps with a class token.
    """

    share: float = 0.01
    tokens: str = "all"


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns the HSIC of every pair of layers with all images and without the extreme ones.

    Raises:
      ValueError: `share` leaves too few images, or `tokens` is unknown.
    """
    tap_layout.check_tokens(config.tokens, config.infos)
    layers = [(view, tap) for view in group.models.values() for tap in view.taps]
    n = len(group.label)
    kept = n - math.ceil(config.share * n)
    if not 0 < config.share < 1 or kept < hsic.MIN_GROUP:
        raise ValueError(
            f"share = {config.share} leaves {kept} of {n} images of a group: expected a small "
            f"share above 0, such as 0.01, that leaves {hsic.MIN_GROUP} images or more"
        )
    grams = [view.gram(tap, config.tokens) for view, tap in layers]
    centred = jnp.stack([gram.centre(g.matrix) for g in grams])
    diagonal = jnp.diagonal(centred, axis1=1, axis2=2)
    order = jnp.argsort(diagonal, axis=1)
    extreme = jnp.take_along_axis(diagonal, order[:, kept:], axis=1).sum(1) / diagonal.sum(1)

    def without(row):
        """Returns the products of layer x with all layers, and of all layers with themselves."""
        at = jnp.sort(order[row, :kept])
        rows = jax.vmap(lambda k: gram.u_centre(k[at][:, at]).reshape(-1))(centred)
        products = jnp.matmul(rows, rows[row], precision=jax.lax.Precision.HIGHEST)
        return products, jnp.sum(jnp.square(rows), axis=1)

    products, squares = jax.lax.map(without, jnp.arange(len(layers)))
    _, exponent, _ = gram.numbers(grams)
    return {
        "all": hsic.hsic_sums([hsic.u_centred(g) for g in grams]),
        "products": Scaled(products, exponent[:, None] + exponent[None, :]),
        "squares": Scaled(squares, jnp.broadcast_to(2 * exponent, squares.shape)),
        "extreme": n * extreme,
        "images": jnp.float32(n),
    }


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns CKA with and without the extreme images.

    Layers of all models are stacked: layer_x = layer_y = "<model>/<tap>", from input to output.

    Variables:
      cka [layer_x, layer_y]: unbiased linear CKA.
      cka_without [layer_x, layer_y]: the same without the images that are extreme in layer x.
      influence [layer_x, layer_y]: cka minus cka_without.
      extreme_energy [layer_x]: share of the variance of layer x that its extreme images have, mean
        over groups.
    """
    coords = coordinates(config.layers)
    matrix = hsic.cka(sums["all"], coords["layer_x"])
    squares = np.where(np.isfinite(matrix), sums["squares"], np.nan)
    own = np.diagonal(squares)
    with np.errstate(invalid="ignore"):
        without = sums["products"] / np.sqrt(own[:, None] * squares)
    dims, which = ("layer_x", "layer_y"), tap_layout.TOKENS[config.tokens]
    energy = sums["extreme"] / sums["images"]
    return xarray.Dataset(
        {
            "cka": variable(dims, matrix, f"unbiased linear CKA{which}"),
            "cka_without": variable(
                dims, without, f"unbiased linear CKA without extreme images{which}"
            ),
            "influence": variable(dims, matrix - without, "influence of extreme images on CKA"),
            "extreme_energy": variable(
                "layer_x", energy, "share of the variance that extreme images have"
            ),
        },
        coords,
    )


@figure(
    "Similarity of layers without extreme images",
    "CKA with all images, and without the images that are farthest from the mean in the layer of "
    "the horizontal axis (the field share).",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws CKA with and without the extreme images side by side."""
    from vitcnn import figures

    return figures.heatmaps(results, {"cka": "CKA", "cka_without": "CKA without extremes"})
