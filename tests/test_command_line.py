"""The command line answers: help and lists everywhere, what people type is understood, refusals bring nothing heavy."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from sem_jax.__main__ import COMMANDS, LISTED
from sem_jax.api import get_config
from sem_jax.config import METHODS, get_default
from sem_jax.config.fields import FIELDS, TABLE, field_meant
from sem_jax.config.finding import choices, find_config, known_configs, load_config, shipped, switch
from sem_jax.config.help import help_text
from sem_jax.config.kinds import Words
from sem_jax.errors import ConfigError
from sem_jax.registry import DEEP, SAID, names_at, nearest, resolve

ROOT = Path(__file__).parent.parent
HEAVY = "jax flax optax orbax tensorflow_datasets matplotlib sklearn scipy pandas torch huggingface_hub".split()

# Runs many command lines in one process, each in a fork of its own: what is imported once is paid for once.
FORKS = """
import json, os, sys, tempfile, time
import sem_jax.main, sem_jax.config.finding, sem_jax.config.help
from sem_jax.__main__ import main
found = []
for arguments in json.load(sys.stdin):
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        if not (child := os.fork()):
            os.dup2(said.fileno(), 1), os.dup2(said.fileno(), 2)
            sys.argv, code = ["sem-jax", *arguments], 0
            try:
                main()
            except SystemExit as ended:
                code = ended.code or 0
            print(sorted({name.split(".")[0] for name in sys.modules} & set(HEAVY)), file=sys.stderr, flush=True)
            sys.stdout.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        found.append([code, said.read(), time.perf_counter() - began])
print(json.dumps(found))
"""
D = "--config=digits"
REFUSED = [  # command line, what is said
    (["--config.mixer.nmae=x"], "Did you mean '--config.mixer.name'?"),
    (["trian"], "Did you mean 'train'?"),
    (["eval"], "Did you mean 'evaluate'?"),
    (["train", "digits:mixup"], "Did you mean --config=digits:mixup?"),
    (["--config=digit"], "Did you mean 'digits'?"),
    (["--config=resnet18"], "Did you mean 'preact_c10'?"),
    (["--config=digits:sem"], "Did you mean 'mixup+sem'?"),
    (["--config=digits.py:Mixup_SEM_ES"], "Did you mean 'mixup+es+sem'?"),
    ([D, "--lr=0.1"], "Unknown option --lr. Did you mean '--config.optim.learning_rate'?"),
    ([D, "--epochs", "3"], "Did you mean '--config.train.epochs'?"),
    ([D, "--wokrdir=x"], "Unknown option --wokrdir. Did you mean '--workdir'?"),
    ([D, "--output_dir=x"], "Did you mean '--workdir'?"),
    ([D, "--config.optim.wd=1"], "Did you mean '--config.optim.weight_decay'?"),
    ([D, "--config.mixer.name=CutMix"], "Did you mean 'cutmix'?"),
    ([D, "--config.mixer.scope=image"], "Known mixer.scopes: batch, sample"),
    ([D, "--config.optim.name=adam"], "Did you mean 'adamw'?"),
    ([D, "--config.optim.warmup_epochs=300"], "optim.warmup_epochs must be in [0, train.epochs = 20)"),
    ([D, "--config.objective.gamma=-1"], "objective.gamma must be in [0, 1000000]"),
    ([D, "--config.model.name=vit_s"], "Did you mean 'vit', with model.width=384 and model.heads=6?"),
    ([D, "--config.data.name=cifar-10"], "Did you mean 'cifar10'?"),
    ([D, "--config.data.name=ImageNet"], "Did you mean 'image_folder'?"),
    (["evaluate", "--workdir=nowhere"], "nowhere does not exist"),
    (["evaluate", "--suites=clena", "--workdir=nowhere"], "Did you mean 'clean'?"),
    (["evaluate", "--work-dir=nowhere"], "Did you mean --workdir?"),
    (["predict", "--workdir=nowhere", "x"], "nowhere does not exist"),
    (["predict", "--workdir=nowhere", "--checkpoint=ema", "x"], "nowhere does not exist"),
    (["predict", "--workdir=tests", "x"], "tests holds no run: there is no config.json in it"),
    (["export", "--workdir=nowhere", "--out=x.safetensors"], "nowhere does not exist"),
    (["export", "--workdir=tests", "--out=x.safetensors"], "tests holds no run"),
    (["export", "--workdir=nowhere", "--out=tests"], "--out=tests is a folder; give a file"),
    (["export", "--workdir=nowhere", "--out=setup.py/x"], "--out=setup.py/x cannot be written"),
    (["export", "--workdir=nowhere", "--out=x", "--format=onnx"], "argument --format: invalid choice: 'onnx'"),
    (["export", "--workdir=nowhere", "--out=s3://b/x"], "--out=s3://b/x must be a path of this machine"),
    (["export", "--workdir=s3://b/run", "--out=x"], "is neither a local path nor gs://BUCKET/FOLDER"),
    (["export", "--workdir=tests", "--checkpoint=best", "--out=x"], "neither final, best_val, ema, a step"),
    (["share", "--workdir=nowhere", "--to=x"], "nowhere does not exist"),
    (["share", "--workdir=tests", "--to=hf://owner/name"], "tests holds no run"),
    (["share", "--workdir=nowhere", "--to=tests"], "--to=tests must be hf://owner/name or a new folder"),
    (["share", "--workdir=nowhere", "--to=hf://owner"], "'hf://owner' must be like hf://owner/name"),
    (["convert", "--workdir=nowhere", "--to=x.safetensors"], "nowhere does not exist"),
    (["convert", "--workdir=nowhere", "--from=x.pth"], "x.pth does not exist"),
]
ANSWERED = [["--help"], ["--list"], ["--version"], []]  # the others below


def answers(lines, **options):
    """[exit status, what was said, seconds] of each command line."""
    code = FORKS.replace("HEAVY", repr(HEAVY))
    options.setdefault("cwd", ROOT)
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(lines), capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@needs_fork
def test_refusals_say_what_was_meant_and_bring_nothing_heavy():
    for (arguments, words), (code, said, _) in zip(REFUSED, answers([line for line, _ in REFUSED]), strict=True):
        lines = said.strip().splitlines()
        assert code == 2 and words in said and len(lines) <= 4, (arguments, said)
        assert lines[-1] == "[]", (arguments, "imports", lines[-1])


@needs_fork
def test_help_and_lists_end_well_and_bring_nothing_heavy():
    commands = [[name, "--help"] for name in COMMANDS]
    texts = {}
    for arguments, (code, said, _) in zip(ANSWERED + commands, answers(ANSWERED + commands), strict=True):
        assert code == 0 and len(said) > 5, (arguments, said)
        texts[" ".join(arguments)] = said
        assert said.strip().endswith("[]"), (arguments, "imports", said.splitlines()[-1])
    assert all(f"  {name:<10} " in texts["--help"] for name in COMMANDS)
    for name in (*METHODS, *known_configs(), *(name for place in LISTED.values() for name in names_at(place))):
        assert name in texts["--list"]
    assert all(f"--config.{field.name}=" in texts["train --help"] for field in TABLE)
    assert "--skip_broken" in texts["predict --help"] and "sem_jax predict" in texts["predict --help"]


def test_help_has_every_field_with_its_default_and_fits_a_terminal():
    text = help_text(width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "  --config.optim.learning_rate=0.1\n" in text and "model: The net." in text


def test_the_table_of_what_people_say_leads_to_names_that_there_are():
    from sem_jax.main import _FLAGS

    words = [row.allowed.place for row in TABLE if isinstance(row.allowed, Words)]
    known = {*FIELDS, *COMMANDS, *METHODS, *known_configs(), *(f"--{flag.name}" for flag in _FLAGS)}
    known |= {name for place in (*words, *LISTED.values()) for name in names_at(place)}
    lines = [line for line in SAID.read_text().splitlines() if line and line[0] != "#"]
    said = [word for line in lines for word in line.split(" = ")[0].split()]
    assert len(set(said)) == len(said) and all(word.isalnum() and word == word.lower() for word in said)
    for line in lines:
        for found, *settings in (choice.split() for choice in line.split(" = ")[1].split(" | ")):
            assert found in known, line
            assert all(setting.split("=")[0] in FIELDS for setting in settings), line
    assert set(DEEP) <= set(names_at("sem_jax.models:MODELS"))


@pytest.mark.parametrize(
    ("typed", "field"),
    [("bs", "train.batch_size"), ("wd", "optim.weight_decay"), ("gamma", "objective.gamma"), ("alpha", "mixer.alpha")]
    + [("optimizer", "optim.name"), ("model.lr", "optim.learning_rate"), ("Batch-Size", "train.batch_size")]
    + [("name", ""), ("nonsense", "")],
)
def test_fields_that_people_mean(typed, field):
    assert field_meant(typed) == field


def test_models_that_people_mean():
    models = names_at("sem_jax.models:MODELS")
    assert nearest("wrn-28-10", models) == " Did you mean 'wide_resnet', with model.depth=28 and model.width=10?"
    assert nearest("ResNet50", models) == " Did you mean 'resnet', with model.depth=50?"
    assert nearest("preact_resnet18", models) == " Did you mean 'preact_resnet', with model.depth=18?"
    assert nearest("zzz", models) == ""


def test_names_read_from_the_source_are_those_of_the_module():
    for row in TABLE:
        if isinstance(row.allowed, Words):
            place = row.allowed.place
            loaded = sys.modules.pop(place.partition(":")[0], None)
            try:
                read = names_at(place)
            finally:
                if loaded:
                    sys.modules[place.partition(":")[0]] = loaded
            assert read == list(resolve(place)), place


def test_a_configuration_is_found_by_name_or_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("digits", "digits.py", "configs/digits.py"):  # the last two are paths that are not there
        assert find_config(f"{text}:erm") == (shipped() / "digits.py", "erm")
    for text in ("elsewhere/digits.py", "configs/digit.py", "digits.yaml"):
        with pytest.raises(ConfigError, match="There is no configuration"):
            find_config(text)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/digits.py").write_text("get_config = 3\n")
    (tmp_path / "configs/mine.py").write_text("")
    assert find_config("digits") == (shipped() / "digits.py", "")  # a stranger's folder may have one, too
    assert find_config("mine") == (Path("configs/mine.py"), "")
    with pytest.raises(ConfigError, match="has no function get_config"):
        load_config("configs/digits.py")
    (tmp_path / "mine.py").write_text("def get_config():\n    return 1 / 0\n")
    with pytest.raises(ConfigError, match="mine.py failed: ZeroDivisionError: division by zero"):
        load_config("mine.py")


def test_another_model_does_not_get_the_settings_of_the_files_own():
    cfg = load_config("vit_c10")
    before = choices(cfg)
    assert switch(cfg, before, ()) == [] and cfg.model.width == 192
    cfg.model.name, cfg.model.depth, cfg.model.num_classes = "resnet", 34, 10
    (line,) = switch(cfg, before, ("model.name", "model.depth"))
    assert line.endswith("of the file's vit: model.width=192, model.patch_size=4, model.heads=3")
    assert (cfg.model.depth, cfg.model.width, cfg.model.num_classes) == (34, 0, 10)
    assert cfg.model.pool == get_default().model.pool


def test_another_data_set_is_not_normalised_with_the_numbers_of_the_files_own():
    own, other = {"data.name": "cifar10"}, {"data.name": "image_folder", "data.dir": "photos"}
    assert len(get_config("preact_c10", **own).data.mean) == 3
    cfg = get_config("preact_c10", **other)
    assert cfg.data.mean == cfg.data.std == () and cfg.model.variant == "v2"
    cfg = get_config("preact_c10", **other, **{"data.std": (0.5, 0.5, 0.5)})
    assert cfg.data.mean == () and cfg.data.std == (0.5, 0.5, 0.5)


def test_a_method_reaches_the_file_from_python_as_from_the_command_line(tmp_path):
    text = "from sem_jax.config import *\ndef get_config(method=''):\n    cfg = apply_method(get_default(), method)\n"
    (tmp_path / "mine.py").write_text(
        f"{text}    cfg.mixer.alpha = 0.2 if 'cutmix' in method else 1.0\n    return cfg\n"
    )
    for cfg in (
        get_config(f"{tmp_path}/mine.py", method="cutmix+sem"),
        get_config(f"{tmp_path}/mine.py:cutmix+sem"),
        get_config(f"{tmp_path}/mine.py:mixup", method="cutmix+sem"),
    ):
        assert (cfg.mixer.alpha, cfg.mixer.name, cfg.objective.gamma) == (0.2, "cutmix", 0.3)


@pytest.mark.slow
def test_the_wheel_has_the_configurations_and_an_empty_folder_trains_with_one(tmp_path):
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "sem_jax", "configs", "*.py", "*.toml", "README.md"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if files.returncode:
        pytest.skip("not a checkout of git")
    source = tmp_path / "source"
    for name in files.stdout.splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "-q", "-w", str(tmp_path)]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True)
    if built.returncode:  # setuptools may have to be fetched
        pytest.skip(f"no wheel can be built here: {built.stderr.strip()[-200:]}")
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    (empty := tmp_path / "empty").mkdir()
    small = "--config.train.epochs=1 --config.model.width=1 --config.train.batch_size=512".split()
    done = subprocess.run(
        [sys.executable, "-m", "sem_jax", "train", "--config=digits:erm", *small],
        cwd=empty, env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (empty / "runs/digits-erm/result.json").is_file()


@pytest.mark.slow
def test_an_answer_takes_less_than_two_seconds():
    """On an idle machine; a busy one gets the time that others take from it."""
    for arguments, words in REFUSED:
        began = time.process_time()
        before = os.times()
        done = subprocess.run([sys.executable, "-m", "sem_jax", *arguments], cwd=ROOT, capture_output=True, text=True)
        after = os.times()
        assert words in done.stderr, done.stderr
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        assert spent < 2, (arguments, spent, time.process_time() - began)
