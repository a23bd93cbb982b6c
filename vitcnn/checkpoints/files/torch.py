"""Reads PyTorch checkpoints; the only file that imports torch."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

# Training scripts nest the weights under these names, next to the optimiser's state.
_NESTED = ("state_dict", "model_state_dict", "model", "teacher")


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a `state_dict`, which may be nested under one of the usual names.

    Raises:
      ImportError: torch is not installed.
      ValueError: the file is truncated, is not PyTorch's, or holds something other than tensors.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path.name} is a PyTorch checkpoint, and reading it needs torch: "
            f'pip install "vitcnn[torch]"'
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types for a damaged file
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(
            f"{path.name} is truncated, is not a PyTorch checkpoint, or holds Python objects other "
            f"than tensors, which are refused because they can run any code: {reason}"
        ) from error
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path.name} is not a checkpoint: it holds a {type(content).__name__}, not tensors by "
            f"name"
        )
    tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if others := [k for k in content if k not in tensors]:
        raise ValueError(
            f"{path.name} is not a checkpoint of tensors alone: {others[0]!r} is a "
            f"{type(content[others[0]]).__name__}; save the weights alone"
        )
    # NumPy has no bfloat16, and all weights become float32 later anyway.
    return {
        str(k): (v.float() if v.is_floating_point() else v).detach().numpy()
        for k, v in tensors.items()
    }
