"""preprocessor_config.json of Hugging Face transformers: the steps of an image processor."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from vitcnn.checkpoints.sidecars import facts
from vitcnn.checkpoints.sidecars.facts import Facts, Rule
from vitcnn.checkpoints.sidecars.timm import SHARE, normalisation

FILE = "preprocessor_config.json"

# `resample` is the number of a Pillow filter.
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_CONVNEXT_WHOLE = 384  # pixels from which ConvNeXt's processor crops nothing
# How images are stored and handed over, and what only segmentation reads.
_OTHERS = (
    *("image_processor_type", "feature_extractor_type", "processor_class", "data_format"),
    *("input_data_format", "return_tensors", "device", "disable_grouping", "do_convert_rgb"),
    *("default_to_square", "do_reduce_labels", "reduce_labels", "auto_map"),
)


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


_PROCESSORS = {  # by their names without the ending of a class
    "ConvNext": _Processor(True, False, 3),  # ResNets use it too
    "Bit": _Processor(True, True, 3),  # DINOv2 uses it too
    "CLIP": _Processor(True, True, 3),
    "DeiT": _Processor(False, True, 3),
    "ViT": _Processor(False, False, 2),
}
_ENDING = re.compile(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$")


def read(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `Preprocess` that a processor of transformers asks for.

    Two things differ from transformers, because `Preprocess` supports one way of each. First, where
    a smaller centre crop follows a square size (DeiT's processor: 224 x 224 out of 256 x 256),
    transformers squashes the image into that square. Here the short side is resized and the aspect
    ratio stays, as DeiT's authors and timm do with these weights; square images come out the same.
    Second, where the number of pixels to cut off is odd, transformers always cuts off one more at
    the end; here the crop is torchvision's.

    Raises:
      ValueError: the processor is unknown, or a key has a strange value, is unknown, or asks for a
        step that `Preprocess` does not have.
    """
    steps = Facts(FILE, content)
    kind = _kind(steps)
    filters = ", ".join(f"{number} ({name})" for number, name in enumerate(_RESAMPLE))
    is_filter = lambda v: type(v) is int and 0 <= v < len(_RESAMPLE)  # noqa: E731
    resample = steps.take("resample", Rule(is_filter, filters, _PROCESSORS[kind].resample))
    defaults = {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_center_crop": _PROCESSORS[kind].crops,
    }
    switches = {
        name: steps.take(name, Rule(lambda v: isinstance(v, bool), "true or false", default))
        for name, default in defaults.items()
    }
    factor = steps.take("rescale_factor", Rule(facts.positive, "a number above 0", 1 / 255))
    if abs(factor * 255 - 1) > 1e-6 or not (switches["do_resize"] and switches["do_rescale"]):
        shown = {**switches, "rescale_factor": factor}
        raise steps.unsupported(", ".join(f"{name} {value}" for name, value in shown.items()))
    means = normalisation(steps, "image_mean", "image_std")
    if not switches["do_normalize"]:
        means = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    size, resize = _geometry(steps, kind, switches["do_center_crop"])
    steps.only({"do_pad": (False,), "do_flip_channel_order": (False,), "rescale_offset": (False,)})
    steps.ignore(("crop_size", "crop_pct", *_OTHERS))
    steps.finish()
    return {**means, "size": size, "resize": resize, "interpolation": _RESAMPLE[resample]}


def _kind(steps: Facts) -> str:
    """Returns the kind of a processor, a key of `_PROCESSORS`; a file need not name it."""
    name = steps.get("image_processor_type") or steps.get("feature_extractor_type")
    if name is None:
        return "ViT" if steps.get("crop_pct") is None else "ConvNext"
    kind = _ENDING.sub("", str(name))
    if kind not in _PROCESSORS:
        raise steps.unsupported(f"the processor {name!r} (vitcnn has {', '.join(_PROCESSORS)})")
    return kind


def _geometry(steps: Facts, kind: str, crops: bool) -> tuple[tuple[int, int], int | None]:
    """Returns the size and resize of `Preprocess` for a processor of transformers."""
    size = _sides(steps, "size", short=True)
    if isinstance(steps.get("size"), int) and not _PROCESSORS[kind].short_side:
        size = (size, size)
    cut = _sides(steps, "crop_size", short=False) if crops else None
    if kind == "ConvNext":
        share = steps.take("crop_pct", SHARE)
        if isinstance(size, int) and cut in (None, (size, size)):
            return (size, size), int(size / share) if size < _CONVNEXT_WHOLE else None
    elif isinstance(size, tuple) and cut in (None, size):
        return size, None
    elif cut is not None:
        short = size if isinstance(size, int) else min(size)
        if max(cut) <= short and size in (short, (short, short)):
            return cut, short
    crop = f"crop_size {steps.get('crop_size')}" if crops else "no centre crop"
    raise steps.unsupported(f"{kind} with size {steps.get('size')} and {crop}")


def _sides(steps: Facts, name: str, short: bool) -> int | tuple[int, int]:
    """Returns a size of transformers: (height, width), or one number if `short` is allowed."""
    value = steps.get(name)
    if isinstance(value, Mapping):
        value = {key: side for key, side in value.items() if side is not None}
        if value.keys() == {"height", "width"} and all(map(facts.whole, value.values())):
            return value["height"], value["width"]
        if short and value.keys() == {"shortest_edge"} and facts.whole(value["shortest_edge"]):
            return value["shortest_edge"]
    if facts.whole(value):
        return value if short else (value, value)
    expected = 'pixels, a number or {"height": ..., "width": ...}'
    expected += ' or {"shortest_edge": ...}' if short else ""
    return steps.take(name, Rule(lambda v: False, expected))  # always raises
