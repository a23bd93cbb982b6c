"""Accuracy of linear probes, fitted by `probe_fit` (paper: Figs 11, 13, D.4, F.1 to F.3).

Three legs under one name: the fit on training images; the L2 penalty, chosen on other training
images; the accuracy on test images (paper, appendix A). The same analysis does the last two.

    config.stages.fit.data = ...                        # training images, say 10 of each class
    config.stages.fit.analyses.probe = plan.job(analysis="probe_fit", features=("class", "spatial"))
    config.stages.held_out.data = ...                   # other training images
    config.stages.held_out.analyses.probe = plan.job(analysis="probe")
    config.data = ...                                   # test images
    config.analyses.probe = plan.job(analysis="probe")

What is probed (features, positions, patches, draws) is said once, to the fit; only `taps` and
`models`, where they are not the defaults, are said to every leg, and have to be the same. The two
stages may have other names, see `FIELDS`; their order is that of their names.

Without a stage `held_out` the penalty is chosen on the images of the run itself. That is the choice
that the stage `held_out` makes, and there it is right; of test images it makes the accuracy an
upper end (the Result and the figure say so). One entry in `penalties` leaves nothing to choose.

All penalties are scored at once, each image by each probe, in one pass: per image, layer and draw
D^2 + penalties * D * C products (for 16 penalties, 1000 classes and D = 2048 channels 37 million).
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import xarray

from vitcnn.analyses import ALL, Traits, figure, probe_fit
from vitcnn.numerics.statistics import wilson
from vitcnn.probes import features as probe_features
from vitcnn.probes import scoring
from vitcnn.results.datasets import NO_ERROR

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
    """What a config sets.

    Attributes:
      fit: the stage in which the job of this name fitted the probes.
      held_out: the stage in which the job of this name chose the penalties, if there is one.
      penalties: L2 penalties in units of the whitened X'X, a sum over images: the eigenvalue
        that a penalty halves. big_vision's few-shot probe takes 2^10.
    """

    fit: str = "fit"
    held_out: str = "held_out"
    penalties: tuple[float, ...] = tuple(2.0**k for k in range(-10, 21, 2))


def measure(group, config, given):
    """Returns counts of right answers: by tap and feature [draw, penalty, (position)].

    Where a stage chose a penalty for each probe it is scored as one more, behind the others.

    Raises:
      ValueError: the fit, or the choice of penalties, was made for other taps or fewer classes.
    """
    (view,) = group.models.values()
    penalties = _grid(config)
    fit, probes = scoring.fitted(config, given)
    draws, classes = fit["target_mean"].shape
    if config.classes > classes:
        raise ValueError(
            f"the images here have {config.classes} classes, those of the fit {classes}; use data "
            "of the same classes for both"
        )
    features = _present(probes)
    # Counted like a top-1 accuracy; see there.
    known = (group.label >= 0) & (group.label < classes)
    images, unlabelled = jnp.sum(known), jnp.sum(~known)
    label = jnp.where(known, group.label, -1)
    grid = jnp.broadcast_to(jnp.array(penalties, jnp.float32), (draws, len(penalties)))
    sums = {"images": images, "unlabelled": unlabelled, "right": {}}
    # What was given and finalize needs too travels with the sums, times the number of images.
    sums["classes"] = jnp.float32(classes * len(label))
    if "cell" in fit:
        sums["cell"] = fit["cell"] * len(label)
    chosen = given.get(config.held_out, {}).get("chosen_penalty")
    if chosen is None and config.held_out != Settings().held_out:
        raise ValueError(f"held_out = {config.held_out!r}: no such stage with this probe before")
    if chosen is not None:
        if chosen.shape != (len(probes), len(features), draws):
            raise ValueError(
                f"the stage {config.held_out!r} chose {list(chosen.shape)} penalties, expected "
                f"{[len(probes), len(features), draws]}: give its job the same taps as the fit"
            )
        sums["penalty"] = chosen * len(label)
    last, _ = probe_features.last(config.infos)
    for i, ((_, tap), info) in enumerate(zip(config.layers, config.infos, strict=True)):
        sums["right"][tap] = {}
        for feature in probes[tap]:
            parts = {p: fit[scoring.variable(tap, feature, p)] for p in scoring.PARTS}
            side = scoring.side(info, feature, parts["mean"].shape[-1])
            x = probe_features.take(view.taps[tap], info, feature, side, last)
            if feature == "tokens":
                x = x[:, fit["cell"]].swapaxes(0, 1)
            tried = grid
            if chosen is not None:
                own = chosen[i, features.index(feature), :, None]
                tried = jnp.concatenate([grid, own], axis=1)
            sums["right"][tap][feature] = scoring.count_right(
                x, parts, fit["target_mean"], tried, label
            )
    return sums


def _grid(config) -> list[float]:
    """Returns the penalties, from small to large."""
    penalties = sorted({float(p) for p in config.penalties})
    if not penalties or penalties[0] <= 0 or not math.isfinite(penalties[-1]):
        raise ValueError(f"penalties = {tuple(config.penalties)}: expected numbers above 0")
    return penalties


def _present(probes: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the features that some tap has, in order."""
    return [f for f in probe_features.EVERY if any(f in features for features in probes.values())]


def finalize(sums, config) -> xarray.Dataset:
    """Returns the accuracy of every probe.

    Layers have a coordinate `depth`, 0 at the first and 1 at the last. A feature that a layer does
    not have is NaN.

    Variables:
      accuracy [layer, feature]: of the chosen penalties, mean over draws; for "tokens" over
        positions too. Its standard error is that of the test images.
      accuracy_spread [layer, feature]: standard error from the training images, the deviation over
        draws / sqrt(draws); NaN for one draw.
      accuracy_interval [layer, feature, bound]: 95% of Wilson for that share of the test images
        (draws and positions of one image are no trials of their own; that classes were drawn for
        the fit is not in it, see accuracy_draw).
      accuracy_draw [layer, feature, draw]: of each draw of training images.
      accuracy_penalty [layer, feature, draw, penalty]: of each penalty of the field `penalties`.
      chosen_penalty [layer, feature, draw]: one for all positions; of the stage `held_out`, else
        the best on these images, of equals the largest.
      token_accuracy [layer, row, column]: of the probe of each position, mean over draws.
    Attributes: `chance`, 1 / classes of the fit; `penalty_chosen_on`, "held_out" or "these images"
    (or "" with only one penalty).
    """
    right, penalties = sums["right"], np.array(_grid(config))
    probes = {tap: tuple(by_feature) for tap, by_feature in right.items()}
    probes = {tap: probes[tap] for _, tap in config.layers}
    features, layers = _present(probes), list(probes)
    every = sums["images"] + sums["unlabelled"]
    images = sums["images"] if sums["images"] else np.nan
    if sums["unlabelled"]:
        warnings.warn(
            f"{int(sums['unlabelled'])} images have no label and do not count", stacklevel=2
        )
    draws = len(next(iter(right[layers[0]].values())))
    shape = (len(layers), len(features), draws)
    by_draw, chosen = np.full(shape, np.nan), np.full(shape, np.nan)
    by_penalty = np.full((*shape, len(penalties)), np.nan)
    grid, _ = probe_features.last(config.infos)
    maps = np.full((len(layers), *(grid or (0, 0))), np.nan)
    for i, tap in enumerate(layers):
        for j, feature in enumerate(features):
            if feature not in right[tap]:
                continue
            share = right[tap][feature] / images
            mean = share.reshape(*share.shape[:2], -1).mean(2)
            by_penalty[i, j] = mean[:, : len(penalties)]
            if "penalty" in sums:
                best = np.full(draws, len(penalties))
                chosen[i, j] = sums["penalty"][i, j] / every
            else:  # the last of the largest
                best = len(penalties) - 1 - np.argmax(np.nan_to_num(mean[:, ::-1], nan=-1), axis=1)
                chosen[i, j] = penalties[best]
            by_draw[i, j] = mean[np.arange(draws), best]
            if feature == "tokens":
                places = np.unravel_index(np.rint(sums["cell"] / every).astype(int), grid)
                maps[i][places] = share[np.arange(draws), best].mean(0)
    accuracy = by_draw.mean(2)
    spread = by_draw.std(2, ddof=1) / np.sqrt(draws) if draws > 1 else accuracy * np.nan
    on = "held_out" if "penalty" in sums else "these images" if len(penalties) > 1 else ""
    said = "" if on != "these images" else ", best penalty on these images"
    unit, none = {"units": "1"}, {NO_ERROR: "none"}
    per = ("layer", "feature")
    variables = {
        "accuracy": (per, accuracy, {"long_name": f"accuracy of linear probes{said}", **unit}),
        "accuracy_spread": (
            per,
            spread,
            {"long_name": "standard error from the draws of training images", **unit, **none},
        ),
        "accuracy_interval": (
            (*per, "bound"),
            wilson(accuracy, images),
            {"long_name": "95% interval of the accuracy", **unit, **none},
        ),
        "accuracy_draw": ((*per, "draw"), by_draw, {"long_name": "accuracy of each draw", **unit}),
        "accuracy_penalty": (
            (*per, "draw", "penalty"),
            by_penalty,
            {"long_name": "accuracy with each penalty", **unit},
        ),
        "chosen_penalty": ((*per, "draw"), chosen, {"long_name": "chosen L2 penalty", **none}),
        "images": ((), np.int64(sums["images"]), {"long_name": "labelled images"}),
    }
    if "tokens" in features:
        attrs = {"long_name": "accuracy of a linear probe of each position", **unit}
        variables["token_accuracy"] = (("layer", "row", "column"), maps, attrs)
    coordinates = {
        "layer": layers,
        "feature": features,
        "penalty": penalties,
        "bound": ["lower", "upper"],
        "depth": ("layer", np.arange(len(layers)) / max(1, len(layers) - 1)),
    }
    attrs = {"chance": float(every / sums["classes"]), "penalty_chosen_on": on}
    return xarray.Dataset(variables, coordinates, attrs)


@figure(
    "Linear probes",
    "Test accuracy of a ridge classifier on what one layer holds, by relative depth (paper: "
    "Figs 11, 13); the penalty was chosen on held-out training images. Bands: 95%, of the "
    "test images drawn and, with several draws of training images, of these. Dashed: "
    "chance.",
)
def draw(results: Sequence[xarray.Dataset]):
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
    chosen = any(result.attrs["penalty_chosen_on"] == "these images" for result in results)
    figure = figures.curves(
        results,
        panels,
        "relative depth (first layer 0, last 1)",
        "accuracy, best penalty (%)" if chosen else "test accuracy (%)",
        [(100 * result.attrs["chance"], "chance") for result in results],
    )
    for axes in figure.axes:
        axes.xaxis.get_major_locator().set_params(integer=False, nbins=5)
    return figure


@figure(
    "Probes of single positions",
    "Test accuracy of a probe at each position of the grid (paper: Fig. D.4).",
)
def draw_tokens(results: Sequence[xarray.Dataset], layers: int = 6):
    """Draws the accuracy of single positions as maps (paper: Fig. D.4), each on its own scale.

    Args:
      results: Results; those without the feature "tokens" are left out.
      layers: at most so many of each, evenly spaced over those that have it.

    Returns None if no Result has it.
    """
    from vitcnn import figures

    results = [result for result in results if "token_accuracy" in result]
    if not results:
        return None
    panels = []
    for result in results:
        maps = 100 * result.token_accuracy
        maps = maps.isel(layer=np.isfinite(maps.values).any((1, 2)))
        some = np.unique(np.linspace(0, len(maps) - 1, layers).round().astype(int))
        panels.append([figures.Map(str(m.layer.values), m.values) for m in maps[some]])
    return figures.maps(results, panels, "accuracy of a probe of each position (%)", shared=False)
