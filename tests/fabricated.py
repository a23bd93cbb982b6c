"""Results made by hand, for the tests of what reads Results."""

import json

import numpy as np
import xarray

from vitcnn.results.datasets import coordinates

SCENES = {
    "source": "scenes",
    "size": 400,
    "classes": 4,
    "image_size": 32,
    "texture": 0.9,
    "arrangement": 0.5,
    "noise": 0.1,
    "split": "test",
    "seed": 3,
    "bayes_accuracy": 0.925,
}
KINDS = {"vit": "vit", "resnet": "cnn", "bit": "cnn", "mixer": "mixer"}
PAIRS = ("lower_upper_difference", "lower_match_lag", "upper_match_drop")


def vit_layers(blocks):
    parts = ("ln1", "attn", "ln2", "hidden", "mlp", "out")
    inner = [f"block{b:02d}/{part}" for b in range(blocks) for part in parts]
    return ["embed", *inner, "norm", "pooled", "logits"]


def resnet_layers(units):
    layers = ["stem/conv", "stem/norm", "stem/pool"]
    for s, n in enumerate(units, 1):
        for u in range(1, n + 1):
            parts = ["conv1", "norm1", "conv2", "norm2", "conv3", "norm3"]
            parts += ["shortcut_conv", "shortcut_norm"] * (u == 1) + ["out"]
            layers += [f"stage{s}/unit{u:02d}/{part}" for part in parts]
    return [*layers, "pooled", "logits"]


def provenance(analysis, models, images=640, group=32, data=None, warnings=()):
    """models: name -> (family, variant)."""
    return {
        "analysis": analysis,
        "name": analysis,
        "fields": {"images": images, "repeats": 1, "taps": []},
        "models": {
            name: {
                "family": family,
                "kind": KINDS.get(family, ""),
                "variant": variant,
                "parameters": 1234567,
                "weights": {
                    "path": f"{name}.npz",
                    "format": "google_vit_npz",
                    "sha256": "ab12" * 16,
                },
            }
            for name, (family, variant) in models.items()
        },
        "data": data or {"source": "npz", "path": "images.npz", "images": 10_000},
        "group": group,
        "seed": 7,
        "precision": "highest",
        "versions": {"vitcnn": "0.1.0", "jax": "0.10.2", "revision": "0123abcd"},
        "devices": "cpu",
        "warnings": list(warnings),
    }


def cka(models, seed=0, low=0.02, dead=(), **fields):
    """A CKA Result of random numbers that is not symmetric, so that a transpose shows.

    models: name -> (family, variant, layers).
    """
    rng = np.random.default_rng(seed)
    layers = [(name, tap) for name, (_, _, taps) in models.items() for tap in taps]
    coords = coordinates(layers)
    n, names = len(layers), list(models)
    shapes = {
        "cka": ("layer_x", "layer_y"),
        "match_depth": ("layer_x", "model_y"),
        "match_cka": ("layer_x", "model_y"),
        **{name: ("model_x", "model_y") for name in PAIRS},
    }
    sizes = {"layer_x": n, "layer_y": n, "model_x": len(names), "model_y": len(names)}
    variables = {}
    for name, dims in shapes.items():
        shape = [sizes[d] for d in dims]
        variables[name] = (dims, rng.uniform(low, 1, shape))
        variables[f"{name}_standard_error"] = (dims, rng.uniform(0.001, 0.01, shape))
    result = xarray.Dataset(variables, {**coords, "model_x": names, "model_y": names})
    for name in dead:
        result.cka.loc[{"layer_x": name}] = np.nan
        result.cka.loc[{"layer_y": name}] = np.nan
    known = provenance("cka", {name: model[:2] for name, model in models.items()}, **fields)
    known["fields"]["taps"] = [[name, tap] for name, model in models.items() for tap in model[2]]
    return result.assign_attrs(provenance=json.dumps(known))


def pair(**fields):
    """A ViT and a ResNet, 22 and 18 layers."""
    models = {
        "vit": ("vit", "tiny", vit_layers(3)),
        "resnet": ("resnet", "small", resnet_layers((1, 1))[:18]),
    }
    return cka(models, **fields)


def accuracy(name, family, top1, error, **fields):
    values = {
        "top1": top1,
        "top5": 0.99,
        "nll": 0.5,
        "top1_standard_error": error,
        "top5_standard_error": 0.001,
        "nll_standard_error": 0.02,
        "right": int(top1 * 1000),
        "images": 1000,
    }
    known = provenance("accuracy", {name: (family, "tiny" if family == "vit" else "small")})
    known["name"] = f"accuracy.{name}"
    known |= fields
    return xarray.Dataset(values).assign_attrs(provenance=json.dumps(known))


def alone(analysis, model, family, values, coords=None, attrs=None, **fields):
    """A Result of one model, each variable (dims, values) with an error of 0.01."""
    variables = {}
    for name, (dims, numbers) in values.items():
        numbers = np.asarray(numbers, float)
        variables[name] = (dims, numbers)
        variables[f"{name}_standard_error"] = (dims, np.full(numbers.shape, 0.01))
    known = provenance(analysis, {model: (family, "small")}, **fields)
    known["name"] = f"{analysis}.{model}"
    result = xarray.Dataset(variables, coords, attrs)
    return result.assign_attrs(provenance=json.dumps(known))
