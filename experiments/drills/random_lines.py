"""Random configurations through the real command line; for `refusals --random N`.

    for outcome in random_lines(home, 40): ...        # Outcome, "refused" or "handled"

A start must end with status 2, three lines at most and no run folder, within 5 seconds of computing; or train. Every
fifth one that trains may go on to its end, which must be status 0. The others get SIGTERM when they have a run folder,
and must end by it: at once before the first step, else with status 143.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.drills.trial import ROOT, Outcome, judge

FAMILY = "command lines: random configurations"
REFUSAL_SECONDS = 5  # of computing
THROUGH, PATIENCE = 5, 300  # every so many-th may go on; seconds that a process may take


def draws(count: int) -> list[dict]:
    """Random changes of configs/digits.py: {"mixer.alpha": 0.3, ...}; the same ones every time."""
    from hypothesis import Phase, given, settings

    from tests.config.test_random_configs import CHANGES, SETTINGS

    found: list[dict] = []

    @settings(max_examples=count, phases=[Phase.generate], **SETTINGS)
    @given(changes=CHANGES)
    def collect(changes):
        found.append(changes)

    collect()
    return found


def arguments(changes: dict) -> list[str]:
    """The options of a command line that says the same. A null character cannot be passed to a program."""
    named = {"train.epochs": 1} | changes
    if "model.name" in changes:  # another net has its own
        named = {"model.depth": 0, "model.width": 0} | named
    return [f"--config.{name}={value}".replace("\0", "") for name, value in named.items()]


def random_lines(home: Path, count: int) -> Iterator[Outcome]:
    """Starts `count` random commands one after the other; run folders are made below `home`."""
    for number, changes in enumerate(draws(count)):
        workdir = home / "random" / str(number)
        options = arguments(changes)
        usage, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        status, said, stopped = _start(options, workdir, through=number % THROUGH == 0)
        wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
        if status == 2:
            result = judge(said, "")
            if workdir.exists():
                result = "refused, and left a run folder"
            elif cpu > REFUSAL_SECONDS:
                result = f"refused after {cpu:.1f} s of computing"
        elif "Traceback" in said or status not in ((143, -signal.SIGTERM) if stopped else (0,)):
            result = f"exit status {status}: {said[-300:]}"
        else:
            result = "handled"
        yield Outcome(FAMILY, " ".join(options), result, 0, 0, cpu, wall)


def _start(options: list[str], workdir: Path, *, through: bool) -> tuple[int, str, bool]:
    """(exit status, standard error, whether it was stopped) of a start of the trainer."""
    workdir.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "sem_jax.main", f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}"]
    log = workdir.parent / f"{workdir.name}.log"
    stopped, begin = False, time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, *options],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
    while process.poll() is None:
        late = time.monotonic() - begin > PATIENCE
        if not stopped and (late or (not through and workdir.exists())):
            process.terminate()
            stopped = True
        elif time.monotonic() - begin > 2 * PATIENCE:
            process.kill()
        time.sleep(0.05)
    return process.returncode, log.read_text(errors="replace"), stopped
