"""Log: the numbers of a run, in train.jsonl, in the bar, and in TensorBoard.

The host never waits for the step that it has just started, only for the one before. So the devices
always have a step to work on, and the rate in the bar is true.
"""

from __future__ import annotations

import math
import time
from typing import Any

import jax
import tqdm

from vitcnn import parallel, storage
from vitcnn.engine.clock import Clock
from vitcnn.results import workdir as run_folder
from vitcnn.storage import Path
from vitcnn.training.tensorboard import Events

FILE = "train.jsonl"
# A line has these of its last step, and the mean over its steps of the others.
_LAST = ("learning_rate", "parameter_norm", "update_norm")
_SHOWN = ("loss", "accuracy")  # in the bar
_FLUSH = 30.0  # seconds between two times that the log in a bucket, which is one object, is put


class Log:
    """Writes a line for every `every` steps, and stops a run whose numbers are not finite.

    Args:
      workdir: folder of the run.
      first: number of steps that have been taken.
      total: number of steps of the run.
      every: number of steps between two lines.
      batch: number of images in a step.
      flops: floating-point operations of a step.
      peak: floating-point operations that all devices can do in a second.
      title: what the bar is called; "" for no bar.
    """

    def __init__(
        self,
        workdir: Path,
        first: int,
        total: int,
        every: int,
        batch: int,
        flops: float,
        peak: float,
        title: str,
    ):
        self._path, self._total, self._every = workdir / FILE, total, every
        self._batch, self._flops, self._peak = batch, flops, peak
        self._writes = parallel.host()[0] == 0
        self._pending: tuple[int, Any] | None = None
        self._steps: list[dict[str, float]] = []
        self._lines: list[dict[str, Any]] = []  # that are not in the file yet
        self._flushed = time.monotonic()
        if self._writes:  # the steps after the checkpoint are taken again
            run_folder.cut_log(self._path, "step", first)
        self.clock = Clock(_last_seconds(self._path))
        self._before = self.clock.seconds
        self._events = Events(workdir, first) if self._writes else None
        self.bar = tqdm.tqdm(
            total=total, initial=first, unit=" steps", desc=title, disable=not title
        )

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the numbers of a step that has just been started, and waits for the one before."""
        self.settle()
        self._pending = step, metrics

    def settle(self) -> None:
        """Waits for the last step, and writes its line if one is due.

        Raises:
          FloatingPointError: a number of the step is not finite.
        """
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
        if not values.pop("finite"):
            listed = ", ".join(f"{n} {v:g}" for n, v in values.items() if not math.isfinite(v))
            raise FloatingPointError(
                f"step {step} is not finite ({listed}); the last checkpoint is from before. Lower "
                "learning_rate, lengthen the warm-up, or set clip"
            )
        self._steps.append(values)
        self.bar.update()
        if step % self._every == 0 or step == self._total:
            self._line(step)

    def _line(self, step: int) -> None:
        seconds, steps = self.clock.seconds, self._steps
        took = max(seconds - self._before, 1e-9)
        values = {
            name: steps[-1][name] if name in _LAST else sum(s[name] for s in steps) / len(steps)
            for name in steps[-1]
        }
        rate = len(steps) / took
        values["images_per_second"] = self._batch * rate
        values["waiting"] = self.clock.waited / took
        if math.isfinite(self._flops):
            values["tflops_per_second"] = self._flops * rate / 1e12
        if math.isfinite(self._peak):
            values["utilisation"] = self._flops * rate / self._peak
        self.bar.set_postfix(
            {**{n: f"{values[n]:.3f}" for n in _SHOWN}, "images/s": f"{self._batch * rate:.0f}"},
            refresh=False,
        )
        if self._events is not None:
            self._lines.append({"step": step, **values, "seconds": round(seconds, 3)})
            self._events.write(step, values)
            if not storage.is_remote(self._path) or time.monotonic() - self._flushed > _FLUSH:
                self.flush()
        self._steps, self._before, self.clock.waited = [], seconds, 0.0

    def flush(self) -> None:
        """Writes all lines to the file, which a state that is saved must not overtake."""
        if self._lines:
            run_folder.log_lines(self._path, self._lines)
            self._events.flush()
            self._lines, self._flushed = [], time.monotonic()

    def write_events(self, step: int, values: dict[str, float]) -> None:
        """Writes the numbers of an evaluation to TensorBoard."""
        if self._events is not None:
            self._events.write(step, values)

    def close(self) -> None:
        """Closes the bar and the files."""
        self.bar.close()
        self.flush()
        if self._events is not None:
            self._events.close()


def share_waited(path: Path) -> float:
    """Returns the share of the training in which the devices waited for images, by its log."""
    waited = seconds = 0.0
    for line in run_folder.read_log(path) or ():
        waited += line["waiting"] * (line["seconds"] - seconds)
        seconds = line["seconds"]
    return waited / max(seconds, 1e-9)


def _last_seconds(path: Path) -> float:
    """Returns the time of training that the last line of a log has, 0 without a log."""
    lines = run_folder.read_log(path)
    return lines[-1]["seconds"] if lines else 0.0
