"""The preprocessing that lies beside published weights: timm's and Hugging Face's JSON files."""

from __future__ import annotations

import functools
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

FILES = ("config.json", "preprocessor_config.json")
_GELU = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh"}
# Of Pillow, by number: what Hugging Face's `resample` is.
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
# Processors of transformers by the start of their names: whether a number as size is the short
# side, rather than both; and, where the file does not say, whether the centre is cut out, and the
# filter. The last is that of ViTs, and of any other.
_PROCESSORS = {
    "ConvNext": (True, False, 3),  # of ResNets too
    "Bit": (True, True, 3),  # of DINOv2 too
    "CLIP": (True, True, 3),
    "DeiT": (False, True, 3),
    "": (False, False, 2),
}
# What a BiT of transformers may have otherwise, and no key of its weights says.
_BIT = {
    "layer_type": "preactivation",
    "global_padding": None,
    "num_groups": 32,
    "hidden_act": "relu",
    "embedding_dynamic_padding": False,
    "output_stride": 32,
}
_CONVNEXT_WHOLE = 384  # pixels from which ConvNeXt's processor crops nothing
# What crop_pct has to be, and what it is in timm and transformers where it is not there.
_SHARE = (lambda v: _positive(v) and v <= 1, "a number above 0, at most 1", 0.875)


def beside(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Returns what the JSON files in the folder of a checkpoint say.

    Args:
      path: the checkpoint.

    Returns:
      (fields of `vitcnn.data.preprocess.Preprocess`, fields of the network that change no array
      (epsilon, gelu), name of the file that the preprocessing is from, None if there is none).

    Raises:
      ValueError: such a file is damaged, lacks a field or has a strange one, or asks for what
        `Preprocess` has not; the message names the file and the field.
    """
    config, processor = (_json(path.parent / name) for name in FILES)
    network, field = {}, functools.partial(_field, FILES[0])
    if config.get("model_type") == "bit":
        for name, ours in _BIT.items():
            field(config, name, lambda v, ours=ours: v == ours, f"{ours!r}, as in our BiT", ours)
    if "layer_norm_eps" in config:
        network["epsilon"] = float(field(config, "layer_norm_eps", _positive, "a number above 0"))
        known = tuple(_GELU)
        act = field(config, "hidden_act", lambda v: v in known, f"one of {known}", "gelu")
        network["gelu"] = _GELU[act]
    timm = field(config, "pretrained_cfg", lambda v: isinstance(v, Mapping), "an object", {})
    if "mean" in timm:
        return _timm(timm), network, FILES[0]
    if "image_mean" in processor:
        return _hugging_face(processor), network, FILES[1]
    return {}, network, None


def _json(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} beside the weights is not JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def _timm(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `Preprocess` that a `pretrained_cfg` of timm asks for.

    "squash" resizes both sides to size / crop_pct and cuts out the centre; `Preprocess` has that
    for a crop_pct of 1 alone, where nothing is cut off.
    """
    field = functools.partial(_field, FILES[0], fields)
    shape = field("input_size", lambda v: _many(v, _whole), "[channels, height, width] in pixels")
    size = tuple(shape[1:])
    modes, filters = ("center", "squash", "border"), (*_RESAMPLE, "random")
    mode = field("crop_mode", lambda v: v in modes, f"one of {modes}", "center")
    share = field("crop_pct", *_SHARE)
    chosen = field("interpolation", lambda v: v in filters, f"one of {filters}", "bicubic")
    if mode == "border" or chosen == "random" or (mode == "squash" and share != 1):
        raise _absent(
            FILES[0], f"crop_mode {mode!r}, crop_pct {share} and interpolation {chosen!r}"
        )
    return {
        "size": size,
        "resize": math.floor(min(size) / share) if mode == "center" else None,
        "interpolation": chosen,
        **_normalisation(FILES[0], fields, "mean", "std"),
    }


def _hugging_face(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `Preprocess` that a processor of transformers asks for.

    Two things differ from transformers, because `Preprocess` has them in one way only. Where a
    square size is followed by a smaller centre crop (DeiT's processor: 256 x 256, of which
    224 x 224), transformers squashes the image into that square. Here the short side is resized and
    the aspect ratio kept, as DeiT's authors and timm do with these weights; square images come out
    the same. And where the number of pixels to cut off is odd, transformers always cuts off one
    more at the end, and this as torchvision does.
    """
    field = functools.partial(_field, FILES[1], fields)
    kind = fields.get("image_processor_type") or fields.get("feature_extractor_type")
    kind = str(kind or ("ConvNext" if fields.get("crop_pct") is not None else ""))
    kind = next(start for start in _PROCESSORS if kind.startswith(start))
    _, crops, resample = _PROCESSORS[kind]
    known = ", ".join(f"{number} ({name})" for number, name in enumerate(_RESAMPLE))
    resample = field(
        "resample", lambda v: type(v) is int and 0 <= v < len(_RESAMPLE), known, resample
    )
    usual = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_center_crop": crops}
    asked = {
        name: field(name, lambda v: isinstance(v, bool), "true or false", value)
        for name, value in usual.items()
    }
    asked["rescale_factor"] = field("rescale_factor", _positive, "a number above 0", 1 / 255)
    off = abs(asked["rescale_factor"] * 255 - 1) > 1e-6
    if off or not (asked["do_resize"] and asked["do_rescale"]):
        raise _absent(FILES[1], ", ".join(f"{name} {value}" for name, value in asked.items()))
    made = _normalisation(FILES[1], fields, "image_mean", "image_std")
    if not asked["do_normalize"]:
        made = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    size, resize = _geometry(fields, kind, asked["do_center_crop"])
    return {**made, "size": size, "resize": resize, "interpolation": _RESAMPLE[resample]}


def _geometry(
    fields: Mapping[str, Any], kind: str, crops: bool
) -> tuple[tuple[int, int], int | None]:
    """Returns the size and resize of `Preprocess` for a processor of transformers."""
    size = _sides(fields, "size", short=True)
    if isinstance(fields["size"], int) and not _PROCESSORS[kind][0]:
        size = (size, size)
    cut = _sides(fields, "crop_size", short=False) if crops else None
    if kind == "ConvNext":
        share = _field(FILES[1], fields, "crop_pct", *_SHARE)
        if isinstance(size, int) and cut in (None, (size, size)):
            return (size, size), int(size / share) if size < _CONVNEXT_WHOLE else None
    elif isinstance(size, tuple) and cut in (None, size):
        return size, None
    elif cut is not None:
        short = size if isinstance(size, int) else min(size)
        if max(cut) <= short and size in (short, (short, short)):
            return cut, short
    crop = f"crop_size {fields['crop_size']}" if crops else "no centre crop"
    raise _absent(FILES[1], f"{kind or 'a processor'} with size {fields['size']} and {crop}")


def _sides(fields: Mapping[str, Any], name: str, short: bool) -> int | tuple[int, int]:
    """Returns a size of transformers: (height, width), or one number if `short` is allowed."""
    value = fields.get(name)
    if isinstance(value, Mapping):
        value = {key: side for key, side in value.items() if side is not None}
        if value.keys() == {"height", "width"} and all(map(_whole, value.values())):
            return value["height"], value["width"]
        if short and value.keys() == {"shortest_edge"} and _whole(value["shortest_edge"]):
            return value["shortest_edge"]
    if _whole(value):
        return value if short else (value, value)
    expected = 'pixels, a number or {"height": ..., "width": ...}'
    expected += ' or {"shortest_edge": ...}' if short else ""
    return _field(FILES[1], fields, name, lambda v: False, expected)


def _normalisation(file: str, fields: Mapping[str, Any], mean: str, std: str) -> dict[str, Any]:
    means = _field(file, fields, mean, lambda v: _many(v, _finite), "three numbers")
    stds = _field(file, fields, std, lambda v: _many(v, _positive), "three numbers above 0")
    return {"mean": tuple(means), "std": tuple(stds)}


def _field(
    file: str,
    fields: Mapping[str, Any],
    name: str,
    fits: Callable[[Any], bool],
    expected: str,
    usual: Any = None,
) -> Any:
    """Returns a field of a JSON file; what is usual if the field is missing or null.

    Raises:
      ValueError: the value does not fit.
    """
    value = usual if fields.get(name) is None else fields[name]
    if not fits(value):
        found = "is missing" if value is None else f"is {value!r}"
        raise ValueError(f"{file} beside the weights: {name} {found}; expected {expected}")
    return value


def _absent(file: str, what: str) -> ValueError:
    return ValueError(
        f"{file} beside the weights asks for {what}, which we have not; change the file, or move "
        "it away and pass preprocess=Preprocess(...)"
    )


def _finite(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _finite(value) and value > 0


def _whole(value: Any) -> bool:
    return type(value) is int and value > 0


def _many(value: Any, fits: Callable[[Any], bool]) -> bool:
    """Whether it is a list of three that fit."""
    return isinstance(value, list) and len(value) == 3 and all(map(fits, value))


BESIDE = ".vitcnn.json"


def said_beside(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Returns what `export` wrote beside an archive.

    Returns:
      (fields of the preprocessing, fields of the network, name of the file; None if there is none).

    Raises:
      ValueError: the file is damaged.
    """
    path = path.with_suffix(BESIDE)
    if not path.is_file():
        return {}, {}, None
    try:
        said = json.loads(path.read_text("utf-8"))
        return dict(said.get("preprocess", {})), dict(said.get("fields", {})), path.name
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path.name}, which says how the weights beside it are used, is damaged: {error}; "
            "delete it and pass preprocess"
        ) from error
