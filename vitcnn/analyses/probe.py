"""Accuracy of linear probes, fitted by `probe_fit` (paper: Figs 11, 13, D.4, F.1 to F.3).

A probe takes three passes over images, and each is a job of the same name: the fit on training
images; the choice of the L2 penalty on other training images; the accuracy on test images (paper,
appendix A). The last two passes are the same analysis, this one.

    config.stages.fit = stage(data=...)                 # training images, say 10 of each class
    config.stages.fit.analyses.probe = analysis("probe_fit", features=("class", "spatial"))
    config.stages.held_out = stage(data=...)            # other training images
    config.stages.held_out.analyses.probe = analysis("probe")
    config.data = ...                                   # test images
    config.analyses.probe = analysis("probe")

What the probes read (features, positions, patches, draws) is set once, in the job of the fit. Only
`taps` and `models`, where they are not the defaults, are set in every job, and have to be the same.
The two stages may have other names, see `Settings`; they run in the order of their names.

Without a stage `held_out` the penalty is chosen on the images of the run itself. That is right in
the stage `held_out`, where it is the purpose. On test images it makes the accuracy an upper bound
(the Result and the figure say so). With a single entry in `penalties` there is nothing to choose.

All penalties are scored at once, each image by each probe, in one pass. An image takes, for each
layer and draw, D^2 + penalties * D * C products: 37 million for 16 penalties, C = 1000 classes and
D = 2048 channels.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Float

from vitcnn.analyses import ALL, Config, Group, Traits, figure, probe_fit
from vitcnn.numerics.arrays import Array
from vitcnn.numerics.statistics import wilson
from vitcnn.probes import features as probe_features
from vitcnn.probes import scoring
from vitcnn.results.datasets import DEPTH_TITLE, relative_depth, variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = probe_fit.TAPS
TRAITS = Traits(
    one_model=True,
    labels=True,
    images=ALL,
    stages=("fit",),
)

NAMES = {
    "class": "class token",
    "spatial": "mean of positions",
    "all": "mean of all tokens",
    "first": "first position",
    "tokens": "single positions",
    "whole": "whole layer",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      fit: the stage in which the job of the same name fitted the probes.
      held_out: the stage in which the job of the same name chose the penalties, if there is one.
      penalties: L2 penalties in units of the whitened X'X, a sum over images: the eigenvalue
        that a penalty halves. The few-shot probe of big_vision takes 2^10.
      intercept: a constant feature whose weight, penalised like all others, is the intercept; 0 for
        an intercept without a penalty. The few-shot probe of big_vision takes 100.
    """

    fit: str = "fit"
    held_out: str = "held_out"
    penalties: tuple[float, ...] = tuple(2.0**k for k in range(-10, 21, 2))
    intercept: float = 0.0


def measure(group: Group, config: Config, given: Mapping) -> dict:
    """Returns the number of correct answers, by tap and feature [draw, penalty, (position)].

    Where a stage chose a penalty for each probe, the chosen penalty comes last, after those of the
    field `penalties`.

    Raises:
      ValueError: the fit, or the choice of penalties, belongs to other taps or fewer classes.
    """
    (view,) = group.models.values()
    penalties = _penalties(config)
    fit, probes = scoring.fitted(config.fit, config.layers, given)
    draws, classes = fit["target_mean"].shape
    if config.classes > classes:
        raise ValueError(
            f"the images here have {config.classes} classes, those of the fit {classes}; use data "
            "of the same classes for both"
        )
    features = _present(probes)
    chosen = _chosen_penalty(config, given, (len(probes), len(features), draws))
    labelled = (group.label >= 0) & (group.label < classes)
    label = jnp.where(labelled, group.label, -1)
    sums = {"images": jnp.sum(labelled), "unlabelled": jnp.sum(~labelled), "right": {}}
    # `finalize` sees only sums, so constants of the fit that it needs travel with the sums, times
    # the number of images.
    sums["classes"] = jnp.float32(classes * len(label))
    if "cell" in fit:
        sums["cell"] = fit["cell"] * len(label)
    if chosen is not None:
        sums["penalty"] = chosen * len(label)
        sums["held_out"] = given[config.held_out]["accuracy"] * len(label)
    grid = jnp.broadcast_to(jnp.array(penalties, jnp.float32), (draws, len(penalties)))
    last, _ = probe_features.last(config.infos)

    def intercepts(penalties):
        return scoring.intercepts(fit["target_mean"], fit["images"], penalties, config.intercept)

    for i, ((_, tap), info) in enumerate(zip(config.layers, config.infos, strict=True)):
        sums["right"][tap] = {}
        for feature in probes[tap]:
            parts = {p: fit[scoring.variable(tap, feature, p)] for p in scoring.PARTS}
            side = scoring.side(info, feature, parts["mean"].shape[-1])
            x = probe_features.take(view.taps[tap], info, feature, side, last)
            if feature == "tokens":
                x = x[:, fit["cell"]].swapaxes(0, 1)
            scored = grid
            if chosen is not None:
                own = chosen[i, features.index(feature), :, None]
                scored = jnp.concatenate([grid, own], axis=1)
            sums["right"][tap][feature] = scoring.count_right(
                x, parts, intercepts(scored), scored, label
            )
    return sums


def _chosen_penalty(
    config: Config, given: Mapping, shape: tuple[int, int, int]
) -> Float[Array, "layer feature draw"] | None:
    """Returns the penalties that the stage `held_out` chose, None without such a stage.

    Raises:
      ValueError: a stage that the config names chose none, or chose for other probes.
    """
    chosen = given.get(config.held_out, {}).get("chosen_penalty")
    if chosen is None:
        if config.held_out != Settings().held_out:
            raise ValueError(
                f"held_out = {config.held_out!r}: no such stage with a job of this name runs before"
            )
        return None
    if chosen.shape != shape:
        raise ValueError(
            f"the stage {config.held_out!r} chose {list(chosen.shape)} penalties, expected "
            f"{list(shape)} (layers, features, draws): give its job the same taps as the fit"
        )
    return chosen


def _penalties(config: Config) -> list[float]:
    """Returns the penalties of the config, from small to large.

    Raises:
      ValueError: there are none, or not all are numbers above 0.
    """
    penalties = sorted({float(p) for p in config.penalties})
    if not penalties or penalties[0] <= 0 or not math.isfinite(penalties[-1]):
        raise ValueError(f"penalties = {tuple(config.penalties)}: expected numbers above 0")
    return penalties


def _present(probes: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the features that some tap has, in the order of the Result."""
    return [f for f in probe_features.ORDER if any(f in features for features in probes.values())]


def finalize(sums: Mapping, config: Config) -> xarray.Dataset:
    """Returns the accuracy of every probe.

    Layers have a coordinate `depth`, 0 at the first and 1 at the last. A feature that a layer does
    not have is NaN.

    Variables:
      accuracy [layer, feature]: accuracy with the chosen penalties, mean over draws; for "tokens"
        over positions too. Its standard error is over the test images.
      accuracy_spread [layer, feature]: standard error over the training images, the standard
        deviation over draws / sqrt(draws); NaN for one draw.
      accuracy_interval [layer, feature, bound]: Wilson's 95% interval for that share of the test
        images. Draws and positions of one image do not count as trials of their own. The interval
        does not include that training images were drawn for the fit; see accuracy_draw.
      accuracy_draw [layer, feature, draw]: accuracy for each draw of training images.
      accuracy_penalty [layer, feature, draw, penalty]: accuracy with each penalty of the field
        `penalties`.
      chosen_penalty [layer, feature, draw]: one penalty for all positions; from the stage
        `held_out`, otherwise the best on these images, and the largest of equally good ones.
      gain [layer, feature]: accuracy minus that of the last layer that has the feature; its
        standard error is over the test images.
      gain_spread [layer, feature]: its standard error over the training images, as of the accuracy.
      held_out_accuracy [layer, feature]: accuracy on the images of the stage `held_out`, if there
        is one. A layer that is chosen by it is not chosen by the test images.
      images: number of labelled images.
      token_accuracy [layer, row, column]: accuracy of the probe of each position, mean over draws.
    Attributes: `chance`, 1 / classes of the fit; `penalty_chosen_on`, "held_out" or "these images"
    (or "" with only one penalty).
    """
    if sums["unlabelled"]:
        warnings.warn(
            f"{int(sums['unlabelled'])} images have no label and do not count", stacklevel=2
        )
    penalties = np.array(_penalties(config))
    probes = {tap: tuple(sums["right"][tap]) for _, tap in config.layers}
    layers, features = list(probes), _present(probes)
    images = sums["images"] if sums["images"] else np.nan
    scores = _scores(sums, config, features, penalties)
    accuracy = scores.by_draw.mean(2)
    draws = scores.by_draw.shape[2]
    gains = scores.by_draw - _last(scores.by_draw)
    spread, spread_of_gain = (
        x.std(2, ddof=1) / np.sqrt(draws) if draws > 1 else accuracy * np.nan
        for x in (scores.by_draw, gains)
    )
    chosen_on = "held_out" if "penalty" in sums else "these images" if len(penalties) > 1 else ""
    remark = ", best penalty on these images" if chosen_on == "these images" else ""
    of_draws = "standard error from the draws of training images"
    interval, count = wilson(accuracy, images), np.int64(sums["images"])
    dims, by_draw = ("layer", "feature"), ("layer", "feature", "draw")
    by_bound, by_penalty = (*dims, "bound"), (*by_draw, "penalty")
    variables = {
        "accuracy": variable(dims, accuracy, f"accuracy of linear probes{remark}"),
        "accuracy_spread": variable(dims, spread, of_draws, estimate=False),
        "accuracy_interval": variable(
            by_bound, interval, "95% interval of the accuracy", estimate=False
        ),
        "accuracy_draw": variable(by_draw, scores.by_draw, "accuracy of each draw"),
        "accuracy_penalty": variable(by_penalty, scores.by_penalty, "accuracy with each penalty"),
        "chosen_penalty": variable(
            by_draw, scores.penalty, "chosen L2 penalty", None, estimate=False
        ),
        "gain": variable(dims, gains.mean(2), "accuracy minus that of the last layer"),
        "gain_spread": variable(dims, spread_of_gain, of_draws, estimate=False),
        "images": variable((), count, "labelled images", None),
    }
    if "held_out" in sums:
        held_out = sums["held_out"] / (sums["images"] + sums["unlabelled"])
        of_held_out = "accuracy on the images that chose the penalty"
        variables["held_out_accuracy"] = variable(dims, held_out, of_held_out, estimate=False)
    if "tokens" in features:
        variables["token_accuracy"] = variable(
            ("layer", "row", "column"), scores.maps, "accuracy of a linear probe of each position"
        )
    coords = {
        "layer": layers,
        "feature": features,
        "penalty": penalties,
        "bound": ["lower", "upper"],
        "depth": ("layer", relative_depth(len(layers))),
    }
    chance = float((sums["images"] + sums["unlabelled"]) / sums["classes"])
    return xarray.Dataset(variables, coords, {"chance": chance, "penalty_chosen_on": chosen_on})


def _last(
    by_draw: Float[np.ndarray, "layer feature draw"],
) -> Float[np.ndarray, "feature draw"]:
    """Returns the accuracy of each feature in the last layer that has it."""
    there = np.isfinite(by_draw).all(2)
    last = len(there) - 1 - np.argmax(there[::-1], axis=0)
    return by_draw[last, np.arange(by_draw.shape[1])]


class _Scores(NamedTuple):
    """Accuracy of all probes, NaN for a feature that a layer does not have.

    Attributes:
      by_draw: accuracy with the chosen penalty.
      by_penalty: accuracy with each penalty.
      penalty: the chosen penalty.
      maps: accuracy of the feature "tokens" at each position, mean over draws.
    """

    by_draw: Float[np.ndarray, "layer feature draw"]
    by_penalty: Float[np.ndarray, "layer feature draw penalty"]
    penalty: Float[np.ndarray, "layer feature draw"]
    maps: Float[np.ndarray, "layer row column"]


def _scores(
    sums: Mapping, config: Config, features: Sequence[str], penalties: Float[np.ndarray, " penalty"]
) -> _Scores:
    """Returns the accuracy of every probe, with each penalty and with the chosen one."""
    right, layers = sums["right"], [tap for _, tap in config.layers]
    images = sums["images"] if sums["images"] else np.nan
    all_images = sums["images"] + sums["unlabelled"]  # by which the constants were multiplied
    draws = len(next(iter(right[layers[0]].values())))
    shape = (len(layers), len(features), draws)
    by_draw, penalty = np.full(shape, np.nan), np.full(shape, np.nan)
    by_penalty = np.full((*shape, len(penalties)), np.nan)
    grid, _ = probe_features.last(config.infos)
    maps = np.full((len(layers), *(grid or (0, 0))), np.nan)
    for i, tap in enumerate(layers):
        for feature, counts in right[tap].items():
            j = features.index(feature)
            share = counts / images
            mean = share.reshape(*share.shape[:2], -1).mean(2)
            by_penalty[i, j] = mean[:, : len(penalties)]
            if "penalty" in sums:
                best = np.full(draws, len(penalties))
                penalty[i, j] = sums["penalty"][i, j] / all_images
            else:
                # Reversed, so that argmax takes the largest of equally good penalties.
                best = len(penalties) - 1 - np.argmax(np.nan_to_num(mean[:, ::-1], nan=-1), axis=1)
                penalty[i, j] = penalties[best]
            by_draw[i, j] = mean[np.arange(draws), best]
            if feature == "tokens":
                cells = np.rint(sums["cell"] / all_images).astype(int)
                places = np.unravel_index(cells, grid)
                maps[i][places] = share[np.arange(draws), best].mean(0)
    return _Scores(by_draw, by_penalty, penalty, maps)


@figure(
    "Linear probes",
    "Test accuracy of a ridge classifier on the features of one layer, by relative depth (paper: "
    "Figs 11, 13); the penalty was chosen on held-out training images. Bands: 95%, over the "
    "test images drawn and, with several draws of training images, over these draws. Dashed: "
    "chance.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws accuracy by depth, one curve a feature, with 95% bands, and the level of chance."""
    from vitcnn import figures

    panels = []
    for result in results:
        panels.append({})
        for feature in result.feature.values.tolist():
            rows = result.sel(feature=feature)
            rows = rows.isel(layer=np.isfinite(rows.accuracy.values))
            error = np.hypot(rows.accuracy_standard_error, rows.accuracy_spread.fillna(0))
            panels[-1][NAMES[feature]] = (rows.depth, 100 * rows.accuracy, 100 * error)
    optimistic = any(result.attrs["penalty_chosen_on"] == "these images" for result in results)
    drawing = figures.curves(
        results,
        panels,
        DEPTH_TITLE,
        "accuracy, best penalty (%)" if optimistic else "test accuracy (%)",
        [(100 * result.attrs["chance"], "chance") for result in results],
    )
    for axes in drawing.axes:
        axes.xaxis.get_major_locator().set_params(integer=False, nbins=5)
    return drawing


@figure(
    "Probes of single positions",
    "Test accuracy of a probe at each position of the grid (paper: Fig. D.4).",
)
def draw_tokens(results: Sequence[xarray.Dataset], layers: int = 6) -> Figure | None:
    """Draws the accuracy of single positions as maps (paper: Fig. D.4), each on its own scale.

    Args:
      results: Results; those without the feature "tokens" are left out.
      layers: greatest number of layers of each Result, evenly spaced over the layers with probes
        of single positions.

    Returns:
      The figure, or None if no Result has the feature "tokens".
    """
    from vitcnn import figures

    results = [result for result in results if "token_accuracy" in result]
    if not results:
        return None
    panels = []
    for result in results:
        maps = 100 * result.token_accuracy
        maps = maps.isel(layer=np.isfinite(maps.values).any((1, 2)))
        drawn = np.unique(np.linspace(0, len(maps) - 1, layers).round().astype(int))
        panels.append([figures.Map(str(m.layer.values), m.values) for m in maps[drawn]])
    return figures.maps(results, panels, "accuracy of a probe of each position (%)", shared=False)
