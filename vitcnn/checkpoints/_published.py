"""The preprocessing that lies beside published weights: timm's and Hugging Face's JSON files."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

FILES = ("config.json", "preprocessor_config.json")
_GELU = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh"}
# Of Pillow, by number: what Hugging Face's `resample` is.
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


def beside(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Returns what the JSON files in the folder of a checkpoint say.

    Args:
      path: the checkpoint.

    Returns:
      (fields of `vitcnn.data.preprocess.Preprocess`, fields of the network that change no array
      (epsilon, gelu), name of the file that the preprocessing is from, None if there is none).

    Raises:
      ValueError: such a file is damaged, or asks for what is not known.
    """
    config, processor = (_json(path.parent / name) for name in FILES)
    network = {}
    if "layer_norm_eps" in config:
        network["epsilon"] = float(config["layer_norm_eps"])
        if (act := config.get("hidden_act", "gelu")) not in _GELU:
            raise ValueError(
                f"config.json beside the weights: hidden_act {act!r} is not of our ViT"
            )
        network["gelu"] = _GELU[act]
    if "mean" in (timm := config.get("pretrained_cfg") or {}):
        return _timm(timm), network, FILES[0]
    if "image_mean" in processor:
        return _hugging_face(processor), network, FILES[1]
    return {}, network, None


def _json(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} beside the weights is not JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def _timm(fields: Mapping[str, Any]) -> dict[str, Any]:
    size = tuple(fields["input_size"][1:])
    mode = fields.get("crop_mode") or "center"
    if mode not in ("center", "squash", "border"):
        raise ValueError(f"config.json beside the weights: unknown crop_mode {mode!r}")
    share = fields.get("crop_pct") or 0.875
    made = {
        "size": size,
        "resize": math.floor(min(size) / share) if mode == "center" else None,
        "interpolation": fields.get("interpolation") or "bicubic",
        "mean": tuple(fields["mean"]),
        "std": tuple(fields["std"]),
    }
    if mode == "border" or made["interpolation"] == "random":
        raise ValueError(
            f"config.json beside the weights asks for crop_mode {mode!r} and interpolation "
            f"{made['interpolation']!r}, which we have not; pass preprocess=Preprocess(...)"
        )
    return made


def _hugging_face(fields: Mapping[str, Any]) -> dict[str, Any]:
    size, crop = fields.get("size") or 224, fields.get("crop_size")
    resample = fields.get("resample", 2)
    made = {
        "interpolation": _RESAMPLE[resample],
        "mean": tuple(fields["image_mean"]),
        "std": tuple(fields["image_std"]),
    }
    if isinstance(size, Mapping) and "height" in size:
        whole, short = (size["height"], size["width"]), None
    else:
        short = size["shortest_edge"] if isinstance(size, Mapping) else size
        whole = (short, short)
    share = fields.get("crop_pct")
    if fields.get("do_center_crop") and crop:
        cut = (crop["height"], crop["width"]) if isinstance(crop, Mapping) else (crop, crop)
        return {**made, "size": cut, "resize": short or min(whole)}
    if share and short and short < 384:  # ConvNeXt's processor, which ResNets use too
        return {**made, "size": whole, "resize": int(short / share)}
    return {**made, "size": whole, "resize": None}
