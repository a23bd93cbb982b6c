"""Similarity of every layer with every layer by measures other than CKA, in the same pass.

The paper compares layers by CKA alone. Here the same layers are compared by Procrustes, by RSA, by
mutual nearest neighbours and, if the config names them, by canonical correlations. That separates a
property of the networks from a property of one measure; `vitcnn.similarity.rsa.rank_correlation`
says how far two maps agree. The config can name any measure of
`vitcnn.similarity.measures.MEASURES`.

CKA ("cka", "cka_biased", "cka_rbf") is computed from HSIC summed over groups. Every other measure
is computed in each group of images and averaged over groups, so it depends on their size (`group`
in the provenance): neighbours are neighbours within a group, and Procrustes and CCA of independent
layers grow with the number of directions over the number of images.

Cost, for L layers and groups of n images: "procrustes" takes the singular values of L^2 / 2
matrices of n x n for each group, which cannot be avoided and soon is nearly all of the time (200
layers, n = 128: 20,000 matrices of a millisecond or more each). Hence the default number of images
is lower than for CKA, 16 groups of 128; the same images in larger groups cost more, as n^2. The
rest is one eigendecomposition a layer (Procrustes, CCA), one sort of n^2 / 2 distances a layer
(rsa_spearman), and matrix products.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array, Float

from vitcnn import tap_layout
from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.lookup import check_name
from vitcnn.results.datasets import coordinates
from vitcnn.similarity import gram, measures
from vitcnn.taps import TapInfo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = tap_layout.PAPER_LAYERS
TRAITS = Traits(
    images=2048,  # the singular values that Procrustes takes are expensive: see above
    least_group=16,  # in a smaller group ten nearest neighbours would be nearly all images
)
POOLS = ("none", "mean")
TITLES = {
    "cka": "CKA",
    "cka_biased": "biased CKA",
    "cka_rbf": "RBF CKA",
    "procrustes": "Procrustes",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
    "cca": "mean squared CCA",
    "rsa_pearson": "RSA, Pearson",
    "rsa_spearman": "RSA, Spearman",
    "neighbours": "nearest neighbours",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      measures: names out of `vitcnn.similarity`: cka, cka_biased, cka_rbf, procrustes, svcca,
        pwcca, cca, rsa_pearson, rsa_spearman, neighbours.
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
    asked = [name for name in chosen if name in measures.CCA]
    wide = [name for name, x in layers.items() if np.prod(x.shape[1:-1], dtype=int) > 1]
    if asked and wide:
        raise ValueError(
            f"{', '.join(asked)} compare one vector an image, but {', '.join(wide[:3])} "
            f'{"have" if len(wide) > 1 else "has"} one at each position; set pool = "mean", or '
            'tokens = "class" with taps that have a class token, or leave out '
            f"{', '.join(asked)} of measures"
        )
    sizes = {name: int(np.prod(x.shape[1:])) for name, x in layers.items()}
    options = measures.Options(config.neighbours, config.components, config.bandwidth)
    options = measures.check(chosen, options, len(group.label), sizes)
    if config.pool == "none":
        grams = [
            view.gram(tap, config.tokens) for view in group.models.values() for tap in view.taps
        ]
    else:
        grams = [gram.linear(x) for x in layers.values()]
    return measures.group_sums(grams, chosen, options)


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
      <measure>: see `vitcnn.similarity.measures.MEASURES`. All measures are symmetric except pwcca,
        which is weighted by layer x.
      <measure>_chance: value of svcca, pwcca and cca for independent layers. For svcca and pwcca it
        is measured with the images of layer y permuted; for cca it is exactly k / (n - 1).
    Attributes: `neighbours_chance`, the share k / (n - 1) of independent layers; `components`, if
    the config names a CCA. With groups of several sizes, both are means over images.
    """
    coords = coordinates(config.layers)
    found = measures.variables(measures.matrices(sums, coords["layer_x"]))
    of_what = tap_layout.TOKENS[config.tokens] + ", mean over positions" * (config.pool == "mean")
    for _, _, attrs in found.values():
        attrs["long_name"] += of_what
    attrs = {}
    if "neighbours" in found:
        attrs["neighbours_chance"] = float(
            config.neighbours * sums["inverse_size"] / sums["images"]
        )
    if set(found) & set(measures.CCA):
        attrs["components"] = float(sums["components"] / sums["images"])
    return xarray.Dataset(found, coords, attrs)


@figure(
    "Layers by other measures",
    "The same layers compared by measures other than CKA, each with its own colour scale where "
    "it says so. Where CKA of these layers was measured too, a table says how far the measures "
    "agree.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws the heatmaps of every model and pair of models, measure next to measure."""
    from vitcnn import figures

    known = [name for name in TITLES if all(name in result for result in results)]
    if not known:
        raise ValueError("the Results have no measure in common, so there is nothing to draw")
    return figures.heatmaps(results, {name: TITLES[name] for name in known})


def _measures(config: Config) -> tuple[str, ...]:
    """Returns the measures that the config names.

    Raises:
      ValueError: a measure is unknown, or there is none.
    """
    chosen = config.measures
    chosen = (chosen,) if isinstance(chosen, str) else tuple(dict.fromkeys(chosen))
    if not chosen:
        raise ValueError(f"measures is empty: name at least one of {', '.join(measures.MEASURES)}")
    for name in chosen:
        check_name("measure in measures", name, measures.MEASURES)
    return chosen
