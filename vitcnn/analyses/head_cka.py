"""Head CKA: do local and global heads compute different features? (paper: Fig. 5).

Heads of the first block of a ViT are sorted from the most local to the most global by their mean
attention distance. CKA of subsets of these heads with the low layers of other networks is then
compared with the mean distance of the subset. The paper does not say how large a subset is, whether
subsets overlap, which tensor of a head it takes, or whether that tensor has the class token in it.
Here a subset has `subset` heads that follow each other in the order (`mode` "sliding"), or the k
most local heads, k = 1 to all ("nested"). The tensor is the output of each head before the output
projection, the only tensor that belongs to a single head, with the tokens of the setting `tokens`.

Linear HSIC is bilinear, and the Gram matrix of several heads side by side is the sum of the Gram
matrices of the heads, so

    HSIC(S, L) = sum_h HSIC(h, L),   HSIC(S, S) = sum_hh' HSIC(h, h').

The HSIC of all single heads and layers, one matrix product for each group, therefore gives every
subset in every order. This is needed because the order is not known before the last image. Where a
block of images is left out for the standard errors, heads are sorted, and subsets formed, by the
images that are left: the errors are those of "the i-th subset from local to global", whichever
heads it has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Bool, Float

from vitcnn import tap_layout
from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.lookup import check_name
from vitcnn.numerics import statistics
from vitcnn.numerics.statistics import Z
from vitcnn.results.datasets import variable
from vitcnn.similarity import hsic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = (
    "block00/heads",
    "block00/attn_weights",
    "stage1/block00/heads",
    "stage1/block00/attn_weights",
    "stage1/unit*/out",
    "stage2/unit01/out",
    "stage2/unit02/out",
)
TRAITS = Traits(
    images=10_240,  # as CKA
    least_group=hsic.MIN_GROUP,
)
MODES = ("sliding", "nested")
ROLES = ("heads", "attention_weights")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      tokens: "all", "class" or "spatial": tokens of the heads, and of layers that have a
        class token.
      mode: "sliding" for windows of `subset` heads over the sorted heads; "nested" for the k
        most local heads.
      subset: number of heads of a sliding window.
    """

    tokens: str = "spatial"
    mode: str = "sliding"
    subset: int = 4


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns HSIC sums of all heads, then all layers, and the summed distances of the heads.

    Raises:
      ValueError: a setting is out of its range, or the taps are not the heads and the attention
        weights of one block and some layers.
    """
    check_name("mode", config.mode, MODES)
    tap_layout.check_tokens(config.tokens, config.infos)
    heads, weights, layers = _parts(config)
    count = config.infos[heads].heads
    if config.mode == "sliding" and not 1 <= config.subset <= count:
        raise ValueError(
            f"subset = {config.subset}, but {'/'.join(config.layers[heads])} has {count} heads; "
            f"set config.analyses.<name>.subset to 1 to {count}"
        )

    def at(i):
        model, tap = config.layers[i]
        return group.models[model], tap

    view, tap = at(heads)
    features = config.infos[heads].tokens(view.taps[tap], config.tokens)
    stacked = jax.vmap(hsic.gram, in_axes=2)(features)
    grams = [jax.tree.map(lambda leaf, h=h: leaf[h], stacked) for h in range(count)]
    for i in layers:
        view, tap = at(i)
        grams.append(view.u_centred_gram(tap, config.tokens))
    view, tap = at(weights)
    info, image = config.infos[weights], view.image
    distances = tap_layout.attention_distances(info, image.shape[1:3])
    distance = jnp.asarray(distances, jnp.float32)
    patches = tap_layout.attention(view.taps[tap], info)[..., info.prefix_tokens :]
    patches = patches.astype(jnp.float32)
    return {
        "hsic": hsic.hsic_sums(grams),
        "images": jnp.float32(len(image)),
        "distance": jnp.einsum("nhqk,qk->nhq", patches, distance).mean(-1).sum(0),
    }


def _parts(config: Config) -> tuple[int, int, list[int]]:
    """Returns the indices in `config.layers` of the heads, their attention weights and the layers.

    Raises:
      ValueError: there is not exactly one tap of heads and of attention weights, or no layer.
    """
    at = {role: [i for i, info in enumerate(config.infos) if info.role == role] for role in ROLES}
    models = list(dict.fromkeys(model for model, _ in config.layers))
    owners = list(dict.fromkeys(config.layers[i][0] for i in at["heads"]))
    if len(owners) != 1:
        raise ValueError(
            "the heads of exactly one model are compared with layers of other models, but of the "
            f"models {', '.join(models)} these have taps of heads: {', '.join(owners) or 'none'}; "
            "name one model with attention heads, and the other models, in "
            "config.analyses.<name>.models"
        )
    chosen = [config.layers[i] for role in ROLES for i in at[role]]
    if [len(at[role]) for role in ROLES] != [1, 1] or chosen[0][0] != chosen[1][0]:
        listed = ", ".join("/".join(layer) for layer in chosen)
        raise ValueError(
            f"the heads and the attention weights of one block are needed, but the taps are "
            f"{listed}; set config.analyses.<name>.taps, such as block00/heads and "
            "block00/attn_weights"
        )
    layers = [i for i, info in enumerate(config.infos) if info.role not in ROLES]
    if not layers:
        raise ValueError(
            f"there is no layer to compare the heads of {owners[0]} with; name another model in "
            "config.analyses.<name>.models, or its layers in config.analyses.<name>.taps"
        )
    return at["heads"][0], at["attention_weights"][0], layers


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns CKA of subsets of heads with layers, and the distance at which these heads look.

    Subsets are in order from the most local to the most global; layers are "<model>/<tap>".

    Variables:
      distance [subset]: mean attention distance of the heads of a subset, px, attention weights
        without prefix tokens as they are (see `attention_distance`).
      cka [subset, layer]: unbiased linear CKA of a layer with the heads of a subset side by side.
      heads [subset, head]: 1 where a head is in a subset.
      spearman [layer]: rank correlation of distance and CKA over subsets, NaN with fewer than 3.
      spearman_z [layer]: Fisher's z of the rank correlation, always finite; `spearman_interval`
        makes an interval of it.
      head_distance [head], head_cka [head, layer]: distance and CKA of single heads.
    """
    heads, _, members = _parts(config)
    count = config.infos[heads].heads
    layers = ["/".join(config.layers[i]) for i in members]
    head_distance = sums["distance"] / sums["images"]
    order = np.argsort(head_distance, kind="stable")
    subsets = subsets_of(order, config.mode, config.subset)
    names = [f"heads {', '.join(map(str, np.flatnonzero(row)))}" for row in subsets]
    matrix = hsic.cka(
        _joined(sums["hsic"], subsets), [*(f"head {h}" for h in range(count)), *names, *layers]
    )
    distance = subsets @ head_distance / subsets.sum(1)
    of_layers = slice(count + len(subsets), None)
    head_cka, cka = matrix[:count, of_layers], matrix[count : count + len(subsets), of_layers]
    rho = np.array([finite_spearman(distance, column) for column in cka.T])
    z = statistics.fisher_z(rho, len(subsets))
    membership = subsets.astype(np.int8)
    return xarray.Dataset(
        {
            "distance": variable("subset", distance, "mean attention distance of the heads", "px"),
            "cka": variable(("subset", "layer"), cka, "unbiased linear CKA"),
            "heads": variable(("subset", "head"), membership, "head is in the subset"),
            "spearman": variable("layer", rho, "rank correlation of distance and CKA"),
            "spearman_z": variable("layer", z, "Fisher's z of the rank correlation"),
            "head_distance": variable("head", head_distance, "mean attention distance", "px"),
            "head_cka": variable(("head", "layer"), head_cka, "unbiased linear CKA of one head"),
        },
        coords={"layer": layers, "head": np.arange(count)},
        attrs={"heads_of": "/".join(config.layers[heads])},
    )


def subsets_of(
    order: Sequence[int] | np.ndarray, mode: str, size: int
) -> Bool[np.ndarray, "subsets heads"]:
    """Returns which heads are in each subset, from the most local subset to the most global.

    Args:
      order: indices of the heads, the most local first.
      mode: "sliding", windows of `size` heads; or "nested", the first k heads, k = 1 to all.
      size: number of heads in a window.
    """
    count = len(order)
    if mode == "nested":
        windows = [(0, k) for k in range(1, count + 1)]
    else:
        windows = [(k, k + size) for k in range(count - size + 1)]
    subsets = np.zeros((len(windows), count), bool)
    for row, (start, stop) in zip(subsets, windows, strict=True):
        row[order[start:stop]] = True
    return subsets


def _joined(total: hsic.HsicSums, subsets: Bool[np.ndarray, "subsets heads"]) -> hsic.HsicSums:
    """Returns the sums of all heads, then all subsets, then all layers."""
    count, kept = subsets.shape[1], np.eye(len(total.energy))
    join = np.concatenate(
        [kept[:count], np.pad(subsets, ((0, 0), (0, len(kept) - count))), kept[count:]]
    )
    return total.replace(
        hsic=join @ total.hsic @ join.T, energy=join @ total.energy, square=join @ total.square
    )


def finite_spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Returns the rank correlation of the finite pairs, NaN if there are fewer than three."""
    finite = np.isfinite(x) & np.isfinite(y)
    return statistics.spearman(x[finite], y[finite]) if finite.sum() > 2 else float("nan")


def spearman_interval(result: xarray.Dataset) -> Float[np.ndarray, "2 layer"]:
    """Returns the ends of the 95% interval of `spearman`, tanh(z +- 1.96 standard errors of z).

    On the scale of z the distribution of a correlation near -1 or 1 is less skewed, and the ends
    of the interval stay between -1 and 1. The interval is over images, not over subsets, which
    overlap.
    """
    z, error = result.spearman_z.values, result.spearman_z_standard_error.values
    return np.tanh([z - Z * error, z + Z * error])


@figure(
    "Local and global heads",
    "CKA of sets of heads of the first block with low layers of the other model, against "
    "their mean attention distance (paper: Fig. 5).",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws, for each Result, CKA of the subsets against their distance, one curve a layer."""
    from vitcnn import figures

    panels = []
    for result in results:
        models = {str(layer).split("/")[0] for layer in result.layer.values}
        panels.append({})
        for layer in result.layer.values:
            rows = result.sel(layer=layer)
            name = str(layer).split("/", 1)[1] if len(models) == 1 else str(layer)
            panels[-1][name] = (rows.distance, rows.cka, rows.cka_standard_error)
    title = "mean attention distance of the heads (px)"
    return figures.curves(results, panels, title, "CKA of the heads with the layer")
