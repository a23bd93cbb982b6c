"""Compare: the similarity of every layer with every layer, of arrays, by any measure."""

from __future__ import annotations

import functools
import numbers
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import numpy as np
import xarray
from jaxtyping import Float

from vitcnn.engine.groups import check_group
from vitcnn.engine.sums import Sums, estimate
from vitcnn.lookup import check_name
from vitcnn.numerics.arrays import Array
from vitcnn.numerics.exact import Double, Scaled, to_host
from vitcnn.similarity import distances, gram, hsic, measures
from vitcnn.similarity.measure import (
    group_sums,
    matrices,
    need_distances,
    resolve,
    variables,
)

# Name of a layer -> its features for n images; or a list of layers, or one layer, without names.
Features = Float[Array, "n ..."]
Layers = Mapping[Any, Features] | Sequence[Features] | Features


class Comparison:
    """The similarity of every layer with every layer, of features that come a group at a time.

        comparison = vitcnn.Comparison("cka")
        for images in batches:
            comparison.add(activations(network, images), activations(other, images))
        table = comparison.result()

    No features are kept: memory holds one group and sums of the size of the result.

    Args:
      measure: name of a measure: "cka", "cka_biased", "cka_rbf", "procrustes", "svcca", "pwcca",
        "cca" (mean squared canonical correlation), "rsa_pearson", "rsa_spearman", "neighbours", or
        "my_package.my_file.my_measure"; see `vitcnn.similarity.measures`.
      **options: `neighbours` (default 10) of "neighbours", `components` (default one for every 20
        images of the first group) of "svcca", "pwcca" and "cca", and `bandwidth` (default 1, in
        median distances) of "cka_rbf".

    Raises:
      TypeError: the measure is no name, or an option no number.
      ValueError: there is no such measure or option; the message gives the nearest names.
    """

    def __init__(self, measure: str = "cka", **options: Any):
        if not isinstance(measure, str):
            raise TypeError(
                f'measure: expected a name such as "cka", got a {type(measure).__name__}'
            )
        self.measure = measures.find(measure)
        for option, value in options.items():
            check_name(f"option of {measure}", option, self.measure.options)
            is_whole = isinstance(self.measure.options[option], int)
            number = numbers.Integral if is_whole else numbers.Real
            if isinstance(value, bool) or not isinstance(value, number):
                words = "a whole number" if is_whole else "a number"
                raise TypeError(f"{option} = {value!r}: expected {words} for {measure}")
        self._options = options
        self._sums = Sums()
        self._names: tuple[list[str], list[str] | None] = [], None  # of xs, and of ys if there are
        self._sizes: dict[str, tuple[int, ...]] = {}  # label of a layer -> shape of its features
        self._groups = self._images = self._left_out = self._least = 0

    def add(self, xs: Layers, ys: Layers | None = None) -> None:
        """Adds one group of images.

        Each call is one group, as `group` images are in `vitcnn.compare`: HSIC of kinds of CKA is
        summed over groups, and other measures are averaged over them. A later group that is too
        small for the measure (1 to 3 images) is left out, and `result` warns of it.

        Args:
          xs: name of a layer -> its features for the images of the group, all axes but the first
            flattened; or layers without names, see `vitcnn.compare`. Every group has the same
            layers and features.
          ys: the same for another network on the same images; None compares `xs` with itself.

        Raises:
          TypeError: layers that are not arrays.
          ValueError: no layers, other layers or features than in the first group, different numbers
            of images, a first group that is too small, options that do not fit it, or (of CCA) a
            layer whose features vary in fewer directions than `components`.
        """
        xs, ys = _named("xs", xs), None if ys is None else _named("ys", ys)
        layers, images = _labelled(self.measure.name, xs, ys)
        if not self._sizes:
            self._start(layers, images, xs, ys)
        self._check_same(layers)
        if images < self._least:
            self._left_out += images
            return
        group = [_for_device(layers[label]) for label in self._sizes]
        sums = to_host(_array_sums(group, self.measure, self._options))
        for requirement, lacking in self.measure.lacking(sums["measures"][self.measure.name]):
            if requirement.refused and lacking.any():
                listed = ", ".join(n for n, bad in zip(self._labels, lacking, strict=True) if bad)
                options = ", ".join(f"{name} = {value}" for name, value in self._options.items())
                raise ValueError(
                    f"{self.measure.name} is not defined with {options} for layers that "
                    f"{requirement.otherwise}: {listed}; leave these layers out or change the "
                    "options"
                )
        self._sums.add(sums, images, self._groups)
        self._groups += 1
        self._images += images

    def result(self) -> xarray.Dataset:
        """Returns the similarity by all groups so far; more groups may be added afterwards.

        Returns:
          Dataset with `<measure>` and `<measure>_standard_error` [layer_x, layer_y], and for the
          three kinds of CCA with `<measure>_chance`, their value for independent layers. Layers
          that do not vary, are not finite, or lack what the measure needs (CCA: components of
          different strength) read NaN, and a warning names them and the reason. Standard errors are
          NaN with fewer than two groups.

        Raises:
          ValueError: no group has been added.
        """
        if not self._sums:
            raise ValueError(f"the comparison by {self.measure.name} has no images: add groups")
        if self._left_out:
            warnings.warn(
                f"{self._left_out} of {self._images + self._left_out} images are left out, in "
                f"groups too small: {self.measure.name} needs {self._least}",
                stacklevel=2,
            )
        xs, ys = self._names
        columns = slice(0, len(xs)) if ys is None else slice(len(xs), None)
        coords = {"layer_x": xs, "layer_y": xs if ys is None else ys}

        def finalize(total):
            whole = matrices(total, [self.measure], self._labels)
            parts = {name: matrix[: len(xs), columns] for name, matrix in whole.items()}
            return xarray.Dataset(variables(parts, [self.measure]), coords)

        return estimate(self._sums, finalize)

    @property
    def _labels(self) -> list[str]:
        """What messages about the result call the layers."""
        xs, ys = self._names
        return [str(name) for name in xs] if ys is None else list(self._sizes)

    def _start(self, layers, images, xs, ys):
        """Takes layers and options from the first group."""
        check_group(images, images, self.measure.name, hsic.MIN_GROUP)
        sizes = {label: int(np.prod(x.shape[1:])) for label, x in layers.items()}
        self._options = resolve([self.measure], self._options, images, sizes)
        self._least = max(hsic.MIN_GROUP, self.measure.least_images(self._options))
        self._names = list(xs), None if ys is None else list(ys)
        self._sizes = {label: x.shape[1:] for label, x in layers.items()}

    def _check_same(self, layers):
        """Raises ValueError unless a group has the layers and features of the first."""
        if set(layers) != set(self._sizes):
            missing, new = set(self._sizes) - set(layers), set(layers) - set(self._sizes)
            what = [f"no {label}" for label in sorted(missing)]
            what += [f"a new {label}" for label in sorted(new)]
            raise ValueError(
                f"every group needs the layers of the first, but this one has {', '.join(what)}"
            )
        for label, x in layers.items():
            if x.shape[1:] != self._sizes[label]:
                raise ValueError(
                    f"{label} has features {list(x.shape[1:])} in this group, but "
                    f"{list(self._sizes[label])} in the first"
                )


def compare(
    xs: Layers,
    ys: Layers | None = None,
    measure: str = "cka",
    group: int | None = None,
    **options: Any,
) -> xarray.Dataset:
    """Returns the similarity of every layer of `xs` with every layer of `ys`.

    This is a `vitcnn.Comparison` of arrays in memory, `group` images at a time.

    Args:
      xs: name of a layer -> its features for n images, all axes but the first flattened. A list or
        tuple of arrays is layers that are named by their numbers, 0, 1, ...; one array is a layer
        named "x". An array is one of NumPy, JAX or torch, or anything that NumPy can convert.
      ys: the same for another network on the same n images, one array being named "y"; None
        compares `xs` with itself.
      measure: name of a measure, see `vitcnn.Comparison`.
      group: images that are compared at a time. None takes all n at once, which is exact to 1e-6
        up to some 5000 images; a number bounds memory and gives standard errors. Measures other
        than "cka" and "cka_rbf" depend on it, independent layers above all.
      **options: options of the measure, see `vitcnn.Comparison`.

    Returns:
      The Dataset of `vitcnn.Comparison.result`.

    Raises:
      TypeError: layers that are not arrays, or a group or an option that is no number.
      ValueError: unknown measure or option, no layers, layers of the same name, different numbers
        of images, fewer than 4 images or images per group, options that do not fit, or fewer
        directions in which the features of a layer vary than `components`.
    """
    comparison = Comparison(measure, **options)
    xs, ys = _named("xs", xs), None if ys is None else _named("ys", ys)
    layers, images = _labelled(measure, xs, ys)
    group = check_group(images if group is None else group, images, measure, hsic.MIN_GROUP)
    for start in range(0, images, group):
        part = [x[start : start + group] for x in layers.values()]
        comparison.add(
            dict(zip(xs, part[: len(xs)], strict=True)),
            None if ys is None else dict(zip(ys, part[len(xs) :], strict=True)),
        )
    return comparison.result()


def cka(xs: Layers, ys: Layers | None = None, group: int | None = None) -> xarray.Dataset:
    """Returns unbiased linear CKA of every layer of `xs` with every layer of `ys`.

    This is `vitcnn.compare(xs, ys, "cka", group)`.

    Args:
      xs, ys, group: see `vitcnn.compare`.
    """
    return compare(xs, ys, "cka", group)


def _array_sums(layers, measure, options):
    """Returns the sums of one group by a measure, to be finished on the host."""
    if not need_distances([measure]):
        return _device_sums(layers, measure, tuple(options.items()))
    # One compiled program serves all measures of distances and all their options.
    sums = _device_sums(layers, None, ())
    host = sums["measures"].replace(measures=(measure,), options=tuple(options.items()))
    return {**sums, "measures": host}


@functools.partial(jax.jit, static_argnums=(1, 2))
def _device_sums(layers, measure, options):
    grams = [gram.linear(layer.features) for layer in layers]
    squared = None
    if measure is None:
        squared = [
            distances.squared(layer.features, matrix, layer.low)
            for layer, matrix in zip(layers, grams, strict=True)
        ]
    grams = [
        gram.rescaled(matrix, layer.shift_energy, layer.exponent)
        for layer, matrix in zip(layers, grams, strict=True)
    ]
    return group_sums(grams, squared, [measure] if measure else [], dict(options))


def _named(which: str, layers: Any) -> dict[Any, Any]:
    """Returns layers by name, as the result has them: either integers or strings.

    Args:
      which: "xs" or "ys", as messages call the layers.
      layers: a mapping, a list or tuple of arrays, or one array.
    """
    if isinstance(layers, Mapping):
        names = list(layers)
        kind = int if all(isinstance(name, numbers.Integral) for name in names) else str
        for name in names:
            same = [other for other in names if kind(other) == kind(name)]
            if len(same) > 1:
                listed = " and ".join(map(repr, same))
                raise ValueError(
                    f"the layers {listed} of {which} have the same name: rename one of them"
                )
        names = list(map(kind, names))
        return dict(zip(names, layers.values(), strict=True))
    if _is_array(layers):
        return {which[0]: layers}
    if isinstance(layers, list | tuple) and all(_is_array(layer) for layer in layers):
        return dict(enumerate(layers))
    kind = type(layers).__name__
    if isinstance(layers, list | tuple):
        kind += " of " + next(type(x).__name__ for x in layers if not _is_array(x))
    raise TypeError(
        f"{which} is a {kind}: expected a dict from the name of a layer to its features "
        "[images, ...], a list of such arrays, or one such array"
    )


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") or isinstance(value, jax.Array)


def _labelled(
    measure: str, xs: Mapping[Any, Any], ys: Mapping[Any, Any] | None
) -> tuple[dict[str, Any], int]:
    """Returns the layers by what messages call them, "xs['name']", and their number of images."""
    if not xs or (ys is not None and not ys):
        raise ValueError(f"{measure} needs at least one layer in xs, and in ys if ys is not None")
    layers = {f"xs[{name!r}]": x for name, x in xs.items()}
    layers |= {f"ys[{name!r}]": y for name, y in (ys or {}).items()}
    layers = {label: _features(label, x) for label, x in layers.items()}
    first, images = next((label, len(x)) for label, x in layers.items())
    for label, x in layers.items():
        if len(x) != images:
            raise ValueError(
                f"{measure} compares the same images: {first} has {images} but {label} has {len(x)}"
            )
    return layers, images


def _features(label: str, x: Any) -> Any:
    """Returns the features of a layer as an array of NumPy or JAX; an error has its label."""
    if isinstance(x, jax.core.Tracer):
        raise TypeError(f"{label} is traced by JAX: compare arrays outside of jax.jit")
    if not isinstance(x, jax.Array):
        x = _to_numpy(label, x)
    kind = getattr(x.dtype, "kind", None)  # random keys of JAX have none
    is_real = jax.numpy.issubdtype(x.dtype, np.floating) or kind in ("i", "u", "b")
    if not is_real or x.ndim < 1 or 0 in x.shape[1:]:
        raise ValueError(
            f"{label} is {x.dtype} {list(x.shape)}: expected real features [images, ...]"
        )
    return x


def _to_numpy(label: str, x: Any) -> np.ndarray:
    """Returns an array of any library as one of NumPy."""
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ValueError(f"{label} has masked entries: fill them, or leave out their images")
    try:
        if hasattr(x, "detach"):  # a tensor of torch, perhaps with a gradient or on a GPU
            x = x.detach().cpu()
            # NumPy has no bfloat16; float32 holds its values.
            x = x.float() if str(x.dtype) == "torch.bfloat16" else x
        return np.asarray(x)
    except Exception as error:  # whatever the library of the array raises
        raise ValueError(
            f"{label} is a {type(x).__name__} that NumPy cannot convert: {error}"
        ) from error


@flax.struct.dataclass
class _Layer:
    """Features as the device takes them, and the shift and scale that were taken off.

    Attributes:
      features: of a type that a float32 holds.
      low: what is missing from them, see `exact.Double`; None for nothing.
      shift_energy: energy of the shift, as `gram.rescaled` takes it.
      exponent: exponent of the scale of the Gram matrix.
    """

    features: Any
    low: Any
    shift_energy: Scaled
    exponent: np.int32


def _for_device(x: Any) -> _Layer:
    """Returns features in parts that float32 holds.

    Float64 and integers lose their shift and scale here, in float64: rounded to float32 as they
    are, a large mean would cost the digits in which the images differ. The shift is the first
    image, or if that is an outlier, the median of each feature.
    """
    if jax.numpy.issubdtype(x.dtype, np.floating) and x.dtype.itemsize <= 4:
        return _Layer(x, None, Scaled(np.float32(0), np.int32(0)), np.int32(0))
    x = np.asarray(x).reshape(len(x), -1)
    with np.errstate(invalid="ignore"):  # of infinite features, which a warning will name
        return _in_parts(x)


def _in_parts(x: np.ndarray) -> _Layer:
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        # Subtracted as integers: beyond 2**53 float64 would round them. Differences below 2**63 are
        # right although they may wrap around, and the shift leaves no rounding noise.
        shift, x = np.zeros(x.shape[1]), (x - x[0]).view(np.int64).astype(np.float64)
    else:
        x = x.astype(np.float64)
        shift, x = x[0], x - x[0]
    size = _exponent(x)
    x = np.ldexp(x, -size)
    energy = np.sum(x**2)
    if energy > gram.OUTLIER * (energy - np.sum(np.sum(x, axis=0) ** 2) / len(x)):
        median = np.median(x, axis=0)
        x, shift = x - median, shift + np.ldexp(median, size)
        rest = _exponent(x)
        x, size = np.ldexp(x, -rest), size + rest
    shift_size = _exponent(shift)
    shift_energy = np.float32(len(x) * np.sum(np.ldexp(shift, -shift_size) ** 2))
    parts = Double.of(x)
    # Whether a layer is alive is judged by the rounding of float32. The shift was float64, whose
    # rounding is 2**29 times finer, so its energy counts for 2**58 times less.
    return _Layer(
        parts.high,
        parts.low if parts.low.any() else None,
        Scaled(shift_energy, np.int32(2 * shift_size - 58)),
        np.int32(2 * size),
    )


def _exponent(x: np.ndarray) -> int:
    """Returns e with max |x| <= 2**e, 0 if x is 0."""
    return int(np.frexp(np.max(np.abs(x)))[1])
