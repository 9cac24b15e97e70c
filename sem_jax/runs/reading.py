"""Reads the files of a run folder, which may be a stranger's: regular files of a bounded size; no jax.

    values = read_json(Path("runs/digits/config.json"))
    content = read_bytes(Path("runs/digits/metrics.jsonl"), limit=METRICS_LIMIT)

Whatever the package reads of a run folder beside the arrays comes through `read_bytes`: a link that leads out of its
folder, a device, a pipe, a file too large is refused before a byte of it is read.
"""

import contextlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sem_jax
from sem_jax.errors import RunError

JSON_LIMIT = 16 << 20  # bytes of config.json, data.json, manifest.json ...
METRICS_LIMIT = 64 << 20  # bytes of metrics.jsonl: a hundred thousand epochs
MAX_DEPTH = 32  # of nested lists and objects
MAX_DIGITS = 100  # of a number


def read_bytes(path: Path, *, limit: int = JSON_LIMIT) -> bytes:
    """The contents of a file.

    Raises:
      FileNotFoundError: it is not there.
      RunError: it is no regular file, is a link that leads out of its folder, is larger than `limit` bytes, or cannot
        be read.
    """
    remedy = "Take the run's own file."
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve()):
            raise RunError(f"{path} is a link that leads out of its folder", "Copy the file itself there.")
        # Not blocking: a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise RunError(f"{path} is no regular file", remedy)
            if found.st_size > limit:
                raise RunError(f"{path} has {found.st_size} bytes, which no run writes", remedy)
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(limit)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:  # RuntimeError: pathlib's for links in a circle
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{path} cannot be read: {reason}", remedy) from None


def parse_json(content: bytes) -> Any:
    """Parses JSON that may be a stranger's.

    Raises:
      ValueError: it is not JSON, is nested more deeply than any run writes, or has a number of too many digits or a
        text that is no Unicode.
    """
    try:
        value = json.loads(content.decode("utf-8"), parse_int=_whole_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if re.search(rb"\\u[dD][89a-fA-F]", content):  # half a pair, which no file or page could be written with
        json.dumps(value, ensure_ascii=False).encode()
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        inner = (it.values() if isinstance(it, dict) else it for it in level)
        level = [it for items in inner for it in items if isinstance(it, dict | list)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"it has a number of {len(text)} digits")
    return int(text)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
      RunError: it is not there, is not JSON, or is not as a run writes it (`read_bytes`, `parse_json`).
    """
    try:
        return parse_json(read_bytes(path))
    except FileNotFoundError:
        raise RunError(f"{path} is missing: not the folder of a run") from None
    except ValueError as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path} is not valid JSON: {error}") from None


def require_run(workdir: str | Path, checkpoint: str | int = "final") -> None:
    """Refuses a run folder that is not there, before jax is imported to open it.

    Raises:
      RunError: `workdir` is no folder, and `checkpoint` names none either.
    """
    by_name = str(checkpoint) in ("final", "best_val") or str(checkpoint).isdigit()
    if by_name and "://" not in str(workdir) and not Path(workdir).expanduser().is_dir():
        raise RunError(f"{workdir} does not exist", "Give the folder of a run: --workdir=runs/NAME.")


def own_folder(path: Path) -> Path:
    """The path of a folder to write to inside a run folder; what a link leads to is not written to.

    Raises:
      RunError: it is a link.
    """
    if path.is_symlink():
        raise RunError(
            f"{path} is a link, through which nothing is written", "Remove it, or give another folder: --out=DIR."
        )
    return path


@contextlib.contextmanager
def without_current_folder() -> Iterator[None]:
    """Modules of the current folder cannot be imported meanwhile: it may be a stranger's run folder.

    It stays where it is the folder that this package itself is imported from, as in a checkout.
    """
    here = os.path.realpath(os.curdir)
    home = os.path.realpath(Path(sem_jax.__file__).parents[1])
    found = [] if here == home else [it for it in enumerate(sys.path) if os.path.realpath(it[1] or os.curdir) == here]
    for _, entry in found:
        sys.path.remove(entry)
    try:
        yield
    finally:
        for index, entry in found:
            sys.path.insert(index, entry)
