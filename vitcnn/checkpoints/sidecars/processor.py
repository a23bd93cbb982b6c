"""Sidecars: JSON files next to weights that say what the arrays do not.

`read_own` reads the file that `export` writes. `read_published` reads the files of timm and of
Hugging Face transformers. Each format declares which of the two it reads.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

OWN = ".vitcnn.json"  # replaces the suffix of the weights: a.npz has a.vitcnn.json
PUBLISHED = ("config.json", "preprocessor_config.json")
_GELU = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh"}
# Hugging Face's `resample` is the number of a Pillow filter.
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
# Fields of a transformers BiT that our BiT has in one form only, and no key of the weights tells.
_BIT = {
    "layer_type": "preactivation",
    "global_padding": None,
    "num_groups": 32,
    "hidden_act": "relu",
    "embedding_dynamic_padding": False,
    "output_stride": 32,
}
_CONVNEXT_WHOLE = 384  # pixels from which ConvNeXt's processor crops nothing


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What the JSON next to weights says.

    Attributes:
      preprocess: fields of `vitcnn.data.preprocess.Preprocess`.
      fields: fields of the network that change no array, such as epsilon and gelu.
      file: name of the file that has the preprocessing; None if there is none.
    """

    preprocess: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    file: str | None = None


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What a field of a JSON file may be.

    Attributes:
      fits: whether a value is allowed.
      expected: the allowed values in words, for the error.
      default: the value of timm and transformers where the field is absent; None if it is required.
    """

    fits: Callable[[Any], bool]
    expected: str
    default: Any = None


_SHARE = _Rule(lambda v: _positive(v) and v <= 1, "a number above 0, at most 1", 0.875)


@dataclasses.dataclass(frozen=True)
class _Processor:
    """How a family of transformers' image processors behaves where its file does not say.

    Attributes:
      short_side: whether `size`, if it is one number, is the short side rather than both sides.
      crops: whether the centre is cut out.
      resample: number of the filter.
    """

    short_side: bool
    crops: bool
    resample: int


_PROCESSORS = {  # by the first letters of their names
    "ConvNext": _Processor(True, False, 3),  # ResNets use it too
    "Bit": _Processor(True, True, 3),  # DINOv2 uses it too
    "CLIP": _Processor(True, True, 3),
    "DeiT": _Processor(False, True, 3),
    "": _Processor(False, False, 2),  # ViT's, and every other
}


def read_own(path: pathlib.Path) -> Sidecar:
    """Returns what `export` wrote next to an archive.

    Raises:
      ValueError: the file is damaged.
    """
    path = path.with_suffix(OWN)
    if not path.is_file():
        return Sidecar()
    try:
        content = json.loads(path.read_text("utf-8"))
        return Sidecar(
            dict(content.get("preprocess", {})), dict(content.get("fields", {})), path.name
        )
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path.name}, which says how the weights next to it are used, is damaged: {error}; "
            "delete it and pass preprocess"
        ) from error


def read_published(path: pathlib.Path) -> Sidecar:
    """Returns what the JSON files of timm or Hugging Face say, in the folder of a checkpoint.

    Raises:
      ValueError: such a file is damaged, lacks a field, has a strange value, or asks for something
        that `Preprocess` does not support; the message names the file and the field.
    """
    config, processor = (_json(path.parent / name) for name in PUBLISHED)
    network, field = {}, functools.partial(_field, PUBLISHED[0], config)
    if config.get("model_type") == "bit":
        for name, ours in _BIT.items():
            field(name, _Rule(lambda v, ours=ours: v == ours, f"{ours!r}, as in our BiT", ours))
    if "layer_norm_eps" in config:
        network["epsilon"] = float(field("layer_norm_eps", _Rule(_positive, "a number above 0")))
        network["gelu"] = _GELU[field("hidden_act", _one_of(tuple(_GELU), "gelu"))]
    timm = field("pretrained_cfg", _Rule(lambda v: isinstance(v, Mapping), "an object", {}))
    if "mean" in timm:
        return Sidecar(_timm(timm), network, PUBLISHED[0])
    if "image_mean" in processor:
        return Sidecar(_hugging_face(processor), network, PUBLISHED[1])
    return Sidecar({}, network)


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

    "squash" resizes both sides to size / crop_pct and cuts out the centre. `Preprocess` supports
    only a crop_pct of 1 there, where nothing is cut off.
    """
    field = functools.partial(_field, PUBLISHED[0], fields)
    shape = field(
        "input_size", _Rule(lambda v: _three(v, _whole), "[channels, height, width] in pixels")
    )
    size = tuple(shape[1:])
    modes, filters = ("center", "squash", "border"), (*_RESAMPLE, "random")
    mode = field("crop_mode", _one_of(modes, "center"))
    share = field("crop_pct", _SHARE)
    interpolation = field("interpolation", _one_of(filters, "bicubic"))
    if mode == "border" or interpolation == "random" or (mode == "squash" and share != 1):
        raise _unsupported(
            PUBLISHED[0],
            f"crop_mode {mode!r}, crop_pct {share} and interpolation {interpolation!r}",
        )
    return {
        "size": size,
        "resize": math.floor(min(size) / share) if mode == "center" else None,
        "interpolation": interpolation,
        **_normalisation(PUBLISHED[0], fields, "mean", "std"),
    }


def _hugging_face(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `Preprocess` that a processor of transformers asks for.

    Two things differ from transformers, because `Preprocess` supports one way of each. First, where
    a smaller centre crop follows a square size (DeiT's processor: 224 x 224 out of 256 x 256),
    transformers squashes the image into that square. Here the short side is resized and the aspect
    ratio stays, as DeiT's authors and timm do with these weights; square images come out the same.
    Second, where the number of pixels to cut off is odd, transformers always cuts off one more at
    the end; here the crop is torchvision's.
    """
    field = functools.partial(_field, PUBLISHED[1], fields)
    kind = fields.get("image_processor_type") or fields.get("feature_extractor_type")
    kind = str(kind or ("ConvNext" if fields.get("crop_pct") is not None else ""))
    kind = next(start for start in _PROCESSORS if kind.startswith(start))
    processor = _PROCESSORS[kind]
    filters = ", ".join(f"{number} ({name})" for number, name in enumerate(_RESAMPLE))
    is_filter = lambda v: type(v) is int and 0 <= v < len(_RESAMPLE)  # noqa: E731
    resample = field("resample", _Rule(is_filter, filters, processor.resample))
    defaults = {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_center_crop": processor.crops,
    }
    steps = {
        name: field(name, _Rule(lambda v: isinstance(v, bool), "true or false", default))
        for name, default in defaults.items()
    }
    factor = field("rescale_factor", _Rule(_positive, "a number above 0", 1 / 255))
    if abs(factor * 255 - 1) > 1e-6 or not (steps["do_resize"] and steps["do_rescale"]):
        shown = {**steps, "rescale_factor": factor}
        raise _unsupported(
            PUBLISHED[1], ", ".join(f"{name} {value}" for name, value in shown.items())
        )
    normalisation = _normalisation(PUBLISHED[1], fields, "image_mean", "image_std")
    if not steps["do_normalize"]:
        normalisation = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    size, resize = _geometry(fields, kind, steps["do_center_crop"])
    return {**normalisation, "size": size, "resize": resize, "interpolation": _RESAMPLE[resample]}


def _geometry(
    fields: Mapping[str, Any], kind: str, crops: bool
) -> tuple[tuple[int, int], int | None]:
    """Returns the size and resize of `Preprocess` for a processor of transformers."""
    size = _sides(fields, "size", short=True)
    if isinstance(fields["size"], int) and not _PROCESSORS[kind].short_side:
        size = (size, size)
    cut = _sides(fields, "crop_size", short=False) if crops else None
    if kind == "ConvNext":
        share = _field(PUBLISHED[1], fields, "crop_pct", _SHARE)
        if isinstance(size, int) and cut in (None, (size, size)):
            return (size, size), int(size / share) if size < _CONVNEXT_WHOLE else None
    elif isinstance(size, tuple) and cut in (None, size):
        return size, None
    elif cut is not None:
        short = size if isinstance(size, int) else min(size)
        if max(cut) <= short and size in (short, (short, short)):
            return cut, short
    crop = f"crop_size {fields['crop_size']}" if crops else "no centre crop"
    raise _unsupported(
        PUBLISHED[1], f"{kind or 'a processor'} with size {fields['size']} and {crop}"
    )


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
    return _field(PUBLISHED[1], fields, name, _Rule(lambda v: False, expected))  # always raises


def _normalisation(file: str, fields: Mapping[str, Any], mean: str, std: str) -> dict[str, Any]:
    means = _field(file, fields, mean, _Rule(lambda v: _three(v, _finite), "three numbers"))
    positive = _Rule(lambda v: _three(v, _positive), "three numbers above 0")
    stds = _field(file, fields, std, positive)
    return {"mean": tuple(means), "std": tuple(stds)}


def _field(file: str, fields: Mapping[str, Any], name: str, rule: _Rule) -> Any:
    """Returns a field of a JSON file, or its default if the field is missing or null.

    Raises:
      ValueError: the value does not fit.
    """
    value = rule.default if fields.get(name) is None else fields[name]
    if not rule.fits(value):
        problem = "is missing" if value is None else f"is {value!r}"
        raise ValueError(f"{file} beside the weights: {name} {problem}; expected {rule.expected}")
    return value


def _unsupported(file: str, request: str) -> ValueError:
    return ValueError(
        f"{file} beside the weights asks for {request}, which vitcnn does not support; change the "
        "file, or move it away and pass preprocess=Preprocess(...)"
    )


def _one_of(values: tuple[str, ...], default: str) -> _Rule:
    return _Rule(lambda v: v in values, f"one of {values}", default)


def _finite(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _finite(value) and value > 0


def _whole(value: Any) -> bool:
    return type(value) is int and value > 0


def _three(value: Any, fits: Callable[[Any], bool]) -> bool:
    """Whether a value is a list of three items that fit."""
    return isinstance(value, list) and len(value) == 3 and all(map(fits, value))
