"""One case of the drill `refusals`, run in this process or as a process, and judged.

here("hostile files", "tar_climbs", prepare, home).result          # "refused"
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
Word = str | re.Pattern  # that a refusal must say
# prepare(folder, canary) makes a case: it returns the call, and either the word that the refusal must say or a check
# of what the call returns. Hostile code that runs creates the file `canary`.
Prepare = Callable[[Path, Path], tuple[Callable[[], Any], "Word | Callable[[Any], None]"]]


class Outcome(NamedTuple):
    """What one case came to."""

    family: str
    name: str
    result: str  # "refused", "handled", or what went wrong
    executed: int  # pieces of hostile code that ran
    written: int  # files written where none belong
    cpu: float  # seconds
    wall: float  # seconds
    memory: int = 0  # bytes more than before; 0 = not measured

    @property
    def good(self) -> bool:
        return self.result in ("refused", "handled") and not self.executed and not self.written


def judge(said: str, word: Word) -> str:
    """'refused' for a message as promised, else what is wrong with it."""
    lines = said.strip().splitlines()
    if "Traceback" in said or not 1 <= len(lines) <= 3:
        return f"{len(lines)} lines: {' / '.join(lines[-4:])[:300]}"
    found = word.search(said) if isinstance(word, re.Pattern) else word in said
    return "refused" if found else f"does not name {word!r}: {said[:300]}"


def here(family: str, name: str, prepare: Prepare, home: Path) -> Outcome:
    """Runs one case in this process; files below `home` may be written."""
    from sem_jax.errors import SemError
    from tests.helpers.watch import most_memory, reset_most_memory, watch

    with tempfile.TemporaryDirectory() as sandbox:
        sandbox, path = Path(sandbox), list(sys.path)
        canary, value = sandbox / "canary", None
        call, expected = prepare(sandbox / "target", canary)
        before = set(sandbox.rglob("*"))
        cpu, wall, memory = time.process_time(), time.perf_counter(), reset_most_memory()
        with watch(allowed=(home,), suspect=sandbox) as seen:
            try:
                value = call()
                result = "not refused" if isinstance(expected, Word) else "handled"
            except SemError as error:
                result = judge(str(error), expected) if isinstance(expected, Word) else f"refused: {error}"
            except Exception as error:
                result = f"{type(error).__name__}: {error}"[:300]
        cpu, wall, memory = time.process_time() - cpu, time.perf_counter() - wall, most_memory() - memory
        if result == "handled" and not isinstance(expected, Word):
            try:
                expected(value)
            except AssertionError as error:
                result = f"not as documented: {error}"
        written = len(seen.written) + len(set(sandbox.rglob("*")) - before)
        sys.path[:] = path
        return Outcome(family, name, result, len(seen.executed) + canary.exists(), written, cpu, wall, memory)


def command(
    family: str, name: str, arguments: list[str], word: str, *, cwd: Path = ROOT, sandbox: Path | None = None
) -> Outcome:
    """Runs one case as a process; word "" is a case that has to succeed."""
    before = set(sandbox.rglob("*")) if sandbox else set()
    usage, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, env=env, capture_output=True, text=True)
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    if done.returncode != (2 if word else 0):
        result = f"exit status {done.returncode}: {done.stderr[-300:]}"
    else:
        result = judge(done.stderr, word) if word else "handled"
    new = set(sandbox.rglob("*")) - before if sandbox else set()
    canaries = {path for path in new if path.name == "canary"}
    # A report that was asked for is no harm.
    written = {path for path in new - canaries if "evaluation" not in path.parts and "home" not in path.parts}
    return Outcome(family, name, result, len(canaries), len(written), cpu, wall)
