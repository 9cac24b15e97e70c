"""Runs parts one after the other within a time, each in a process of its own: none can eat what is left of it.

    results = Box("runs/box", seconds=900).run([Part("check", ("experiments.timebox.check",), seconds=60)])

What a part prints goes to timebox.log in the folder, and what became of it is a line of timebox.jsonl, on disk as soon
as it is known. A part that outlives its limit gets SIGTERM, and SIGKILL after GRACE seconds, with all its children.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

GRACE = 15.0  # seconds between SIGTERM and SIGKILL
LEAST = 10.0  # seconds for which a part is started
POLL = 0.2
TICK = 5.0  # seconds between calls of `tick`


class Part(NamedTuple):
    """A command and its limits.

    Attributes:
      name: of the part, "speed: preact 128"; what stands before the colon is its group.
      command: module and arguments, for `python -m`.
      seconds: limit of this part; 0 = what is left.
      environment: more variables of its process.
      needs: a reason why it cannot run here; "" = it can.
    """

    name: str
    command: Sequence[str]
    seconds: float = 0.0
    environment: Mapping[str, str] = {}
    needs: str = ""

    @property
    def group(self) -> str:
        return self.name.partition(":")[0]


class Box:
    """A time and the folder for what comes out of it.

    Args:
      out: folder of timebox.log and timebox.jsonl; made here.
      seconds: in all, from now on.
      groups: seconds of all parts of a group together; what one leaves goes to the next.
      tick: called every TICK seconds and after each part, as to bring results home; its errors are printed.
      say: for one line a part.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        seconds: float,
        groups: Mapping[str, float] | None = None,
        tick: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = print,
    ):
        self._out, self._end = Path(out), time.monotonic() + seconds
        self._groups, self._tick, self._say = dict(groups or {}), tick, say
        self._group = ""
        self._out.mkdir(parents=True, exist_ok=True)

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def run(self, parts: Sequence[Part]) -> list[dict]:
        """What became of each part: "done", "failed", "out of time" (it ended when told), "killed" or "left out"."""
        return [self._record(part, *self._one(part)) for part in parts]

    def _one(self, part: Part) -> tuple[str, int | None, float]:
        """(what became of it, exit status, seconds)."""
        if part.needs:
            return f"left out: {part.needs}", None, 0.0
        self._hand_on(part.group)
        limit = min(self.left - GRACE, part.seconds or self.left, self._groups.get(part.group, self.left))
        if limit < LEAST:
            return "left out: no time", None, 0.0
        begin = time.monotonic()
        with open(self._out / "timebox.log", "ab") as log:
            log.write(f"\n=== {part.name}, at most {limit:.0f} s\n".encode())
            log.flush()
            process = subprocess.Popen(
                [sys.executable, "-m", *part.command],
                env={**os.environ, **part.environment, "SEM_JAX_SECONDS": f"{limit:.0f}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            ended = self._wait(process, begin + limit)
        finally:  # also when this process is told to end
            _end(process)
            _signal(process, signal.SIGKILL)  # children that it left
            seconds = time.monotonic() - begin
            if part.group in self._groups:
                self._groups[part.group] -= seconds
        status = process.returncode
        what = "done" if status == 0 else "failed" if ended else "killed" if status == -9 else "out of time"
        return what, status, seconds

    def _hand_on(self, group: str) -> None:
        """Gives a group that begins what the one before it left."""
        if group != self._group and group in self._groups:
            self._groups[group] += max(0.0, self._groups.get(self._group, 0.0))
        self._group = group

    def _wait(self, process: subprocess.Popen, until: float) -> bool:
        """Whether the process ended by itself."""
        ticked = time.monotonic()
        while process.poll() is None:
            if (now := time.monotonic()) >= until:
                return False
            if now - ticked >= TICK:
                self._do_tick()
                ticked = now
            time.sleep(POLL)
        return True

    def _do_tick(self) -> None:
        try:
            self._tick()
        except Exception as error:  # bringing results home again succeeds the next time
            self._say(f"collecting failed: {type(error).__name__}: {error}")

    def _record(self, part: Part, what: str, status: int | None, seconds: float) -> dict:
        found = {"part": part.name, "status": what, "exit_status": status, "seconds": round(seconds, 1)}
        with open(self._out / "timebox.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._say(f"{part.name}: {what}, {seconds:.0f} s; {self.left:.0f} s are left")
        self._do_tick()
        return found


def _end(process: subprocess.Popen) -> None:
    """SIGTERM, then SIGKILL."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
