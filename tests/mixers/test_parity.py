"""The same box and lam as torchvision's and timm's CutMix and MixUp: the same image and label out.

Both are optional; the tests are skipped where they, or PyTorch, are not there or do not fit each other.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.mixers.cutmix import CutmixDraw, apply_cutmix
from sem_jax.mixers.mixup import MixupDraw, apply_mixup
from sem_jax.objectives.losses import mixed_targets

LABELS = np.array([0, 2, 1, 3])


def library(name):
    """The module, or a skip: torchvision raises RuntimeError when it was built for another PyTorch."""
    try:
        return pytest.importorskip(name, exc_type=ImportError)
    except RuntimeError as error:
        pytest.skip(f"{name} cannot be used: {error}")


def ours(images, pairing, *, box=None, lam=None):
    """Images NCHW as theirs, and soft targets, by our functions."""
    x = np.moveaxis(images, 1, -1)
    results = []
    for i, j in enumerate(pairing):
        if box is None:
            results.append(apply_mixup(MixupDraw(jnp.float32(lam)), x[i], x[j]))
        else:
            results.append(apply_cutmix(CutmixDraw(*map(jnp.int32, box)), x[i], x[j]))
    mixed, weights = map(np.stack, zip(*results, strict=True))
    targets = mixed_targets(jnp.asarray(LABELS), jnp.asarray(weights), jnp.asarray(pairing), num_classes=4)
    return np.moveaxis(mixed, -1, 1), targets


@pytest.fixture
def images(rng):
    return rng.normal(size=(4, 3, 12, 20)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", ["CutMix", "MixUp"])
def test_torchvision(images, method, seed):
    v2 = library("torchvision.transforms.v2")
    torch = pytest.importorskip("torch")
    torch.manual_seed(seed)
    transform = getattr(v2, method)(alpha=1.0, num_classes=4)
    seen = {}
    make = transform.make_params
    transform.make_params = lambda inputs: seen.setdefault("params", make(inputs))
    theirs, labels = transform(torch.from_numpy(images), torch.from_numpy(LABELS))
    params = seen["params"]
    if method == "CutMix":
        x1, y1, x2, y2 = params["box"]
        mixed, targets = ours(images, [3, 0, 1, 2], box=(y1, y2, x1, x2))
    else:
        mixed, targets = ours(images, [3, 0, 1, 2], lam=params["lam"])
    np.testing.assert_allclose(mixed, theirs.numpy(), atol=1e-6)
    np.testing.assert_allclose(targets, labels.numpy(), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", ["cutmix", "mixup"])
def test_timm(images, method, seed, monkeypatch):
    module = library("timm.data.mixup")
    torch = pytest.importorskip("torch")
    np.random.seed(seed)
    seen = {}
    draw = module.cutmix_bbox_and_lam

    def keep(*arguments, **options):
        seen["box"], lam = draw(*arguments, **options)
        return seen["box"], lam

    monkeypatch.setattr(module, "cutmix_bbox_and_lam", keep)
    alphas = (
        {"mixup_alpha": 1.0, "cutmix_alpha": 0.0} if method == "mixup" else {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}
    )
    mixup = module.Mixup(**alphas, label_smoothing=0.0, num_classes=4)
    x = torch.from_numpy(images.copy())
    lam = mixup._mix_batch(x)
    mixed, targets = ours(images, [3, 2, 1, 0], box=seen.get("box"), lam=lam)
    labels = module.mixup_target(torch.from_numpy(LABELS), 4, lam)
    np.testing.assert_allclose(mixed, x.numpy(), atol=1e-6)
    np.testing.assert_allclose(targets, labels.numpy(), atol=1e-6)
