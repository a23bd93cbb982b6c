"""Canonical correlations of the principal components of two representations.

The k canonical correlations rho_i of two sets of k principal components are the singular values of
U'V, where the columns of U and V are those components, uncorrelated and of unit length. They do not
change under any invertible linear map of the k components. Three summaries:

    SVCCA  mean rho_i                                              (Raghu et al. 2017)
    PWCCA  mean of rho_i weighted by how much of x lies along it   (Morcos et al. 2018)
    CCA    mean rho_i^2                                            (Kornblith et al. 2019, R^2_CCA)

With fewer than some 20 images a component all of them are high for independent representations
too, which is why `check_components` refuses it and why the value of independent representations is
reported beside.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vitcnn.similarity.gram import Spectra

IMAGES_PER_COMPONENT = 20


@flax.struct.dataclass
class Components:
    """The first k principal components of every layer on the same n images.

    Attributes:
      basis: components, uncorrelated and of unit length.
      scale: their singular values.
    """

    basis: Float[Array, "layers n k"]
    scale: Float[Array, "layers k"]


def check_components(components: int, images: int) -> int:
    """Returns the number of components to use.

    Args:
      components: as asked for; 0 is one for every 20 images.
      images: images of a group.

    Raises:
      ValueError: fewer than 20 images for each of the components.
    """
    most = images // IMAGES_PER_COMPONENT
    k = components or most
    if k < 0 or k > most or not most:
        fits = f"components <= {most} would fit" if most else "no number of components fits"
        raise ValueError(
            f"components = {components}: CCA of k principal components needs groups of at least "
            f"20 k images, and at least 20; this group has {images}, so {fits}"
        )
    return k


def components(spectra: Spectra, k: int) -> Components:
    """Returns the first k principal components of every layer.

    Args:
      spectra: of the linear Gram matrices, see `gram.spectra`; of rank k at least.
      k: number of components.
    """
    return Components(spectra.vectors[:, :, :k], jnp.sqrt(spectra.values[:, :k]))


def permuted(x: Components, order: Int[Array, " n"]) -> Components:
    """Returns the components with the images in another order: independent of what they were."""
    return x.replace(basis=x.basis[:, order])


def svcca(x: Components, y: Components) -> Float[Array, "layers_x layers_y"]:
    """Returns the mean canonical correlation of every layer of x with every layer of y."""

    def row(products, scale):
        return jnp.mean(jnp.linalg.svd(products, compute_uv=False), axis=-1)

    return _rows(row, x, y)


def pwcca(x: Components, y: Components) -> Float[Array, "layers_x layers_y"]:
    """Returns the projection-weighted mean canonical correlation, weighted by the layers of x.

    rho_i counts by sum_j |<h_i, p_j>|, where h_i is the i-th canonical variate of x and p_j its
    j-th principal component with its scale. Not symmetric.

    Source: Morcos, Raghu and Bengio 2018 (arXiv 1806.05759), section 2.2, on principal components.
    """

    def row(products, scale):
        left, values, _ = jnp.linalg.svd(products, full_matrices=False)
        weights = jnp.einsum("lji,j->li", jnp.abs(left), scale)
        return jnp.sum(weights * values, axis=-1) / jnp.sum(weights, axis=-1)

    return _rows(row, x, y)


def cca(x: Components, y: Components) -> Float[Array, "layers_x layers_y"]:
    """Returns the mean squared canonical correlation of every layer of x with every one of y."""

    def row(products, scale):
        return jnp.mean(jnp.sum(jnp.square(products), axis=-1), axis=-1)

    return _rows(row, x, y)


def _rows(measure, x, y):
    """Maps `measure` of ([layers_y, k, k] products U'V, [k] scale of x) over the layers of x."""

    def row(layer):
        basis, scale = layer
        highest = jax.lax.Precision.HIGHEST
        return measure(jnp.einsum("ni,lnj->lij", basis, y.basis, precision=highest), scale)

    return jax.lax.map(row, (x.basis, x.scale))
