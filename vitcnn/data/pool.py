"""Pool: threads or processes that load images ahead of their use.

A group is loaded image by image by the whole pool, not by one of its threads. So the group that is
needed next is there as soon as all threads together can load it, and one large image delays only
itself. What is yielded depends on neither the number of threads nor that of processes: loading an
image is a pure function of what it is asked for, and groups come in their order.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_MOST_THREADS = 16  # of one process: more hinder each other where Python holds its lock
_MOST_WORKERS = 64  # whose images one process can take
# Parts of a group for each thread. One part each would wait for the slowest; one for each image
# would cost more than a small image itself.
_PARTS = 4

Load = Callable[[list], list]


def threads_of_machine() -> int:
    """Returns the number of threads that suits this machine: one per core, at most 16."""
    return min(_MOST_THREADS, cores_of_machine())


def workers_of_machine(decodes: bool) -> int:
    """Returns the number of processes that suits this machine, 0 where threads do.

    One per core, at most 64, if there are more cores than threads can use.

    Args:
      decodes: whether the images have to be decoded, which is worth sending them to a process.
    """
    cores = cores_of_machine()
    return min(_MOST_WORKERS, cores) if decodes and cores > _MOST_THREADS else 0


def of_config(config: Any) -> dict[str, int | None]:
    """Returns the arguments of `vitcnn.data.groups` that a checked config sets."""
    return {
        "threads": config.threads or None,
        "workers": None if config.workers < 0 else config.workers,
        "prefetch": config.prefetch,
    }


def cores_of_machine() -> int:
    """Returns the number of cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def load_ahead(
    load: Load,
    groups: Iterable[list],
    join: Callable[[list, list], Any],
    threads: int | None = None,
    workers: int = 0,
    prefetch: int = 4,
) -> Iterator[Any]:
    """Yields each group, loaded ahead.

    Args:
      load: loads images: from what identifies them (items) to one value for each. Processes get it
        pickled.
      groups: the items of each group; there may be no end of them.
      join: makes a group of its items and their values.
      threads: number of threads; None for those that suit the machine, 0 to load each group when it
        is needed.
      workers: number of processes that load in place of the threads; 0 for threads.
      prefetch: number of groups that are loaded ahead of the current one.

    Raises:
      ValueError: a number below 0, or something in `load` that another process cannot get. An error
        that `load` raises reaches the caller unchanged.
    """
    threads = threads_of_machine() if threads is None else threads
    for name, value in (("threads", threads), ("workers", workers), ("prefetch", prefetch)):
        if value < 0:
            raise ValueError(f"{name} is {value}: expected 0 or more")
    if not (threads or workers):
        return (join(items, load(items)) for items in groups)
    pickled = _pickled(load) if workers else b""

    def stream():
        if workers:
            executor, run = _processes(workers, pickled), _load_here
            hidden = b"__main__" not in pickled
        else:
            executor, run = concurrent.futures.ThreadPoolExecutor(threads, "images"), load
            hidden = False
        waiting = collections.deque()
        try:
            for items in groups:
                size = math.ceil(len(items) / min(len(items), _PARTS * (workers or threads)))
                parts = [items[i : i + size] for i in range(0, len(items), size)]
                with _main_hidden() if hidden else contextlib.nullcontext():
                    waiting.append((items, [executor.submit(run, part) for part in parts]))
                if len(waiting) > prefetch:
                    yield _joined(join, *waiting.popleft())
            while waiting:
                yield _joined(join, *waiting.popleft())
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    return stream()


def _joined(join, items, futures):
    return join(items, [value for future in futures for value in future.result()])


def _pickled(load: Load) -> bytes:
    try:
        return pickle.dumps(load)
    except Exception as error:  # whatever the source of a user raises
        raise ValueError(
            f"workers: this source of images cannot be sent to other processes ({error}); set "
            "workers to 0, and threads load the images"
        ) from error


def _processes(workers: int, pickled: bytes) -> concurrent.futures.Executor:
    # A fork of a process with threads, such as those of JAX, may hang: start anew.
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(workers, context, _start, (pickled,))


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    """Hides the script of the user from processes that start.

    They would run it again, and a script that does not ask whether it is "__main__" would start
    this run in each of them.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_loads: list[Load] = []  # in a worker: the function that it was started with


def _start(pickled: bytes) -> None:
    """Prepares a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _loads.append(pickle.loads(pickled))


def _end_with_parent() -> None:
    """Ends this worker if the run is killed, which can then not do so."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _load_here(items: list) -> list:
    return _loads[0](items)
