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
from vitcnn.numerics.exact import Double, Scaled, Unfinished
from vitcnn.similarity.distances import as_matrix
from vitcnn.similarity.gram import EPS, Gram, add_scaled, centre, linear, numbers, u_centre
from vitcnn.similarity.maps import warn_undefined

NO_KERNEL = (
    "have no RBF kernel that varies: all distances of their images are equal, or half of them are "
    "0, or the bandwidth is too small"
)
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
      square: sum over images of |x|^2 of each layer, as |shift|^2 plus the centred energy. Both are
        the same for an RBF kernel, as features that vary too little are left out before.
      pairs: sum of n (n - 3).
      images: number of images.
    """

    hsic: Scaled | Float[np.ndarray, "layers layers"]
    energy: Scaled | Float[np.ndarray, " layers"]
    square: Scaled | Float[np.ndarray, " layers"]
    pairs: Float[Array, ""]
    images: Float[Array, ""]


def hsic_sums(grams: Sequence[Gram], *, diagonal: bool = False) -> HsicSums:
    """Returns the sums of one group of images: every pair of layers by one matrix product.

    Args:
      grams: centred Gram matrices of the layers.
      diagonal: whether their diagonals are other than zero. They are then multiplied separately,
        because next to the square of one great entry (an outlier) float32 would drop all others.
    """
    n = grams[0].matrix.shape[0]
    if diagonal:
        stacked = jnp.stack([g.matrix for g in grams])
        off = jnp.where(jnp.eye(n, dtype=bool), 0, stacked).reshape(len(grams), -1)
        product = _products(off) + _products(jnp.diagonal(stacked, axis1=1, axis2=2))
    else:
        product = _products(jnp.stack([g.matrix.reshape(-1) for g in grams]))
    energy, exponent, shift = numbers(grams)
    return HsicSums(
        hsic=Scaled(product, exponent[:, None] + exponent[None, :]),
        energy=Scaled(energy, exponent),
        square=add_scaled(shift, Scaled(energy, exponent)),
        pairs=jnp.float32(n * (n - 3)),
        images=jnp.float32(n),
    )


def _products(rows: Float[Array, "layers numbers"]) -> Float[Array, "layers layers"]:
    """Returns the inner products of all rows."""
    return jax.lax.dot_general(
        rows, rows, (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST
    )


def permuted_products(grams: Sequence[Gram]) -> Scaled:
    """Returns the same products [x, y] of one group with the images of layer y permuted.

    Image i of y takes the place of image i + 1, so x and y are of different images: what is left is
    chance. The images of a group are in random order, so this permutation is as good as any.

    Args:
      grams: U-centred Gram matrices of the layers.
    """
    matrices = jnp.stack([g.matrix for g in grams])
    rows = matrices.reshape(len(grams), -1)

    def with_every_layer(matrix):
        permuted = jnp.roll(matrix, (1, 1), (0, 1)).reshape(-1)
        return jnp.matmul(rows, permuted, precision=jax.lax.Precision.HIGHEST)

    # A few layers at a time: the permuted matrices of all would take as much memory again.
    products = jax.lax.map(with_every_layer, matrices, batch_size=min(16, len(grams)))
    _, exponent, _ = numbers(grams)
    return Scaled(products.T, exponent[:, None] + exponent[None, :])


def rbf_sums(
    squared: Float[np.ndarray, "layers pairs"],
    noise: Float[np.ndarray, " layers"],
    images: int,
    bandwidth: float,
) -> HsicSums:
    """Returns the sums of one group of images for the Gaussian kernel, on the host in float64.

    K_ij = exp(-d_ij^2 / (2 sigma^2)) with sigma = bandwidth times the median distance d_ij of two
    different images of the group (Kornblith et al. 2019, section 4). A constant may be taken off
    all K_ij, since U-centring does so. It is the greatest K_ij, so that the differences keep their
    digits in a wide kernel, where all are near 1, and in a narrow one, where all are near 0. A
    layer that does not vary, or in which half of the pairs of images are alike, has no kernel and
    adds nothing.

    Args:
      squared: squared distances of all pairs, see `vitcnn.similarity.distances`.
      noise: share of the variation of each layer that may be rounding noise, see `gram.noise`.
      images: number of images of the group.
      bandwidth: sigma as a fraction of the median distance.
    """
    kernels = np.zeros((len(noise), images**2))
    energy = np.where(np.isnan(noise), np.nan, 0.0)
    median = np.median(np.sqrt(squared), axis=1)
    for i in np.flatnonzero((noise < 1) & (median > 0)):
        exponent = -squared[i] / (2 * (bandwidth * median[i]) ** 2)
        most = exponent.max()
        k = np.exp(most) * np.expm1(exponent - most)
        energy[i] = -2 * k.sum() / images
        kernels[i] = u_centre(as_matrix(k, images)).ravel()
    return HsicSums(
        hsic=kernels @ kernels.T,
        energy=energy,
        square=energy.copy(),
        pairs=np.float64(images * (images - 3)),
        images=np.float64(images),
    )


def form_of_sums(layers: int) -> HsicSums:
    """Returns the shapes of the sums on the host."""
    number, vector, matrix = (
        jax.ShapeDtypeStruct((layers,) * axes, np.float64) for axes in range(3)
    )
    return HsicSums(matrix, vector, vector, number, number)


@flax.struct.dataclass
class RbfSums(Unfinished):
    """The sums of one group of images for the Gaussian kernel, which the host finishes.

    The attributes are the arguments of `rbf_sums`, of which it is the form on the device.
    """

    squared: Double
    noise: Float[Array, " layers"]
    images: int = flax.struct.field(pytree_node=False)
    bandwidth: float = flax.struct.field(pytree_node=False)

    def to_host(self) -> HsicSums:
        """Returns the sums in float64."""
        noise = np.asarray(self.noise, np.float64)
        return rbf_sums(self.squared.to_host(), noise, self.images, self.bandwidth)

    @property
    def form(self) -> HsicSums:
        """The shapes of what `to_host` returns."""
        return form_of_sums(*self.noise.shape)


def alive(total: HsicSums) -> Bool[np.ndarray, " layers"]:
    """Returns for every layer whether its variation over images is more than rounding noise.

    A layer is dead when E|x - mean|^2 <= (8 eps)^2 E|x|^2 (the features hardly move), or when
    sqrt(HSIC(K, K)) <= 8 eps E|x - mean|^2 (nothing is left once the Gram matrix is centred), with
    eps of float32. Layers that are not finite are not alive either. Biased HSIC meets the second
    criterion whenever it meets the first.

    Args:
      total: sums over all groups, on the host in float64.
    """
    energy, square = total.energy / total.images, total.square / total.images
    with np.errstate(invalid="ignore"):
        spread = np.sqrt(np.diagonal(total.hsic) / total.pairs)
        return (energy > (8 * EPS) ** 2 * square) & (spread > 8 * EPS * energy)


def cka(
    total: HsicSums,
    names: Sequence[str] | None = None,
    why: str = "do not vary over the images beyond rounding noise",
) -> Float[np.ndarray, "layers layers"]:
    """Returns the CKA matrix of summed HSIC, NaN in the rows and columns of dead layers.

    Args:
      total: sums over all groups, on the host in float64.
      names: names of the layers, for a warning that lists the dead ones; None gives no warning.
      why: what the warning says of the dead ones.
    """
    live = alive(total)
    if names is not None:
        finite = np.isfinite(total.energy)
        warn_undefined(why, names, ~live & finite, ["CKA"])
        warn_undefined("have NaN or infinite activations", names, ~finite, ["CKA"])
    norm = np.sqrt(np.where(live, np.diagonal(total.hsic), np.nan))
    return total.hsic / norm[:, None] / norm[None, :]
