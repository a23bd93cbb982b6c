"""HSIC and CKA of many layers at once, exact in float32 for features of any offset and scale.

HSIC compares two Gram matrices of the same n images. U-centring a Gram matrix (zero diagonal,
then rows and columns made to sum to zero) turns the unbiased estimator of Song et al. 2012 into a
plain inner product. One matrix product of the flattened, U-centred Grams thus gives HSIC of every
pair of layers:

    HSIC(K, L) = <U(K), U(L)> / (n (n - 3))

The biased estimator is the same product of H K H and H L H, divided by (n - 1)^2.

CKA is the cosine of the centred Grams, HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), with HSIC summed
over groups of images before the ratio is taken (Nguyen, Raghu and Kornblith 2021, arXiv 2010.15327,
eq. 2 and 3). It is 1 for representations that are rotations and scalings of each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from vitcnn.numerics.arrays import Array
from vitcnn.numerics.exact import Scaled
from vitcnn.similarity.gram import EPS, Gram, add_scaled, centre, linear, u_centre
from vitcnn.similarity.maps import warn_undefined

MIN_GROUP = 4  # images: the unbiased estimator divides by n - 3


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


def hsic_sums(grams: Sequence[Gram]) -> HsicSums:
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


def alive(total: HsicSums) -> Bool[np.ndarray, " layers"]:
    """Returns for every layer whether its variation over images is more than rounding noise.

    A layer is dead when E|x - mean|^2 <= (8 eps)^2 E|x|^2 (the features hardly move), or when
    sqrt(HSIC(K, K)) <= 8 eps E|x - mean|^2 (nothing is left once the Gram matrix is centred), with
    eps of float32. Layers that are not finite are not alive either. With an RBF kernel the energies
    are of the kernel's features, in the proportions of the energies of the activations, and biased
    HSIC meets the second criterion whenever it meets the first.

    Args:
      total: sums over all groups, on the host in float64.
    """
    energy, square = total.energy / total.images, total.square / total.images
    with np.errstate(invalid="ignore"):
        spread = np.sqrt(np.diagonal(total.hsic) / total.pairs)
        return (energy > (8 * EPS) ** 2 * square) & (spread > 8 * EPS * energy)


def cka(total: HsicSums, names: Sequence[str] | None = None) -> Float[np.ndarray, "layers layers"]:
    """Returns the CKA matrix of summed HSIC, NaN in the rows and columns of dead layers.

    Args:
      total: sums over all groups, on the host in float64.
      names: names of the layers, for a warning that lists the dead ones; None gives no warning.
    """
    live = alive(total)
    if names is not None:
        finite = np.isfinite(total.energy)
        why = "do not vary over the images beyond rounding noise"
        warn_undefined(why, names, ~live & finite, ["CKA"])
        warn_undefined("have NaN or infinite activations", names, ~finite, ["CKA"])
    norm = np.sqrt(np.where(live, np.diagonal(total.hsic), np.nan))
    return total.hsic / norm[:, None] / norm[None, :]
