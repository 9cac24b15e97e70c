"""Data folders drawn at random, good and bad parts mixed, and the judgement of what reading them did.

    @given(folders())
    def test(plan): judge(plan, tmp_path)         # raises AssertionError: neither read nor refused as it should be

Read by tests/data/test_random_folders.py. The parts are those of people's folders and of attackers'.
"""

import contextlib
import io
import os
import pickle
import resource
import shutil
import signal
import tarfile
import tempfile
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from sem_jax.data import Reading, load
from sem_jax.errors import DataError
from tests.helpers.data_sets import images, made_cifar10
from tests.helpers.hostile_files import Payload, npy
from tests.helpers.watch import watch

SECONDS = 5.0  # that reading or refusing may take


class Plan(NamedTuple):
    """A folder to be written, and how it is read."""

    layout: str
    parts: Any
    options: dict[str, Any]


def _encoded(kind: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(images(1, 8)[0]).save(stream, kind, **options)
    return stream.getvalue()


GOOD = [_encoded("PNG"), _encoded("JPEG"), _encoded("GIF"), _encoded("BMP"), _encoded("TIFF"), _encoded("WEBP")]
BAD = [
    b"",
    b"\0" * 5000,
    b"<html>404</html>",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
    GOOD[0][:40],
    GOOD[0].replace(b"\0\0\0\x08\0\0\0\x08", b"\0\1\x86\xa0\0\1\x86\xa0"),
    pickle.dumps(Payload(Path("/nonexistent/canary"))),
]
LINKS = ["/no/such/place", "/dev/zero", ".", "..", "/proc/self/mem", "../..", "0.png", "a" * 300]
CLASSES = [
    "cat",
    "dog",
    "emu",
    "c t",
    "Katze ü",
    "c\udce4t",
    "c\x1b[31mt",
    "a\nb",
    "x" * 200,
    ".hidden",
    "__MACOSX",
    "CAT",
]
FILES = [
    "0.png",
    "1.jpg",
    "2.jfif",
    "3",
    "4.PNG",
    "notes.txt",
    "Thumbs.db",
    ".DS_Store",
    "é.webp",
    "\n\n\n.png",
    "\udcff",
]
SPLITS = ["train", "test", "val", "extra"]

flips = st.lists(st.tuples(st.floats(0, 0.9999), st.integers(1, 255)), min_size=1, max_size=3)


def _flipped(content: bytes, at: list[tuple[float, int]]) -> bytes:
    data = bytearray(content)
    for place, mask in at:
        if data:
            data[int(place * len(data))] ^= mask
    return bytes(data)


contents = st.one_of(
    st.sampled_from(GOOD),
    st.sampled_from(GOOD),
    st.sampled_from(BAD),
    st.builds(_flipped, st.sampled_from(GOOD), flips),
    st.binary(max_size=60),
)
# What stands in the place of a file: its content, ("link", target), ("pipe", ""), ("sparse", "") or ("folder", "").
things = st.one_of(
    contents,
    st.tuples(st.just("link"), st.sampled_from(LINKS)),
    st.sampled_from([("pipe", ""), ("sparse", ""), ("folder", "")]),
)
sizes = st.sampled_from([0, 0, 0, 8, 8, 8, 16, 16, 64, 64, -1, 10**8])


@st.composite
def _with_faults(draw, parts, strategy):
    """`parts` with none, one or two of them replaced."""
    for name in draw(st.lists(st.sampled_from(sorted(parts)), max_size=2)):
        parts[name] = draw(strategy)
    return parts


@st.composite
def _trees(draw, thing):
    """Names -> things of an image folder."""
    names = draw(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=3, unique=True))
    names = draw(st.sampled_from([["cat", "dog"], ["cat", "dog"], names]))
    splits = draw(st.sampled_from([["train", "test"], ["train", "test"], ["train", "val"], SPLITS[:1], SPLITS]))
    parts = {}
    for folder in (f"{split}/{name}" for split in splits for name in names):
        for file in draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=3, unique=True)):
            parts[f"{folder}/{file}"] = draw(st.sampled_from(GOOD))
        parts[f"{folder}/5.png"] = GOOD[0]
    parts = draw(_with_faults(parts, thing))
    if draw(st.integers(0, 3)) == 0:
        parts[draw(st.sampled_from(["train", "test/cat", "train/loose", "README", "train/cat/sub/5.png"]))] = draw(
            thing
        )
    return parts


@st.composite
def _image_folders(draw):
    options = {"image_size": draw(sizes), "reading": Reading(encoded=draw(st.sampled_from([False, False, True, None])))}
    return Plan("folder", draw(_trees(things)), options)


@st.composite
def _archives(draw):
    members = list(draw(_trees(contents)).items())
    odd = [
        "../evil",
        "/evil",
        "train/./cat/0.png",
        "train//cat/0.png",
        "C:/evil",
        "train\\cat\\9.png",
        "train/cat/0.png",
    ]
    if draw(st.integers(0, 3)) == 0:
        members.append((draw(st.sampled_from(odd)), draw(contents)))
    damage = draw(st.one_of(st.none(), st.none(), st.none(), flips, st.floats(0.1, 0.99)))
    kind = draw(st.sampled_from(["x.zip", "x.zip", "x.tar", "x.tar.gz"]))
    return Plan(
        kind, (members, draw(st.sampled_from([0, 0, 0, 0o120000, 0o020000])), damage), {"image_size": draw(sizes)}
    )


@st.composite
def _arrays(draw):
    headers = st.tuples(
        st.sampled_from(
            ["'|u1'", "'<i4'", "'|O'", "('|u1',(2,3))", "[('a','|u1')]", "'|V0'", "'<f4'", "'<U9'", "1", "(("]
        ),
        st.sampled_from(
            ["(12, 8, 8, 3)", "(12,)", "()", "(-1,)", "(0, 8, 8, 3)", f"({2**63},)", "(12, 768)", "((12,),)"]
        ),
        st.sampled_from([0, 12, 48, 2304]),
    )
    built = headers.map(lambda h: npy(h[0], h[1], bytes(h[2])))
    pixels, labels = npy("'|u1'", "(12, 8, 8, 3)", images(12, 8).tobytes()), npy("'|u1'", "(12,)", bytes(range(3)) * 4)
    parts = {f"{split}_{name}.npy": x for split in SPLITS[:2] for name, x in (("data", pixels), ("labels", labels))}
    flipped = st.builds(_flipped, st.sampled_from([pixels, labels]), flips)
    parts = draw(_with_faults(parts, st.one_of(flipped, built, things)))
    names = st.sampled_from([b"a\nb\nc\n", b"a\na\nb", b"a\n", b"\xff\xfe", b"a\nb\n\x1b[0m", b"a\nb\nc\nd", b"\n"])
    if draw(st.integers(0, 2)) == 0:
        parts["class_names.txt"] = draw(st.one_of(names, things))
    return Plan("arrays", parts, {"image_size": draw(sizes)})


@st.composite
def _prepared(draw):
    """One file of a prepared CIFAR-10 replaced or flipped."""
    file = st.sampled_from(["dataset_info.json", "features.json", "label.labels.txt", "train", "test"])
    return Plan("prepared", (draw(file), draw(st.one_of(flips, things))), {})


def folders():
    """Strategy of `Plan`s of every layout."""
    return st.one_of(_image_folders(), _image_folders(), _archives(), _arrays(), _prepared())


def _put(path: Path, thing) -> None:
    """Writes one thing, where the file system allows its name and place."""
    with contextlib.suppress(OSError, ValueError):
        path.parent.mkdir(parents=True, exist_ok=True)
        kind, target = thing if isinstance(thing, tuple) else ("file", "")
        if kind == "link":
            path.symlink_to(target)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.write_bytes(b"" if kind == "sparse" else thing)
            if kind == "sparse":
                os.truncate(path, 20 << 30)


def _write(plan: Plan, root: Path) -> tuple[str, Path]:
    """Writes the folder; (data.name, data.dir)."""
    root.mkdir()
    if plan.layout == "prepared":
        file, thing = plan.parts
        shutil.copytree(made_cifar10()[0], root / "sets")
        path = next((root / "sets").rglob(f"*{file}*"), root / "sets/cifar10/3.0.2" / file)
        if isinstance(thing, list):
            thing = _flipped(path.read_bytes(), thing)
        path.unlink()
        _put(path, thing)
        return "cifar10", root / "sets"
    if plan.layout in ("folder", "arrays"):
        for name, thing in plan.parts.items():
            _put(root / name, thing)
        return {"folder": "image_folder"}.get(plan.layout, "arrays"), root
    members, mode, damage = plan.parts
    path = root / plan.layout
    if plan.layout == "x.zip":
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as archive:  # of doubles
            for name, content in members:
                info = zipfile.ZipInfo("x")
                info.filename = name.encode("utf-8", "replace").decode()
                archive.writestr(info, content)
            archive.infolist()[-1].external_attr = mode << 16
    else:
        with tarfile.open(path, "w:gz" if plan.layout.endswith("gz") else "w") as tar:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            if mode:
                member = tarfile.TarInfo("train/cat/9.png")
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(member)
    if damage is not None:
        data = path.read_bytes()
        path.write_bytes(_flipped(data, damage) if isinstance(damage, list) else data[: int(damage * len(data))])
    return "image_folder", path


class Hang(BaseException):
    """Reading took too long."""


@contextlib.contextmanager
def _within(seconds: float):
    def ring(number, frame):
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 4 * seconds)  # of a busy machine; the processor's time is what counts
    start = time.process_time()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.process_time() - start < seconds


def judge(plan: Plan, home: Path) -> str:
    """Reads the folder of a plan twice; "read" or "refused".

    Raises:
      AssertionError: another error, a long message, code that ran, a file written outside `home`, another second
        answer, or an image that was left out.
    """
    answers = []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(dir=home.parent) as place:
        name, path = _write(plan, Path(place) / "data")
        for _ in range(2):  # the second time from the cache
            with watch(allowed=(home,), suspect=Path(place)) as seen, _within(SECONDS):
                try:
                    options = {"reading": Reading(download=False), **plan.options}
                    dataset = load(name, data_dir=str(path), **options)
                    answers.append(dataset.fingerprint)
                except DataError as error:
                    dataset = None
                    answers.append(str(error))
                    assert len(str(error).splitlines()) <= 3 and len(str(error)) < 1500, str(error)
                    assert str(error).replace("\n", "").isprintable(), repr(str(error))
            assert seen == ([], []), seen
        assert answers[0] == answers[1], answers
        if dataset is None:
            return "refused"
        for split in dataset.splits.values():
            pixels = np.asarray(split.images)
            assert pixels.dtype == np.uint8 and len(pixels) == len(split.labels) and len(dataset.class_names) > 1
            assert 0 <= split.labels.min() and split.labels.max() < len(dataset.class_names)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 512 << 10  # KiB
    files = [part.split("/") for part in plan.parts] if plan.layout == "folder" else []
    if files and not any(isinstance(thing, tuple) for thing in plan.parts.values()):
        skipped = ("notes.txt", "Thumbs.db", "README")
        kept = [f for f in files if f[0] == "train" and len(f) > 2 and f[-1] not in skipped]
        kept = [f for f in kept if not any(part == "__MACOSX" or part.startswith(".") for part in f)]
        assert len(dataset.splits["train"].labels) == len(kept), (plan, "images were left out")
    return "read"
