"""What a measure of similarity is, and how its values add up over groups of images.

A measure is a function of the linear Gram matrices of the layers (`OfGrams`: linear CKA) or of the
exact distances of images in each layer (`OfDistances`: all others). The device computes Gram
matrices and distances of one group of images (`group_sums`). The host computes the sums of measures
of distances for each group, and from the sums over all groups the matrices (`matrices`).
`vitcnn.compare` does so for arrays, the analysis `similarity` for models. The measures themselves
are in the folder `measures`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl
from jaxtyping import Bool, Float

from vitcnn.numerics import exact
from vitcnn.numerics.arrays import Array, Names
from vitcnn.similarity import distances, gram, hsic
from vitcnn.similarity.maps import warn_undefined

Options = Mapping[str, Any]  # option of a measure -> its value
LESS_ALIKE = {"larger_is": "less alike"}  # attribute of the variables of a distance


class Layers:
    """All layers on one group of images, and what several measures need of them, computed once.

    Everything is NumPy float64 on the host. Layers that do not vary stand in as equidistant images,
    so that every measure is finite; their values are left out later. Distances of a layer are in a
    unit of its own, in which equal distances stay equal.

    Attributes:
      squared: squared distances of all pairs of images, see `vitcnn.similarity.distances`.
      noise: share of the variation of each layer that may be rounding noise, see `gram.noise`.
      images: number of images of the group.
    """

    def __init__(
        self,
        squared: Float[np.ndarray, "layers pairs"],
        noise: Float[np.ndarray, " layers"],
        images: int,
    ):
        self.noise, self.images = noise, images
        self.squared = np.where(self.live[:, None], squared, 1)

    def __len__(self) -> int:
        return len(self.noise)

    @property
    def live(self) -> Bool[np.ndarray, " layers"]:
        """Whether each layer varies over the images by more than rounding noise."""
        return self.noise < 1

    @functools.cached_property
    def gram_matrices(self) -> Float[np.ndarray, "layers n n"]:
        """Centred linear Gram matrices."""
        return np.stack([distances.gram_matrix(row, self.images) for row in self.squared])

    @functools.cached_property
    def spectra(self) -> distances.Spectra:
        """Spectra of the centred Gram matrices."""
        return distances.Spectra.of(self.squared, self.images)

    @functools.cached_property
    def distances(self) -> Float[np.ndarray, "layers pairs"]:
        """Euclidean distances of all pairs of images."""
        return np.sqrt(self.squared)


@dataclasses.dataclass(frozen=True)
class Requirement:
    """What a layer needs, beyond variation, for a measure to be defined.

    Attributes:
      met: (layers, options) -> which of the layers have it.
      otherwise: predicate of the others for a message, such as "vary in too few directions".
      refused: whether `vitcnn.compare` refuses the others, because other options would do. The
        rule is NaN and a warning.
    """

    met: Callable[[Layers, Options], Bool[np.ndarray, " layers"]]
    otherwise: str
    refused: bool = False


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Measure:
    """A measure of similarity of layers: an `OfGrams` or an `OfDistances`, mostly a `GroupMean`.

    Attributes:
      name: name of the measure and of its variable in a Dataset.
      title: short name, for figures.
      long_name: attribute of the variable.
      options: option -> its default. Measures that share an option share its default.
      check: (options, images of a group, number of features by layer) -> options to measure with;
        raises ValueError for options that do not fit. It may be called with options that it has
        returned.
      least_images: (options) -> number of images that a group needs.
      vectors_only: whether it compares one vector an image, rather than one at each position.
      larger_is_more_alike: False for a distance.
      chance: what independent layers read, where that is known: a number, or a function of the
        layers of a group and the options that returns it for every pair [layers, layers]; its mean
        over groups is then the variable `<name>_chance`.
      attributes: (sums of this measure, options) -> attributes of the Dataset.
    """

    name: str
    title: str
    long_name: str
    options: Options = dataclasses.field(default_factory=dict)
    check: Callable[[Options, int, Mapping[str, int]], Options] = lambda options, *_: options
    least_images: Callable[[Options], int] = lambda options: hsic.MIN_GROUP
    vectors_only: bool = False
    larger_is_more_alike: bool = True
    chance: float | Callable[[Layers, Options], Float[Array, "layers layers"]] | None = None
    attributes: Callable[[Mapping[str, Any], Options], Mapping[str, float]] = lambda *_: {}

    def matrices(self, total: Any) -> dict[str, Float[np.ndarray, "layers layers"]]:
        """Returns `name`, and `<name>_chance` if it has one, -> matrix, NaN for dead layers.

        Args:
          total: the sums over all groups, on the host in float64.
        """
        raise NotImplementedError

    def lacking(self, total: Any) -> list[tuple[Requirement, Bool[np.ndarray, " layers"]]]:
        """Returns what some layers that vary lack, and which of the layers lack it."""
        return []


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class OfGrams(Measure):
    """A measure whose sums the device computes, from linear Gram matrices in float32."""

    def sums(self, grams: Sequence[gram.Gram], options: Options) -> Any:
        """Returns a pytree of sums of one group of images.

        Args:
          grams: of the layers, from `gram.linear`.
          options: from `resolve`.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class OfDistances(Measure):
    """A measure whose sums the host computes, from the exact distances of images in float64."""

    def sums(self, layers: Layers, options: Options) -> Any:
        """Returns a pytree of sums of one group of images."""
        raise NotImplementedError

    def form(self, layers: int) -> Any:
        """Returns a pytree of arrays or their shapes, of the form of `sums`, for so many layers."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class HsicRatio(OfGrams):
    """A kind of linear CKA: HSIC is summed over groups before the ratio is taken.

    Attributes:
      centred: (linear Gram matrix of a layer, options) -> centred Gram matrix.
      diagonal: whether the diagonal of the centred matrices counts.
    """

    centred: Callable[[gram.Gram, Options], gram.Gram]
    diagonal: bool = False

    def sums(self, grams: Sequence[gram.Gram], options: Options) -> hsic.HsicSums:
        """Returns the HSIC of every pair of layers in one group of images."""
        return hsic.hsic_sums([self.centred(g, options) for g in grams], diagonal=self.diagonal)

    def matrices(self, total: hsic.HsicSums) -> dict[str, Float[np.ndarray, "layers layers"]]:
        """Returns the CKA matrix by the name of the measure."""
        return {self.name: hsic.cka(total)}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class GroupMean(OfDistances):
    """A measure of each group of images whose value is the mean over groups, weighted by images.

    Attributes:
      matrix: (layers, options) -> similarity of every pair of layers in one group of images.
      requires: what it needs of a layer that varies; a layer that lacks it in some group is NaN.
      numbers: (images of a group, options) -> further numbers to sum, for `attributes`, which also
        finds the number of `images` in the sums.
    """

    matrix: Callable[[Layers, Options], Float[Array, "layers layers"]]
    requires: tuple[Requirement, ...] = ()
    numbers: Callable[[int, Options], Mapping[str, float]] = lambda images, options: {}

    def sums(self, layers: Layers, options: Options) -> dict[str, Any]:
        """Returns the matrix of one group times its images, NaN where it is not defined."""
        n, defined, lacking = layers.images, layers.live, []
        for requirement in self.requires:
            met = requirement.met(layers, options)
            lacking.append(np.float64(defined & ~met))
            defined = defined & met
        sums = {"images": np.float64(n), "lacking": lacking}
        sums |= {name: np.float64(x) for name, x in self.numbers(n, options).items()}
        matrices = {"mean": self.matrix(layers, options)}
        if callable(self.chance):
            matrices["chance"] = self.chance(layers, options)
        pairs = defined[:, None] & defined[None, :]
        for name, matrix in matrices.items():
            sums[name] = np.where(pairs, n * np.asarray(matrix, np.float64), np.nan)
        return sums

    def form(self, layers: int) -> dict[str, Any]:
        """Returns a pytree of shapes of the form of `sums`."""
        number, vector, matrix = (
            jax.ShapeDtypeStruct((layers,) * axes, np.float64) for axes in range(3)
        )
        form = {"images": number, "lacking": [vector] * len(self.requires), "mean": matrix}
        form |= {name: number for name in self.numbers(4, {**self.options})}
        return form | ({"chance": matrix} if callable(self.chance) else {})

    def matrices(self, total: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "layers layers"]]:
        """Returns the means over all groups by their names."""
        matrices = {self.name: total["mean"] / total["images"]}
        if "chance" in total:
            matrices[f"{self.name}_chance"] = total["chance"] / total["images"]
        return matrices

    def lacking(
        self, total: Mapping[str, Any]
    ) -> list[tuple[Requirement, Bool[np.ndarray, " layers"]]]:
        """Returns each requirement, and the layers that lack it in some group."""
        return [(r, x > 0) for r, x in zip(self.requires, total["lacking"], strict=True)]


@flax.struct.dataclass
class GroupSums(exact.Unfinished):
    """The sums of one group of images by several measures, finished on the host.

    Attributes:
      of_grams: measure -> the sums that the device computed.
      squared: squared distances of all pairs of images; None if no measure needs them.
      noise: [layers], see `Layers`.
      images: number of images.
      measures: those that the host computes.
      options: from `resolve`, as pairs.
    """

    of_grams: dict[str, Any]
    squared: exact.Double | None
    noise: Any  # JAX also fills pytrees with shapes
    images: int = flax.struct.field(pytree_node=False)
    measures: tuple[OfDistances, ...] = flax.struct.field(pytree_node=False)
    options: tuple[tuple[str, Any], ...] = flax.struct.field(pytree_node=False)

    def to_host(self) -> dict[str, Any]:
        """Returns measure -> its sums."""
        sums, options = exact.to_host(self.of_grams), dict(self.options)
        if self.measures:
            noise = np.asarray(self.noise, np.float64)
            layers = Layers(self.squared.to_host(), noise, self.images)
            # On matrices as small as a group the threads of BLAS cost more than they bring: the
            # eigendecomposition of 250 x 250 takes ten times as long with two of them.
            with threadpoolctl.threadpool_limits(1, "blas"):
                sums |= {measure.name: measure.sums(layers, options) for measure in self.measures}
        return sums

    @property
    def form(self) -> dict[str, Any]:
        """A pytree of arrays or their shapes, of the form of what `to_host` returns."""
        (layers,) = self.noise.shape
        own = {measure.name: measure.form(layers) for measure in self.measures}
        return exact.host_shapes(self.of_grams) | own


def default_options(measures: Collection[Measure]) -> dict[str, Any]:
    """Returns the options of some measures with their defaults."""
    return {option: value for m in measures for option, value in m.options.items()}


def resolve(
    measures: Collection[Measure], options: Options, images: int, sizes: Mapping[str, int]
) -> dict[str, Any]:
    """Returns the options to measure with: defaults filled in and everything checked.

    Args:
      measures: the measures.
      options: those that differ from the defaults.
      images: images of a group.
      sizes: number of features of each layer, by the name that messages call it.

    Raises:
      ValueError: an option does not fit the group or the layers.
    """
    options = {**default_options(measures), **options}
    for measure in measures:
        options = measure.check(options, images, sizes)
    return dict(options)


def need_distances(measures: Collection[Measure]) -> bool:
    """Returns whether some of the measures are functions of the distances of images."""
    return any(isinstance(measure, OfDistances) for measure in measures)


def group_sums(
    grams: Sequence[gram.Gram],
    squared: Sequence[exact.Double] | None,
    measures: Collection[Measure],
    options: Options,
) -> dict[str, Any]:
    """Returns the sums of one group of images that give every measure of every pair of layers.

    Args:
      grams: of the layers, from `gram.linear`.
      squared: of the layers, from `distances.squared`; None unless `need_distances(measures)`.
      measures: the measures.
      options: from `resolve`.
    """
    of_grams = {m.name: m.sums(grams, options) for m in measures if isinstance(m, OfGrams)}
    sums = GroupSums(
        of_grams,
        None if squared is None else distances.stacked(squared),
        gram.noise(grams),
        grams[0].matrix.shape[0],
        tuple(m for m in measures if isinstance(m, OfDistances)),
        tuple(options.items()),
    )
    return {
        "measures": sums,
        "infinite": 1.0 - jnp.stack([jnp.isfinite(g.energy) for g in grams]),
    }


def matrices(
    total: Mapping[str, Any], measures: Collection[Measure], names: Names
) -> dict[str, Float[np.ndarray, "layers layers"]]:
    """Returns the matrix of each measure and its chance by name, measures in their order.

    Dead layers are NaN; warnings name them.

    Args:
      total: `group_sums` over all groups, on the host in float64.
      measures: the measures.
      names: names of the layers, for the warnings.
    """
    by_name: dict[str, Any] = {}
    infinite = total["infinite"] > 0
    warnings: dict[tuple, list[str]] = {}  # (why, *which layers) -> measures
    for measure in measures:
        sums = total["measures"][measure.name]
        by_name |= measure.matrices(sums)
        dead = np.isnan(np.diagonal(by_name[measure.name])) & ~infinite
        reasons = [("have NaN or infinite activations", infinite)]
        for requirement, lacking in measure.lacking(sums):
            reasons.append((requirement.otherwise, lacking & dead))
            dead = dead & ~lacking
        reasons.append(("do not vary over the images beyond rounding noise", dead))
        for why, which in reasons:
            warnings.setdefault((why, *which.tolist()), []).append(measure.name)
    for (why, *which), concerned in warnings.items():
        warn_undefined(why, names, np.array(which), concerned)
    return by_name


def variables(
    matrices: Mapping[str, Float[np.ndarray, "x y"]],
    measures: Collection[Measure],
    suffix: str = "",
) -> dict[str, tuple]:
    """Returns the matrices as variables of a Dataset [layer_x, layer_y].

    Args:
      matrices: from the function `matrices`, or parts of them.
      measures: the measures.
      suffix: what to add to their long names.
    """
    by_name = {measure.name: measure for measure in measures}
    variables = {}
    for name, matrix in matrices.items():
        measure = by_name[name.removesuffix("_chance")]
        long_name = measure.long_name + " of independent layers" * name.endswith("_chance")
        attrs = {"long_name": long_name + suffix, "units": "1"}
        attrs |= {} if measure.larger_is_more_alike else LESS_ALIKE
        variables[name] = (("layer_x", "layer_y"), matrix, attrs)
    return variables


def attributes(
    total: Mapping[str, Any], measures: Collection[Measure], options: Options
) -> dict[str, float]:
    """Returns the attributes of a Dataset that the measures give it.

    Args:
      total: `group_sums` over all groups, on the host in float64.
      measures: the measures.
      options: as in the config.
    """
    return {
        name: float(value)
        for measure in measures
        for name, value in measure.attributes(total["measures"][measure.name], options).items()
    }


def measured(dataset: Mapping[str, Any]) -> list[str]:
    """Returns the names of the measures whose maps [layer_x, layer_y] a Dataset has, in its order.

    Args:
      dataset: an xarray Dataset of the analysis `similarity` or of `vitcnn.compare`.
    """
    return [
        name
        for name, variable in dataset.items()
        if variable.dims == ("layer_x", "layer_y")
        and not name.endswith(("_chance", "_standard_error"))
    ]
