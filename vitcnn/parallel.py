"""Devices and hosts: the only file that knows about them.

Analyses run whole groups of images on each device and never talk to each other (`GroupProgram`,
`meet`). Training splits each batch over all devices of all hosts (`data_mesh`, `shard`,
`shardings`).

Hosts agree through the service of JAX that brought them together (`exchange`), and not through
their devices: a host may come an hour after another, which collectives of the CPU do not forgive,
and a host that does not come at all has a name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import math
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # JAX has no public way to the service
from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

_WORTH_KEEPING = 0.3  # seconds of compilation from which a program is kept
_WORTH_DIVIDING = 2**14  # numbers of an array from which the devices share it
TIMEOUT = 300  # seconds, of `start`
_FAREWELL = 30  # seconds for which a host that has failed waits for the others
_PATIENCE = 60.0  # seconds between two lines that name the host that the others wait for
_POLL = 2.0  # seconds after which a host that waits asks whether another has failed
_GREETING, _FAILED = "vitcnn", "vitcnn/failed"
_rounds = itertools.count()


def start(
    coordinator: str = "", processes: int = 0, process: int = -1, timeout: int = TIMEOUT
) -> None:
    """Joins the other hosts; call it before anything touches a device.

    Args:
      coordinator: "host:port" of process 0; "auto" on a cluster that JAX recognises, such as a
        Cloud TPU pod slice; "" for one host, which has nobody to join.
      processes: number of processes, with an explicit coordinator.
      process: index of this process, with an explicit coordinator.
      timeout: seconds after which a host that does not join, or that dies later, is given up.

    Raises:
      ValueError: the arguments do not fit together, or JAX recognises no cluster.
      TimeoutError: a host has not come in time; the message has its number.
    """
    numbered = processes > 1 or process > 0
    if coordinator in ("", "auto") and numbered:
        finds = "finds the hosts by itself" if coordinator else "is one host alone"
        raise ValueError(
            f"processes = {processes} and process = {process}, but coordinator = {coordinator!r} "
            f'{finds}: give the "host:port" of process 0, or leave them out'
        )
    if not coordinator:
        return
    if timeout < 1:
        raise ValueError(f"timeout = {timeout}: expected seconds, 1 or more")
    if jax.config.jax_platforms == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    explicit = {}
    if coordinator != "auto":
        if not 0 <= process < processes:
            raise ValueError(
                f"process = {process}: expected 0 <= process < processes = {processes}"
            )
        explicit = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
        }
        _assemble(coordinator, processes, process, timeout)
    # Its handler would swallow SIGTERM, which `vitcnn.training.stop` handles for itself.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            **explicit,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=timeout,
            shutdown_timeout_seconds=timeout,
        )
    except ValueError as error:
        if explicit:
            raise
        raise ValueError(
            f"coordinator = 'auto', but JAX recognises no cluster here ({error}): give the "
            '"host:port" of process 0, with processes and process'
        ) from error
    if jax.process_count() > 1:
        sys.excepthook = functools.partial(_tell, sys.excepthook)


def _assemble(coordinator: str, processes: int, process: int, timeout: float) -> None:
    """Waits until every host has said its number to host 0.

    JAX ends a process whose peers do not come, and does not say which of them.

    Raises:
      TimeoutError: a host has not come in time; the message has its number.
      ValueError: two hosts have the same number, or the coordinator is no "host:port".
    """
    address, _, port = coordinator.rpartition(":")
    if not address or not port.isdigit():
        raise ValueError(f'coordinator = {coordinator!r}: expected "auto" or "host:port"')
    end = time.monotonic() + timeout
    if process:
        greeting = f"{_GREETING} {process} {processes}\n"
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                with socket.create_connection((address.strip("[]"), int(port)), 5) as connection:
                    connection.settimeout(max(end - time.monotonic(), 1))
                    connection.sendall(greeting.encode())
                    answer = connection.makefile().readline().strip()
                if answer == _GREETING:
                    return
                if answer:
                    raise ValueError(answer)
            time.sleep(0.2)
        raise TimeoutError(f"host 0 has not answered at {coordinator} for {timeout} s: is it up?")
    greeted: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        try:
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            server = socket.create_server(("", int(port)), family=family, dualstack_ipv6=dual)
        except OSError as error:
            raise OSError(f"host 0 cannot listen at {coordinator}: {error.strerror}") from error
        stack.enter_context(server)
        while len(greeted) < processes - 1:
            server.settimeout(max(end - time.monotonic(), 0.01))
            try:
                connection = stack.enter_context(server.accept()[0])
                connection.settimeout(5)
                words = connection.makefile("rb").readline().decode("latin-1").split()
            except OSError:
                if time.monotonic() < end:
                    continue  # what has connected says nothing, or has gone
                missing = [i for i in range(1, processes) if i not in greeted]
                raise TimeoutError(
                    f"host{'s' * (len(missing) > 1)} {', '.join(map(str, missing))} of {processes} "
                    f"did not join {coordinator} in {timeout} s: start the same command on every "
                    "host, with its own --process"
                ) from None
            if words[:1] != [_GREETING]:
                continue
            number, count = map(int, words[1:])
            if number in greeted or count != processes:
                problem = f"two hosts have --process={number}"
                if count != processes:
                    problem = f"host {number} has --processes={count}, and host 0 {processes}"
                for each in (connection, *greeted.values()):
                    each.sendall(f"{problem}\n".encode())
                raise ValueError(problem)
            greeted[number] = connection
        for connection in greeted.values():
            connection.sendall(f"{_GREETING}\n".encode())


def _tell(hook: Callable[..., Any], kind: type, error: BaseException, trace: Any) -> None:
    """Shows an error that ends this host, and tells the other hosts, which may wait for it."""
    hook(kind, error, trace)
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        text = f"{kind.__name__}: {error}"
        distributed.global_state.client.key_value_set(f"{_FAILED}/{host()[0]}", text)
    # Hosts that wait for this one in a collective, and not in `exchange`, learn it when it is gone.
    leave = threading.Timer(_FAREWELL, os._exit, (1,))
    leave.daemon = True
    leave.start()


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
    sizes = exchange("sums", data.size)
    padded = np.zeros(max(sizes), np.uint8)
    padded[: data.size] = data
    rows = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    parts = []
    for row, size in zip(rows, sizes, strict=True):
        with np.load(io.BytesIO(row[:size].tobytes()), allow_pickle=False) as part:
            parts.append(dict(part))
    return parts


def exchange(name: str, value: Any) -> list[Any]:
    """Returns the values of all hosts by host index, on every host, once every host has come.

    Args:
      name: what the hosts do here, for messages.
      value: small, and JSON-able.

    Raises:
      RuntimeError: a host is lost, or is elsewhere in the program.
    """
    process, processes = host()
    if processes == 1:
        return [value]
    client, round_ = distributed.global_state.client, next(_rounds)
    place = f"vitcnn/{round_}"
    client.key_value_set(f"{place}/{process}", json.dumps([name, value]))
    if process:
        text = _awaited(client, f"{place}/all", name, 0)
    else:
        text = json.dumps(
            [json.loads(_awaited(client, f"{place}/{i}", name, i)) for i in range(processes)]
        )
        client.key_value_set(f"{place}/all", text)
        if round_:  # every host that has come here has read what was there
            client.key_value_delete(f"vitcnn/{round_ - 1}/")
    names, values = zip(*json.loads(text), strict=True)
    for i, there in enumerate(names):
        if there != name:
            raise RuntimeError(
                f"host {i} is at {there!r} and host {process} at {name!r}: start all hosts with "
                "the same command, config and code"
            )
    return list(values)


def _awaited(client: Any, key: str, name: str, missing: int) -> str:
    """Returns the value of a key, once another host has set it."""
    start, lines = time.monotonic(), 0
    while True:
        try:
            return client.blocking_key_value_get(key, int(1000 * _POLL))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise RuntimeError(f"host {missing} is lost, before {name!r}: {error}") from error
        for where, text in client.key_value_dir_get(_FAILED):
            raise RuntimeError(f"host {where.rpartition('/')[2]} has failed: {text}")
        seconds = time.monotonic() - start
        if seconds > _PATIENCE * (lines + 1):
            lines += 1
            text = f"host {host()[0]} has waited {seconds:.0f} s for host {missing}, at {name!r}"
            print(text, file=sys.stderr, flush=True)


def agree(value: Any) -> Any:
    """Returns the value of host 0, such as a bool or an int, on every host."""
    return exchange("agreement", value)[0]


def any_host(value: bool) -> bool:
    """Returns whether a value is true on any host, on every host."""
    return any(exchange("any host", value))


def barrier(name: str) -> None:
    """Waits until every host is here."""
    exchange(name, None)


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a one-dimensional mesh for data-parallel training.

    Args:
      devices: its devices; None for all devices of all hosts.
    """
    devices = jax.devices() if devices is None else devices
    shape, axes = (len(devices),), ("data",)
    return jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,), devices=devices)


def shard(batch: Any, mesh: Mesh) -> Any:
    """Places a host's slice of a batch on its devices, split along the first axis."""
    sharding = split(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def made_of(held: Any, make: Callable[[Any, Any], Any], mesh: Mesh) -> Callable[[Any], Any]:
    """Places arrays whole on every device, and returns a function that makes batches of them.

    Args:
      held: a pytree of arrays that every host has.
      make: (held, batch) -> batch; pure.
      mesh: the devices.

    Returns:
      A host's slice of a batch -> what `make` makes of the batch, split along the first axis.
    """
    held = jax.tree.map(lambda array: spread(array, everywhere(mesh)), held)
    run = jax.jit(make, out_shardings=split(mesh))
    return lambda batch: run(held, shard(batch, mesh))


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


def split(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Returns the sharding of a batch, whose first axis is split over a mesh."""
    return NamedSharding(mesh, PartitionSpec("data"))


def everywhere(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Returns the sharding of arrays that lie whole on every device of a mesh."""
    return NamedSharding(mesh, PartitionSpec())


def place(tree: Any, shardings: Any) -> Any:
    """Places a pytree on the devices; see `shardings`."""
    return jax.device_put(tree, shardings)


def spread(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Places an array that every host has whole on the devices."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def copied(array: jax.Array) -> np.ndarray:
    """Returns a copy of an array on this host, whole; every host has to call it."""
    if not array.is_fully_addressable:
        array = whole(array, array.sharding.mesh)
    return np.array(array)  # never a view, which the next step would overwrite


def whole(tree: Any, mesh: Mesh) -> Any:
    """Returns a pytree of arrays on a mesh as arrays that this host has whole."""
    if jax.process_count() == 1:
        return tree
    gathered = jax.jit(lambda tree: tree, out_shardings=everywhere(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), gathered)


def on_cpu() -> bool:
    """Returns whether the devices are CPUs."""
    return jax.default_backend() == "cpu"
