"""A small run on the digits that tells what it is doing and can be killed on the way, for the drill `faults`.

    cfg = configure(folder / "cache")
    status, told = start(cfg, folder / "run", plan=("save", 2, 0.01))    # SIGKILL 10 ms into the second save

Each start is a process of its own, forked from one that has imported the package and has not yet touched a device:
what is killed is the run, not Python's imports.
"""

import collections
import hashlib
import importlib
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sem_jax.config import apply_method, get_default, override
from sem_jax.models import MODELS
from sem_jax.runs.checkpoint import Checkpoints
from sem_jax.runs.records import RunFolder
from sem_jax.training import loop
from tests.helpers.tiny_net import TinyNet

EPOCHS = 6
PHASES = ("prepare", "compile", "step", "save", "evaluate", "metric write")
FIELDS = {
    "model.name": "tiny_of_drills",
    "model.dtype": "float32",
    "data.name": "digits",
    "data.crop_padding": 1,
    "data.flip": False,
    "data.val_size": 200,
    "train.epochs": EPOCHS,
    "train.batch_size": 128,
    "train.checkpoint_every": 1,
    "train.eval_every": 1,
    "runtime.progress": False,
    "runtime.steps_per_call": 1,  # a kill is to find many calls
    "runtime.devices": 1,
}
Told = list[
    tuple[float, str]
]  # (when, what), in seconds: "+PHASE" and "-PHASE", "from STEP", "saved STEP", "done DIGEST"


def configure(cache: Path) -> ConfigDict:
    """Mixup + SEM with ES, a checkpoint every epoch; compiled programs are kept in `cache`."""
    for name in ("sklearn.datasets", "tensorboardX"):  # once here, not in every start
        importlib.import_module(name)
    MODELS["tiny_of_drills"] = lambda *, num_classes, **_: TinyNet(num_classes, width=4)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return apply_method(override(get_default(), FIELDS), "mixup+es+sem")


def digest(tree: Any) -> str:
    """SHA-256 over all leaves."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
        sha.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


def draw_nothing() -> None:
    """Leaves the learning curves out, which take longer than the rest of the run."""
    loop.curves.draw_curves = lambda *_, **__: None


def _train(cfg: ConfigDict, workdir: Path, tell: Callable[[str], Any], plan: tuple[str, int, float] | None) -> None:
    """The run: tells its phases, and kills itself as planned."""
    visits = collections.Counter()

    def die(delay: float) -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    def enter(phase: str) -> None:
        visits[phase] += 1
        tell(f"+{phase}")
        if plan and plan[:2] == (phase, visits[phase]):
            threading.Thread(target=die, args=(plan[2],), daemon=True).start()

    def watch(owner: type, name: str, phase: str, after: Callable = lambda *_: None) -> None:
        inner = getattr(owner, name)

        def outer(*args, **kwargs):
            enter(phase)
            value = inner(*args, **kwargs)
            after(*args)
            tell(f"-{phase}")
            return value

        setattr(owner, name, outer)

    def acknowledge(checkpoints, step, *_) -> None:
        if checkpoints._error is None:
            tell(f"saved {step}")

    rewind = RunFolder.rewind

    def prepared(self: RunFolder, step: int) -> list[dict]:
        tell(f"from {step}")
        records = rewind(self, step)
        tell("-prepare")
        return records

    watch(loop.Programs, "prepare", "compile")
    watch(loop.Programs, "run", "step")
    watch(Checkpoints, "_write", "save", acknowledge)
    watch(loop.Programs, "evaluate", "evaluate")
    watch(RunFolder, "append", "metric write")
    RunFolder.rewind = prepared
    draw_nothing()
    enter("prepare")
    tell(f"done {digest(loop.train_and_evaluate(cfg, str(workdir)))}")


def start(cfg: ConfigDict, workdir: Path, plan: tuple[str, int, float] | None = None) -> tuple[int, Told]:
    """Forks one start of the run.

    Args:
      plan: (phase, n, delay): SIGKILL `delay` seconds after the phase is entered for the n-th time.

    Returns:
      The exit status (-9 when killed), and what the run told.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        status = 1
        try:
            with open(workdir.parent / "log.txt", "a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            _train(cfg, workdir, lambda text: os.write(write, f"{time.monotonic()} {text}\n".encode()), plan)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    with open(read) as pipe:
        told = [line.rstrip("\n").split(" ", 1) for line in pipe]
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, [(float(moment), text) for moment, text in told]


def numbers(told: Told, word: str) -> list[int]:
    """The steps that were told after a word: "from" or "saved"."""
    return [int(text.split()[1]) for _, text in told if text.startswith(f"{word} ")]


def open_phase(told: Told) -> str:
    """The phase in which a process died: the last one entered and not left."""
    entered = []
    for _, text in told:
        if text[0] == "+":
            entered.append(text[1:])
        elif text[0] == "-":
            entered.remove(text[1:])
    return entered[-1] if entered else "between"


def durations(told: Told) -> dict[str, float]:
    """Mean seconds of a visit, by phase."""
    entered, spent = {}, collections.defaultdict(list)
    for moment, text in told:
        if text[0] == "+":
            entered[text[1:]] = moment
        elif text[0] == "-":
            spent[text[1:]].append(moment - entered[text[1:]])
    return {phase: sum(values) / len(values) for phase, values in spent.items()}


def log_of(workdir: Path) -> list[dict]:
    """metrics.jsonl, every line of it read strictly, without the times."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "images_per_s")} for line in lines]
