"""The manifest of a checkpoint folder: size and SHA-256 of every file, checked before any of them is used.

    write_manifest(folder, {"step": 390, ...})     # all files are flushed to the disk
    about = read_verified(folder)                  # raises Damaged("model/_METADATA: 763 bytes, expected 764")

manifest.json holds the format version, what the caller gives (step, metrics, configuration, versions ...), the size and
SHA-256 of every other file, and a digest of itself. It is written last: a checkpoint without it is not finished.
"""

import hashlib
import json
import os
from pathlib import Path

from sem_jax.errors import RunError

FORMAT = 1  # of a checkpoint folder; raise it when a checkpoint of the version before could be misread
NAME = "manifest.json"
LIMIT = 16 << 20  # bytes of it; a checkpoint may come from a stranger


class Damaged(Exception):
    """A checkpoint is not as it was written. The message is one line: the file and the reason."""


def write_manifest(folder: Path, about: dict) -> None:
    """Hashes and flushes every file of a complete folder, then writes and flushes its manifest.

    `about` is JSON, without the keys "format", "files" and "sha256".
    """
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    manifest = {"format": FORMAT, **about, "files": files}
    with open(folder / NAME, "w", encoding="utf-8") as file:
        json.dump(manifest | {"sha256": _digest(manifest)}, file, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    for path in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        flush_folder(path)


def read_manifest(folder: Path) -> dict:
    """The manifest of a folder, checked by its own digest; the other files are not read.

    Raises:
      Damaged: it is not there, or not as it was written.
      RunError: its format is newer than this version knows.
    """
    try:
        if (size := (folder / NAME).stat().st_size) > LIMIT:
            raise Damaged(f"{NAME} has {size} bytes, which no run writes")
        manifest = json.loads((folder / NAME).read_bytes())
    except FileNotFoundError:
        raise Damaged(f"no {NAME}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{NAME}: {error}") from None
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if type(version) is not int or not isinstance(manifest.get("files"), dict):
        raise Damaged(f"{NAME} is none")
    body = {name: value for name, value in manifest.items() if name != "sha256"}
    if manifest.get("sha256") != _digest(body):
        raise Damaged(f"{NAME}: contents changed")
    if version > FORMAT:
        raise RunError(
            f"{folder} has checkpoint format {version}, this version knows formats up to {FORMAT}",
            "Use a newer sem_jax: pip install --upgrade sem-jax",
        )
    return body


def read_verified(folder: Path) -> dict:
    """The manifest of a folder, after a check of every file in it.

    Raises:
      Damaged: names the first file that differs.
      RunError: as `read_manifest`.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        if ".." in Path(name).parts or Path(name).is_absolute() or not (folder / name).is_file():
            raise Damaged(f"{name}: no such file")
        try:
            with open(folder / name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != expected["bytes"]:
                    raise Damaged(f"{name}: {size} bytes, expected {expected['bytes']}")
                if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                    raise Damaged(f"{name}: contents changed")
        except OSError as error:
            raise Damaged(f"{name}: {error.strerror or error}") from None
    return manifest


def flush_folder(folder: Path) -> None:
    """Flushes a folder, so that files created or renamed in it survive a power failure; does nothing on Windows."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(body: dict) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode()).hexdigest()
