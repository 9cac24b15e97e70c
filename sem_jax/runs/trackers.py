"""Sends the metrics of a run to a tracker: TensorBoard's event files, Weights & Biases or Trackio; no jax.

    tracker = Tracker("wandb", Path("runs/digits"), step=390, log=lines, config=config)   # lines: metrics.jsonl so far
    tracker.write({"step": 780, "epoch": 2, "loss": 1.9})
    tracker.close()

`runtime.tracker` names a row of TRACKERS. metrics.jsonl is the record of a run, a tracker shows a copy of it: one that
fails is left out for the rest of the run, with one line. The file tracker.json of a run folder has the run's name at
wandb or trackio and the last step handed over. So a resumed run goes on in the same place and sends nothing twice, and
what was logged without the tracker is sent later. What a tracker held in memory when its process was killed is lost
there.
"""

import importlib.util
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sem_jax.config import without_places
from sem_jax.errors import ConfigError, RunError, one_line
from sem_jax.registry import lookup
from sem_jax.runs.reading import read_json
from sem_jax.runs.records import write_json
from sem_jax.system.output import say

PROJECT = "sem_jax"  # unless $WANDB_PROJECT or $TRACKIO_PROJECT says another


class Opening(NamedTuple):
    """What a tracker is opened with."""

    folder: Path  # of the run
    id: str  # of the run at the tracker: 12 hexadecimal digits
    step: int  # of the checkpoint that training goes on from
    config: dict[str, Any]  # without paths of this machine


class Sink(NamedTuple):
    """An open tracker."""

    write: Callable[[int, dict[str, Any]], Any]  # the step, numbers by name
    close: Callable[[], Any]


class Row(NamedTuple):
    """A tracker of the table."""

    package: str
    open: Callable[[Opening], Sink]


def _tensorboard(start: Opening) -> Sink:
    from tensorboardX import SummaryWriter

    events = SummaryWriter(str(start.folder / "tensorboard"), purge_step=start.step + 1 if start.step else None)

    def write(step: int, numbers: dict[str, Any]) -> None:
        for name, value in numbers.items():
            events.add_scalar(name, value, step)
        events.flush()

    return Sink(write, events.close)


def _wandb(start: Opening) -> Sink:
    import wandb

    settings = wandb.Settings(console="off", save_code=False, login_timeout=60, init_timeout=60, finish_timeout=60)
    project, options = os.environ.get("WANDB_PROJECT") or PROJECT, {"resume": "allow", "config": start.config}
    options |= {"project": project, "name": start.folder.name, "id": start.id, "dir": start.folder}
    run = wandb.init(**options, settings=settings)
    return Sink(lambda step, numbers: run.log(numbers, step=step), run.finish)


def _trackio(start: Opening) -> Sink:
    import trackio

    project, name = os.environ.get("TRACKIO_PROJECT") or PROJECT, f"{start.folder.name}-{start.id}"
    run = trackio.init(project=project, name=name, resume="allow", embed=False, config=start.config)
    return Sink(lambda step, numbers: run.log(numbers, step=step), trackio.finish)


TRACKERS = {
    "tensorboard": Row("tensorboardX", _tensorboard),
    "wandb": Row("wandb", _wandb),
    "trackio": Row("trackio", _trackio),
    "none": Row("", lambda start: Sink(lambda step, numbers: None, lambda: None)),
}


def check_tracker(name: str) -> None:
    """Refuses a tracker that is unknown or not installed, with a ConfigError."""
    row = lookup(TRACKERS, "tracker", name)
    if row.package and importlib.util.find_spec(row.package) is None:
        message = f"runtime.tracker={name} needs {row.package}, which is not installed"
        raise ConfigError(message, f"pip install {row.package}")


class Tracker:
    """Args:
    name: of TRACKERS.
    folder: of the run.
    step: of the checkpoint that training goes on from; 0 in a new run.
    log: the records of metrics.jsonl up to that step.
    config: of the run, nested as in config.json; paths of this machine are left out.
    """

    def __init__(self, name: str, folder: Path, *, step: int, log: Sequence[Mapping], config: dict[str, Any]):
        self._name, self._state = name, folder / "tracker.json"
        self._keeps = name in ("wandb", "trackio")  # TensorBoard's files are purged instead
        id, self._sent = self._earlier()
        start = Opening(folder.resolve(), id, step, without_places(config))
        self._id, self._sink = id, None
        try:
            self._sink = TRACKERS[name].open(start)
        except Exception as error:  # of the network, of an account, of the disk
            self._give_up(error)
        for line in log if self._keeps else ():
            self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Sends the numbers of a record; those that are not finite are None, and left out."""
        step = line["step"]
        if self._sink is None or (self._keeps and step <= self._sent):
            return
        numbers = {name: it for name, it in line.items() if isinstance(it, int | float) and name != "step"}
        try:
            if self._keeps:  # before it is sent: a process that is killed here sends it never, rather than twice
                write_json(self._state, {"tracker": self._name, "id": self._id, "step": step})
                self._sent = step
            self._sink.write(step, numbers)
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """Sends what is left."""
        if self._sink is not None:
            try:
                self._sink.close()
            except Exception as error:
                self._give_up(error)
            self._sink = None

    def _earlier(self) -> tuple[str, int]:
        """(id, last step sent) of an earlier process in this folder, or those of a new run."""
        try:
            found = read_json(self._state) if self._keeps else {}
        except RunError:
            found = {}
        id, step = (found.get("id"), found.get("step")) if isinstance(found, dict) else (None, None)
        if (
            found
            and found.get("tracker") == self._name
            and type(step) is int
            and re.fullmatch(r"[0-9a-f]{12}", str(id))
        ):
            return str(id), step
        return secrets.token_hex(6), 0

    def _give_up(self, error: Exception) -> None:
        self._sink = None
        say(f"runtime.tracker={self._name} is left out from here on: {one_line(error)}. metrics.jsonl has all.")
