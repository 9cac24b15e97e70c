"""Configurations: the nine methods, every file in configs/, what is refused and how it is said."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sem_jax import config as config_lib
from sem_jax.errors import ConfigError, RunError
from sem_jax.runs.records import RunFolder
from tests.helpers.wrong_configs import COMMAND_LINES, RESUMED, TOGETHER, WRONG, set_field

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").glob("*.py"))
IDS = [f.stem for f in FILES]


def load(path, method=""):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(method)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_config_is_valid_with_every_method(path):
    config_lib.validate(load(path), num_devices=8)
    assert config_lib.method_of(load(path)) == "mixup+sem"
    for method in config_lib.METHODS:
        cfg = load(path, method)
        config_lib.validate(cfg, num_devices=8)
        assert config_lib.method_of(cfg) == method


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_config_says_how_it_is_run(path):
    assert f"--config=configs/{path.name}" in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_config_trains_what_its_name_says(path):
    """(A published script passes cifar10 when it is asked for cifar100.)"""
    nets = {
        "preact": ("preact_resnet", 18, 64),
        "wrn": ("wide_resnet", 28, 10),
        "digits": ("wide_resnet", 10, 2),
        "vit": ("vit", 12, 192),
        "mlp_mixer": ("mlp_mixer", 8, 256),
        "resnet50": ("resnet", 50, 64),
    }
    sets = {
        "c10": "cifar10",
        "c100": "cifar100",
        "tin": "tiny_imagenet",
        "digits": "digits",
        "imagenet": "image_folder",
        "finetune": "image_folder",
    }
    net, _, data = path.stem.rpartition("_")
    net = net or data
    cfg = load(path)
    assert (cfg.model.name, cfg.model.depth, cfg.model.width) == nets[net] and cfg.data.name == sets[data]


def test_the_recipe():
    cfg = load(ROOT / "configs/wrn_c10.py", "mixup+es+sem")
    assert (cfg.model.name, cfg.model.depth, cfg.model.width, cfg.model.dropout) == ("wide_resnet", 28, 10, 0.0)
    assert (cfg.optim.learning_rate, cfg.optim.momentum, cfg.optim.weight_decay) == (0.1, 0.9, 1e-4)
    assert (cfg.train.epochs, cfg.train.batch_size, cfg.mixer.alpha, cfg.objective.gamma) == (200, 128, 1.0, 0.3)
    assert [f * cfg.train.epochs for f in cfg.optim.boundaries] == [100, 150]
    assert cfg.mixer.stop_epoch == 150 and not cfg.optim.nesterov and cfg.data.crop_padding == 4 and cfg.data.flip


def test_early_stop_follows_the_length_of_training_until_it_is_set():
    cfg = load(ROOT / "configs/preact_c10.py", "cutmix+es")
    cfg.train.epochs = 8
    assert cfg.mixer.stop_epoch == 6
    cfg.mixer.stop_epoch = 3
    assert (cfg.mixer.stop_epoch, cfg.train.epochs) == (3, 8)
    plain = load(ROOT / "configs/preact_c10.py", "cutmix")
    plain.train.epochs = 8
    assert plain.mixer.stop_epoch == 8


def test_a_saved_configuration_comes_back():
    cfg = load(ROOT / "configs/wrn_c100.py", "cutmix+es+sem")
    saved = json.loads(json.dumps(config_lib.to_dict(cfg)))
    assert config_lib.to_dict(config_lib.from_dict(saved)) == config_lib.to_dict(cfg)


def test_a_field_that_came_after_a_configuration_was_saved_has_its_default():
    saved = config_lib.to_dict(config_lib.get_default())
    del saved["runtime"], saved["model"]["stem"]
    assert config_lib.to_dict(config_lib.from_dict(saved)) == config_lib.to_dict(config_lib.get_default())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["model"].update(depht=3), "model.depht.*Did you mean 'model.depth'"),
        (lambda d: d["model"].pop("name"), "lacks the field 'model.name'"),
        (lambda d: d["model"].update(depth="deep"), "model.depth must be a whole number, got 'deep'"),
        (lambda d: d["objective"].update(gamma=-1), r"objective.gamma must be in \[0, 1000000\]"),
    ],
)
def test_a_saved_configuration_that_is_not_ours_is_refused(change, message):
    saved = config_lib.to_dict(config_lib.get_default())
    change(saved)
    with pytest.raises(ConfigError, match=message):
        config_lib.from_dict(saved)


@pytest.mark.parametrize(("field", "value", "message"), WRONG, ids=[f"{f}={v!r:.20}" for f, v, _ in WRONG])
def test_what_cannot_work_is_refused_by_name(field, value, message):
    cfg = config_lib.get_default()
    set_field(cfg, field, value)
    with pytest.raises(ConfigError, match=message) as caught:
        config_lib.validate(cfg, num_devices=8)
    assert len(str(caught.value).splitlines()) <= 3
    assert value == "" or field in str(caught.value) or repr(value) in str(caught.value)


@pytest.mark.parametrize(("values", "message"), TOGETHER, ids=[" ".join(row) for row, _ in TOGETHER])
def test_what_does_not_go_together_is_refused(values, message):
    cfg = config_lib.override(config_lib.get_default(), values)
    with pytest.raises(ConfigError, match=message) as caught:
        config_lib.validate(cfg, num_devices=8)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_run_of_an_older_version_may_have_values_without_effect():
    """They are refused at the start of a run only: the run can still be scored."""
    saved = config_lib.to_dict(config_lib.get_default())
    saved["optim"] |= {"schedule": "onecycle", "warmup_epochs": 5.0}
    saved["mixer"]["options"], saved["train"]["batch_size"] = "alpha=2.0", 1
    cfg = config_lib.from_dict(saved)
    with pytest.raises(ConfigError, match="warmup_epochs"):
        config_lib.validate(cfg)


@pytest.mark.parametrize(("field", "first", "second"), RESUMED, ids=[row[0] for row in RESUMED])
def test_a_run_is_not_continued_with_other_settings(tmp_path, field, first, second):
    cfg = config_lib.get_default()
    set_field(cfg, field, first)
    data = {"fingerprint": "f", "name": cfg.data.name}
    RunFolder(tmp_path).claim(config_lib.to_dict(cfg), data, ignore=config_lib.SPEED_ONLY)
    cfg.runtime.steps_per_call = 7  # this one may differ
    RunFolder(tmp_path).claim(config_lib.to_dict(cfg), data, ignore=config_lib.SPEED_ONLY)
    set_field(cfg, field, second)
    with pytest.raises(RunError, match=re.escape(f"{field}: {first!r} there, {second!r} now")) as caught:
        RunFolder(tmp_path).claim(config_lib.to_dict(cfg), data, ignore=config_lib.SPEED_ONLY)
    assert len(str(caught.value).splitlines()) <= 3


def test_penalty_options_that_contradict_each_other_are_refused():
    cfg = config_lib.get_default()
    cfg.objective.gamma, cfg.objective.bn_running = 0.0, "clean"
    with pytest.raises(ConfigError, match="bn_running must be both or three_passes without the clean pass"):
        config_lib.validate(cfg)
    cfg.objective.bn_running = "three_passes"
    config_lib.validate(cfg)
    cfg = config_lib.get_default()
    cfg.optim.nesterov, cfg.optim.momentum = True, 0.0
    with pytest.raises(ConfigError, match="nesterov"):
        config_lib.validate(cfg)


@pytest.mark.parametrize(("field", "value"), [("objective.penalty_fraction", 0.5), ("train.gradient_accumulation", 2)])
def test_a_part_of_the_batch_is_refused_with_every_mixer_of_hidden_states(field, value):
    """By what the mixer is: in a choice too."""
    cfg = config_lib.get_default()
    group, name = field.split(".")
    cfg[group][name] = value
    for name, options in (("cutmix", ""), ("choice", "choices=('mixup', 'cutmix')")):
        cfg.mixer.name, cfg.mixer.options = name, options
        config_lib.validate(cfg)
    for name, options in (("manifold_mixup", ""), ("alignmix", ""), ("choice", "choices=('mixup', 'alignmix')")):
        cfg.mixer.name, cfg.mixer.options = name, options
        with pytest.raises(ConfigError, match=f"{field} must be 1 with mixer.name='{name}'.*hidden states"):
            config_lib.validate(cfg)


def test_encoded_images_and_random_resized_crops_need_a_set_that_can_stay_encoded():
    cfg = config_lib.get_default()
    cfg.data.name, cfg.runtime.residency = "digits", "disk"
    with pytest.raises(
        ConfigError, match="runtime.residency must be auto, device or host for digits.*image_folder, tfds"
    ):
        config_lib.validate(cfg)
    cfg.data.name, cfg.runtime.residency = "image_folder", "host"
    cfg.data.crop_scale, cfg.data.crop_padding = 0.08, 0
    with pytest.raises(ConfigError, match="data.image_size must be given with data.crop_scale"):
        config_lib.validate(cfg)
    cfg.data.image_size = 224
    with pytest.raises(ConfigError, match="runtime.residency must be auto or disk"):
        config_lib.validate(cfg)
    cfg.runtime.residency, cfg.data.eval_crop = "auto", 0.875
    config_lib.validate(cfg)


def test_unknown_method_lists_the_nine():
    with pytest.raises(ConfigError, match="Unknown method 'mixup.sam'. Did you mean 'mixup.sem'.*cutmix.es.sem"):
        config_lib.apply_method(config_lib.get_default(), "mixup+sam")


def test_configs_are_read_without_jax():
    code = "import sys, runpy; runpy.run_path('configs/wrn_c10.py')['get_config'](); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(("arguments", "message"), COMMAND_LINES, ids=[" ".join(a) or "none" for a, _ in COMMAND_LINES])
def test_a_wrong_command_line_ends_in_a_message_and_not_in_a_traceback(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "sem_jax.main", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3 and not re.search("Traceback", done.stderr), done.stderr


def test_a_saved_run_with_a_setting_that_is_refused_now_can_be_opened():
    cfg = config_lib.get_default()
    cfg.objective.bn_running, cfg.objective.penalty_every = "clean", 2
    with pytest.raises(ConfigError, match="objective.bn_running"):
        config_lib.validate(cfg)
    assert config_lib.from_dict(config_lib.to_dict(cfg)).objective.bn_running == "clean"
