"""The state of a training run: what a step changes, and what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vitcnn import checkpoints
from vitcnn.model import Model
from vitcnn.storage import Path


@flax.struct.dataclass
class TrainState:
    """What a step changes.

    Attributes:
      step: number of steps that have been taken.
      params: parameters.
      stats: running statistics of batch norm; {} for a network without batch norm.
      optimizer: state of the optimizer.
      average: exponential average of the parameters; {} for a run without one.
    """

    step: jax.Array
    params: Any
    stats: Any
    optimizer: Any
    average: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that are evaluated and that the run leaves."""
        return {"params": self.average or self.params, **self.stats}

    @property
    def raw_variables(self) -> dict[str, Any]:
        """The variables without the average."""
        return {"params": self.params, **self.stats}


def first(
    variables: Mapping[str, Any], optimizer: optax.GradientTransformation, average: bool
) -> TrainState:
    """Returns the state before the first step.

    Args:
      variables: of the network.
      optimizer: an optax transformation.
      average: whether the run averages its parameters.
    """
    stats = dict(variables)
    params = jax.tree.map(jnp.asarray, stats.pop("params"))
    # The average is a copy, because two arguments that a step overwrites cannot be one array.
    copies = jax.tree.map(jnp.copy, params) if average else {}
    return TrainState(jnp.zeros((), jnp.int32), params, stats, optimizer.init(params), copies)


def described(state: TrainState) -> dict[str, str]:
    """Returns the type and shape of every array of a state by its path, such as "float32[3,3]"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def export(path: Path, variables: Mapping[str, Any], model: Model) -> None:
    """Writes the variables of a network as weights that `vitcnn.load` reads.

    Args:
      path: of the file, such as weights.npz.
      variables: arrays of JAX or NumPy.
      model: the network, whose preprocessing is written beside them.
    """
    arrays = jax.tree.map(np.asarray, dict(variables))
    checkpoints.export(path, arrays, {"preprocess": model.preprocess.to_dict()})
