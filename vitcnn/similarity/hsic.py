"""Unbiased HSIC of many layers at once, exact in float32 for features of any offset and scale.

HSIC compares two Gram matrices of the same n images. U-centring a Gram matrix (zero diagonal,
then rows and columns made to sum to zero) turns the unbiased estimator of Song et al. 2012 into a
plain inner product, so one matrix product of the flattened, U-centred Grams gives HSIC of every
pair of layers:

    HSIC(K, L) = <U(K), U(L)> / (n (n - 3))

The biased estimator is the same product of H K H and H L H, divided by (n - 1)^2.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitcnn.numerics.exact import Scaled
from vitcnn.similarity.gram import Gram, add_scaled, centre, linear, u_centre


def gram(x: Float[Array, "n ..."]) -> Gram:
    """Returns the U-centred linear Gram matrix of n >= 4 images, all other axes of x flattened."""
    return u_centred(linear(x))


def u_centred(gram: Gram) -> Gram:
    """Returns a Gram whose matrix is U-centred, for the unbiased estimator.

    Source: Nguyen, Raghu and Kornblith 2021 (arXiv 2010.15327), minibatch CKA; Song et al. 2012.
    """
    return gram.replace(matrix=u_centre(gram.matrix))


def centred(gram: Gram) -> Gram:
    """Returns a Gram whose matrix is H K H, for the biased estimator."""
    return gram.replace(matrix=centre(gram.matrix))


@flax.struct.dataclass
class HsicSums:
    """Sums over groups of images that give HSIC and CKA of every pair of layers.

    Attributes:
      hsic: sum of <U(K), U(L)>; each group thereby has the weight n (n - 3).
      energy: sum over images of |x - group mean|^2 of each layer.
      square: sum over images of |x|^2 of each layer, as |shift|^2 plus the centred energy.
      pairs: sum of n (n - 3).
      images: number of images.
    """

    hsic: Scaled  # [layers, layers]
    energy: Scaled  # [layers]
    square: Scaled  # [layers]
    pairs: Float[Array, ""]
    images: Float[Array, ""]


def hsic_sums(grams: list[Gram]) -> HsicSums:
    """Returns the sums of one group of images: every pair of layers by one matrix product."""
    n = grams[0].matrix.shape[0]
    stacked = jnp.stack([g.matrix.reshape(-1) for g in grams])
    product = jax.lax.dot_general(
        stacked, stacked, (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST
    )
    exponent = jnp.stack([g.exponent for g in grams])
    energy = jnp.stack([g.energy for g in grams])
    shift = Scaled(
        jnp.stack([g.shift_energy.value for g in grams]),
        jnp.stack([g.shift_energy.exponent for g in grams]),
    )
    return HsicSums(
        hsic=Scaled(product, exponent[:, None] + exponent[None, :]),
        energy=Scaled(energy, exponent),
        square=add_scaled(shift, Scaled(energy, exponent)),
        pairs=jnp.float32(n * (n - 3)),
        images=jnp.float32(n),
    )
