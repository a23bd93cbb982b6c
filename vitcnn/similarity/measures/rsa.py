"""Representational similarity analysis (RSA): do two layers find the same images far apart?

The distances of all pairs of images in one layer are correlated with the distances in another
(Kriegeskorte, Mur and Bandettini 2008). Distances are Euclidean. Spearman's correlation uses their
ranks, and is thus the same for any monotone function of the distances. Independent layers read 0
in the mean.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from vitcnn.similarity.distances import ranks
from vitcnn.similarity.gram import EPS
from vitcnn.similarity.measure import GroupMean, Layers, Options, Requirement


def unequal(layers: Layers, options: Options) -> Bool[np.ndarray, " layers"]:
    """Returns in which layers the distances differ by more than rounding noise of the features."""
    mean = layers.distances.mean(axis=1)
    return layers.distances.std(axis=1) > 8 * EPS * mean


def correlation(values: Float[np.ndarray, "layers pairs"]) -> Float[np.ndarray, "layers layers"]:
    """Returns Pearson's correlation of every pair of rows, NaN for a row of equal values."""
    centred = values - values.mean(axis=1, keepdims=True)
    size = np.sqrt(np.square(centred).sum(axis=1, keepdims=True))
    unit = centred / np.where(size > 0, size, np.nan)
    return unit @ unit.T


UNEQUAL = Requirement(unequal, "have all images equally far apart")
MEASURES = (
    GroupMean(
        name="rsa_pearson",
        title="RSA, Pearson",
        long_name="RSA, Pearson correlation of distances",
        chance=0.0,
        requires=(UNEQUAL,),
        matrix=lambda layers, options: correlation(layers.distances),
    ),
    GroupMean(
        name="rsa_spearman",
        title="RSA, Spearman",
        long_name="RSA, Spearman correlation of distances",
        chance=0.0,
        requires=(UNEQUAL,),
        matrix=lambda layers, options: correlation(np.stack([*map(ranks, layers.squared)])),
    ),
)
