"""Remat: a network whose blocks are computed again in the backward pass, to save memory.

Only the inputs of the blocks are kept. What the blocks are is read from any network: the innermost
modules that have parts and a sibling of their own class, such as the blocks of a ViT or the units
of a ResNet. Parameters keep their names.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

Path = tuple[str, ...]


def blocks(module: nn.Module, images: jax.ShapeDtypeStruct) -> frozenset[Path]:
    """Returns the paths of the blocks of a network.

    Args:
      module: the network.
      images: shape of a batch of images.

    Raises:
      ValueError: it has none.
    """
    classes: dict[Path, type] = {}

    def note(call_next, args, kwargs, context):
        if context.method_name == "__call__" and context.module.scope is not None:
            classes[context.module.scope.path] = type(context.module)
        return call_next(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(module.init, jax.random.key(0), images)
    parents = {path[:-1] for path in classes}
    siblings = collections.Counter(
        (path[:-1], classes[path]) for path in classes if path in parents
    )
    repeated = {path for path in parents if siblings[path[:-1], classes.get(path)] > 1}
    innermost = {p for p in repeated if not any(q != p and q[: len(p)] == p for q in repeated)}
    if not innermost:
        raise ValueError(
            f"config.remat: {type(module).__name__} has no blocks, which are modules with parts "
            "that have a sibling of their own class; set remat = False"
        )
    return frozenset(innermost)


def apply(module: nn.Module, paths: frozenset[Path]) -> Callable[..., Any]:
    """Returns `module.apply` with blocks that are computed again in the backward pass.

    Args:
      module: the network.
      paths: its blocks; without any, `module.apply` itself.
    """
    if not paths:
        return module.apply
    inside = []  # the blocks that are running

    def again(call_next, args, kwargs, context):
        block, method = context.module, context.method_name
        if inside or method != "__call__" or block.scope.path not in paths:
            return call_next(*args, **kwargs)

        def call(block, *args):
            inside.append(block)
            try:
                return block(*args, **kwargs)
            finally:
                inside.pop()

        return nn.remat(call)(block, *args)

    def run(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(again):
            return module.apply(*args, **kwargs)

    return run
