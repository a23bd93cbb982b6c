"""What the benchmarks share: networks that are alive, peak memory, and how numbers are printed."""

import contextlib
import ctypes
import gc
import resource
import sys

import jax
import jax.numpy as jnp
import numpy as np

import vitcnn


def randomised(family, variant, fields):
    """Returns a model whose parameters that start at zero do not, so that every layer is alive."""
    model = vitcnn.load(family, variant, **fields)
    rng = np.random.default_rng(1)

    def alive(x):
        return x if np.any(x) else jnp.asarray(rng.normal(0, 0.1, x.shape), x.dtype)

    model.variables = jax.tree.map(alive, model.variables)
    return model


class Peak:
    """Peak memory since it was made, and since `restart`, MB beyond what was there at that time.

    On the processor it is resident memory, on other devices what the device says; their peak cannot
    be forgotten, so it is that of the whole process, compilation included.

    Args:
      host: whether to count resident memory on any device.
    """

    def __init__(self, host=False):
        self.stats = {} if host else jax.local_devices()[0].memory_stats() or {}
        self.base, self.before, self.running = self._start(), 0, None

    def restart(self):
        """Starts to count "running"; does nothing when called again."""
        if self.running is None:
            self.before = highest()
            self.running = self._start()

    def stop(self):
        if self.stats:
            now = jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 1e6
            return {"running": now - self.running, "all": now - self.base}
        high = highest()
        running = high - self.running if self.resets else None
        return {"running": running, "all": max(high, self.before) - self.base}

    def _start(self):
        gc.collect()
        if self.stats:
            self.resets = False
            return jax.local_devices()[0].memory_stats()["bytes_in_use"] / 1e6
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        try:  # Linux forgets the peak when it is told so
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
            self.resets = True
        except OSError:
            self.resets = False
        return highest()


def highest():
    """Returns the peak resident memory of this process, MB."""
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
    return "-" if x is None else f"{x:.0f}"


def spread(ratios):
    return f"{np.median(ratios):.3f} (rounds: {min(ratios):.3f} to {max(ratios):.3f})"


def say(text):
    print(text, file=sys.stderr, flush=True)
