"""Vision Transformers by their usual names: sizes, patches, and the recipes that change the net."""

from __future__ import annotations

from typing import Any

_SIZES = {  # Dosovitskiy et al., table 1; Ti and S as in Steiner et al. 2021, arXiv 2106.10270
    "Ti": {"width": 192, "depth": 12, "mlp_dim": 768, "heads": 3},
    "S": {"width": 384, "depth": 12, "mlp_dim": 1536, "heads": 6},
    "B": {"width": 768, "depth": 12, "mlp_dim": 3072, "heads": 12},
    "L": {"width": 1024, "depth": 24, "mlp_dim": 4096, "heads": 16},
    "H": {"width": 1280, "depth": 32, "mlp_dim": 5120, "heads": 16},
}

# DINOv2's, whose MLPs are gated; Zhai et al. 2021 call another size g.
_GIANT = {"g": {"width": 1536, "depth": 40, "mlp_dim": 4096, "heads": 24, "gated": True}}

_SMALL = {"patch": 4, "image_size": 32, "num_classes": 10}


def _named(name: str, **fields: Any) -> dict[str, Any]:
    size, patch = name.split("/")
    return {**(_SIZES | _GIANT)[size], "patch": int(patch), "image_size": 224, **fields}


VARIANTS = (
    {f"{size}/{patch}": _named(f"{size}/{patch}") for size in _SIZES for patch in (8, 14, 16, 32)}
    | {  # Touvron et al. 2020, arXiv 2012.12877
        f"DeiT-{name}{'-distilled' * distilled}": _named(name, gelu="exact", distilled=distilled)
        for name in ("Ti/16", "S/16", "B/16")
        for distilled in (False, True)
    }
    | {  # Caron et al. 2021, arXiv 2104.14294: no head
        f"DINO-{name}": _named(name, gelu="exact", num_classes=0)
        for name in ("S/16", "S/8", "B/16", "B/8")
    }
    | {  # Oquab et al. 2023, arXiv 2304.07193; registers: Darcet et al. 2023, arXiv 2309.16588
        f"DINOv2-{name}{'-registers' * bool(registers)}": _named(
            name,
            gelu="exact",
            num_classes=0,
            image_size=518,
            layer_scale=1e-5,
            registers=registers,
        )
        for name in ("S/14", "B/14", "L/14", "g/14")
        for registers in (0, 4)
    }
    | {
        # Small enough to train on a processor: 64 patches, half a million parameters.
        "mini/4": {"width": 96, "depth": 6, "mlp_dim": 192, "heads": 3, **_SMALL},
        "cifar/4": {
            **{"width": 128, "depth": 4, "mlp_dim": 256, "heads": 4, "gelu": "exact"},
            **_SMALL,
        },
    }
)
