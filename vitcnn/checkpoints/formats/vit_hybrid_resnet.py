"""The ResNet of a hybrid alone, out of a file of timm or Google; num_classes=0, for it has no head.

It is a ResNet of the paper's form, the family "resnet" with the norm "group", and was trained with
a ViT on top of it, which is left out. The stages of R50+ViT-B/16 have (3, 4, 9) units, those of
R50+ViT-L/32 (3, 4, 6, 3) and those of R26+ViT-S/32 (2, 2, 2, 2). Filters are standardised as Google
does it; timm adds another epsilon, so that its outputs of units differ by a thousandth.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from vitcnn.checkpoints import google_names, sidecars, torch_names

FAMILY = "resnet"
DOCUMENTED = True  # all published hybrids are Google's
PREPROCESS = {"interpolation": "bicubic", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

_TIMM = frozenset(
    f"patch_embed.backbone.{layer}.weight"
    for layer in ("stem.conv", "stem.norm", "stages.0.blocks.0.conv1")
)
_GOOGLE = frozenset({"conv_root/kernel", "block1/unit1/conv1/kernel", "embedding/kernel"})
_NAMES = torch_names.Names(layer=torch_names.hybrid_resnet)


def _preprocessing(path: pathlib.Path) -> sidecars.Sidecar:
    """Returns the preprocessing that the JSON beside the weights says; its fields are the ViT's."""
    sidecar = sidecars.read_published(path)
    return dataclasses.replace(sidecar, fields={}, family=None, classes=None, class_names=())


SIDECAR = _preprocessing


def fields(raw: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns how the networks of timm and of Google differ: in the epsilon of their norms."""
    return {"epsilon": 1e-5 if _is_timm(raw) else 1e-6, "padding": "same", "stride_conv": 2}


def matches(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds a hybrid with stages."""
    keys = list(keys)
    return _is_timm(keys) or set(google_names.bare(keys)) >= _GOOGLE


def convert(raw: Mapping[str, np.ndarray], module: nn.Module | None) -> dict[str, np.ndarray]:
    """Returns the arrays of the ResNet under our names."""
    if _is_timm(raw):
        bare = torch_names.stripped(raw)
        resnet = {n: raw[key] for n, key in bare.items() if n.startswith("patch_embed.backbone.")}
        return torch_names.convert(resnet, _NAMES)
    arrays = google_names.arrays(raw)
    resnet = {
        n: value for n, value in arrays.items() if n.startswith(("conv_root", "gn_root", "block"))
    }
    return {
        f"params/{name}": value if name.endswith("/kernel") else google_names.flat(value)
        for name, value in resnet.items()
    }


def _is_timm(keys: Iterable[str]) -> bool:
    return torch_names.bare_names(keys) >= _TIMM
