"""Attention distance: how far each head looks, in pixels (paper: Figs 3, 4, C.5, C.6).

The distance between a query patch and a key patch is that of their centres; it is weighted by the
attention between them, summed over keys and averaged over queries and images (Dosovitskiy et al.
2021, Fig. 11). The class token, and any other prefix token, is left out as query and as key. The
paper does not say whether the weights that are left then sum to one: `distance` takes them as
they are, `distance_renormalised` divides by their sum. A head that attends uniformly to 7 x 7
patches of 32 px, 14 x 14 of 16 px or 16 x 16 of 14 px has a distance of 115.5, 116.5 or 116.6 px.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Float

from vitcnn.analyses import Traits, figure
from vitcnn.tap_layout import attention, attention_distances, patch_distances

TAPS = ("*block*/attn_weights",)
TRAITS = Traits(
    one_model=True,
    images=5000,  # as the paper
)
# Distance of a local and of a global head, in units of uniform attention.
LOCAL, GLOBAL = 0.5, 0.7


def measure(group, config, given):
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


def finalize(sums, config) -> xarray.Dataset:
    """Returns the means over images of every head of every layer.

    Variables, each [layer, head], NaN for the heads that a layer does not have:
      distance: mean attention distance, px, weights without prefix tokens as they are.
      distance_renormalised: the same with weights divided by their sum over patches, px.
      prefix_mass: attention of patches on prefix tokens (the class token).
      entropy: of the attention of patches over all tokens, nat.
    And local_and_global, a number: see the function of this name.
    Attribute `uniform`: distance of a head that attends to all patches alike, px; one for each
    layer if their grids differ.
    """
    layers = [tap for _, tap in config.layers]
    long_names = {
        "distance": ("mean attention distance", "px"),
        "distance_renormalised": ("mean attention distance, weights renormalised", "px"),
        "prefix_mass": ("attention mass on prefix tokens", "1"),
        "entropy": ("attention entropy", "nat"),
    }
    heads = max(info.heads for info in config.infos)
    variables = {}
    for key, (long_name, units) in long_names.items():
        values = np.stack([_padded(sums[layer][key], heads) for layer in layers]) / sums["images"]
        variables[key] = (("layer", "head"), values, {"long_name": long_name, "units": units})
    uniform = np.array([float(sums[layer]["uniform"] / sums["images"]) for layer in layers])
    margin = local_and_global(
        [
            sums[layer]["distance"] / sums["images"] / u
            for layer, u in zip(layers, uniform, strict=True)
        ]
    )
    attrs = {"long_name": "local and global heads below, only global ones on top", "units": "1"}
    variables["local_and_global"] = ((), margin, attrs)
    same = len(set(uniform)) == 1
    return xarray.Dataset(
        variables,
        {"layer": layers, "head": np.arange(heads)},
        {"uniform": uniform[0] if same else uniform},
    )


def _padded(values: Float[np.ndarray, " heads"], heads: int) -> Float[np.ndarray, " padded"]:
    return np.pad(values, (0, heads - len(values)), constant_values=np.nan)


def local_and_global(distance: Sequence[Float[np.ndarray, " head"]]) -> float:
    """Returns how clearly low layers mix local and global heads and high ones are global (Fig. 3).

    Of the first two layers the most local head should be below `LOCAL` and the most global above
    `GLOBAL`, of the last two even the most local above `GLOBAL`; it is the least of the three
    margins, NaN with fewer than 4 layers. The paper says so in words only; the levels are ours.

    Args:
      distance: of the heads of each layer, in units of uniform attention, layers from input to
        output.
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
def draw(results: Sequence[xarray.Dataset]):
    """Draws, for each result, the sorted heads of the first two and the last two blocks."""
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
def draw_depth(results: Sequence[xarray.Dataset]):
    """Draws the most local head, the most global head and the mean of all by block.

    The bands are those of that head; the mean has none, because heads of one image are not
    independent.
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
            found = (np.take_along_axis(a, at, axis=1)[:, 0] for a in (distance, error))
            panels[-1][name] = (place, *found)
        panels[-1]["mean of heads"] = (place, _mean_of_heads(distance), np.full(len(place), np.nan))
    return figures.curves(
        results,
        panels,
        "block",
        "mean attention distance (px)",
        [_uniform(result, np.arange(result.sizes["layer"])) for result in results],
    )


def _uniform(result: xarray.Dataset, place: np.ndarray):
    """Returns the dashed line of uniform attention: a level, or a line by layer."""
    level = result.attrs["uniform"]
    if np.ndim(level) == 0:
        return level, "uniform attention"
    if len(place) != len(level):  # heads to the right: layers of several grids have no one level
        return float("nan"), "uniform attention"
    return (place, level), "uniform attention"


def _mean_of_heads(distance: Float[np.ndarray, "layer head"]) -> Float[np.ndarray, " layer"]:
    """Returns the mean over the heads that each layer has."""
    has = np.isfinite(distance)
    return np.where(has, distance, 0).sum(1) / np.maximum(has.sum(1), 1)
