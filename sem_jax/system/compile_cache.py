"""JAX's persistent compilation cache: a later run does not compile again what an earlier one compiled.

    use_cache()             # $SEM_JAX_CACHE/compiled, by default ~/.cache/sem_jax/compiled
    use_cache("none")       # off

Call it before the first compilation. JAX writes an entry in place, so a killed run can leave half a file, of which JAX
would warn in every later run without replacing it. So an entry that cannot be read is deleted, and JAX writes it anew.
"""

import contextlib
import logging
import warnings
from pathlib import Path

import jax

from sem_jax.data.decoded_cache import cache_dir

LIMIT = 4 << 30  # bytes; the oldest entries beyond it are deleted
log = logging.getLogger("sem_jax")


def use_cache(folder: str = "") -> Path | None:
    """Switches the cache on for this process.

    Args:
      folder: "" = a folder in the user's cache directory, "none" = no cache.

    Returns:
      The folder; None when the cache is off. A folder that cannot be written to switches it off with a warning.
    """
    path = None
    if folder.lower() != "none":
        path = Path(folder).expanduser() if folder else cache_dir() / "compiled"
        try:
            path.mkdir(parents=True, exist_ok=True)
            _tidy(path)
        except OSError as error:
            log.warning("compiled programs are not kept: cannot write %s (%s)", path, error.strerror)
            path = None
    jax.config.update("jax_compilation_cache_dir", path and str(path))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    _replace_damaged()
    # The user need not know: JAX compiles again what it cannot read.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    return path


def _tidy(folder: Path) -> None:
    """Deletes the oldest entries beyond LIMIT."""
    entries = sorted(((p.stat(), p) for p in folder.glob("*-cache")), key=lambda e: e[0].st_mtime, reverse=True)
    total = 0
    for status, path in entries:
        total += status.st_size
        if total > LIMIT:
            path.unlink(missing_ok=True)


def _replace_damaged() -> None:
    """Makes JAX delete an entry that it cannot read. Its own `put` leaves alone what is there, damaged or not.

    JAX offers no such hook, so this wraps a private function of it; a version that has no such function compiles the
    damaged program in every run, as it would without us.
    """
    try:
        from jax._src import compilation_cache

        read = compilation_cache.get_executable_and_time
    except (ImportError, AttributeError):
        return
    if read.__module__ == __name__:  # done before
        return

    def reading(key: str, *arguments, **options):
        try:
            return read(key, *arguments, **options)
        except Exception:
            folder = jax.config.values["jax_compilation_cache_dir"]
            with contextlib.suppress(OSError, TypeError):
                Path(folder, f"{key}-cache").unlink()
            raise

    compilation_cache.get_executable_and_time = reading
