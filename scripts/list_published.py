"""Writes what timm and torchvision document of their networks and weights, as two tables.

    python scripts/list_published.py --out=vitcnn/checkpoints

`architectures.tsv` has, for each architecture of timm whose arrays have names that vitcnn reads,
the family and the fields of our network that computes the same, or the reason why none does. Every
layer of timm's network is looked at, because many of its architectures share all names and shapes
and differ in what they compute. `published.tsv` has the preprocessing of the weights whose file
names end in a part of their SHA-256. Both need timm and torchvision: pip install "vitcnn[oracles]".
"""

import json
import pathlib
import re
import warnings

from absl import app, flags

from vitcnn.checkpoints import families, timm_networks

OUT = flags.DEFINE_string("out", None, "Folder of the two tables.")

# Modules of timm -> the family of ours to which their networks are closest; apart from those that
# share no name of an array with ours.
MODULES = {
    **{name: "vit" for name in ("beit", "cait", "deit", "eva", "naflexvit", "vision_transformer")},
    **{f"vision_transformer_{name}": "vit" for name in ("hybrid", "relpos", "sam")},
    **{"mlp_mixer": "mixer", "resnet": "resnet", "resnetv2": "resnet", "senet": "resnet"},
}


def main(_):
    out = pathlib.Path(OUT.value)
    (out / "sidecars/architectures.tsv").write_text("\n".join(architectures()) + "\n")
    (out / "published.tsv").write_text("\n".join(published()) + "\n")


def architectures() -> list[str]:
    """Returns the lines of `architectures.tsv`: name, family, and fields as JSON or a reason."""
    import timm
    from timm.models import _registry

    lines = ["architecture\tfamily\tfields, or why vitcnn has no such network"]
    known = {}
    for name in sorted(timm.list_models()):
        module = timm.models.model_entrypoint(name).__module__.rpartition(".")[2]
        if module not in MODULES:
            continue
        network = empty(name)
        family, fields, reason = family_of(network), {}, ""
        if family is not None:
            fields, reason = describe(network, family)
        else:
            family = MODULES[module]
            strange = timm_networks.layers(network) - families.find(family).LAYERS
            reason = timm_networks.lack(strange) if strange else "other arrays"
        known[name] = family
        lines.append(f"{name}\t{family}\t{reason or json.dumps(fields)}")
    for old, new in sorted(_registry._deprecated_models.items()):
        name = str(new).partition(".")[0]
        if name in known:
            lines.append(f"{old}\t{known[name]}\tsame as {name}")
    return lines


def empty(name: str):
    """Returns a network of timm without memory for its arrays."""
    import timm
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return timm.create_model(name)
        except (NotImplementedError, RuntimeError):  # some compute constants from their arrays
            return timm.create_model(name, device="meta")


def family_of(network) -> str | None:
    """Returns the family whose format reads the names of the arrays of a network of timm.

    Of several, it is the one that asks for the most arrays.
    """
    keys = network.state_dict().keys()
    fitting = [
        (len(signature), family)
        for family in families.names()
        for signature in families.find(family).SIGNATURES
        if keys >= signature
    ]
    return max(fitting)[1] if fitting else None


def describe(network, family: str) -> tuple[dict, str]:
    """Returns the fields of our network that computes the same, or else why there is none."""
    reader = families.find(family)
    if strange := timm_networks.layers(network) - reader.LAYERS:
        return {}, timm_networks.lack(strange)
    return reader.describe(network)


def published() -> list[str]:
    """Returns the lines of `published.tsv`: part of the SHA-256, library, name, preprocessing."""
    columns = "library\tname\tsize\tresize\tinterpolation\tmean\tstd"
    rows = {**_timm(), **_torchvision(), **_others()}  # torchvision knows its own files best
    return [f"sha256\t{columns}", *(f"{key}\t{row}" for key, row in sorted(rows.items()))]


def _timm() -> dict[str, str]:
    import timm
    from timm.data import resolve_data_config

    rows = {}
    for name in sorted(timm.list_models(pretrained=True)):
        config = timm.models.get_pretrained_cfg(name)
        digits = re.search(r"-([0-9a-f]{8})\.\w+$", config.url or "")
        module = timm.models.model_entrypoint(name.partition(".")[0]).__module__
        if digits is None or module.rpartition(".")[2] not in MODULES:
            continue
        if family_of(empty(name.partition(".")[0])) is None:
            continue
        data = resolve_data_config(pretrained_cfg=config.to_dict())
        if data["crop_mode"] != "center" and data["crop_pct"] != 1:
            continue  # its resize would be two numbers
        size = data["input_size"][1]
        resize = int(size / data["crop_pct"]) if data["crop_mode"] == "center" else 0
        rows[digits[1]] = _row(
            "timm", name, size, resize, data["interpolation"], data["mean"], data["std"]
        )
    return rows


def _torchvision() -> dict[str, str]:
    from torchvision import models

    rows = {}
    for name in models.list_models(module=models):
        if not name.startswith(("resnet", "resnext", "vit_", "wide_resnet")):
            continue
        for weights in models.get_model_weights(name):
            digits = re.search(r"-([0-9a-f]{8})\.\w+$", weights.url)[1]
            steps = weights.transforms()
            (size,), (resize,) = steps.crop_size, steps.resize_size
            rows[digits] = _row(
                "torchvision",
                f"{name}.{weights.name}",
                size,
                resize,
                steps.interpolation.value,
                steps.mean,
                steps.std,
            )
    return rows


def _others() -> dict[str, str]:
    """Returns the CIFAR-10 ResNets of He et al. as github.com/akamaster trained them."""
    names = {"12fca82f": "resnet20", "d509ac18": "resnet32", "014dd48d": "resnet44"}
    names |= {"4bfd9763": "resnet56", "1d1ed7c2": "resnet110"}
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return {
        digits: _row("pytorch_resnet_cifar10", name, 32, 32, "bilinear", mean, std)
        for digits, name in names.items()
    }


def _row(library, name, size, resize, interpolation, mean, std) -> str:
    numbers = (",".join(f"{value:g}" for value in values) for values in (mean, std))
    return "\t".join([library, name, str(size), str(resize), interpolation, *numbers])


if __name__ == "__main__":
    flags.mark_flag_as_required("out")
    app.run(main)
