"""Similarity of every layer with every layer by measures other than CKA, in the same pass.

The paper compares layers by CKA alone. This analysis compares the same layers by Procrustes, by
RSA, by mutual nearest neighbours and, if the config names them, by canonical correlations. A
finding can thus be told from a property of one measure; `vitcnn.similarity.maps.rank_correlation`
says how far two maps agree. The config field `measures` takes any measure of
`vitcnn.similarity.measures`.

The kinds of CKA ("cka", "cka_biased", "cka_rbf") sum HSIC over groups. Every other measure is
computed in each group of images and averaged over groups, and thus depends on their size (`group`
in the provenance): neighbours are those within a group, and Procrustes and CCA of independent
layers grow with the number of directions over the number of images.

All but the linear kinds of CKA are functions of the distances of images, which the device measures
in float64 and the host turns into similarities, group by group (`vitcnn.similarity.distances`).

Cost, for L layers and groups of n images: "procrustes" takes the singular values of L^2 / 2
matrices of n x n for each group, which cannot be avoided and soon is nearly all of the time (200
layers, n = 128: 20,000 matrices, about a millisecond each). Hence the analysis takes fewer images
than CKA by default, 16 groups of 128; the same images in larger groups cost more, as n^2. The
distances of a layer take 1 to 4 times as long as its Gram matrix for linear CKA on a CPU, and some
30 times as long if the images lie in tight groups; a GPU with few float64 units takes longer. The
rest is one eigendecomposition a layer (Procrustes, CCA), one sort of n^2 / 2 distances a layer
(rsa_spearman), and matrix products. Each layer sends 4 n^2 bytes to the host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Float

from vitcnn import tap_layout
from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.lookup import check_name
from vitcnn.numerics.arrays import Array
from vitcnn.results.datasets import coordinates
from vitcnn.similarity import distances, gram, measures
from vitcnn.similarity import measure as measuring
from vitcnn.taps import TapInfo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = tap_layout.PAPER_LAYERS
TRAITS = Traits(
    images=2048,  # the singular values of Procrustes take long: see above
    least_group=16,  # in smaller groups nearly all images are among the ten nearest
)
POOLS = ("none", "mean")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      measures: names out of `vitcnn.similarity`: cka, cka_biased, cka_rbf, procrustes, svcca,
        pwcca, cca, rsa_pearson, rsa_spearman, neighbours, cknna.
      tokens: "all"; or "class" or "spatial", of taps with a class token.
      pool: "none" for whole features; "mean" for their mean over positions, since CCA needs
        vectors.
      neighbours: number of nearest neighbours.
      components: principal components before CCA; 0 takes one for every 20 images of a group.
      bandwidth: width of the RBF kernel of cka_rbf, in median distances.
    """

    measures: tuple[str, ...] = ("procrustes", "rsa_spearman", "neighbours")
    tokens: str = "all"
    pool: str = "none"
    neighbours: int = 10
    components: int = 0
    bandwidth: float = 1.0


def measure(group: Group, config: Config, given: Mapping) -> Any:
    """Returns the sums of every measure of one group of images, for all layers of all models.

    Raises:
      ValueError: a setting is out of its range, or a measure does not fit the layers or the group.
    """
    chosen = _measures(config)
    tap_layout.check_tokens(config.tokens, config.infos)
    check_name("pool", config.pool, POOLS)
    layers = {}
    for model, view in group.models.items():
        for tap, x in view.taps.items():
            x = view.info[tap].tokens(x, config.tokens)
            layers[f"{model}/{tap}"] = x if config.pool == "none" else pool(x, view.info[tap])
    of_vectors = ", ".join(measure.name for measure in chosen if measure.vectors_only)
    wide = [name for name, x in layers.items() if np.prod(x.shape[1:-1], dtype=int) > 1]
    if of_vectors and wide:
        raise ValueError(
            f"{of_vectors} compare one vector an image, but {', '.join(wide[:3])} "
            f'{"have" if len(wide) > 1 else "has"} one at each position; set pool = "mean", or '
            'tokens = "class" with taps that have a class token, or take '
            f"{of_vectors} out of measures"
        )
    sizes = {name: int(np.prod(x.shape[1:])) for name, x in layers.items()}
    options = measuring.resolve(chosen, _options(config, chosen), len(group.label), sizes)
    squared = None
    if config.pool == "none":
        taps = [(view, tap, config.tokens) for view in group.models.values() for tap in view.taps]
        grams = [view.gram(*which) for view, *which in taps]
        if measuring.need_distances(chosen):
            squared = [view.squared_distances(*which) for view, *which in taps]
    else:
        grams = [gram.linear(x) for x in layers.values()]
        if measuring.need_distances(chosen):
            squared = [
                distances.squared(*each) for each in zip(layers.values(), grams, strict=True)
            ]
    return measuring.group_sums(grams, squared, chosen, options)


def pool(x: Float[Array, "n ..."], info: TapInfo) -> Float[Array, "n ..."]:
    """Returns the mean of a tap over its positions (the queries of attention weights).

    Args:
      x: the tap, or the tokens of it that `TapInfo.tokens` returned.
      info: description of the tap. A tap without a grid is returned as it is.
    """
    if info.grid is None:
        return x
    axes = {"attention": (x.ndim - 2,), "map": (1, 2), "tokens": (1,)}[info.layout]
    return jnp.mean(x.astype(jnp.float32), axes)


def finalize(sums: Any, config: Config) -> xarray.Dataset:
    """Returns the similarity of every layer with every layer, by every measure of the config.

    Layers of all models are stacked: layer_x = layer_y = "<model>/<tap>", from input to output, as
    in the analysis `cka`.

    Variables, each [layer_x, layer_y], NaN for layers that do not vary (for CCA also for layers
    that vary in fewer directions than `components`), which a warning names:
      <measure>: see `vitcnn.similarity.measures`. All are symmetric but pwcca, which is weighted by
        layer x.
      <measure>_chance: of svcca, pwcca and cca, their value for independent layers. For svcca and
        pwcca the images of layer y are permuted; for cca it is k / (n - 1), exactly.
    Attributes: `neighbours_chance`, the share k / (n - 1) of independent layers, and `components`
    of CCA, if these measures are in the config. With groups of several sizes, both are means over
    images.
    """
    chosen, coords = _measures(config), coordinates(config.layers)
    matrices = measuring.matrices(sums, chosen, coords["layer_x"])
    of_what = tap_layout.TOKENS[config.tokens] + ", mean over positions" * (config.pool == "mean")
    attrs = measuring.attributes(sums, chosen, _options(config, chosen))
    return xarray.Dataset(measuring.variables(matrices, chosen, of_what), coords, attrs)


@figure(
    "Layers by other measures",
    "The same layers compared by measures other than CKA, each with its own colour scale where "
    "it says so. Where CKA of these layers was measured too, a table says how far the measures "
    "agree.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws the heatmaps of every model and pair of models, measure next to measure."""
    from vitcnn import figures

    common = [
        name for name in measuring.measured(results[0]) if all(name in result for result in results)
    ]
    if not common:
        raise ValueError("the Results have no measure in common: there is nothing to draw")
    titles = {measure.name: measure.title for measure in measures.registered().values()}
    return figures.heatmaps(results, {name: titles.get(name, name) for name in common})


def _measures(config: Config) -> list[measuring.Measure]:
    """Returns the measures of the config; raises ValueError for none, or an unknown one."""
    names = config.measures
    names = (names,) if isinstance(names, str) else dict.fromkeys(names)
    if not names:
        choices = ", ".join(measures.registered())
        raise ValueError(f"measures is empty: name at least one of {choices}")
    return [measures.find(name) for name in names]


def _options(config: Config, chosen: Sequence[measuring.Measure]) -> dict[str, Any]:
    """Returns the options of the measures as the config has them."""
    defaults = measuring.default_options(chosen)
    return {
        option: getattr(config.settings, option, default) for option, default in defaults.items()
    }
