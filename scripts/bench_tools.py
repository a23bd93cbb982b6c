"""Tools of the benchmarks: networks without dead layers, workers, peak memory, printed numbers."""

import contextlib
import ctypes
import gc
import multiprocessing
import resource
import sys

import jax
import jax.numpy as jnp
import numpy as np

import vitcnn


def randomised(family, variant, fields):
    """Returns a model with random values where parameters start at zero, so no layer is dead."""
    model = vitcnn.load(family, variant, **fields)
    rng = np.random.default_rng(1)

    def filled(x):
        return x if np.any(x) else jnp.asarray(rng.normal(0, 0.1, x.shape), x.dtype)

    model.variables = jax.tree.map(filled, model.variables)
    return model


class Peak:
    """Peak memory since construction and since `restart`, MB beyond what was in use at that time.

    On the CPU this is resident memory; on other devices it is what the device reports. A device
    cannot reset its peak, so there the peak covers the whole process, compilation included.

    Args:
      host: whether to count resident memory on any device.
    """

    def __init__(self, host=False):
        self.stats = {} if host else jax.local_devices()[0].memory_stats() or {}
        self.base, self.before, self.running = self._start(), 0, None

    def restart(self):
        """Starts to measure "running"; only the first call counts."""
        if self.running is None:
            self.before = highest()
            self.running = self._start()

    def stop(self):
        """Returns MB: {"running": since `restart` (None if unknown), "all": since construction}."""
        if self.stats:
            now = jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 1e6
            return {"running": now - self.running, "all": now - self.base}
        peak = highest()
        running = peak - self.running if self.resets else None
        return {"running": running, "all": max(peak, self.before) - self.base}

    def _start(self):
        gc.collect()
        if self.stats:
            self.resets = False
            return jax.local_devices()[0].memory_stats()["bytes_in_use"] / 1e6
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        try:  # on Linux, writing 5 resets the peak
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
            self.resets = True
        except OSError:
            self.resets = False
        return highest()


class Worker:
    """A process that does one round of its work each time that the parent asks."""

    def __init__(self, serve, *arguments):
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit broken threads
        self.pipe, child_pipe = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(child_pipe, *arguments), daemon=True)
        self.process.start()
        child_pipe.close()
        self.pipe.recv()  # the child is ready

    def ask(self):
        self.pipe.send("go")
        return self.pipe.recv()

    def stop(self):
        self.pipe.send("stop")
        answer = self.pipe.recv()
        self.process.join()
        return answer


def highest():
    """Returns the peak resident memory of this process since its last reset, MB."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1e3 * 1.024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def available():
    """Returns the bytes of memory that are free on this machine."""
    with contextlib.suppress(OSError), open("/proc/meminfo") as file:
        return 1024 * next(int(li.split()[1]) for li in file if li.startswith("MemAvailable"))
    return 8e9


def number(x):
    """Returns a number without decimals, "-" for None."""
    return "-" if x is None else f"{x:.0f}"


def spread(ratios):
    """Returns the median and the range of ratios, as text."""
    return f"{np.median(ratios):.3f} (rounds: {min(ratios):.3f} to {max(ratios):.3f})"


def say(text):
    """Prints to stderr, so that stdout holds nothing but results."""
    print(text, file=sys.stderr, flush=True)
