"""Fit of linear probes, to be scored by `probe` (paper: Figs 11, 13, D.4, F.1 to F.3).

The first leg of a probe: ridge regression in closed form on targets of -1 and +1 (paper, appendix
A), for every layer and every L2 penalty at once. Each channel is whitened, (x - mean) / scale with
scale = deviation + `epsilon`, as in big_vision's few-shot probe; the intercept is not penalised.
One eigendecomposition V diag(w) V' of the whitened X'X a probe gives the scores for any penalty,

    ((x - mean) / scale) V diag(1 / (w + penalty)) V'X'Y + target mean,

so the Result holds V (`basis`), w (`eigenvalues`) and V'X'Y (`projection`), not the weights.

    config.stages.fit = plan.stage(
        data={"source": "tfds", "name": "imagenet2012", "split": "train", "shots": 10, "draws": 3},
        analyses={"probe": plan.job(analysis="probe_fit", features=("class",))},
    )

Few-shot data (`shots` of each class, drawn `draws` times) are `draws` parts of equal size in the
source; each gets a fit of its own.

Costs. A probe of D channels and C classes sums (D + 1)(D + C + 1) numbers for each draw, and for
"tokens" for each position. With 1000 classes and one draw that is about 0.5 GB for the 12 blocks
of ViT-B with two features, 1 GB for the 16 units of ResNet-50, and 1 GB for the 49 positions of a
single block of ViT-B/32: choose `token_taps` and `positions`. Each group of images brings all
these sums to the host, so make `config.group` large (1000 and more).

Silent in the paper, so fields: `patch`, `epsilon`, and what a "first token" is without a class
token (here the first image position).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array, Float

from vitcnn.analyses import ALL, Traits
from vitcnn.lookup import nearest
from vitcnn.numerics.exact import Product
from vitcnn.numerics.ridge import NOISE
from vitcnn.probes import features as probe_features
from vitcnn.probes import scoring
from vitcnn.results.datasets import NO_ERROR

TAPS = ("*block*/out", "stage*/unit*/out")
TRAITS = Traits(
    one_model=True,
    labels=True,
    images=ALL,  # the source is cut to what is fitted
    blocks=1,
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a config sets.

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


def measure(group, config, given):
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
    asked, sums = _asked(config), {}
    for (_, tap), info in zip(config.layers, config.infos, strict=True):
        side = probe_features.patch_side(info, config.patch, grid, most)
        sums[tap] = {}
        for feature in probe_features.available(info, asked[tap]):
            x = probe_features.take(view.taps[tap], info, feature, side, grid)
            if feature == "tokens":
                x = x[:, np.array(positions(config))]
            sums[tap][feature] = _moments(x, classes, weight)
    return sums


def _check(config) -> None:
    """Raises ValueError for fields that do not fit the source."""
    if config.images != config.length or config.repeats != 1:
        raise ValueError(
            f"images = {config.images} and repeats = {config.repeats}: a fit reads each of the "
            f"{config.length} images of its source once; leave both fields out and choose images "
            "by the fields start, stop and shots of its data"
        )


def _asked(config) -> dict[str, tuple[str, ...]]:
    """Returns the features to look for at each tap.

    Raises:
      ValueError: "tokens" are asked for where there is no tap.
    """
    named = lambda value: (value,) if isinstance(value, str) else tuple(value)  # noqa: E731
    features, globs = named(config.features), named(config.token_taps)
    taps = [tap for _, tap in config.layers]
    some = [tap for tap in taps if not globs or any(fnmatch.fnmatchcase(tap, g) for g in globs)]
    if "tokens" in features and not some:
        raise ValueError(f"token_taps = {globs}: no tap of the job; {nearest(globs[0], taps)}")
    others = tuple(feature for feature in features if feature != "tokens")
    return {tap: features if tap in some else others for tap in taps}


def positions(config) -> list[int]:
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
        # The sums of x and of the classes come from the same product as those of x x' and x y', so
        # that what is rounded in one is in the other, and cancels when the host subtracts means.
        one = jnp.ones((len(x), 1))
        left, right = jnp.concatenate([x, one], 1), jnp.concatenate([x, classes, one], 1)
        return Product.of(left, right, weight)

    if x.ndim == 3:
        moments = jax.vmap(moments, in_axes=(1, None))
    return jax.vmap(moments, in_axes=(None, 0))(x, weight)


def finalize(sums, config) -> xarray.Dataset:
    """Returns the fits: what `probe` needs to score any penalty, without standard errors.

    Variables:
      <tap>.<feature>.<part>, "/" of the tap replaced by ".", for each of `scoring.PARTS`:
        [draw, (position,) ...]. There are as many components as channels, or as images of a draw
        less one, if those are fewer.
      target_mean [draw, class]: mean of the targets, 2 * frequency - 1: the intercept.
      images [draw]: labelled images of each.
      cell [position]: flat indices of the positions of "tokens", if there are any.
    """
    classes, variables, idle = config.classes, {}, []
    for tap, by_feature in sums.items():
        for feature, moments in by_feature.items():
            outer = moments.shape[:-2]
            flat = moments.reshape(-1, *moments.shape[-2:])
            images = flat[:, -1, -1]
            if not images.all():
                empty = np.flatnonzero(images.reshape(len(moments), -1)[:, 0] == 0).tolist()
                raise ValueError(
                    f"draws {empty} of {len(moments)} have no image with a label; give "
                    "config.stages.<stage>.data of the fit labelled images (its source, split, "
                    "start, stop or shots)"
                )
            rank = int(max(1, min(moments.shape[-2] - 1, images.max() - 1)))
            fits = [fit(one, classes, config.epsilon, rank) for one in flat]
            if any(not np.isfinite(one["scale"]).any() for one in fits):
                idle.append(f"{tap} ({feature})")
            dims = ("draw", "position")[: len(outer)]
            for part, (own, long_name) in scoring.PARTS.items():
                values = np.stack([one[part] for one in fits])
                values = values.reshape(*outer, *values.shape[1:])
                sizes = values.shape[len(outer) :]
                names = [d if d == "class" else f"{d}_{n}" for d, n in zip(own, sizes, strict=True)]
                attrs = {"long_name": f"{long_name}, {tap}, {feature}", NO_ERROR: "none"}
                variables[scoring.variable(tap, feature, part)] = ((*dims, *names), values, attrs)
            last = moments[(slice(None), *[0] * (len(outer) - 1), -1)]  # sums of x, classes and 1
    if idle:
        warnings.warn(
            f"{', '.join(idle)}: not finite, or the same for all images; there is nothing to probe",
            stacklevel=2,
        )
    images = last[:, -1]
    often = last[:, -1 - classes : -1] / images[:, None]
    attrs = {"long_name": "mean of the targets, the intercept", NO_ERROR: "none"}
    variables["target_mean"] = (("draw", "class"), 2 * often - 1, attrs)
    variables["images"] = ("draw", images.astype(np.int32), {"long_name": "images of the fit"})
    if any("tokens" in by_feature for by_feature in sums.values()):
        chosen = np.array(positions(config), np.int32)
        variables["cell"] = ("position", chosen, {"long_name": "row * columns + column"})
    return xarray.Dataset(variables)


def fit(
    moments: Float[np.ndarray, "left right"], classes: int, epsilon: float, rank: int
) -> dict[str, np.ndarray]:
    """Returns the `scoring.PARTS` of one probe.

    Args:
      moments: sum over images of (x, 1)'(x, one-hot class, 1), float64.
      classes: number of classes.
      epsilon: see `FIELDS`.
      rank: number of eigenvectors to keep, the largest; the others are of eigenvalue 0 where there
        are no more than `rank` + 1 images.
    """
    d, n = len(moments) - 1, moments[-1, -1]
    if not np.isfinite(moments).all():
        shapes = {"channel": d, "component": rank, "class": classes}
        return {
            p: np.full([shapes[s] for s in own], np.nan) for p, (own, _) in scoring.PARTS.items()
        }
    mean, often = moments[-1, :d] / n, moments[-1, d : d + classes] / n
    covariance = moments[:d, :d] - n * np.outer(mean, mean)
    cross = 2 * (moments[:d, d : d + classes] - n * np.outer(mean, often))  # of targets -1 and +1
    variance = np.maximum(np.diag(covariance), 0) / n
    rounding = NOISE * np.diag(moments)[:d] / n
    live = variance > rounding
    deviation = np.sqrt(variance)
    typical = np.sqrt(np.mean(variance[live])) if live.any() else 1.0
    # A channel that does not vary is left out: divided by `epsilon`, whatever it did on other
    # images would drown all else.
    scale = np.where(live, deviation + epsilon * typical, np.inf)
    whitened = covariance / scale[:, None] / scale[None, :]
    eigenvalues, basis = np.linalg.eigh(whitened)
    eigenvalues, basis = np.maximum(eigenvalues[-rank:], 0), basis[:, -rank:]
    projection = basis.T @ (cross / scale[:, None])
    return {
        "mean": mean,
        "scale": scale,
        "basis": basis.astype(np.float32),  # the large ones, and the device has no more digits
        "eigenvalues": eigenvalues,
        "projection": projection.astype(np.float32),
    }
