"""JAX's persistent compilation cache: a later run does not compile again what an earlier one compiled.

    use_cache()             # $SEM_JAX_CACHE/compiled, by default ~/.cache/sem_jax/compiled
    use_cache("none")       # off

Call it before the first compilation. JAX writes an entry in place, so a killed run can leave half a file, of which JAX
would warn in every later run without replacing it. So the entries written since the last check are read here, and
damaged ones deleted.
"""

import logging
import warnings
import zlib
from pathlib import Path

import jax

from sem_jax.data.decoded_cache import cache_dir

LIMIT = 4 << 30  # bytes; the oldest entries beyond it are deleted
_ZSTD = b"\x28\xb5\x2f\xfd"  # how entries start where zstandard is installed; others are zlib's
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
    # The user need not know: JAX compiles again what it cannot read.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    return path


def _tidy(folder: Path) -> None:
    """Deletes damaged entries among those written since the last check, and the oldest ones beyond LIMIT."""
    marker = folder / ".checked"
    since = marker.stat().st_mtime if marker.exists() else 0.0
    marker.touch()
    entries = sorted(((p.stat(), p) for p in folder.glob("*-cache")), key=lambda e: e[0].st_mtime, reverse=True)
    total = 0
    for status, path in entries:
        total += status.st_size
        # From a minute before the last check: another run may have been writing an entry then.
        if total > LIMIT or (status.st_mtime >= since - 60 and not _sound(path)):
            path.unlink(missing_ok=True)


def _sound(path: Path) -> bool:
    """Whether an entry can be decompressed; True for zstandard's, for which Python has no decoder."""
    data = path.read_bytes()
    if data.startswith(_ZSTD):
        return True
    try:
        zlib.decompress(data)
    except zlib.error:
        return False
    return True
