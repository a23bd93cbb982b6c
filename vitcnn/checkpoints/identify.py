"""Which network a name means, and which network a file of weights holds.

A network of ours is a family, a variant and fields. Whoever has weights has a name instead, or
nothing: family and fields then follow from the keys and shapes of the arrays, from the JSON beside
them, and from the name. What two of these say about one field is compared. A field that no array
shows has to be said by one of them: nothing is guessed from sizes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from vitcnn import lookup, models
from vitcnn.checkpoints import families
from vitcnn.checkpoints.implied import same
from vitcnn.checkpoints.restore import WeightsFile
from vitcnn.checkpoints.sidecars import timm

# Fields that say nothing about which network it is, but how it is used or started.
_FREE = ("num_classes", "image_size", "gelu", "epsilon", "last_norm_scale", "dtype")
# The letters of sizes, and a letter that is one: "S" in "DeiT-S/16" and in "vitS/16".
_SIZES = {"Ti": "tiny", "S": "small", "B": "base", "L": "large", "H": "huge", "g": "giant"}
_SIZE = re.compile(f"({'|'.join(_SIZES)})(?=/)")


@dataclasses.dataclass(frozen=True)
class Network:
    """Which network is meant.

    Attributes:
      family: its family.
      variant: its variant; "" for the defaults of the family.
      fields: fields that differ from those of the variant.
      architecture: the name of the network in timm, for provenance; None if it is not known.
    """

    family: str
    variant: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    architecture: str | None = None


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which network a file of weights holds.

    Attributes:
      network: the network.
      file: the file, with what the caller's name for the network says about it.
    """

    network: Network
    file: WeightsFile


def named(name: str) -> Network:
    """Returns the network of a name, whose spelling is free.

    Args:
      name: an architecture of timm or a network of torchvision, such as "vit_base_patch16_224" or
        "resnet50"; or a variant, with or without its family: "ViT-B/16", "B16", "deit-s/16",
        "ViT-Base/16". A variant without its family is one of a ViT where a ViT has one.

    Raises:
      ValueError: no network has the name, or several have; the message lists the nearest names.
    """
    if timm.knows(name):
        family, fields = timm.architecture(name)
        return _of_fields(family, fields, timm.canonical(name))
    meant = _spellings().get(_plain(name), [])
    if len(meant) > 1 and any(family == "vit" for family, _ in meant):
        meant = [(family, variant) for family, variant in meant if family == "vit"]
    if len(meant) == 1:
        return Network(*meant[0])
    if meant:
        shown = " or ".join(f"vitcnn.load({family!r}, {v!r})" for family, v in meant)
        raise ValueError(f"{name!r} is the name of several networks: {shown}")
    if of_kind := variants_of(name):
        shown = ", ".join(f"vitcnn.load({family!r}, {v!r})" for family, v in of_kind[:6])
        raise ValueError(
            f"{name!r} is the name of {len(of_kind)} networks, such as {shown}: name one, or give "
            "weights"
        )
    raise ValueError(f"{name!r} is neither a path nor the name of a network: {_hint(name)}")


def _hint(name: str) -> str:
    """Returns the end of the error about a name that is no network's."""
    repository = re.fullmatch(r"(?:hf[-_]hub:)?([\w.-]+/[\w.-]{3,})", name)
    if repository is not None:
        return f"did you mean 'hf:{repository[1]}', a repository of Hugging Face?"
    choices = [*(f"{family} {variant}" for family, variant in _variants()), *timm.architectures()]
    hint = lookup.nearest(name, choices)
    if hint.startswith("did you mean"):
        return hint
    return (
        f"none is like it; the families are {', '.join(families.names())}, and python -m vitcnn "
        "models lists their networks"
    )


def is_name(name: str) -> bool:
    """Whether `named` knows a name."""
    return timm.knows(name) or bool(_spellings().get(_plain(name)) or variants_of(name))


def variants_of(word: str) -> list[tuple[str, str]]:
    """Returns the (family, variant) that a word such as "deit", "dino" or "mixer" may mean."""
    for family in families.names():
        for name, beginning in families.find(family).NAMES.items():
            if _plain(name) == _plain(word):
                return [(f, v) for f, v in _variants() if f == family and v.startswith(beginning)]
    return []


def identify(file: WeightsFile, chosen: Mapping[str, Any], name: str = "") -> Identity:
    """Returns the network whose weights a file holds.

    Args:
      file: the file.
      chosen: fields that the caller sets; they win, and `restore` compares them.
      name: what the caller calls the network: a family, a word such as "deit", or a name that
        `named` knows; "" for nothing.

    Raises:
      ValueError: nothing says which network it is, or what a field is that no array shows; two
        sources contradict each other; or the name is unknown, or of another family.
    """
    family = file.format.FAMILY
    meant = variants_of(name) if name else []
    network = named(name) if name and not meant else None
    named_family = network.family if network else next((f for f, _ in meant), family)
    if named_family != family:
        raise ValueError(
            f"{file.label} holds weights of the family {family!r}, and {name!r} is of the family "
            f"{named_family!r}"
        )
    if network is not None:
        if network.architecture is None:
            return Identity(network, file)
        _, fields = timm.architecture(name)
        said = file.implied.with_architecture(name, fields, chosen)
        file = dataclasses.replace(file, implied=said)
    implied, reader = file.implied, families.find(family)
    seen = _seen(file, reader)
    for field, value in seen.items():
        said = implied.said.get(field)
        comparable = said is not None and field not in chosen and field != "image_size"
        if comparable and not same(said, value, field):
            raise ValueError(
                f"{file.label}: its arrays have {field} = {value!r}, and {implied.source} says "
                f"{said!r}; correct the latter, or set {field}={value!r}"
            )
    known = {**seen, **implied.fields}
    fitting = [v for v in models.variants(family) if _fits(family, v, seen)]
    candidates = [variant for _, variant in meant]
    if len(candidates) not in (0, len(models.variants(family))):  # a word like "deit", not "vit"
        if not set(candidates) & set(fitting):
            raise ValueError(
                f"{file.label}: {name!r} may mean {', '.join(candidates)}, and its arrays have the "
                "shapes of none of them"
            )
        candidates = [variant for variant in candidates if variant in fitting]
        variant = _one_of(candidates, family, name, {**known, **chosen})
        fields = {**models.fields(family, variant), **known}
        return Identity(Network(family, variant, _differing(family, variant, fields)), file)
    fields = {**implied.assumed, **known}
    unseen = [f for f in (*reader.UNSEEN, *getattr(file.format, "UNSEEN", ())) if f not in seen]
    if not (implied.is_named or chosen.keys() >= set(unseen)):
        raise ValueError(_unnamed(file, fitting))
    unsaid = [f for f in unseen if f not in fields and f not in chosen]
    if unsaid:
        raise ValueError(
            f"{file.label}: no array shows its {' and '.join(unsaid)}, and nothing beside the "
            f"weights says it; set {unsaid[0]}=..."
        )
    architecture = implied.architecture
    if architecture is not None:  # the arguments in the JSON may have made another network of it
        _, own = timm.architecture(architecture)
        is_same = all(same(v, fields.get(k, v), k) for k, v in own.items() if k not in _FREE)
        architecture = architecture if is_same else None
    return Identity(_of_fields(family, fields, architecture), file)


def _one_of(fitting: list[str], family: str, word: str, known: Mapping[str, Any]) -> str:
    """Returns the variant that a word means, of those whose arrays a file has.

    Args:
      fitting: the variants.
      family: their family.
      word: for errors, such as "clip".
      known: fields that something says.

    Raises:
      ValueError: the variants compute different things, and nothing says which is meant.
    """
    own = {variant: models.fields(family, variant) for variant in fitting}
    first = own[fitting[0]]
    for field in [f for f in first if f not in known and f not in ("num_classes", "image_size")]:
        if any(not same(fields[field], first[field], field) for fields in own.values()):
            values = ", ".join(f"{v} ({field}={own[v][field]!r})" for v in fitting)
            raise ValueError(f"{word!r} may mean {values}: set {field}, or name the variant")
    return fitting[0]


def _seen(file: WeightsFile, reader: ModuleType) -> dict[str, Any]:
    """Returns the fields that the arrays of a file show."""
    shapes = {key: value.shape for key, value in file.convert(None).items()}
    try:
        return reader.from_arrays(shapes)
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(
            f"{file.label} lacks arrays of every network of the family {file.format.FAMILY!r}: "
            f"{error}"
        ) from error


def _unnamed(file: WeightsFile, fitting: list[str]) -> str:
    """Returns the error about a file that does not say which network it holds."""
    family, name = file.format.FAMILY, file.path.name
    fits = f" and has the shapes of {family} {' or '.join(fitting[:4])}" if fitting else ""
    example = fitting[0] if fitting else "..."
    return (
        f"{file.label} does not say which network it holds{fits}: networks that compute different "
        f"things have the same arrays; name the one that is meant, as in "
        f"vitcnn.load({family!r}, {example!r}, {name!r})"
    )


def _of_fields(family: str, fields: Mapping[str, Any], architecture: str | None) -> Network:
    """Returns a network by the variant that it is, or else by the defaults of its family."""
    variant = next((v for v in models.variants(family) if _fits(family, v, fields)), "")
    return Network(family, variant, _differing(family, variant, fields), architecture)


def _differing(family: str, variant: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields that differ from those of a variant, and the size of the images."""
    own = models.fields(family, variant)
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields.items()
        if not same(own[name], value) or name == "image_size"
    }


def _fits(family: str, variant: str, fields: Mapping[str, Any]) -> bool:
    """Whether a variant has these fields, apart from those that any network may have."""
    own = models.fields(family, variant)
    return all(same(own[k], v, k) for k, v in fields.items() if k not in _FREE)


def _variants() -> list[tuple[str, str]]:
    """Returns every (family, variant)."""
    return [(f, variant) for f in families.names() for variant in models.variants(f)]


def _spellings() -> dict[str, list[tuple[str, str]]]:
    """Returns plain spelling -> the (family, variant) that it may mean."""
    meanings: dict[str, list[tuple[str, str]]] = {}
    for family, variant in _variants():
        spellings = {variant, family + variant}
        for word, beginning in families.find(family).NAMES.items():
            if variant.startswith(beginning):
                rest = variant.removeprefix(beginning)
                spellings |= {word + rest, f"{word}-{family}-{rest}"}  # also "DINO ViT-S/8"
        spellings |= {_SIZE.sub(lambda size: _SIZES[size[0]], spelling) for spelling in spellings}
        for spelling in {_plain(spelling) for spelling in spellings}:
            meanings.setdefault(spelling, []).append((family, variant))
    return meanings


def _plain(name: str) -> str:
    """Returns a name in small letters and digits alone: "ViT-B/16" is "vitb16"."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())
