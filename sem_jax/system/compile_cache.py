"""JAX's persistent compilation cache: a program compiled once is not compiled again by the next run.

    use_cache("")           # $SEM_JAX_CACHE/compiled, by default ~/.cache/sem_jax/compiled
    use_cache("none")       # off

Called before the first compilation. JAX writes an entry in place, so a run killed at that moment leaves half a file,
which JAX would warn about in every later run and never replace: entries that are new since the last look are checked
here, and damaged ones deleted.
"""

import logging
import warnings
import zlib
from pathlib import Path

import jax

from sem_jax.data.decoded_cache import cache_dir

LIMIT = 4 << 30  # bytes; the oldest entries beyond it are deleted
_ZSTD = b"\x28\xb5\x2f\xfd"  # how a zstandard stream begins: JAX takes it where the package is installed, else zlib
log = logging.getLogger("sem_jax")


def use_cache(folder: str = "") -> Path | None:
    """Switches the cache on for this process.

    Args:
      folder: where compiled programs are kept; "" is below the user's cache directory, "none" switches the cache off.

    Returns:
      The folder; None when off, or when it cannot be written, which costs a warning and nothing else.
    """
    if folder.lower() == "none":
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    path = Path(folder).expanduser() if folder else cache_dir() / "compiled"
    try:
        path.mkdir(parents=True, exist_ok=True)
        _tidy(path)
    except OSError as error:
        log.warning("compiled programs are not kept: cannot write %s (%s)", path, error.strerror)
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    # What is left that JAX cannot read is compiled again: no news for the user.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    return path


def _tidy(folder: Path) -> None:
    """Deletes damaged entries among those changed since the last time, and the oldest ones beyond LIMIT."""
    marker = folder / ".checked"
    since = marker.stat().st_mtime if marker.exists() else 0.0
    marker.touch()
    entries = sorted(((p.stat(), p) for p in folder.glob("*-cache")), key=lambda e: e[0].st_mtime, reverse=True)
    total = 0
    for status, path in entries:
        total += status.st_size
        # Another run may be writing a file this minute; it is looked at the next time.
        if total > LIMIT or (status.st_mtime >= since - 60 and not _sound(path)):
            path.unlink(missing_ok=True)


def _sound(path: Path) -> bool:
    data = path.read_bytes()
    if data.startswith(_ZSTD):
        return True  # it has a frame of its own, which JAX checks; there is no decoder in Python's library
    try:
        zlib.decompress(data)
    except zlib.error:
        return False
    return True
