"""Small runs on the digits with a tiny backbone, and steps put together by hand."""

from pathlib import Path

import jax
import numpy as np
import pytest

from sem_jax import config as config_lib
from sem_jax.mixers import MIXERS, make_mix
from sem_jax.models import MODELS
from sem_jax.objectives.build import make_objective
from sem_jax.runs.records import read_metrics
from sem_jax.training import loop
from sem_jax.training.draw import draw_clean, make_draw
from sem_jax.training.forward import make_forward
from sem_jax.training.gradient import make_gradient
from sem_jax.training.step import make_train_step
from tests.helpers.tiny_net import TinyNet

ROOT = Path(__file__).parents[2]
DRAW_CURVES = loop.curves.draw_curves


def make_tiny(*, num_classes, width, **_):
    return TinyNet(num_classes, width=width)


def use_tiny(patch):
    """One more row in MODELS, so that a run compiles in a moment; and no curves, which take longer than the rest."""
    patch.setitem(MODELS, "tiny", make_tiny)
    patch.setattr(loop.curves, "draw_curves", lambda *_, **__: None)


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    """For test modules that import it: `use_tiny` in every test."""
    use_tiny(monkeypatch)


def configure(method="mixup+sem", **changes):
    """Two epochs of five steps; changes as objective__gamma=0.5."""
    cfg = config_lib.get_default()
    cfg.data.name, cfg.data.crop_padding, cfg.data.flip = "digits", 1, False
    cfg.model.name, cfg.model.width = "tiny", 8
    cfg.train.epochs, cfg.train.batch_size, cfg.train.checkpoint_every, cfg.train.eval_every = 2, 256, 1, 1
    cfg.optim.learning_rate = 0.5
    cfg.runtime.devices, cfg.runtime.progress = 1, False
    config_lib.apply_method(cfg, method)
    for name, value in changes.items():
        group, field = name.split("__")
        cfg[group][field] = value
    return cfg


def run(tmp_path, name="run", *, extend=False, deadline=None, **changes):
    return loop.train_and_evaluate(configure(**changes), str(tmp_path / name), extend=extend, deadline=deadline)


def records(path, *ignored):
    """metrics.jsonl without what depends on the clock."""
    ignored = {"seconds", "images_per_s", *ignored}
    return [{k: v for k, v in r.items() if k not in ignored} for r in read_metrics(path)]


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def build_step(
    model,
    tx,
    *,
    mixer="mixup",
    clean=True,
    stacked=False,
    bn_running="both",
    remat="none",
    parts=1,
    unroll=True,
    groups=1,
    **objective,
):
    """A training step; `mixer` a name, or None for ERM.

    parts: micro-batches. groups: equal parts of the batch that are paired within themselves.
    objective: options of `make_objective`.
    """
    mix = mixer and make_mix(MIXERS[mixer](alpha=1.0), groups=groups)
    return make_train_step(
        draw_clean if mixer is None else make_draw(mix, clean_pass=clean),
        make_gradient(
            make_forward(model, stacked=stacked, bn_running=bn_running, remat=remat),
            make_objective(groups=groups, **objective),
            micro_batches=parts,
            unroll=unroll,
        ),
        tx,
    )
