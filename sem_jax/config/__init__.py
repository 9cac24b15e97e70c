"""Every setting once, with its unit and reason; and `validate`, which refuses what cannot work (see `config_checks`).

    cfg = get_default()                      # a file in configs/ starts from this and overrides what differs
    apply_method(cfg, "mixup+es+sem")        # one of the paper's nine
    validate(cfg)                            # raises ConfigError before anything compiles

Any field can be set from the command line: `--config.objective.gamma=0.5`. Importing this module imports no jax.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict, FieldReference

from sem_jax.config import checks as config_checks
from sem_jax.errors import ConfigError
from sem_jax.registry import lookup, nearest

METHODS = (
    "erm",
    "mixup",
    "mixup+sem",
    "mixup+es",
    "mixup+es+sem",
    "cutmix",
    "cutmix+sem",
    "cutmix+es",
    "cutmix+es+sem",
)
DEFAULT_GAMMA = 0.3

# Groups whose fields cannot change a number that is reported; a run may be resumed with other values of them.
SPEED_ONLY = ("runtime",)

# What a saved configuration cannot do without. Other fields may have come after it was saved: so the default of a new
# field has to mean what was done before.
_ESSENTIAL = ("seed", "data.name", "model.name", "mixer.name", "objective.gamma", "train.epochs", "train.batch_size")


def get_default() -> ConfigDict:
    """The paper's recipe for PreActResNet18 on CIFAR-10 with mixup + SEM, every field at its default."""
    epochs = FieldReference(200)
    cfg = ConfigDict()
    cfg.seed = 0  # with the step it gives every random number and the data order

    cfg.data = ConfigDict()
    cfg.data.name = "cifar10"
    cfg.data.dir = ""  # where the data is; "" = $TFDS_DATA_DIR, then ~/tensorflow_datasets
    cfg.data.val_size = 0  # items held out of train, class-balanced; selection uses 5,000, the final runs none
    cfg.data.train_size = 0  # train on so many items, class-balanced, the same for every seed; 0 = all
    cfg.data.use_test = True  # False: the test split is neither read nor scored, for selection; needs val_size
    cfg.data.image_size = 0  # pixels; only for image folders: shorter side resized, centre cropped; 0 = as they are
    cfg.data.crop_padding = 4  # pixels of black border before a random crop of the original size; 0 = no crop
    # Random resized crop of streamed images (image_folder, tfds): the smallest share of the area; 0 = none, ImageNet
    # recipes take 0.08 (with crop_padding 0 and image_size 224).
    cfg.data.crop_scale = 0.0
    cfg.data.eval_crop = 1.0  # with crop_scale: share of the shorter side that evaluation sees; ImageNet 0.875
    cfg.data.flip = True  # mirror left and right with probability 0.5

    cfg.model = ConfigDict()
    cfg.model.name = "preact_resnet"  # of MODELS, or your own as module.path:factory; naming a module executes it
    cfg.model.num_classes = 0  # 0 = as many as the data set has
    # 0 and "" = the model's own default; what a model has no use for is refused.
    cfg.model.depth = 0  # layers of a ResNet (preact_resnet and resnet: 18), blocks of the others
    cfg.model.width = 0  # channels of the first stage or entries of a token; wide_resnet: the widen factor
    cfg.model.variant = ""  # preact_resnet: v1, v2 or v3
    cfg.model.stem = ""  # ResNets: 3x3, 3x3s2 (halves the image; some Tiny-ImageNet papers) or 7x7s2 (224 pixels)
    cfg.model.norm = ""  # ResNets: batch, or without running statistics: group or layer
    cfg.model.patch_size = 0  # vit, mlp_mixer, convnext: pixels; 4 for images of 32 (convnext 2), 16 for 224 (4)
    cfg.model.heads = 0  # vit: of the attention; 0 = about 64 entries each
    cfg.model.pool = ""  # vit: the features are the class token's ("token") or the patches' "mean"
    cfg.model.dropout = 0.0  # rate; wide_resnet, vit, mlp_mixer
    cfg.model.stochastic_depth = 0.0  # rate of the last block, rising from 0 at the first; not of pre-act ResNets
    cfg.model.options = ""  # own models: what their factory takes beside these fields, "hidden=64, act='gelu'"
    cfg.model.dtype = "auto"  # of the computation: float32, bfloat16; auto = float32 on CPU, else bfloat16

    cfg.mixer = ConfigDict()
    cfg.mixer.name = "mixup"
    cfg.mixer.alpha = 1.0  # lam ~ Beta(alpha, alpha); 2 is usual for manifold_mixup and alignmix
    # The mixer's own options as text, "decay=3.0, max_soft=0.2"; python -m sem_jax.mixers --list names them all.
    cfg.mixer.options = ""
    cfg.mixer.scorer = ""  # attentive_cutmix: run folder of the frozen net that says where to look
    cfg.mixer.scope = "sample"  # "sample": a lam for every pair; "batch": one for all pairs of a step
    cfg.mixer.prob = 1.0  # probability that a pair (scope sample) or a batch (scope batch) is mixed
    # permutation, derangement, roll, flip, same_class or other_class
    cfg.mixer.pairing = "permutation"
    # False: partners only within a device's part of the batch, so that the numbers depend on how many devices there are
    cfg.mixer.across_device = True
    # constant, linear, cosine or alternating: what prob is multiplied by as the steps up to stop_epoch go by
    cfg.mixer.schedule = "constant"
    # Mixing is on in epochs < stop_epoch. A reference derived from train.epochs, so that it follows an override of
    # that field (the sum makes it a reference of its own: setting it must not set train.epochs).
    cfg.mixer.stop_epoch = epochs + 0

    cfg.objective = ConfigDict()
    cfg.objective.gamma = DEFAULT_GAMMA  # coefficient of the SEM penalty; 0 = none
    # The first part of training (a fraction; 0 = none) in which gamma rises linearly from 0. Not in the paper: in short
    # runs the penalty can shrink the features before they tell classes apart.
    cfg.objective.gamma_warmup = 0.0
    # "exact": the clean images are run when gamma > 0, with gradient; "grad": always, also at gamma 0 (a control);
    # "stop_gradient": always, as targets only (4/3 of a mixup step instead of 2); "ema_teacher": as targets, from an
    # average of the weights.
    cfg.objective.clean_features = "exact"
    cfg.objective.ema_decay = 0.999  # per step; ema_teacher only
    cfg.objective.penalty_every = 1  # the penalty in every k-th step, k times as strong (the mean is gamma); not exact
    cfg.objective.penalty_fraction = 1.0  # the penalty on so large a part of the pairs of a batch; not exact
    cfg.objective.mixes_per_clean = 1  # so many mixed batches a step, which share one pass of the clean images
    # Of the penalty: "l2" is Eq. 9; "squared"; "normalised" = between unit vectors, which small features cannot lower.
    cfg.objective.distance = "l2"
    cfg.objective.penalty_pairs = "right"  # "wrong": the mixture of another pair is the target, a control
    cfg.objective.bn_running = "both"  # streams whose statistics enter BatchNorm's running averages: both, mixed, clean
    cfg.objective.label_smoothing = 0.0
    cfg.objective.regmixup = False  # label loss on clean and mixed images, half weight each (RegMixup, a comparator)

    cfg.optim = ConfigDict()
    cfg.optim.name = "sgd"  # sgd, or adamw: what ViT and MLP-Mixer want, with a learning rate of about 1e-3
    cfg.optim.learning_rate = 0.1
    cfg.optim.momentum = 0.9  # adamw: its b1
    cfg.optim.nesterov = False
    # On every parameter. sgd: added to the gradient, and mixup wants less than the usual 5e-4; adamw: decoupled, 0.05.
    cfg.optim.weight_decay = 1e-4
    # step, cosine, onecycle or constant; auto = the recipe's step, but onecycle below 60 epochs, where the step's
    # plateaus are too short.
    cfg.optim.schedule = "auto"
    cfg.optim.boundaries = (0.5, 0.75)  # step: x0.1 after these fractions of training = epochs 100 and 150 of 200
    cfg.optim.warmup_epochs = 0.0  # linear from 0; step, cosine and constant

    cfg.train = ConfigDict()
    cfg.train.epochs = epochs
    cfg.train.batch_size = 128  # of all devices together; an epoch drops the remainder
    # Micro-batches of a step: the batch as a whole is mixed and paired, but run in so many parts, for which the memory
    # suffices. Under train, not runtime, since BatchNorm's statistics are those of the parts.
    cfg.train.gradient_accumulation = 1
    cfg.train.eval_every = 5  # epochs between scores on val (or, without val, on test); the last epoch always
    cfg.train.checkpoint_every = 5  # epochs between checkpoints; the last epoch always
    cfg.train.keep = 2  # latest checkpoints kept, beside the best one on val
    cfg.train.keep_epochs = ()  # epochs after which a checkpoint is saved and never deleted
    # A loss, gradient, BatchNorm statistic or other metric of a step that is not finite: "stop" the run, with the last
    # good checkpoint kept, or "skip" the update. Scores that are not finite stop the run, or are logged as null.
    cfg.train.on_nan = "stop"

    cfg.runtime = ConfigDict()  # nothing in here changes a number, beyond the rounding of another order of sums
    # Clean and mixed images "stacked" in one pass or "sequential"; auto = stacked on a single GPU or TPU core.
    cfg.runtime.streams = "auto"
    # What the backward pass computes again instead of storing it: "none", "elementwise" (BatchNorm and ReLU) or "full"
    # (each stream's forward pass).
    cfg.runtime.remat = "none"
    cfg.runtime.loop = "auto"  # steps of a call loop on the "device" or on the "host"; auto = device but on CPU
    cfg.runtime.steps_per_call = 0  # optimizer steps per compiled call; 0 = about one second's worth
    cfg.runtime.devices = 0  # number of devices; 0 = all
    # Training images live decoded on the "device" or the "host", or encoded on disk ("stream": read through grain);
    # auto = the first of these that has the memory.
    cfg.runtime.residency = "auto"
    # Processes that decode streamed images; 0 = threads; -1 = one a core, or threads on few cores.
    cfg.runtime.workers = -1
    cfg.runtime.eval_batch_size = 500
    # Compiled programs are kept here for later runs; "" = below the user's cache directory, "none" = not kept.
    cfg.runtime.cache_dir = ""
    # Linux without accelerator: memory that a step frees stays with the process instead of going back to the kernel.
    cfg.runtime.keep_host_memory = True
    cfg.runtime.progress = True  # progress bar on a terminal
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
    """What a configuration amounts to, in the paper's words: "mixup+es+sem"."""
    if cfg.mixer.name == "none":
        return "erm"
    stopped = cfg.mixer.stop_epoch < cfg.train.epochs
    name = cfg.mixer.name + ("+regmixup" if cfg.objective.regmixup else "")
    return name + ("+es" if stopped else "") + ("+sem" if cfg.objective.gamma > 0 else "")


def flatten(cfg: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every field."""
    for name, value in cfg.items():
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def to_dict(cfg: ConfigDict) -> dict:
    """Nested plain values, as written to config.json."""
    return {
        name: to_dict(value) if isinstance(value, ConfigDict) else list(value) if isinstance(value, tuple) else value
        for name, value in cfg.items()
    }


def from_dict(values: dict) -> ConfigDict:
    """A validated configuration from what `to_dict` gave, in this version or an older one; nothing is executed.

    A field that is missing was not there yet and takes its default.

    Raises:
      ConfigError: for a field this version does not know, an essential one missing, or a value that cannot work.
    """
    cfg = get_default()
    known = dict(flatten(cfg))
    flat: dict[str, Any] = {}

    def collect(part: dict, prefix: str) -> None:
        for name, value in part.items():
            if isinstance(value, dict):
                collect(value, f"{prefix}{name}.")
            elif (prefix, name, value) == ("objective.", "clean_features", "auto"):
                flat["objective.clean_features"] = "exact"  # its name before 0.1.0
            else:
                flat[f"{prefix}{name}"] = tuple(value) if isinstance(value, list) else value

    collect(values, "")
    for name, value in flat.items():
        if name not in known:
            raise ConfigError(f"Unknown field {name!r} in the saved configuration.{nearest(name, known)}")
        group, _, field = name.rpartition(".")
        target = cfg[group] if group else cfg
        try:
            target[field] = float(value) if isinstance(known[name], float) and type(value) is int else value
        except (TypeError, ValueError):
            raise ConfigError(f"{name} must be {config_checks.kind_of(known[name])}, got {value!r}") from None
    missing = sorted(set(_ESSENTIAL) - set(flat))
    if missing:
        raise ConfigError(f"The saved configuration lacks the field {missing[0]!r}.")
    validate(cfg)
    return cfg


def validate(cfg: ConfigDict, *, num_devices: int | None = None) -> None:
    """Refuses what cannot work, before data is read or anything compiles.

    Args:
      cfg: the configuration, command-line overrides included.
      num_devices: devices that are there; None leaves the device checks out (they need jax to be started).

    Raises:
      ConfigError: names the field, its value and what was expected; for names, the known and the nearest ones.
    """
    config_checks.check_types(dict(flatten(cfg)), dict(flatten(get_default())))
    config_checks.check_ranges(cfg)
    config_checks.check_names(cfg)
    if num_devices is not None:
        config_checks.check_devices(cfg, num_devices)
