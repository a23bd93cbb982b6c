"""Norms: how long tokens are by depth, and whether a few of them, or one direction, are the layer.

Linear CKA and localization weigh a token by the square of its length. Large ViTs have a few tokens
that are many times as long as all others (Darcet et al. 2024, arXiv 2309.16588, who give them
registers to live in), and then these few may be all that a CKA of late layers sees. Nor does a CKA
say much of a layer whose images differ in one direction only. Neither is in the paper.

A position is massive if its token is more than `massive` times as long as the median of the image.
The first component is the largest eigenvalue of the centred Gram matrix of a group of images over
the sum of all: the share of the variance between images that lies in one direction, of all tokens
together, as CKA sees them. It falls a little with the number of images in a group (`group`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
import xarray

from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.results.datasets import DEPTH_TITLE, relative_depth, variable
from vitcnn.similarity import gram, hsic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = ("embed", "*block*/out", "stage*/unit*/out")
TRAITS = Traits(
    one_model=True,
    images=5000,
    least_group=hsic.MIN_GROUP,
)
NUMBERS = {  # variable of a layer -> its long name
    "norm_class": "length of the class token",
    "norm_spatial": "length of the tokens of positions",
    "longest": "length of the longest over that of the median position",
    "massive": "share of positions that are massive",
    "massive_energy": "share of the squared length that massive positions have",
    "first_component": "share of the variance in the first principal component",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      massive: how many times as long as the median of its image a massive token is.
    """

    massive: float = 4.0


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns for every tap the sums over images of the `NUMBERS`.

    Raises:
      ValueError: a tap has no positions, or `massive` is not above 1.
    """
    if not config.massive > 1:
        raise ValueError(f"massive = {config.massive}: expected a number above 1, such as 4")
    (view,) = group.models.values()
    n = len(view.image)
    sums = {"images": jnp.float32(n), "taps": {}}
    for name, x in view.taps.items():
        info = view.info[name]
        if info.grid is None or info.layout == "attention":
            raise ValueError(f"{name} has no tokens: choose other taps in the field taps")
        tokens = info.positions(x).reshape(n, math.prod(info.grid), -1).astype(jnp.float32)
        norm = jnp.linalg.norm(tokens, axis=-1)
        median = jnp.median(norm, axis=1, keepdims=True)
        massive = norm > config.massive * median
        energy = jnp.square(norm / jnp.max(norm, axis=1, keepdims=True))
        centred = gram.centre(view.gram(name, "all").matrix)
        first = jnp.linalg.eigvalsh(centred)[-1] / jnp.trace(centred)
        class_token = x[:, 0].reshape(n, -1).astype(jnp.float32)
        of_class = (
            jnp.linalg.norm(class_token, axis=-1) if info.class_token else jnp.full(n, jnp.nan)
        )
        numbers = {
            "norm_class": of_class,
            "norm_spatial": norm.mean(1),
            "longest": (norm.max(1, keepdims=True) / median)[:, 0],
            "massive": massive.mean(1),
            "massive_energy": jnp.where(massive, energy, 0).sum(1) / energy.sum(1),
        }
        sums["taps"][name] = {key: of_images.sum() for key, of_images in numbers.items()}
        sums["taps"][name]["first_component"] = n * first
    return sums


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns means over images.

    Variables, each [layer]:
      norm_class: length of the class token, NaN without one.
      norm_spatial: length of the tokens of image positions, mean over them.
      longest: length of the longest over that of the median position of an image.
      massive: share of the positions that are massive.
      massive_energy: share of the sum of squared lengths that massive positions have.
      first_component: share of the variance between images in the first principal component, mean
        over groups.
    Coordinate depth [layer]: 0 is the first layer, 1 the last.
    """
    layers = [tap for _, tap in config.layers]
    data = {
        name: variable(
            "layer",
            np.array([sums["taps"][tap][name] for tap in layers]) / sums["images"],
            long_name,
        )
        for name, long_name in NUMBERS.items()
    }
    coords = {
        "layer": layers,
        "depth": variable("layer", relative_depth(len(layers)), "relative depth", None),
    }
    return xarray.Dataset(data, coords)


@figure(
    "Length of tokens",
    "Mean length of the class token and of the tokens of positions, by relative depth.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws the lengths by depth."""
    names = {"norm_spatial": "positions", "norm_class": "class token"}
    return _curves(results, names, "length of tokens", share=False)


@figure(
    "What few tokens and one direction carry",
    "Share of the squared length of all positions that lies in massive ones, which are some times "
    "as long as the median (the field massive), and share of the variance between images in the "
    "first principal component, by relative depth. Where either is near 1, CKA and localization "
    "see little else.",
)
def draw_shares(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws the shares by depth."""
    names = {"massive_energy": "massive positions", "first_component": "first component"}
    return _curves(results, names, "share", share=True)


def _curves(
    results: Sequence[xarray.Dataset], names: Mapping[str, str], title: str, share: bool
) -> Figure:
    """Draws variables by depth, those that are not NaN throughout."""
    from vitcnn import figures

    panels = [
        {
            title: (result.depth, result[name], result[f"{name}_standard_error"])
            for name, title in names.items()
            if np.isfinite(result[name]).any()
        }
        for result in results
    ]
    return figures.curves(results, panels, DEPTH_TITLE, title, share=share)
