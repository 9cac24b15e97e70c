"""Reads small files that may be a stranger's, within bounds; errors of libraries and the system become DataErrors.

values = parse_json(read_file(folder / "info.json", 16 << 20))
with refusing("cannot read a.tfrecord", "Prepare the set again."): ...
"""

import contextlib
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from sem_jax.errors import DataError, one_line

MAX_DEPTH = 32  # of nested lists and objects of JSON
MAX_DIGITS = 100  # of a number
MAX_VALUES = 1 << 21  # lists, objects and values in them: each takes much more memory than bytes of the file


@contextlib.contextmanager
def refusing(message: str, remedy: str = ""):
    """Turns any other error inside into a DataError "message: reason". Libraries raise many kinds on damaged bytes."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) else ""
        raise DataError(f"{message}: {reason or one_line(error)}", remedy) from error


@contextlib.contextmanager
def reading_path(path: str | os.PathLike):
    """Turns what the system raises for any path (a loop of links, a name too long, no such user) into a DataError."""
    if "\0" in str(path):
        raise DataError(f"{path} cannot be read: a path has no null character", "Give another folder or file.")
    try:
        yield
    except MemoryError as error:
        raise DataError(f"{path} needs more memory than there is", "Use fewer or smaller images.") from error
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{path} cannot be read: {reason}", "Give another folder or file.") from error


@contextlib.contextmanager
def remedied(remedy: str):
    """Gives the DataErrors inside this remedy, except those that data.image_size mends."""
    try:
        yield
    except DataError as error:
        message, _, known = str(error).partition("\n")
        raise DataError(message, known if "data.image_size" in known else remedy) from error


def regular(path: Path, limit: int, remedy: str = "Put the file back, or remove it.") -> int:
    """Size of a file in bytes, at most `limit`. Nothing is opened.

    Raises:
      DataError: the file is missing or larger, a link to nothing, a folder, or a device or pipe, whose reading would
        never end.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        if os.path.islink(path):
            raise DataError(f"{path} is a link to {os.readlink(path)}, which cannot be read", remedy) from error
        with refusing(f"cannot read {path}", remedy):
            raise
    return _regular(status, path, limit, remedy)


def _regular(status: os.stat_result, path: Path, limit: int, remedy: str) -> int:
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "device or a pipe"
        raise DataError(f"{path} is a {kind}, not a file", remedy)
    if status.st_size > limit:
        raise DataError(f"{path} has {status.st_size} bytes, expected at most {limit}", remedy)
    return status.st_size


def read_file(path: Path, limit: int, remedy: str = "Put the file back, or make it readable.") -> bytes:
    """Content of a file that `regular` accepts, before it is opened and after."""
    regular(path, limit, remedy)
    with refusing(f"cannot read {path}", remedy):
        # Not blocking: what has become a pipe meanwhile would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            _regular(os.fstat(descriptor), path, limit, remedy)
            return file.read(limit)


def parse_json(content: bytes) -> Any:
    """Parses JSON that may be a stranger's.

    Raises:
      ValueError: it is not JSON, is nested too deeply, or has too many values, a number of too many digits or one that
        is not finite (NaN, 1e999), or a text that is no Unicode.
    """
    if sum(map(content.count, (b"[", b"{", b","))) > MAX_VALUES:
        raise ValueError("it has too many values")
    try:
        text = content.decode("utf-8")
        value = json.loads(text, parse_int=_whole_number, parse_float=_finite, parse_constant=_finite)
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


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"it has the number {text:.20}, which is not finite")
    return value


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"it has a number of {len(text)} digits")
    return int(text)
