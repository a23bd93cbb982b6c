"""Layer CKA: each layer of one network with the same layer of another (paper: Figs 12, G.1).

The networks have the same taps: one network before and after fine-tuning, or trained on a part and
on all of the images. Of two trainings that differ in nothing but the seed, CKA is below 1 too; that
pair is the ceiling of all others, which the paper does not show. Name it in `ceiling` where there
is one. The paper does not say which tensor of a block it compares; the default is its output.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray

from vitcnn import tap_layout
from vitcnn.analyses import Config, Group, Traits, figure
from vitcnn.lookup import check_name
from vitcnn.results.datasets import relative_depth, variable
from vitcnn.similarity import hsic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAPS = ("*block*/out", "stage*/unit*/out")
TRAITS = Traits(
    images=10_240,  # as CKA
    least_group=hsic.MIN_GROUP,
)
CEILING = "same training, other seed"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that a config can change.

    Attributes:
      reference: name of the model that all others are compared with; "" for the first.
      ceiling: names of two models that differ in nothing but the seed of their training; () if
        there are none.
      tokens: "all"; or "class" or "spatial", of taps with a class token.
    """

    reference: str = ""
    ceiling: tuple[str, ...] = ()
    tokens: str = "all"


def measure(group: Group, config: Config, given: Mapping) -> dict[str, hsic.HsicSums]:
    """Returns for every tap the HSIC sums of all models.

    Raises:
      ValueError: there is one model only, the models have different taps, or a setting is unknown.
    """
    tap_layout.check_tokens(config.tokens, config.infos)
    pairs(config)
    taps = {model: list(view.taps) for model, view in group.models.items()}
    (first, of_first), *others = taps.items()
    for model, of_model in others:
        different = [
            tap for tap in [*of_first, *of_model] if (tap in of_first) != (tap in of_model)
        ]
        if different:
            raise ValueError(
                f"{first} and {model} have different taps ({', '.join(different[:3])}): this "
                "analysis compares networks of one shape; choose taps that all have (field taps), "
                "or other models (field models)"
            )
    views = group.models.values()
    return {
        tap: hsic.hsic_sums([view.u_centred_gram(tap, config.tokens) for view in views])
        for tap in of_first
    }


def pairs(config: Config) -> dict[str, tuple[int, int]]:
    """Returns the pairs that are compared: name -> the numbers of the two models.

    Raises:
      ValueError: there is one model only, or a setting names a model that is not there.
    """
    models = list(dict.fromkeys(model for model, _ in config.layers))
    if len(models) < 2:
        raise ValueError("one model alone has nothing to be compared with: name two or more")
    ceiling = tuple(config.ceiling)
    for model in (*ceiling, *([config.reference] if config.reference else [])):
        check_name("model", model, models)
    if ceiling and len(set(ceiling)) != 2:
        raise ValueError(f"ceiling = {ceiling}: expected the names of two models, or ()")
    reference = models.index(config.reference) if config.reference else 0
    chosen = {(reference, i) for i in range(len(models)) if i != reference}
    at = tuple(models.index(model) for model in ceiling)
    compared = sorted(pair for pair in chosen if set(pair) != set(at))
    compared += [at] if at else []
    return {f"{models[a]} and {models[b]}": (a, b) for a, b in compared}


def finalize(sums: Mapping[str, hsic.HsicSums], config: Config) -> xarray.Dataset:
    """Returns the CKA of each layer with the same layer of another network.

    Variable cka [pair, layer]: unbiased linear CKA.
    Coordinates: depth [layer], 0 for the first and 1 for the last; is_ceiling [pair], whether the
    two networks differ in nothing but the seed of their training.
    """
    compared, layers = pairs(config), list(sums)
    models = list(dict.fromkeys(model for model, _ in config.layers))
    matrices = [hsic.cka(total, [f"{m}/{tap}" for m in models]) for tap, total in sums.items()]
    values = np.array([[matrix[pair] for matrix in matrices] for pair in compared.values()])
    at = {models.index(model) for model in config.ceiling}
    title = f"unbiased linear CKA with the same layer{tap_layout.TOKENS[config.tokens]}"
    return xarray.Dataset(
        {"cka": variable(("pair", "layer"), values, title)},
        {
            "pair": list(compared),
            "is_ceiling": ("pair", [bool(at) and set(p) == at for p in compared.values()]),
            "layer": layers,
            "depth": variable("layer", relative_depth(len(layers)), "relative depth", None),
        },
    )


@figure(
    "The same layer of two networks",
    "CKA of each layer of one network with the same layer of another (paper: Figs 12, G.1). "
    "Dashed: two networks that differ in nothing but the seed of their training, where they were "
    "named.",
)
def draw(results: Sequence[xarray.Dataset]) -> Figure:
    """Draws CKA by layer, one curve for each pair, with the ceiling as a dashed line."""
    from vitcnn import figures

    panels, ceilings = [], []
    for result in results:
        place = np.arange(result.sizes["layer"])
        panels.append({})
        ceilings.append((float("nan"), CEILING))
        for pair in result.pair.values.tolist():
            rows = result.sel(pair=pair)
            if rows.is_ceiling:
                ceilings[-1] = ((place, rows.cka.values), CEILING)
            else:
                panels[-1][pair] = (place, rows.cka, rows.cka_standard_error)
    has_ceiling = any(np.ndim(at) for at, _ in ceilings)
    reference = ceilings if has_ceiling else ()
    return figures.curves(results, panels, "layer, from 0", "CKA with the same layer", reference)
