"""Claims 1 to 3, read off the CKA of the layers of a ViT and of a ResNet."""

from __future__ import annotations

import xarray

from vitcnn.claims._claim import Claim, judge, read

ROUGH = "Rests on best matches (argmax), for which the jackknife interval is rough."


def similar_throughout(result: xarray.Dataset, vit: str, resnet: str) -> Claim:
    """Claim 1: lower and higher layers are more similar in ViTs than in ResNets (Fig. 1).

    Args:
      result: Result of the analysis `cka`.
      vit, resnet: names of two of its models.
    """
    effect, error = read(result, "lower_upper_difference", vit, resnet)
    return judge(
        1,
        "Lower and higher layers are more similar to each other in a ViT than in a ResNet.",
        f"CKA of lower with upper layers, {vit} minus {resnet}",
        "mean CKA of the lowest third of a model's layers with its highest third; the difference "
        "of the two means, from -1 to 1",
        (effect, error),
        (vit, resnet),
        "Fig. 1",
        [result],
    )


def low_layers_need_more(result: xarray.Dataset, vit: str, resnet: str) -> Claim:
    """Claim 2: many lower ResNet layers match few lower ViT layers (Fig. 2).

    Args:
      result: Result of the analysis `cka`.
      vit, resnet: names of two of its models.
    """
    effect, error = read(result, "lower_match_lag", resnet, vit)
    return judge(
        2,
        "It takes many more lower layers of a ResNet to match the lower layers of a ViT.",
        f"how much deeper lower {resnet} layers lie than their match in {vit} (part of the depth)",
        f"relative depth (0 first layer, 1 last) of a {resnet} layer minus that of the {vit} layer "
        f"with the highest CKA to it, mean over the lower half of {resnet}",
        (effect, error),
        (vit, resnet),
        "Fig. 2",
        [result],
        ROUGH,
    )


def top_layers_differ(result: xarray.Dataset, vit: str, resnet: str) -> Claim:
    """Claim 3: the highest layers of a ViT are like no layer of a ResNet (Fig. 2).

    The paper adds that they likely work on the class token; this effect does not test that.

    Args:
      result: Result of the analysis `cka`.
      vit, resnet: names of two of its models.
    """
    effect, error = read(result, "upper_match_drop", vit, resnet)
    return judge(
        3,
        "The highest layers of a ViT are less like any layer of a ResNet than its other layers.",
        f"CKA of {vit} layers with their best match in {resnet}, lower thirds minus last",
        f"CKA of a {vit} layer with the {resnet} layer most similar to it, mean over a third of "
        "the depth; the lesser of the first and the middle third, minus the last, from -1 to 1",
        (effect, error),
        (vit, resnet),
        "Fig. 2",
        [result],
        ROUGH,
    )
