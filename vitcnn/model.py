"""Model: a network with its variables, preprocessing, taps and provenance."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vitcnn import checkpoints, compilation, models, taps
from vitcnn.data import classes as class_numbers
from vitcnn.data.preprocess import Preprocess
from vitcnn.edits import Edit
from vitcnn.layers import image_sizes
from vitcnn.lookup import check_name
from vitcnn.numerics import random_weights
from vitcnn.numerics.arrays import Array

# Compiled programs that a Model keeps: each function that edits a tap has its own.
_PROGRAMS = 128
# A number of images that no axis of a network is likely to have, and that some networks can halve.
_BATCH = 62
# What Flax raises when a network cannot run -> what to do about it.
_ADVICE = {
    flax.errors.InvalidRngError: (
        "it draws random numbers, as dropout does in training; turn that off, as with "
        'call={"train": False}, or give keys, as with call={"rngs": {"dropout": key}}'
    ),
    flax.errors.ModifyScopeVariableError: (
        "it updates its variables, as batch norm does in training; turn that off, as with "
        'call={"train": False}'
    ),
    flax.errors.ScopeParamShapeError: (
        "its variables have other shapes than the module expects, for another size or number of "
        "channels perhaps; vitcnn gives it RGB images"
    ),
    flax.errors.ScopeCollectionNotFound: "variables are incomplete",
    flax.errors.ScopeParamNotFoundError: "variables are incomplete",
    flax.errors.ScopeVariableNotFoundError: "variables are incomplete",
}


@dataclasses.dataclass(eq=False)
class Model:
    """A network to look into: a Flax module with its variables and preprocessing.

    To analyse your own network, make a Model of it; nothing has to be registered. Its taps are
    the intermediates that it exposes with `vitcnn.tap`; without any, the values that it sows;
    without any, the output of every submodule. `print(model.taps)` shows them, and why an
    intermediate is left out.

    Attributes:
      module: a linen module, called as `module.apply(variables, images, **call)` with images
        [N, height, width, 3]; or a module of flax.nnx, called as `module(images, **call)`. It
        returns logits; any other arrays will do for all that does not compare them with labels.
      variables: its variables, as `module.init` returns them; {} for a module of flax.nnx, whose
        present state is copied.
      preprocess: how image files become its input; its `size` is the size of the input.
      provenance: JSON-able origin of the weights, written into every result.
      call: further keyword arguments of the module's call, such as {"train": False}. Of those that
        `apply` takes, "method" and "rngs" are possible.
      kind: "vit", "cnn", "mixer" or another word; claims and figures ask for it. "" if unknown.

    Raises:
      TypeError: the module is no instance of a Flax module, or another argument has a wrong type.
      ValueError: `call` has an argument that the Model sets itself, or an nnx module has variables.
    """

    module: nn.Module
    variables: Mapping[str, Any]
    preprocess: Preprocess = dataclasses.field(default_factory=Preprocess)
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    call: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    kind: str = ""

    def __post_init__(self):
        expected = {
            "variables": (Mapping, 'a mapping such as {"params": ...}'),
            "preprocess": (Preprocess, "a vitcnn.Preprocess"),
            "call": (Mapping, 'a mapping such as {"train": False}'),
        }
        for name, (cls, words) in expected.items():
            value = getattr(self, name)
            if not isinstance(value, cls):
                raise TypeError(f"{name}: expected {words}, got a {type(value).__name__}")
        for name in ("mutable", "capture_intermediates"):
            if name in self.call:
                raise ValueError(f"call has {name!r}, which the Model sets itself: leave it out")
        if isinstance(self.module, type):
            raise TypeError(
                f"module is the class {self.module.__name__}: make an instance, with its fields"
            )
        if any(cls.__module__.startswith("flax.nnx") for cls in type(self.module).__mro__):
            from vitcnn.nnx_module import from_nnx  # few networks need it

            if self.variables:
                raise ValueError("a module of flax.nnx holds its variables itself: pass {} instead")
            self.module, self.variables = from_nnx(self.module)
        if not isinstance(self.module, nn.Module):
            raise TypeError(
                "module: expected a flax.linen or flax.nnx module, got a "
                f"{type(self.module).__module__}.{type(self.module).__name__}"
            )

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the input in pixels.

        Raises:
          ValueError: neither the module nor the preprocessing has a size.
        """
        size = getattr(self.module, "image_size", None) or self.preprocess.size
        if size is None:
            raise ValueError(
                f"the input size of {type(self.module).__name__} is unknown: make the Model with "
                "preprocess=Preprocess(size=(height, width))"
            )
        return (size, size) if isinstance(size, int) else tuple(size)

    @functools.cached_property
    def taps(self) -> taps.TapTable:
        """The taps by name, in execution order; `print` shows a table.

        Raises:
          ValueError: the network does not run on images; the message says what to do.
        """
        images = self._images
        try:
            return taps.tabulate(self.module, self.variables, images, **self.call)
        except Exception as error:  # whatever a network of the user raises
            raise ValueError(self._complaint(error)) from error

    @property
    def _images(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((_BATCH, *self.image_size, 3), jnp.float32)

    def _complaint(self, error: Exception) -> str:
        """Returns the message for an error that the network raises on images."""
        advice = next((a for cls, a in _ADVICE.items() if isinstance(error, cls)), "")
        if advice == "variables are incomplete":
            advice = (
                "variables lack what it reads; they are what module.init returns, such as "
                f'{{"params": ...}}, and these hold {list(self.variables)}'
            )
        if isinstance(error, TypeError) and "argument" in str(error):
            arguments = list(inspect.signature(type(self.module).__call__).parameters)[1:]
            advice = f"its call takes ({', '.join(arguments)}); set those after the first in call"
        name = getattr(getattr(self.module, "network", None), "name", type(self.module).__name__)
        shape = ", ".join(map(str, self._images.shape[1:]))
        reason = str(error).split(" (https://flax")[0]
        return (
            f"{name} does not run on {_BATCH} float32 images [N, {shape}] with call = "
            f"{dict(self.call)}: "
            + (f"{advice} ({type(error).__name__}: {reason})" if advice else reason)
        )

    def run(
        self,
        images: Float[Array, "batch height width 3"],
        patterns: str | Sequence[str] = (),
        edit: Mapping[str, Any] | None = None,
    ) -> tuple[Float[Array, "batch classes"], dict[str, Float[Array, "batch ..."]]]:
        """Runs the network on preprocessed images and returns its logits and the selected taps.

        Args:
          images: preprocessed images, as `model.preprocess` returns them.
          patterns: a glob or several, such as "block*/mlp"; matched against the whole name.
          edit: glob -> what takes the place of the taps that it matches: an array, which is
            broadcast and cast; or a function of the value, which keeps shape and dtype. The network
            goes on with it, and it is what is returned. {"block03/attn": 0} is the network without
            this branch; {"block03/skip_attn": 0} without this skip connection, while the branch
            reads its input as before. Arrays can be differentiated and mapped over; a function that
            is defined anew compiles anew, and what it reads from outside must not change.

        Returns:
          (logits, ordered dict from tap name to array, images along the first axis).

        Raises:
          ValueError: images have another shape or are not floats, a pattern matches nothing, or an
            edit does not fit.
          TypeError: an edit is neither an array of real numbers nor a function.
        """
        names = self.taps.select(patterns) if patterns else ()
        images = jnp.asarray(images)
        expected = (*self.image_size, 3)
        if images.shape[1:] != expected or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images are {images.dtype} {list(images.shape)}, expected preprocessed float "
                f"[N, {', '.join(map(str, expected))}]; use model.preprocess(images)"
            )
        edit = self.taps.edits(edit, len(images))
        functions = tuple((name, e if callable(e) else None) for name, e in edit.items())
        inputs = images, *(jnp.asarray(e) for e in edit.values() if not callable(e))
        traced = any(
            isinstance(x, jax.core.Tracer) for x in jax.tree.leaves([inputs, self.variables])
        )
        shapes = () if traced else tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs)
        logits, arrays = self._programs(names, functions, *shapes)(self.variables, *inputs)
        return logits, dict(zip(names, arrays, strict=True))

    @functools.cached_property
    def _programs(self):
        """Compiled `forward`: a function of names of taps, of edits, and of the inputs' shapes.

        An edit is (name, function), or (name, None) for an array. The inputs are the images and the
        edits that are arrays. Without shapes it is the program inside of another one, for which
        that one has the options.
        """

        @functools.lru_cache(_PROGRAMS)
        def function(names, functions):
            def run(variables, images, *arrays):
                rest = iter(arrays)
                edit = {name: next(rest) if f is None else f for name, f in functions}
                with jax.default_matmul_precision("highest"):
                    logits, values = self.forward(variables, images, names, edit)
                return logits, tuple(values.values())  # jit would sort the keys of a dict

            return run

        @functools.lru_cache(_PROGRAMS)
        def program(names, functions, *shapes):
            run = function(names, functions)
            if not shapes:
                return jax.jit(run)
            traced = jax.jit(run).trace(self.variables, *shapes)  # which no later `jit` repeats
            return jax.jit(run, compiler_options=compilation.options(traced.jaxpr))

        return program

    @functools.cached_property
    def classes(self) -> int:
        """Number of logits.

        Raises:
          ValueError: the network does not return logits [images, classes].
        """
        images = self._images
        run = lambda variables, images: self.forward(variables, images, ())[0]  # noqa: E731
        self.taps  # raises its own error if the network does not run  # noqa: B018
        logits = jax.eval_shape(run, self.variables, images)
        shape = getattr(logits, "shape", None)
        if shape is None or len(shape) != 2 or shape[0] != len(images):
            what = f"a {type(logits).__name__}" if shape is None else f"an array {list(shape)}"
            raise ValueError(
                f"{type(self.module).__name__} returns {what} for {len(images)} images, and labels "
                "are compared with logits [images, classes]: make the Model with "
                'call={"method": ...}, a method of the module that returns nothing but logits, or '
                "leave out the analyses that need labels"
            )
        return shape[1]

    def check_classes(self, source: Any) -> class_numbers.Match:
        """Compares the classes of the labels of a source with the logits.

        They are compared by name where both have names, otherwise by number. The names of the
        logits are `class_names` in the provenance of the model or of its weights; 1000 logits
        without names are those of ImageNet-1k for a source whose classes are synset ids.

        Args:
          source: labelled images.

        Returns:
          How the classes meet the logits.

        Raises:
          ValueError: a class has no logit, or the numbers differ and names are not known.
        """
        if source.classes is None:
            return class_numbers.Match("nothing", self.classes)
        weights = self.provenance.get("weights") or {}
        weights_names = weights.get("class_names") if isinstance(weights, Mapping) else None
        names = self.provenance.get("class_names") or weights_names or ()
        variant = f"{type(self.module).__module__} {self.provenance.get('variant', '')}".strip()
        head = class_numbers.Classes(self.classes, class_numbers.named(names))
        mismatch = (
            f"the labels have {source.classes} classes but {variant} has {self.classes} logits; "
            f"set num_classes = {source.classes}"
        )
        return class_numbers.match(
            class_numbers.of(source), head, f"the logits of {variant}", mismatch
        )

    def digest(self) -> str:
        """SHA-256 of the names, shapes and values of all variables."""
        sha = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
            is_key = jnp.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key)
            array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
            sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
            sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return sha.hexdigest()

    def forward(
        self,
        variables: Any,
        images: Any,
        names: Sequence[str],
        edit: Mapping[str, Edit] | None = None,
    ) -> tuple[Any, dict]:
        """Runs the network inside a larger program; see `vitcnn.taps.forward`."""
        return taps.forward(self.module, variables, images, self.taps, names, edit, **self.call)

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        params = self.variables.get("params", {})
        return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params))


def load(
    family: str | os.PathLike = "",
    variant: str = "",
    weights: str | os.PathLike | None = None,
    *,
    preprocess: Preprocess | Mapping[str, Any] | None = None,
    seed: int = 0,
    new_head: bool = False,
    position_resize: str = "bicubic",
    position_grid: tuple[int, int] | None = None,
    average: bool = True,
    **overrides: Any,
) -> Model:
    """Makes a model: a network by its name or by its weights alone, with trained or random weights.

        vitcnn.load("hf:timm/vit_base_patch16_224.augreg_in21k")
        vitcnn.load("vit_base_patch16_224", weights="model.pth")
        vitcnn.load("vit", "B/16", weights="ViT-B_16.npz", image_size=384)

    Args:
      family: a file of `vitcnn/models`, such as "vit" or "resnet"; or the dotted name of a module
        outside of this package, such as "my_package.my_family". Without `variant` it may be any
        other name: weights, as below; an architecture of timm or a network of torchvision, such as
        "resnet50"; or a usual name whose spelling is free, such as "ViT-B/16" or "deit-s16".
      variant: a usual name, such as "B/16", "R50x1" or "20"; an unknown name lists what there is.
        Without it, the weights decide about the network and all its fields that are not set here:
        what the arrays show, what the JSON beside them says and what `family` says are compared.
      weights: the path of a checkpoint in any known format; the folder of a training run, or
        "checkpoints" in it for the weights of a run that has not finished;
        "hf:<owner>/<repo>[@<revision>][:<file>]" on Hugging Face; "https://...#sha256=<hex>"; None
        or "random" for random weights.
      preprocess: replaces the preprocessing of the weights, either whole or (a mapping) in part.
      seed: of random weights, and of a new head.
      new_head: whether to drop the head of the weights and start a new one with num_classes outputs
        (0 for no head). With pre_logits=0, a ViT also drops the hidden layer in front of it.
      position_resize: how position embeddings are resized to another grid: "bicubic" as in timm, or
        "linear" as in Google's vision_transformer.
      position_grid: (rows, columns) of the patches that the weights were trained on, if they are
        not a square.
      average: whether to take the moving average of the weights where a checkpoint has both, as
        timm does; for a student and its teacher (DINO), the average is the teacher.
      **overrides: fields of the network that differ, such as num_classes=10 or image_size=384.

    Returns:
      The model. Its provenance has the SHA-256 of the weights. Unless `overrides` sets them,
      num_classes comes from the weights, and so do fields that change no array, such as the kind of
      GELU.

    Warns:
      UserWarning: the preprocessing is a guess, `overrides` contradict what lies beside the
        weights, or the weights were trained with images of another size.

    Raises:
      ValueError: unknown family, variant, name or field (with the nearest names); or weights that
        do not fit the network (both sides listed), that do not say which network they are of, or
        that do not say how images are normalised.
      FileNotFoundError, ConnectionError: the weights do not exist or cannot be downloaded.
    """
    if not variant:
        family, weights = _name_and_weights(family, weights)
    family = family.removeprefix(f"{models.__name__}.")  # "vitcnn.models.vit" is "vit"
    source = checkpoints.locate(weights)
    network, file = _network(family, variant, source, overrides, average)
    family, variant = network.family, network.variant
    if source.path is None:
        checkpoint = _random(
            models.create(family, variant, **{**network.fields, **overrides}), seed
        )
    else:
        head_seed = seed if new_head else None
        grid = position_grid or _grid(source)
        checkpoint = _restore(
            source, network, file, overrides, head_seed, position_resize, grid, average
        )

    # Later entries win; `create` puts the fields of the variant first.
    fields = {**network.fields, **checkpoint.fields, **source.fields, **overrides}
    caller_steps = {**source.preprocess, **_preprocess_fields(preprocess)}
    preprocess = {**checkpoint.preprocess, **caller_steps}

    if checkpoint.preprocess_guess and not {"mean", "std"} <= caller_steps.keys():
        warnings.warn(
            f"{source.path.name} does not say how its images were prepared; vitcnn takes the "
            f"preprocessing of {checkpoint.preprocess_guess}: {preprocess}; pass preprocess with "
            "mean and std if you know better",
            stacklevel=2,
        )
    module = models.create(family, variant, **fields)
    variables = jax.tree.map(jnp.asarray, checkpoint.variables)  # to the device once, for all calls
    model = Model(module, variables, _preprocess(preprocess, module, source))
    model.kind = models.traits(family).kind
    model.provenance = {
        "family": family,
        "variant": variant,
        "kind": model.kind,
        "fields": fields,
        "weights": checkpoint.provenance,
        "preprocess": model.preprocess.to_dict(),
        "parameters": model.parameter_count,
    }
    if network.architecture is not None:
        model.provenance["architecture"] = network.architecture
    if source.class_names and not new_head:
        model.provenance["class_names"] = list(source.class_names)
    return model


def _name_and_weights(
    name: str | os.PathLike, weights: str | os.PathLike | None
) -> tuple[str, str | os.PathLike | None]:
    """Returns (name of a network, weights) where the first argument of `load` may be weights.

    Raises:
      ValueError: nothing is named; a name is that of a network and that of a path; or it names
        weights, which are not given.
    """
    if isinstance(name, str) and weights is not None:
        return name, weights
    if not name:
        raise ValueError('name a network, as in vitcnn.load("vit", "B/16"), or its weights')
    if checkpoints.is_address(name):
        is_bare = isinstance(name, str) and not name.startswith((".", "~", os.sep))
        if is_bare and checkpoints.is_name(name):
            raise ValueError(
                f"{name!r} is the name of a network and of a file or folder here: write ./{name} "
                'for the latter, or give weights, such as "random"'
            )
        return "", name
    bare, is_tagged, _ = name.partition(".")
    if is_tagged and checkpoints.is_name(name):
        raise ValueError(
            f"{name!r} names weights of timm: vitcnn.load('hf:timm/{name}') loads them, and "
            f"vitcnn.load({bare!r}) makes this network with random weights"
        )
    return name, weights


def _network(
    family: str,
    variant: str,
    source: checkpoints.Source,
    overrides: Mapping[str, Any],
    average: bool,
) -> tuple[checkpoints.Network, checkpoints.WeightsFile | None]:
    """Returns the network that is meant, and its file of weights if that had to be read to tell.

    Raises:
      ValueError: the name is unknown, the weights are those of another network, or they do not say
        which network they are of.
    """
    if source.network is not None:
        trained = " ".join(source.network)
        if family not in ("", source.network[0]) or variant not in ("", source.network[1]):
            place = source.address or source.path.parent
            raise ValueError(f"{place} holds {trained}, not {family} {variant}")
        return checkpoints.Network(*source.network), None
    if variant:
        return checkpoints.Network(family, variant), None
    if source.path is None:
        return checkpoints.named(family), None
    file = checkpoints.read_file(source.path, average=average, sha256=source.sha256)
    identity = checkpoints.identify(file, overrides, family)
    return identity.network, identity.file


def _random(module: nn.Module, seed: int) -> checkpoints.Checkpoint:
    """Returns random weights; their preprocessing is the default one."""
    images = jnp.zeros(_images(module).shape)
    variables = random_weights.draw(lambda key: module.init(key, images), seed)
    provenance = {"format": "random", "seed": seed}
    normalisation = {"mean": Preprocess.mean, "std": Preprocess.std}
    return checkpoints.Checkpoint(variables, {}, normalisation, provenance)


def _restore(
    source: checkpoints.Source,
    network: checkpoints.Network,
    file: checkpoints.WeightsFile | None,
    overrides: Mapping[str, Any],
    head_seed: int | None,
    position_resize: str,
    position_grid: tuple[int, int] | None,
    average: bool,
) -> checkpoints.Checkpoint:
    """Restores trained weights, with a new head of this seed unless it is None."""
    family, chosen = network.family, {**source.fields, **overrides}
    module = models.create(family, network.variant, **{**network.fields, **chosen})
    shapes = jax.eval_shape(module.init, jax.random.key(0), _images(module))
    if file is None:
        names = checkpoints.flat(shapes)
        file = checkpoints.read_file(
            source.path, family, names, average=average, sha256=source.sha256
        )
    checkpoint = checkpoints.restore(
        file,
        family,
        module,
        shapes,
        position_resize=position_resize,
        position_grid=position_grid,
        new_head=None if head_seed is None else _head(module, family, shapes, head_seed),
        chosen=chosen,
        is_recorded=source.network is not None,
    )
    if source.address is not None:
        checkpoint.provenance["source"] = source.address
    return checkpoint


def _images(module: nn.Module) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *image_sizes.pair(module.image_size), 3), jnp.float32)


def _head(
    module: nn.Module, family: str, shapes: Mapping[str, Any], seed: int
) -> dict[str, np.ndarray]:
    """Returns the arrays of a new head by full name."""
    names = [name for name in models.traits(family).heads if name in shapes["params"]]
    images = jnp.zeros(_images(module).shape)
    init = lambda key: {n: module.init(key, images)["params"][n] for n in names}  # noqa: E731
    heads = random_weights.draw(init, seed)
    return checkpoints.flat(jax.tree.map(np.asarray, {"params": heads}))


def _grid(source: checkpoints.Source) -> tuple[int, int] | None:
    """Returns the grid of patches of the network that a training run trained, if it has patches."""
    module = models.create(*source.network, **source.fields) if source.network else None
    if not hasattr(module, "patch"):
        return None
    return image_sizes.grid(module.image_size, module.patch)


def _preprocess_fields(preprocess: Preprocess | Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the fields of the preprocessing that the caller sets: all of a `Preprocess`.

    Raises:
      ValueError: `Preprocess` has no such field.
    """
    if isinstance(preprocess, Preprocess):
        return preprocess.to_dict()
    names = [field.name for field in dataclasses.fields(Preprocess)]
    for name in preprocess or {}:
        check_name("field of preprocess", name, names)
    return dict(preprocess or {})


def _preprocess(
    fields: Mapping[str, Any], module: nn.Module, source: checkpoints.Source
) -> Preprocess:
    """Returns the preprocessing with these fields, at the size of the network.

    Raises:
      ValueError: the fields do not say how images are normalised.
    """
    if not fields.keys() >= {"mean", "std"}:
        raise ValueError(
            f"{source.path.name} does not say how images are normalised, and its folder has no "
            "config.json of timm and no preprocessor_config.json; pass preprocess with mean and "
            "std: 0.5 three times for models that Google trained, mean=(0.485, 0.456, 0.406) and "
            "std=(0.229, 0.224, 0.225) for DeiT, DINO and most others"
        )
    size = image_sizes.pair(module.image_size)
    preprocess = Preprocess(**{"size": size, **fields})
    if preprocess.size == size:
        return preprocess
    resize = preprocess.resize  # scaled with the size, so that the crop keeps its share
    if resize is not None and preprocess.size is not None:
        share = min(size) / min(preprocess.size)
        one = isinstance(resize, int)
        resize = round(resize * share) if one else tuple(round(side * share) for side in resize)
    return dataclasses.replace(preprocess, size=size, resize=resize)
