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

from vitcnn.checkpoints.sidecars import facts
from vitcnn.checkpoints.sidecars.facts import Facts, Rule
from vitcnn.checkpoints.sidecars.sidecar import Sidecar
from vitcnn.data.preprocess import INTERPOLATIONS
from vitcnn.lookup import nearest
from vitcnn.models import vit

FILE = "config.json"
WRAPPER = "timm_wrapper"  # model_type of timm's networks that transformers has saved

_TABLE = pathlib.Path(__file__).with_name("architectures.tsv")
_POOLS = {"token": "token", "avg": "gap", "map": "map"}
_GELU = {"gelu": "exact", "gelu_tanh": "tanh", "quick_gelu": "quick"}

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
_IN_ARRAYS = {
    "vit": (
        *("embed_dim", "depth", "mlp_ratio", "qkv_bias", "proj_bias", "qk_norm", "class_token"),
        *("no_embed_class", "reg_tokens", "pre_norm", "final_norm", "fc_norm", "distilled"),
        *("scale_attn_norm", "scale_mlp_norm", "representation_size"),
    ),
    "mixer": ("embed_dim", "num_blocks", "mlp_ratio"),
    "resnet": ("layers", "channels"),
    "bit": ("layers", "channels", "width_factor"),
}
# Arguments of a ViT -> our fields that they change.
_CHANGES = {
    "embed_dim": ("width", "mlp_dim"),
    "depth": ("depth",),
    "mlp_ratio": ("mlp_dim",),
    "reg_tokens": ("registers",),
    "fc_norm": ("norm_pooled",),
    "class_token": ("norm_pooled",),
    "global_pool": ("norm_pooled",),
    "final_norm": ("final_norm", "norm_pooled"),
    "pre_norm": ("embed_norm",),
    "qkv_bias": ("qkv_bias",),
    "init_values": ("layer_scale",),
}
# Arguments that our networks have in one form only, and no array shows.
_ONLY = {
    "vit": {
        "dynamic_img_pad": (False,),
        "pool_include_prefix": (False,),
        "pos_embed": ("learn",),
        "norm_layer": ("layernorm",),
    },
    "mixer": {"act_layer": ("gelu",), "global_pool": ("avg",), "norm_layer": ("layernorm",)},
    "resnet": {
        "act_layer": ("relu",),
        "norm_layer": ("batchnorm2d", "batchnorm"),
        "output_stride": (32,),
        "cardinality": (1,),
        "base_width": (64,),
        "stem_width": (64,),
        "stem_type": ("",),
        "replace_stem_pool": (False,),
        "block_reduce_first": (1,),
        "down_kernel_size": (1,),
        "avg_down": (False,),
        "global_pool": ("avg",),
    },
    "bit": {"output_stride": (32,), "global_pool": ("avg",), "stem_type": ("fixed",)},
}


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
      name: an architecture of timm, such as "vit_base_patch16_224"; a tag after a dot is ignored.

    Raises:
      ValueError: no family of ours has such a network, or the name is unknown.
    """
    bare = str(name).partition(".")[0]
    if bare not in _table():
        raise ValueError(f"unknown architecture {name!r} of timm: {nearest(bare, list(_table()))}")
    family, fields = _table()[bare]
    if fields.startswith("same as "):
        return architecture(fields.removeprefix("same as "))
    if not fields.startswith("{"):
        raise ValueError(
            f"the architecture {name!r} of timm has {fields}, which the family {family!r} does "
            "not support"
        )
    return family, json.loads(fields)


def knows(name: str) -> bool:
    """Whether `architecture` has a name."""
    return name.partition(".")[0] in _table()


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
    family, fields = None, {}
    for name in (top.get("architecture"), cfg.get("architecture")):
        if name is not None and not fields:
            try:
                family, fields = architecture(name)
            except ValueError as error:
                raise ValueError(f"{FILE} beside the weights: {error}") from None
    weights_name = f"{top.get('architecture')}.{cfg.get('tag')}"
    if weights_name in vit.TRAINED_WITH_QUICK_GELU:
        fields["gelu"] = "quick"
        warnings.warn(
            f"{weights_name} was trained with the quick GELU, which vitcnn takes; timm computes a "
            'network of this name with the exact one: set gelu="exact" for that',
            stacklevel=2,
        )
    shape = lambda v: facts.three(v, facts.whole) and v[0] == 3  # noqa: E731
    channels = "[3, height, width] in pixels, since networks here take RGB"
    if weights.get("input_size") is not None:
        rows, columns = cfg.take("input_size", Rule(shape, channels))[1:]
        fields["image_size"] = rows if rows == columns else (rows, columns)
    arguments = Facts(FILE, top.take("model_args", Rule(is_object, "an object", {})))
    _arguments(arguments, family, fields)
    pool = top.get("global_pool")
    pool = arguments.get("global_pool") if pool is None else pool
    _pool(top, pool, arguments.get("class_token"), family, fields)
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
    )


def _arguments(arguments: Facts, family: str | None, fields: dict[str, Any]) -> None:
    """Adds the fields that the arguments of an architecture set; see timm's `model_args`."""
    arguments.only({"in_chans": (3,), "features_only": (False,)})
    arguments.ignore((*_TRAINING, *_IN_ARRAYS.get(family, ()), "num_classes", "global_pool"))
    arguments.only({k: v for k, v in _ONLY.get(family, {}).items() if k != "global_pool"})
    if family in ("vit", "mixer"):
        fields |= arguments.given({"img_size": "image_size", "patch_size": "patch"}, facts.SIDE)
    else:
        arguments.ignore(("img_size", "patch_size"))
    if family != "vit":
        return
    fields |= arguments.given({"num_heads": "heads"}, facts.COUNT)
    if arguments.get("act_layer") is not None:
        fields["gelu"] = _GELU[arguments.take("act_layer", facts.one_of(tuple(_GELU), "gelu"))]
    for argument, names in _CHANGES.items():  # the arrays show what they change
        if arguments.get(argument) is not None:
            for name in names:
                fields.pop(name, None)


def _pool(
    top: Facts, pool: Any, class_token: bool | None, family: str | None, fields: dict[str, Any]
) -> None:
    """Checks what the head of a network reads, `global_pool` of timm."""
    if pool is None:
        return
    if family in ("vit", None):
        if pool not in ("token", "avg", "map"):
            raise top.unsupported(f"global_pool {pool!r} (a ViT pools by 'token', 'avg' or 'map')")
        if class_token is None:
            class_token = fields.get("pool") in ("token", "clsgap")
        if pool == "map" and class_token:
            raise top.unsupported("global_pool 'map' of an architecture with a class token")
        fields["pool"] = "clsgap" if class_token and pool == "avg" else _POOLS[pool]
    elif pool not in _ONLY[family]["global_pool"]:
        raise top.unsupported(f"global_pool {pool!r} (the family {family!r} pools by 'avg')")


def _preprocess(cfg: Facts) -> dict[str, Any]:
    """Returns the fields of `Preprocess` that a `pretrained_cfg` asks for.

    "squash" resizes both sides to size / crop_pct and cuts out the centre. `Preprocess` supports
    only a crop_pct of 1 there, where nothing is cut off.
    """
    shape = lambda v: facts.three(v, facts.whole)  # noqa: E731
    size = tuple(cfg.take("input_size", Rule(shape, "[channels, height, width] in pixels"))[1:])
    modes, filters = ("center", "squash", "border"), (*INTERPOLATIONS, "random")
    mode = cfg.take("crop_mode", facts.one_of(modes, "center"))
    share = cfg.take("crop_pct", SHARE)
    interpolation = cfg.take("interpolation", facts.one_of(filters, "bicubic"))
    if mode == "border" or interpolation == "random" or (mode == "squash" and share != 1):
        raise cfg.unsupported(
            f"crop_mode {mode!r}, crop_pct {share} and interpolation {interpolation!r}"
        )
    return {
        "size": size,
        "resize": math.floor(min(size) / share) if mode == "center" else None,
        "interpolation": interpolation,
        **normalisation(cfg, "mean", "std"),
    }


SHARE = Rule(lambda v: facts.positive(v) and v <= 1, "a number above 0, at most 1", 0.875)


def normalisation(steps: Facts, mean: str, std: str) -> dict[str, Any]:
    """Returns mean and deviation of the channels, from the keys of these names."""
    means = steps.take(mean, Rule(lambda v: facts.three(v, facts.finite), "three numbers"))
    positive = Rule(lambda v: facts.three(v, facts.positive), "three numbers above 0")
    return {"mean": tuple(means), "std": tuple(steps.take(std, positive))}
