"""Configurations: the nine methods, every file in configs/, what is refused and how it is said."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sem_jax import config as config_lib
from sem_jax.errors import ConfigError

ROOT = Path(__file__).parent.parent
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
        (lambda d: d["objective"].update(gamma=-1), "objective.gamma must be >= 0"),
    ],
)
def test_a_saved_configuration_that_is_not_ours_is_refused(change, message):
    saved = config_lib.to_dict(config_lib.get_default())
    change(saved)
    with pytest.raises(ConfigError, match=message):
        config_lib.from_dict(saved)


WRONG = [  # field, value, what the message says
    ("seed", -1, "seed must be in"),
    ("data.name", "cifar11", "Unknown data set 'cifar11'. Did you mean 'cifar10'?.*Known data sets: arrays"),
    ("data.val_size", -5, "data.val_size must be >= 0"),
    ("data.image_size", 224, "data.image_size is for image folders"),
    ("data.crop_padding", -1, "data.crop_padding"),
    ("model.name", "wide_resent", "Did you mean 'wide_resnet'"),
    ("model.num_classes", 100, "model.num_classes must be 0 or 10"),
    ("model.num_classes", 1, "model.num_classes"),
    ("model.depth", 19, "model.depth of preact_resnet must be one of 18, 34"),
    ("model.width", 0, "model.width must be >= 1"),
    ("model.variant", "v9", "model.variant"),
    ("model.stem", "5x5", "model.stem"),
    ("model.dropout", 0.3, "model.dropout must be 0"),
    ("model.dtype", "float16", "Unknown model.dtype 'float16'"),
    ("mixer.name", "cutmx", "Unknown mixer 'cutmx'. Did you mean 'cutmix'?.*Known mixers: cutmix, mixup, none"),
    ("mixer.alpha", -1.0, "mixer.alpha must be > 0, got -1.0"),
    ("mixer.alpha", float("nan"), "mixer.alpha must be finite, got nan"),
    ("mixer.scope", "image", "Unknown mixer.scope 'image'"),
    ("mixer.prob", 1.5, r"mixer.prob must be in \[0, 1\], got 1.5"),
    ("mixer.pairing", "random", "Unknown mixer.pairing"),
    ("mixer.stop_epoch", 300, "mixer.stop_epoch must be in .0, train.epochs = 200"),
    ("mixer.name", "none", "objective.gamma must be 0 with mixer.name='none'"),
    ("objective.gamma", -0.3, "objective.gamma must be >= 0, got -0.3"),
    ("objective.gamma", float("inf"), "objective.gamma must be finite"),
    ("objective.clean_features", "detach", "objective.clean_features"),
    ("objective.bn_running", "all", "objective.bn_running"),
    ("objective.label_smoothing", 1.0, "objective.label_smoothing"),
    ("optim.learning_rate", 0.0, "optim.learning_rate must be > 0"),
    ("optim.momentum", 1.0, "optim.momentum"),
    ("optim.weight_decay", -1e-4, "optim.weight_decay"),
    ("optim.schedule", "steps", "Unknown optim.schedule 'steps'. Did you mean 'step'"),
    ("optim.boundaries", (100, 150), "optim.boundaries must be rising fractions"),
    ("optim.boundaries", (0.5, 0.5), "optim.boundaries"),
    ("optim.warmup_epochs", 200.0, "optim.warmup_epochs"),
    ("train.epochs", 0, "train.epochs must be >= 1"),
    ("train.batch_size", 100, "train.batch_size must be divisible by the 8 devices, got 100"),
    ("train.eval_every", 0, "train.eval_every"),
    ("train.checkpoint_every", 0, "train.checkpoint_every"),
    ("train.keep", 0, "train.keep"),
    ("train.on_nan", "ignore", "train.on_nan"),
    ("runtime.devices", 9, "runtime.devices must be at most 8"),
    ("runtime.streams", "parallel", "runtime.streams"),
    ("runtime.residency", "disk", "runtime.residency"),
    ("runtime.steps_per_call", -1, "runtime.steps_per_call"),
]


@pytest.mark.parametrize(("field", "value", "message"), WRONG, ids=[f"{f}={v}" for f, v, _ in WRONG])
def test_what_cannot_work_is_refused_by_name(field, value, message):
    cfg = config_lib.get_default()
    target = cfg
    *groups, name = field.split(".")
    for group in groups:
        target = target[group]
    target[name] = value
    with pytest.raises(ConfigError, match=message) as caught:
        config_lib.validate(cfg, num_devices=8)
    assert len(str(caught.value).splitlines()) <= 3


def test_penalty_options_that_contradict_each_other_are_refused():
    cfg = config_lib.get_default()
    cfg.objective.gamma, cfg.objective.bn_running = 0.0, "clean"
    with pytest.raises(ConfigError, match="needs the clean pass"):
        config_lib.validate(cfg)
    cfg = config_lib.get_default()
    cfg.optim.nesterov, cfg.optim.momentum = True, 0.0
    with pytest.raises(ConfigError, match="nesterov"):
        config_lib.validate(cfg)


def test_unknown_method_lists_the_nine():
    with pytest.raises(ConfigError, match="Unknown method 'mixup.sam'. Did you mean 'mixup.sem'.*cutmix.es.sem"):
        config_lib.apply_method(config_lib.get_default(), "mixup+sam")


def test_configs_are_read_without_jax():
    code = "import sys, runpy; runpy.run_path('configs/wrn_c10.py')['get_config'](); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


COMMAND_LINES = [  # arguments, what standard error says
    (
        ["--config=configs/digits.py", "--config.mixer.alph=2"],
        "Unknown field --config.mixer.alph. Did you mean 'config.mixer.alpha'?",
    ),
    (
        ["--config=configs/digits.py", "--config.mixr.alpha=2"],
        "Unknown field --config.mixr.alpha. Did you mean 'config.mixer.alpha'?",
    ),
    (["--config=configs/digits.py", "--config.train.epochs=ten"], "config.train.epochs"),
    (["--config=configs/digits.py", "--config.train.epochs=1.5"], "config.train.epochs"),
    (["--config=configs/digits.py", "--config.objective.gamma=nan"], "objective.gamma must be finite, got nan"),
    (["--config=configs/digits.py:mixup+sam"], "Unknown method 'mixup+sam'. Did you mean 'mixup+sem'?"),
    (["--config=configs/digit.py"], "configs/digit.py"),
    (["--workdirr=x", "--config=configs/digits.py"], "workdirr"),
    (["--config=configs/digits.py", "resume"], "Unexpected argument 'resume'"),
    ([], "--config is missing"),
]


@pytest.mark.parametrize(("arguments", "message"), COMMAND_LINES, ids=[" ".join(a) or "none" for a, _ in COMMAND_LINES])
def test_a_wrong_command_line_ends_in_a_message_and_not_in_a_traceback(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "sem_jax.main", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3 and not re.search("Traceback", done.stderr), done.stderr
