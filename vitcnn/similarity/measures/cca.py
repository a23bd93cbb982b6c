"""Canonical correlations of the principal components of two representations.

The k canonical correlations rho_i of two sets of k principal components are the singular values of
U'V, where the columns of U and V are those components, uncorrelated and of unit length. They do not
change under any invertible linear map of the k components. Three summaries:

    svcca  mean rho_i                                              (Raghu et al. 2017)
    pwcca  mean of rho_i weighted by how much of x lies along it   (Morcos et al. 2018)
    cca    mean rho_i^2                                            (Kornblith et al. 2019, R^2_CCA)

With fewer than some 20 images for each component all of them are high even for independent
representations. Therefore `check` refuses fewer, and `<measure>_chance` reports the value of
independent representations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from vitcnn.similarity.distances import Spectra
from vitcnn.similarity.measure import GroupMean, Layers, Options, Requirement

IMAGES_PER_COMPONENT = 20
# Components whose eigenvalues differ by less than this share of the greatest cannot be told apart:
# the rounding error of a Gram matrix in float64, 1e-15 of the greatest, turns them by the ratio.
GAP = 1e-9
ALIKE = (
    "have principal components too close in strength, or too weak beside the first, to tell apart"
)


@dataclasses.dataclass(frozen=True)
class Components:
    """The first k principal components of every layer on the same n images.

    Attributes:
      basis: components, uncorrelated and of unit length.
      scale: their singular values.
    """

    basis: Float[np.ndarray, "layers n k"]
    scale: Float[np.ndarray, "layers k"]


def check(options: Options, images: int, sizes: Mapping[str, int]) -> Options:
    """Returns the options with the number of components filled in.

    Args:
      options: `components` = 0 stands for one component for every 20 images.
      images: images of a group.
      sizes: number of features of each layer.

    Raises:
      ValueError: fewer than 20 images for each component, or a layer with fewer features than
        components.
    """
    most = images // IMAGES_PER_COMPONENT
    k = options["components"] or most
    if k < 0 or k > most or not most:
        fits = f"components <= {most} would fit" if most else "no number of components fits"
        raise ValueError(
            f"components = {options['components']}: CCA of k principal components needs groups of "
            f"at least 20 k images, and at least 20; this group has {images}, so {fits}"
        )
    small = [f"{label} has {size}" for label, size in sizes.items() if size < k]
    if small:
        raise ValueError(
            f"CCA of components = {k} needs as many features, but {', '.join(small)}; set "
            f"components <= {min(sizes.values())}, or leave these layers out"
        )
    return {**options, "components": k}


def components(spectra: Spectra, k: int) -> Components:
    """Returns the first k principal components of every layer.

    Args:
      spectra: of rank k at least.
      k: number of components.
    """
    return Components(spectra.vectors[:, :, :k], np.sqrt(spectra.values[:, :k]))


def permuted(x: Components, order: Int[np.ndarray, " n"]) -> Components:
    """Returns the components with the images in another order: independent of the original ones."""
    return dataclasses.replace(x, basis=x.basis[:, order])


def svcca(x: Components, y: Components) -> Float[np.ndarray, "layers_x layers_y"]:
    """Returns the mean canonical correlation of every layer of x with every layer of y."""

    def row(products, scale):
        return np.linalg.svd(products, compute_uv=False).mean(axis=-1)

    return _rows(row, x, y)


def pwcca(x: Components, y: Components) -> Float[np.ndarray, "layers_x layers_y"]:
    """Returns the projection-weighted mean canonical correlation, weighted by the layers of x.

    The weight of rho_i is sum_j |<h_i, p_j>|, where h_i is the i-th canonical variate of x and p_j
    its j-th principal component with its scale. The result is not symmetric.

    Source: Morcos, Raghu and Bengio 2018 (arXiv 1806.05759), section 2.2, on principal components.
    """

    def row(products, scale):
        left, values, _ = np.linalg.svd(products, full_matrices=False)
        weights = np.einsum("lji,j->li", np.abs(left), scale)
        return (weights * values).sum(axis=-1) / weights.sum(axis=-1)

    return _rows(row, x, y)


def cca(x: Components, y: Components) -> Float[np.ndarray, "layers_x layers_y"]:
    """Returns the mean squared canonical correlation of every layer of x with every layer of y."""

    def row(products, scale):
        return np.square(products).sum(axis=-1).mean(axis=-1)

    return _rows(row, x, y)


def _rows(summary, x, y):
    """Maps `summary` of ([layers_y, k, k] products U'V, [k] scale of x) over the layers of x."""

    others = y.basis.transpose(0, 2, 1)
    rows = [
        summary((others @ u).transpose(0, 2, 1), s) for u, s in zip(x.basis, x.scale, strict=True)
    ]
    return np.stack(rows)


def enough(layers: Layers, options: Options) -> Bool[np.ndarray, " layers"]:
    """Returns which layers vary in as many directions as there are components."""
    return layers.spectra.rank(layers.noise) >= options["components"]


def distinct(layers: Layers, options: Options) -> Bool[np.ndarray, " layers"]:
    """Returns in which layers the last component is told apart from the next direction."""
    return _gaps(layers, options)[:, -1] > GAP


def all_distinct(layers: Layers, options: Options) -> Bool[np.ndarray, " layers"]:
    """Returns in which layers every component is told apart from the next direction."""
    return (_gaps(layers, options) > GAP).all(axis=1)


def _gaps(layers, options):
    """Returns how much smaller the eigenvalue behind each component is, as a share of the first."""
    values = layers.spectra.values[:, : options["components"] + 1]
    return -np.diff(values, axis=1) / values[:, :1]


def _measure(
    name: str, title: str, long_name: str, summary: Any, chance: Any, told_apart: Any = distinct
) -> GroupMean:
    """Returns a measure that is a summary of the canonical correlations."""

    def matrix(layers: Layers, options: Options):
        parts = components(layers.spectra, options["components"])
        return summary(parts, parts)

    return GroupMean(
        name=name,
        title=title,
        long_name=long_name,
        options={"components": 0},  # principal components; 0 is one for every 20 images of a group
        vectors_only=True,
        check=check,
        least_images=lambda options: IMAGES_PER_COMPONENT * options["components"],
        matrix=matrix,
        chance=chance,
        requires=(
            Requirement(enough, "vary in fewer directions than CCA has components", refused=True),
            Requirement(told_apart, ALIKE),
        ),
        numbers=lambda images, options: {"components": images * options["components"]},
        attributes=lambda total, options: {"components": total["components"] / total["images"]},
    )


def _of_permuted_images(summary):
    """Returns the chance of a summary: its value for layers whose images are in another order."""

    def chance(layers: Layers, options: Options):
        parts = components(layers.spectra, options["components"])
        order = np.random.default_rng(0).permutation(layers.images)
        return summary(parts, permuted(parts, order))

    return chance


def _mean_of_permutations(layers: Layers, options: Options):
    """Returns k / (n - 1), the mean of `cca` over all permutations of the images."""
    return np.full((len(layers), len(layers)), options["components"] / (layers.images - 1))


MEASURES = (
    _measure(
        "svcca", "SVCCA", "mean canonical correlation", svcca, chance=_of_permuted_images(svcca)
    ),
    _measure(
        "pwcca",
        "PWCCA",
        "projection-weighted canonical correlation",
        pwcca,
        chance=_of_permuted_images(pwcca),
        told_apart=all_distinct,  # the weights depend on each component
    ),
    _measure(
        "cca",
        "mean squared CCA",
        "mean squared canonical correlation",
        cca,
        chance=_mean_of_permutations,
    ),
)
