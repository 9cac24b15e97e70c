"""Rules over several fields of a configuration; the rules of a single field are in its row of the table.

Each function below yields its `Rules`. What brings jax is imported in the functions that need it, so that the others
answer at once.
"""

import itertools

from ml_collections import ConfigDict

from sem_jax.config.fields import Rules, enforce
from sem_jax.data import DATASETS
from sem_jax.mixers import make_mixer
from sem_jax.models import make_model
from sem_jax.registry import blamed, parse_options
from sem_jax.system.urls import is_url, require_local


def check_rules(cfg: ConfigDict, num_devices: int | None = None, *, saved: bool = False) -> None:
    """Refuses values that contradict each other, the data set, the mixer, the model or, if given, the devices.

    With `saved`, the configuration is that of an existing run, whose values may have no effect.

    Raises:
      ConfigError: names the field, its value and what is expected.
    """
    if not saved:
        check_places(cfg)
    rules = itertools.chain(course(cfg), data(cfg), mixer(cfg), penalty(cfg), devices(cfg, num_devices))
    enforce(cfg, itertools.chain(rules, () if saved else effects(cfg, num_devices or 1)))
    with blamed(f"model.name={cfg.model.name!r} cannot be made"):
        make_model(**{**cfg.model, "num_classes": cfg.model.num_classes or 2, "dtype": "float32"})


def check_places(cfg: ConfigDict) -> None:
    """Refuses addresses where a path of this machine is needed, and those of an unknown kind."""
    if not (cfg.data.name == "hf" and cfg.data.dir.startswith("hf://")):
        is_url(cfg.data.dir)  # refuses others
    require_local("runtime.cache_dir", cfg.runtime.cache_dir, out=True)
    for name, place in (("mixer.scorer", cfg.mixer.scorer), ("model.init_from", cfg.model.init_from)):
        if place.startswith("hf://"):  # a hub's scorer is refused where it is opened
            continue
        if name == "mixer.scorer" and place.endswith((".safetensors", ".pt", ".pth")):
            require_local(name, place)
        is_url(place)


def course(cfg: ConfigDict) -> Rules:
    """Rules on the course of training, and on parts of a batch."""
    train, optim = cfg.train, cfg.optim
    rising = all(earlier < later for earlier, later in itertools.pairwise((0, *optim.boundaries, 1)))
    yield "optim.boundaries", rising, "rising fractions of training between 0 and 1"
    yield "optim.momentum", optim.momentum > 0 or not optim.nesterov, "> 0 with optim.nesterov"
    yield "optim.warmup_epochs", optim.warmup_epochs < train.epochs, f"in [0, train.epochs = {train.epochs})"
    yield "mixer.stop_epoch", 0 <= cfg.mixer.stop_epoch <= train.epochs, f"in [0, train.epochs = {train.epochs}]"
    kept = all(type(epoch) is int and 1 <= epoch <= train.epochs for epoch in train.keep_epochs)
    yield "train.keep_epochs", kept, f"epochs from 1 to train.epochs = {train.epochs}"
    whole = train.batch_size % train.gradient_accumulation == 0
    yield "train.gradient_accumulation", whole, f"a divisor of train.batch_size = {train.batch_size}"


def effects(cfg: ConfigDict, num_devices: int) -> Rules:
    """Rules against values that would have no effect, or leave nothing of the images."""
    from sem_jax.training.optim import choose_schedule

    train, schedule = cfg.train, cfg.optim.schedule
    rises = choose_schedule(schedule, train.epochs) == "onecycle" and cfg.optim.warmup_epochs > 0
    why = "" if schedule == "onecycle" else f" (auto, of {train.epochs} epochs)"
    yield "optim.warmup_epochs", not rises, f"0 with optim.schedule=onecycle{why}, which has a rise of its own"
    twice = "alpha" in parse_options(cfg.mixer.options, "mixer.options")
    yield "mixer.options", not twice, "without alpha, which is the field mixer.alpha"
    side = DATASETS[cfg.data.name].image_size or cfg.data.image_size
    yield "data.crop_padding", not side or cfg.data.crop_padding <= side, f"at most {side}, the side of the images"
    optim, objective, stop = cfg.optim, cfg.objective, cfg.mixer.stop_epoch
    yield "optim.nesterov", not (optim.nesterov and optim.name == "adamw"), "False with optim.name='adamw'"
    warm = objective.gamma_warmup
    yield "objective.gamma_warmup", not warm or objective.gamma > 0, "0 with objective.gamma=0"
    own = objective.clean_features != "ema_teacher" and objective.penalty_every == 1
    needs = "another one where the clean pass is a teacher's or is not in every step (objective.penalty_every)"
    yield "objective.bn_running", objective.bn_running != "clean" or own, needs
    if cfg.mixer.name != "none":
        mixes = f"at least 1 with mixer.name={cfg.mixer.name!r}: at 0 nothing is ever mixed, which is mixer.name='none'"
        yield "mixer.stop_epoch", stop >= 1, mixes
        reached = f"at most mixer.stop_epoch / train.epochs = {stop / train.epochs:.3g}, or gamma is never reached"
        yield "objective.gamma_warmup", warm * train.epochs <= stop, reached
        parts = 1 if cfg.mixer.across_device else cfg.runtime.devices or num_devices
        paired = f"at least {2 * parts} with mixer.name={cfg.mixer.name!r}: an image needs another one to mix with"
        yield "train.batch_size", train.batch_size >= 2 * parts, paired


def data(cfg: ConfigDict) -> Rules:
    """Rules on the data set and on how its images are cropped."""
    name, crop_scale, residency = cfg.data.name, cfg.data.crop_scale, cfg.runtime.residency
    source = DATASETS[name]
    scored = cfg.data.use_test or cfg.data.val_size > 0
    yield "data.val_size", scored, "> 0 with data.use_test=False, or there is nothing to score"
    known = not source.num_classes or cfg.model.num_classes in (0, source.num_classes)
    yield "model.num_classes", known, f"0 or {source.num_classes}, the classes of {name}"
    channels, numbers = source.channels, f"() or {source.channels or 'some'} numbers, one a channel"
    yield "data.mean", not cfg.data.mean or channels in (None, len(cfg.data.mean)), numbers
    yield "data.std", not cfg.data.std or channels in (None, len(cfg.data.std)), numbers
    yield "data.std", all(number > 0 for number in cfg.data.std), "of numbers > 0"
    for field in ("image_column", "label_column"):
        yield f"data.{field}", name == "hf" or not cfg.data[field], f'"" for {name}, which has no columns'
    resized = cfg.data.image_size > 0
    yield "data.image_size", not (resized and source.image_size), f"0 for {name} of {source.image_size} pixels"
    if not source.encodes:
        others = ", ".join(other for other, row in DATASETS.items() if row.encodes)
        cannot = f"for {name}, whose images cannot stay encoded; those of {others} can"
        yield "data.crop_scale", crop_scale == 0, f"0 {cannot}"
        yield "runtime.residency", residency != "disk", f"auto, device or host {cannot}"
    if crop_scale:
        yield "data.crop_padding", cfg.data.crop_padding == 0, "0 with data.crop_scale: there is one random crop"
        yield "data.image_size", resized, "given with data.crop_scale (for example 224)"
        yield "runtime.residency", residency in ("auto", "disk"), "auto or disk with data.crop_scale"
    yield "data.eval_crop", crop_scale > 0 or cfg.data.eval_crop == 1, "1 without data.crop_scale"


def mixer(cfg: ConfigDict) -> Rules:
    """Rules on what goes with the mixer."""
    name, options, objective = cfg.mixer.name, cfg.mixer.options, cfg.objective
    here = f"with mixer.name={name!r}"
    with blamed(f"mixer.name={name!r} cannot be made with mixer.options={options!r}"):
        made = make_mixer(name, alpha=cfg.mixer.alpha, options=options)
    if made.hook is not None:
        hidden = f"1 {here}, which mixes hidden states of the whole batch"
        yield "objective.penalty_fraction", objective.penalty_fraction == 1, hidden
        yield "train.gradient_accumulation", cfg.train.gradient_accumulation == 1, hidden
    if name == "none":
        yield "objective.gamma", objective.gamma == 0, f"0 {here}: without mixed images there is no penalty"
        yield "objective.regmixup", not objective.regmixup, f"False {here}: there are no mixed images"
        yield "objective.mixes_per_clean", objective.mixes_per_clean == 1, f"1 {here}: there are no mixed images"
    if "attentive_cutmix" in name + options:
        yield "mixer.scorer", bool(cfg.mixer.scorer), f"a run folder {here}, which asks a frozen net"
    elif name != "choice":
        yield "mixer.scorer", not cfg.mixer.scorer, f'"" {here}, which asks no net'


def penalty(cfg: ConfigDict) -> Rules:
    """Rules on the penalty, and on its forms that are cheaper than the exact one."""
    from sem_jax.objectives.build import needs_clean_pass

    objective, batch_size = cfg.objective, cfg.train.batch_size
    gamma, clean_features, fraction = objective.gamma, objective.clean_features, objective.penalty_fraction
    if gamma == 0 or clean_features == "grad":
        only = "1 unless objective.gamma > 0 and objective.clean_features is not grad"
        yield "objective.penalty_every", objective.penalty_every == 1, only
        yield "objective.penalty_fraction", fraction == 1, only
    yield "objective.gamma", gamma > 0 or clean_features != "ema_teacher", "> 0 with clean_features='ema_teacher'"
    enough = fraction == 1 or round(fraction * batch_size) >= 2
    yield "objective.penalty_fraction", enough, f"large enough for 2 pairs of train.batch_size = {batch_size}"
    clean = needs_clean_pass(gamma, clean_features, objective.regmixup)
    needed = "both or three_passes without the clean pass (gamma > 0 or clean_features='grad')"
    yield "objective.bn_running", clean or objective.bn_running in ("both", "three_passes"), needed
    cheaper = {
        "clean_features": clean_features == "ema_teacher",
        "penalty_fraction": fraction < 1,
        "mixes_per_clean": objective.mixes_per_clean > 1,
        "penalty_every": objective.penalty_every > 1,
    }
    for field in (field for field, used in cheaper.items() if used):
        here = f"with objective.{field}={objective[field]!r}"
        whole = cfg.train.gradient_accumulation == 1 or field == "penalty_every"
        yield "train.gradient_accumulation", whole, f"1 {here}"
        yield "objective.regmixup", not objective.regmixup, f"False {here}: RegMixup wants every clean image"


def devices(cfg: ConfigDict, num_devices: int | None) -> Rules:
    """Rules on the devices, and on the batch that they share."""
    if num_devices is not None:
        used, parts = cfg.runtime.devices or num_devices, cfg.train.gradient_accumulation
        yield "runtime.devices", used <= num_devices, f"at most {num_devices}, the devices found"
        times = f" times train.gradient_accumulation = {parts}" if parts > 1 else ""
        shared = cfg.train.batch_size % (used * parts) == 0
        yield "train.batch_size", shared, f"divisible by the {used} devices{times}"
