"""Attention distance: how far each head looks, in pixels (paper: Figs 3, 4, C.5, C.6).

The distance between a query patch and a key patch is the distance between their centres. It is
weighted by the attention of the query to the key, summed over keys, and averaged over queries and
images (Dosovitskiy et al. 2021, Fig. 11). The class token, and any other prefix token, is left out
both as query and as key. The paper does not say whether the remaining weights are made to sum to
one: `distance` takes the weights as they are, `distance_renormalised` divides them by their sum. A
head that attends uniformly to 7 x 7 patches of 32 px, 14 x 14 patches of 16 px or 16 x 16 patches
of 14 px has a distance of 115.5, 116.5 or 116.6 px.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Float

from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.results.datasets import variable
from vitcnn.tap_layout import attention, attention_distances, patch_distances

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = ("*block*/attn_weights",)
TRAITS = Traits(
    one_model=True,
    images=5000,  # as the paper
)
# A head is local below, or global above, this distance, in units of uniform attention.
LOCAL, GLOBAL = 0.5, 0.7


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns for every head the sums over images of its distances, entropy and prefix mass."""
    (view,) = group.models.values()
    n, image = len(view.image), view.image.shape[1:3]
    sums = {"images": jnp.float32(n)}
    for name, weights in view.taps.items():
        info = view.info[name]
        uniform = patch_distances(info.grid, image).mean()
        distance = jnp.asarray(attention_distances(info, image), jnp.float32)
        weights = attention(weights, info).astype(jnp.float32)
        patches = weights[..., info.prefix_tokens :]
        total = jnp.einsum("nhqk,qk->nhq", patches, distance)
        mass = jnp.sum(patches, axis=-1)
        entropy = -jnp.sum(jnp.where(weights > 0, weights * jnp.log(weights), 0), axis=-1)
        per_query = {
            "distance": total,
            "distance_renormalised": total / mass,
            "prefix_mass": jnp.sum(weights[..., : info.prefix_tokens], axis=-1),
            "entropy": entropy,
        }
        sums[name] = {key: value.mean(-1).sum(0) for key, value in per_query.items()}
        sums[name]["uniform"] = jnp.float32(n * uniform)
    return sums


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns the means over images for every head of every layer.

    Variables, each [layer, head], NaN for the heads that a layer does not have:
      distance: mean attention distance, px; attention weights without prefix tokens as they are.
      distance_renormalised: the same with the weights divided by their sum over patches, px.
      prefix_mass: attention of patches to prefix tokens (the class token).
      entropy: entropy of the attention of patches to all tokens, nat.
    And a number:
      local_and_global: see the function of this name.
    Attribute `uniform`: distance of a head that attends to all patches alike, px; an array with one
    distance for each layer if the layers have different grids.
    """
    layers, images = [tap for _, tap in config.layers], sums["images"]
    heads = max(info.heads for info in config.infos)

    def mean(key, long_name, units):
        values = np.stack([_padded(sums[layer][key], heads) for layer in layers]) / images
        return variable(("layer", "head"), values, long_name, units)

    uniform = np.array([float(sums[layer]["uniform"] / images) for layer in layers])
    margin = local_and_global(
        [
            sums[layer]["distance"] / images / level
            for layer, level in zip(layers, uniform, strict=True)
        ]
    )
    renormalised = "mean attention distance, weights renormalised"
    has_one_level = len(set(uniform)) == 1
    return xarray.Dataset(
        {
            "distance": mean("distance", "mean attention distance", "px"),
            "distance_renormalised": mean("distance_renormalised", renormalised, "px"),
            "prefix_mass": mean("prefix_mass", "attention mass on prefix tokens", "1"),
            "entropy": mean("entropy", "attention entropy", "nat"),
            "local_and_global": variable(
                (), margin, "local and global heads below, only global ones on top"
            ),
        },
        {"layer": layers, "head": np.arange(heads)},
        {"uniform": uniform[0] if has_one_level else uniform},
    )


def _padded(values: Float[np.ndarray, " heads"], heads: int) -> Float[np.ndarray, " padded"]:
    """Returns the values of the heads of a layer, with NaN for the heads that it does not have."""
    return np.pad(values, (0, heads - len(values)), constant_values=np.nan)


def local_and_global(distance: Sequence[Any] | np.ndarray) -> float:
    """Returns how clearly low layers have local and global heads, high ones only global (Fig. 3).

    In the first two layers the most local head should be below `LOCAL` and the most global head
    above `GLOBAL`; in the last two layers even the most local head should be above `GLOBAL`. The
    result is the least of these three margins, NaN with fewer than 4 layers. The paper states this
    in words only; the two levels are ours.

    Args:
      distance: distances of the heads of each layer, in units of uniform attention, layers from
        input to output.
    """
    if len(distance) < 4:
        return float("nan")
    low, high = (np.concatenate(rows) for rows in (distance[:2], distance[-2:]))
    return float(min(LOCAL - low.min(), low.max() - GLOBAL, high.min() - GLOBAL))


@figure(
    "Attention distance",
    "Mean distance in px between a patch and what it attends to, for every head of the "
    "first two and last two blocks, sorted (paper: Figs 3, 4). The dashed line is a head "
    "that attends to all patches alike.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws, for each Result, the sorted heads of the first two and the last two blocks."""
    from vitcnn import figures

    panels = []
    for result in results:
        blocks = list(dict.fromkeys([*result.layer.values[:2], *result.layer.values[-2:]]))
        panels.append({})
        for layer in blocks:
            row = result.sel(layer=layer).sortby("distance")
            place = 1 + np.arange(row.sizes["head"])
            name = str(layer).rpartition("/")[0]
            panels[-1][name] = (place, row.distance, row.distance_standard_error)
    return figures.curves(
        results,
        panels,
        "head, sorted by distance",
        "mean attention distance (px)",
        [_uniform(result, 1 + np.arange(result.sizes["head"])) for result in results],
    )


@figure(
    "Attention distance by depth",
    "The most local and the most global head of every block, and the mean of all heads.",
)
def draw_depth(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws the most local head, the most global head and the mean of all heads by block.

    The band of a curve is the standard error of the head that is drawn. The mean over heads has no
    band, because the heads are measured on the same images and are not independent.
    """
    from vitcnn import figures

    panels = []
    for result in results:
        place = np.arange(result.sizes["layer"])
        rows = result.transpose("layer", "head")
        distance, error = rows.distance.values, rows.distance_standard_error.values
        panels.append({})
        for name, head in (("most global head", np.nanargmax), ("most local head", np.nanargmin)):
            at = head(distance, axis=1)[:, None]
            curve = (np.take_along_axis(a, at, axis=1)[:, 0] for a in (distance, error))
            panels[-1][name] = (place, *curve)
        panels[-1]["mean of heads"] = (place, _mean_of_heads(distance), np.full(len(place), np.nan))
    return figures.curves(
        results,
        panels,
        "block",
        "mean attention distance (px)",
        [_uniform(result, np.arange(result.sizes["layer"])) for result in results],
    )


def _uniform(result: xarray.Dataset, place: np.ndarray):
    """Returns the dashed line of uniform attention (a level, or one by layer) and its name."""
    level = result.attrs["uniform"]
    if np.ndim(level) == 0:
        return level, "uniform attention"
    if len(place) != len(level):  # the axis is over heads, but each layer has a level of its own
        return float("nan"), "uniform attention"
    return (place, level), "uniform attention"


def _mean_of_heads(distance: Float[np.ndarray, "layer head"]) -> Float[np.ndarray, " layer"]:
    """Returns the mean over the heads that each layer has."""
    present = np.isfinite(distance)
    return np.where(present, distance, 0).sum(1) / np.maximum(present.sum(1), 1)
