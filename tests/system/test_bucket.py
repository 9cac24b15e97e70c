"""The primitives over gs://: conditional writes, lost answers, broken connections, one-line errors."""

import hashlib
import uuid

import pytest

from sem_jax.errors import ConfigError, RunError
from sem_jax.system.bucket import Altered, Bucket, Conflict, parallel
from sem_jax.system.urls import is_plain, is_url, split_url
from tests.helpers.bucket_server import Fault


@pytest.fixture
def place(gate):
    """An own folder of the bucket, through the gate; short patience."""
    return Bucket(f"gs://sem-jax-test/{uuid.uuid4().hex}", patience=20, timeout=0.5)


@pytest.mark.parametrize("url", ["s3://b/x", "hdfs://h/x", "file:///x", "gs:/b/x", "GS://b/x", "memory://x"])
def test_other_urls_are_refused(url):
    with pytest.raises(ConfigError, match="neither a local path nor gs://"):
        is_url(url)


@pytest.mark.parametrize("url", ["gs://", "gs:///x", "gs://B/x", "gs://b/x", "gs://bucket/a//b", "gs://bucket/../b"])
def test_a_url_that_names_nothing_is_refused(url):
    with pytest.raises(ConfigError, match="must be gs://BUCKET/FOLDER"):
        split_url(url)


def test_local_paths_and_names():
    assert not any(map(is_url, ["runs/x", "/tmp/a:b", "C:\\runs", "C://runs", "a//b", "~/x"]))
    assert not any(map(is_plain, ["", "/x", "a/", "a/../b", "./a", "a\\b", "a\nb", "c:d", "a*", "x" * 1000]))
    assert all(map(is_plain, ["a", "checkpoints/390/ocdbt.process_0/d/0f.x", ".lock", "é-ü_+ (1)"]))


def test_a_write_names_what_it_replaces(place):
    assert place.read("a/b", limit=10) is None and place.stat("a/b") is None
    first = place.write("a/b", b"one", match=0)
    for stale in (0, first + 1):
        with pytest.raises(Conflict, match="a/b was written by somebody else"):
            place.write("a/b", b"two", match=stale)
    second = place.write("a/b", b"two", match=first)
    assert place.read_with_generation("a/b", limit=10) == (b"two", second) and second > first
    assert {name: stat.size for name, stat in place.list("a/").items()} == {"a/b": 3}
    with pytest.raises(RunError, match="has 3 bytes, expected at most 2"):
        place.read("a/b", limit=2)
    place.delete("a/b", first)  # gone
    assert place.stat("a/b").generation == second
    place.delete("a/b", second)
    assert place.stat("a/b") is None and not place.list()


@pytest.mark.parametrize("kind", ["refuse", "stall", "cut", "lose", "503", "429"])
def test_a_write_whose_answer_is_lost_is_known_again(place, gate, kind):
    gate.faults = [Fault(kind, 0.7)]
    generation = place.write("x", b"mine", match=0)
    assert not gate.faults and place.stat("x").generation == generation
    gate.faults = [Fault(kind, 0.7)]
    assert place.read("x", limit=10) == b"mine"


def test_files_come_and_go_in_parallel_and_a_download_goes_on(place, gate, tmp_path, monkeypatch):
    monkeypatch.setattr("sem_jax.system.bucket.CHUNK", 4)
    contents = {f"d/{i}": bytes([i]) * (9 + i) for i in range(5)}
    for name, content in contents.items():
        (tmp_path / name.replace("/", "-")).write_bytes(content)
    parallel(lambda name: place.write(name, tmp_path / name.replace("/", "-")), contents)
    wanted = [
        (name, tmp_path / "got" / name, hashlib.sha256(content).hexdigest()) for name, content in contents.items()
    ]
    gate.rate = 0.2
    parallel(lambda it: place.download(it[0], it[1], sha256=it[2]), wanted)
    gate.rate = 0.0
    assert all((tmp_path / "got" / name).read_bytes() == content for name, content in contents.items())
    parallel(lambda it: place.download(it[0], it[1], sha256=it[2]), wanted)

    # The first two pieces are there: two are read.
    stat, name = place.stat("d/4"), "d/4"
    part = tmp_path / f".new.{stat.generation}.part"
    part.write_bytes(contents[name][:8])
    seen = len(gate.seen)
    place.download(name, tmp_path / "new", sha256=wanted[4][2])
    assert len([path for _, path in gate.seen[seen:] if "alt=media" in path]) == 2
    assert (tmp_path / "new").read_bytes() == contents[name] and not part.exists()
    # What is there is of something else: it is read again, from the beginning.
    part.write_bytes(b"somethin")
    place.download(name, tmp_path / "newer", sha256=wanted[4][2])
    part = tmp_path / f".third.{stat.generation}.part"
    part.write_bytes(b"somethin")
    place.download(name, tmp_path / "third", sha256=wanted[4][2])
    assert (tmp_path / "third").read_bytes() == contents[name]
    with pytest.raises(Altered, match="d/3 is damaged"):
        place.download("d/3", tmp_path / "no", sha256=wanted[4][2])
    with pytest.raises(FileNotFoundError):
        place.download("d/9", tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_what_goes_wrong_is_one_line_that_names_the_bucket(place, gate, monkeypatch):
    with pytest.raises(RunError, match="There is no bucket gs://sem-jax-none"):
        Bucket("gs://sem-jax-none/x").write("a", b"")
    with pytest.raises(RunError, match="There is no bucket gs://sem-jax-none"):
        Bucket("gs://sem-jax-none/x").read("a", limit=1)
    for status in ("401", "403"):
        gate.faults = [Fault(status)] * 4
        with pytest.raises(RunError, match="gs://sem-jax-test needs credentials"):
            place.write("a", b"")
    gate.faults = [Fault("403")] * 4  # on a busy machine the first answer may come too late and be asked for again
    monkeypatch.setattr(place, "_credentials", object())
    with pytest.raises(RunError, match=r"No permission for gs://sem-jax-test: storage.objects.create is missing\n"):
        place.write("a", b"")
    gate.faults = [Fault("refuse")] * 99
    impatient = Bucket(place.url, patience=1, timeout=0.2)
    with pytest.raises(RunError, match=r"gs://sem-jax-test/\w+/a cannot be reached: .*\n.*start the same command"):
        impatient.write("a", b"")
    gate.faults = []
    for name in ("../a", "a//b", "/a", "a\n"):
        with pytest.raises(RunError, match="is no name of a file"):
            place.write(name, b"")
