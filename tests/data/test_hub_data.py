"""`hf`: tables of images on a hub and on disk, as the `datasets` library writes them; damaged and hostile ones."""

import io
import json
import pickle
import resource

import numpy as np
import pytest
from PIL import Image

from sem_jax.data import Reading, load
from sem_jax.data.encoded import RecordImages
from sem_jax.data.images import decode
from sem_jax.errors import ConfigError, DataError
from tests.helpers.hub import hub  # noqa: F401

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ["cat", "dog", "emu"]
INFO = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}}}
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def png(number: int, size=(8, 8)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(number, size)).save(file, "PNG")
    return file.getvalue()


def pixels(number: int, size=(8, 8)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


def table(count: int, first: int = 0, info=INFO, labels=None, **columns) -> "pa.Table":
    images = [{"bytes": png(first + i), "path": f"{i}.png"} for i in range(count)]
    labels = pa.array([i % 3 for i in range(count)] if labels is None else labels)
    schema = {"image": pa.array(images, IMAGE), "label": labels} | columns
    return pa.table(schema).replace_schema_metadata({"huggingface": json.dumps(info)} if info else None)


def write(path, it, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(it, path, **options)
    else:
        with pa.ipc.new_stream(path, it.schema, **options) as stream:
            stream.write_table(it)


def folder(root, suffix="parquet"):
    for split, count, first in (("train", 6, 0), ("train", 3, 6), ("test", 3, 9)):
        write(root / "data" / f"{split}-{first:05}-of-00002.{suffix}", table(count, first))
    return root


def check(dataset):
    assert dataset.class_names == tuple(NAMES)
    np.testing.assert_array_equal(dataset.splits["train"].images, [pixels(i) for i in range(9)])
    np.testing.assert_array_equal(dataset.splits["train"].labels, [0, 1, 2] * 3)
    np.testing.assert_array_equal(dataset.splits["test"].images, [pixels(i) for i in range(9, 12)])
    assert dataset.splits["train"].labels.dtype == np.int32


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_folder(tmp_path, suffix):
    root = str(folder(tmp_path, suffix))
    dataset = load("hf", data_dir=root)
    check(dataset)
    assert load("hf", data_dir=root, reading=Reading(cache=False)).fingerprint == dataset.fingerprint
    assert load("hf", data_dir=root, image_size=4, val_size=3).splits["val"].images.shape == (3, 4, 4, 3)
    assert load("hf", data_dir=root, splits=("test",)).class_names == tuple(NAMES)


def test_images_stay_encoded_in_arrow_files(tmp_path, monkeypatch):
    """The same set as in memory; an image is read when its batch is, by worker processes too."""
    root = folder(tmp_path, "arrow")
    whole = load("hf", data_dir=str(root), val_size=3)
    decoded = []
    monkeypatch.setattr(
        "sem_jax.data.encoded.decode", lambda *args, **options: decoded.append(0) or decode(*args, **options)
    )
    parts = load("hf", data_dir=str(root), val_size=3, splits=("train",), reading=Reading(encoded=True, cache=False))
    checked = len(decoded)
    assert isinstance(parts.splits["train"].images, RecordImages) and checked <= 2 * 9 + 1
    images = pickle.loads(pickle.dumps(parts.splits["train"].images))
    np.testing.assert_array_equal(images[np.array([4, 0])], whole.splits["train"].images[[4, 0]])
    assert len(decoded) == checked + 2
    np.testing.assert_array_equal(parts.splits["val"].images[:], whole.splits["val"].images)
    assert (parts.mean, parts.std, parts.class_names) == (whole.mean, whole.std, whole.class_names)
    for name in ("train", "val"):
        np.testing.assert_array_equal(parts.splits[name].labels, whole.splits[name].labels)
    monkeypatch.setattr("sem_jax.data.encoded.HOST_SHARE", 1e-9)
    assert isinstance(load("hf", data_dir=str(root), reading=Reading(encoded=None)).splits["test"].images, RecordImages)
    refused(folder(tmp_path / "packed"), "is parquet; images that stay encoded need Arrow files", encoded=True)


def test_a_hub_and_its_cache(hub, tmp_path):  # noqa: F811
    root = folder(tmp_path / "made")
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.parquet")}
    files |= {f"other/{name}": content for name, content in files.items()} | {"load.py": b"evil"}
    hub.add("some-one/pets", files, "dataset")
    with pytest.raises(DataError, match="is not in the cache\nFetch it: hf download some-one/pets --repo-type dataset"):
        load("hf", data_dir="hf://some-one/pets/data", reading=Reading(download=False))
    check(load("hf", data_dir="hf://some-one/pets/data"))
    asked = len(hub.requests)
    check(load("hf", data_dir="hf://datasets/some-one/pets/data", reading=Reading(download=False)))
    assert len(hub.requests) == asked and not any("load.py" in it for it in hub.requests)
    with pytest.raises(DataError, match="holds several sets: data, other/data\nName one of these folders"):
        load("hf", data_dir="hf://some-one/pets")
    with pytest.raises(DataError, match="no such repository"):
        load("hf", data_dir="hf://some-one/none")
    hub.add("some-one/script", {"load.py": b"evil"}, "dataset")
    with pytest.raises(DataError, match=r"has no file \*.parquet or \*.arrow"):
        load("hf", data_dir="hf://some-one/script")
    with pytest.raises(ConfigError, match="must be like hf://"):
        load("hf", data_dir="hf://pets")


def test_labels_of_other_types(tmp_path):
    texts = ["dog", "cat", "dog", "emu"]
    for split in ("train", "validation"):
        write(tmp_path / "a" / f"{split}.parquet", table(4, info=None, labels=texts))
        write(tmp_path / "b" / split / "0.parquet", table(4, info=None, labels=[1, 0, 1, 0], other=pa.array([7] * 4)))
    named = load("hf", data_dir=str(tmp_path / "a"))
    assert named.class_names == ("cat", "dog", "emu") and named.splits["test"].labels.tolist() == [1, 0, 1, 2]
    numbered = load("hf", data_dir=str(tmp_path / "b"))
    assert numbered.class_names == ("0", "1") and numbered.splits["train"].labels.tolist() == [1, 0, 1, 0]


def test_columns_by_name_and_a_secret_test_split(tmp_path):
    two = {"picture": pa.array([png(20 + i) for i in range(4)], pa.binary()), "age": pa.array([1, 0, 1, 0])}
    for split, labels in (("train", [0, 1, 2, 0]), ("validation", [2, 1, 0, 0]), ("test", [-1] * 4)):
        write(tmp_path / f"{split}.parquet", table(4, labels=labels, **two))
    where = {"data_dir": str(tmp_path)}
    with pytest.raises(DataError, match=r"2 columns that may be data.image_column; it has: image \(struct"):
        load("hf", **where)
    found = load("hf", **where, reading=Reading(image_column="picture")).splits
    np.testing.assert_array_equal(found["train"].images[0], pixels(20))
    assert found["test"].labels.tolist() == [2, 1, 0, 0]  # validation, since test keeps its labels secret
    ages = load("hf", **where, reading=Reading(image_column="image", label_column="age"))
    assert ages.splits["train"].labels.tolist() == [1, 0, 1, 0] and ages.class_names == ("0", "1")
    with pytest.raises(DataError, match="no column 'path' that may be data.image_column"):
        load("hf", **where, reading=Reading(image_column="path"))


def refused(root, words, **reading):
    with pytest.raises(DataError, match=words) as error:
        load("hf", data_dir=str(root), reading=Reading(**reading))
    assert len(str(error.value).splitlines()) <= 2, str(error.value)


def test_what_is_refused(tmp_path, monkeypatch):
    refused(tmp_path / "none", "is not a folder")
    refused(tmp_path, r"has no labelled split train \(it has: none\)")
    root = folder(tmp_path / "set")
    train = root / "data" / "train-00000-of-00002.parquet"
    good = train.read_bytes()
    for damage in (b"", b"PAR1" * 9, good[: len(good) // 2], good[:-60] + bytes(52) + good[-8:]):
        train.write_bytes(damage)
        refused(root, "train-00000-of-00002.parquet is damaged")
    only_path = pa.array([{"bytes": None, "path": "/etc/hostname"}] * 3, IMAGE)
    plain = table(3)
    for bad, words in (
        (plain.set_column(0, "image", only_path), "row 0 has no image, perhaps a path to one, which is not opened"),
        (table(3, labels=pa.array([0, None, 1])), "row 1 has no label"),
        (table(3, labels=[0, 1, 9]), "label 3 of image 2 is out of range, expected 0..2"),
        (table(3, labels=[0, 1, -7]), "label -1 of image 2 is out of range"),
        (
            plain.set_column(0, "image", pa.array([{"bytes": b"<html>", "path": ""}] * 3, IMAGE)),
            "row 0 is not a readable",
        ),
        (plain.drop_columns(["label"]), "0 columns that may be data.label_column"),
        (plain.drop_columns(["image"]), "0 columns that may be data.image_column"),
    ):
        write(train, bad)
        refused(root, words, cache=False)
    write(train, plain)
    monkeypatch.setattr("sem_jax.data.hub_data.GROUP", 100)
    refused(root, "row groups of up to [0-9,]+ bytes; at most", cache=False)


def test_hostile_arrow(tmp_path):
    root = folder(tmp_path, "arrow")
    train = root / "data" / "train-00000-of-00002.arrow"
    good = train.read_bytes()
    for damage in (b"", good[:100], b"\xff" * 200):
        train.write_bytes(damage)
        refused(root, "train-00000-of-00002.arrow is damaged", cache=False)
    write(train, table(6), options=pa.ipc.IpcWriteOptions(compression="zstd"))
    refused(root, "has compressed batches", cache=False)
    offsets = np.array([0, len(png(0))], "<i4").tobytes()  # of the first image
    assert good.count(offsets) == 1
    train.write_bytes(good.replace(offsets, np.array([0, 1 << 30], "<i4").tobytes()))
    refused(root, "train-00000-of-00002.arrow is damaged", cache=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_the_library_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})

    def part(first, count):
        rows = {"image": [Image.fromarray(pixels(first + i)) for i in range(count)]}
        return datasets.Dataset.from_dict(rows | {"label": [i % 3 for i in range(count)]}, features=features)

    parts = datasets.DatasetDict({"train": part(0, 9), "test": part(9, 3)})
    parts.save_to_disk(tmp_path / "disk")
    check(load("hf", data_dir=str(tmp_path / "disk")))
    check(load("hf", data_dir=str(tmp_path / "disk"), reading=Reading(encoded=True)))
    for split, it in parts.items():
        (tmp_path / "tables").mkdir(exist_ok=True)
        it.to_parquet(tmp_path / "tables" / f"{split}-00000-of-00001.parquet")
    check(load("hf", data_dir=str(tmp_path / "tables")))


@pytest.mark.parametrize("column", ["image", "struct", "label"])
def test_a_small_file_whose_rows_share_a_large_value_is_refused_within_bounds(tmp_path, column):
    """400 rows of one image of 8 MB, in a file of less than a kilobyte or two."""
    count, value = 400, bytes(8 << 20)
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value], pa.binary()))
    images, labels = shared, pa.array([i % 2 for i in range(count)])
    if column == "struct":
        images = pa.StructArray.from_arrays([shared, pa.array([""] * count)], ["bytes", "path"])
    elif column == "label":
        texts = pa.array([value.decode()], pa.string())
        images, labels = pa.array([b""] * count), pa.DictionaryArray.from_arrays(shared.indices, texts)
    options = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "store_schema": False}
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", pa.table({"image": images, "label": labels}), **options)
    assert (tmp_path / "train.parquet").stat().st_size < 4096
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    words = "a text of more than" if column == "label" else "row 16: the images so far have more than 134,217,728 bytes"
    refused(tmp_path, words, cache=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10  # KiB
