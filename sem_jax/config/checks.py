"""The checks of a configuration, each refusing with one message what cannot work; `config.validate` calls them in turn.

    check_types(values, defaults)     # flat: dotted name -> value
    check_ranges(cfg)
    check_names(cfg)                  # brings jax: the registries
    check_devices(cfg, num_devices)

All raise ConfigError naming the field, its value and what was expected; for names, the known and the nearest ones.
"""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sem_jax.errors import ConfigError
from sem_jax.registry import lookup, nearest


def kind_of(value: Any) -> str:
    """What a field takes, by its default: "a whole number"."""
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a list of numbers"}
    return names.get(type(value), type(value).__name__)


def check_types(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuses a field that is not known, of another type than its default, or not finite."""
    for name, value in values.items():
        if name not in defaults:
            raise ConfigError(f"Unknown field {name!r}.{nearest(name, defaults)}")
        expected = type(defaults[name])
        if type(value) is not expected and not (expected is float and type(value) is int):
            raise ConfigError(f"{name} must be {kind_of(defaults[name])}, got {value!r}")
        numbers = value if isinstance(value, tuple) else (value,)
        if expected in (float, tuple) and not all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers):
            raise ConfigError(f"{name} must be finite, got {value}")


def check_shortcuts(cfg: ConfigDict) -> None:
    """The options that are cheaper than the exact penalty, and what each of them cannot be combined with."""
    o, t = cfg.objective, cfg.train
    for name, default in (("penalty_every", 1), ("penalty_fraction", 1.0)):
        if o[name] != default and (o.gamma == 0 or o.clean_features == "grad"):
            raise ConfigError(f"objective.{name}={o[name]} needs gamma > 0 and clean_features other than 'grad'")
    if o.clean_features == "ema_teacher" and o.gamma == 0:
        raise ConfigError("objective.clean_features='ema_teacher' needs gamma > 0, got 0.0")
    if o.penalty_fraction < 1 and round(o.penalty_fraction * t.batch_size) < 2:
        raise ConfigError(
            f"objective.penalty_fraction must leave 2 pairs of train.batch_size, got {o.penalty_fraction}"
        )
    if o.mixes_per_clean > 1 and cfg.mixer.name == "none":
        raise ConfigError(f"objective.mixes_per_clean must be 1 with mixer.name='none', got {o.mixes_per_clean}")
    used = [
        f"clean_features={o.clean_features!r}" if o.clean_features == "ema_teacher" else "",
        f"penalty_fraction={o.penalty_fraction}" if o.penalty_fraction < 1 else "",
        f"mixes_per_clean={o.mixes_per_clean}" if o.mixes_per_clean > 1 else "",
        f"penalty_every={o.penalty_every}" if o.penalty_every > 1 and o.regmixup else "",
    ]
    used = next(filter(None, used), "")
    if used and t.gradient_accumulation > 1:
        raise ConfigError(f"objective.{used} needs train.gradient_accumulation=1, got {t.gradient_accumulation}")
    if used and o.regmixup:
        raise ConfigError(f"objective.{used} needs objective.regmixup=False: RegMixup wants every clean image")


def check_ranges(cfg: ConfigDict) -> None:
    """Refuses a value out of its range, and values that contradict each other."""

    def need(name: str, holds: bool, expected: str) -> None:
        if not holds:
            value = cfg
            for part in name.split("."):
                value = value[part]
            raise ConfigError(f"{name} must be {expected}, got {value!r}")

    def one_of(name: str, known: tuple[str, ...]) -> None:
        group, field = name.split(".")
        lookup(dict.fromkeys(known), name, cfg[group][field])

    d, m, x, o, p, t, r = cfg.data, cfg.model, cfg.mixer, cfg.objective, cfg.optim, cfg.train, cfg.runtime
    need("seed", 0 <= cfg.seed < 2**32, "in [0, 2**32)")
    need("data.val_size", d.val_size >= 0, ">= 0")
    need("data.train_size", d.train_size >= 0, ">= 0")
    need("data.image_size", d.image_size == 0 or d.image_size >= 8, "0 or >= 8 pixels")
    need("data.crop_scale", 0 <= d.crop_scale <= 1, "in [0, 1]")
    need("data.eval_crop", 0 < d.eval_crop <= 1, "in (0, 1]")
    need("data.crop_padding", d.crop_padding >= 0, ">= 0 pixels")
    need("model.num_classes", m.num_classes == 0 or m.num_classes >= 2, "0 (from the data) or >= 2")
    for field in ("depth", "width", "patch_size", "heads"):
        need(f"model.{field}", m[field] >= 0, ">= 0 (0 = the model's own default)")
    for field in ("dropout", "stochastic_depth"):
        need(f"model.{field}", 0 <= m[field] < 1, "in [0, 1)")
    need("mixer.alpha", x.alpha > 0, "> 0")
    need("mixer.prob", 0 <= x.prob <= 1, "in [0, 1]")
    one_of("mixer.scope", ("sample", "batch"))
    one_of("mixer.schedule", ("constant", "linear", "cosine", "alternating"))
    need("objective.gamma", o.gamma >= 0, ">= 0")
    need("objective.gamma_warmup", 0 <= o.gamma_warmup <= 1, "in [0, 1], a fraction of training")
    one_of("objective.clean_features", ("exact", "grad", "stop_gradient", "ema_teacher"))
    need("objective.ema_decay", 0 <= o.ema_decay < 1, "in [0, 1)")
    need("objective.penalty_every", o.penalty_every >= 1, ">= 1 steps")
    need("objective.penalty_fraction", 0 < o.penalty_fraction <= 1, "in (0, 1]")
    need("objective.mixes_per_clean", o.mixes_per_clean >= 1, ">= 1")
    one_of("objective.distance", ("l2", "squared", "normalised"))
    one_of("objective.penalty_pairs", ("right", "wrong"))
    one_of("objective.bn_running", ("both", "mixed", "clean"))
    need("objective.label_smoothing", 0 <= o.label_smoothing < 1, "in [0, 1)")
    one_of("optim.name", ("sgd", "adamw"))
    need("optim.learning_rate", p.learning_rate > 0, "> 0")
    need("optim.momentum", 0 <= p.momentum < 1, "in [0, 1)")
    need("optim.weight_decay", p.weight_decay >= 0, ">= 0")
    one_of("optim.schedule", ("auto", "step", "cosine", "onecycle", "constant"))
    rising = all(a < b for a, b in zip((0, *p.boundaries), (*p.boundaries, 1), strict=True))
    need("optim.boundaries", rising, "rising fractions of training between 0 and 1")
    need("train.epochs", t.epochs >= 1, ">= 1")
    need("optim.warmup_epochs", 0 <= p.warmup_epochs < t.epochs, "in [0, train.epochs)")
    need("train.batch_size", t.batch_size >= 1, ">= 1")
    need(
        "train.gradient_accumulation",
        t.gradient_accumulation >= 1 and t.batch_size % t.gradient_accumulation == 0,
        f"a divisor of train.batch_size = {t.batch_size}",
    )
    need("train.eval_every", t.eval_every >= 1, ">= 1 epochs")
    need("train.checkpoint_every", t.checkpoint_every >= 1, ">= 1 epochs")
    need("train.keep", t.keep >= 1, ">= 1")
    whole = all(type(e) is int and 1 <= e <= t.epochs for e in t.keep_epochs)
    need("train.keep_epochs", whole, f"epochs from 1 to train.epochs = {t.epochs}")
    one_of("train.on_nan", ("stop", "skip"))
    one_of("model.dtype", ("auto", "float32", "bfloat16"))
    one_of("runtime.streams", ("auto", "stacked", "sequential"))
    one_of("runtime.remat", ("none", "elementwise", "full"))
    one_of("runtime.loop", ("auto", "device", "host"))
    one_of("runtime.residency", ("auto", "device", "host", "stream"))
    need("runtime.workers", r.workers >= -1, ">= -1")
    need("runtime.steps_per_call", r.steps_per_call >= 0, ">= 0")
    need("runtime.devices", r.devices >= 0, ">= 0")
    need("runtime.eval_batch_size", r.eval_batch_size >= 1, ">= 1")
    need("mixer.stop_epoch", 0 <= x.stop_epoch <= t.epochs, f"in [0, train.epochs = {t.epochs}]")
    if x.name == "none" and o.gamma > 0:
        raise ConfigError(
            f"objective.gamma must be 0 with mixer.name='none', got {o.gamma}: without mixed images there is no penalty"
        )
    if x.name == "none" and o.regmixup:
        raise ConfigError("objective.regmixup must be False with mixer.name='none': there are no mixed images")
    if x.scorer and x.name not in ("attentive_cutmix", "choice"):
        raise ConfigError(f'mixer.scorer must be "" with mixer.name={x.name!r}, which asks no net, got {x.scorer!r}')
    if not d.use_test and not d.val_size:
        raise ConfigError("data.use_test=False needs data.val_size > 0, got 0: there would be nothing to score")
    if d.crop_scale:
        need("data.crop_padding", d.crop_padding == 0, "0 with data.crop_scale: there is one random crop")
        need("data.image_size", d.image_size > 0, "given with data.crop_scale (for example 224)")
        need("runtime.residency", r.residency in ("auto", "stream"), "auto or stream with data.crop_scale")
    else:
        need("data.eval_crop", d.eval_crop == 1, "1 without data.crop_scale")
    if p.nesterov and p.momentum == 0:
        raise ConfigError("optim.nesterov needs optim.momentum > 0, got momentum 0.0")
    check_shortcuts(cfg)
    if o.bn_running != "both" and not (o.gamma > 0 or o.clean_features in ("grad", "stop_gradient") or o.regmixup):
        raise ConfigError(
            f"objective.bn_running={o.bn_running!r} needs the clean pass (gamma > 0 or clean_features='grad')"
        )


def check_names(cfg: ConfigDict) -> None:
    """Refuses a data set, mixer, pairing or model that is not known, and options that it does not take."""
    # Imported here: the registries bring jax, and config files are to be read without it.
    from sem_jax.data import DATASETS
    from sem_jax.mixers import PAIRINGS, make_mixer
    from sem_jax.models import make_model

    source = lookup(DATASETS, "data set", cfg.data.name)
    mixer = make_mixer(cfg.mixer.name, alpha=cfg.mixer.alpha, options=cfg.mixer.options)
    if cfg.objective.penalty_fraction < 1 and mixer.hook is not None:
        raise ConfigError(
            f"objective.penalty_fraction must be 1 with mixer.name={cfg.mixer.name!r}, which mixes hidden states, "
            f"got {cfg.objective.penalty_fraction}"
        )
    if cfg.train.gradient_accumulation > 1 and mixer.hook is not None:
        raise ConfigError(
            f"train.gradient_accumulation must be 1 with mixer.name={cfg.mixer.name!r}, which mixes hidden states of "
            f"the whole batch, got {cfg.train.gradient_accumulation}"
        )
    lookup(PAIRINGS, "mixer.pairing", cfg.mixer.pairing)
    if "attentive_cutmix" in cfg.mixer.name + cfg.mixer.options and not cfg.mixer.scorer:
        raise ConfigError(
            f'mixer.scorer must be a run folder with mixer.name={cfg.mixer.name!r}, which asks a frozen net, got ""',
            "Train a net first, then give its folder: --config.mixer.scorer=runs/NAME.",
        )
    make_model(**{**cfg.model, "num_classes": cfg.model.num_classes or 2, "dtype": "float32"})
    if source.num_classes and cfg.model.num_classes not in (0, source.num_classes):
        raise ConfigError(
            f"model.num_classes must be 0 or {source.num_classes}, the classes of {cfg.data.name}, "
            f"got {cfg.model.num_classes}"
        )
    if cfg.data.image_size and source.image_size:
        raise ConfigError(
            f"data.image_size is for image folders; {cfg.data.name} has {source.image_size} pixels, "
            f"got {cfg.data.image_size}"
        )
    if not source.streams and (cfg.runtime.residency == "stream" or cfg.data.crop_scale):
        field = "data.crop_scale must be 0" if cfg.data.crop_scale else "runtime.residency must not be stream"
        known = ", ".join(name for name, row in DATASETS.items() if row.streams)
        raise ConfigError(f"{field} for {cfg.data.name}, which is not streamed; these are: {known}")


def check_devices(cfg: ConfigDict, num_devices: int) -> None:
    """Refuses more devices than there are, and a batch that they cannot share."""
    devices = cfg.runtime.devices or num_devices
    if devices > num_devices:
        raise ConfigError(f"runtime.devices must be at most {num_devices}, the devices found, got {devices}")
    parts = cfg.train.gradient_accumulation
    if cfg.train.batch_size % (devices * parts):
        times = f" times train.gradient_accumulation = {parts}" if parts > 1 else ""
        raise ConfigError(
            f"train.batch_size must be divisible by the {devices} devices{times}, got {cfg.train.batch_size}"
        )
