"""Plans: on the device at hand, and for hardware that is not here where its compiler is installed."""

import importlib.util
from types import SimpleNamespace

import jax
import pytest

from sem_jax import config
from sem_jax.errors import ConfigError
from sem_jax.system import targets
from sem_jax.system.compiler import step_options
from sem_jax.system.program_text import has_images
from sem_jax.training import plan as planning
from sem_jax.training.plan import plan
from tests.helpers.training import tiny_backbone  # noqa: F401

TINY = {
    "data.name": "digits",
    "model.name": "tiny",
    "model.width": 8,
    "train.epochs": 4,
    "train.batch_size": 128,
    "data.crop_padding": 1,
    "runtime.devices": 1,
    "runtime.progress": False,
}
NET = {"model.name": "mlp_mixer", "model.depth": 1, "model.width": 16, "model.patch_size": 4, "train.batch_size": 32}


def configure(method="mixup+sem", **fields):
    cfg = config.override(config.apply_method(config.get_default(), method), fields)
    config.validate(cfg)
    return cfg


def test_at_hand_real_steps_are_timed(monkeypatch):
    monkeypatch.setattr(planning, "SECONDS", 0.0)
    found = plan(configure("mixup+es+sem", **TINY))
    mixing, plain = found.steps
    assert (mixing.steps, plain.steps) == (3 * 11, 11), "1,437 images are 11 steps an epoch; ES mixes in three of four"
    assert found.seconds == pytest.approx(33 * mixing.seconds + 11 * plain.seconds) and plain.seconds > 0
    assert mixing.flops > 1.5 * plain.flops, "SEM runs the net twice"
    assert found.parameters > 0 and found.features == 8
    assert found.checkpoint >= 8 * found.parameters, "parameters and momentum, float32"
    page = str(found)
    assert "mixup+es+sem | digits | tiny" in page and "measured on random images" in page and "44" not in found.hardware
    found._replace(memory_limit=found.memory).check()
    with pytest.raises(ConfigError, match="does not fit into the memory of 1 x cpu"):
        found._replace(memory_limit=found.memory - 1).check()


def test_own_images_are_assumed_to_be_as_many_as_imagenets(monkeypatch):
    monkeypatch.setattr(planning, "SECONDS", 0.0)
    own = {"data.name": "image_folder", "data.dir": "/nothing/here", "data.image_size": 8}
    found = plan(configure("erm", **{**TINY, **own, "data.train_size": 5000, "model.num_classes": 7}))
    assert "5,000 images of 8x8 in 7 classes" in found.notes[0]
    assert found.steps[0].steps == 4 * (5000 // 128)


def test_a_compiler_that_fails_is_one_line():
    def compile(**options):
        raise jax.errors.JaxRuntimeError("INTERNAL: no tile\nsizes")

    with pytest.raises(ConfigError, match="the compiler for h100 failed: INTERNAL: no tile"):
        planning.read_compiled(SimpleNamespace(compile=compile), targets.find_target("h100"), {})


@pytest.mark.parametrize(
    "text", ["v9", "", "v5e:3x3", "v5e:2x2x2", "v4:2x2", "h100:2", "v5e:0x0", "v5e:", "v5e:2x2x", "V5"]
)
def test_unknown_targets_name_the_known_ones(text):
    if text == "v5e:":
        assert targets.find_target(text).shape == (1, 1)
        return
    with pytest.raises(ConfigError) as error:
        targets.find_target(text)
    assert "v6e:1x1" in str(error.value) and "h200" in str(error.value)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is here")
def test_without_its_compiler_a_target_names_the_extra():
    with pytest.raises(ConfigError) as error:
        plan(configure("erm", **TINY), "v5e")
    assert 'pip install "jax[tpu]==' in str(error.value)


tpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu (extra tpu)")


@tpu
@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["mixup", "cutmix", "resizemix", "gridmix", "saliencymix"])
def test_a_tpu_step_has_no_loop_over_the_images(mixer):
    """Crops, boxes and grids are selections and masks: XLA:TPU makes a serial loop of slices at drawn places."""
    found = plan(configure("mixup+sem", **{**NET, "mixer.name": mixer}), "v5e")
    (step,) = found.steps
    assert step.text and step.text.cycles > 0 and step.memory < targets.CHIPS["v5e"].memory
    assert not [loop for loop in step.text.loops if loop.count is None or loop.count >= 32], step.text.loops
    assert "estimated by XLA:TPU" in str(found)


@tpu
@pytest.mark.slow
@pytest.mark.parametrize("target", ["v5e", "v5p:1x1x1"])
def test_a_chip_with_much_fast_memory_is_known_by_its_kind(target):
    with targets.compiling_for(targets.find_target(target)) as devices:
        assert step_options(devices[0].device_kind), devices[0].device_kind


@tpu
@pytest.mark.slow
def test_a_loop_over_the_images_is_seen(monkeypatch):
    """The check above can fail: with slices there are loops of as many rounds as images."""
    make_fetch = planning.Calls.lower.__globals__["assemble"].make_fetch
    monkeypatch.setattr(
        planning.Calls.lower.__globals__["assemble"],
        "make_fetch",
        lambda **options: make_fetch(**options | {"tpu": False}),
    )
    (step,) = plan(configure("mixup+sem", **NET), "v5e").steps
    assert step.text and [loop for loop in step.text.loops if loop.count == 32]


@tpu
@pytest.mark.slow
def test_on_four_chips_no_image_travels():
    (step,) = plan(configure("mixup+sem", **NET), "v5e:2x2").steps
    assert step.text
    images = 32 * 32 * 32 * 3  # bytes of the batch as uint8
    gathered = [it.bytes for it in step.text.collectives if it.kind != "all-reduce"]
    assert sum(gathered) < images / 4, step.text.collectives
    assert not any(has_images(it, (32, 32, 3)) for it in step.text.collectives) and not step.text.host


@tpu
@pytest.mark.slow
def test_what_does_not_fit_is_refused():
    wide = {**NET, "train.batch_size": 1 << 15, "model.width": 2048}
    with pytest.raises(ConfigError, match="does not fit into the memory of v5e"):
        plan(configure("erm", **wide), "v5e")
