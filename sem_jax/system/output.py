"""Writes to standard output what nobody has to read: a run does not end because its reader has gone.

say("epoch 3/10  loss 0.4512")           # above the bars; lost where it cannot be written
with quiet_for_gone_readers(): ...       # a command whose output goes to `| head`
"""

import contextlib
import os
import select
import sys
from collections.abc import Iterator


def say(text: str) -> None:
    """Writes a line above the progress bars, at once, also to a file or a pipe.

    Where it cannot be written (the reader of a pipe has ended, the log's disk is full, there is no standard output), it
    is lost, and so is what is said later.
    """
    from tqdm import tqdm  # not at the top: `sem-jax --help` needs none

    if sys.stdout is None:  # of `>&-`
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def say_in_handler(text: str) -> None:
    """Prints a line from a signal's handler, which may have interrupted somebody who is printing."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # RuntimeError: a reentrant call
        print(text, flush=True)


@contextlib.contextmanager
def quiet_for_gone_readers() -> Iterator[None]:
    """Ends the block without an error when standard output has lost its reader, as of `| head`."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_gone():  # another pipe or socket is broken
            raise
    finally:
        if sys.stdout is not None and _reader_has_gone():  # what still waits for it goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # Windows has no poll; a notebook's output, or none
        return False
