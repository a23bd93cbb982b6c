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

from vitcnn.tap_layout import patch_distances

TAPS = ("block*/attn_weights",)
ONE_MODEL = True
IMAGES = 5000  # as the paper
# Distance of a local and of a global head, in units of uniform attention.
LOCAL, GLOBAL = 0.5, 0.7
CAPTIONS = {
    "draw": (
        "Attention distance",
        "Mean distance in px between a patch and what it attends to, for every head of the "
        "first two and last two blocks, sorted (paper: Figs 3, 4). The dashed line is a head "
        "that attends to all patches alike.",
    ),
    "draw_depth": (
        "Attention distance by depth",
        "The most local and the most global head of every block, and the mean of all heads.",
    ),
}


def measure(group, config, given):
    """Returns for every head the sums over images of its distances, entropy and prefix mass."""
    (view,) = group.models.values()
    n, image = len(view.image), view.image.shape[1:3]
    first = next(iter(view.info.values()))
    uniform = patch_distances(first.grid, image).mean()
    sums = {"images": jnp.float32(n), "uniform": jnp.float32(n * uniform)}
    for name, weights in view.taps.items():
        info = view.info[name]
        distance = jnp.asarray(patch_distances(info.grid, image), jnp.float32)
        weights = weights[:, :, info.prefix_tokens :].astype(jnp.float32)  # queries: patches only
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
    return sums


def finalize(sums, config) -> xarray.Dataset:
    """Returns the means over images of every head of every layer.

    Variables, each [layer, head]:
      distance: mean attention distance, px, weights without prefix tokens as they are.
      distance_renormalised: the same with weights divided by their sum over patches, px.
      prefix_mass: attention of patches on prefix tokens (the class token).
      entropy: of the attention of patches over all tokens, nat.
    And local_and_global, a number: see the function of this name.
    Attribute `uniform`: distance of a head that attends to all patches alike, px.
    """
    layers = [tap for _, tap in config.layers]
    long_names = {
        "distance": ("mean attention distance", "px"),
        "distance_renormalised": ("mean attention distance, weights renormalised", "px"),
        "prefix_mass": ("attention mass on prefix tokens", "1"),
        "entropy": ("attention entropy", "nat"),
    }
    variables = {}
    for key, (long_name, units) in long_names.items():
        values = np.stack([sums[layer][key] for layer in layers]) / sums["images"]
        variables[key] = (("layer", "head"), values, {"long_name": long_name, "units": units})
    heads = np.arange(config.infos[0].heads)
    uniform = float(sums["uniform"] / sums["images"])
    mixed = local_and_global(variables["distance"][1] / uniform)
    said = {"long_name": "local and global heads below, only global ones on top", "units": "1"}
    variables["local_and_global"] = ((), mixed, said)
    return xarray.Dataset(variables, {"layer": layers, "head": heads}, {"uniform": uniform})


def local_and_global(distance: Float[np.ndarray, "layer head"]) -> float:
    """Returns how clearly low layers mix local and global heads and high ones are global (Fig. 3).

    Of the first two layers the most local head should be below `LOCAL` and the most global above
    `GLOBAL`, of the last two even the most local above `GLOBAL`; it is the least of the three
    margins, NaN with fewer than 4 layers. The paper says so in words only; the levels are ours.

    Args:
      distance: in units of uniform attention, layers from input to output.
    """
    if len(distance) < 4:
        return float("nan")
    low, high = distance[:2], distance[-2:]
    return float(min(LOCAL - low.min(), low.max() - GLOBAL, high.min() - GLOBAL))


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
            name = str(layer).split("/")[0]
            panels[-1][name] = (place, row.distance, row.distance_standard_error)
    return figures.curves(
        results,
        panels,
        "head, sorted by distance",
        "mean attention distance (px)",
        [(result.attrs["uniform"], "uniform attention") for result in results],
    )


def draw_depth(results: Sequence[xarray.Dataset]):
    """Draws the most local head, the most global head and the mean of all by block.

    The bands are those of that head; the mean has none, because heads
    of one image are not independent.
    """
    from vitcnn import figures

    panels = []
    for result in results:
        place = np.arange(result.sizes["layer"])
        rows = result.transpose("layer", "head")
        distance, error = rows.distance.values, rows.distance_standard_error.values
        panels.append({})
        for name, head in (("most global head", np.argmax), ("most local head", np.argmin)):
            at = head(distance, axis=1)[:, None]
            found = (np.take_along_axis(a, at, axis=1)[:, 0] for a in (distance, error))
            panels[-1][name] = (place, *found)
        panels[-1]["mean of heads"] = (place, distance.mean(1), np.full(len(place), np.nan))
    return figures.curves(
        results,
        panels,
        "block",
        "mean attention distance (px)",
        [(result.attrs["uniform"], "uniform attention") for result in results],
    )
