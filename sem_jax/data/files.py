"""Read-only view of a folder, a zip or a tar archive as named files; nothing is ever extracted to disk.

    files = open_files(Path("tiny-imagenet-200.zip"))
    files.names                     # ('tiny-imagenet-200/wnids.txt', ...), sorted, always with "/"
    files.read("tiny-imagenet-200/wnids.txt")

Archives come from strangers: a member whose name leaves the archive, a link, a device, or what unpacks to more than
the limits below is refused with a DataError that names archive and member.
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
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from sem_jax.errors import DataError, one_line

MEMBER_LIMIT = 1 << 30  # bytes of one unpacked member; the largest official one (an SVHN .mat) has 182 MB
TOTAL_LIMIT = 4 << 30  # bytes of one unpacked tar, which is held in memory
HEADER_LIMIT = 1 << 20  # bytes a tar's header may claim for a name or for attributes; they have some hundred
COUNT_LIMIT = 2_000_000  # members of a tar, each of which takes about a kilobyte of memory even when empty
RATIO_LIMIT = 100  # unpacked / packed size of a whole zip above TOTAL_LIMIT; pictures hardly shrink at all
REMEDY = "Download the archive again, or unpack it yourself and give the folder."


class Files:
    """Named files below one root. Subclasses fill `names` and `read`."""

    def __init__(self, root: Path, names):
        self.root = root
        self.names = tuple(sorted(n for n in names if not _hidden(n)))

    def read(self, name: str) -> bytes:
        """Content of one file; DataError if it is missing, damaged or too large."""
        raise NotImplementedError

    def find(self, name: str) -> str:
        """Full name of the first file that is called `name`, in whatever folder; "" if there is none."""
        return next((found for found in self.names if found == name or found.endswith(f"/{name}")), "")

    def where(self, name: str) -> str:
        """The file's name as an error message shows it."""
        return f"{self.root}: {name}"


class FolderFiles(Files):
    """A folder; links to files and folders are followed, since the user made them."""

    def __init__(self, root: Path, names=None):
        super().__init__(root, _walk(root) if names is None else names)

    def where(self, name: str) -> str:
        return str(self.root / name)

    def read(self, name: str) -> bytes:
        try:
            status = (self.root / name).stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe or /dev/zero would be read for ever
                raise DataError(f"{self.where(name)} is a device or a pipe, not a file", "Remove it from the folder.")
            if status.st_size > MEMBER_LIMIT:
                raise DataError(f"{self.where(name)} has more than {MEMBER_LIMIT} bytes", "Remove it from the folder.")
            return (self.root / name).read_bytes()
        except OSError as error:
            remedy = "Put the file back, or make it readable."
            raise DataError(f"cannot read {self.where(name)}: {error.strerror}", remedy) from error


class ZipFiles(Files):
    """A zip, read member by member."""

    def __init__(self, root: Path):
        try:
            self._zip = zipfile.ZipFile(root)
        except (OSError, zipfile.BadZipFile, NotImplementedError) as error:  # the last: an unknown version or method
            raise DataError(f"{root} is not a readable zip file: {error}", REMEDY) from error
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        for info in infos:
            _check_name(root, info.filename)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise DataError(f"{root}: {info.filename} is a link or a device, not a file", REMEDY)
        total = sum(info.file_size for info in infos)
        if total > TOTAL_LIMIT and total > RATIO_LIMIT * root.stat().st_size:
            raise DataError(f"{root} unpacks to too much: {total} bytes, {RATIO_LIMIT} times its own size", REMEDY)
        super().__init__(root, [info.filename for info in infos])

    def read(self, name: str) -> bytes:
        try:
            info = self._zip.getinfo(name)
            with self._zip.open(info) as member:
                # The size in the header may lie, so the limit is on what really comes out.
                data = member.read(min(info.file_size, MEMBER_LIMIT) + 1)
        except KeyError:
            raise DataError(f"{self.where(name)} is missing", REMEDY) from None
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise DataError(f"{self.where(name)} cannot be unpacked: {error}", REMEDY) from error
        if len(data) > MEMBER_LIMIT or len(data) != info.file_size:
            message = f"{self.where(name)} unpacks to more than its header says or than {MEMBER_LIMIT} bytes"
            raise DataError(message, REMEDY)
        return data


class TarFiles(Files):
    """A tar, compressed or not, read once from front to back and kept in memory (it has no index to seek by)."""

    def __init__(self, root: Path):
        self._content: dict[str, bytes] = {}
        total = 0
        try:
            with _decompressed(root) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as tar:
                for count, member in enumerate(tar):
                    _check_name(root, member.name)
                    if count >= COUNT_LIMIT:
                        raise DataError(f"{root} has more than {COUNT_LIMIT} members", REMEDY)
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
        except (OSError, tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{root} is not a readable tar archive: {one_line(error)}", REMEDY) from error
        super().__init__(root, self._content)

    def read(self, name: str) -> bytes:
        try:
            return self._content[name]
        except KeyError:
            raise DataError(f"{self.where(name)} is missing", REMEDY) from None


class _Bounded(io.RawIOBase):
    """A file that unpacks at most HEADER_LIMIT bytes at once.

    tarfile takes the lengths of names and attributes from the archive and reads them in one piece: a few bytes packed
    would become gigabytes before a member is seen.
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
    """The tar inside a file that is compressed with gzip, bzip2 or xz, or not at all; known by its first bytes."""
    with path.open("rb") as file:
        head = file.read(6)
    kinds = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
    opener = next((opener for magic, opener in kinds.items() if head.startswith(magic)), open)
    return _Bounded(opener(path, "rb"))


def is_archive(path: Path) -> bool:
    """True for the name of an existing zip or tar file."""
    return path.is_file() and path.name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))


def open_files(path: Path) -> Files:
    """View of a folder, `.zip` or `.tar[.gz]`.

    Raises:
      DataError: the path does not exist, is of another kind, or the archive is damaged or unsafe.
    """
    if path.is_dir():
        return FolderFiles(path)
    if not path.exists():
        raise DataError(f"{path} does not exist", "Give an existing folder, zip or tar archive.")
    if path.name.lower().endswith(".zip"):
        return ZipFiles(path)
    if is_archive(path):
        return TarFiles(path)
    raise DataError(f"{path} is neither a folder nor a .zip or .tar.gz archive", "Give one of those.")


def _check_name(root: Path, name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise DataError(f"{root}: member {name!r} points outside the archive, so nothing of it is read", REMEDY)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _walk(root: Path):
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder above would otherwise be walked for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [f for f in folders if not _hidden(f)]
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in names:
            yield name if below == "." else f"{below}/{name}"
