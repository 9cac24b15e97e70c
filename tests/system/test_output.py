"""Standard output whose reader has gone, whose disk is full, or that is not there: nothing ends for that."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sem_jax.system import output

ROOT = Path(__file__).parents[2]

# A run in little: it speaks, is stopped, and has something to do afterwards.
RUN = """
import os, signal, sys
from sem_jax.system.output import say
from sem_jax.system.signals import StopRequest
with StopRequest() as stop:
    say("epoch 1")
    sys.stdin.readline()
    if int(sys.argv[1]):
        os.kill(os.getpid(), int(sys.argv[1]))
    say("epoch 2")
    say("epoch 3")
    print("saved", stop.signal, file=sys.stderr)
"""


def started(shell="", number=0, **options):
    command = f"{sys.executable} -c '{RUN}' {int(number)} {shell}"
    return subprocess.Popen(command, shell=True, cwd=ROOT, stdin=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("number", [0, signal.SIGINT, signal.SIGTERM])
def test_a_run_whose_reader_has_gone_goes_on_and_is_saved_when_it_is_stopped(number):
    """`| head -1`, and Ctrl-C with `| tee log`, which ends tee first."""
    with started(number=number, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == "epoch 1\n"
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read() == f"saved {int(number)}\n" and process.wait(30) == 0


@pytest.mark.parametrize("shell", ["> /dev/full", ">&-", ">&- 2>&-"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux alone has /dev/full")
def test_a_run_goes_on_where_its_log_cannot_be_written(shell):
    with started(shell, signal.SIGTERM, stderr=subprocess.PIPE) as process:
        said = process.communicate("\n", timeout=30)[1]
        assert process.returncode == 0 and said == ("" if "2>" in shell else "saved 15\n")


def test_a_handler_may_interrupt_whoever_prints(monkeypatch):
    class Printing:
        def write(self, text):
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name=1>")

    monkeypatch.setattr(sys, "stdout", Printing())
    output.say_in_handler("stopping")


def test_what_standard_output_cannot_show_is_written_as_escapes():
    code = "from sem_jax.system.output import say; say('caf\\xe9 \\udcff')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert done.stdout == b"caf\\xe9 \\udcff\n" and done.returncode == 0


@pytest.mark.parametrize("command", ["sem_jax --list", "sem_jax train --help", "sem_jax.main --help"])
def test_a_command_ends_quietly_when_its_reader_does(command):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_broken_pipe_of_somebody_else_is_an_error():
    with pytest.raises(BrokenPipeError), output.quiet_for_gone_readers():
        raise BrokenPipeError


def test_no_bar_is_drawn_where_there_is_no_standard_error():
    code = textwrap.dedent("""
        from sem_jax.system.progress import bar
        for _ in bar(range(3)): pass
    """)
    done = subprocess.run(f"{sys.executable} -c '{code}' 2>&-", shell=True, cwd=ROOT)
    assert done.returncode == 0
