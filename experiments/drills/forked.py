"""Starts the training command many times from one process that has its modules imported, which saves 8 s a start.

    with Forked(environment) as forked:
        process = forked.start(["--config=digits", "--workdir=gs://b/run"], {"SEM_JAX_CACHE": "/tmp/new"}, log)
        process.kill()
        process.wait()                          # -9

Each start is a fork, before anything of jax was used: a process of its own that runs the command from its `main` on.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

from experiments.drills.trial import ROOT


class Process:
    """One start of the command."""

    def __init__(self, forked: subprocess.Popen, pid: int):
        self._forked, self.pid = forked, pid

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """The exit status, negative for a signal, when the process has ended."""
        return int(_line(self._forked))


class Forked:
    """Starts the command; one start at a time."""

    def __init__(self, environment: dict[str, str]):
        worker = [sys.executable, "-m", "experiments.drills.forked"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(worker, cwd=ROOT, env=environment, **pipes)

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_) -> None:
        self._process.communicate()

    def start(self, options: list[str], environment: dict[str, str], log: Path) -> Process:
        """Starts the command with these options and these changes of the environment; `log` gets what it prints."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([options, environment, str(log)]) + "\n")
        self._process.stdin.flush()
        return Process(self._process, int(_line(self._process)))


def _line(process: subprocess.Popen) -> str:
    assert process.stdout
    if not (line := process.stdout.readline()):
        raise RuntimeError("the process that starts the command has ended")
    return line


def _run(options: list[str], environment: dict[str, str], log: str) -> int:
    """The command in this process; its exit status."""
    from sem_jax import main

    os.environ.update(environment)
    for stream, name in ((0, os.devnull), (1, log), (2, log)):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), stream)
    sys.argv = ["sem_jax.main", *options]
    try:
        main.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _serve() -> None:
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            status = 99
            try:
                status = _run(*json.loads(line))
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    import google.cloud.storage  # noqa: F401 - what the command imports on its way
    import matplotlib.pyplot  # noqa: F401
    import sklearn.datasets  # noqa: F401

    import sem_jax.evaluation.runner
    import sem_jax.runs.mirror
    import sem_jax.training.loop  # noqa: F401

    _serve()
