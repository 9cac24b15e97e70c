"""Files made to harm who opens them, as a table. Nothing of them may run, nothing may be written beside them.

    call, word = row(folder, canary)     # writes the file below `folder`; call() is to raise an error that says `word`

`canary` is a path: a payload that runs creates it. Bombs unpack to 10 GB from some megabytes or less.
Read by tests/data/test_hostile.py and by experiments/drills.
"""

import bz2
import io
import json
import os
import pickle
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from sem_jax.data import Reading, load, read_array_pair, read_image_tree
from tests.helpers.data_sets import (
    made_cifar10,
    to_tfrecord,
    write_arrays,
    write_cifar10,
    write_tiny_imagenet,
    write_tree,
)

TEN_GB = 10 << 30
HOSTILE = []  # the rows


def hostile(row):
    HOSTILE.append(row)
    return row


class Payload:
    """Unpickling an instance runs a command."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    """A .npy file with the header one likes."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def _arrays(root: Path, data: bytes):
    """Reading the data set `arrays` with `data` as its train_data.npy."""
    (write_arrays(root) / "train_data.npy").write_bytes(data)
    return lambda: load("arrays", data_dir=str(root)), "train_data.npy"


@hostile
def npy_with_pickled_objects(root, canary):
    stream = io.BytesIO()
    np.save(stream, np.array([Payload(canary)], object), allow_pickle=True)
    return _arrays(root, stream.getvalue())


@hostile
def npy_that_is_a_pickle(root, canary):
    return _arrays(root, pickle.dumps(Payload(canary)))


@hostile
def npy_with_objects_in_a_record(root, canary):
    return _arrays(root, npy("[('a', 'O'), ('b', '|u1')]", "(12,)", pickle.dumps(Payload(canary))))


@hostile
def npy_that_is_a_zip(root, canary):
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3))
    return _arrays(root, stream.getvalue())


@hostile
def npy_header_with_a_call(root, canary):
    return _arrays(root, npy(f"__import__('os').system('touch {canary}')", "(12, 8, 8, 3)", bytes(2304)))


@hostile
def npy_that_claims_exabytes(root, canary):
    return _arrays(root, npy("'|u1'", f"({2**62}, 4, 3)", bytes(2304)))


@hostile
def npy_of_endless_nothing(root, canary):
    return _arrays(root, npy("'|V0'", f"({10**18},)"))


@hostile
def npy_of_negative_size(root, canary):
    return _arrays(root, npy("'|u1'", "(-1, 8, 8, 3)", bytes(2304)))


@hostile
def npy_header_nested(root, canary):
    return _arrays(root, npy("(" * 4000 + ")" * 4000, "(12, 8, 8, 3)", bytes(2304)))


def _npz(root: Path, **members: bytes):
    root.mkdir()
    with zipfile.ZipFile(root / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return lambda: read_array_pair(root / "x.npz"), "x.npz"


@hostile
def npz_with_pickled_objects(root, canary):
    return _npz(root, images=npy("'|O'", "(3,)", pickle.dumps(Payload(canary))), labels=npy("'<i4'", "(3,)", bytes(12)))


@hostile
def npz_that_claims_terabytes(root, canary):
    return _npz(root, images=npy("'|u1'", f"({10**12}, 1, 1, 3)", bytes(9)), labels=npy("'<i4'", "(3,)", bytes(12)))


@hostile
def npz_bomb(root, canary):
    root.mkdir()
    header = npy("'|u1'", f"({TEN_GB // 3072 - 1}, 32, 32, 3)")
    _deflated_zip(root / "x.npz", "images.npy", header, TEN_GB)
    with zipfile.ZipFile(root / "x.npz", "a") as archive:
        archive.writestr("labels.npy", npy("'<i4'", "(3,)", bytes(12)))
    return lambda: read_array_pair(root / "x.npz"), "x.npz"


def _zeros(total: int, prefix: bytes = b"", raw: bool = True) -> bytes:
    """`prefix` and `total` zeros, deflated: a block of 16 MiB is packed once and repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15 if raw else 31)
    out = packer.compress(prefix) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH) if total else b""
    return out + block * (total >> 24) + packer.flush()


def _deflated_zip(path: Path, name: str, prefix: bytes, total: int, said: int | None = None) -> None:
    """A zip of one member that unpacks to `total` bytes; `said` is the size in its header, where that lies."""
    packed, said = _zeros(total, prefix), total if said is None else said
    extra = struct.pack("<HHQQ", 1, 16, said, len(packed))  # zip64
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 45, 0, 8, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), len(extra))
    fields = (0x02014B50, 45, 45, 0, 8, 0, 33, 0, 2**32 - 1, 2**32 - 1, len(name), len(extra), 0, 0, 0, 0, 0)
    central = struct.pack("<IHHHHHHIIIHHHHHII", *fields) + name.encode() + extra
    body = local + name.encode() + extra + packed
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(central), len(body), 0)
    path.write_bytes(body + central + end)


def _tar(root: Path, *members: tarfile.TarInfo):
    """The archive of CIFAR-10 with these members."""
    root.mkdir()
    with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return lambda: load("cifar10", data_dir=str(root), reading=Reading(download=False)), "cifar-10-binary.tar.gz"


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    return member


@hostile
def tar_climbs(root, canary):
    return _tar(root, _member(f"../{canary.name}", size=5))


@hostile
def tar_climbs_from_inside(root, canary):
    return _tar(root, _member(f"cifar-10-batches-bin/../../{canary.name}", size=5))


@hostile
def tar_absolute(root, canary):
    return _tar(root, _member(str(canary), size=5))


@hostile
def tar_windows_path(root, canary):
    return _tar(root, _member("C:\\evil.bin", size=5))


@hostile
def tar_symlink(root, canary):
    return _tar(root, _member("d", tarfile.SYMTYPE, ".."), _member(f"d/{canary.name}", size=5))


@hostile
def tar_hard_link(root, canary):
    return _tar(root, _member("data_batch_1.bin", tarfile.LNKTYPE, "/etc/passwd"))


@hostile
def tar_device(root, canary):
    return _tar(root, _member("data_batch_1.bin", tarfile.CHRTYPE))


@hostile
def tar_pipe(root, canary):
    return _tar(root, _member("data_batch_1.bin", tarfile.FIFOTYPE))


@hostile
def tar_bomb(root, canary):
    """10 GB of zeros, 9 KB on disk: bzip2 streams, one after the other."""
    root.mkdir()
    head = _member("data_batch_1.bin", size=TEN_GB).tobuf(tarfile.GNU_FORMAT)
    block = bz2.compress(bytes(64 << 20))
    (root / "cifar-10-binary.tar.bz2").write_bytes(bz2.compress(head) + block * (TEN_GB // (64 << 20)))
    (root / "cifar-10-binary.tar.bz2").rename(root / "cifar-10-binary.tar.gz")  # told by content, not by name
    return lambda: load("cifar10", data_dir=str(root), reading=Reading(download=False)), "unpacks to too much"


def _tar_header_bomb(root: Path, kind: bytes):
    root.mkdir()
    head = _member("././@LongLink", kind, size=TEN_GB).tobuf(tarfile.GNU_FORMAT)
    (root / "cifar-10-binary.tar.gz").write_bytes(_zeros(TEN_GB, head, raw=False))
    return lambda: load("cifar10", data_dir=str(root), reading=Reading(download=False)), "a header claims"


@hostile
def tar_bomb_in_a_name(root, canary):
    return _tar_header_bomb(root, tarfile.GNUTYPE_LONGNAME)


@hostile
def tar_bomb_in_attributes(root, canary):
    return _tar_header_bomb(root, tarfile.XHDTYPE)


def _zip(root: Path, *members: zipfile.ZipInfo):
    root.mkdir()
    with zipfile.ZipFile(root / "x.zip", "w") as archive:
        for member in members:
            archive.writestr(member, "/etc/passwd")
    return lambda: load("image_folder", data_dir=str(root / "x.zip")), "x.zip"


@hostile
def zip_climbs(root, canary):
    return _zip(root, zipfile.ZipInfo(f"train/../../{canary.name}"))


@hostile
def zip_climbs_backwards(root, canary):
    member = zipfile.ZipInfo("x")
    member.filename = f"..\\..\\{canary.name}"  # the constructor would turn the strokes
    return _zip(root, member)


@hostile
def zip_absolute(root, canary):
    return _zip(root, zipfile.ZipInfo(str(canary)))


def _special(kind: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("train/cat/1.png")
    member.create_system, member.external_attr = 3, (kind | 0o644) << 16
    return member


@hostile
def zip_symlink(root, canary):
    return _zip(root, _special(0o120000))


@hostile
def zip_device(root, canary):
    return _zip(root, _special(0o020000))


@hostile
def zip_bomb(root, canary):
    root.mkdir()
    _deflated_zip(root / "x.zip", "train/cat/1.png", b"", TEN_GB)
    return lambda: load("image_folder", data_dir=str(root / "x.zip")), "x.zip"


@hostile
def zip_bomb_that_lies(root, canary):
    root.mkdir()
    _deflated_zip(root / "x.zip", "train/cat/1.png", b"", TEN_GB, said=1000)
    return lambda: load("image_folder", data_dir=str(root / "x.zip")), "1.png"


def _in_folder(root: Path, make):
    path = write_tree(root) / "train" / "cat" / "1.png"
    path.unlink()
    make(path)
    return lambda: load("image_folder", data_dir=str(root)), "1.png"


@hostile
def folder_with_an_endless_device(root, canary):
    return _in_folder(root, lambda path: path.symlink_to("/dev/zero"))


@hostile
def folder_with_a_pipe(root, canary):
    return _in_folder(root, os.mkfifo)


@hostile
def folder_with_a_sparse_bomb(root, canary):
    def make(path):
        with path.open("wb") as file:
            file.truncate(TEN_GB)

    return _in_folder(root, make)


@hostile
def image_that_is_a_pickle(root, canary):
    return _in_folder(root, lambda path: path.write_bytes(pickle.dumps(Payload(canary))))


@hostile
def image_that_is_postscript(root, canary):
    """Pillow hands EPS to Ghostscript, whose language writes files and starts programs."""
    program = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n({canary}) (w) file closefile\n"
    return _in_folder(root, lambda path: path.write_text(program + "showpage\n%%EOF\n"))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(c[:4], c[4:]) for c in chunks) + chunk(b"IEND", b"")


@hostile
def image_bomb(root, canary):
    pixels = zlib.compress(bytes(10_000_000))
    return _in_folder(root, lambda path: path.write_bytes(_png(100_000, 100_000, b"IDAT" + pixels)))


@hostile
def image_with_a_text_bomb(root, canary):
    text = b"zTXtk\0\0\x78\xda" + _zeros(200 << 20)
    return _in_folder(root, lambda path: path.write_bytes(_png(8, 8, text)))


@hostile
def image_tree_bomb(root, canary):
    root.mkdir()
    _deflated_zip(root / "x.zip", "a/1.png", b"", TEN_GB)
    return lambda: read_image_tree(root / "x.zip"), "x.zip"


@hostile
def pickled_cifar10(root, canary):
    (root / "cifar-10-batches-py").mkdir(parents=True)
    (root / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(Payload(canary)))
    return lambda: load("cifar10", data_dir=str(root), reading=Reading(download=False)), "Take the binary version"


@hostile
def pickled_cifar10_archive(root, canary):
    root.mkdir()
    data = pickle.dumps(Payload(canary))
    member = _member("cifar-10-batches-py/data_batch_1", size=len(data))
    with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.addfile(member, io.BytesIO(data))
    return lambda: load("cifar10", data_dir=str(root), reading=Reading(download=False)), "Take the binary version"


@hostile
def binary_cifar10_that_is_a_pickle(root, canary):
    (write_cifar10(root) / "data_batch_1.bin").write_bytes(pickle.dumps(Payload(canary)))
    return lambda: load("cifar10", data_dir=str(root), reading=Reading(download=False)), "data_batch_1.bin"


@hostile
def annotations_that_climb(root, canary):
    top = write_tiny_imagenet(root)
    shutil.copy(next(top.rglob("val_0.JPEG")), root.parent / "outside.JPEG")
    with (top / "val/val_annotations.txt").open("a") as file:
        file.write("../../../../outside.JPEG\tn01\t0\t0\t63\t63\n")
    return lambda: load("tiny_imagenet", data_dir=str(root), reading=Reading(download=False)), "outside.JPEG"


def _prepared(root: Path, change):
    shutil.copytree(made_cifar10()[0], root)
    change(root / "cifar10/3.0.2")
    return lambda: load("cifar10", data_dir=str(root), reading=Reading(download=False)), "cifar10"


def _foreign_class(canary: Path, wrap):
    def change(folder):
        # As if started in the folder of the data: Python looks for modules there.
        (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
        sys.path.insert(0, str(folder))
        path = folder / "features.json"
        path.write_text(json.dumps(wrap(json.loads(path.read_text()))))

    return change


@hostile
def metadata_that_imports_a_module(root, canary):
    return _prepared(root, _foreign_class(canary, lambda value: value | {"pythonClassName": "evil.Features"}))


@hostile
def metadata_that_imports_a_module_in_its_text(root, canary):
    inner = json.dumps({"feature": {"type": "evil.Features", "content": {}}})
    sequence = {
        "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
        "json": {"json": inner},
    }
    return _prepared(root, _foreign_class(canary, lambda _: sequence))


@hostile
def metadata_nested(root, canary):
    deep = "[" * 200_000 + "]" * 200_000
    return _prepared(root, lambda folder: (folder / "features.json").write_text(deep))


def _endless_info(folder):
    with (folder / "dataset_info.json").open("r+b") as file:
        file.truncate(TEN_GB)


@hostile
def metadata_of_ten_gigabytes(root, canary):
    return _prepared(root, _endless_info)


@hostile
def metadata_of_ten_gigabytes_in_the_named_folder(root, canary):
    _prepared(root, _endless_info)
    return lambda: load("cifar10", data_dir=str(root / "cifar10/3.0.2")), "dataset_info.json"


@hostile
def array_record_that_is_a_pickle(root, canary):
    def change(folder):
        next(folder.glob("cifar10-train*")).write_bytes(pickle.dumps(Payload(canary)))

    return _prepared(root, change)


@hostile
def tfrecord_that_claims_exabytes(root, canary):
    def change(folder):
        path = next(to_tfrecord(root).glob("cifar10-train*"))
        path.write_bytes(struct.pack("<Q", 2**63) + path.read_bytes()[8:])

    return _prepared(root, change)


_MAT = b"MATLAB 5.0 MAT-file".ljust(116) + b" " * 8 + struct.pack("<H", 0x0100) + b"IM"


def _element(kind: int, data: bytes, size: int | None = None) -> bytes:
    return struct.pack("<II", kind, len(data) if size is None else size) + data + bytes(-len(data) % 8)


def _variable(name: str, shape: tuple[int, ...], data: bytes, *, cls: int = 9, zeros: int = 0) -> bytes:
    """A compressed MATLAB variable of bytes; `zeros` follow its data, and its header says so."""
    size = len(data) + zeros
    body = _element(6, struct.pack("<II", cls, 0)) + _element(5, struct.pack(f"<{len(shape)}i", *shape))
    body += _element(1, name.encode()) + _element(2, data, size)
    packed = b"\x78\xda" + _zeros(zeros, struct.pack("<II", 14, len(body) + zeros) + body)
    return struct.pack("<II", 15, len(packed)) + packed


def _mat(root: Path, *variables: bytes):
    root.mkdir()
    (root / "train_32x32.mat").write_bytes(_MAT + b"".join(variables))
    return lambda: load(
        "svhn_cropped", data_dir=str(root), splits=("train",), reading=Reading(download=False)
    ), "train_32x32.mat"


_X, _Y = _variable("X", (32, 32, 3, 10), bytes(30720)), _variable("y", (10, 1), bytes(range(1, 11)))
MAT_BOMB = 1 << 30  # bytes; the format ends at 4 GB an element


@hostile
def mat_bomb(root, canary):
    return _mat(root, _variable("X", (32, 32, 3, 10), b"", zeros=MAT_BOMB), _Y)


@hostile
def mat_bomb_of_labels(root, canary):
    return _mat(root, _X, _variable("y", (MAT_BOMB, 1), b"", zeros=MAT_BOMB))


@hostile
def mat_cells(root, canary):
    return _mat(root, _variable("X", (32, 32, 3, 10), bytes(30720), cls=1), _Y)


@hostile
def mat_function(root, canary):
    return _mat(root, _variable("X", (32, 32, 3, 10), bytes(30720), cls=16), _Y)


@hostile
def mat_object(root, canary):
    return _mat(root, _X, _variable("y", (10, 1), bytes(10), cls=17))


@hostile
def names_of_ten_gigabytes(root, canary):
    with (write_arrays(root) / "class_names.txt").open("wb") as file:
        file.truncate(TEN_GB)
    return lambda: load("arrays", data_dir=str(root)), "class_names.txt"


def _stranger(path: Path, target: str = "") -> None:
    """Puts a pipe, or a link to `target`, in the place of a file."""
    path.unlink(missing_ok=True)
    if target:
        path.symlink_to(target)
    else:
        os.mkfifo(path)


@hostile
def array_that_is_a_pipe(root, canary):
    _stranger(write_arrays(root) / "train_data.npy")
    return lambda: load("arrays", data_dir=str(root)), "train_data.npy"


@hostile
def array_that_is_endless(root, canary):
    _stranger(write_arrays(root) / "train_labels.npy", "/dev/zero")
    return lambda: load("arrays", data_dir=str(root)), "train_labels.npy"


@hostile
def sparse_array(root, canary):
    data = npy("'|u1'", f"({TEN_GB // 3072}, 32, 32, 3)")
    with (write_arrays(root) / "train_data.npy").open("wb") as file:
        file.write(data)
        file.truncate(len(data) + TEN_GB // 3072 * 3072)
    return lambda: load("arrays", data_dir=str(root)), "12 labels"


@hostile
def array_of_arrays_of_endless_nothing(root, canary):
    return _arrays(root, npy("('|u1',(0,8,3))", f"({10**18},)"))


@hostile
def names_that_are_a_pipe(root, canary):
    _stranger(write_arrays(root) / "class_names.txt")
    return lambda: load("arrays", data_dir=str(root)), "class_names.txt"


@hostile
def names_that_are_endless(root, canary):
    _stranger(write_arrays(root) / "class_names.txt", "/dev/zero")
    return lambda: load("arrays", data_dir=str(root)), "class_names.txt"


def _archive(root: Path, name: str, target: str = ""):
    root.mkdir()
    _stranger(root / name, target)
    return lambda: load("image_folder", data_dir=str(root / name)), name


@hostile
def zip_that_is_a_pipe(root, canary):
    return _archive(root, "x.zip")


@hostile
def zip_that_is_endless(root, canary):
    return _archive(root, "x.zip", "/dev/zero")


@hostile
def tar_that_is_a_pipe(root, canary):
    return _archive(root, "x.tar.gz")


@hostile
def npz_with_doubles(root, canary):
    root.mkdir()
    with zipfile.ZipFile(root / "x.npz", "w") as archive:
        for name in ("images.npy", "labels.npy", "images"):
            archive.writestr(name, npy("'|u1'", "(3,)", bytes(3)))
    return lambda: read_array_pair(root / "x.npz"), "x.npz"


@hostile
def mat_that_is_a_pipe(root, canary):
    _mat(root)
    _stranger(root / "train_32x32.mat")
    (root / "test").mkdir()
    (root / "train").mkdir()
    return lambda: load("svhn_cropped", data_dir=str(root), reading=Reading(download=False)), "train_32x32.mat"


@hostile
def metadata_that_is_a_pipe(root, canary):
    return _prepared(root, lambda folder: _stranger(folder / "features.json"))


@hostile
def metadata_of_labels_that_is_endless(root, canary):
    _prepared(root, lambda folder: _stranger(folder / "label.labels.txt", "/dev/zero"))
    return lambda: load("cifar10", data_dir=str(root), reading=Reading(download=False)), "label.labels.txt"


@hostile
def folder_of_links_that_multiply(root, canary):
    """2**30 ways lead to the last folder."""
    write_tree(root)
    for level in range(30):
        (root / f"train/cat/{level}").mkdir(parents=True)
    for level in range(29):
        for name in "ab":
            (root / f"train/cat/{level}/{name}").symlink_to(f"../{level + 1}")
    return lambda: load("image_folder", data_dir=str(root)), "links lead to"


@hostile
def sixteen_bit_line_of_a_gigapixel(root, canary):
    return _in_folder(root, lambda path: path.write_bytes(_png(2**31 - 1, 1)))


@hostile
def class_named_like_a_page(root, canary):
    name = "x" * 200 + "\n" * 30
    for split in ("train", "test"):
        (write_tree(root, splits=(split,)) / split / "cat").rename(root / split / name)
    return lambda: load("image_folder", data_dir=str(root)), "control characters"


@hostile
def image_named_like_a_page(root, canary):
    return _in_folder(root, lambda path: path.with_name("\n\n1.png").write_text("no image"))
