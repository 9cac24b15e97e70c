"""Public data sets by name: where they are looked for, and how they are read whatever layout they are in.

    CIFAR10 = PublicSet(name="cifar10", version="3.0.2", ...)      # facts of one set; see cifar.py
    load_public(CIFAR10, data_dir="~/sets", splits=("train", "test"))

Looked at in this order: `data_dir`, $TFDS_DATA_DIR, ~/tensorflow_datasets. Each may hold a directory prepared by
tensorflow-datasets or `python -m sem_jax prepare` (array_record or TFRecord), the official files unpacked, their
archive, or an image folder with train/ and test/. If none does, the set is downloaded and prepared in the first of the
three.
"""

import functools
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sem_jax.data import prepared
from sem_jax.data.decoded_cache import cached
from sem_jax.data.files import FolderFiles, is_archive
from sem_jax.errors import DataError
from sem_jax.interfaces import Split

log = logging.getLogger("sem_jax.data")


class Raw(NamedTuple):
    """One split as read from official files, before it is prepared."""

    images: np.ndarray  # u8[n h w 3]
    labels: np.ndarray  # i32[n]
    class_names: tuple[str, ...]
    encoded: tuple[bytes, ...] | None = None  # the image files' own bytes, where the source has such


class Loaded(NamedTuple):
    """What a loader gives to `sem_jax.data.load`; mean and std are None where they are computed from train."""

    splits: dict[str, Split]
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


class Remote(NamedTuple):
    """One official file."""

    url: str
    size: int  # bytes; 0 if not published
    digest: str  # "sha256:..." or "md5:..."

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class PublicSet:
    """Facts of one public data set."""

    name: str  # canonical name in tensorflow-datasets
    version: str
    description: str
    homepage: str
    num_classes: int
    class_names: tuple[str, ...]  # () where the files tell
    image_size: int
    sizes: Mapping[str, int]  # split -> images in the official set
    mean: tuple[float, ...]
    std: tuple[float, ...]
    remotes: tuple[Remote, ...]
    open_raw: Callable[["PublicSet", Path], Mapping[str, Callable[[], Raw]]]  # split -> reader, of those that are there
    markers: tuple[str, ...]  # a folder with one of these files is the unpacked official archive
    folders: tuple[str, ...] = ()  # top folder of the official archive
    refused: tuple[str, ...] = ()  # files or folders of the pickled version
    coarse: tuple[tuple[str, ...], tuple[int, ...]] | None = None  # superclass names; superclass of each class

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)


def places(data_dir: str | os.PathLike = "") -> list[Path]:
    """Folders in which public sets are looked for, first to last."""
    named = [str(data_dir), os.environ.get("TFDS_DATA_DIR", ""), "~/tensorflow_datasets"]
    return list(dict.fromkeys(Path(p).expanduser() for p in named if p))


def find_raw(spec: PublicSet, place: Path) -> Path | None:
    """The official files, their archive or an image folder at or below `place`; None if there is nothing of the kind.

    Raises:
      DataError: only the pickled version of the archive is there.
    """
    if place.is_file():
        _refuse(spec, place)
        if is_archive(place):
            return place
        raise DataError(f"{place} is no archive that can hold {spec.name}", "Give a folder, a .zip or a .tar.gz.")
    bases = [place, place / spec.name]
    for base in bases:
        for folder in (base, *(base / name for name in spec.folders)):
            if any((folder / marker).is_file() for marker in spec.markers) or _has_splits(folder):
                return folder
        archives = [base / remote.file for remote in spec.remotes]
        for archive in archives:
            if is_archive(archive):
                return archive
    for base in bases:
        for name in spec.refused:
            if (base / name).exists():
                _refuse(spec, base / name)
    return None


def missing(spec: PublicSet, looked_at: Sequence[Path], reason: str = "") -> DataError:
    """The error for a set that is nowhere: where it was looked for and what to run."""
    where = ", ".join(str(p) for p in looked_at)
    files = " and ".join(remote.file for remote in spec.remotes)
    option = "--archive FILE" if len(spec.remotes) == 1 else "--folder DIR"
    return DataError(
        f"no data set {spec.name!r} in {where}{'; ' + reason if reason else ''}",
        f"Run, with a network: python -m sem_jax prepare {spec.name}\n"
        f"Or, with {files} at hand: python -m sem_jax prepare {spec.name} {option}",
    )


def load_public(
    spec: PublicSet,
    *,
    data_dir: str = "",
    splits: Sequence[str] = ("train", "test"),
    cache: bool = True,
    prepare: bool = True,
    stream: bool = False,
) -> Loaded:
    """Reads the named splits from wherever the set is; downloads and prepares it if it is nowhere and `prepare`.

    With `stream` the images stay in their array_record files.

    Raises:
      DataError: nothing found (and nothing to be had), or what was found is damaged or lacks a split.
    """
    looked_at = places(data_dir)
    directory, raw = _locate(spec, looked_at)
    if directory is None and raw is None:
        if not prepare:
            raise missing(spec, looked_at)
        from sem_jax.data.preparing import prepare as prepare_now  # only here: it imports this module

        directory = prepare_now(spec, data_dir=data_dir, say=lambda line: print(line, file=sys.stderr, flush=True))
    out, names = {}, None
    opened = functools.cache(lambda: spec.open_raw(spec, raw))
    about = identity(directory or raw) if cache else []
    if stream and directory is None:
        message = f"{raw} is no directory prepared as array_record, which streaming needs"
        raise DataError(message, f"Prepare it: python -m sem_jax prepare {spec.name} --archive {raw}")
    for split in splits:
        if stream:
            path, cache = directory, False
            read = functools.partial(prepared.stream_split, directory, split)
        elif directory is not None:
            path, read = directory, functools.partial(prepared.read_split, directory, split, spec.shape)
        else:
            path, read = raw, functools.partial(_read_raw, spec, raw, opened, split)
        log.info("reading %s %s from %s", spec.name, split, path)
        if cache:
            out[split], found = cached(f"{spec.name}-{split}", about, read)
        else:
            out[split], found = read()
        if names not in (None, found):
            message = f"{path}: classes of {split} differ from those of {splits[0]}"
            raise DataError(message, f"Prepare the data again: python -m sem_jax prepare {spec.name} --force")
        names = found
    found = {split: len(value.labels) for split, value in out.items()}
    official = {split: spec.sizes[split] for split in out}
    if found != official or len(names) != spec.num_classes:
        line = "%s is a part of %s, or another set: %s images and %d classes, officially %s and %d"
        log.warning(line, path, spec.name, found, len(names), official, spec.num_classes)
    return Loaded(out, names, spec.mean, spec.std)


def identity(path: Path, *options) -> list:
    """What a cached reading of `path` depends on: its place and the options; then its files' names, sizes and times."""
    about = [str(path.resolve()), *options]
    if path.is_dir():
        return [about, *FolderFiles(path).identity()[1:]]
    status = path.stat()
    return [about, [status.st_size, status.st_mtime_ns]]


def _locate(spec: PublicSet, looked_at: Sequence[Path]) -> tuple[Path | None, Path | None]:
    for place in looked_at:
        try:
            if (directory := prepared.find(place, spec.name, spec.version)) is not None:
                return directory, None
            if place.exists() and (raw := find_raw(spec, place)) is not None:
                return None, raw
        except OSError as error:  # above all: no permission
            raise DataError(f"cannot look into {place}: {error.strerror}", "Give another data.dir.") from error
    return None, None


def _read_raw(spec, path, opened, split: str) -> tuple[Split, tuple[str, ...]]:
    readers = opened()
    if split not in readers:
        has = ", ".join(readers)
        raise DataError(f"{path} has no {split!r} split of {spec.name} (it has: {has})", "Add its official file.")
    raw = readers[split]()
    return Split(raw.images, raw.labels), raw.class_names


def _has_splits(folder: Path) -> bool:
    return (folder / "train").is_dir() and any((folder / name).is_dir() for name in ("test", "val"))


def _refuse(spec: PublicSet, path: Path) -> None:
    if path.name in spec.refused:
        raise DataError(
            f"{path} is the pickled (Python) version of {spec.name}; pickles can run code and are never loaded",
            f"Take the binary version: {spec.remotes[0].url}, or run python -m sem_jax prepare {spec.name}",
        )
