"""Runs on streamed data: the numbers of the same images in memory, resume in the middle, ImageNet-shaped pictures."""

import jax
import numpy as np
import pytest
from PIL import Image

from sem_jax import config as config_lib
from sem_jax import loop
from sem_jax.errors import DataError
from sem_jax.records import read_metrics
from sem_jax.signals import Interrupted
from tests.test_loop import assert_equal, make_tiny

pytest.importorskip("grain")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    from sem_jax.models import MODELS

    monkeypatch.setitem(MODELS, "tiny", make_tiny)
    monkeypatch.setattr(loop.report, "draw_curves", lambda *_, **__: None)
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


def test_a_streamed_run_equals_the_resident_one_bit_for_bit(photos, tmp_path):
    """Batches, statistics, fingerprint: everything. So a run may even change over in the middle."""
    state = loop.train_and_evaluate(configure(photos, runtime__residency="device"), str(tmp_path / "device"))
    # With a trace captured: it changes nothing.
    streamed = loop.train_and_evaluate(
        configure(photos, runtime__residency="stream", runtime__steps_per_call=2),
        str(tmp_path / "stream"),
        profile=True,
    )
    assert list((tmp_path / "stream/profile").rglob("*.xplane.pb"))
    assert_equal(state, streamed)
    for a, b in zip(*(read_metrics(tmp_path / name) for name in ("device", "stream")), strict=True):
        assert a["test_accuracy"] == b["test_accuracy"] and a["loss"] == b["loss"]
        np.testing.assert_allclose(a["test_nll"], b["test_nll"], rtol=1e-6)
    data = [(tmp_path / name / "data.json").read_text() for name in ("device", "stream")]
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
