"""Fit of linear probes, to be scored by `probe` (paper: Figs 11, 13, D.4, F.1 to F.3).

This is the first pass of a probe: ridge regression in closed form on targets of -1 and +1 (paper,
appendix A), for every layer and every L2 penalty at once. Each channel is whitened, (x - mean) /
scale with scale = deviation + `epsilon`, as in the few-shot probe of big_vision; the intercept is
not penalised. One eigendecomposition V diag(w) V' of the whitened X'X of a probe gives the scores
for any penalty,

    ((x - mean) / scale) V diag(1 / (w + penalty)) V'X'Y + target mean,

so the Result holds V (`basis`), w (`eigenvalues`) and V'X'Y (`projection`), not the weights.

    data = source("tfds", name="imagenet2012", split="train", shots=10, draws=3)
    config.stages.fit = stage(data=data)
    config.stages.fit.analyses.probe = analysis("probe_fit", features=("class",))

Few-shot data (`shots` images of each class, drawn `draws` times) are `draws` parts of equal size in
the source; each part gets a fit of its own.

Costs. A probe of D channels and C classes sums (D + 1)(D + C + 1) numbers for each draw, and for
"tokens" for each position. With 1000 classes and one draw that is about 0.5 GB for the 12 blocks
of ViT-B with two features, 1 GB for the 16 units of ResNet-50, and 1 GB for the 49 positions of a
single block of ViT-B/32: choose `token_taps` and `positions`. Each group of images brings all
these sums to the host, so make `config.group` large (1000 and more).

The paper does not specify the following, so they are fields or choices of ours: `patch`, `epsilon`,
and the "first token" of a network without a class token (here the first image position).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import warnings
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Float

from vitcnn.analyses import ALL, Config, Group, Traits
from vitcnn.lookup import nearest
from vitcnn.numerics.arrays import Array
from vitcnn.numerics.exact import Product
from vitcnn.numerics.ridge import NOISE
from vitcnn.probes import features as probe_features
from vitcnn.probes import scoring
from vitcnn.results.datasets import variable

TAPS = ("*block*/out", "stage*/unit*/out")
TRAITS = Traits(
    one_model=True,
    labels=True,
    images=ALL,  # the fields of the data choose the images of the fit
    blocks=1,
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      features: what probes read: "class", "spatial", "all", "first", "tokens"; see
        `vitcnn.probes.features`.
      token_taps: globs of the taps at which "tokens" gets probes; all taps if empty.
      positions: positions at which "tokens" gets probes, row * columns + column; all if
        empty.
      patch: side of the patches that maps of a ResNet are split into: a number, 1 for none,
        or "auto".
      epsilon: added to deviations, in units of their root mean square over the channels.
    """

    features: tuple[str, ...] = ("class", "spatial")
    token_taps: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    patch: int | str = "auto"
    epsilon: float = 1e-5


def measure(group: Group, config: Config, given: Mapping) -> dict[str, dict[str, Product]]:
    """Returns the moments of every probe: sums of products of (x, 1) and (x, one-hot class, 1).

    Raises:
      ValueError: a field does not fit the taps or the source.
    """
    (view,) = group.models.values()
    _check(config)
    draw = jnp.arange(config.draws)[:, None]
    weight = (group.index // (config.length // config.draws) == draw) & (group.label >= 0)
    classes = jax.nn.one_hot(group.label, config.classes)
    grid, most = probe_features.last(config.infos)
    features_of, sums = _features_of(config), {}
    for (_, tap), info in zip(config.layers, config.infos, strict=True):
        side = probe_features.patch_side(info, config.patch, grid, most)
        sums[tap] = {}
        for feature in probe_features.available(info, features_of[tap]):
            x = probe_features.take(view.taps[tap], info, feature, side, grid)
            if feature == "tokens":
                x = x[:, np.array(positions(config))]
            sums[tap][feature] = _moments(x, classes, weight)
    return sums


def _check(config: Config) -> None:
    """Raises ValueError for fields that do not fit the source."""
    if config.images != config.length or config.repeats != 1:
        raise ValueError(
            f"images = {config.images} and repeats = {config.repeats}: a fit reads each of the "
            f"{config.length} images of its source once; leave both fields out and choose images "
            "by the fields start, stop and shots of its data"
        )


def _features_of(config: Config) -> dict[str, tuple[str, ...]]:
    """Returns the features that the config names for each tap.

    Raises:
      ValueError: `token_taps` matches none of the taps.
    """
    names = lambda value: (value,) if isinstance(value, str) else tuple(value)  # noqa: E731
    features, globs = names(config.features), names(config.token_taps)
    taps = [tap for _, tap in config.layers]
    with_tokens = [
        tap for tap in taps if not globs or any(fnmatch.fnmatchcase(tap, g) for g in globs)
    ]
    if "tokens" in features and not with_tokens:
        raise ValueError(f"token_taps = {globs} match no tap of the job: {nearest(globs[0], taps)}")
    others = tuple(feature for feature in features if feature != "tokens")
    return {tap: features if tap in with_tokens else others for tap in taps}


def positions(config: Config) -> list[int]:
    """Returns the flat indices of the positions that get probes of their own.

    Raises:
      ValueError: the grid of the last layer has no such position.
    """
    grid, _ = probe_features.last(config.infos)
    cells = grid[0] * grid[1]
    chosen = [int(p) for p in config.positions] or list(range(cells))
    wrong = [p for p in chosen if not 0 <= p < cells]
    if wrong or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"positions = {tuple(config.positions)}: expected different numbers of 0 to "
            f"{cells - 1}, row * {grid[1]} + column of the grid {list(grid)} of the last layer"
        )
    return chosen


def _moments(
    x: Float[Array, "n *positions channel"],
    classes: Float[Array, "n class"],
    weight: Float[Array, "draw n"],
) -> Product:
    """Returns the sums over images of (x, 1)'(x, class, 1), by draw and position."""

    def moments(x, weight):
        # The sums of x and of the classes come from the same product as the sums of x x' and x y',
        # so that both have the same rounding, which cancels when the host subtracts the means.
        ones = jnp.ones((len(x), 1))
        left, right = jnp.concatenate([x, ones], 1), jnp.concatenate([x, classes, ones], 1)
        return Product.of(left, right, weight)

    if x.ndim == 3:
        moments = jax.vmap(moments, in_axes=(1, None))
    return jax.vmap(moments, in_axes=(None, 0))(x, weight)


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns the fits: all that `probe` needs to score any penalty, without standard errors.

    Variables:
      <tap>.<feature>.<part>, "/" of the tap replaced by ".", for each of `scoring.PARTS`:
        [draw, (position,) ...]. There are as many components as channels, or as images of a draw
        less one, if those are fewer.
      target_mean [draw, class]: mean of the targets, 2 * frequency - 1: the intercept.
      images [draw]: number of labelled images of each draw.
      cell [position]: flat indices of the positions of "tokens", if there are any.

    Raises:
      ValueError: a draw has no labelled images.
    """
    variables, idle = {}, []
    for tap, by_feature in sums.items():
        for feature, moments in by_feature.items():
            parts, alive = _fits(moments, config)
            if not alive:
                idle.append(f"{tap} ({feature})")
            outer = ("draw", "position")[: moments.ndim - 2]
            for part, (own, long_name) in scoring.PARTS.items():
                sizes = parts[part].shape[len(outer) :]
                dims = [d if d == "class" else f"{d}_{n}" for d, n in zip(own, sizes, strict=True)]
                variables[scoring.variable(tap, feature, part)] = variable(
                    (*outer, *dims),
                    parts[part],
                    f"{long_name}, {tap}, {feature}",
                    None,
                    estimate=False,
                )
    if idle:
        warnings.warn(
            f"{', '.join(idle)}: not finite, or the same for all images; there is nothing to probe",
            stacklevel=2,
        )
    # The last row of the moments of any probe holds the sums of x, of the classes and of 1.
    totals = moments[(slice(None), *[0] * (moments.ndim - 3), -1)]
    images = totals[:, -1]
    frequency = totals[:, -1 - config.classes : -1] / images[:, None]
    variables["target_mean"] = variable(
        ("draw", "class"),
        2 * frequency - 1,
        "mean of the targets, the intercept",
        None,
        estimate=False,
    )
    variables["images"] = variable("draw", images.astype(np.int32), "images of the fit", None)
    if any("tokens" in by_feature for by_feature in sums.values()):
        cells = np.array(positions(config), np.int32)
        variables["cell"] = variable("position", cells, "row * columns + column", None)
    return xarray.Dataset(variables)


def _fits(
    moments: Float[np.ndarray, "draw *position left right"], config: Config
) -> tuple[dict[str, np.ndarray], bool]:
    """Returns the `scoring.PARTS` of the probes of one feature, and whether all have a channel.

    Raises:
      ValueError: a draw has no labelled images.
    """
    outer = moments.shape[:-2]
    flat = moments.reshape(-1, *moments.shape[-2:])
    images = flat[:, -1, -1]
    if not images.all():
        empty = np.flatnonzero(images.reshape(len(moments), -1)[:, 0] == 0).tolist()
        raise ValueError(
            f"draws {empty} of {len(moments)} have no image with a label; give "
            "config.stages.<stage>.data of the fit labelled images (its source, split, start, stop "
            "or shots)"
        )
    rank = int(max(1, min(moments.shape[-2] - 1, images.max() - 1)))
    fits = [fit(matrix, config.classes, config.epsilon, rank) for matrix in flat]
    alive = all(np.isfinite(parts["scale"]).any() for parts in fits)
    stacked = {part: np.stack([parts[part] for parts in fits]) for part in scoring.PARTS}
    return {p: values.reshape(*outer, *values.shape[1:]) for p, values in stacked.items()}, alive


def fit(
    moments: Float[np.ndarray, "left right"], classes: int, epsilon: float, rank: int
) -> dict[str, np.ndarray]:
    """Returns the `scoring.PARTS` of one probe.

    Args:
      moments: sum over images of (x, 1)'(x, one-hot class, 1), float64.
      classes: number of classes.
      epsilon: see `Settings`.
      rank: number of eigenvectors to keep, those of the largest eigenvalues; the other eigenvalues
        are 0 where there are no more than `rank` + 1 images.
    """
    d, n = len(moments) - 1, moments[-1, -1]
    if not np.isfinite(moments).all():
        shapes = {"channel": d, "component": rank, "class": classes}
        return {
            p: np.full([shapes[s] for s in own], np.nan) for p, (own, _) in scoring.PARTS.items()
        }
    mean, frequency = moments[-1, :d] / n, moments[-1, d : d + classes] / n
    covariance = moments[:d, :d] - n * np.outer(mean, mean)
    cross = 2 * (moments[:d, d : d + classes] - n * np.outer(mean, frequency))  # of targets -1, +1
    variance = np.maximum(np.diag(covariance), 0) / n
    rounding = NOISE * np.diag(moments)[:d] / n
    live = variance > rounding
    deviation = np.sqrt(variance)
    typical = np.sqrt(np.mean(variance[live])) if live.any() else 1.0
    # A channel that does not vary is left out. Divided by `epsilon` alone, its values on other
    # images would drown all other channels.
    scale = np.where(live, deviation + epsilon * typical, np.inf)
    whitened = covariance / scale[:, None] / scale[None, :]
    eigenvalues, basis = np.linalg.eigh(whitened)
    eigenvalues, basis = np.maximum(eigenvalues[-rank:], 0), basis[:, -rank:]
    projection = basis.T @ (cross / scale[:, None])
    return {
        "mean": mean,
        "scale": scale,
        # The two large arrays are kept in float32, since the device that scores has no more digits.
        "basis": basis.astype(np.float32),
        "eigenvalues": eigenvalues,
        "projection": projection.astype(np.float32),
    }
