"""Errors of other libraries, and of readers that know only a file, as complete DataErrors."""

import contextlib

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
def remedied(remedy: str):
    """Gives the DataErrors inside this remedy, except those that data.image_size mends."""
    try:
        yield
    except DataError as error:
        message, _, known = str(error).partition("\n")
        raise DataError(message, known if "data.image_size" in known else remedy) from error
