"""Nearest neighbours: do two layers find the same images alike? The share in common, and CKNNA.

The share of the k nearest images (Euclidean distance, the image itself excluded) that two layers
have in common, averaged over images (Huh et al. 2024, mutual k-nearest-neighbour alignment). This
measure looks at the nearest images only, where CKA weighs the distant ones most. The neighbours are
those within the n images of a group: independent layers have k / (n - 1) of them in common. Of
images that are equally near, the earlier counts as the nearer.

CKNNA (the same paper, centred kernel nearest-neighbour alignment) lies between the two: CKA over
those pairs of images alone whose second is among the k nearest of the first in both layers,

    CKNNA(K, L) = A(K, L) / sqrt(A(K, K) A(L, L)),  A(K, L) = sum_ij a_ij K_ij L_ij,

with centred linear Gram matrices K and L, and a_ij = 1 if image j is among the k nearest images of
image i in both layers. The published code of the paper takes the largest inner products for the
nearest, of features of unit length, and the unbiased estimator of HSIC; here the nearest are those
of the share in common, and features keep their length, as in CKA.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from vitcnn.similarity import distances
from vitcnn.similarity.measure import GroupMean, Layers, Options


def check(options: Options, images: int, sizes: Mapping[str, int]) -> Options:
    """Returns the options.

    Raises:
      ValueError: `neighbours` is not between 1 and images - 2 (with images - 1 all layers agree).
    """
    k = options["neighbours"]
    if not 1 <= k <= images - 2:
        raise ValueError(
            f"neighbours = {k}: expected 1 <= neighbours <= {images - 2} in a group of {images} "
            "images"
        )
    return options


def neighbours(layers: Layers, options: Options) -> Float[np.ndarray, "layers layers"]:
    """Returns the mean share of their k nearest images that two layers have in common."""
    n, k = layers.images, options["neighbours"]
    sets = np.stack([distances.nearest(row, n, k).ravel() for row in layers.squared])
    sets = sets.astype(np.float32)  # counts up to 2**24 are exact
    return (sets @ sets.T).astype(np.float64) / (n * k)


def cknna(layers: Layers, options: Options) -> Float[np.ndarray, "layers layers"]:
    """Returns CKA over the pairs of images that are near in both layers."""
    n, k = layers.images, options["neighbours"]
    near = np.stack([distances.nearest(row, n, k) for row in layers.squared])
    rows = np.where(near, layers.gram_matrices, 0).reshape(len(layers), -1)
    products = rows @ rows.T
    norm = np.sqrt(np.diagonal(products))
    return products / norm[:, None] / norm[None, :]


MEASURES = (
    GroupMean(
        name="neighbours",
        title="nearest neighbours",
        long_name="share of nearest neighbours in common",
        options={"neighbours": 10},  # number of nearest images
        check=check,
        least_images=lambda options: options["neighbours"] + 2,
        matrix=neighbours,
        numbers=lambda images, options: {"inverse_size": images / (images - 1)},
        attributes=lambda total, options: {
            "neighbours_chance": options["neighbours"] * total["inverse_size"] / total["images"]
        },
    ),
    GroupMean(
        name="cknna",
        title="CKNNA",
        long_name="CKA over nearest neighbours",
        options={"neighbours": 10},
        check=check,
        least_images=lambda options: options["neighbours"] + 2,
        matrix=cknna,
    ),
)
