"""Model: a network with its variables, preprocessing, taps and provenance."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vitcnn import checkpoints, models, taps
from vitcnn.data.preprocess import Preprocess
from vitcnn.layers import image_sizes
from vitcnn.lookup import check_name


@dataclasses.dataclass(eq=False)
class Model:
    """A network that can be looked into: a Flax linen module bound to all that goes with it.

    A user's own network is analysed by making one of these; nothing has to be registered. Its
    intermediates are those it exposes with `vitcnn.tap`, else those it sows, else the output of
    every submodule.

    Attributes:
      module: a linen module, called as `module.apply(variables, images, **call)`; it returns
        logits.
      variables: its variables.
      preprocess: how image files become its input; also says the size of the input.
      provenance: JSON-able origin of the weights, written into every result.
      call: further keyword arguments of the module's call, such as {"train": False}.
    """

    module: nn.Module
    variables: Mapping[str, Any]
    preprocess: Preprocess = dataclasses.field(default_factory=Preprocess)
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    call: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the input in pixels.

        Raises:
          ValueError: neither the module nor the preprocessing says it.
        """
        size = getattr(self.module, "image_size", None) or self.preprocess.size
        if size is None:
            raise ValueError(
                f"the input size of {type(self.module).__name__} is not known: give the Model "
                "preprocess=Preprocess(size=(height, width))"
            )
        return (size, size) if isinstance(size, int) else tuple(size)

    @functools.cached_property
    def taps(self) -> taps.TapTable:
        """The taps by name, in execution order; `print` shows a table."""
        images = jax.ShapeDtypeStruct((2, *self.image_size, 3), jnp.float32)
        return taps.tabulate(self.module, self.variables, images, **self.call)

    def run(
        self, images: Float[Array, "batch height width 3"], patterns: str | Sequence[str] = ()
    ) -> tuple[Float[Array, "batch classes"], dict[str, Float[Array, "batch ..."]]]:
        """Runs the network on preprocessed images and returns its logits and the asked taps.

        Args:
          images: preprocessed images, as `model.preprocess` returns them.
          patterns: a glob or several, such as "block*/mlp"; matched against the whole name.

        Returns:
          (logits, ordered dict from tap name to array, images along the first axis).

        Raises:
          ValueError: images of another shape or not floating, or a pattern that matches nothing.
        """
        names = self.taps.select(patterns) if patterns else ()
        images = jnp.asarray(images)
        expected = (*self.image_size, 3)
        if images.shape[1:] != expected or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images are {images.dtype} {list(images.shape)}, expected preprocessed float "
                f"[N, {', '.join(map(str, expected))}]; use model.preprocess(images)"
            )
        logits, arrays = self._run(names)(self.variables, images)
        return logits, dict(zip(names, arrays, strict=True))

    @functools.cached_property
    def _run(self):
        @functools.cache
        def jitted(names):
            def run(variables, images):
                with jax.default_matmul_precision("highest"):
                    logits, arrays = self.forward(variables, images, names)
                return logits, tuple(arrays.values())  # jit would sort the keys of a dict

            return jax.jit(run)

        return jitted

    @functools.cached_property
    def classes(self) -> int:
        """Number of logits."""
        images = jax.ShapeDtypeStruct((2, *self.image_size, 3), jnp.float32)
        run = lambda variables, images: self.forward(variables, images, ())[0]  # noqa: E731
        return jax.eval_shape(run, self.variables, images).shape[-1]

    def check_classes(self, source: Any) -> None:
        """Raises ValueError unless there is a logit for every class of the labels of a source."""
        if source.classes is not None and self.classes < source.classes:
            raise ValueError(
                f"the labels have {source.classes} classes but {type(self.module).__module__} "
                f"{self.provenance.get('variant', '')} has {self.classes} logits; set num_classes "
                f"= {source.classes}"
            )

    def digest(self) -> str:
        """SHA-256 of the names, shapes and values of all variables."""
        sha = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
            array = np.asarray(leaf)
            sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
            sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()

    def forward(self, variables: Any, images: Any, names: Sequence[str]) -> tuple[Any, dict]:
        """Runs the network inside a larger program; see `vitcnn.taps.forward`."""
        return taps.forward(self.module, variables, images, self.taps, names, **self.call)

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        params = self.variables.get("params", {})
        return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params))


def load(
    family: str,
    variant: str,
    weights: str | os.PathLike | None = None,
    *,
    preprocess: Preprocess | Mapping[str, Any] | None = None,
    seed: int = 0,
    new_head: bool = False,
    position_resize: str = "bicubic",
    position_grid: tuple[int, int] | None = None,
    **overrides: Any,
) -> Model:
    """Makes a model: a network by its usual name, with trained weights or random ones.

    Args:
      family: a file of `vitcnn/models`, such as "vit" or "resnet".
      variant: a usual name, such as "B/16", "R50x1" or "20"; an unknown one lists what there is.
      weights: path of a checkpoint in any known format, or of a folder that training wrote
        (its subfolder "checkpoints" for the weights of a run that goes on);
        "hf:<owner>/<repo>[@<revision>][:<file>]" on Hugging Face; "https://...#sha256=<hex>"; None
        for random weights.
      preprocess: replaces the preprocessing that the weights bring, whole or (a mapping) in part.
      seed: of the random weights, and of a new head.
      new_head: whether to leave the head of the weights out, and start a new one of num_classes (0
        for none).
      position_resize: how position embeddings of another grid are resized: "bicubic" as in timm, or
        "linear" as in Google's vision_transformer.
      position_grid: (rows, columns) of the grid that the weights are of, where it is no square.
      **overrides: fields of the module that differ, such as num_classes=10 or image_size=384.

    Returns:
      The model, its preprocessing that of the weights, with their SHA-256 in its provenance. Unless
      given, num_classes is that of the weights, and so are fields that the library of their format
      sets and that change no array, such as the kind of GELU.

    Raises:
      ValueError: unknown family, variant or field (with the nearest names), or weights that do not
        fit (both sides listed), or that do not say how images are normalised.
      FileNotFoundError, ConnectionError: there are no such weights, or they cannot be downloaded.
    """
    known: dict[str, Any] = {}
    source = None
    weights = None if weights == "random" else weights
    if weights is not None:
        weights, source = checkpoints.locate(weights)
    if weights is not None and weights.is_dir():
        known = checkpoints.trained(weights, family, variant)
        position_grid = position_grid or _grid(models.create(family, variant, **known["fields"]))
        overrides, weights = {**known["fields"], **overrides}, known["path"]
    module = models.create(family, variant, **overrides)
    images = jax.ShapeDtypeStruct((1, *image_sizes.pair(module.image_size), 3), jnp.float32)
    fields: dict[str, Any] = {"size": image_sizes.pair(module.image_size)}
    origin: dict[str, Any] = {"family": family, "variant": variant, "fields": overrides}
    if weights is None:
        variables = jax.jit(module.init)(
            jax.random.key(seed), jnp.zeros(images.shape, images.dtype)
        )
        origin["weights"] = {"format": "random", "seed": seed}
    else:
        shapes = jax.eval_shape(module.init, jax.random.key(0), images)
        restored = checkpoints.restore(
            weights,
            family,
            module,
            shapes,
            position_resize=position_resize,
            position_grid=position_grid,
            new_head=_head(module, shapes, seed) if new_head else None,
            any_classes="num_classes" not in overrides,
        )
        # On the device once, not at every call.
        variables = jax.tree.map(jnp.asarray, restored.variables)
        origin["weights"] = restored.provenance
        origin["weights"]["arrays"] = restored.report
        if source is not None:
            origin["weights"]["source"] = source
        implied = {
            name: value
            for name, value in restored.fields.items()
            if name not in overrides and getattr(module, name) != value
        }
        module = module.clone(**implied)
        origin["fields"] = {**overrides, **implied}
        fields |= known.get("preprocess") or restored.preprocess
    if isinstance(preprocess, Preprocess):
        fields = preprocess.to_dict()
    else:
        for name in preprocess or {}:
            check_name(
                "field of preprocess", name, [f.name for f in dataclasses.fields(Preprocess)]
            )
        fields |= dict(preprocess or {})
        if weights is not None and not fields.keys() >= {"mean", "std"}:
            raise ValueError(
                f"{weights.name} does not say how images are normalised, and no config.json of "
                "timm or preprocessor_config.json lies beside it; pass preprocess with mean and "
                "std: 0.5 three times for models that Google trained, mean=(0.485, 0.456, 0.406) "
                "and std=(0.229, 0.224, 0.225) for DeiT, DINO and most others"
            )
    made = Preprocess(**fields)
    size = image_sizes.pair(module.image_size)
    if made.size != size:
        resize = made.resize  # the same share of the image is cut out at every size
        if resize is not None and made.size is not None:
            resize = round(resize * min(size) / min(made.size))
        made = dataclasses.replace(made, size=size, resize=resize)
    origin["preprocess"] = made.to_dict()
    model = Model(module, variables, made, origin)
    origin["parameters"] = model.parameter_count
    return model


def _grid(module: nn.Module) -> tuple[int, int] | None:
    """Returns the grid of patches of a network that has patches."""
    if not hasattr(module, "patch"):
        return None
    return image_sizes.grid(module.image_size, module.patch)


def _head(module: nn.Module, shapes: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Returns the arrays of a new head by full name."""
    names = [name for name in shapes["params"] if name in ("head", "head_dist")]
    images = jnp.zeros((1, *image_sizes.pair(module.image_size), 3))
    # Only what is returned is worked out.
    init = jax.jit(lambda key: {n: module.init(key, images)["params"][n] for n in names})
    heads = init(jax.random.key(seed))
    return {f"params/{n}/{k}": np.asarray(v) for n in names for k, v in heads[n].items()}
