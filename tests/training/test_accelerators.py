"""The training calls are lowered for GPU and TPU without having one: looped on the device, passes stacked, bfloat16."""

import jax
import jax.numpy as jnp
import pytest

from sem_jax.mixers import MIXERS
from sem_jax.training.programs import Programs
from tests.mixers.test_on_backbones import DATASET, configure, scorer  # noqa: F401

PLATFORMS = ("cuda", "tpu")
BACKBONES = ("preact_resnet", "vit", "mlp_mixer")
# In the fast tier, on the smallest net: mixers that sort, transform, loop and branch in ways of their own.
FAST = ("mixup", "fmix", "saliencymix", "puzzlemix", "alignmix")
OBJECTIVES = {
    "stop-gradient": {"clean_features": "stop_gradient"},
    "EMA teacher": {"clean_features": "ema_teacher"},
    "every third step": {"penalty_every": 3},
    "half of the pairs": {"penalty_fraction": 0.5},
    "two mixes": {"mixes_per_clean": 2},
    "RegMixup": {"regmixup": True},
}


def rows(names, backbones, *, fast):
    """Every name on every backbone; but for the fast ones on the smallest, slow."""
    return [
        pytest.param(name, backbone, marks=() if name in fast and backbone == "mlp_mixer" else pytest.mark.slow)
        for name in names
        for backbone in backbones
    ]


def check(backbone, mixer, *, objective=None, train=None):
    """Mixing steps are one call, which loops on the device, computes in bfloat16 and calls nothing on the host."""
    cfg = configure(backbone, mixer, sem=True)
    cfg.model.dtype, cfg.runtime.loop, cfg.runtime.passes = "bfloat16", "device", "stacked"
    cfg.objective.update(objective or {})
    cfg.train.update(train or {})
    programs = Programs(cfg, DATASET)
    state, order = programs.initial_state(), programs.order(0)
    (call,), _ = programs.lower(programs.mixing, state, order, platforms=PLATFORMS)
    text = call.as_text()
    assert "stablehlo.while" in text and "bf16>" in text and "callback" not in text


def test_what_no_accelerator_has_is_refused():
    """jax lowers general eigenvalues for CPU only, so a lowering that passes means something."""
    with pytest.raises(NotImplementedError, match="TPU|cuda|platform"):
        jax.jit(jnp.linalg.eigvals).trace(jnp.eye(2)).lower(lowering_platforms=PLATFORMS)


@pytest.mark.parametrize(("mixer", "backbone"), rows([m for m in MIXERS if m != "none"], BACKBONES, fast=FAST))
def test_every_mixer(scorer, mixer, backbone):  # noqa: F811
    check(backbone, mixer)


@pytest.mark.parametrize(("form", "backbone"), rows(OBJECTIVES, BACKBONES[::2], fast=("every third step",)))
def test_every_form_of_the_penalty(form, backbone):
    check(backbone, "mixup", objective=OBJECTIVES[form])


def test_micro_batches():
    check("mlp_mixer", "mixup", train={"gradient_accumulation": 2})
