"""Predictions: equal to the model called by hand, whatever the batches and devices; the cache believes nothing."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from sem_jax.data.augment import normalise
from sem_jax.errors import RunError
from sem_jax.evaluation.prediction_cache import Cache
from sem_jax.interfaces import Split
from sem_jax.mixers.mixup import MixupDraw, apply_mixup
from sem_jax.runs.opening import open_run
from sem_jax.runs.predict import Predictor, make_score, to_batches
from tests.helpers.runs import pictures


@pytest.fixture(scope="module")
def run(run_dir):
    return open_run(run_dir)


def predictor(run, **options):
    options = {"mean": run.data.mean, "std": run.data.std, "batch_size": 4, "progress": False} | options
    return Predictor(run.model, run.variables, **options)


def by_hand(run, images):
    x = (images / 255.0 - np.array(run.data.mean)) / np.array(run.data.std)
    return run.model.apply(run.variables, x.astype(np.float32), train=False)


@pytest.mark.parametrize("count", [1, 4, 7])
def test_outputs_are_the_models(run, count):
    images = pictures(count, seed=count)
    found, expected = predictor(run).outputs(images), by_hand(run, images)
    assert found.logits.shape == (count, 10) and found.features.dtype == np.float32
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.features, expected.features, rtol=1e-4, atol=1e-5)


def test_logits_alone_and_memory_mapped(run, tmp_path):
    images = pictures(6, seed=6)
    np.save(tmp_path / "images.npy", images)
    found = predictor(run).outputs(np.load(tmp_path / "images.npy", mmap_mode="r"), features=False)
    assert found.features.shape == (6, 0)
    np.testing.assert_allclose(found.logits, by_hand(run, images).logits, rtol=1e-4, atol=1e-5)


def test_mixed_pairs(run):
    anchor, partner = pictures(5, seed=1), pictures(5, seed=2)
    lam = np.linspace(0, 1, 5, dtype=np.float32)
    features, found = predictor(run).mixed(apply_mixup, MixupDraw(lam), anchor, partner)
    x, y = (normalise(it, run.data.mean, run.data.std) for it in (anchor, partner))
    weight = lam[:, None, None, None]
    expected = run.model.apply(run.variables, weight * x + (1 - weight) * y, train=False).features
    np.testing.assert_array_equal(found, lam)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_batch_is_halved_until_it_fits(run, monkeypatch):
    it, sizes = predictor(run, batch_size=8, devices=jax.devices()[:1]), []
    real = it._predict

    def limited(variables, batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
        return real(variables, batch)

    monkeypatch.setattr(it, "_predict", limited)
    images = pictures(8, seed=8)
    np.testing.assert_allclose(it.outputs(images).logits, by_hand(run, images).logits, rtol=1e-4, atol=1e-5)
    assert sizes == [8, 4, 2, 2, 2, 2]

    def full(variables, batch):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(it, "_predict", full)
    with pytest.raises(RunError, match="memory"):
        it.outputs(images)


def test_score_counts_every_item_once(run):
    images = pictures(7, seed=3)
    labels = np.arange(7, dtype=np.int32)
    batches = to_batches(Split(images, labels), batch_size=4)
    sums = make_score(run.model, mean=run.data.mean, std=run.data.std)(run.variables, batches)
    logits = np.asarray(by_hand(run, images).logits)
    assert float(sums["count"]) == 7
    assert float(sums["correct"]) == (logits.argmax(1) == labels).sum()


_FOUR = """
import sys, jax, numpy as np
from sem_jax.runs.opening import open_run
from sem_jax.runs.predict import Predictor
assert len(jax.devices()) == 4
run = open_run(sys.argv[1])
predictor = Predictor(run.model, run.variables, mean=run.data.mean, std=run.data.std, batch_size=6, progress=False)
np.savez(sys.argv[3], **predictor.outputs(np.load(sys.argv[2]))._asdict())
"""


def test_four_devices_give_the_same(run, run_dir, tmp_path):
    images = pictures(11, seed=4)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", _FOUR, str(run_dir), str(tmp_path / "images.npy"), str(tmp_path / "out.npz")]
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    subprocess.run(command, check=True, env=env, timeout=120)
    expected = predictor(run).outputs(images)
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_allclose(found["logits"], expected.logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["features"], expected.features, rtol=1e-4, atol=1e-5)


def made(calls, value=1.0):
    def make():
        calls.append(value)
        return {"logits": np.full((3, 2), value, np.float32)}

    return make


def test_cache_computes_once(tmp_path):
    calls = []
    for _ in range(2):
        cache = Cache(tmp_path, "model", "float32-cpu")
        for _ in range(2):
            assert (cache("my set/1", "images", made(calls))["logits"] == 1.0).all()
    assert calls == [1.0]
    (file,) = tmp_path.iterdir()  # no temporary file is left
    assert file.name.startswith("my_set_1-")


@pytest.mark.parametrize("other", [("model2", "float32-cpu", "images"), ("model", "bfloat16-gpu", "images"),
                                   ("model", "float32-cpu", "images2")])  # fmt: skip
def test_cache_tells_apart(tmp_path, other):
    calls = []
    Cache(tmp_path, "model", "float32-cpu")("set", "images", made(calls))
    Cache(tmp_path, *other[:2])("set", other[2], made(calls, 2.0))
    assert calls == [1.0, 2.0]


def _cut(file):
    file.write_bytes(file.read_bytes()[:-40])


def _flip(file):
    data = bytearray(file.read_bytes())
    at = data.index(np.float32(1.0).tobytes() * 6)
    data[at] ^= 1
    file.write_bytes(bytes(data))


def _other(file):
    index = {"key": "0", "arrays": {}}
    np.savez(file, index=np.frombuffer(json.dumps(index).encode(), np.uint8), logits=np.zeros((3, 2), np.float32))


def _pickle(file):
    np.savez(file, index=np.array([{}], dtype=object), logits=np.zeros(1))


@pytest.mark.parametrize("damage", [_cut, _flip, _other, _pickle, lambda f: f.write_bytes(b"")])
def test_damaged_entries_are_computed_again(tmp_path, damage, caplog):
    calls = []
    Cache(tmp_path, "model", "p")("set", "images", made(calls))
    (file,) = tmp_path.iterdir()
    damage(file)
    for _ in range(2):
        assert (Cache(tmp_path, "model", "p")("set", "images", made(calls))["logits"] == 1.0).all()
    assert calls == [1.0, 1.0] and "computing it again" in caplog.text


def test_predictions_that_somebody_else_wrote_are_computed_again(tmp_path, monkeypatch, caplog):
    """Their digests agree: a run folder could say anything about its net. One's own are used wherever the folder is."""
    calls = []
    monkeypatch.setenv("SEM_JAX_CACHE", str(tmp_path / "theirs"))
    Cache(tmp_path / "run", "model", "p")("set", "images", made([], 9.0))
    monkeypatch.setenv("SEM_JAX_CACHE", str(tmp_path / "ours"))
    for folder in ("run", "moved"):
        found = Cache(tmp_path / folder, "model", "p")("set", "images", made(calls))
        assert (found["logits"] == 1.0).all() and calls == [1.0]
        if folder == "run":
            assert "not written by this user" in caplog.text
            (tmp_path / "run").rename(tmp_path / "moved")
    key = tmp_path / "ours/predictions.key"
    assert len(key.read_bytes()) == 32 and key.stat().st_mode & 0o077 == 0


def test_predictions_are_signed_where_no_key_can_be_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEM_JAX_CACHE", str(tmp_path / "file/cache"))
    calls = []
    for _ in range(2):
        Cache(tmp_path / "run", "model", "p")("set", "images", made(calls))
    assert calls == [1.0]


def test_cache_that_lacks_an_array_is_computed_again(tmp_path):
    calls = []
    Cache(tmp_path, "model", "p")("set", "images", made(calls))
    make = lambda: {"logits": np.zeros(1), "features": np.ones(1)}  # noqa: E731
    assert "features" in Cache(tmp_path, "model", "p")("set", "images", make, wanted=("logits", "features"))


def test_cache_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    calls = []
    cache = Cache(tmp_path / "file", "model", "p")
    cache("set", "images", made(calls))
    cache("set", "images", made(calls))
    assert calls == [1.0] and "not kept" in caplog.text
