"""Data sets in a bucket: copied once to this machine, and read from there.

    bring(DATASETS["arrays"], "gs://my-data/photos")        # what the set needs, into the folder of the next line
    folder = here("gs://my-data/photos")                    # $SEM_JAX_CACHE/buckets/my-data/photos
    push("gs://my-data/tensorflow_datasets", "cifar10/3.0.2")

A copy has the bucket's paths. A file is fetched in pieces and goes on where a killed process ended; it gets its name
when its MD5 is the bucket's. At the next start only the list of the bucket is read: what has changed there is fetched
again, and what is gone there is deleted here. Larger sets are refused with the line that mounts their bucket.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sem_jax.data.decoded_cache import cache_dir
from sem_jax.data.facts import PublicSet, Source
from sem_jax.data.refusing import parse_json, read_file
from sem_jax.errors import DataError
from sem_jax.system.progress import bar
from sem_jax.system.urls import is_url, split_url

if TYPE_CHECKING:
    from sem_jax.system.bucket import Bucket, Stat

LIMIT = 20 * 10**9  # bytes of a data set that is copied
SPARE = 10**9  # bytes of the disk that stay free
INDEX_LIMIT = 64 << 20
PREPARED = "dataset_info.json"


def here(place: str | Path) -> Path:
    """The path on this machine of a local path or an address, whether or not it has been brought.

    >>> here("photos")
    PosixPath('photos')
    """
    if not is_url(str(place)):
        return Path(place).expanduser()
    bucket, folder = split_url(str(place))
    return cache_dir() / "buckets" / bucket / folder


def bring(source: Source | PublicSet, url: str) -> None:
    """Copies what a data set needs, and nothing else that lies in the same folder.

    Args:
      source: a row of `DATASETS`.
      url: of the folder or archive of the user's own set; for a public set, of the folder that has its prepared folder
        NAME/VERSION or its official files.

    Raises:
      DataError: nothing of the set is there, it is too large, or the disk is full.
      SemError: the bucket cannot be read.
    """
    from sem_jax.system.bucket import Bucket

    name, folder = split_url(url)
    bucket = Bucket(f"gs://{name}")
    if folder and (stat := bucket.stat(folder)):  # an archive
        return _copy(bucket, url, {folder: stat})
    top = f"{folder}/" if folder else ""
    public = isinstance(source, PublicSet)
    if public and (listed := bucket.list(f"{top}{source.name}/")):
        return _copy(bucket, url, listed, f"{top}{source.name}/", listed)
    listed = bucket.list(top)
    wanted = _of_set(source, top, listed) if public else listed
    if not wanted and not public:
        raise DataError(f"{url} has no files", "Give the URL of the folder, or of the archive.")
    _copy(bucket, url, wanted, top, listed)


def bring_file(place: str) -> Path:
    """The path on this machine of a file, which is copied if it is in a bucket.

    >>> bring_file("weights.safetensors")
    PosixPath('weights.safetensors')

    Raises:
      DataError: it is not in the bucket, or too large.
      SemError: the bucket cannot be read.
    """
    if is_url(place):
        from sem_jax.system.bucket import Bucket

        name, file = split_url(place)
        bucket = Bucket(f"gs://{name}")
        if not file or (stat := bucket.stat(file)) is None:
            raise DataError(f"There is no file {place}", "Give gs://BUCKET/FOLDER/FILE.")
        _copy(bucket, place, {file: stat})
    return here(place)


def _of_set(spec: PublicSet, top: str, listed: "dict[str, Stat]") -> "dict[str, Stat]":
    """The files of a public set that lies in the folder itself, beside others perhaps."""
    firsts = {name.removeprefix(top).split("/")[0] for name in listed}
    if PREPARED in firsts or "train" in firsts:
        return listed
    wanted = {*(remote.file for remote in spec.remotes), *spec.folders, *spec.markers}
    return {name: stat for name, stat in listed.items() if name.removeprefix(top).split("/")[0] in wanted}


def _copy(bucket: "Bucket", url: str, wanted: "dict[str, Stat]", top: str = "", listed: "dict | None" = None) -> None:
    """Makes the wanted files those of the bucket; deletes those below `top` that are not in `listed`."""
    root = here(bucket.url)
    if (size := sum(stat.size for stat in wanted.values())) > LIMIT:
        remedy = f"Mount it read-only: gcsfuse -o ro --implicit-dirs {root.name} MOUNT, and give MOUNT/{top}"
        raise DataError(f"{url} has {size / 1e9:,.1f} GB, at most {LIMIT / 1e9:.0f} GB are copied", remedy)
    with _alone(root) as index:
        missing = {
            name: stat for name, stat in wanted.items() if index.get(name) != [stat.generation, *_stamp(root / name)]
        }
        needed, free = sum(stat.size for stat in missing.values()), shutil.disk_usage(root).free
        if needed > free - SPARE:
            message = f"{url} needs {needed / 1e9:,.1f} GB in {root}, where {free / 1e9:,.1f} GB are free"
            raise DataError(message, "Set SEM_JAX_CACHE to a larger disk, or mount the bucket read-only.")
        if listed is not None:
            for path in (root / top).rglob("*"):
                gone = path.relative_to(root).as_posix() not in listed and not path.name.startswith(".")
                if path.is_symlink() or (gone and path.is_file()):
                    path.unlink()
        if missing:
            _fetch(bucket, root, missing, index, f"copying {url}")


def _fetch(bucket: "Bucket", root: Path, missing: "dict[str, Stat]", index: dict, title: str) -> None:
    from sem_jax.system.bucket import parallel

    total = sum(stat.size for stat in missing.values())
    with bar(total=total, desc=title, unit="B", unit_scale=True, leave=False) as shown:

        def fetch(name: str) -> None:
            stat = missing[name]
            try:
                bucket.download(name, root / name, generation=stat.generation)
            except FileNotFoundError:
                raise DataError(f"{bucket.url}/{name} was replaced while it was copied", "Start again.") from None
            index[name] = [stat.generation, *_stamp(root / name)]
            shown.update(stat.size)

        parallel(fetch, missing)


def _stamp(path: Path) -> list[int]:
    """Size and time of change of a file; [] where there is none."""
    with contextlib.suppress(OSError):
        if not path.is_symlink():
            status = path.stat()
            return [status.st_size, status.st_mtime_ns]
    return []


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[dict[str, list[int]]]:
    """What is known of the files of a bucket's copy, for one process at a time; kept at the end of the block."""
    root.mkdir(parents=True, exist_ok=True)
    with root.with_name(f".{root.name}.lock").open("w") as lock:
        with contextlib.suppress(ImportError):  # Windows
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        path, index = root.with_name(f".{root.name}.json"), {}
        with contextlib.suppress(OSError, ValueError):  # then every file is compared with its MD5
            found = parse_json(read_file(path, INDEX_LIMIT))
            index = found if isinstance(found, dict) else {}
        try:
            yield index
        finally:
            temporary = path.with_name(f"{path.name}.new")
            temporary.write_text(json.dumps(index))
            temporary.replace(path)


def push(url: str, folder: str) -> None:
    """Uploads the files of a folder below `here(url)`, dataset_info.json last."""
    from sem_jax.system.bucket import Bucket, parallel

    bucket, root = Bucket(url), here(url)
    paths = [path for path in (root / folder).rglob("*") if path.is_file() and not path.name.startswith(".")]
    names = sorted((path.relative_to(root).as_posix() for path in paths), key=lambda name: name.endswith(PREPARED))
    earlier = bucket.list(f"{folder}/")
    parallel(lambda name: bucket.write(name, root / name), names[:-1])
    bucket.write(names[-1], root / names[-1])
    for name, stat in earlier.items():
        if name not in names:
            bucket.delete(name, stat.generation)
