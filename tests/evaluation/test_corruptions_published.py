"""The published layouts, made here as small files in the official formats, and everything that may be wrong in them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sem_jax.errors import DataError
from sem_jax.evaluation.corruptions import SEVERITIES
from sem_jax.evaluation.corruptions.published import NAMES, TFDS_NAMES, open_published

CLEAN = np.array([3, 8, 8, 0, 6, 6, 1], np.int32)
COUNT = len(CLEAN)


def pixels(name, severity, count=COUNT, size=32):
    """Images that tell which corruption, severity and place they are."""
    value = np.full((count, size, size, 3), 0, np.uint8)
    value[..., 0], value[..., 1] = NAMES.index(name), severity
    value[..., 2] = np.arange(count)[:, None, None]
    return value


@pytest.fixture
def arrays(tmp_path):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    for name in NAMES:
        np.save(folder / f"{name}.npy", np.concatenate([pixels(name, severity) for severity in SEVERITIES]))
    np.save(folder / "labels.npy", np.tile(CLEAN, 5).astype(np.uint8))
    return folder


def assert_refused(call, *words):
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) <= 3
    for word in words:
        assert word in message, message


def test_arrays(arrays):
    corrupted = open_published(str(arrays), clean_labels=CLEAN)
    assert corrupted.layout == "arrays" and corrupted.names == NAMES and corrupted.path == str(arrays)
    for name in NAMES:
        for severity in SEVERITIES:
            images, labels = corrupted.read(name, severity)
            assert np.array_equal(images, pixels(name, severity)) and images.dtype == np.uint8
            assert isinstance(images, np.memmap) and not images.flags.writeable
            assert np.array_equal(labels, CLEAN) and labels.dtype == np.int32


def test_the_four_extra_corruptions_are_left_out(arrays):
    """The published sets have 19; results, the paper's too, are means over the 15."""
    for name in ("speckle_noise", "gaussian_blur", "spatter", "saturate"):
        shutil.copy(arrays / "fog.npy", arrays / f"{name}.npy")
    assert open_published(str(arrays), clean_labels=CLEAN).names == NAMES and len(NAMES) == 15


def test_arrays_of_the_official_size_by_default(tmp_path):
    # 50,000 images of 3072 bytes that take no room: the file is a header and a hole.
    for rows in (50_000, 49_999):
        array = np.lib.format.open_memmap(tmp_path / "fog.npy", "w+", np.uint8, (rows, 32, 32, 3))
        del array
        np.save(tmp_path / "labels.npy", np.tile(np.arange(10_000) % 10, 5))
        if rows == 50_000:
            assert open_published(str(tmp_path), names=("fog",)).read("fog", 5).images.shape == (10_000, 32, 32, 3)
        else:
            assert_refused(
                lambda: open_published(str(tmp_path), names=("fog",)),
                "fog.npy is uint8 [49999, 32, 32, 3], expected uint8 [50000, 32, 32, 3]",
            )
    np.save(tmp_path / "labels.npy", np.zeros(49_999, np.uint8))
    assert_refused(lambda: open_published(str(tmp_path), names=("fog",)), "labels.npy", "[49999]", "[50000]")


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((5 * COUNT, 32, 32, 3), np.float32), "float32"),
        (np.zeros((5 * COUNT, 32, 32, 3), np.int8), "int8"),
        (np.zeros((5 * COUNT, 3, 32, 32), np.uint8), "[35, 3, 32, 32]"),
        (np.zeros((5 * COUNT, 32, 32), np.uint8), "[35, 32, 32]"),
        (np.zeros((5 * COUNT - 1, 32, 32, 3), np.uint8), "[34, 32, 32, 3]"),
    ],
)
def test_wrong_array(arrays, array, found):
    np.save(arrays / "snow.npy", array)
    assert_refused(lambda: open_published(str(arrays), clean_labels=CLEAN), "snow.npy", found, "uint8 [35, 32, 32, 3]")


def test_object_array_is_not_unpickled(arrays):
    np.save(arrays / "snow.npy", np.array([{}] * 35, dtype=object), allow_pickle=True)
    assert_refused(lambda: open_published(str(arrays), clean_labels=CLEAN), "snow.npy", "objects")
    np.save(arrays / "labels.npy", np.array([0] * 35, dtype=object), allow_pickle=True)
    assert_refused(lambda: open_published(str(arrays), clean_labels=CLEAN), "labels.npy", "objects")


def test_damaged_files(arrays):
    whole = (arrays / "fog.npy").read_bytes()
    for content in (b"", b"\x93NUMPY", whole[:200], whole[:-1], b"PK\x03\x04 not an array", b"text"):
        (arrays / "fog.npy").write_bytes(content)
        assert_refused(lambda: open_published(str(arrays), clean_labels=CLEAN), "fog.npy")


def test_missing_arrays_are_listed(arrays):
    (arrays / "fog.npy").unlink()
    (arrays / "jpeg_compression.npy").unlink()
    assert_refused(lambda: open_published(str(arrays)), "lacks 2 of 16 files: fog.npy, jpeg_compression.npy")
    assert open_published(str(arrays), clean_labels=CLEAN, names=("snow",)).names == ("snow",)
    (arrays / "labels.npy").unlink()
    assert_refused(lambda: open_published(str(arrays), clean_labels=CLEAN, names=("snow",)), "labels.npy")


def test_wrong_labels(arrays):
    path = arrays / "labels.npy"

    def refused(labels, *words):
        np.save(path, labels)
        assert_refused(lambda: open_published(str(arrays), clean_labels=CLEAN), "labels.npy", *words)

    good = np.tile(CLEAN, 5)
    refused(good[:-1], "[34]", "[35]")
    refused(good.astype(float), "float64")
    refused(good.reshape(5, -1), "[5, 7]")
    refused(np.where(good == 6, 10, good), "labels from 0 to 10, expected 0 to 9")
    refused(np.where(good == 6, -1, good), "labels from -1 to 8")
    refused(np.repeat(CLEAN, 5), "severity 2 differ", "five times")
    other = good.copy()
    other[3 * COUNT + 2] = 1
    refused(other, "severity 4 differ", "Image 2 has 1 and 8")
    shuffled = np.tile(CLEAN[[1, 0, 2, 3, 4, 5, 6]], 5)
    refused(shuffled, "2 of 7 labels differ", "image 0")
    np.save(path, np.where(good == 8, 77, good))
    clean = np.where(CLEAN == 8, 77, CLEAN)
    assert open_published(str(arrays), clean_labels=clean, num_classes=100).read("fog", 1).labels[1] == 77


def test_unknown_request(arrays):
    corrupted = open_published(str(arrays), clean_labels=CLEAN, names=("fog", "snow"))
    for name, severity in (("frost", 1), ("fog", 0), ("fog", 6)):
        assert_refused(lambda n=name, s=severity: corrupted.read(n, s), "opened: fog, snow")


def test_nothing_there(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        assert_refused(lambda p=path: open_published(str(p)), f"no corrupted set at {path}", "Expected")


# ---- Tiny-ImageNet-C ------------------------------------------------------------------------------------------------

CLASSES = ("n01443537", "n01629819", "n01641577")


@pytest.fixture(scope="module")
def made_folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "Tiny-ImageNet-C"
    for name in NAMES:
        for severity in SEVERITIES:
            images = pixels(name, severity, count=5, size=64)
            for i, image in enumerate(images):
                path = folder / name / str(severity) / CLASSES[i // 2] / f"val_{i}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image * 10).save(path, quality=85)
    return folder


@pytest.fixture
def folders(made_folders, tmp_path):
    return shutil.copytree(made_folders, tmp_path / "Tiny-ImageNet-C")


def test_folders(made_folders):
    labels = np.array([0, 0, 1, 1, 2])
    corrupted = open_published(str(made_folders), clean_labels=labels[::-1])
    assert corrupted.layout == "folders"
    for name in ("fog", "glass_blur"):
        for severity in (1, 5):
            split = corrupted.read(name, severity)
            assert split.images.shape == (5, 64, 64, 3) and split.images.dtype == np.uint8
            expected = pixels(name, severity, 5, 64).astype(int) * 10
            assert np.abs(split.images - expected).max() <= 4  # JPEG
            assert np.array_equal(split.labels, labels) and split.labels.dtype == np.int32
    reverse = open_published(str(made_folders), class_names=CLASSES[::-1])
    assert np.array_equal(reverse.read("fog", 1).labels, 2 - labels)


def test_folder_errors(folders):
    def refused(*words, **options):
        assert_refused(lambda: open_published(str(folders), **options), *words)

    refused("3 class folders, expected 2", "n01641577", class_names=CLASSES[:2])
    refused("has 1 images of class 2, expected 0", clean_labels=np.array([0, 0, 1, 1]))
    (folders / "fog" / "2" / CLASSES[0] / "val_1.JPEG").rename(folders / "fog" / "2" / CLASSES[0] / "val_9.JPEG")
    refused("fog/2 has 5 images, expected 5", f"{CLASSES[0]}/val_1.JPEG")
    (folders / "fog" / "2" / CLASSES[0] / "val_9.JPEG").rename(folders / "fog" / "2" / CLASSES[1] / "val_1.JPEG")
    refused("fog/2 has 5 images", "differing")
    shutil.rmtree(folders / "fog" / "2")
    shutil.rmtree(folders / "snow")
    refused("lacks 6 of 75 folders: snow/1, snow/2, snow/3, snow/4, snow/5, fog/2")
    corrupted = open_published(str(folders), names=("frost",))
    picture = folders / "frost" / "1" / CLASSES[0] / "val_0.JPEG"
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(picture)
    assert_refused(lambda: corrupted.read("frost", 1), "val_0.JPEG has 32x32 pixels, expected 64x64")
    picture.write_bytes(b"nothing")
    assert_refused(lambda: corrupted.read("frost", 1), "val_0.JPEG is not a readable image")


# ---- tfds -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_tfds(tmp_path_factory):
    """fog and glass_blur as tfds itself writes them to array_record, under the official names."""
    tfds = pytest.importorskip("tensorflow_datasets")
    root = tmp_path_factory.mktemp("tfds")

    class Cifar10Corrupted(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [
            tfds.core.BuilderConfig(name=f"{TFDS_NAMES[name]}_{severity}", description="-")
            for name in ("fog", "glass_blur")
            for severity in SEVERITIES
        ]

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"test": self._generate_examples()}

        def _generate_examples(self):
            kind, severity = self.builder_config.name.rsplit("_", 1)
            name = {official: ours for ours, official in TFDS_NAMES.items()}[kind]
            for i, image in enumerate(pixels(name, int(severity))):
                yield i, {"image": Image.fromarray(image), "label": int(CLEAN[i])}

    for config in Cifar10Corrupted.BUILDER_CONFIGS:
        Cifar10Corrupted(data_dir=str(root), config=config.name, file_format="array_record").download_and_prepare()
    return root


@pytest.mark.filterwarnings("ignore")  # tfds and protobuf warn about themselves
def test_tfds(made_tfds, tmp_path):
    assert (made_tfds / "cifar10_corrupted" / "frosted_glass_blur_3" / "1.0.0").is_dir()
    names = ("fog", "glass_blur")
    corrupted = open_published(str(made_tfds), clean_labels=CLEAN, names=names)
    assert corrupted.layout == "tfds" and corrupted.names == names
    for name in names:
        for severity in (1, 4):
            images, labels = corrupted.read(name, severity)
            order = images[:, 0, 0, 2]  # tfds shuffles when it writes
            assert sorted(order) == list(range(COUNT))
            assert np.array_equal(images, pixels(name, severity)[order])
            assert np.array_equal(labels, CLEAN[order]) and labels.dtype == np.int32

    assert_refused(lambda: open_published(str(made_tfds)), "lacks 65 of 75 prepared sets: gaussian_noise_1,")
    wrong = open_published(str(made_tfds), names=names, clean_labels=CLEAN[:-1])
    assert_refused(lambda: wrong.read("fog", 1), "has 1 images of class 1, expected 0")
    few = open_published(str(made_tfds), names=names, num_classes=8)
    assert_refused(lambda: few.read("fog", 1), "labels from 0 to 8, expected 0 to 7")

    copy = shutil.copytree(made_tfds, tmp_path / "copy")
    folder = copy / "cifar10_corrupted" / "fog_2" / "1.0.0"
    (record,) = folder.glob("*.array_record*")
    record.write_bytes(record.read_bytes()[:100])
    assert_refused(
        lambda: open_published(str(copy), names=names).read("fog", 2),
        "fog_2",
        "has 0 records",
        "Prepare cifar10_corrupted/fog_2 again",
    )
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "riegeli"}))
    assert_refused(
        lambda: open_published(str(copy), names=names), "file format riegeli, expected array_record or tfrecord"
    )
    (folder / "dataset_info.json").write_text("{")
    assert_refused(lambda: open_published(str(copy), names=names), "dataset_info.json is damaged")
