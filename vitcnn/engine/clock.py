"""Clock: how long a run takes, and how long its devices wait for images."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


class Clock:
    """The time of a run, and how much of it the devices waited for images.

    Args:
      seconds: time so far, of a run that is resumed.
    """

    def __init__(self, seconds: float = 0.0):
        self._start = time.monotonic() - seconds
        self.waited = 0.0

    def restart(self) -> None:
        """Sets all time so far to nothing."""
        self._start, self.waited = time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        """Time so far."""
        return time.monotonic() - self._start

    @property
    def share(self) -> float:
        """Share of the time in which the devices waited, 0 to 1."""
        return self.waited / max(self.seconds, 1e-9)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stops the clock."""
        before = time.monotonic()
        yield
        self._start += time.monotonic() - before

    @contextlib.contextmanager
    def waiting(self, idle: Callable[[], bool]) -> Iterator[None]:
        """Counts time as waiting for images.

        Args:
          idle: whether the devices have nothing to do at the end; the time does not count if they
            are still at work.
        """
        before = time.monotonic()
        yield
        if idle():
            self.waited += time.monotonic() - before
