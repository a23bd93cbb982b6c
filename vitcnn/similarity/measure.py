"""What a measure of similarity is, and how its values add up over groups of images.

`group_sums` measures one group of images on the device, from the linear Gram matrices of the
layers; `matrices` works the matrices out on the host, from the sums over all groups.
`vitcnn.compare` does so for arrays, the analysis `similarity` for models. The measures themselves
are in the folder `measures`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from vitcnn.numerics.arrays import Array, Names
from vitcnn.similarity import gram, hsic
from vitcnn.similarity.maps import warn_undefined

Options = Mapping[str, Any]  # option of a measure -> its value
LESS_ALIKE = {"larger_is": "less alike"}  # attribute of the variables of a distance


class Layers:
    """All layers on one group of images, and what several measures need of them, computed once.

    Attributes:
      grams: Gram matrix of each layer, from `gram.linear`.
    """

    def __init__(self, grams: Sequence[gram.Gram]):
        self.grams = tuple(grams)

    @property
    def images(self) -> int:
        """Number of images of the group."""
        return self.grams[0].matrix.shape[0]

    @property
    def gram_matrices(self) -> Float[Array, "layers n n"]:
        """Gram matrices, not centred; of layers that do not vary see `gram.stacked`."""
        return self._stacked[0]

    @property
    def live(self) -> Bool[Array, " layers"]:
        """Whether each layer varies over the images by more than rounding noise."""
        return self._stacked[1]

    @functools.cached_property
    def spectra(self) -> gram.Spectra:
        """Spectra of the centred Gram matrices."""
        return gram.spectra(self.gram_matrices)

    @functools.cached_property
    def distances(self) -> Float[Array, "layers pairs"]:
        """Euclidean distances of all pairs of images."""
        return gram.distances(self.gram_matrices)

    @functools.cached_property
    def _stacked(self):
        return gram.stacked(self.grams)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Measure:
    """A measure of similarity of layers. Use `HsicRatio` or `GroupMean`, or another subclass.

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

    def sums(self, layers: Layers, options: Options) -> Any:
        """Returns a pytree of sums of one group of images, on the device."""
        raise NotImplementedError

    def matrices(self, total: Any) -> dict[str, Float[np.ndarray, "layers layers"]]:
        """Returns `name`, and `<name>_chance` if it has one, -> matrix, NaN for dead layers.

        Args:
          total: `sums` over all groups, on the host in float64.
        """
        raise NotImplementedError

    def lacking(self, total: Any) -> tuple[Bool[np.ndarray, " layers"] | np.bool_ | bool, str]:
        """Returns the layers that vary, but not as this measure requires, and what they lack."""
        return np.bool_(False), ""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class HsicRatio(Measure):
    """A kind of CKA: HSIC is summed over groups before the ratio is taken.

    Attributes:
      centred: (linear Gram matrix of a layer, options) -> centred Gram matrix of the kernel.
    """

    centred: Callable[[gram.Gram, Options], gram.Gram]

    def sums(self, layers: Layers, options: Options) -> hsic.HsicSums:
        """Returns the HSIC of every pair of layers in one group of images."""
        return hsic.hsic_sums([self.centred(g, options) for g in layers.grams])

    def matrices(self, total: hsic.HsicSums) -> dict[str, Float[np.ndarray, "layers layers"]]:
        """Returns the CKA matrix by the name of the measure."""
        return {self.name: hsic.cka(total)}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class GroupMean(Measure):
    """A measure of each group of images whose value is the mean over groups, weighted by images.

    Attributes:
      matrix: (layers, options) -> similarity of every pair of layers in one group of images.
      defined: (layers, options) -> which of the layers that vary it can measure; all by default.
      undefined: predicate of the others for a warning, such as "vary in too few directions".
      numbers: (images of a group, options) -> further numbers to sum, for `attributes`, which also
        finds the number of `images` in the sums.
    """

    matrix: Callable[[Layers, Options], Float[Array, "layers layers"]]
    defined: Callable[[Layers, Options], Bool[Array, " layers"]] | None = None
    undefined: str = ""
    numbers: Callable[[int, Options], Mapping[str, float]] = lambda images, options: {}

    def sums(self, layers: Layers, options: Options) -> dict[str, Any]:
        """Returns the matrix of one group times its images, NaN for dead layers."""
        n, known = layers.images, layers.live
        sums = {"images": jnp.float32(n)}
        sums |= {name: jnp.float32(x) for name, x in self.numbers(n, options).items()}
        if self.defined is not None:
            known = layers.live & self.defined(layers, options)
            sums["lacking"] = (layers.live & ~known).astype(jnp.float32)
        matrices = {"mean": self.matrix(layers, options)}
        if callable(self.chance):
            matrices["chance"] = self.chance(layers, options)
        pairs = known[:, None] & known[None, :]
        return sums | {k: n * jnp.where(pairs, matrix, jnp.nan) for k, matrix in matrices.items()}

    def matrices(self, total: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "layers layers"]]:
        """Returns the means over all groups by their names."""
        matrices = {self.name: total["mean"] / total["images"]}
        if "chance" in total:
            matrices[f"{self.name}_chance"] = total["chance"] / total["images"]
        return matrices

    def lacking(
        self, total: Mapping[str, Any]
    ) -> tuple[Bool[np.ndarray, " layers"] | np.bool_ | bool, str]:
        """Returns the layers that `defined` excludes in some group, and `undefined`."""
        return total.get("lacking", np.zeros(len(total["mean"]))) > 0, self.undefined


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


def group_sums(
    grams: Sequence[gram.Gram], measures: Collection[Measure], options: Options
) -> dict[str, Any]:
    """Returns the sums of one group of images that give every measure of every pair of layers.

    Args:
      grams: of the layers, from `gram.linear`.
      measures: the measures.
      options: from `resolve`.
    """
    layers = Layers(grams)
    return {
        "measures": {measure.name: measure.sums(layers, options) for measure in measures},
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
        lacking, what_they_do = measure.lacking(sums)
        lacking = lacking & dead
        for why, which in (
            ("do not vary over the images beyond rounding noise", dead & ~lacking),
            (what_they_do, lacking),
            ("have NaN or infinite activations", infinite),
        ):
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
