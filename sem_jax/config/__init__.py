"""Settings of a run: their defaults, and how they are set, checked, saved and loaded.

    cfg = get_default()                      # a file in configs/ starts from this and sets what differs
    apply_method(cfg, "mixup+es+sem")        # one of the paper's nine
    validate(cfg)                            # raises ConfigError before anything compiles

The command line sets a field by `--config.objective.gamma=0.5`; docs/settings.md lists all fields. Importing this
package imports no jax.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from sem_jax.config.fields import DEFAULT_GAMMA, FIELDS, GROUPS, RENAMED, TABLE, did_you_mean
from sem_jax.errors import ConfigError
from sem_jax.registry import lookup

METHODS = tuple("erm mixup mixup+sem mixup+es mixup+es+sem cutmix cutmix+sem cutmix+es cutmix+es+sem".split())

# Groups whose fields change no reported number; a run may be resumed with other values of them.
SPEED_ONLY = ("runtime",)

# Fields that may name a place on this machine, which is nobody else's business. So may any text with a slash in it.
# What stands for it is "", or a word where an empty text would be another configuration.
PLACES = {"data.dir": "", "mixer.scorer": "elsewhere", "model.init_from": "elsewhere", "runtime.cache_dir": ""}

# Fields that every saved configuration has. Others may be newer than it, so the default of a new field has to mean what
# was done before.
_ESSENTIAL = ("seed", "data.name", "model.name", "mixer.name", "objective.gamma", "train.epochs", "train.batch_size")


def get_default() -> ConfigDict:
    """The paper's recipe for PreActResNet18 on CIFAR-10 with mixup + SEM, every field at its default."""
    cfg = override(ConfigDict({group: {} for group in GROUPS}), {field.name: field.default for field in TABLE})
    # It follows train.epochs. The sum makes a new reference, so that setting stop_epoch does not set train.epochs.
    cfg.mixer.stop_epoch = cfg.train.get_ref("epochs") + 0
    return cfg.lock()


def apply_method(cfg: ConfigDict, method: str) -> ConfigDict:
    """Sets mixer, penalty and early stop (ES) by one of the paper's nine names.

    ES ends the mixing after three quarters of training, epoch 150 of 200; the paper gives no number.

    Args:
      cfg: changed in place.
      method: one of METHODS; "" leaves cfg as it is.

    Returns:
      cfg.

    Raises:
      ConfigError: for another name.
    """
    if not method:
        return cfg
    mixer, *extras = lookup({name: name for name in METHODS}, "method", method.lower()).split("+")
    cfg.mixer.name = "none" if mixer == "erm" else mixer
    cfg.objective.gamma = (cfg.objective.gamma or DEFAULT_GAMMA) if "sem" in extras else 0.0
    epochs = cfg.train.get_ref("epochs")
    cfg.mixer.stop_epoch = epochs * 3 // 4 if "es" in extras else epochs + 0
    return cfg


def method_of(cfg: ConfigDict) -> str:
    """The method of a configuration in the paper's words: "mixup+es+sem"."""
    if cfg.mixer.name == "none":
        return "erm"
    extras = {
        "+regmixup": cfg.objective.regmixup,
        "+es": cfg.mixer.stop_epoch < cfg.train.epochs,
        "+sem": cfg.objective.gamma > 0,
    }
    return cfg.mixer.name + "".join(name for name, used in extras.items() if used)


def override(cfg: ConfigDict, values: Mapping[str, Any], *, where: str = "") -> ConfigDict:
    """Sets fields by their dotted names: `override(cfg, {"train.epochs": 2, "mixer.alpha": 0.5})`.

    Args:
      cfg: changed in place.
      values: each is checked by itself; `validate` checks them together.
      where: added to the error for an unknown field, such as " in the settings of this cell".

    Returns:
      cfg.

    Raises:
      ConfigError: for an unknown field, or a value that it does not take.
    """
    for name, value in values.items():
        value = tuple(value) if isinstance(value, list) else value
        _check_field(name, value, where)
        group, _, field = name.rpartition(".")
        (cfg[group] if group else cfg)[field] = value
    return cfg


def _check_field(name: str, value: Any, where: str = "") -> None:
    if name not in FIELDS:
        raise ConfigError(f"Unknown field {name!r}{where}.{did_you_mean(name)}")
    FIELDS[name].check(value)


def flatten(cfg: ConfigDict | dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every field."""
    for name, value in cfg.items():
        if isinstance(value, (ConfigDict, dict)):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def to_dict(cfg: ConfigDict) -> dict:
    """Nested plain values, as written to config.json."""
    return {
        name: to_dict(value) if isinstance(value, ConfigDict) else list(value) if isinstance(value, tuple) else value
        for name, value in cfg.items()
    }


def without_places(values: Mapping[str, Any], prefix: str = "") -> dict:
    """A configuration for others: plain values, without paths of this machine (PLACES); hf:// addresses stay."""
    found = {}
    for name, value in values.items():
        if isinstance(value, Mapping | ConfigDict):
            value = without_places(value, f"{prefix}{name}.")
        elif isinstance(value, str) and value and not value.startswith("hf://"):
            value = PLACES.get(f"{prefix}{name}", "" if re.search(r"[/\\~]", value) else value)
        found[name] = list(value) if isinstance(value, tuple) else value
    return found


def from_dict(values: dict) -> ConfigDict:
    """A validated configuration from the result of `to_dict`, of this version or an older one; nothing is executed.

    A missing field takes its default, and old names of fields and values (`RENAMED`) become the new ones.

    Raises:
      ConfigError: an unknown field, a missing essential one, or a value that cannot work.
    """
    flat = {RENAMED.get(name, name): value for name, value in flatten(values)}
    flat = {name: RENAMED.get(f"{name}={value}", value) for name, value in flat.items()}
    cfg = override(get_default(), flat, where=" in the saved configuration")
    if missing := sorted(set(_ESSENTIAL) - set(flat)):
        raise ConfigError(f"The saved configuration lacks the field {missing[0]!r}.")
    validate(cfg, saved=True)
    return cfg


def validate(cfg: ConfigDict, *, num_devices: int | None = None, saved: bool = False) -> None:
    """Refuses a configuration that cannot work, before data is read or anything compiles.

    Args:
      cfg: the configuration, command-line overrides included.
      num_devices: number of devices found; None leaves out the checks that need it.
      saved: it is that of an existing run, which may have values without effect.

    Raises:
      ConfigError: names the field, its value and what is expected; for names, the known and the nearest ones.
    """
    for name, value in flatten(cfg):
        _check_field(name, value)
    from sem_jax.config.checks import check_rules  # more imports than configuration files need

    check_rules(cfg, num_devices, saved=saved)
