"""Analyses run on arrays in memory, in the place of the taps of networks."""

import jax
import jax.numpy as jnp
import numpy as np

from vitcnn import analyses
from vitcnn.numerics import exact
from vitcnn.taps import TapInfo


def tokens(name, x, prefix=1, **fields):
    """The description of a tap [n, tokens, channels] with a class token and a square grid."""
    side = round((x.shape[1] - prefix) ** 0.5)
    has_class_token = {"class_token": True} if prefix else {}
    shape = x.shape[1:]
    return TapInfo(name, "residual", shape, (side, side), prefix, **has_class_token, **fields)


def vector(name, x):
    """The description of a tap [n, channels]."""
    return TapInfo(name, "pooled", x.shape[1:])


def measured(analysis, models, groups=2, label=None, boxes=None, cues=None, classes=None, **fields):
    """The Result of an analysis of arrays.

    models: model -> list of (TapInfo, array [n, ...]); boxes: array [n, objects, 4].
    """
    layers = [(m, info) for m, taps in models.items() for info, _ in taps]
    n = len(next(iter(models.values()))[0][1])
    cue_classes = tuple((cue, int(of.max()) + 1) for cue, of in (cues or {}).items())
    config = analyses.Config(
        analysis.Settings(**fields),
        tuple((model, info.name) for model, info in layers),
        tuple(info for _, info in layers),
        images=n,
        classes=classes,
        most_boxes=0 if boxes is None else boxes.shape[1],
        cue_classes=cue_classes,
    )
    arrays = {
        "index": np.arange(n),
        "label": np.zeros(n, np.int32) if label is None else label,
        "boxes": boxes,
        "cues": cues or {},
        "taps": {model: {info.name: x for info, x in taps} for model, taps in models.items()},
    }
    infos = {model: {info.name: info for info, _ in taps} for model, taps in models.items()}

    @jax.jit
    def measure(part):
        blank = jnp.zeros((len(part["label"]), 1, 1, 3))
        views = {
            model: analyses.View(
                blank,
                {name: part["taps"][model][name] for name in of_model},  # jit sorts the names
                None,
                of_model,
                None,
                boxes=part["boxes"],
            )
            for model, of_model in infos.items()
        }
        group = analyses.Group(part["label"], part["index"], views, part["cues"])
        return analysis.measure(group, config, {})

    total = None
    for rows in np.array_split(np.arange(n), groups):
        sums = exact.to_host(measure(jax.tree.map(lambda a, rows=rows: a[rows], arrays)))
        total = sums if total is None else jax.tree.map(np.add, total, sums)
    result = analysis.finalize(total, config)
    for name in list(result.data_vars):  # as the engine, which has them from the jackknife
        if f"{name}_standard_error" not in result and not name.endswith("_standard_error"):
            result[f"{name}_standard_error"] = 0 * result[name] + 0.01
    return result
