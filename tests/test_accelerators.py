"""What a GPU or a TPU would be given can be made without one, though not run: the training calls, looped on the device,
the streams stacked and in bfloat16 as there, are lowered for both."""

import jax
import jax.numpy as jnp
import pytest

from sem_jax.mixers import MIXERS
from sem_jax.programs import Programs
from tests.mixers.test_on_backbones import DATASET, configure, scorer  # noqa: F401

PLATFORMS = ("cuda", "tpu")
SLOW = ("preact_resnet", "vit")
OBJECTIVES = {
    "stop-gradient": {"clean_features": "stop_gradient"},
    "EMA teacher": {"clean_features": "ema_teacher"},
    "every third step": {"penalty_every": 3},
    "half of the pairs": {"penalty_fraction": 0.5},
    "two mixes": {"mixes_per_clean": 2},
    "RegMixup": {"regmixup": True},
}


def backbones(*names):
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


def check(backbone, mixer, *, objective=None, train=None):
    """Mixing steps are one call, which loops on the device, computes in bfloat16 and calls nothing on the host."""
    cfg = configure(backbone, mixer, sem=True)
    cfg.model.dtype, cfg.runtime.loop, cfg.runtime.streams = "bfloat16", "device", "stacked"
    cfg.objective.update(objective or {})
    cfg.train.update(train or {})
    programs = Programs(cfg, DATASET)
    state, order = programs.initial_state(), programs.order(0)
    (call,), _ = programs.lower(state, order, mixing=True, platforms=PLATFORMS)
    text = call.as_text()
    assert "stablehlo.while" in text and "bf16>" in text and "callback" not in text


def test_what_no_accelerator_has_is_refused():
    """So that a lowering that passes says something."""
    with pytest.raises(NotImplementedError, match="TPU|cuda|platform"):
        jax.jit(jnp.linalg.eigvals).trace(jnp.eye(2)).lower(lowering_platforms=PLATFORMS)


@pytest.mark.parametrize("backbone", backbones("preact_resnet", "vit", "mlp_mixer"))
@pytest.mark.parametrize("mixer", [name for name in MIXERS if name != "none"])
def test_every_mixer(scorer, mixer, backbone):  # noqa: F811
    check(backbone, mixer)


@pytest.mark.parametrize("backbone", backbones("preact_resnet", "mlp_mixer"))
@pytest.mark.parametrize("form", OBJECTIVES)
def test_every_form_of_the_penalty(form, backbone):
    check(backbone, "mixup", objective=OBJECTIVES[form])


@pytest.mark.parametrize("backbone", backbones("preact_resnet", "mlp_mixer"))
def test_micro_batches(backbone):
    check(backbone, "mixup", train={"gradient_accumulation": 2})
