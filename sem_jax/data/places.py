"""Finds public data sets in `data_dir`, $TFDS_DATA_DIR or ~/tensorflow_datasets, in this order.

Each may hold a directory prepared by tensorflow-datasets or `python -m sem_jax prepare`, the official files, their
archive, or an image folder with train/ and test/. Those in a bucket are copied to this machine (`bucket_data`).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sem_jax.data import tfds_folder
from sem_jax.data.bucket_data import bring, here
from sem_jax.data.facts import PublicSet
from sem_jax.data.files import is_archive
from sem_jax.errors import DataError
from sem_jax.system.urls import is_url


class Found(NamedTuple):
    path: Path
    prepared: bool  # a prepared directory; else official files, an archive or an image folder


def places(data_dir: str | os.PathLike = "") -> list[Path]:
    """Folders to look for public sets in, first to last; of one in a bucket, that of its copy here.

    Raises:
      ConfigError: an address of another kind.
    """
    return list(dict.fromkeys(map(here, named(data_dir))))


def named(data_dir: str | os.PathLike = "") -> list[str]:
    """The places of `places`, as they are written: paths and addresses."""
    every = [str(data_dir), os.environ.get("TFDS_DATA_DIR", ""), "~/tensorflow_datasets"]
    return [place for place in every if place]


def bring_set(spec: PublicSet, data_dir: str | os.PathLike = "") -> None:
    """Copies a set from the first bucket that has it, unless a folder before it does.

    Raises:
      SemError: as `bucket_data.bring`, and as `locate`.
    """
    for place in named(data_dir):
        if is_url(place):
            bring(spec, place)
        if locate(spec, [here(place)]):
            return


def locate(spec: PublicSet, looked_at: Sequence[Path]) -> Found | None:
    """The set in the first folder that has it, or None.

    Raises:
      DataError: a folder cannot be read, or holds the pickled version or another set.
    """
    for place in looked_at:
        try:
            if (directory := tfds_folder.find(place, spec.name, spec.version)) is not None:
                return Found(directory, prepared=True)
            if place.exists() and (raw := find_raw(spec, place)) is not None:
                return Found(raw, prepared=False)
        except OSError as error:  # such as no permission
            raise DataError(f"cannot look into {place}: {error.strerror}", "Give another data.dir.") from error
    return None


def find_raw(spec: PublicSet, place: Path) -> Path | None:
    """The official files, their archive or an image folder at or below `place`, or None.

    Raises:
      DataError: only the pickled version is there, or `place` is another file.
    """
    if place.is_file():
        if place.name in spec.refused:
            raise pickled(spec, place)
        if is_archive(place):
            return place
        raise DataError(f"{place} is no archive that can hold {spec.name}", "Give a folder, a .zip or a .tar.gz.")
    bases = [place, place / spec.name]
    for base in bases:
        for folder in (base, *(base / name for name in spec.folders)):
            has_splits = (folder / "train").is_dir() and any((folder / name).is_dir() for name in ("test", "val"))
            if has_splits or any((folder / marker).is_file() for marker in spec.markers):
                return folder
        for remote in spec.remotes:
            if is_archive(base / remote.file):
                return base / remote.file
    for path in (base / name for base in bases for name in spec.refused):
        if path.exists():
            raise pickled(spec, path)
    return None


def missing(spec: PublicSet, looked_at: Sequence[Path], reason: str = "") -> DataError:
    """The error for a set that was not found: the folders looked into and the command to run."""
    where = ", ".join(map(str, looked_at))
    files = " and ".join(remote.file for remote in spec.remotes)
    option = "--archive FILE" if len(spec.remotes) == 1 else "--folder DIR"
    return DataError(
        f"no data set {spec.name!r} in {where}{'; ' + reason if reason else ''}",
        f"Run, with a network: python -m sem_jax prepare {spec.name}\n"
        f"Or, with {files} at hand: python -m sem_jax prepare {spec.name} {option}",
    )


def pickled(spec: PublicSet, path: Path) -> DataError:
    """The error for the pickled version of a set."""
    return DataError(
        f"{path} is the pickled (Python) version of {spec.name}; pickles can run code and are never loaded",
        f"Take the binary version: {spec.remotes[0].url}, or run python -m sem_jax prepare {spec.name}",
    )
