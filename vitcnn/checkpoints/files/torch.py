"""Reads PyTorch checkpoints; the only file that imports torch."""

from __future__ import annotations

import argparse
import codecs
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitcnn.checkpoints.files import torchscript
from vitcnn.checkpoints.files.contents import Contents, distinct

# Training scripts nest the weights under these names, next to the optimiser's state.
_WEIGHTS = ("state_dict", "model_state_dict", "model", "student", "net", "network", "weights")
# The moving average of the weights, where a file has one: timm, DeiT, DINO, iBOT, Lightning.
_AVERAGES = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "teacher"),
    *("model_ema_state_dict", "teacher_state_dict"),
)
# Arguments of a training script may be paths.
_PATHS = (pathlib.PosixPath, pathlib.PurePosixPath)
_SAVE_AGAIN = (
    "where you trust the file, load it with torch.load(path, weights_only=False) and save the "
    "weights alone: torch.save(checkpoint['model'], 'weights.pth')"
)


def read(path: pathlib.Path, average: bool) -> Contents:
    """Reads the tensors of a `state_dict`, which may be nested under one of the usual names.

    Next to the tensors a checkpoint may hold plain values, paths, scalars of NumPy and an
    `argparse.Namespace`, which the training scripts of timm, DeiT, MAE and DINO save. No other
    object is unpickled. A TorchScript archive is read without torch, and its program is not run.

    Args:
      path: the file.
      average: whether to read the moving average of the weights where there is one, as timm does.

    Raises:
      ImportError: torch is not installed.
      ValueError: the file is truncated, is not PyTorch's, or holds other objects; it holds several
        networks and nothing says which one is meant; or a tensor is not a plain array.
    """
    if torchscript.is_archive(path):
        return Contents(torchscript.read(path))
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path.name} is a PyTorch checkpoint, and reading it needs torch: "
            f'pip install "vitcnn[torch]"'
        ) from error
    try:
        allowed = [argparse.Namespace, *_PATHS, *_scalars()]
        # From a stream, because torch judges the kind of a file by the end of its name.
        with torch.serialization.safe_globals(allowed), path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types for a damaged file
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{path.name} holds Python objects other than tensors, such as one of the class "
                f"{refused[1]}; they are refused because they can run any code; {_SAVE_AGAIN}"
            ) from error
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(
            f"{path.name} is truncated, is not a PyTorch checkpoint, or holds Python objects other "
            f"than tensors, which are refused because they can run any code: {reason}"
        ) from error
    architecture, network = _architecture(content), None
    while isinstance(content, Mapping) and (candidates := _networks(content)):
        name = _choose(path, candidates, average)
        if len(candidates) > 1:
            network = f"{name!r} of {', '.join(map(repr, candidates))}"
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
    arrays = distinct((str(key), _plain(path, key, value)) for key, value in tensors.items())
    floats = {
        str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.is_floating_point()
    }
    return Contents(arrays, architecture, network, tuple(sorted(floats - {"float32"})))


def _scalars() -> list[Any]:
    """Returns what a pickle needs for a scalar of NumPy, such as the best accuracy so far.

    None of them runs code of the file: they make a number out of a type and of bytes.
    """
    scalar = np.float64(0).__reduce__()[0]
    return [
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),  # its name before NumPy 2
        np.dtype,
        *{type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8", "u1", "?")},
        codecs.encode,
    ]


def _networks(content: Mapping[str, Any]) -> list[str]:
    """Returns the usual names under which a checkpoint holds tensors by name."""
    return [name for name in (*_WEIGHTS, *_AVERAGES) if isinstance(content.get(name), Mapping)]


def _choose(path: pathlib.Path, candidates: list[str], average: bool) -> str:
    """Returns the network that is meant.

    Raises:
      ValueError: there are several, or only a moving average that is not wanted.
    """
    weights = [name for name in candidates if name in _WEIGHTS]
    averages = [name for name in candidates if name in _AVERAGES]
    chosen = averages if average and averages else weights
    if not chosen:
        raise ValueError(
            f"{path.name} holds a moving average alone, {averages[0]!r}: set average=True to read "
            "it"
        )
    if len(chosen) > 1:
        raise ValueError(
            f"{path.name} holds several networks, {', '.join(map(repr, chosen))}; save the one "
            "that is meant alone"
        )
    return chosen[0]


def _architecture(content: Any) -> str | None:
    """Returns the name of the network that a training script wrote next to its weights."""
    if not isinstance(content, Mapping):
        return None
    arguments = content.get("args")
    arguments = vars(arguments) if isinstance(arguments, argparse.Namespace) else arguments
    arguments = arguments if isinstance(arguments, Mapping) else {}
    names = (content.get("arch"), arguments.get("model"), arguments.get("arch"))
    return next((name for name in names if isinstance(name, str)), None)


def _plain(path: pathlib.Path, key: str, tensor: Any) -> np.ndarray:
    """Returns a tensor as an array; NumPy has no bfloat16, so floats narrower than 32 bits widen.

    Raises:
      ValueError: the tensor is quantised, sparse or complex, or has no data.
    """
    import torch

    kind = None
    if tensor.is_quantized:
        kind = f"quantised ({tensor.dtype}); save tensor.dequantize() of each"
    elif tensor.layout is not torch.strided:
        kind = f"sparse ({tensor.layout}); save tensor.to_dense() of each"
    elif tensor.is_meta:
        kind = "on the device 'meta', which holds no numbers; save the loaded weights"
    elif tensor.is_complex():
        kind = f"complex ({tensor.dtype}), and weights are real"
    if kind is not None:
        raise ValueError(f"{path.name}: the tensor {key!r} is {kind}")
    return (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
