"""Lets a run end at a safe point when it is told to stop: Ctrl-C (SIGINT), preemption (SIGTERM) or the end of its time.

>>> with StopRequest() as stop:
...     for step in range(3):
...         if stop.reason:  # save the state first
...             raise Interrupted(stop.reason)

The first signal is only noted; a second one of the same kind ends the process at once.
"""

import os
import signal
import threading
import time
from typing import Any

from sem_jax.system.output import say_in_handler

BEGAN = time.monotonic()  # a command imports this module first, so about the start of its process
TIME_IS_UP = 14  # the number of SIGALRM, the alarm clock's signal, which Windows lacks


def end_at_interrupt() -> None:
    """Makes Ctrl-C end the process at once, with status 130, wherever no `StopRequest` is in force.

    KeyboardInterrupt would be lost in a callback of jax, or become another error in an import. What is written at such
    a time is swept by the next start. Where SIGINT is ignored, as in a background job of a shell, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))


class Interrupted(SystemExit):
    """The run was stopped after saving; exit status 128 + signal number (130 SIGINT, 142 TIME_IS_UP, 143 SIGTERM)."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number


class StopRequest:
    """Context in which SIGINT and SIGTERM set `signal` and do not kill; no effect outside the main thread.

    Args:
      deadline: the end of the run's time, as `time.monotonic` counts it; None = no end.
    """

    def __init__(self, deadline: float | None = None):
        self.signal = 0  # number of the signal received, 0 = none
        self.deadline = deadline
        self._previous: dict[int, Any] = {}  # handlers to put back

    @property
    def reason(self) -> int:
        """The signal received, else TIME_IS_UP after the deadline, else 0."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return self.signal or (TIME_IS_UP if late else 0)

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame) -> None:
        del frame
        self.signal = number
        signal.signal(number, self._previous.get(number) or signal.SIG_DFL)
        say_in_handler("\nStopping after this call; the state is saved first. Once more stops at once.")

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
