"""Compare: the similarity of every layer with every layer, for arrays, by any measure."""

from __future__ import annotations

import functools
import operator
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import xarray
from jaxtyping import Array, Float

from vitcnn.engine.sums import Sums, estimate
from vitcnn.lookup import check_name
from vitcnn.numerics.exact import Scaled, to_host
from vitcnn.similarity import gram as grams
from vitcnn.similarity import measures
from vitcnn.similarity.cka import MIN_GROUP, check_group


def compare(
    xs: Mapping[str, Float[Array, "n ..."]],
    ys: Mapping[str, Float[Array, "n ..."]] | None = None,
    measure: str = "cka",
    group: int | None = None,
    **options: Any,
) -> xarray.Dataset:
    """Returns the similarity of every layer of `xs` with every layer of `ys`.

    Args:
      xs: name of a layer -> its features for n images, all axes but the first flattened.
      ys: the same for another network on the same n images; None compares `xs` with itself.
      measure: "cka", "cka_biased", "cka_rbf", "procrustes", "svcca", "pwcca", "cca" (mean squared
        canonical correlation), "rsa_pearson", "rsa_spearman" or "neighbours".
      group: images that are compared at a time. None takes all n at once, which is exact to 1e-6
        up to some 5000 images; a number bounds memory and gives standard errors. Measures other
        than "cka" and "cka_rbf" depend on it, independent layers above all.
      **options: `neighbours` (default 10) of "neighbours", `components` (default one for every 20
        images of a group) of "svcca", "pwcca" and "cca", and `bandwidth` (default 1, in median
        distances) of "cka_rbf".

    Returns:
      Dataset with `<measure>` and `<measure>_standard_error` [layer_x, layer_y], and for the three
      kinds of CCA with `<measure>_chance`, their value for independent layers. Layers that do not
      vary (or are not finite) read NaN and are named in a warning. Standard errors are NaN with
      fewer than two groups.

    Raises:
      ValueError: unknown measure or option, no layers, different numbers of images, fewer than 4
        images or images per group, options that do not fit, or fewer directions in which the
        features of a layer vary than `components`.
    """
    check_name("measure", measure, measures.MEASURES)
    for option in options:
        check_name(f"option of {measure}", option, measures.OPTIONS.get(measure, ()))
    if not xs or (ys is not None and not ys):
        raise ValueError(f"{measure} needs at least one layer in xs, and in ys if it is given")
    layers = {f"xs[{name!r}]": x for name, x in xs.items()}
    layers |= {f"ys[{name!r}]": y for name, y in (ys or {}).items()}
    layers = {label: _features(label, x) for label, x in layers.items()}
    first, n = next((label, len(x)) for label, x in layers.items())
    for label, x in layers.items():
        if len(x) != n:
            raise ValueError(
                f"{measure} compares the same images: {first} has {n} but {label} has {len(x)}"
            )
    group = n if group is None else operator.index(group)
    check_group(group, n, "unbiased HSIC" if measure == "cka" else measure)
    sizes = {label: int(np.prod(x.shape[1:])) for label, x in layers.items()}
    chosen = measures.check((measure,), measures.Options(**options), group, sizes)
    least = max(MIN_GROUP, measures.least_images((measure,), chosen))
    labels, sums = list(xs) if ys is None else list(layers), Sums()
    for k, start in enumerate(range(0, n, group)):
        size = min(group, n - start)
        if size < least:
            said = "HSIC" if measure in measures.CKA else measure
            warnings.warn(
                f"the last {size} of {n} images are left out: {said} needs {least}", stacklevel=2
            )
            break
        part = [_single(x[start : start + size]) for x in layers.values()]
        found = to_host(_array_sums(part, (measure,), chosen))
        if (short := found["short"] > 0).any():
            listed = ", ".join(label for label, bad in zip(labels, short, strict=True) if bad)
            raise ValueError(
                f"{measure}: the features of {listed} vary in fewer than components = "
                f"{chosen.components} directions; set fewer components, or leave them out"
            )
        sums.add(found, size, k)
    names, nx = [*xs, *(ys or {})], len(xs)
    columns = slice(0, nx) if ys is None else slice(nx, None)
    coords = {"layer_x": names[:nx], "layer_y": names[columns]}

    def finalize(total):
        found = {name: m[:nx, columns] for name, m in measures.matrices(total, labels).items()}
        return xarray.Dataset(measures.variables(found), coords)

    return estimate(sums, finalize)


def cka(
    xs: Mapping[str, Float[Array, "n ..."]],
    ys: Mapping[str, Float[Array, "n ..."]] | None = None,
    group: int | None = None,
) -> xarray.Dataset:
    """Returns unbiased linear CKA of every layer of `xs` with every layer of `ys`.

    This is `vitcnn.compare(xs, ys, "cka", group)`.

    Args:
      xs, ys, group: see `vitcnn.compare`.
    """
    return compare(xs, ys, "cka", group)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _array_sums(layers, names, options):
    made = [grams.rescaled(grams.linear(x), *was) for x, *was in layers]
    return measures.group_sums(made, names, options)


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
