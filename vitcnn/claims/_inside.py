"""Claims 4 to 9, read off attention, skip connections, localization and receptive fields."""

from __future__ import annotations

import math
from collections.abc import Mapping

import xarray

from vitcnn import results as results_
from vitcnn.claims._claim import Claim, difference, judge, scalar


def local_and_global_heads(result: xarray.Dataset, vit: str) -> Claim:
    """Claim 4: low ViT layers have local and global heads, high ones global heads only (Fig. 3).

    Args:
      result: Result of the analysis `attention_distance`.
      vit: name of its model.
    """
    return judge(
        4,
        "The lowest layers of a ViT have local heads beside global ones, the highest only global.",
        f"how clearly the heads of {vit} are so, in units of uniform attention",
        "the least of three margins, where uniform attention has distance 1: 0.5 minus the most "
        "local head of the first two layers, their most global head minus 0.7, and the most local "
        "head of the last two layers minus 0.7",
        scalar(result, "local_and_global"),
        (vit,),
        "Fig. 3",
        [result],
        undefined="it takes at least 4 blocks, and numbers that are finite",
    )


def class_token_skips_first(result: xarray.Dataset, vit: str) -> Claim:
    """Claim 5: the class token goes by the skip first, image positions later (Fig. 7).

    Args:
      result: Result of the analysis `skip_ratio`.
      vit: name of its model.
    """
    return judge(
        5,
        "In the first half of a ViT the class token goes by the skip connections and the image "
        "positions by the branches; in the second half it is the other way round.",
        f"how far the two change places half-way through {vit} (log2 of their skip ratios)",
        "log2 of the skip ratio of the class token over that of the positions; the lesser of its "
        "mean in the first half and of minus its mean in the second",
        scalar(result, "phases"),
        (vit,),
        "Fig. 7",
        [result],
        undefined="it takes a class token, and finite numbers of at least two branches",
    )


def place_is_kept(results: Mapping[str, xarray.Dataset], vit: str, resnet: str) -> Claim | None:
    """Claim 7: tokens on top of a ViT still resemble their own patch, unlike a ResNet's (Fig. 9).

    Args:
      results: Results of the analysis `localization` by model.
      vit, resnet: names of two of them.

    Returns:
      None for a ViT without a class token, of which the paper says that place is lost.
    """
    known = results_.provenance(results[vit])["models"][vit]
    if known.get("fields", {}).get("pool") == "gap":
        return None
    last = [results[name].isel(layer=-1) for name in (vit, resnet)]
    grids = [str(end.grid.values) for end in last]
    return judge(
        7,
        "On top of a ViT with a class token a token still resembles its own patch most; the last "
        "layer of a ResNet is blurred.",
        f"share of positions most similar to their own patch, {vit} minus {resnet}",
        "CKA of the token at a position with the patch at every position, last layer of each",
        difference(*(scalar(end, "own_rate") for end in last)),
        (vit, resnet),
        "Figs 9, D.3",
        [results[vit], results[resnet]],
        ""
        if grids[0] == grids[1]
        else f"Grids differ ({' and '.join(grids)} cells), so chance does: set max_positions.",
    )


def low_layers_see_more(results: Mapping[str, xarray.Dataset], vit: str, resnet: str) -> Claim:
    """Claim 9: low layers of a ViT see more of the image than those of a ResNet (Fig. 6).

    Args:
      results: Results of the analysis `receptive_field` by model.
      vit, resnet: names of two of them.
    """

    def low(result):
        rows = result.isel(tap=result.depth.values <= 1 / 3)
        side = math.sqrt(result.sizes["y"] * result.sizes["x"])
        # The images are the same for all layers, so their errors do not average out.
        return tuple(float(rows[n].mean()) / side for n in ("radius", "radius_standard_error"))

    return judge(
        9,
        "Lower layers of a ViT see more of the image than lower layers of a ResNet.",
        f"radius of half the receptive field, {vit} minus {resnet} (part of the image)",
        "radius of the disc that holds the share `mass` of the mean |gradient| of the central "
        "position, mean over the lowest third of the layers, over the side of the image",
        difference(low(results[vit]), low(results[resnet])),
        (vit, resnet),
        "Fig. 6",
        [results[vit], results[resnet]],
        over="images",
    )
