"""Errors under the run's own mixer: by NumPy for a mixer of pixels, and zero where the features cannot tell."""

import jax
import numpy as np
import pytest

from sem_jax.evaluation import Options, evaluate
from sem_jax.evaluation.context import Context
from sem_jax.evaluation.run_data import load_splits
from sem_jax.evaluation.suites.own_mixing import represent_own
from sem_jax.interfaces import Outputs
from sem_jax.runs.opening import open_run, open_scorer
from tests.helpers.runs import write_run

SEED, COUNT = 3, 16
QUIET = {"suites": ["equivariance"], "umap": False, "pictures": False, "progress": False}


@pytest.fixture(scope="module")
def opened(run_dir):
    run = open_run(run_dir)
    return run, load_splits(run)


def own(opened, count=COUNT, model=None, **mixer):
    """`represent_own` of the tiny run as if it had been trained with another mixer."""
    run, loaded = opened
    cfg = run.config.copy_and_resolve_references()
    cfg.mixer.update(mixer)
    run = run._replace(config=cfg, model=model or run.model)
    return represent_own(Context(run, loaded, Options(seed=SEED, cached=False, progress=False)), count=count)


def test_equals_numpy_with_the_draws_that_are_seen(opened):
    """mixup with one lam for all pairs of a call is undone by hand: features of mixtures made with NumPy."""
    run, loaded = opened
    found = own(opened, name="mixup")
    rows = np.random.default_rng(SEED).permutation(len(loaded.splits["test"].labels))[:COUNT]
    images = np.asarray(loaded.splits["test"].images, np.float64)[rows] / 255
    images = (images - np.array(run.data.mean)) / np.array(run.data.std)
    # "roll": the partner is a neighbour. Which one, and with what weight, the labels' weights say.
    features = {
        shift: np.asarray(
            run.model.apply(
                run.variables,
                np.float32(
                    found.lam[:, None, None, None] * images
                    + (1 - found.lam[:, None, None, None]) * np.roll(images, shift, axis=0)
                ),
                train=False,
            ).features
        )
        for shift in (1, -1)
    }
    clean = np.asarray(run.model.apply(run.variables, np.float32(images), train=False).features)
    errors = {}
    for shift, mixed in features.items():
        partner = np.roll(clean, shift, axis=0)
        error = np.linalg.norm(mixed - (found.lam[:, None] * clean + (1 - found.lam[:, None]) * partner), axis=1)
        errors[shift] = error / np.linalg.norm(clean - partner, axis=1)
    assert any(np.allclose(found.relative, error, rtol=2e-3) for error in errors.values())
    assert not np.allclose(errors[1], errors[-1], rtol=2e-3)
    assert found.lam.min() >= 0 and found.lam.max() <= 1 and found.lam.std() > 0.1


class MeanColour:
    """Linear features, and one stage; calls the hook as every model does."""

    dtype = np.float32

    def apply(self, variables, images, *, train, at_stage=lambda k, hidden: hidden):
        del variables, train
        hidden = at_stage(1, at_stage(0, images))
        features = hidden.mean((1, 2))
        return Outputs(at_stage(2, features), features)


@pytest.mark.parametrize("name", ["mixup", "manifold_mixup", "cutmix", "resizemix"])
def test_linear_features_are_equivariant_to_blending_alone(opened, name):
    """The mean of a blend is the blend of the means, in pixels and in hidden states; a pasted part has its own mean."""
    found = own(opened, model=MeanColour(), name=name)
    errors = found.relative[found.middle]
    assert len(errors) and np.isfinite(found.relative).all()
    if "mixup" in name:
        assert errors.max() < 1e-4
    else:
        assert errors.mean() > 1e-3


def test_a_frozen_net_is_asked_and_one_that_is_gone_is_said(opened, run_dir, tmp_path, place):
    found = own(opened, name="attentive_cutmix", scorer=str(run_dir))
    assert np.isfinite(found.relative).all() and len(set(found.lam.tolist())) >= 1
    folder = tmp_path / "run"
    write_run(folder, place, steps=(1,))
    path = folder / "config.json"
    text = path.read_text()
    assert '"scorer": ""' in text and '"name": "mixup"' in text
    text = text.replace('"name": "mixup"', '"name": "attentive_cutmix"')
    path.write_text(text.replace('"scorer": ""', '"scorer": "gone"'))
    record = evaluate(folder, Options(data_dir=str(place), pairs=6, **QUIET))
    suite = record["suites"]["equivariance"]
    assert suite["status"] == "done" and "gone" in suite["note"] and "own mixing" in suite["note"]
    assert "relative error own mixer" not in suite["scalars"]


def test_a_scorer_sees_the_images_as_its_own_training_did(opened, run_dir):
    """Normalised by another mean and deviation, the maps are the same."""
    run, loaded = opened
    images = np.float32(loaded.splits["test"].images[:4]) / 255
    shape = run.data.image_shape
    maps = []
    for mean, std in (((0.5,) * 3, (0.25,) * 3), ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))):
        score = open_scorer(run_dir, image_shape=shape, mean=mean, std=std)
        maps.append(jax.jit(score)((images - np.float32(mean)) / np.float32(std), None))
    np.testing.assert_allclose(*maps, rtol=1e-4)


def test_the_report_has_it(run_dir, place, tmp_path):
    where = {"data_dir": str(place), "out": tmp_path, "items": tmp_path / "items.npz"}
    record = evaluate(run_dir, Options(**where, pairs=20, **QUIET))
    suite = record["suites"]["equivariance"]
    table = next(t for t in suite["tables"] if "own mixer" in t["title"])
    assert table["rows"][0][:2] == ["tiny", "mixup"]
    assert suite["scalars"]["relative error own mixer"] == table["rows"][0][3]
    stored = np.load(tmp_path / "items.npz")["relative error own"]
    np.testing.assert_allclose(np.nanmean(stored.astype(np.float64)), table["rows"][0][3], rtol=1e-3)
