"""config.json of Hugging Face transformers: the fields of a network of one `model_type`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vitcnn.checkpoints import families
from vitcnn.checkpoints.sidecars.facts import Facts, Rule
from vitcnn.checkpoints.sidecars.sidecar import Sidecar

FILE = "config.json"

# No key of these changes what a trained network computes on images.
EVERY_CONFIG = (
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
# Which layers a backbone returns, and what only training or a decoder reads.
_BACKBONE = ("out_features", "out_indices", "stage_names", "apply_layernorm", "return_class_token")


def read(config: Mapping[str, Any]) -> Sidecar:
    """Returns what a config.json of transformers says of a network.

    Raises:
      ValueError: the network is of another type, or a key has a strange value, is unknown, or asks
        for something that our networks do not compute.
    """
    config_facts = Facts(FILE, config)
    readers = _readers()
    is_ours = Rule(lambda v: v in readers, f"one of {tuple(readers)}")
    family, fields_of = readers[config_facts.take("model_type", is_ours)]
    config_facts.ignore((*EVERY_CONFIG, *_BACKBONE))
    config_facts.only({"num_channels": (3,), "pruned_heads": ({},), "quantization_config": ()})
    fields = fields_of(config_facts)
    config_facts.finish()
    labels = config.get("id2label")
    classes = len(labels) if isinstance(labels, Mapping) else None
    return Sidecar(
        fields=fields, family=family, classes=classes, class_names=_class_names(labels or {})
    )


def _readers() -> dict[str, tuple[str, Callable[[Facts], dict[str, Any]]]]:
    """Returns the `model_type` of a network -> (family, what reads its fields)."""
    return {
        model_type: (family, fields_of)
        for family in families.names()
        for model_type, fields_of in families.find(family).MODEL_TYPES.items()
    }


def _class_names(labels: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of `id2label`.

    Placeholders are no names, and neither are the words for ImageNet's thousand classes: everyone
    else has the synset ids for names, and the order of the classes is the same.
    """
    names = [str(labels.get(str(i), "")) for i in range(len(labels))]
    if len(names) == 1000 or any(name in ("", f"LABEL_{i}") for i, name in enumerate(names)):
        return ()
    return tuple(names)
