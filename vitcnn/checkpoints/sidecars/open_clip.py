"""open_clip_config.json beside the weights of open_clip: the image tower and its preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitcnn.checkpoints.sidecars import facts, timm
from vitcnn.checkpoints.sidecars.facts import Facts, Rule
from vitcnn.checkpoints.sidecars.sidecar import Sidecar

FILE = "open_clip_config.json"

_IS_OBJECT = Rule(lambda v: isinstance(v, Mapping), "an object", {})
_IS_FLAG = Rule(lambda v: isinstance(v, bool), "true or false", False)
# What reads texts, and how training compares them with images.
_TEXTS = ("text_cfg", "custom_text", "multimodal_cfg", "init_logit_scale", "init_logit_bias")
_TRAINING = ("patch_dropout", "ls_init_value", "output_tokens", "timm_model_pretrained")
_ARRAYS_SHOW = ("layers", "width", "mlp_ratio", "head_width", "patch_size", "image_size")


def read(config: Mapping[str, Any]) -> Sidecar:
    """Returns what an open_clip_config.json says of a CLIP whose images are read by a ViT.

    Raises:
      ValueError: a key has a strange value, is unknown, or asks for something that our ViT does not
        compute.
    """
    top = Facts(FILE, config)
    model = Facts(FILE, top.take("model_cfg", _IS_OBJECT))
    fields: dict[str, Any] = {"gelu": "quick" if model.take("quick_gelu", _IS_FLAG) else "exact"}
    vision = Facts(FILE, model.take("vision_cfg", _IS_OBJECT))
    if vision.get("timm_model_name") is not None:
        fields = _timm(vision)
    width = vision.get("width")
    if width is not None:  # no array shows the number of heads
        head_width = vision.take("head_width", Rule(facts.whole, "an integer above 0", 64))
        fields["heads"] = vision.take("width", facts.COUNT) // head_width
    sizes = {"image_size": "image_size", "patch_size": "patch"}
    fields |= vision.given(sizes, facts.SIDE)
    if (epsilon := _epsilon(vision)) is not None:
        fields["epsilon"] = epsilon
    vision.only(
        {
            "no_ln_pre": (False,),
            "attentional_pool": (False,),
            "pool_type": ("tok",),
            "final_ln_after_pool": (False,),
            "act_kwargs": ({},),
            "pos_embed_type": ("learnable",),
        }
    )
    vision.ignore((*_TRAINING, *_ARRAYS_SHOW))
    vision.finish()
    model.ignore(("embed_dim", "vision_cfg", "nonscalar_logit_scale", *_TEXTS))
    model.finish()
    steps = top.take("preprocess_cfg", _IS_OBJECT)
    top.finish()
    if not steps:
        return Sidecar(fields=fields, family="vit")
    return Sidecar(_preprocess(Facts(FILE, steps), fields), fields, FILE, "vit")


def _timm(vision: Facts) -> dict[str, Any]:
    """Returns the fields of a tower that is a network of timm, whose head open_clip replaces."""
    name = vision.take("timm_model_name", Rule(lambda v: isinstance(v, str), "a name of timm"))
    try:
        family, fields = timm.architecture(name)
    except ValueError as error:
        raise ValueError(f"{FILE} beside the weights: {error}") from None
    if family != "vit":
        raise vision.unsupported(f"an image tower of the family {family!r}, {name}")
    pools = {"": None, "map": "map", "token": "token", "avg": "gap"}
    pool = vision.take("timm_pool", facts.one_of(tuple(pools), ""))
    if pools[pool] not in (None, fields["pool"]):
        raise vision.unsupported(f"timm_pool {pool!r} of {name}, which pools by {fields['pool']!r}")
    vision.only({"timm_proj": ("none", "linear", ""), "timm_proj_bias": (False,)})
    vision.ignore(("timm_drop", "timm_drop_path"))
    fields.pop("image_size")  # open_clip's own is the size of the images
    return fields


def _epsilon(vision: Facts) -> float | None:
    norm = Facts(FILE, vision.take("norm_kwargs", _IS_OBJECT))
    epsilon = norm.get("eps")
    if epsilon is not None:
        epsilon = float(norm.take("eps", Rule(facts.positive, "a number above 0")))
    norm.finish()
    return epsilon


def _preprocess(steps: Facts, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `Preprocess`.

    open_clip resizes the short side and cuts out the centre, or squashes the image into its size.
    """
    steps.only({"mode": ("RGB",)})
    mode = steps.take("resize_mode", facts.one_of(("shortest", "squash"), "shortest"))
    steps.ignore(("fill_color",))
    size = steps.get("size")
    size = fields.get("image_size") if size is None else steps.take("size", facts.SIDE)
    names = ("bicubic", "bilinear")
    preprocess = {
        "interpolation": steps.take("interpolation", facts.one_of(names, "bicubic")),
        **timm.normalisation(steps, "mean", "std"),
    }
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        resize = min(height, width) if mode == "shortest" else None
        preprocess |= {"size": (height, width), "resize": resize}
    steps.finish()
    return preprocess
