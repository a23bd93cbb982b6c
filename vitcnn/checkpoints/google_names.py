"""What all of Google's NumPy archives share, whatever the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np

from vitcnn.checkpoints.files import contents
from vitcnn.checkpoints.files.contents import renamed

# No size: the files are for many sizes, and whole images are resized to the network's.
PREPROCESS = {"interpolation": "bilinear", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

# "params/img/" are the images of a model of images and texts (LiT, SigLIP).
_PREFIXES = ("opt/target/params/", "opt/target/", "params/img/", "params/")
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
      ValueError: the file holds two networks of which neither, or both, are a moving average.
    """
    names = {key: _bare(key) for key in arrays}
    renamed((name, key) for key, (name, is_average) in names.items() if not is_average)
    chosen, network = contents.one_network(arrays, names, average)
    if network is not None and average:  # `bare` knows the prefixes of weights alone
        keys = renamed((names[key][0], key) for key in chosen)
        chosen = {name: chosen[key] for name, key in keys.items()}
    return chosen, network


def _bare(key: str) -> tuple[str, bool]:
    """Returns a key without its prefix, and whether that is the prefix of an average."""
    prefix = next((p for p in (*_PREFIXES, *_AVERAGES) if key.startswith(p)), "")
    return key.removeprefix(prefix), prefix in _AVERAGES


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
