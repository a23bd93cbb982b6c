"""Centred kernel alignment (CKA): the cosine of two centred Gram matrices.

CKA(X, Y) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X X', L = Y Y', HSIC unbiased and
summed over groups of images before the ratio is taken (Nguyen, Raghu and Kornblith 2021, arXiv
2010.15327, eq. 2 and 3). It is 1 for representations that are rotations and scalings of each
other and, unlike the biased form, has mean 0 for independent ones, so that it can be slightly
negative.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray
from jaxtyping import Array, Float

from vitcnn.similarity import hsic
from vitcnn.sums import Scaled, Sums, estimate, to_host

MIN_GROUP = 4  # the unbiased estimator divides by n - 3
EPS = float(np.finfo(np.float32).eps)  # whatever the type of the activations: Grams are float32


def cka(
    xs: Mapping[str, Float[Array, "n ..."]],
    ys: Mapping[str, Float[Array, "n ..."]] | None = None,
    group: int | None = None,
) -> xarray.Dataset:
    """Returns unbiased linear CKA of every layer of `xs` with every layer of `ys`.

    Args:
      xs: name of a layer -> its features for n images, all axes but the first flattened.
      ys: the same for another network on the same n images; None compares `xs` with itself.
      group: images per HSIC estimate. None takes all n at once, which is exact to 1e-6 up to some
        5000 images; a number bounds memory and gives standard errors.

    Returns:
      Dataset with `cka` and `cka_standard_error` [layer_x, layer_y]. Layers that do not vary (or
      are not finite) read NaN and are named in a warning. Standard errors are NaN with fewer than
      two groups.

    Raises:
      ValueError: no layers, different numbers of images, or fewer than 4 images or images per
        group.
    """
    if not xs or (ys is not None and not ys):
        raise ValueError("cka needs at least one layer in xs, and in ys if it is given")
    layers = {f"xs[{name!r}]": x for name, x in xs.items()}
    layers |= {f"ys[{name!r}]": y for name, y in (ys or {}).items()}
    layers = {label: _features(label, x) for label, x in layers.items()}
    first, n = next((label, len(x)) for label, x in layers.items())
    for label, x in layers.items():
        if len(x) != n:
            raise ValueError(
                f"cka compares the same images: {first} has {n} but {label} has {len(x)}"
            )
    group = n if group is None else operator.index(group)
    check_group(group, n)
    sums = Sums()
    for k, start in enumerate(range(0, n, group)):
        size = min(group, n - start)
        if size < MIN_GROUP:
            warnings.warn(f"the last {size} of {n} images are left out: HSIC needs 4", stacklevel=2)
            break
        part = [_single(x[start : start + size]) for x in layers.values()]
        sums.add(to_host(_group_sums(part)), size, k)
    labels = list(xs) if ys is None else list(layers)
    names, nx = [*xs, *(ys or {})], len(xs)
    columns = slice(0, nx) if ys is None else slice(nx, None)

    def finalize(total):
        matrix = from_sums(total, labels)[:nx, columns]
        coords = {"layer_x": names[:nx], "layer_y": names[columns]}
        attrs = {"long_name": "unbiased linear CKA", "units": "1"}
        return xarray.Dataset({"cka": (("layer_x", "layer_y"), matrix, attrs)}, coords)

    return estimate(sums, finalize)


@jax.jit
def _group_sums(layers):
    return hsic.hsic_sums([hsic.rescaled(hsic.gram(x), *was) for x, *was in layers])


def _features(label: str, x: Any) -> Any:
    """Returns the features of a layer as an array of NumPy or JAX; a ValueError names bad ones."""
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    numbers = jax.numpy.issubdtype(x.dtype, np.floating) or x.dtype.kind in "iub"
    if not numbers or x.ndim < 1 or 0 in x.shape[1:]:
        raise ValueError(
            f"{label} is {x.dtype} {list(x.shape)}: expected real features [images, ...]"
        )
    return x


def _single(x: Any) -> tuple[Any, Scaled, np.int32]:
    """Returns features that float32 holds, the energy of the shift that was taken off, an exponent.

    Float64 and integers lose their shift and scale here, in float64: rounded to float32 as they
    are, a large mean would cost the digits in which the images differ.
    """
    if jax.numpy.issubdtype(x.dtype, np.floating) and x.dtype.itemsize <= 4:
        return x, Scaled(np.float32(0), np.int32(0)), np.int32(0)
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    shift, x = x[0], x - x[0]
    size, shift_size = (int(np.frexp(np.max(np.abs(a)))[1]) for a in (x, shift))
    energy = np.float32(len(x) * np.sum(np.ldexp(shift, -shift_size) ** 2))
    x = np.ldexp(x, -size).astype(np.float32)
    # Whether a layer is alive is judged by the rounding of float32; the shift was float64, whose
    # rounding is 2**29 times finer, so its energy counts for that much less, squared.
    return x, Scaled(energy, np.int32(2 * shift_size - 58)), np.int32(2 * size)


def check_group(group: int, images: int) -> None:
    """Raises ValueError unless 4 <= group <= images."""
    if group < MIN_GROUP:
        raise ValueError(
            f"group = {group}: unbiased HSIC needs groups of at least {MIN_GROUP} images"
        )
    if images < group:
        raise ValueError(
            f"group = {group} but there are only {images} images; set group <= {images}"
        )


def alive(total: hsic.HsicSums) -> np.ndarray:
    """Returns for every layer whether its variation over images is more than rounding noise.

    A layer is dead when E|x - mean|^2 <= (8 eps)^2 E|x|^2 (the features hardly move), or when
    sqrt(HSIC(K, K)) <= 8 eps E|x - mean|^2 (nothing is left once the Gram matrix is centred), eps
    of float32. Layers that are not finite are not alive either.

    Args:
      total: sums over all groups, on the host in float64.
    """
    energy, square = total.energy / total.images, total.square / total.images
    with np.errstate(invalid="ignore"):
        spread = np.sqrt(np.diagonal(total.hsic) / total.pairs)
        return (energy > (8 * EPS) ** 2 * square) & (spread > 8 * EPS * energy)


def from_sums(total: hsic.HsicSums, names: Sequence[str]) -> Float[np.ndarray, "layers layers"]:
    """Returns the CKA matrix of summed HSIC, NaN in the rows and columns of dead layers.

    Args:
      total: sums over all groups, on the host in float64.
      names: names of the layers, for the warnings.
    """
    live = alive(total)
    finite = np.isfinite(total.energy)
    _warn_of("do not vary over the images beyond rounding noise", names, ~live & finite)
    _warn_of("have NaN or infinite activations", names, ~finite)
    norm = np.sqrt(np.where(live, np.diagonal(total.hsic), np.nan))
    return total.hsic / norm[:, None] / norm[None, :]


def _warn_of(what: str, names: Sequence[str], which: Any) -> None:
    if which.any():
        listed = ", ".join(name for name, bad in zip(names, which, strict=True) if bad)
        warnings.warn(f"layers that {what}, CKA is NaN: {listed}", stacklevel=4)


def match(
    matrix: Float[np.ndarray, "layers others"], depth: Float[np.ndarray, " others"]
) -> tuple[Float[np.ndarray, " layers"], Float[np.ndarray, " layers"]]:
    """Returns for every layer the depth of the most similar other layer, and their CKA.

    Args:
      matrix: CKA of layers with the layers of another model; NaN where one is dead.
      depth: depth of each of the others, in [0, 1].

    Returns:
      (depth, CKA), NaN for a layer without a live match. This is the correspondence behind "60
      lower ResNet layers match the lowest quarter of the ViT layers" (paper: Fig. 2).
    """
    known = np.isfinite(matrix)
    best = np.argmax(np.where(known, matrix, -np.inf), axis=1)
    some = known.any(axis=1)
    rows = np.arange(len(matrix))
    return np.where(some, depth[best], np.nan), np.where(some, matrix[rows, best], np.nan)
