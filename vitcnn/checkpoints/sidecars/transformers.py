"""config.json of Hugging Face transformers: the fields of a network of one `model_type`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitcnn.checkpoints.sidecars import facts
from vitcnn.checkpoints.sidecars.facts import Facts, Rule
from vitcnn.checkpoints.sidecars.sidecar import Sidecar

FILE = "config.json"

_GELU = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh"}
# Epsilon of the norms where the file does not say it.
_VITS = {
    "vit": 1e-12,
    "deit": 1e-12,
    "vit_msn": 1e-6,
    "dinov2": 1e-6,
    "dinov2_with_registers": 1e-6,
}
# model_type of a whole CLIP or SigLIP, or of its image tower -> epsilon of the norms and activation
# where the file does not say them.
_CLIPS = {
    "clip": (1e-5, "quick_gelu"),
    "clip_vision_model": (1e-5, "quick_gelu"),
    "siglip": (1e-6, "gelu_pytorch_tanh"),
    "siglip_vision_model": (1e-6, "gelu_pytorch_tanh"),
}
MODEL_TYPES = (*_VITS, *_CLIPS, "resnet", "bit")

# No key of these changes what a trained network computes on images.
_EVERY_CONFIG = (
    *("architectures", "transformers_version", "torch_dtype", "dtype", "use_bfloat16"),
    *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "initializer_range"),
    *("return_dict", "output_hidden_states", "output_attentions", "use_cache", "torchscript"),
    *("gradient_checkpointing", "chunk_size_feed_forward", "attn_implementation"),
    *("tie_word_embeddings", "tf_legacy_loss", "auto_map", "license", "tags", "library_name"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"),
    # of networks that write text
    *("is_encoder_decoder", "is_decoder", "add_cross_attention", "cross_attention_hidden_size"),
    *("tie_encoder_decoder", "max_length", "min_length", "do_sample", "early_stopping"),
    *("num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p"),
    *("typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"),
    *("encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores"),
    *("return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id"),
    *("remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens"),
    *("begin_suppress_tokens", "tokenizer_class", "prefix", "bos_token_id", "pad_token_id"),
    *("eos_token_id", "sep_token_id", "decoder_start_token_id", "task_specific_params"),
)
# What reads texts, and how training compares them with images.
_TEXTS = (
    *("text_config", "text_config_dict", "vision_config_dict", "logit_scale_init_value"),
    *("projection_dim", "initializer_factor", "dropout", "attention_dropout", "vision_use_head"),
)
# Which layers a backbone returns, and what only training or a decoder reads.
_BACKBONE = ("out_features", "out_indices", "stage_names", "apply_layernorm", "return_class_token")
_VIT_ONLY_TRAINING = (
    *("encoder_stride", "use_mask_token", "layerscale_value", "reshape_hidden_states"),
    *("interpolate_antialias", "interpolate_offset", "pooler_output_size", "qkv_bias"),
    *("mlp_ratio",),  # the arrays show the last three
)


def read(config: Mapping[str, Any]) -> Sidecar:
    """Returns what a config.json of transformers says of a network.

    Raises:
      ValueError: the network is of another type, or a key has a strange value, is unknown, or asks
        for something that our networks do not compute.
    """
    config_facts = Facts(FILE, config)
    is_ours = Rule(lambda v: v in MODEL_TYPES, f"one of {MODEL_TYPES}")
    model_type = config_facts.take("model_type", is_ours)
    config_facts.ignore((*_EVERY_CONFIG, *_BACKBONE))
    config_facts.only({"num_channels": (3,), "pruned_heads": ({},), "quantization_config": ()})
    if model_type == "resnet":
        family, fields = "resnet", _resnet(config_facts)
    elif model_type == "bit":
        family, fields = "bit", _bit(config_facts)
    elif model_type in _CLIPS:
        family, fields = "vit", _clip(config_facts, model_type)
    else:
        family, fields = "vit", _vit(config_facts, model_type)
    config_facts.finish()
    labels = config.get("id2label")
    classes = len(labels) if isinstance(labels, Mapping) else None
    return Sidecar(
        fields=fields, family=family, classes=classes, class_names=_class_names(labels or {})
    )


def _class_names(labels: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of `id2label`.

    Placeholders are no names, and neither are the words for ImageNet's thousand classes: everyone
    else has the synset ids for names, and the order of the classes is the same.
    """
    names = [str(labels.get(str(i), "")) for i in range(len(labels))]
    if len(names) == 1000 or any(name in ("", f"LABEL_{i}") for i, name in enumerate(names)):
        return ()
    return tuple(names)


def _vit(config: Facts, model_type: str) -> dict[str, Any]:
    config.ignore(_VIT_ONLY_TRAINING)
    config.only({"pooler_act": ("tanh",)})
    number = Rule(facts.positive, "a number above 0", _VITS[model_type])
    fields = {
        "epsilon": float(config.take("layer_norm_eps", number)),
        "gelu": _GELU[config.take("hidden_act", facts.one_of(tuple(_GELU), "gelu"))],
    }
    counts = {
        "hidden_size": "width",
        "num_hidden_layers": "depth",
        "num_attention_heads": "heads",
        "intermediate_size": "mlp_dim",
    }
    fields |= config.given(counts, facts.COUNT)
    if model_type == "dinov2_with_registers":
        tokens = Rule(lambda v: type(v) is int and v >= 0, "an integer, at least 0")
        fields |= config.given({"num_register_tokens": "registers"}, tokens)
    if model_type.startswith("dinov2"):
        gated = Rule(lambda v: isinstance(v, bool), "true or false", False)
        fields["gated"] = config.take("use_swiglu_ffn", gated)
        fields.pop("mlp_dim", None)  # no key of this type; mlp_ratio says it
    sizes = {"image_size": "image_size", "patch_size": "patch"}
    return fields | config.given(sizes, facts.SIDE)


def _clip(config: Facts, model_type: str) -> dict[str, Any]:
    """Returns the fields of the image tower of a CLIP or SigLIP."""
    config.ignore(_TEXTS)
    tower = config
    if not model_type.endswith("_vision_model"):
        is_object = Rule(lambda v: isinstance(v, Mapping), "an object", {})
        tower = Facts(FILE, config.take("vision_config", is_object))
        tower.ignore((*_EVERY_CONFIG, *_TEXTS, "model_type"))
        tower.only({"num_channels": (3,), "pruned_heads": ({},)})
    epsilon, activation = _CLIPS[model_type]
    activations = (*_GELU, "quick_gelu")
    activation = tower.take("hidden_act", facts.one_of(activations, activation))
    number = Rule(facts.positive, "a number above 0", epsilon)
    heads = Rule(facts.whole, "an integer above 0", 12)
    fields = {
        "epsilon": float(tower.take("layer_norm_eps", number)),
        "gelu": "quick" if activation == "quick_gelu" else _GELU[activation],
        "heads": tower.take("num_attention_heads", heads),
    }
    counts = {
        "hidden_size": "width",
        "num_hidden_layers": "depth",
        "intermediate_size": "mlp_dim",
    }
    sizes = {"image_size": "image_size", "patch_size": "patch"}
    fields |= tower.given(counts, facts.COUNT) | tower.given(sizes, facts.SIDE)
    if tower is not config:
        tower.finish()
    return fields


def _resnet(config: Facts) -> dict[str, Any]:
    config.ignore(("embedding_size", "hidden_sizes", "layer_type"))  # the arrays show them
    config.only({"hidden_act": ("relu",), "downsample_in_first_stage": (False,)})
    first = Rule(lambda v: isinstance(v, bool), "true or false", False)
    fields = {"stride_conv": 1 if config.take("downsample_in_bottleneck", first) else 2}
    return fields | _units(config)


def _bit(config: Facts) -> dict[str, Any]:
    config.ignore(("embedding_size", "hidden_sizes", "width_factor"))
    ours = {
        "layer_type": ("preactivation",),
        "global_padding": (),
        "num_groups": (32,),
        "hidden_act": ("relu",),
        "embedding_dynamic_padding": (False,),
        "output_stride": (32,),
    }
    config.only(ours)
    return _units(config)


def _units(config: Facts) -> dict[str, Any]:
    """Returns the number of units of each stage."""
    counts = Rule(lambda v: isinstance(v, list) and all(map(facts.whole, v)), "a list of integers")
    return config.given({"depths": "units"}, counts)
