"""Reads the files of a run folder, which may be a stranger's: regular files of a bounded size; no jax.

    values = read_json(Path("runs/digits/config.json"))
    content = read_bytes(Path("runs/digits/metrics.jsonl"), limit=METRICS_LIMIT)

Whatever the package reads of a run folder beside the arrays comes through `read_bytes`: a link that leads out of its
folder is refused, and what `data.refusing.read_file` refuses.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sem_jax
from sem_jax.data.refusing import parse_json as parse_json
from sem_jax.data.refusing import read_file
from sem_jax.errors import DataError, RunError
from sem_jax.system.urls import is_url

JSON_LIMIT = 16 << 20  # bytes of config.json, data.json, manifest.json ...
METRICS_LIMIT = 64 << 20  # bytes of metrics.jsonl: a hundred thousand epochs


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
        path.stat()
        return read_file(path, limit, remedy)
    except FileNotFoundError:
        raise
    except DataError as error:
        raise RunError(*str(error).split("\n", 1)) from None
    except (OSError, RuntimeError) as error:  # RuntimeError: pathlib's for links in a circle
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{path} cannot be read: {reason}", remedy) from None


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
    """Refuses what is no run, before jax is imported to open it; an address is looked up later.

    Args:
      workdir: of a run.
      checkpoint: "final", "best_val", "ema" or a step of it, or a folder that is opened instead.

    Raises:
      RunError: `workdir` is no folder or holds no run, or there is no such checkpoint folder.
    """
    try:
        _require_run(workdir, str(checkpoint))
    except (OSError, RuntimeError) as error:  # RuntimeError: pathlib's for a home that is unknown
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{workdir or checkpoint} cannot be read: {reason}", "Give the folder of a run.") from error


def _require_run(workdir: str | Path, checkpoint: str) -> None:
    folder = Path(workdir).expanduser()
    if checkpoint not in ("final", "best_val", "ema") and not checkpoint.isdigit():
        if "://" not in checkpoint and not Path(checkpoint).expanduser().is_dir():
            remedy = "Give one of them, for example --checkpoint=runs/NAME/checkpoints/7800."
            found = f"checkpoint={checkpoint!r} is neither final, best_val, ema, a step nor an existing folder"
            raise RunError(found, remedy)
        return
    if str(workdir).startswith("hf://") or is_url(workdir):
        return
    remedy = "Give the folder of a run: --workdir=runs/NAME."
    if not folder.is_dir():
        raise RunError(f"{workdir} does not exist", remedy)
    if not any(it.name in ("config.json", "checkpoints", "model") or it.name.isdigit() for it in folder.iterdir()):
        raise RunError(f"{workdir} holds no run: there is no config.json in it", remedy)


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
