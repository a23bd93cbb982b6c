"""Decoding: where a token is and what its patch shows, read from the token by ridge regression.

This measurement is not in the paper. A token can be most similar to its own patch (CKA, Figs 9 and
D.1 to D.3) without telling where it is. Here a linear map goes from each token to its place in the
grid, to the mean colour of its patch, or to the pixels of its patch. R^2 is computed on images that
the map was not fitted on.

The examples are tokens: all image positions of all images. The folds are those of
`vitcnn.probes.folds`. Each fold f is held out once. For each target the penalty is chosen that does
best on fold f + 1 after a fit on the other folds; the fit is then repeated on all folds but f.

R^2 = 1 - SSE / SST, where both are summed over the numbers of a target and SST is about the mean of
the held-out fold itself. Features and targets are centred by their training means and not scaled.
A penalty is in units of the mean eigenvalue of the features' training covariance, so neither the
scale of a layer nor a rotation of it matters. Everything follows from products of sums over tokens,
which are kept for each fold: one pass over the images is enough, and no token is stored.

The sums of a layer of D channels with P pixel values a patch take 8 folds (D + 1) (D + P + 6) bytes
on the host. All of ViT-B/32 (13 layers, D = 768, P = 3072) takes 1.2 GB, or 0.25 GB if `targets`
leaves out "pixels"; ViT-B/16 takes 0.5 GB and ResNet-50 1.4 GB. The engine counts four times as
much, because it holds copies while it adds (`max_sums_gb`). At the end each layer takes 2 `folds`
eigendecompositions of D x D: on two cores 20 seconds for D = 768, and one or two minutes for
D = 2048.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Float

from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.lookup import check_name
from vitcnn.numerics.arrays import Array
from vitcnn.numerics.exact import Product
from vitcnn.numerics.ridge import Moments, over_folds
from vitcnn.probes import folds as folds_of_images
from vitcnn.probes.folds import R2, check_folds, dataset, fold_of
from vitcnn.results.datasets import DEPTH_TITLE
from vitcnn.tap_layout import grid_name, split
from vitcnn.taps import TapInfo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = ("embed", "*block*/out", "stage*/unit*/out")
TRAITS = Traits(
    one_model=True,
    images=5000,
    blocks=1,  # the sums are large; the spread over folds is the standard error
)

TARGETS = {
    "position": "position in the grid",
    "colour": "mean colour of the patch",
    "pixels": "pixels of the patch",
}


@dataclasses.dataclass(frozen=True)
class Settings(folds_of_images.Settings):
    """The settings that a config can change.

    Attributes:
      targets: what is read from a token: "position", "colour" and "pixels", or some of them.
      folds: number of folds: one to test on, one to choose the penalty on, the others to fit.
      penalties: penalties to choose from, in units of the mean eigenvalue; penalties smaller than
        the defaults are lost in rounding.
    """

    targets: tuple[str, ...] = ("position", "colour", "pixels")


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns, by fold, the products of the sums of the features and of the targets of all tokens.

    Returns:
      "tokens": tap -> per fold, the sum over tokens of (x, 1) (x, y, 1)'.
      "squares": grid -> per fold, the sums of squares of the targets.
      "images": per fold, the number of images.

    Raises:
      ValueError: a field is out of its range, a tap has no grid, or its grid does not divide the
        image.
    """
    _check(config)
    (view,) = group.models.values()
    folds = fold_of(group.index, config.folds)
    inside = [(folds == f).astype(jnp.float32) for f in range(config.folds)]
    tokens, squares = {}, {}
    for name, x in view.taps.items():
        info = view.info[name]
        x = info.positions(x).reshape(len(x), math.prod(info.grid or ()), -1)
        n, positions, _ = x.shape
        y = [target_of(view.image, info, target) for target in config.targets]
        y = jnp.concatenate([a.astype(jnp.float32) for a in y], axis=-1)
        ones = jnp.ones((n, positions, 1), jnp.float32)
        x, y, ones = (a.reshape(n * positions, -1) for a in (x.astype(jnp.float32), y, ones))
        left, right = jnp.concatenate([x, ones], 1), jnp.concatenate([x, y, ones], 1)
        weights = [jnp.repeat(w, positions) for w in inside]
        tokens[name] = [Product.of(left, right, w) for w in weights]
        if (grid := grid_name(info.grid)) not in squares:
            # Only the squares of the targets are needed; the products of every two pixels would be
            # four times as many numbers as the products with x.
            single = jax.vmap(Product.of, (1, 1, None))
            squares[grid] = [single(y[..., None], y[..., None], w) for w in weights]
    return {"tokens": tokens, "squares": squares, "images": jnp.stack([w.sum() for w in inside])}


def target_of(
    image: Float[Array, "n height width 3"], info: TapInfo, target: str
) -> Float[Array, "n positions numbers"]:
    """Returns the numbers that are to be read from each token of a tap.

    Args:
      image: the images as the model sees them, normalised.
      info: the tap; it has a grid, whose cells are the patches.
      target: "position", row and column from 0 to 1; "colour", the mean of each of the 3 channels
        of the patch; "pixels", all values of the patch.

    Raises:
      ValueError: the grid does not divide the image into patches of equal size.
    """
    n, height, width, _ = image.shape
    rows, columns = info.grid
    if target == "position":
        row, column = (jnp.arange(size) / max(size - 1, 1) for size in info.grid)
        places = jnp.stack(jnp.meshgrid(row, column, indexing="ij"), -1).reshape(1, -1, 2)
        return jnp.broadcast_to(places, (n, rows * columns, 2))
    if height % rows or width % columns:
        raise ValueError(
            f"tap {info.name} has a grid of {rows} x {columns}, which does not divide the image of "
            f"{height} x {width}: choose other taps (field taps), set targets = ('position',), or "
            "give the model another image size"
        )
    cells = split(image, info.grid).reshape(n, rows * columns, -1, 3)
    return cells.mean(2) if target == "colour" else cells.reshape(n, rows * columns, -1)


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns R^2 on held-out images.

    Variables:
      r2 [layer, target]: mean over the held-out folds. Its standard error is the standard deviation
        over folds divided by the square root of their number; it is rough, because folds share
        training images.
      r2_fold [layer, target, fold]: R^2 of each held-out fold. NaN where a layer or a target does
        not vary, and for folds without images.
      penalty [layer, target, fold]: the chosen penalty, in units of the mean eigenvalue.
    Coordinate depth [layer]: 0 is the first layer, 1 the last.
    """
    layers, targets = [tap for _, tap in config.layers], list(config.targets)
    filled = [f for f in range(config.folds) if sums["images"][f] > 0]
    if len(filled) < config.folds:
        warnings.warn(
            f"{int(sums['images'].sum())} images leave {config.folds - len(filled)} of "
            f"{config.folds} folds empty: take more images or fewer folds",
            stacklevel=2,
        )
    shape = (len(layers), len(targets), config.folds)
    scores, penalties = np.full(shape, np.nan), np.full(shape, np.nan)
    dead = []
    for i, info in enumerate(config.infos):
        squares = sums["squares"][grid_name(info.grid)]
        folds = [
            Moments(p, s.ravel()) for p, s in zip(sums["tokens"][layers[i]], squares, strict=True)
        ]
        parts = _parts(targets, folds[0].numbers)
        scores[i], penalties[i] = over_folds(folds, parts, config.penalties)
        if not sum(folds[1:], folds[0]).alive():
            dead.append(layers[i])
    if dead:
        warnings.warn(f"constant, NaN or infinite, so not decoded: {', '.join(dead)}", stacklevel=2)
    used = scores[..., filled]
    spread = used.std(-1, ddof=1) if len(filled) > 1 else used.mean(-1) * np.nan
    error = spread / np.sqrt(len(filled))
    coords = {"layer": layers, "target": targets}
    return dataset(scores, penalties, coords, used.mean(-1), error)


def _parts(targets: Sequence[str], numbers: int) -> dict[str, slice]:
    """Returns the columns of each target among all `numbers` of them."""
    sizes = {"position": 2, "colour": 3}
    sizes["pixels"] = numbers - sum(sizes[t] for t in targets if t != "pixels")
    ends = np.cumsum([sizes[target] for target in targets]).tolist()
    return {t: slice(end - sizes[t], end) for t, end in zip(targets, ends, strict=True)}


def _check(config: Config) -> None:
    """Raises ValueError for settings out of their range."""
    for target in config.targets:
        check_name("target", target, TARGETS)
    if not config.targets or len(set(config.targets)) < len(config.targets):
        raise ValueError(f"targets = {tuple(config.targets)}: name one or more, each once")
    check_folds(config.folds, config.penalties)


@figure(
    "What tokens know of their place",
    "Held-out R² of ridge regression from one token to its position, to the mean colour and "
    "to the pixels of its own patch, by relative depth. A high localisation CKA need not "
    "mean that any of these can be read.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws R^2 against depth, one curve for each target."""
    from vitcnn import figures

    panels = []
    for result in results:
        panels.append({})
        for target in result.target.values.tolist():
            rows = result.sel(target=target)
            panels[-1][TARGETS[target]] = (result.depth, rows.r2, rows.r2_standard_error)
    return figures.curves(results, panels, DEPTH_TITLE, R2)
