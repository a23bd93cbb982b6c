"""Devices and hosts: the only file that knows about them.

Analyses run whole groups of images on each device and never talk to each other (`GroupProgram`,
`meet`). Training splits each batch over all devices of all hosts (`data_mesh`, `shard`,
`shardings`).
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

_WORTH_KEEPING = 0.3  # seconds of compilation from which a program is kept
_WORTH_DIVIDING = 2**14  # numbers of an array from which the devices share it


def start(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Joins the other hosts; call it before anything touches a device.

    Args:
      coordinator: "host:port" of process 0; "auto" on a cluster that JAX recognises, such as a
        Cloud TPU pod slice; "" for one host, which has nobody to join.
      processes: number of processes, with an explicit coordinator.
      process: index of this process, with an explicit coordinator.
    """
    if not coordinator:
        return
    if jax.config.jax_platforms == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if coordinator == "auto":
        jax.distributed.initialize()
    elif not 0 <= process < processes:
        raise ValueError(f"process = {process}: expected 0 <= process < processes = {processes}")
    else:
        jax.distributed.initialize(coordinator, num_processes=processes, process_id=process)


def cache_programs(folder: pathlib.Path) -> None:
    """Keeps compiled programs in a folder, and takes them from there.

    JAX_COMPILATION_CACHE_DIR, or a folder that the user has given to JAX otherwise, comes first.

    Args:
      folder: made if it does not exist; where it cannot be made, nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written costs time, and no run should fail for that
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING)
    # JAX looks for a folder when it first compiles anything, which may be over.
    compilation_cache.reset_cache()


def host() -> tuple[int, int]:
    """Returns (index of this host process, number of host processes)."""
    return jax.process_index(), jax.process_count()


def device_kind() -> str:
    """Returns what the devices are, for provenance: such as "cpu" or "TPU v4"."""
    return jax.devices()[0].device_kind


def width() -> int:
    """Returns how many groups this host runs at a time: one on each of its devices."""
    return jax.local_device_count()


@dataclasses.dataclass(frozen=True)
class Round:
    """A round of groups that the devices compute.

    Attributes:
      outputs: the arrays to come.
      groups: number of groups along the first axis of each array; None for one group without it.
    """

    outputs: Any
    groups: int | None

    def is_ready(self) -> bool:
        """Returns whether the devices have finished it."""
        return all(leaf.is_ready() for leaf in jax.tree.leaves(self.outputs))

    def __call__(self) -> list[Any]:
        """Waits, and returns one pytree of NumPy arrays a group, in order."""
        arrays = jax.tree.map(np.asarray, self.outputs)
        if self.groups is None:
            return [arrays]
        return [jax.tree.map(lambda a, i=i: a[i], arrays) for i in range(self.groups)]


class GroupProgram:
    """A program that maps one group of images to its sums, run on every local device.

    With one device it is jitted, with several pmapped; each device runs one whole group at a
    time, so a group's result does not depend on their number.

    Args:
      function: (constants, batch) -> pytree of arrays; pure, one group, no collectives.
      precision: JAX matmul precision of the whole program, such as "highest" or "bfloat16".
    """

    def __init__(self, function: Callable[[Any, Any], Any], precision: str = "highest"):
        def run(constants, batch):
            with jax.default_matmul_precision(precision):
                return function(constants, batch)

        self.function = run
        devices = jax.local_devices()
        self.width = width()
        if self.width == 1:
            self._run = jax.jit(run)
        else:
            self._run = jax.pmap(run, in_axes=(None, 0), devices=devices)

    def __call__(self, constants: Any, batches: Sequence[Any]) -> Round:
        """Starts one round: at most as many batches as devices, all of one shape.

        Returns:
          The round: called, it waits and returns one pytree of NumPy arrays a batch, in order.
        """
        if self.width == 1:
            return Round(self._run(constants, batches[0]), None)
        # A last round with fewer groups repeats one; the outputs of the repeats are dropped.
        padded = [*batches, *[batches[-1]] * (self.width - len(batches))]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *padded)
        return Round(self._run(constants, stacked), len(batches))

    def shapes(self, constants: Any, batch: Any) -> Any:
        """Returns the shapes of the sums of one group, without running anything.

        On one device the trace is kept, and the first call compiles it without another one.
        """
        if self.width == 1:
            return self._run.eval_shape(constants, batch)
        return jax.eval_shape(self.function, constants, batch)


def on_devices(constants: Any) -> Any:
    """Places constants (variables of the models) on every local device once, not once a call."""
    devices = jax.local_devices()
    if len(devices) == 1:
        return jax.device_put(constants, devices[0])
    mesh = Mesh(np.array(devices), ("group",), axis_types=(AxisType.Auto,))
    return jax.device_put(constants, NamedSharding(mesh, PartitionSpec()))


def meet(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Exchanges arrays between all hosts once; every host gets all hosts' arrays, by host index.

    The arrays travel as bytes, because JAX would round float64 to float32.
    """
    if jax.process_count() == 1:
        return [dict(arrays)]
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    halves = np.array(divmod(data.size, 2**31), np.int32)  # JAX would cut 64 bits to 32
    halves = multihost_utils.process_allgather(halves).reshape(-1, 2).astype(np.int64)
    sizes = halves @ [2**31, 1]
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: data.size] = data
    rows = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    parts = []
    for row, size in zip(rows, sizes, strict=True):
        with np.load(io.BytesIO(row[:size].tobytes()), allow_pickle=False) as part:
            parts.append(dict(part))
    return parts


def agree(value: Any) -> Any:
    """Returns the value of host 0, a bool or an int of 32 bits, on every host."""
    if jax.process_count() == 1:
        return value
    return type(value)(multihost_utils.broadcast_one_to_all(np.array(value)))


def any_host(value: bool) -> bool:
    """Returns whether a value is true on any host, on every host."""
    if jax.process_count() == 1:
        return value
    return bool(np.any(multihost_utils.process_allgather(np.array(value))))


def barrier(name: str) -> None:
    """Waits until every host is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def data_mesh() -> Mesh:
    """Returns a one-dimensional mesh over all devices of all hosts, for data-parallel training."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def shard(batch: Any, mesh: Mesh) -> Any:
    """Places a host's slice of a batch on its devices, split along the first axis."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def shardings(tree: Any, mesh: Mesh | AbstractMesh, divide: bool) -> Any:
    """Returns where each array of a pytree lies: whole on every device, or divided over them.

    Args:
      tree: arrays, or their shapes.
      mesh: the devices.
      divide: whether large arrays are divided: along the longest of the axes that the number of
        devices divides, if there is one.
    """

    def one(array):
        shape = np.shape(array)
        axes = [i for i, size in enumerate(shape) if size % mesh.size == 0]
        if not divide or math.prod(shape) < _WORTH_DIVIDING or not axes:
            return everywhere(mesh)
        axis = max(axes, key=lambda i: shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))

    return jax.tree.map(one, tree)


def everywhere(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Returns the sharding of arrays that lie whole on every device of a mesh."""
    return NamedSharding(mesh, PartitionSpec())


def place(tree: Any, shardings: Any) -> Any:
    """Places a pytree on the devices; see `shardings`."""
    return jax.device_put(tree, shardings)


def whole(tree: Any, mesh: Mesh) -> Any:
    """Returns a pytree of arrays on a mesh as arrays that this host has whole."""
    if jax.process_count() == 1:
        return tree
    gathered = jax.jit(lambda tree: tree, out_shardings=everywhere(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), gathered)


def on_cpu() -> bool:
    """Returns whether the devices are CPUs."""
    return jax.default_backend() == "cpu"
