"""Every cell builds a configuration that can work; what its identity depends on, and what not."""

import shlex
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from experiments.paper import grid
from experiments.paper.ledger import Ledger
from sem_jax.config import METHODS, flatten, method_of, validate
from sem_jax.errors import ConfigError

METHODS_AND_CONTROLS = (*METHODS, *grid.CONTROLS)


@pytest.mark.parametrize("size", grid.SIZES)
def test_every_method_and_control_is_a_configuration_that_can_work(size):
    dataset = "digits" if size == "smoke" else "cifar10"
    made = {}
    for method in grid.methods_named("all", size):
        cfg = grid.make_config(grid.Cell(size, "preact", dataset, method, 3))
        validate(cfg)
        assert cfg.seed == 3 and method_of(cfg).split("+")[0] in ("erm", "mixup", "cutmix")
        made[method] = grid.config_hash(cfg)
        if method in METHODS:
            assert method_of(cfg) == method
    assert len(set(made.values())) == len(made), "two rows with the same settings"


def test_the_papers_size_is_the_literal_reading_and_the_cpu_size_the_librarys():
    def reading(size, backbone, dataset, method="mixup+sem"):
        cfg = grid.make_config(grid.Cell(size, backbone, dataset, method, 0))
        return cfg.model.variant, cfg.mixer.scope, cfg.objective.bn_running, tuple(cfg.data.std)

    std = (0.2023, 0.1994, 0.2010)
    assert reading("paper", "preact", "cifar10") == ("v2", "batch", "three_passes", std)
    assert reading("paper", "wrn", "cifar100", "erm") == ("", "batch", "three_passes", std)
    assert reading("paper", "preact", "tiny_imagenet") == ("v2", "batch", "three_passes", ())
    own = ("", "sample", "both", ())
    assert reading("paper", "preact", "cifar10", "sem-own") == own == reading("cpu", "wrn", "cifar10")
    assert reading("cpu", "preact", "cifar10", "erm") == ("v3", *own[1:])
    assert "sem-own" in grid.methods_named("controls", "paper") and "sem-own" not in grid.methods_named("all", "cpu")


def test_every_backbone_and_data_set_of_the_paper_has_a_configuration():
    for backbone in grid.PAPERS_OWN:
        for dataset in ("cifar10", "cifar100", "tiny_imagenet"):
            cfg = grid.make_config(grid.Cell("paper", backbone, dataset, "cutmix+es+sem", 0))
            validate(cfg)
            assert (cfg.data.name, cfg.train.epochs, cfg.mixer.stop_epoch) == (dataset, 200, 150)


def test_controls_are_what_they_say():
    def cfg(method):
        return dict(flatten(grid.make_config(grid.Cell("cpu", "preact", "cifar10", method, 0))))

    base, sem = cfg("mixup"), cfg("mixup+sem")
    made = {name: cfg(name) for name in grid.CONTROLS}
    unlike = {n: {k for k in base if made[n][k] != (sem if "sem" in n else base)[k]} for n in made}
    assert unlike["mixup+clean"] - {"train.keep_epochs"} == {"objective.clean_features"}
    assert unlike["mixup-x2"] - {"train.keep_epochs"} == {"train.epochs", "mixer.stop_epoch"}
    assert made["mixup-x2"]["train.epochs"] == 2 * base["train.epochs"]
    assert unlike["sem-wrong-pairs"] - {"train.keep_epochs"} == {"objective.penalty_pairs"}
    assert unlike["sem-gamma1"] - {"train.keep_epochs"} == {"objective.gamma"}
    assert all(not unlike[n] & {"seed", "optim.learning_rate", "data.train_size"} for n in unlike)


def test_es_differs_from_its_sibling_in_the_switch_alone():
    for method in METHODS:
        sibling = grid.sibling(method)
        if not sibling:
            continue
        ours, theirs = (grid.make_config(grid.Cell("gpu30", "preact", "cifar10", m, 0)) for m in (method, sibling))
        unlike = {n for n, v in flatten(ours) if dict(flatten(theirs))[n] != v}
        assert unlike == {"mixer.stop_epoch", "train.keep_epochs"}
        assert theirs.train.keep_epochs == (ours.mixer.stop_epoch,) == (22,)


def test_identity_is_of_what_changes_numbers():
    def hash_of(**changes):
        cfg = grid.make_config(grid.Cell("cpu", "preact", "cifar10", "mixup", changes.pop("seed", 0)))
        for name, value in changes.items():
            group, field = name.split("__")
            cfg[group][field] = value
        return grid.config_hash(cfg)

    same = hash_of()
    for changes in (
        {"seed": 5},
        {"data__dir": "x"},
        {"runtime__devices": 2},
        {"train__keep": 9},
        {"train__keep_epochs": ()},
    ):
        assert hash_of(**changes) == same
    for changes in ({"mixer__alpha": 2.0}, {"train__epochs": 3}, {"optim__weight_decay": 0.0}, {"data__train_size": 9}):
        assert hash_of(**changes) != same
    cell = grid.Cell("cpu", "preact", "cifar10", "mixup", 0)
    assert cell._replace(settings=(("mixer.alpha", 2.0),)).id.rpartition("-")[0] == cell.id.rpartition("-")[0]


@pytest.mark.filterwarnings("ignore:the load_module")  # of ml_collections
@pytest.mark.parametrize("method", ["erm", "mixup", "mixup+es+sem", "mixup-x2", "sem-wrong-pairs"])
def test_the_command_in_the_record_makes_the_same_configuration(method, monkeypatch):
    cell = grid.Cell("cpu", "preact", "cifar10", method, 2, (("mixer.alpha", 0.2),))
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values)
    flags.DEFINE_string("workdir", "", "", flag_values=values)
    line = grid.command(cell, "my runs/x", "my data").replace("configs/", f"{grid.CONFIGS}/")
    monkeypatch.setattr(sys, "argv", ["main", *shlex.split(line)[3:]])
    values(sys.argv)
    assert dict(flatten(holder.value)) == dict(flatten(grid.make_config(cell, data_dir="my data")))


def test_names():
    assert grid.methods_named("nine") == list(METHODS)
    assert grid.methods_named("mixup, gammas,mixup") == ["mixup", *grid.GAMMAS]
    assert set(grid.methods_named("all")) == set(METHODS_AND_CONTROLS)
    with pytest.raises(ConfigError, match="(?i)mixupp.*mixup"):
        grid.methods_named("mixupp")
    with pytest.raises(ConfigError, match="objective.gama"):
        grid.make_config(grid.Cell("cpu", "preact", "cifar10", "mixup", 0, (("objective.gama", 1),)))


def test_a_chosen_alpha_is_of_mixing_and_a_chosen_gamma_of_sem():
    chosen = (("mixer.alpha", 2.0), ("objective.gamma", 0.7))

    def cfg(method):
        return grid.make_config(grid.Cell("cpu", "preact", "cifar10", method, 0, chosen))

    assert (cfg("erm").mixer.alpha, cfg("erm").objective.gamma) == (1.0, 0.0)
    assert (cfg("mixup").mixer.alpha, cfg("mixup").objective.gamma) == (2.0, 0.0)
    assert (cfg("mixup+sem").mixer.alpha, cfg("mixup+sem").objective.gamma) == (2.0, 0.7)
    assert cfg("sem-gamma0.1").objective.gamma == 0.1, "a control's own setting goes before"


@pytest.mark.parametrize("backbone", ["preact", "vit", "mlp_mixer"])
def test_every_mixer_of_the_registry_is_a_row_on_each_kind_of_backbone(backbone):
    from sem_jax.mixers import MIXERS

    assert set(grid.MIXING) == set(MIXERS) - {"none"}
    made = {}
    for method in grid.methods_named("mixers"):
        cfg = grid.make_config(grid.Cell("cpu", backbone, "cifar10", method, 1))
        validate(cfg)
        assert (cfg.objective.gamma > 0) == method.endswith("+sem")
        assert cfg.mixer.name == {"erm": "none"}.get(method, method.removesuffix("+sem"))
        made[method] = grid.config_hash(cfg)
    assert len(made) == 1 + 2 * len(grid.MIXING) == len(set(made.values()))


def test_a_scorer_is_the_run_of_the_same_seed(tmp_path):
    cell = grid.Cell("cpu", "vit", "cifar10", "attentive_cutmix+sem", 2, (("train.epochs", 3),))
    asked = cell._replace(method="erm").id
    cfg = grid.with_scorer(grid.make_config(cell), cell, tmp_path)
    assert cfg.mixer.scorer == str(tmp_path / asked) and asked.startswith("cpu-vit-cifar10-erm-s2-")
    assert f"--config.mixer.scorer=runs/{asked}" in grid.command(cell, "runs/x")
    assert grid.config_hash(grid.make_config(cell)) == cell.id[-8:], "the identity knows no folder"


def test_an_unknown_backbone_for_a_data_set_is_said():
    with pytest.raises(ConfigError, match="no configuration of vit on cifar100"):
        grid.make_config(grid.Cell("cpu", "vit", "cifar100", "mixup", 0))


# Settings of all runs of a kept ledger, where its README's command has some.
GIVEN = {
    "cpu": lambda run: (),
    "mixers": lambda run: (("train.epochs", 4), ("train.batch_size", 64)),
    "lengths": lambda run: (("data.train_size", 500), ("train.epochs", run["overrides"].get("train.epochs"))),
}


@pytest.mark.parametrize("name", GIVEN)
def test_every_run_of_the_kept_ledgers_is_found_by_its_command(name):
    """A new default or a renamed field would change identities: all of them would be run again."""
    entries = Ledger(grid.CONFIGS.parent / "experiments/results" / name / "ledger").read().done
    assert len(entries) >= 12
    for entry in entries.values():
        asked = (entry[field] for field in ("size", "backbone", "dataset", "method", "seed"))
        assert grid.Cell(*asked, GIVEN[name](entry)).id == entry["id"]
