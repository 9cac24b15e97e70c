"""Runs on images that stay encoded on disk: the numbers of those in memory, resume in the middle, real shapes."""

import json
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from sem_jax import config as config_lib
from sem_jax.errors import DataError
from sem_jax.evaluation import Options, evaluate
from sem_jax.runs.records import read_metrics
from sem_jax.system.signals import Interrupted
from sem_jax.training import loop
from tests.helpers.training import assert_equal, use_tiny

pytest.importorskip("grain")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    use_tiny(monkeypatch)
    monkeypatch.setenv("SEM_JAX_CACHE", str(tmp_path / "cache"))


def write_photos(root, *, train, test):
    """Pictures of many sizes, as JPEG, brighter in one class than in the other; so many of each class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for label, name in enumerate(("dark", "light")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                size = rng.integers(20, 50, 2)
                pixels = rng.integers(100 * label, 100 * label + 120, (*size, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.jpg")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), train=10, test=3)


def configure(photos, **changes):
    cfg = config_lib.get_default()
    cfg.data.name, cfg.data.dir, cfg.data.image_size, cfg.data.crop_padding = "image_folder", str(photos), 16, 1
    cfg.model.name, cfg.model.width = "tiny", 8
    cfg.train.epochs, cfg.train.batch_size, cfg.train.checkpoint_every, cfg.train.eval_every = 2, 4, 1, 1
    cfg.optim.learning_rate = 0.1
    cfg.runtime.devices, cfg.runtime.progress, cfg.runtime.workers = 1, False, 0
    cfg.runtime.eval_batch_size = 4  # of six pictures: the last batch is not full
    for name, value in changes.items():
        group, field = name.split("__")
        cfg[group][field] = value
    return config_lib.apply_method(cfg, "mixup+sem")


def cropped(**changes):
    return {"data__crop_padding": 0, "data__crop_scale": 0.08, "data__eval_crop": 0.875} | changes


def test_an_encoded_run_equals_the_resident_one_bit_for_bit(photos, tmp_path):
    """Batches, statistics, fingerprint: everything. So a run may even change over in the middle."""
    state = loop.train_and_evaluate(configure(photos, runtime__residency="device"), str(tmp_path / "device"))
    # With a trace captured: it changes nothing.
    encoded = loop.train_and_evaluate(
        configure(photos, runtime__residency="disk", runtime__steps_per_call=2),
        str(tmp_path / "disk"),
        profile=True,
    )
    assert list((tmp_path / "disk/profile").rglob("*.xplane.pb"))
    assert_equal(state, encoded)
    for a, b in zip(*(read_metrics(tmp_path / name) for name in ("device", "disk")), strict=True):
        assert a["test_accuracy"] == b["test_accuracy"] and a["loss"] == b["loss"]
        np.testing.assert_allclose(a["test_nll"], b["test_nll"], rtol=1e-6)
    data = [(tmp_path / name / "data.json").read_text() for name in ("device", "disk")]
    assert data[0] == data[1]


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_random_resized_crops_resume_in_the_middle_of_an_epoch(photos, tmp_path, monkeypatch, devices):
    options = cropped(runtime__devices=devices, runtime__steps_per_call=2, data__val_size=4)
    whole = loop.train_and_evaluate(configure(photos, **options), str(tmp_path / "whole"))
    assert int(whole.step) == 2 * 4
    run, calls = loop.Programs.run, []

    def stop_later(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 3:  # the first call of the second epoch
            raise_signal()
        return run(self, *arguments, **named)

    def raise_signal():
        import signal

        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop.Programs, "run", stop_later)
    with pytest.raises(Interrupted):
        loop.train_and_evaluate(configure(photos, **options), str(tmp_path / "parts"))
    again = loop.train_and_evaluate(configure(photos, **options), str(tmp_path / "parts"))
    assert_equal(whole, again)


@pytest.mark.slow
def test_mixing_partners_come_from_other_devices(photos, tmp_path):
    """Two devices hold half a batch each; numbers are those of one, up to the order of sums."""
    one, two = (
        loop.train_and_evaluate(
            configure(photos, **cropped(runtime__devices=n, train__epochs=1)), str(tmp_path / f"{n}")
        )
        for n in (1, 2)
    )
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_allclose(a, jax.device_get(b), atol=1e-4)


def test_a_damaged_picture_is_named_before_the_first_step(photos, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(photos, root)
    (root / "train/dark/7.jpg").write_bytes((photos / "train/dark/7.jpg").read_bytes()[:300])
    with pytest.raises(DataError, match=r"train/dark/7.jpg is not a readable image") as caught:
        loop.train_and_evaluate(configure(root, **cropped()), str(tmp_path / "run"))
    assert len(str(caught.value).splitlines()) <= 3


def write_records(root, photos):
    """The pictures as tensorflow-datasets keeps ImageNet: JPEGs of any size in array_record, test without labels."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Imagenet2012(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("5.1.0")
        url_infos = {}  # else it looks for a file of checksums

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=["dark", "light"]),
                "file_name": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(name) for name in ("train", "validation", "test")}

        def _generate_examples(self, split):
            for path in sorted((photos / ("train" if split == "train" else "test")).glob("*/*.jpg")):
                name = f"{path.parent.name}/{path.name}"
                label = -1 if split == "test" else path.parent.name
                yield name, {"image": path.read_bytes(), "label": label, "file_name": name}

    Imagenet2012(data_dir=str(root), file_format="array_record").download_and_prepare()
    return root / "imagenet2012" / "5.1.0"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # tfds and protobuf warn about themselves
@pytest.mark.parametrize("source", ["image_folder", "tfds"])
def test_the_imagenet_configuration_trains_and_is_scored(photos, tmp_path, source):
    """From files and from records, the net apart; the evaluation sees what the run saw of test."""
    cfg = runpy.run_path(ROOT / "configs/resnet50_imagenet.py")["get_config"]("cutmix+es+sem")
    assert (cfg.mixer.alpha, cfg.model.depth, cfg.model.stem, cfg.data.eval_crop) == (1.0, 50, "7x7s2", 0.875)
    cfg.data.name, cfg.data.image_size = source, 32
    cfg.data.dir = str(photos if source == "image_folder" else write_records(tmp_path, photos))
    cfg.model.name, cfg.model.width, cfg.train.batch_size, cfg.train.epochs = "tiny", 8, 4, 8
    cfg.runtime.devices, cfg.runtime.progress = 1, False
    loop.train_and_evaluate(cfg, str(tmp_path / "run"))
    rates = [record["learning_rate"] for record in read_metrics(tmp_path / "run")]
    by_hand = [  # 40 steps, 25 of them warm-up; a tenth from steps 13.3, 26.7 and 35.6 on
        0.1 * min(s / 25, 1) * 0.1 ** sum(s > f * 40 for f in (30 / 90, 60 / 90, 80 / 90)) for s in range(4, 40, 5)
    ]
    np.testing.assert_allclose(rates, by_hand, rtol=1e-5)
    result = json.loads((tmp_path / "run/result.json").read_text())
    evaluate(str(tmp_path / "run"), Options.quick(suites=("clean",)))
    scored = json.loads((tmp_path / "run/evaluation/eval.json").read_text())
    assert "Test split, checked by its fingerprint." in json.dumps(scored)
    assert (tmp_path / "run/evaluation/eval.html").stat().st_size > 0
    assert scored["suites"]["clean"]["scalars"]["top1"] == pytest.approx(result["test_accuracy"])
