"""Every mixer, with SEM and without, learns the digits on each kind of backbone. Takes minutes, so all are slow.

python -m pytest -n 0 -s -m slow tests/training/test_digits.py       # prints the test accuracy of each
"""

import functools
import runpy
import time
from pathlib import Path

import pytest

from sem_jax import config as config_lib
from sem_jax import data as data_lib
from sem_jax.mixers import MIXERS
from sem_jax.training import loop
from sem_jax.training.programs import Programs

pytestmark = pytest.mark.slow
GET_CONFIG = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "digits.py"))["get_config"]
# Fields that differ from configs/digits.py, and the gamma of the rows with SEM: LayerNorm makes the features of a ViT
# about sqrt(width) = 8 long, and at gamma 0.3 it stays at chance for so few epochs.
BACKBONES = {
    "preact_resnet": {
        "model": {"depth": 18, "width": 4},
        "train": {"epochs": 6, "batch_size": 64},
        "optim": {"learning_rate": 0.1},
    },
    "vit": {
        "model": {"depth": 1, "width": 64, "patch_size": 4, "heads": 4},
        "train": {"epochs": 8, "batch_size": 64},
        "optim": {"name": "adamw", "learning_rate": 3e-3, "weight_decay": 0.05},
    },
    "mlp_mixer": {
        "model": {"depth": 1, "width": 32, "patch_size": 4},
        "train": {"epochs": 8, "batch_size": 64},
        "optim": {"learning_rate": 0.3},
    },
}
GAMMA = {"preact_resnet": 0.3, "vit": 0.05, "mlp_mixer": 0.3}
BOUND = 0.3  # of ten classes with 36 images each: chance is 0.1
EVERY = [(mixer, sem, backbone) for mixer in MIXERS for sem in (False, True) for backbone in BACKBONES]
EVERY = [row for row in EVERY if row[:2] != ("none", True)]  # there is no penalty without mixing
load = functools.cache(data_lib.load)


def configure(mixer, sem, backbone, scorer=""):
    cfg = GET_CONFIG("mixup")
    cfg.model.name, cfg.mixer.name, cfg.mixer.scorer = backbone, mixer, scorer
    for group, fields in BACKBONES[backbone].items():
        cfg[group].update(fields)
    cfg.objective.gamma = GAMMA[backbone] if sem else 0.0
    cfg.runtime.devices, cfg.runtime.progress = 1, False
    config_lib.validate(cfg)
    return cfg


def train(cfg):
    """Test accuracy after the last epoch, by the trainer's programs without its files."""
    run = Programs(cfg, load("digits"))
    state, stage = run.initial_state(), run.mixing if run.mixing.steps else run.plain
    for epoch in range(cfg.train.epochs):
        order = run.order(epoch)
        sums = run.prepare(stage, state, order)
        state, sums = run.run(stage, state, sums, order, first=0, count=run.lengths.epoch)
    assert int(sums.bad_steps) == 0 and ("penalty" in sums.means) == (cfg.objective.gamma > 0)
    return run.evaluate(state, "test")["test_accuracy"]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """The run folder of the frozen net of attentive_cutmix, with 8x8 places of a pixel each."""
    folder = str(tmp_path_factory.mktemp("scorer") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.curves, "draw_curves", lambda *_, **__: None)  # takes longer than the training
        loop.train_and_evaluate(configure("none", False, "preact_resnet"), folder)
    return folder


@pytest.mark.parametrize(("mixer", "sem", "backbone"), EVERY)
def test_every_mixer_learns_the_digits_on_every_backbone(request, mixer, sem, backbone):
    cfg = configure(mixer, sem, backbone, request.getfixturevalue("scorer") if mixer == "attentive_cutmix" else "")
    begin = time.process_time()
    accuracy = train(cfg)
    print(f"\ndigits {mixer} {backbone} {'sem' if sem else '-'} {accuracy:.3f} {time.process_time() - begin:.1f} s CPU")
    assert accuracy > BOUND
