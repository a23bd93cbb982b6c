"""Claims: what the paper says of ViTs and ResNets, asked of the models that were measured.

One function a claim: a Result and two of its models -> effect, 95% interval and verdict. A claim
holds when the whole interval of its effect is above zero, does not hold when the whole interval is
below, and else the data cannot tell.

Intervals are the estimate +- 1.96 jackknife standard errors. They say how far the numbers depend on
which images were drawn, for these very networks; they say nothing of other training runs. Claims 2
and 3 rest on the best match of a layer, the argmax of a row of CKA. An argmax jumps from layer to
layer where two layers are nearly as similar, and the jackknife of a statistic that jumps is rough:
it is too wide where a jump falls between blocks of images, and zero where no left-out block
changes any match. Take those intervals as a guide.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import xarray

from vitcnn import results as results_

VIT_FAMILIES = ("vit",)
RESNET_FAMILIES = ("resnet",)
Z = 1.96  # standard errors in half of a 95% interval
ROUNDING = 1e-9  # effects below are zero
FEW = 10  # groups below which 1.96 is clearly too small a multiple
ROUGH = "Rests on best matches (argmax), for which the jackknife interval is rough."


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim of the paper, asked of two models.

    Attributes:
      number: number of the claim.
      statement: the claim, of ViTs and ResNets in general.
      effect_name: what the effect is, with its unit.
      definition: how it is computed, in words.
      effect: the estimate; positive speaks for the claim. NaN if it is not defined.
      interval: its 95% interval.
      verdict: "holds", "does not hold" or "cannot tell".
      models: names of the ViT and of the ResNet.
      source: figure of the paper.
      note: why the data cannot tell, or what to mind.
    """

    number: int
    statement: str
    effect_name: str
    definition: str
    effect: float
    interval: tuple[float, float]
    verdict: str
    models: tuple[str, str]
    source: str
    note: str = ""

    def __str__(self) -> str:
        low, high = self.interval
        lines = [
            f"Claim {self.number} ({self.source}), {' and '.join(self.models)}: {self.statement}",
            f"  {self.verdict.upper()}: {self.effect_name} = {self.effect:.3f}, "
            f"95% interval {low:.3f} to {high:.3f}",
            f"  ({self.definition})",
        ]
        return "\n".join(lines + [f"  {self.note}"] * bool(self.note))


def similar_throughout(result: xarray.Dataset, vit: str, resnet: str) -> Claim:
    """Claim 1: lower and higher layers are more similar in ViTs than in ResNets (Fig. 1).

    Args:
      result: Result of the analysis `cka`.
      vit, resnet: names of two of its models.
    """
    effect, error = _read(result, "lower_upper_difference", vit, resnet)
    return _claim(
        1,
        "Lower and higher layers are more similar to each other in a ViT than in a ResNet.",
        f"CKA of lower with upper layers, {vit} minus {resnet}",
        "mean CKA of the lowest third of a model's layers with its highest third; the difference "
        "of the two means, from -1 to 1",
        (effect, error),
        (vit, resnet),
        "Fig. 1",
        result,
    )


def low_layers_need_more(result: xarray.Dataset, vit: str, resnet: str) -> Claim:
    """Claim 2: many lower ResNet layers match few lower ViT layers (Fig. 2).

    Args:
      result: Result of the analysis `cka`.
      vit, resnet: names of two of its models.
    """
    effect, error = _read(result, "lower_match_lag", resnet, vit)
    return _claim(
        2,
        "It takes many more lower layers of a ResNet to match the lower layers of a ViT.",
        f"how much deeper lower {resnet} layers lie than their match in {vit} (part of the depth)",
        f"relative depth (0 first layer, 1 last) of a {resnet} layer minus that of the {vit} layer "
        f"with the highest CKA to it, mean over the lower half of {resnet}",
        (effect, error),
        (vit, resnet),
        "Fig. 2",
        result,
        ROUGH,
    )


def top_layers_differ(result: xarray.Dataset, vit: str, resnet: str) -> Claim:
    """Claim 3: the highest layers of a ViT are like no layer of a ResNet (Fig. 2).

    The paper adds that they likely work on the class token; this effect does not test that.

    Args:
      result: Result of the analysis `cka`.
      vit, resnet: names of two of its models.
    """
    effect, error = _read(result, "upper_match_drop", vit, resnet)
    return _claim(
        3,
        "The highest layers of a ViT are less like any layer of a ResNet than its other layers.",
        f"CKA of {vit} layers with their best match in {resnet}, lower thirds minus last",
        f"CKA of a {vit} layer with the {resnet} layer most similar to it, mean over a third of "
        "the depth; the lesser of the first and the middle third, minus the last, from -1 to 1",
        (effect, error),
        (vit, resnet),
        "Fig. 2",
        result,
        ROUGH,
    )


# Analysis -> the claims that are read off its Result, each (result, vit, resnet) -> Claim.
CLAIMS: Mapping[str, tuple[Callable[[xarray.Dataset, str, str], Claim], ...]] = {
    "cka": (similar_throughout, low_layers_need_more, top_layers_differ),
}


def all_claims(results: Mapping[str, xarray.Dataset] | Iterable[xarray.Dataset]) -> list[Claim]:
    """Returns every claim that the Results speak of, for every pair of a ViT and a ResNet.

    Args:
      results: Results with provenance, as `vitcnn.analyze` or `results.load_all` returns them.
    """
    found = []
    for result in results.values() if isinstance(results, Mapping) else results:
        provenance = results_.provenance(result)
        families = {name: model.get("family", "") for name, model in provenance["models"].items()}
        for vit in [name for name, family in families.items() if family in VIT_FAMILIES]:
            for resnet in [n for n, family in families.items() if family in RESNET_FAMILIES]:
                asked = CLAIMS.get(provenance["analysis"], ())
                found += [claim(result, vit, resnet) for claim in asked]
    return sorted(found, key=lambda claim: claim.number)


def _read(result: xarray.Dataset, name: str, x: str, y: str) -> tuple[float, float]:
    """Returns a number of a pair of models and its standard error."""
    at = {"model_x": x, "model_y": y}
    return float(result[name].sel(at)), float(result[f"{name}_standard_error"].sel(at))


def _claim(
    number: int,
    statement: str,
    effect_name: str,
    definition: str,
    measured: tuple[float, float],
    models: tuple[str, str],
    source: str,
    result: xarray.Dataset,
    note: str = "",
) -> Claim:
    effect, error = measured
    low, high = effect - Z * error, effect + Z * error
    provenance = results_.provenance(result)
    groups = math.ceil(provenance["fields"]["images"] / provenance["group"])
    notes = [note] if note else []
    if math.isnan(effect):
        verdict, reason = "cannot tell", "The effect is undefined: no live layers to take it from."
    elif math.isnan(error):
        verdict = "cannot tell"
        reason = f"No error bar: it takes at least two groups of images, and there is {groups}."
    elif low > ROUNDING:
        verdict, reason = "holds", ""
    elif high < -ROUNDING:
        verdict, reason = "does not hold", ""
    else:
        verdict, reason = "cannot tell", "The interval includes zero."
    if error < ROUNDING:
        notes.append("No left-out block changed it: the interval has no width.")
    for name in models:
        if provenance["models"][name].get("weights", {}).get("format") == "random":
            notes.append(f"{name} has random weights.")
    if 1 < groups < FEW:
        notes.append(f"Only {groups} groups of images: the interval is too narrow.")
    if reason:
        notes.insert(0, reason)
    return Claim(
        number,
        statement,
        effect_name,
        definition,
        effect,
        (low, high),
        verdict,
        models,
        source,
        " ".join(notes),
    )
