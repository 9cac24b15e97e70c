"""Errors of other libraries, of the file system, and of readers that know only a file, as complete DataErrors."""

import contextlib
import os
import stat
from pathlib import Path

from sem_jax.errors import DataError, one_line


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
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "device or a pipe"
        raise DataError(f"{path} is a {kind}, not a file", remedy)
    if status.st_size > limit:
        raise DataError(f"{path} has {status.st_size} bytes, expected at most {limit}", remedy)
    return status.st_size


def read_file(path: Path, limit: int, remedy: str = "Put the file back, or make it readable.") -> bytes:
    """Content of a file that `regular` accepts."""
    regular(path, limit, remedy)
    with refusing(f"cannot read {path}", remedy), open(path, "rb") as file:
        return file.read(limit)
