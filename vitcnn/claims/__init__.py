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

import collections
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import xarray

from vitcnn import results as results_
from vitcnn.claims._claim import Claim
from vitcnn.claims._inside import (
    class_token_skips_first,
    local_and_global_heads,
    low_layers_see_more,
    place_is_kept,
)
from vitcnn.claims._similarity import low_layers_need_more, similar_throughout, top_layers_differ

__all__ = ["Claim", "all_claims"]

VIT_FAMILIES = ("vit",)
RESNET_FAMILIES = ("resnet", "bit")

# Analysis -> the claims that are read off its Results. Of all models in one Result: (result, vit,
# resnet) -> Claim. Of one model: (result, vit) -> Claim. Of one Result a model: ({model: result},
# vit, resnet) -> Claim, or None where it does not ask anything of that ViT.
TOGETHER: Mapping[str, tuple[Callable[..., Claim], ...]] = {
    "cka": (similar_throughout, low_layers_need_more, top_layers_differ),
}
ALONE: Mapping[str, tuple[Callable[..., Claim], ...]] = {
    "attention_distance": (local_and_global_heads,),
    "skip_ratio": (class_token_skips_first,),
}
BETWEEN: Mapping[str, tuple[Callable[..., Claim | None], ...]] = {
    "localization": (place_is_kept,),
    "receptive_field": (low_layers_see_more,),
}


def all_claims(results: Mapping[str, xarray.Dataset] | Iterable[xarray.Dataset]) -> list[Claim]:
    """Returns every claim that the Results speak of, for every ViT, or pair of a ViT and a ResNet.

    Args:
      results: Results with provenance, as `vitcnn.analyze` or `results.load_all` returns them.
    """
    named = results if isinstance(results, Mapping) else {str(i): r for i, r in enumerate(results)}
    found, apart = [], collections.defaultdict(dict)
    for name, result in named.items():
        provenance = results_.provenance(result)
        kind, models = provenance["analysis"], provenance["models"]
        vits, resnets = _families(provenance)
        for vit, resnet in itertools.product(vits, resnets):
            found += [claim(result, vit, resnet) for claim in TOGETHER.get(kind, ())]
        if len(models) == 1:
            (model,) = models
            found += [claim(result, vit) for vit in vits for claim in ALONE.get(kind, ())]
            run = name.rpartition("/")[0], provenance["name"].removesuffix(f".{model}")
            apart[kind, *run][model] = result
    for (kind, *_), by_model in apart.items():
        parts = [_families(results_.provenance(result)) for result in by_model.values()]
        vits, resnets = ([name for part in parts for name in part[i]] for i in range(2))
        for vit, resnet in itertools.product(vits, resnets):
            asked = [claim(by_model, vit, resnet) for claim in BETWEEN.get(kind, ())]
            found += [claim for claim in asked if claim is not None]
    return sorted(found, key=lambda claim: claim.number)


def _families(provenance: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Returns the names of the ViTs and of the ResNets of a Result."""
    families = {name: model.get("family", "") for name, model in provenance["models"].items()}
    return tuple(
        [name for name, family in families.items() if family in known]
        for known in (VIT_FAMILIES, RESNET_FAMILIES)
    )
