"""A small run on the digits by the real command line, watched from outside and killed on the way; for `faults`.

    ended = start(folder / "run", cache, plan=Plan("save", 0.01, visit=2))    # SIGKILL 10 ms into the second save
    ended.status, ended.phase                                                 # -9, "save"

What the process is doing is seen from what it prints and from the files it makes, so that nothing in it is changed.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from experiments.drills.trial import ROOT
from sem_jax.runs.checkpoint import steps

EPOCHS = 4
FIELDS = {
    "model.width": 1,
    "model.dtype": "float32",
    "data.val_size": 200,
    "train.epochs": EPOCHS,
    "train.batch_size": 256,
    "train.checkpoint_every": 1,
    "train.eval_every": 1,
    "runtime.progress": False,
    "runtime.devices": 1,
}
# A phase lasts until the next one but "save", which lies within the others.
PHASES = ("start", "compile", "step", "save", "evaluate", "result", "report")
SAVE_SECONDS = 0.3


class Plan(NamedTuple):
    """SIGKILL so many seconds after a phase is entered; `visit` says which of the saves."""

    phase: str
    delay: float
    visit: int = 1


class Ended(NamedTuple):
    """How a start of the run ended."""

    status: int  # -9 when killed
    phase: str  # the one it ended in
    seconds: dict[str, float]  # of each phase
    begun: int | None  # step that it went on from; None if it did not come so far
    saved: int  # step of the latest checkpoint that was there at its end


def command(workdir: Path) -> list[str]:
    fields = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    return [
        sys.executable,
        "-m",
        "sem_jax.main",
        "--config=configs/digits.py:mixup+es+sem",
        f"--workdir={workdir}",
        *fields,
    ]


def start(workdir: Path, cache: Path, plan: Plan | None = None) -> Ended:
    """Starts the command and waits for its end; what it prints is in log.txt beside the run folder.

    Args:
      cache: of compiled programs.
      plan: when to kill it; None = not at all.
    """
    workdir.parent.mkdir(parents=True, exist_ok=True)
    log, result, saves = workdir.parent / "log.txt", workdir / "result.json", set()
    finished = result.exists()
    env = os.environ | {"PYTHONPATH": str(ROOT), "SEM_JAX_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    env |= {"SOURCE_DATE_EPOCH": "0"}  # the date in the report, which is compared
    entered, text = {"start": time.monotonic()}, ""
    with log.open("wb") as file:
        process = subprocess.Popen(command(workdir), stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=env)
    while process.poll() is None:
        if log.stat().st_size != len(text):
            text = log.read_text()
        saves |= {path.name for path in workdir.glob("checkpoints/.saving-*")}
        seen = {
            "compile": "run folder:" in text,
            "step": "Compiled the" in text,
            "save": len(saves) >= (plan.visit if plan else 1),
            "evaluate": f"epoch {EPOCHS}/{EPOCHS}" in text,
            "result": not finished and result.exists(),
            "report": "Learning curves:" in text or "is finished" in text,
        }
        now = time.monotonic()
        for phase in PHASES:
            if seen.get(phase):
                entered.setdefault(phase, now)
        if plan and plan.phase in entered and now >= entered[plan.phase] + plan.delay:
            process.kill()
        time.sleep(0.003)
    text = log.read_text()
    moments = sorted((moment, phase) for phase, moment in entered.items() if phase != "save")
    ends = [moment for moment, _ in moments[1:]] + [time.monotonic()]
    seconds = {phase: end - begin for (begin, phase), end in zip(moments, ends, strict=True)} | {"save": SAVE_SECONDS}
    phase = "save" if any(workdir.glob("checkpoints/.saving-*")) else moments[-1][1]
    begun = None
    if "run folder:" in text:
        begun = int(match[1].replace(",", "")) if (match := re.search(r"Continuing from step ([\d,]+)", text)) else 0
    return Ended(process.returncode, phase, seconds, begun, max(steps(workdir / "checkpoints"), default=0))


def contents(workdir: Path) -> dict[str, object]:
    """What must be equal after a run: log without times, curves, report, and what else lies there.

    The folder in which the run folder lies is taken out of the report.
    """
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    times = ("seconds", "images_per_s")
    here = str(workdir.parent).encode()
    files = {p.name: p.read_bytes().replace(here, b"") for p in sorted((workdir / "evaluation").iterdir())}
    names = [p.relative_to(workdir).as_posix() for p in (*workdir.glob("*"), *workdir.glob("[!t]*/*"))]
    return {
        "metrics.jsonl": [{k: v for k, v in json.loads(line).items() if k not in times} for line in lines],
        "curves.png": (workdir / "curves.png").read_bytes(),
        "report": files,
        "other files": sorted(names),  # not in tensorboard, where every start adds a file; a checkpoint is one name
    }
