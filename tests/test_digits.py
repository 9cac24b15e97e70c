"""Every mixer, with SEM and without, learns the digits on each kind of backbone in a few epochs: minutes, so all slow.

python -m pytest -n 0 -s -m slow tests/test_digits.py       # prints the test accuracy of each
"""

import json
import runpy
import time
from pathlib import Path

import pytest

from sem_jax import loop
from sem_jax.mixers import MIXERS

pytestmark = pytest.mark.slow
GET_CONFIG = runpy.run_path(str(Path(__file__).parent.parent / "configs" / "digits.py"))["get_config"]
BACKBONES = {
    "preact_resnet": {"depth": 18, "width": 4},
    "vit": {"depth": 2, "width": 32, "patch_size": 2},
    "mlp_mixer": {"depth": 2, "width": 32, "patch_size": 2},
}
EPOCHS = 8
BOUND = 0.5
EVERY = [(backbone, mixer, sem) for backbone in BACKBONES for mixer in MIXERS for sem in (False, True)]
EVERY = [row for row in EVERY if row[1:] != ("none", True)]  # there is no penalty without mixing


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    monkeypatch.setattr(loop.report, "draw_curves", lambda *_, **__: None)  # takes longer than the training


def train(folder, backbone, mixer, sem, **changes):
    """result.json of a run whose configuration differs from configs/digits.py as a command line would have it."""
    cfg = GET_CONFIG("mixup+sem" if sem else "mixup")
    cfg.model.update({"name": backbone} | BACKBONES[backbone])
    cfg.mixer.name = mixer
    cfg.mixer.update(changes)
    cfg.train.epochs = cfg.train.eval_every = cfg.train.checkpoint_every = EPOCHS
    cfg.optim.learning_rate = 0.1
    cfg.runtime.devices, cfg.runtime.progress = 1, False
    loop.train_and_evaluate(cfg, str(folder))
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """The run folder of a net that says where to look."""
    folder = tmp_path_factory.mktemp("scorer") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.report, "draw_curves", lambda *_, **__: None)
        train(folder, "mlp_mixer", "none", False)
    return str(folder)


@pytest.mark.parametrize(("backbone", "mixer", "sem"), EVERY)
def test_every_mixer_learns_the_digits_on_every_backbone(tmp_path, request, backbone, mixer, sem):
    changes = {"scorer": request.getfixturevalue("scorer")} if mixer == "attentive_cutmix" else {}
    begin = time.process_time()
    result = train(tmp_path / "run", backbone, mixer, sem, **changes)
    seconds = time.process_time() - begin
    print(f"DIGITS {backbone} {mixer} {'sem' if sem else '-'} {result['test_accuracy']:.3f} {seconds:.1f}")
    assert result["method"] == ("erm" if mixer == "none" else mixer + ("+sem" if sem else ""))
    assert result["test_accuracy"] > BOUND  # of ten classes, as many items each
