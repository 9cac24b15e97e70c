"""Data sets in a bucket: copied once, checked, kept equal; large ones refused; prepared there."""

import shutil
from collections import namedtuple

import numpy as np
import pytest

from sem_jax.data import DATASETS, bucket_data, load
from sem_jax.data.bucket_data import bring, bring_file, here
from sem_jax.data.facts import Reading
from sem_jax.data.places import bring_set, locate, places
from sem_jax.data.prepare import prepare_there
from sem_jax.data.public import load_public
from sem_jax.errors import ConfigError, DataError
from sem_jax.system.bucket import Bucket
from tests.helpers.data_sets import small_cifar10, write_cifar10

QUIET = {"say": lambda line: None}


@pytest.fixture
def url(gate, request):
    """An own folder of the bucket."""
    return f"gs://sem-jax-test/{request.node.name}"


def write_arrays(folder, url, seed=0):
    """A set for `arrays`, on disk and in the bucket."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        np.save(folder / f"{split}_data.npy", rng.integers(0, 256, (6, 4, 4), np.uint8))
        np.save(folder / f"{split}_labels.npy", np.arange(6) % 2)
    for path in folder.iterdir():
        Bucket(url).write(path.name, path)
    return load("arrays", data_dir=str(folder))


def downloads(gate, first):
    return [path for _, path in gate.seen[first:] if "alt=media" in path]


def test_an_own_set_is_copied_once_and_follows_the_bucket(url, gate, tmp_path):
    wanted = write_arrays(tmp_path / "set", url)
    with pytest.raises(DataError, match=rf"^{url} has not been copied to this machine\nGive --data-dir={url}"):
        load("arrays", data_dir=url, reading=Reading(download=False))
    gate.rate = 0.1
    assert load("arrays", data_dir=url).fingerprint == wanted.fingerprint
    gate.rate, seen = 0.0, len(gate.seen)
    assert load("arrays", data_dir=f"{url}/").fingerprint == wanted.fingerprint
    assert not downloads(gate, seen) and len(gate.seen) - seen < 6
    # What changes or goes in the bucket does so here; what was changed here is set right.
    wanted = write_arrays(tmp_path / "set", url, seed=1)
    (here(url) / "more").mkdir()
    for name in ("class_names.txt", "more/old.npy"):
        (here(url) / name).write_text("x")
    (here(url) / "test_labels.npy").write_bytes((here(url) / "test_labels.npy").read_bytes()[:-1] + b"\0")
    assert load("arrays", data_dir=url).fingerprint == wanted.fingerprint
    assert not (here(url) / "class_names.txt").exists() and not (here(url) / "more/old.npy").exists()
    seen = len(gate.seen)
    assert load("arrays", data_dir=url, reading=Reading(download=False)).fingerprint == wanted.fingerprint
    assert len(gate.seen) == seen
    (bucket_data.here("gs://sem-jax-test").parent / ".sem-jax-test.json").write_text("{")  # then MD5s are compared
    load("arrays", data_dir=url)
    assert not downloads(gate, seen)


def test_of_a_bucket_with_many_sets_the_one_that_is_needed_is_copied(url, gate, tmp_path, monkeypatch):
    spec, raw = small_cifar10(monkeypatch), write_cifar10(tmp_path / "raw")
    wanted = load_public(spec, data_dir=str(raw)).splits["test"]
    for path in raw.iterdir():
        Bucket(url).write(f"cifar10/{path.name}", path)
        Bucket(url).write(f"official/cifar-10-batches-bin/{path.name}", path)
    for name in ("cifar100/3.0.2/dataset_info.json", "official/photos.zip"):
        Bucket(url).write(name, b"other")
    monkeypatch.setenv("TFDS_DATA_DIR", url)
    assert places() == [here(url), *places()[1:]]
    for place in ("", f"{url}/official"):
        bring_set(spec, place)
        found = load_public(spec, data_dir=place, reading=Reading(download=False))
        np.testing.assert_array_equal(found.splits["test"].images, wanted.images)
    names = {path.relative_to(here(url)).as_posix().split("/")[1] for path in here(url).rglob("*.bin")}
    assert names == {"test_batch.bin", "data_batch_1.bin", "data_batch_2.bin", "cifar-10-batches-bin"}
    assert not list(here(url).rglob("*.json")) and not list(here(url).rglob("*.zip"))
    bring_set(spec, f"{url}/nothing")  # the next place has it
    assert locate(spec, [here(f"{url}/nothing")]) is None


def test_what_is_too_large_or_not_there_is_refused(url, tmp_path, monkeypatch):
    arrays = DATASETS["arrays"]
    write_arrays(tmp_path / "set", url)
    with monkeypatch.context() as patch:
        patch.setattr(bucket_data, "LIMIT", 100)
        with pytest.raises(
            DataError, match=r"at most 0 GB are copied\nMount it read-only: gcsfuse -o ro .* sem-jax-test"
        ):
            bring(arrays, url)
        usage = namedtuple("usage", "free")(bucket_data.SPARE)
        patch.setattr(bucket_data, "LIMIT", 10**9)
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(DataError, match=r"needs 0\.0 GB in .* are free\nSet SEM_JAX_CACHE"):
            bring(arrays, url)
    assert not here(url).exists()
    with pytest.raises(DataError, match=f"{url}/no has no files"):
        bring(arrays, f"{url}/no")
    with pytest.raises(ConfigError, match="neither a local path nor gs://"):
        load("arrays", data_dir="s3://b/x")
    with pytest.raises(DataError, match="There is no file"):
        bring_file(f"{url}/weights.safetensors")
    assert bring_file(f"{url}/test_data.npy").read_bytes() == (tmp_path / "set/test_data.npy").read_bytes()


@pytest.mark.slow
def test_a_set_is_prepared_in_a_bucket(url, gate, tmp_path, monkeypatch):
    spec, raw = small_cifar10(monkeypatch), write_cifar10(tmp_path / "raw")
    assert prepare_there(spec, data_dir=url, source=raw, **QUIET) == url
    there = Bucket(url).list()
    assert "cifar10/3.0.2/dataset_info.json" in there and all(name.startswith("cifar10/3.0.2/") for name in there)
    wanted = load_public(spec, data_dir=str(raw)).splits["train"]
    monkeypatch.setenv("SEM_JAX_CACHE", str(tmp_path / "other machine"))
    lines = []
    monkeypatch.setenv("TFDS_DATA_DIR", url)
    assert prepare_there(spec, say=lines.append) == url and "prepared already" in lines[0] and len(lines) == 1
    assert Bucket(url).list() == there
    bring_set(spec)
    np.testing.assert_array_equal(load_public(spec).splits["train"].images, wanted.images)
    assert prepare_there(spec, source=raw, force=True, **QUIET) == url
    again = Bucket(url).list()
    assert all(again[name].generation > there[name].generation for name in again)
