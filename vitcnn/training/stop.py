"""Stop: a signal to stop lets a run save its state and leave, instead of killing it."""

from __future__ import annotations

import signal
import threading
from typing import Any

from vitcnn import parallel

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command again may succeed
CADENCE = 10  # steps after which several hosts agree on whether to stop


class Stopped(Exception):  # noqa: N818  it is not an error
    """A run has saved its state and left, because a signal told it to."""

    def __init__(self, message: str):
        super().__init__(message)


class Stop:
    """Notes SIGTERM, and the first SIGINT (Ctrl-C), while it is open; a second SIGINT interrupts.

    Attributes:
      signal: name of the signal that came, "" for none.
    """

    def __init__(self):
        self.signal = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # others cannot have handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def due(self, step: int) -> bool:
        """Returns whether to stop after a step; the hosts agree, at every `CADENCE`-th step."""
        if parallel.host()[1] == 1:
            return bool(self.signal)
        return step % CADENCE == 0 and parallel.any_host(bool(self.signal))
