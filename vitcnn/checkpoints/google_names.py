"""What all of Google's NumPy archives share, whatever the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np

# No size: the files are for many sizes, and whole images are resized to the network's.
PREPROCESS = {"interpolation": "bilinear", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

_PREFIXES = ("opt/target/params/", "opt/target/", "params/")


def bare(keys: Iterable[str]) -> dict[str, str]:
    """Returns bare name -> key: "head/bias" -> "opt/target/head/bias".

    Keys without the prefix are the state of training, and are left out.
    """
    keys = list(keys)
    prefix = next((p for p in _PREFIXES if any(key.startswith(p) for key in keys)), "")
    return {key.removeprefix(prefix): key for key in keys if key.startswith(prefix)}


def flat(value: np.ndarray) -> np.ndarray:
    """Returns a scale or bias of a group norm as (C,); some files have it as (1, 1, 1, C)."""
    return value.reshape(-1) if value.shape[:-1] == (1, 1, 1) else value


def arrays(raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns float32 arrays by bare name."""
    converted = {}
    for name, key in bare(raw).items():
        value = np.asarray(raw[key])
        if value.dtype == np.dtype("V2"):  # NumPy has no bfloat16, so the file has raw bytes
            value = value.view(jnp.bfloat16)
        converted[name] = np.asarray(value, np.float32)
    return converted
