"""Read-only view of a folder, a zip or a tar archive as named files. Nothing is extracted to disk.

Archives come from strangers. A DataError that names archive and member refuses a name that leaves the archive, a link,
a device, and contents that unpack to more than the limits below.
"""

import bz2
import functools
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from sem_jax.data.refusing import read_file, refusing, regular
from sem_jax.errors import DataError

MEMBER_LIMIT = 1 << 30  # bytes of one unpacked member; the largest official one (SVHN) has 182 MB
TOTAL_LIMIT = 4 << 30  # bytes of one unpacked tar, which is held in memory
HEADER_LIMIT = 1 << 20  # bytes a tar's header may claim for a name or attributes; usual are some hundred
COUNT_LIMIT = 2_000_000  # files of an archive or folder; each takes about a kilobyte of memory
LINK_LIMIT = 8  # times that links may lead to one folder; links to folders of links double it at each level
ARCHIVE_LIMIT = 1 << 42  # bytes of an archive itself; it is not read at once
RATIO_LIMIT = 100  # unpacked / packed size of a zip above TOTAL_LIMIT; pictures hardly shrink
REMEDY = "Download the archive again, or unpack it yourself and give the folder."


class Files:
    """Named files below one root; `names` are sorted paths with "/". Subclasses give `read`."""

    def __init__(self, root: Path, names):
        self.root = root
        self.names = tuple(sorted(n for n in names if not _hidden(n)))

    def read(self, name: str) -> bytes:
        """The content of one file; DataError if it is missing, damaged or too large."""
        raise NotImplementedError

    def find(self, name: str) -> str:
        """Full name of the first file called `name` in any folder, or ""."""
        return next((found for found in self.names if found == name or found.endswith(f"/{name}")), "")

    def where(self, name: str) -> str:
        """The file's name for error messages."""
        return f"{self.root}: {name}"


class FolderFiles(Files):
    """A folder. Links are followed, since the user made them, except those to a folder above."""

    def __init__(self, root: Path, names=None):
        super().__init__(root, _walk(root) if names is None else names)

    def where(self, name: str) -> str:
        return str(self.root / name)

    def read(self, name: str) -> bytes:
        return read_file(self.root / name, MEMBER_LIMIT)


class ZipFiles(Files):
    """A zip, of which single members are read."""

    def __init__(self, root: Path):
        size = regular(root, ARCHIVE_LIMIT)
        with refusing(f"{root} is not a readable zip file", REMEDY):
            self._zip = zipfile.ZipFile(root)
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        if len(infos) > COUNT_LIMIT:
            raise DataError(f"{root} has more than {COUNT_LIMIT} members", REMEDY)
        names = set()
        for info in infos:
            _check_name(root, info.filename, names)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise DataError(f"{root}: {info.filename} is a link or a device, not a file", REMEDY)
        total = sum(info.file_size for info in infos)
        if total > TOTAL_LIMIT and total > RATIO_LIMIT * size:
            raise DataError(f"{root} unpacks to too much: {total} bytes, {RATIO_LIMIT} times its own size", REMEDY)
        super().__init__(root, [info.filename for info in infos])

    def read(self, name: str) -> bytes:
        with refusing(f"{self.where(name)} cannot be unpacked", REMEDY):
            info = self._zip.getinfo(name)
            with self._zip.open(info) as member:
                # The header's size may be wrong, so the bytes that come out are limited.
                data = member.read(min(info.file_size, MEMBER_LIMIT) + 1)
        if len(data) > MEMBER_LIMIT or len(data) != info.file_size:
            found = f"{self.where(name)} unpacks to more than its header says or than {MEMBER_LIMIT} bytes"
            raise DataError(found, REMEDY)
        return data


class TarFiles(Files):
    """A tar, compressed or not. It has no index, so it is read once and kept in memory."""

    def __init__(self, root: Path):
        self._content: dict[str, bytes] = {}
        total, names = 0, set()
        regular(root, ARCHIVE_LIMIT)
        with refusing(f"{root} is not a readable tar archive", REMEDY):
            with _decompressed(root) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as tar:
                for count, member in enumerate(tar):
                    if count >= COUNT_LIMIT:
                        raise DataError(f"{root} has more than {COUNT_LIMIT} members", REMEDY)
                    _check_name(root, member.name, set() if member.isdir() else names)
                    if member.isdir():
                        continue
                    file = tar.extractfile(member) if member.isreg() else None
                    if file is None:
                        raise DataError(f"{root}: {member.name} is a link or a device, not a file", REMEDY)
                    total += member.size
                    if member.size > MEMBER_LIMIT or total > TOTAL_LIMIT:
                        raise DataError(f"{root}: {member.name} unpacks to too much ({total} bytes so far)", REMEDY)
                    content = b"".join(iter(functools.partial(file.read, HEADER_LIMIT), b""))
                    self._content[str(PurePosixPath(member.name))] = content
        super().__init__(root, self._content)

    def read(self, name: str) -> bytes:
        if name not in self._content:
            raise DataError(f"{self.where(name)} is missing", REMEDY)
        return self._content[name]


class _Bounded(io.RawIOBase):
    """A file that unpacks at most HEADER_LIMIT bytes at once.

    tarfile believes the archive's lengths of names and attributes: a few packed bytes could become gigabytes at once.
    """

    def __init__(self, file: IO[bytes]):
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER_LIMIT:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


def _decompressed(path: Path) -> _Bounded:
    """The tar in a file, whose first bytes tell gzip, bzip2, xz or no compression."""
    with path.open("rb") as file:
        head = file.read(6)
    kinds = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
    opener = next((opener for magic, opener in kinds.items() if head.startswith(magic)), open)
    return _Bounded(opener(path, "rb"))


def is_archive(path: Path) -> bool:
    """Whether `path` is an existing file with the name of a zip or tar."""
    return path.is_file() and path.name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))


def open_files(path: Path) -> Files:
    """View of a folder, zip or tar; DataError if it does not exist, is none of these, or is damaged or unsafe."""
    if path.is_dir():
        return FolderFiles(path)
    if not os.path.lexists(path):
        raise DataError(f"{path} does not exist", "Give an existing folder, zip or tar archive.")
    regular(path, ARCHIVE_LIMIT, "Give a folder, a zip or a tar archive.")
    if path.name.lower().endswith(".zip"):
        return ZipFiles(path)
    if is_archive(path):
        return TarFiles(path)
    raise DataError(f"{path} is neither a folder nor a .zip or .tar.gz archive", "Give one of those.")


def _check_name(root: Path, name: str, seen: set[PurePosixPath]) -> None:
    """Refuses a member whose name leaves the archive, or is one of `seen`, to which it is added."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise DataError(f"{root}: member {name!r} points outside the archive, so nothing is read", REMEDY)
    if (path := PurePosixPath(name)) in seen:
        raise DataError(f"{root} has two members {name!r}, so it is unknown which one counts", REMEDY)
    seen.add(path)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _walk(root: Path) -> Iterator[str]:
    """Names of all that is not a folder, also of what cannot be read: who needs it says so."""
    visits: dict[str, int] = {}
    waiting: list[tuple[str, tuple[str, ...]]] = [("", ())]
    count = 0
    while waiting:
        below, above = waiting.pop()
        folder = os.path.join(root, below)
        real = os.path.realpath(folder)
        if real in above:  # following a link to a folder above would never end
            continue
        visits[real] = visits.get(real, 0) + 1
        if visits[real] > LINK_LIMIT:
            raise DataError(f"{folder}: links lead to this folder more than {LINK_LIMIT} times", "Remove links.")
        try:
            # Only links need a call of the system for each.
            is_dir = lambda entry: os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()  # noqa: E731
            names = [(f"{below}{entry.name}", is_dir(entry)) for entry in os.scandir(folder)]
        except OSError as error:
            if not below:
                raise DataError(f"cannot look into {root}: {error.strerror}", "Make it readable.") from error
            names = [(below.rstrip("/"), False)]
        for name, is_folder in names:
            if is_folder:
                if not _hidden(name):
                    waiting.append((f"{name}/", (*above, real)))
                continue
            count += 1
            if count > COUNT_LIMIT:
                raise DataError(f"{root} has more than {COUNT_LIMIT} files", "Give the folder of the data alone.")
            yield name
