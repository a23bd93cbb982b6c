"""What the descriptions of timm's networks share, whatever the family."""

from __future__ import annotations

from typing import Any

from vitcnn.checkpoints.sidecars.facts import Facts

# Classes of the layers of timm that networks of all our families have.
LAYERS = frozenset({"Conv2d", "Dropout", "Identity", "Linear", "Sequential"})
TOKEN_LAYERS = frozenset({"GELU", "GELUTanh", "LayerNorm", "Mlp", "PatchEmbed"})
MAP_LAYERS = frozenset(
    {"AdaptiveAvgPool2d", "Flatten", "MaxPool2d", "ReLU", "SelectAdaptivePool2d"}
)


def layers(network: Any) -> set[str]:
    """Returns the names of the classes of all layers of a network of timm."""
    return {type(layer).__name__ for layer in network.modules()}


def side(size: tuple[int, int]) -> int | list[int]:
    """Returns the side of a square, or [rows, columns]."""
    return size[0] if size[0] == size[1] else list(size)


def check_values(module: Any, **values: Any) -> None:
    """Raises ValueError unless the fields of a network have the values that timm's have."""
    for name, value in values.items():
        own = getattr(module, name)
        if own != value:
            raise ValueError(
                f"timm has no network with {name} = {own!r}, only with {value!r}: export it as an "
                "archive of ours (.npz) instead"
            )


def check_written(module: Any, **values: Any) -> None:
    """Raises ValueError unless fields have these values: timm has others, which we do not write."""
    for name, value in values.items():
        own = getattr(module, name)
        if own != value:
            raise ValueError(
                f"networks of timm with {name} = {own!r} cannot be written yet, only with "
                f"{value!r}: export it as an archive of ours (.npz) instead"
            )


def check_mean(top: Facts, pool: Any, family: str) -> None:
    """Raises ValueError unless `global_pool` is the mean."""
    if pool != "avg":
        raise top.unsupported(f"global_pool {pool!r} (the family {family!r} pools by 'avg')")
