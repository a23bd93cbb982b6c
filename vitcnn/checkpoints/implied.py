"""What weights imply beyond their arrays: how a network computes, how its images are prepared.

Later sources win: the defaults of the format, what the library documents of published weights, the
JSON beside the file. Facts that arrays do not show are adopted; those that they do show, or that
decide how arrays are read, are compared with the network, and a difference is an error.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from vitcnn.checkpoints import published, sidecars
from vitcnn.checkpoints.sidecars import timm
from vitcnn.layers import image_sizes


@dataclasses.dataclass(frozen=True)
class Implied:
    """What weights imply.

    Attributes:
      fields: fields of the network, as the format and the JSON beside the weights have them.
      said: those of these fields that do not come from the format alone.
      assumed: fields that are likely, but that nothing beside the weights says.
      unsaid: fields that nothing says, and the advice what to set.
      preprocess: fields of `vitcnn.data.preprocess.Preprocess`.
      origin: where the preprocessing comes from, for provenance; None if there is none.
      is_guess: whether nothing says that the preprocessing is that of these weights.
      classes: number of classes of the head; None if nothing says it.
      class_names: their names, by number; () if nothing says them.
      source: the file that says the fields, for errors.
      evident: fields that the keys and numbers in the file show, though no shape does.
      architecture: name of the network in timm; None if nothing says it.
      is_named: whether something says which network it is, beyond its arrays.
    """

    fields: Mapping[str, Any]
    said: Mapping[str, Any]
    assumed: Mapping[str, Any]
    unsaid: Mapping[str, str]
    preprocess: Mapping[str, Any]
    origin: str | None
    is_guess: bool
    classes: int | None
    class_names: tuple[str, ...]
    source: str
    evident: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    architecture: str | None = None
    is_named: bool = False

    def with_architecture(
        self, name: str, fields: Mapping[str, Any], chosen: Collection[str]
    ) -> Implied:
        """Returns the same where the caller has named an architecture.

        Args:
          name: of the architecture, in timm. Where the JSON beside the weights has it too, the JSON
            says more than a name without a tag: its own tag, and arguments.
          fields: those of our network that computes the same.
          chosen: names of the fields that the caller has set, which are not compared.

        Raises:
          ValueError: the file, or the JSON beside it, says something else.
        """
        fields = {k: v for k, v in fields.items() if k != "image_size"}
        architecture = timm.canonical(name)
        if "." not in name and architecture == self.architecture:
            return self
        known = {**self.evident, **self.said}
        for field in sorted(fields.keys() & known.keys() - set(chosen)):
            if not same(known[field], fields[field], field):
                where = f"{self.source} says" if field in self.said else "the keys of the file mean"
                raise ValueError(
                    f"the architecture {name!r} has {field} = {fields[field]!r}, and {where} "
                    f"{known[field]!r}; correct one of them, or set {field}"
                )
        return dataclasses.replace(
            self,
            fields={**self.fields, **fields},
            said={**fields, **self.said},
            unsaid={k: v for k, v in self.unsaid.items() if k not in fields},
            source=self.source if self.said else f"the architecture {name!r}",
            architecture=architecture,
            is_named=True,
        )


def read(
    path: pathlib.Path,
    sha256: str,
    architecture: str | None,
    format_name: str,
    file_format: ModuleType,
    arrays: Mapping[str, np.ndarray],
) -> Implied:
    """Returns what a file of weights implies.

    Args:
      path: the file.
      sha256: of its content.
      architecture: name of the network that a training script wrote into the file; a name that is
        not timm's says nothing.
      format_name, file_format: the format of the file.
      arrays: what the file holds.

    Raises:
      ValueError: the JSON beside the weights is damaged, is of another family, or asks for
        something that vitcnn does not support.
    """
    sidecar = getattr(file_format, "SIDECAR", sidecars.read_own)(path)
    family = getattr(file_format, "FAMILY", None)
    defaults, said = dict(getattr(file_format, "FIELDS", {})), {}
    evident = file_format.fields(arrays) if hasattr(file_format, "fields") else {}
    defaults |= evident
    source = f"the format {format_name!r}"
    documented = published.find(path, sha256)
    is_documented = documented is not None and documented.is_certain
    families = [(sidecar.family, "the JSON beside it")]
    named = [(architecture, "its architecture", "in the file")]
    if is_documented:
        named.insert(0, (documented.name, "its SHA-256, of", "of these weights"))
    known = None
    for name, what, where in named:
        if name is not None and timm.knows(name):
            own_family, own_fields = timm.architecture(name)
            own_fields.pop("image_size", None)  # training scripts set another
            families.append((own_family, f"{what} {name!r}"))
            said, source = said | own_fields, f"the architecture {name!r} {where}"
            known = timm.canonical(name)
    for other, place in families:
        if other is not None and family is not None and other != family:
            raise ValueError(
                f"{path.name} holds weights of the family {family!r}, but {place} is of the family "
                f"{other!r}"
            )
    if sidecar.fields:
        said, source = said | sidecar.fields, "the JSON beside the weights"
    fields = {**defaults, **said}
    assumed = {k: v for k, v in getattr(file_format, "ASSUMED", {}).items() if k not in fields}
    unsaid = {k: v for k, v in getattr(file_format, "UNSAID", {}).items() if k not in fields}

    preprocess, origin = dict(file_format.PREPROCESS), f"the format {format_name!r}"
    is_guess = not getattr(file_format, "DOCUMENTED", False)
    if "mean" not in preprocess:
        origin = None
    if documented is not None:
        preprocess |= documented.preprocess
        origin = f"{documented.origin}, known by its SHA-256"
        is_guess = not documented.is_certain
        if is_guess:
            origin = f"{documented.origin}, by the name of the file"
    if sidecar.file is not None:
        preprocess, origin = preprocess | sidecar.preprocess, sidecar.file
        is_guess = not {"mean", "std"} <= sidecar.preprocess.keys() and is_guess
    return Implied(
        fields=fields,
        said=said,
        assumed=assumed,
        unsaid=unsaid,
        preprocess=preprocess,
        origin=origin,
        is_guess=is_guess and origin is not None,
        classes=sidecar.classes,
        class_names=sidecar.class_names,
        source=source,
        evident=evident,
        architecture=sidecar.architecture or known,
        is_named=bool(sidecar.family or known or is_documented)
        or getattr(file_format, "DOCUMENTED", False),
    )


def adopted(
    implied: Implied,
    module: nn.Module,
    shapes: Mapping[str, Any],
    chosen: Mapping[str, Any],
    label: str,
) -> tuple[dict[str, Any], list[str]]:
    """Returns the fields that the network takes over from its weights, and what contradicts them.

    Args:
      implied: what the weights imply.
      module: the network.
      shapes: shapes of its variables.
      chosen: the fields of the network that the caller has set, which win.
      label: name of the weights, for errors.

    Returns:
      (fields that differ from the network's and change no array, messages about fields that the
      caller has set to something else).

    Raises:
      ValueError: a field that the arrays depend on differs, or nothing says a field; the message
        says what to set.
    """
    for name, advice in implied.unsaid.items():
        if name not in chosen:
            raise ValueError(f"{label} does not say its {name}: {advice}")
    names = [f.name for f in dataclasses.fields(module)]
    fields = {**implied.assumed, **implied.fields}
    differing = {
        name: value
        for name, value in fields.items()
        if name in names and name != "image_size" and not same(getattr(module, name), value, name)
    }
    own = _describe(shapes)
    others = {name: _shapes(module, name, value) for name, value in differing.items()}
    messages = [
        f"{name} = {getattr(module, name)!r}, where {implied.source} says {value!r}"
        for name, value in differing.items()
        # Where the number of elements differs, the merge compares them.
        if name in chosen and _sizes(others[name]) == _sizes(own)
    ]
    differing = {name: value for name, value in differing.items() if name not in chosen}
    in_arrays = {n: v for n, v in differing.items() if others[n] != own}
    if in_arrays:
        ours = ", ".join(f"{name} = {getattr(module, name)!r}" for name in in_arrays)
        theirs = ", ".join(f"{name}={value!r}" for name, value in in_arrays.items())
        raise ValueError(f"{label} does not fit the network, which has {ours}: set {theirs}")
    if unsaid := [name for name in differing if name in implied.assumed]:
        name, ours = unsaid[0], getattr(module, unsaid[0])
        raise ValueError(
            f"{label} does not say its {name}: Google's weights have {differing[name]!r}, and the "
            f"network has {ours!r}, as weights that vitcnn wrote may have, whose .vitcnn.json is "
            f"not here; set {name}={differing[name]!r} or {name}={ours!r}"
        )
    return differing, messages


def native_size(implied: Implied) -> tuple[int, int] | None:
    """Returns the (height, width) in pixels that the weights were trained with, if it is known."""
    size = implied.fields.get("image_size")
    return None if size is None else image_sizes.pair(size)


def _shapes(module: nn.Module, name: str, value: Any) -> dict[str, tuple[int, ...]] | None:
    """Returns the shapes with another value of a field; None if it does not fit the others."""
    images = jax.ShapeDtypeStruct((1, *image_sizes.pair(module.image_size), 3), "float32")
    try:
        network = module.clone(**{name: value})
        return _describe(jax.eval_shape(network.init, jax.random.key(0), images))
    except ValueError:  # the value does not fit other fields, which differ too
        return None


def _describe(tree: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    flat = traverse_util.flatten_dict(tree, sep="/")
    return {name: tuple(leaf.shape) for name, leaf in flat.items()}


def _sizes(shapes: Mapping[str, tuple[int, ...]] | None) -> dict[str, int]:
    """Returns the number of elements of each variable."""
    return {name: math.prod(shape) for name, shape in (shapes or {}).items()}


def same(one: Any, other: Any, field: str = "") -> bool:
    """Whether two values of a field mean the same network.

    Layer scale starts from a value that trained weights replace: only whether there is one counts.
    """
    if field == "layer_scale":
        return bool(one) == bool(other)
    one, other = (tuple(v) if isinstance(v, list) else v for v in (one, other))
    if isinstance(one, int) and isinstance(other, tuple):
        one = image_sizes.pair(one)
    if isinstance(one, tuple) and isinstance(other, int):
        other = image_sizes.pair(other)
    if isinstance(one, float) or isinstance(other, float):
        return abs(one - other) <= 1e-6 * max(abs(one), abs(other))
    return one == other
