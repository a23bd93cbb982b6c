"""config.json of timm: an architecture, the arguments that differ, and a `pretrained_cfg`.

An architecture of timm is the name of a function with many arguments, and several architectures
have arrays of the same names and shapes: the name alone says that `vit_base_patch16_rpn_224` has
its norms elsewhere and that `resnetblur50` blurs. `architectures.tsv` says, for each architecture
whose arrays have names that we read, which of our networks computes the same, or why none does. It
was written by scripts/list_published.py, which looks at every layer of timm's networks.
"""

from __future__ import annotations

import csv
import functools
import json
import math
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

from vitcnn.checkpoints import families
from vitcnn.checkpoints.sidecars import facts
from vitcnn.checkpoints.sidecars.facts import Facts, Rule
from vitcnn.checkpoints.sidecars.sidecar import Sidecar
from vitcnn.data.preprocess import INTERPOLATIONS
from vitcnn.lookup import nearest

FILE = "config.json"
WRAPPER = "timm_wrapper"  # model_type of timm's networks that transformers has saved

_SAME = "same as "  # of an old name, in the table
_TABLE = pathlib.Path(__file__).with_name("architectures.tsv")

# Nothing here changes what a trained network computes, or the arrays show it.
_DESCRIPTION = (
    *("num_features", "label_names", "labels", "label_descriptions", "license", "tags"),
    *("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "tag", "custom_load"),
    *("test_input_size", "min_input_size", "fixed_input_size", "test_crop_pct", "pool_size"),
    *("test_pool_size", "first_conv", "classifier", "description", "origin_url", "paper_name"),
    *("paper_ids", "notes", "pretrained_strict", "library_name"),
)
_TRAINING = (
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"),
    *("drop_path_rate", "drop_block_rate", "weight_init", "fix_init", "zero_init_last"),
    *("init_values", "pretrained", "scriptable", "exportable", "no_jit", "dynamic_img_size"),
    *("strict_img_size", "nlhb", "stem_init"),
)


@functools.cache
def _table() -> dict[str, tuple[str, str]]:
    """Returns architecture -> (family, fields as JSON or a reason)."""
    with _TABLE.open(newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows)
        return {name: (family, fields) for name, family, fields in rows}


def architecture(name: str) -> tuple[str, dict[str, Any]]:
    """Returns the family and the fields of our network that computes what an architecture does.

    Args:
      name: an architecture of timm, such as "vit_base_patch16_224", or a name that another library
        has for it. A tag after a dot names weights, whose fields are returned where they were
        trained with others than timm's network has.

    Raises:
      ValueError: no family of ours has such a network, or the name is unknown.

    Warns:
      UserWarning: the weights of a tag were trained with other fields.
    """
    if not knows(name):
        hint = nearest(str(name).partition(".")[0], list(_table()))
        hint = f"; {hint}" if hint.startswith("did you mean") else ""
        raise ValueError(
            f"unknown architecture {name!r}: no network of timm near to the families "
            f"{', '.join(families.names())} has this name{hint}"
        )
    family, fields = _table()[canonical(name)]
    if not fields.startswith("{"):
        raise ValueError(
            f"the architecture {name!r} of timm has {fields}, which the family {family!r} does "
            "not support"
        )
    fields, tag = json.loads(fields), str(name).partition(".")[2]
    weights = f"{canonical(name)}.{tag}"
    trained = getattr(families.find(family), "TRAINED", {}).get(weights, {})
    for field, value in trained.items():
        warnings.warn(
            f"{weights} was trained with {field}={value!r}, which vitcnn takes; timm computes a "
            f"network of this name with {fields[field]!r}: set {field}={fields[field]!r} for that",
            stacklevel=2,
        )
    return family, fields | trained


def knows(name: str) -> bool:
    """Whether `architecture` has a name."""
    return canonical(name) in _table()


def canonical(name: str) -> str:
    """Returns timm's present name of an architecture, without tag; an unknown name stays."""
    bare = str(name).partition(".")[0]
    bare = _other_names().get(bare, bare)
    _, fields = _table().get(bare, ("", ""))
    return fields.removeprefix(_SAME) if fields.startswith(_SAME) else bare


def architectures(family: str = "") -> list[str]:
    """Returns the architectures of timm that a family of ours has, or that any has."""
    return [
        name
        for name, (own_family, fields) in _table().items()
        if fields.startswith("{") and family in ("", own_family)
    ]


@functools.cache
def _other_names() -> dict[str, str]:
    """Returns a name of another library -> architecture of timm."""
    readers = map(families.find, families.names())
    return {name: ours for reader in readers for name, ours in reader.OTHER_NAMES.items()}


def wrote(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is timm's; old ones have everything at the top."""
    return bool(config.keys() & {"architecture", "pretrained_cfg", "model_args"}) or (
        config.keys() >= {"input_size", "mean"}
    )


def read(config: Mapping[str, Any]) -> Sidecar:
    """Returns what a config.json of timm says.

    Raises:
      ValueError: the architecture or an argument is unknown or unsupported; the preprocessing
        lacks a field or has a strange value.
    """
    top = Facts(FILE, config)
    is_object = lambda v: isinstance(v, Mapping)  # noqa: E731
    weights = top.take("pretrained_cfg", Rule(is_object, "an object", {}))
    if "pretrained_cfg" not in config:
        names = {"input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std"}
        weights = {name: top.get(name) for name in names if name in config}
    cfg = Facts(FILE, weights)
    family, fields, known = None, {}, None
    for name in (top.get("architecture"), cfg.get("architecture")):
        if name is not None and not fields:
            tag = cfg.get("tag")
            weights_name = name if tag is None or "." in str(name) else f"{name}.{tag}"
            try:
                family, fields = architecture(weights_name)
                known = canonical(name)
            except ValueError as error:
                raise ValueError(f"{FILE} beside the weights: {error}") from None
    shape = lambda v: facts.three(v, facts.whole) and v[0] == 3  # noqa: E731
    channels = "[3, height, width] in pixels, since networks here take RGB"
    if weights.get("input_size") is not None:
        rows, columns = cfg.take("input_size", Rule(shape, channels))[1:]
        fields["image_size"] = rows if rows == columns else (rows, columns)
    arguments = Facts(FILE, top.take("model_args", Rule(is_object, "an object", {})))
    arguments.only({"in_chans": (3,), "features_only": (False,)})
    arguments.ignore(_TRAINING)
    pool = top.get("global_pool")
    pool = arguments.get("global_pool") if pool is None else pool
    if family is not None:
        families.find(family).arguments(arguments, fields)
    if pool is not None:
        reader = families.find(family or "vit")  # whose rule for heads is the widest
        reader.pool(top, pool, arguments.get("class_token"), fields)
    classes = [t.get("num_classes") for t in (arguments, top, cfg)]
    offset = cfg.get("label_offset")
    if offset not in (None, 0, False):
        raise cfg.unsupported(f"label_offset {offset} (classes are numbered from it)")
    preprocess = _preprocess(cfg) if "mean" in weights else {}
    arguments.finish()
    cfg.ignore((*_DESCRIPTION, "input_size"))
    cfg.finish()
    if config.get("model_type") == WRAPPER:
        top.only({"model_type": (WRAPPER,), "do_pooling": (True,)})
        top.ignore(("initializer_range", "architectures", "dtype", "torch_dtype"))
        top.ignore(("transformers_version", "id2label", "label2id", "problem_type"))
    top.ignore((*_DESCRIPTION, "pretrained_cfg", "model_args"))
    top.finish()
    count = next((count for count in classes if count is not None), None)
    names = config.get("label_names") or weights.get("label_names") or ()
    return Sidecar(
        preprocess,
        fields,
        FILE if preprocess else None,
        family,
        count,
        tuple(map(str, names)) if count == len(names) else (),
        known,
    )


def _preprocess(cfg: Facts) -> dict[str, Any]:
    """Returns the fields of `Preprocess` that a `pretrained_cfg` asks for.

    "center" resizes the short side to size / crop_pct, "squash" resizes both sides, and both cut
    out the centre. "border" pads, which `Preprocess` does not do.
    """
    shape = lambda v: facts.three(v, facts.whole)  # noqa: E731
    size = tuple(cfg.take("input_size", Rule(shape, "[channels, height, width] in pixels"))[1:])
    modes, filters = ("center", "squash", "border"), (*INTERPOLATIONS, "random")
    mode = cfg.take("crop_mode", facts.one_of(modes, "center"))
    share = cfg.take("crop_pct", SHARE)
    interpolation = cfg.take("interpolation", facts.one_of(filters, "bicubic"))
    if mode == "border" or interpolation == "random":
        raise cfg.unsupported(
            f"crop_mode {mode!r}, crop_pct {share} and interpolation {interpolation!r}"
        )
    resize: int | tuple[int, ...] | None = math.floor(min(size) / share)
    if mode == "squash":
        resize = tuple(math.floor(side / share) for side in size) if share != 1 else None
    return {
        "size": size,
        "resize": resize,
        "interpolation": interpolation,
        **normalisation(cfg, "mean", "std"),
    }


SHARE = Rule(lambda v: facts.positive(v) and v <= 1, "a number above 0, at most 1", 0.875)


def normalisation(steps: Facts, mean: str, std: str) -> dict[str, Any]:
    """Returns mean and deviation of the channels, from the keys of these names."""
    means = steps.take(mean, Rule(lambda v: facts.three(v, facts.finite), "three numbers"))
    positive = Rule(lambda v: facts.three(v, facts.positive), "three numbers above 0")
    return {"mean": tuple(means), "std": tuple(steps.take(std, positive))}
