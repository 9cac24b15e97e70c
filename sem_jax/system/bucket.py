"""Files in a Google Cloud Storage bucket, with Google's own client (the extra `gcs`); no jax.

    place = Bucket("gs://my-runs/wrn_c10")                  # a bucket, and the folder in it that names begin with
    content = place.read("config.json", limit=1 << 20)      # None if it is not there
    generation = place.write("config.json", b"{}", match=0) # 0: only if it is not there; n: only if it is generation n
    parallel(lambda path: place.write(f"a/{path.name}", path), paths)
    place.download("a/b", Path("b"), sha256="...")          # goes on where an earlier one ended
    for name, stat in place.list("a/").items(): ...
    place.delete("a/b", stat.generation)

Each object has a generation, a number that the server changes with every write. A write that names the generation it
replaces is refused with `Conflict` if somebody else has written meanwhile: by it alone can several machines agree on
anything. A write whose answer was lost and that is repeated is recognised by a mark of its own.

Every request is repeated with exponential back-off. When a request has failed for `patience` seconds, or at once where
repeating it cannot help, a `RunError` names the bucket. Credentials are Google's defaults; without any, public buckets
can still be read.
"""

import base64
import contextlib
import hashlib
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from sem_jax.errors import ConfigError, RunError, one_line
from sem_jax.system.urls import is_plain, split_url

PATIENCE = 300.0  # seconds for which a request is repeated
TIMEOUT = (10.0, 60.0)  # seconds to connect; seconds of silence
CHUNK = 32 << 20  # bytes of a download that one request reads
THREADS = 8
MAX_OBJECTS = 100_000  # in one listing
_MARK = "sem-jax-write"  # of the metadata of an object
_T = TypeVar("_T")


class Conflict(RunError):
    """A write or deletion was refused: the object is of another generation than the one that was named."""


class Unreachable(RunError):
    """A request failed for as long as it was worth repeating."""


class Altered(RunError):
    """The contents of an object are not those of their digest."""


class Stat(NamedTuple):
    """What the server says of an object."""

    generation: int
    size: int  # bytes
    md5: str  # hex; "" for an object that was composed of others
    updated: datetime  # by the server's clock


class Bucket:
    """A bucket and the folder in it that all names begin with. It can be used by several threads.

    Args:
      url: gs://BUCKET or gs://BUCKET/FOLDER.
      patience: seconds for which a failing request is repeated.
      timeout: seconds of silence after which a request counts as failed.

    Raises:
      ConfigError: no such URL, or Google's client is not installed.
    """

    def __init__(self, url: str, *, patience: float = PATIENCE, timeout: float = TIMEOUT[1]):
        self.bucket, folder = split_url(url)
        self.url = f"gs://{self.bucket}" + (f"/{folder}" if folder else "")
        self._prefix = f"{folder}/" if folder else ""
        self._patience, self._timeout = patience, (min(TIMEOUT[0], timeout), timeout)
        self._local = threading.local()  # a client each thread: its connections may not be shared
        self._credentials, self._found = self._find_credentials(), False

    def _find_credentials(self) -> Any:
        try:
            import google.auth
            from google.auth.credentials import AnonymousCredentials
            from google.auth.exceptions import GoogleAuthError
            from google.cloud.storage import Client
        except ImportError:
            remedy = "Install it: pip install google-cloud-storage gcsfs"
            raise ConfigError(f"{self.url} needs the package google-cloud-storage", remedy) from None
        self._client = Client
        if os.environ.get("STORAGE_EMULATOR_HOST"):  # a server for tests
            return AnonymousCredentials()
        try:
            return google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])[0]
        except GoogleAuthError:
            return AnonymousCredentials()

    def _objects(self) -> Any:
        """This thread's client, as `google.cloud.storage.Bucket`."""
        if not hasattr(self._local, "bucket"):
            client = self._client(project="none", credentials=self._credentials)
            self._local.bucket = client.bucket(self.bucket)
        return self._local.bucket

    def _retry(self) -> dict[str, Any]:
        """How Google's client repeats and limits a request."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        retry = DEFAULT_RETRY.with_delay(initial=0.5, maximum=20.0, multiplier=2.0).with_timeout(self._patience)
        return {"retry": retry, "timeout": self._timeout}

    def _ask(self, name: str, request: Callable[[], _T]) -> _T:
        """`request()`, with what goes wrong as one line that names the object."""
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption as Corrupt

        where = f"{self.url}/{name}" if name else self.url
        try:
            return request()
        except exceptions.NotFound as error:
            if "bucket does not exist" in str(error) or not self._exists():
                raise self._no_bucket() from None
            raise FileNotFoundError(where) from None
        except exceptions.PreconditionFailed:
            raise Conflict(f"{where} was written by somebody else meanwhile") from None
        except (exceptions.Forbidden, exceptions.Unauthorized, GoogleAuthError) as error:
            raise self._refused(error) from error
        except (exceptions.GoogleAPICallError, exceptions.RetryError, Corrupt, OSError) as error:
            raise Unreachable(f"{where} cannot be reached: {_reason(error)}", _LATER) from error

    def _no_bucket(self) -> RunError:
        remedy = f"Make it: gcloud storage buckets create gs://{self.bucket}"
        return RunError(f"There is no bucket gs://{self.bucket}", remedy)

    def _refused(self, error: Exception) -> RunError:
        if type(self._credentials).__name__ == "AnonymousCredentials":
            login = "gcloud auth application-default login (in Colab: google.colab.auth.authenticate_user())"
            return RunError(f"gs://{self.bucket} needs credentials, and Google's default ones were not found", login)
        what = f": {it[0]} is missing" if (it := re.search(r"storage\.\w+\.\w+", str(error))) else f": {_reason(error)}"
        remedy = "Give this account the role roles/storage.objectUser (to read alone: roles/storage.objectViewer)."
        return RunError(f"No permission for gs://{self.bucket}{what}", remedy)

    def _exists(self) -> bool:
        """Whether the bucket is there; True where nobody may tell. Asked once."""
        if not self._found:
            try:
                next(iter(self._objects().list_blobs(max_results=1, **self._retry())), None)
            except Exception as error:  # the first error says more than others
                return type(error).__name__ != "NotFound"
            self._found = True
        return True

    def stat(self, name: str) -> Stat | None:
        """What the server says of an object; None if it is not there."""
        blob = self._ask(name, lambda: self._objects().get_blob(self._prefix + name, **self._retry()))
        if blob is None and not self._exists():
            raise self._no_bucket()
        return blob and _stat(blob)

    def list(self, prefix: str = "") -> dict[str, Stat]:
        """The objects whose names begin with `prefix`, by name; those that are no paths (`is_plain`) are left out.

        Raises:
          RunError: there are more than 100,000.
        """

        def ask() -> dict[str, Stat]:
            options: dict[str, Any] = {"prefix": self._prefix + prefix, "max_results": MAX_OBJECTS + 1}
            blobs = self._objects().list_blobs(**options, **self._retry())
            return {blob.name.removeprefix(self._prefix): _stat(blob) for blob in blobs}

        found = self._ask(prefix, ask)
        if len(found) > MAX_OBJECTS:
            raise RunError(f"{self.url}/{prefix} has more than {MAX_OBJECTS:,} objects", "Give a folder in it.")
        return {name: stat for name, stat in found.items() if is_plain(name)}

    def read(self, name: str, *, limit: int) -> bytes | None:
        """The contents of an object; None if it is not there. A RunError if it has more than `limit` bytes."""
        found = self.read_with_generation(name, limit=limit)
        return found and found[0]

    def read_with_generation(self, name: str, *, limit: int) -> tuple[bytes, int] | None:
        """The contents of an object and the generation they are of; None if it is not there."""
        while stat := self.stat(name):
            if stat.size > limit:
                raise RunError(f"{self.url}/{name} has {stat.size} bytes, expected at most {limit}")
            blob = self._blob(name, stat.generation)
            with contextlib.suppress(FileNotFoundError):  # replaced since: once more
                return self._ask(name, lambda b=blob: b.download_as_bytes(**self._retry())), stat.generation
        return None

    def write(self, name: str, content: bytes | Path, *, match: int | None = None) -> int:
        """Writes an object whole and returns its generation.

        Args:
          content: the bytes, or the file that has them.
          match: the generation that is to be replaced, 0 = none; None = whatever is there.

        Raises:
          Conflict: another generation is there.
        """
        blob, mark = self._blob(name), uuid.uuid4().hex
        blob.metadata, blob.cache_control = {_MARK: mark}, "no-cache"  # caches would keep what was replaced for an hour
        options = {"if_generation_match": match, "checksum": "crc32c", **self._retry()}
        put = blob.upload_from_filename if isinstance(content, Path) else blob.upload_from_string
        try:
            self._ask(name, lambda: put(content, content_type="application/octet-stream", **options))
        except Conflict:
            there = self._ask(name, lambda: self._objects().get_blob(self._prefix + name, **self._retry()))
            if there is None or (there.metadata or {}).get(_MARK) != mark:
                raise
            return int(there.generation)  # the answer to this write was lost, and it was repeated
        return int(blob.generation)

    def delete(self, name: str, generation: int) -> None:
        """Deletes one generation of an object; nothing if that one is gone."""
        with contextlib.suppress(FileNotFoundError, Conflict):
            blob = self._blob(name, generation)
            self._ask(name, lambda: blob.delete(if_generation_match=generation, **self._retry()))

    def download(self, name: str, path: Path, *, sha256: str = "", generation: int | None = None) -> None:
        """Downloads an object to a file, which gets its name when all of it is there. One process at a time.

        Args:
          sha256: hex digest of the contents. A file that has it already, or the object's MD5, is left as it is.
          generation: as `stat` returned it; None = the present one.

        Raises:
          FileNotFoundError: the object, or that generation, is not there.
          Altered: its contents are not those of the digest.
        """
        if sha256 and path.is_file() and _digest(path, "sha256") == sha256:
            return
        stat = self.stat(name)
        if stat is None or generation not in (None, stat.generation):
            raise FileNotFoundError(f"{self.url}/{name}")
        if not sha256 and stat.md5 and path.is_file() and _digest(path, "md5") == stat.md5:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # The generation is part of the name, so that what is continued is of the same contents.
        part = path.with_name(f".{path.name}.{stat.generation}.part")
        for attempt in range(2):
            self._fill(name, stat, part)
            if _digest(part, "sha256") == sha256 if sha256 else stat.md5 in ("", _digest(part, "md5")):
                part.replace(path)
                return
            part.unlink()  # what an earlier process left was damaged, or the object is
            if attempt:
                raise Altered(f"{self.url}/{name} is damaged: its contents are not those of its digest")

    def _fill(self, name: str, stat: Stat, part: Path) -> None:
        """Appends to the file what it lacks of the object."""
        blob = self._blob(name, stat.generation)
        if part.is_symlink() or (part.exists() and part.stat().st_size > stat.size):
            part.unlink()
        with part.open("ab") as file:
            while (begin := file.tell()) < stat.size:
                span = {"start": begin, "end": min(begin + CHUNK, stat.size) - 1, "checksum": None}
                piece = self._ask(name, lambda s=span: blob.download_as_bytes(raw_download=True, **s, **self._retry()))
                file.write(piece)
                file.flush()

    def _blob(self, name: str, generation: int | None = None) -> Any:
        if not is_plain(str(PurePosixPath(name))) or name != str(PurePosixPath(name)):
            raise RunError(f"{name!r:.200} is no name of a file in {self.url}")
        return self._objects().blob(self._prefix + name, generation=generation)


_LATER = "What was committed before is safe; start the same command again when the bucket can be reached."


def _stat(blob: Any) -> Stat:
    md5 = base64.b64decode(blob.md5_hash).hex() if blob.md5_hash else ""
    return Stat(int(blob.generation), int(blob.size), md5, blob.updated)


def parallel(work: Callable[[Any], Any], items: Iterable[Any]) -> None:
    """`work(item)` of several items at a time; the first error ends it."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        for future in [pool.submit(work, item) for item in items]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or (error.cause if hasattr(error, "cause") else None) or error  # type: ignore
    return one_line(cause, 160)
