"""What all of Google's NumPy archives share, whatever the network."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np

# No size: the files are for many sizes, and whole images are resized to the network's.
PREPROCESS = {"interpolation": "bilinear", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

_PREFIXES = ("opt/target/params/", "opt/target/", "params/")
# In front of a second network, which is a moving average of the first one.
_AVERAGES = ("params_ema/", "ema_params/", "ema/params/", "ema/")


def bare(keys: Iterable[str]) -> dict[str, str]:
    """Returns bare name -> key: "head/bias" -> "opt/target/head/bias".

    Keys without the prefix are the state of training, and are left out.
    """
    keys = list(keys)
    prefix = next((p for p in _PREFIXES if any(key.startswith(p) for key in keys)), "")
    return {key.removeprefix(prefix): key for key in keys if key.startswith(prefix)}


def one_network(
    arrays: Mapping[str, np.ndarray], average: bool
) -> tuple[dict[str, np.ndarray], str | None]:
    """Returns the arrays of one network where a file holds a network and its moving average.

    Args:
      arrays: by the keys of the file, such as "params/head/bias" and "ema/head/bias".
      average: whether the moving average is meant.

    Returns:
      (arrays, which network they are); all arrays and None where the file holds one network.

    Raises:
      ValueError: the file holds a network under two prefixes, and none is a moving average.
    """
    roots: dict[str, dict[str, str]] = {}  # prefix -> bare name -> key
    for key in arrays:
        root = next((p for p in (*_PREFIXES, *_AVERAGES) if key.startswith(p)), "")
        roots.setdefault(root, {})[key.removeprefix(root)] = key
    weights = [root for root in roots if root not in _AVERAGES]
    for one, other in itertools.combinations(weights, 2):
        if shared := roots[one].keys() & roots[other].keys():
            name = min(shared)
            raise ValueError(
                f"{roots[one][name]!r} and {roots[other][name]!r} would both be {name!r}, and "
                "nothing says which one is meant: save the network that is meant alone"
            )
    for root in roots.keys() & set(_AVERAGES):
        if any(roots[root].keys() & roots[other].keys() for other in weights):
            keys = roots[root] if average else {k: k for w in weights for k in roots[w].values()}
            chosen = {name: arrays[key] for name, key in keys.items()}
            network = "moving average" if average else "weights"
            return chosen, f"the {network} of weights and their moving average"
    return dict(arrays), None


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
