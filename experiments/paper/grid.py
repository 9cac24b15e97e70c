"""What can be run: sizes, backbones, data sets, the paper's nine methods, controls and other mixers, as cells.

    cell = Cell("cpu", "preact", "cifar10", "mixup+sem", seed=0)
    cfg = make_config(cell)            # the file in configs/, the size, the method, the control's overrides
    cell.id                            # "cpu-preact-cifar10-mixup+sem-s0-3f2a91c4": names folder and ledger entry

The methods, controls and other mixers are in `methods`. Importing this brings no jax.
"""

import hashlib
import json
import runpy
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.paper.methods import CONTROLS as CONTROLS
from experiments.paper.methods import GAMMAS as GAMMAS
from experiments.paper.methods import MIXING as MIXING
from experiments.paper.methods import OTHER_MIXERS as OTHER_MIXERS
from experiments.paper.methods import OWN, base_of
from experiments.paper.methods import methods_named as methods_named
from sem_jax.config import METHODS, apply_method, flatten, get_default, override, to_dict
from sem_jax.errors import ConfigError
from sem_jax.registry import lookup

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BACKBONES = {"preact": "PreActResNet18", "wrn": "WRN-28-10", "vit": "ViT", "mlp_mixer": "MLP-Mixer"}
PAPERS_OWN = ("preact", "wrn")  # the backbones of its tables
DATASETS = {"cifar10": "c10", "cifar100": "c100", "tiny_imagenet": "tin", "digits": "digits"}
# What changes no number that is reported; not part of a cell's identity.
NO_IDENTITY = ("seed", "data.dir", "runtime.", "train.keep", "train.checkpoint_every", "train.eval_every")


class Net(NamedTuple):
    """What a backbone is at a size; `says` how it is trained there."""

    name: str
    overrides: dict[str, Any]
    says: str = ""


class Size(NamedTuple):
    """How large a run is. `pairs` and `corruption_items` (0 = all) are of the evaluation."""

    says: str
    overrides: dict[str, Any]
    pairs: int = 1000
    corruption_items: int = 0
    nets: Mapping[str, Net] = {}  # by backbone, where they are not those of configs/


_SHORT = {"optim.schedule": "onecycle", "optim.learning_rate": 0.2, "optim.weight_decay": 5e-4}
_ADAMW = {"optim.learning_rate": 2e-3, "optim.weight_decay": 0.05}  # peak of the one-cycle of a small net
_SGD_SAYS, _ADAMW_SAYS = "SGD, peak rate 0.2, weight decay 5e-4", "AdamW, peak rate 0.002, weight decay 0.05"
SIZES = {
    "paper": Size("200 epochs, full nets, the paper's literal reading as configs/ has it", {"train.eval_every": 1}),
    "gpu30": Size("full nets, 30 epochs, one-cycle, peak rate 0.2, weight decay 5e-4", _SHORT | {"train.epochs": 30}),
    "cpu": Size(
        "narrow nets, 10,000 training images, 12 epochs, one-cycle",
        OWN | _SHORT | {"train.epochs": 12, "train.eval_every": 3, "data.train_size": 10_000},
        pairs=500,
        corruption_items=300,
        nets={
            "preact": Net(
                "PreActResNet18 of width 8",
                {"model.width": 8, "model.variant": "v3", "model.stem": "3x3s2"},
                f"variant v3, stem of stride 2, {_SGD_SAYS}",
            ),
            "wrn": Net("WRN-10-1", {"model.depth": 10, "model.width": 1}, _SGD_SAYS),
            "vit": Net(
                "ViT of width 48, 3 blocks, patches of 8",
                _ADAMW | {"model.width": 48, "model.depth": 3, "model.heads": 2, "model.patch_size": 8},
                _ADAMW_SAYS,
            ),
            "mlp_mixer": Net(
                "MLP-Mixer of width 48, 3 blocks, patches of 8",
                _ADAMW | {"model.width": 48, "model.depth": 3, "model.patch_size": 8},
                _ADAMW_SAYS,
            ),
        },
    ),
    "smoke": Size(
        "digits, WRN-10-1, 4 epochs: tries the tools, not the methods",
        {"train.epochs": 4, "model.width": 1},
        nets=dict.fromkeys(BACKBONES, Net("WRN-10-1", {})),
    ),
}


def net_name(size: str, backbone: str) -> str:
    """What a backbone is at a size, in words."""
    nets = SIZES[size].nets if size in SIZES else {}
    return nets[backbone].name if backbone in nets else BACKBONES.get(backbone, backbone)


def size_says(size: str, backbone: str) -> str:
    """How a backbone is trained at a size, in words."""
    if size not in SIZES:
        return "unknown to this version"
    net = SIZES[size].nets.get(backbone)
    return f"{SIZES[size].says}; {net.says}" if net and net.says else SIZES[size].says


class Cell(NamedTuple):
    """One run of the grid. `settings` are further overrides, of all its cells: (("objective.gamma", 0.5), ...)."""

    size: str
    backbone: str
    dataset: str
    method: str
    seed: int
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def row(self) -> str:
        """Without seed and settings: what a line of a table is about."""
        return f"{self.size}-{self.backbone}-{self.dataset}-{self.method}"

    @property
    def id(self) -> str:
        return f"{self.row}-s{self.seed}-{config_hash(make_config(self))}"


@cache
def _config_file(backbone: str, dataset: str) -> Path:
    lookup(BACKBONES, "backbone", backbone)
    short = lookup(DATASETS, "data set", dataset)
    path = CONFIGS / ("digits.py" if dataset == "digits" else f"{backbone}_{short}.py")
    if not path.exists():
        raise ConfigError(f"There is no configuration of {backbone} on {dataset}: {path} is missing")
    return path


def make_config(cell: Cell, *, data_dir: str = "") -> ConfigDict:
    """The configuration of a cell: file, size, method, control, settings, seed; in this order.

    A method that has an early-stopped sibling keeps its checkpoint of the switch, from which that one can start.
    """
    size = lookup(SIZES, "size", cell.size)
    method, overrides, factor = base_of(cell.method)
    cfg = runpy.run_path(str(_config_file(cell.backbone, cell.dataset)))["get_config"](method)
    net = size.nets[cell.backbone].overrides if cell.backbone in size.nets else {}
    chosen = dict(cell.settings)
    if cfg.mixer.name == "none":  # a chosen alpha is of the mixing methods
        chosen = {name: value for name, value in chosen.items() if not name.startswith("mixer.")}
    values = {**size.overrides, **net, **chosen, **overrides}
    if "sem" not in method:
        values.pop("objective.gamma", None)
    override(cfg, values, where=f" in the settings of {cell.row}")
    cfg.train.epochs *= factor
    cfg.seed, cfg.data.dir = cell.seed, data_dir
    if cell.method == method and f"{method.removesuffix('+sem')}+es" in METHODS and "+es" not in method:
        cfg.train.keep_epochs = (switch_epoch(cfg),)
    return cfg


def with_scorer(cfg: ConfigDict, cell: Cell, runs: Path) -> ConfigDict:
    """The configuration with the folder of the run that its mixer asks, where a cell names a method for that."""
    if cfg.mixer.scorer:
        scorer = cell._replace(method=cfg.mixer.scorer)
        cfg.mixer.scorer = str(runs / scorer.id)
    return cfg


def switch_epoch(cfg: ConfigDict) -> int:
    """The epoch after which ES mixes no more, at a configuration's length."""
    return apply_method(cfg.copy_and_resolve_references(), "mixup+es").mixer.stop_epoch


def sibling(method: str) -> str:
    """The method without ES that a method with ES shares three quarters of its epochs with; '' for others."""
    return method.replace("+es", "") if "+es" in method else ""


def comes_after(method: str) -> str:
    """The method whose run of the same seed has to be there first: an ES run's sibling, or a scorer; '' for none."""
    _, overrides, _ = base_of(method)
    return sibling(method) or overrides.get("mixer.scorer", "")


def differences(cfg: ConfigDict) -> dict[str, Any]:
    """The fields that are not at their default, but those of NO_IDENTITY: a field added later changes no identity."""
    ours, default = (dict(flatten(to_dict(it))) for it in (cfg, get_default().copy_and_resolve_references()))
    return {name: value for name, value in ours.items() if value != default[name] and not name.startswith(NO_IDENTITY)}


def config_hash(cfg: ConfigDict) -> str:
    """Eight hex digits over `differences`; the seed is not among them."""
    return hashlib.sha256(json.dumps(differences(cfg), sort_keys=True).encode()).hexdigest()[:8]


def command(cell: Cell, folder: str | Path, data_dir: str = "") -> str:
    """The same training as one call of sem_jax.main, for the record: as a shell takes it."""
    return shlex.join(["python", "-m", "sem_jax.main", *arguments(cell, folder, data_dir)])


def arguments(cell: Cell, folder: str | Path, data_dir: str = "") -> list[str]:
    """Those of sem_jax.main for the training of a cell."""
    method, _, _ = base_of(cell.method)
    path = _config_file(cell.backbone, cell.dataset)
    start = dict(flatten(runpy.run_path(str(path))["get_config"](method)))
    wanted = dict(flatten(with_scorer(make_config(cell, data_dir=data_dir), cell, Path(folder).parent)))
    derived = {"mixer.stop_epoch"}  # follows train.epochs
    flags = [f"--config.{n}={_flag(v)}" for n, v in wanted.items() if v != start[n] and n not in derived]
    return [f"--config=configs/{path.name}:{method}", f"--workdir={folder}", *flags]


def _flag(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) + "," if value else "()"
    return str(value)
