"""The manifest of a checkpoint folder: size and SHA-256 of every file, checked before any of them is used.

    write_manifest(folder, {"step": 390, ...})     # all files are flushed to the disk
    about = read_verified(folder)                  # raises Damaged("model/_METADATA: 763 bytes, expected 764")
    check_identity(folder, about, seed=0)          # raises Damaged("it is the checkpoint of step 390")

manifest.json holds the format version, what the caller gives (step, metrics, configuration, versions ...), the size and
SHA-256 of every other file, and a digest of itself. It is written last: a checkpoint without it is not finished.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sem_jax.config import RENAMED, flatten, get_default
from sem_jax.errors import RunError
from sem_jax.runs.reading import parse_json, read_bytes

FORMAT = 1  # of a checkpoint folder; raise it when a checkpoint of the version before could be misread
NAME = "manifest.json"
MAX_STEP = 1 << 31  # steps are counted in int32
IDENTITY = ("seed", "data", "config", "lengths")  # what `check_identity` compares
# What the run of a checkpoint may have changed: places, what is kept, and the switch of a run that branches off.
_MAY_DIFFER = ("runtime.", "data.dir", "mixer.scorer", "mixer.stop_epoch")
_MAY_DIFFER += ("train.keep", "train.checkpoint_every", "train.eval_every")
_NO_DAMAGE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}


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
      RunError: its format is newer than this version knows, or it cannot be read at present.
    """
    try:
        manifest = parse_json(read_bytes(folder / NAME))
    except FileNotFoundError:
        raise Damaged(f"no {NAME}") from None
    except ValueError as error:  # RunError too
        _check_readable(folder, error)
        raise Damaged(f"{NAME}: {str(error).splitlines()[0]}") from None
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if type(version) is not int or not isinstance(manifest.get("files"), dict):
        raise Damaged(f"{NAME} is none")
    body = {name: value for name, value in manifest.items() if name != "sha256"}
    if manifest.get("sha256") != _digest(body):
        raise Damaged(f"{NAME}: contents changed")
    if version > FORMAT:
        raise RunError(
            f"{folder} has checkpoint format {version}, this version knows formats up to {FORMAT}",
            "Use a newer version of sem_jax: in a checkout, git pull.",
        )
    for name, (kind, inner) in _KINDS.items():
        value: Any = body.get(name)
        if type(value) is not kind or (inner and not all(type(it) in inner for it in value.values())):
            raise Damaged(f"{NAME}: {name} is {value!r:.60}, which no run writes")
    if not 0 <= body["step"] < MAX_STEP:
        raise Damaged(f"{NAME}: step is {body['step']}, which no run reaches")
    for name, expected in body["files"].items():
        size, digest = expected.get("bytes"), expected.get("sha256")
        if type(size) is not int or size < 0 or type(digest) is not str:
            raise Damaged(f"{NAME}: {name!r:.60} has no size and SHA-256")
    return body


_KINDS = {  # of a manifest: type, and types of the values in it
    "step": (int, ()),
    "progress": (dict, ()),
    "metrics": (dict, (int, float)),
    "arrays": (dict, (str,)),
    "files": (dict, (dict,)),
}


def check_identity(
    folder: Path,
    manifest: dict,
    *,
    seed: int | None = None,
    data: str | None = None,
    config: Mapping | None = None,
    lengths: Sequence[int] = (),
) -> None:
    """Compares a checkpoint with its folder's name and with the run; None and what the manifest lacks are left out.

    Args:
      folder: of the checkpoint. A name that is no number is not compared.
      manifest: from `read_manifest`.
      seed, data, config: of the run; `data` is a fingerprint, `config` nested as in config.json, of any version.
      lengths: other values of train.epochs that the run had before (`extension`).

    Raises:
      Damaged: it is another step's or another run's checkpoint.
    """
    if folder.name.isdecimal() and int(folder.name) != manifest["step"]:
        raise Damaged(f"it is the checkpoint of step {manifest['step']}")
    for name, here in (("seed", seed), ("data", data)):
        there = manifest.get(name)
        if None not in (there, here) and there != here:
            raise Damaged(f"it is of another run: {name} {there!s:.12} there, {here!s:.12} in this run")
    if config is not None and isinstance(manifest.get("config"), dict):
        there, here = _settings(manifest["config"]), _settings(config)
        if there.get("train.epochs") in lengths:
            here["train.epochs"] = there["train.epochs"]
        if names := sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name)):
            name = names[0]
            found = f"{name} {there.get(name)!r:.40} there, {here.get(name)!r:.40} in this run"
            raise Damaged(f"it is of another run: {found}")


def _settings(values: Any) -> dict[str, Any]:
    """Settings by name, today's names and defaults, of a configuration of any version; without what may differ."""
    flat = dict(flatten(get_default())) | {RENAMED.get(name, name): value for name, value in flatten(values)}
    flat = {name: RENAMED.get(f"{name}={value}", value) for name, value in flat.items()}
    flat = {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}
    return {name: value for name, value in flat.items() if not name.startswith(_MAY_DIFFER)}


def read_verified(folder: Path, *, optional: str = "") -> dict:
    """The manifest of a folder, after a check of every file in it.

    Args:
      optional: a subfolder that may be missing as a whole.

    Raises:
      Damaged: names the first file that differs, or that orbax would read although the manifest does not know it.
      RunError: as `read_manifest`; so with the other files.
    """
    manifest = read_manifest(folder)
    try:
        for path in folder.rglob("*"):
            name, mode = path.relative_to(folder).as_posix(), path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise Damaged(f"{name}: a link, pipe or device")
            unknown = stat.S_ISREG(mode) and name not in manifest["files"] and not path.name.startswith(".")
            if unknown and ("/" in name or name.startswith("_CHECKPOINT")):
                raise Damaged(f"{name}: not in {NAME}")
        absent = f"{optional}/" if optional and not os.path.lexists(folder / optional) else "\0"
        for name, expected in manifest["files"].items():
            if not name.startswith(absent):
                _check_file(folder, name, expected)
    except OSError as error:
        _check_readable(folder, error)
        name = os.path.relpath(error.filename, folder) if error.filename else NAME
        raise Damaged(f"{name}: {error.strerror or error}") from None
    return manifest


def _check_file(folder: Path, name: str, expected: dict) -> None:
    """Compares a file with what the manifest says of it."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise Damaged(f"{name}: no such file")
    try:
        regular = stat.S_ISREG(os.stat(folder / name).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        regular = False
    if not regular:
        raise Damaged(f"{name}: no such file")
    with open(folder / name, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected["bytes"]:
            raise Damaged(f"{name}: {size} bytes, expected {expected['bytes']}")
        if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
            raise Damaged(f"{name}: contents changed")


def _check_readable(folder: Path, error: BaseException | None) -> None:
    """Raises a RunError if an error comes from what says nothing of the files: rights, open files, memory, a server."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    if error is not None and error.errno in _NO_DAMAGE:
        raise RunError(
            f"Checkpoint {folder} cannot be read: {error.strerror} ({error.filename or folder}).",
            "It may well be undamaged, and was left alone. Mend that, then start the same command again.",
        ) from error


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
