"""The fields of a configuration, one row each: name, default, what is allowed and what it does.

    FIELDS["objective.gamma"].check(-1.0)    # ConfigError: objective.gamma must be >= 0, got -1.0
    print(describe())                        # all fields by group, for --help

Defaults, checks, `--help` and docs/settings.md (`python -m sem_jax.config`) come from this table. To add a field, add a
row here and the code that reads it. What a row is made of is in `kinds`. Importing this module imports no jax: allowed
words are imported when needed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sem_jax.config.kinds import RENAMED, Field, Range, Words
from sem_jax.errors import ConfigError
from sem_jax.registry import meant, nearest, plainest

GROUPS = {
    "data": "What is learned from, and how images are augmented before they are mixed.",
    "model": 'The net. 0 and "" stand for the model\'s own default; a field that the model has no use for is refused.',
    "mixer": "How images are mixed, with whom, and how long in training.",
    "objective": "The loss and the SEM penalty.",
    "optim": "The optimizer and its learning rate.",
    "train": "Length of training, scores and checkpoints.",
    "runtime": "Where and how fast the run goes. These fields change no number, beyond the rounding of sums in another "
    "order; a run may be resumed with other values.",
}
INTRODUCTION = """# Settings

Set a field on the command line, `--config.mixer.alpha=0.5`, or in a configuration file, `cfg.mixer.alpha = 0.5`. The
defaults are this library's reading of the paper's recipe for PreActResNet18 on CIFAR-10 with mixup + SEM. The six files
of `configs/` for the paper's tables follow its literal reading
([differences](reproducing.md#the-papers-settings-and-the-librarys)). `python -m sem_jax.config` prints this.
"""
DEFAULT_GAMMA = 0.3
EPOCHS = 200
MANY, ENDLESS = 10**6, 10**9  # upper bounds for what nobody needs more of
RATE, SHARE, POSITIVE = Range(0, 1, "[)"), Range(0, 1, "(]"), Range(0, MANY, "(]")

# fmt: off
TABLE = (
    Field("seed", 0, Range(0, 2**32 - 1), "With the step it gives every random number and the order of the data."),

    Field("data.name", "cifar10", Words("sem_jax.data:DATASETS", "data set"), "The data set."),
    Field("data.dir", "", None, 'Folder of the data, gs:// too; "" = $TFDS_DATA_DIR, then ~/tensorflow_datasets.'),
    Field("data.image_column", "", None, 'Column of the images of hf; "" = the only one of type Image.'),
    Field("data.label_column", "", None, 'Column of the labels of hf; "" = the one of type ClassLabel, else `label`.'),
    Field("data.val_size", 0, Range(0, ENDLESS),
          "Images held out of train, class-balanced. Select alpha and gamma with 5000; the final runs hold out none."),
    Field("data.train_size", 0, Range(0, ENDLESS),
          "Train on so many images, class-balanced, the same for every seed; 0 = all."),
    Field("data.use_test", True, None, "False: the test split is neither read nor scored; needs data.val_size."),
    Field("data.image_size", 0, Range(8, 4096, beside=0),
          "For image folders, in pixels: the shorter side is resized to it, the centre cropped; 0 = as they are."),
    Field("data.mean", (), None,
          "What is subtracted from the channels of pixels in [0, 1]; () = that of the source of model.init_from, where "
          "it is known, or the mean of the training images."),
    Field("data.std", (), None,
          "What they are divided by; () = likewise, or the standard deviation of the training images."),
    Field("data.crop_padding", 4, Range(0, 4096), "Pixels of black border, added before a random crop; 0 = no crop."),
    Field("data.crop_scale", 0.0, Range(0, 1),
          "Random resized crop of encoded images (image_folder, tfds, hf): the smallest share of the area that is "
          "kept; 0 = none. ImageNet recipes take 0.08, with data.crop_padding 0 and data.image_size 224."),
    Field("data.eval_crop", 1.0, SHARE,
          "With data.crop_scale: the share of the shorter side that evaluation sees; ImageNet recipes take 0.875."),
    Field("data.flip", True, None, "Mirror left and right with probability 0.5."),
    Field("data.randaugment", 0, Range(0, 16),
          "Operations of RandAugment for each image, after crop and flip and before mixing; 0 = none, 2 is usual."),
    Field("data.randaugment_magnitude", 9, Range(0, 30), "Magnitude of these operations; 9 is usual."),

    Field("model.name", "preact_resnet", Words("sem_jax.models:MODELS", "model", "module.path:factory"),
          "The net, or your own as module.path:factory. Naming a module executes it."),
    Field("model.num_classes", 0, Range(2, MANY, beside=0), "0 = as many as the data set has."),
    Field("model.depth", 0, Range(0, 2000),
          "Layers of a ResNet (preact_resnet and resnet: 18), blocks of the other nets."),
    Field("model.width", 0, Range(0, 16384),
          "Channels of the first stage or entries of a token; wide_resnet: widen factor."),
    Field("model.variant", "", None, "preact_resnet: v1, v2 or v3."),
    Field("model.stem", "", None, "ResNets: 3x3, 3x3s2 (halves the image; some Tiny-ImageNet papers) or 7x7s2."),
    Field("model.norm", "", None, "ResNets: batch, or one without running averages: group or layer."),
    Field("model.patch_size", 0, Range(0, 1024),
          "vit, mlp_mixer: 4 pixels for images of 32, 16 for 224; convnext: 2 and 4."),
    Field("model.heads", 0, Range(0, 1024), "vit: heads of the attention; 0 = of about 64 entries each."),
    Field("model.pool", "", None, "vit: token (features of the class token) or mean (of the patches)."),
    Field("model.dropout", 0.0, RATE, "Rate; wide_resnet, vit, mlp_mixer."),
    Field("model.stochastic_depth", 0.0, RATE,
          "Rate of the last block; it rises from 0 at the first. Not for preact_resnet and wide_resnet."),
    Field("model.options", "", None, "Custom models: arguments of their factory, as in hidden=64, act='gelu'."),
    Field("model.init_from", "", None,
          "Weights to start from: a run folder, a .safetensors or .pth file, or hf://owner/name[@revision][/file]; "
          "\"\" = none. Read before the first step alone."),
    Field("model.dtype", "auto", Words("sem_jax.models:DTYPES"),
          "Type of the computation; parameters are float32. auto = float32 on CPU, else bfloat16."),

    Field("mixer.name", "mixup", Words("sem_jax.mixers:MIXERS", "mixer"), "The way of mixing two images."),
    Field("mixer.alpha", 1.0, POSITIVE, "lam ~ Beta(alpha, alpha); 2 is usual for manifold_mixup and alignmix."),
    Field("mixer.options", "", None, "As in: decay=3.0, max_soft=0.2; python -m sem_jax.mixers --list names them all."),
    Field("mixer.scorer", "", None, "attentive_cutmix: run folder of a net, trained before, that says where to look."),
    Field("mixer.scope", "sample", Words("sem_jax.mixers.mixer:SCOPES"),
          "sample: every pair has its own lam; batch: all pairs of a step share one."),
    Field("mixer.prob", 1.0, Range(0, 1), "Probability that a pair (scope sample) or a batch (scope batch) is mixed."),
    Field("mixer.pairing", "permutation", Words("sem_jax.mixers.pairing:PAIRINGS"), "Who is mixed with whom."),
    Field("mixer.across_device", True, None,
          "False: partners lie in one device's part of the batch. Then no features travel between devices, and the "
          "numbers depend on how many there are."),
    Field("mixer.schedule", "constant", Words("sem_jax.mixers.strength:STRENGTHS"),
          "What mixer.prob is multiplied by as the steps up to mixer.stop_epoch go by."),
    Field("mixer.stop_epoch", EPOCHS, None, "Epochs with mixing and penalty; train.epochs unless it is set."),

    Field("objective.gamma", DEFAULT_GAMMA, Range(0, MANY), "Coefficient of the SEM penalty; 0 = none."),
    Field("objective.gamma_warmup", 0.0, Range(0, 1),
          "gamma rises linearly from 0 in this first part of training. Not in the paper: in short runs the penalty can "
          "shrink the features before they tell classes apart."),
    Field("objective.clean_features", "exact", Words("sem_jax.objectives.build:CLEAN_FEATURES"),
          "exact: the clean images are run when gamma > 0, with gradient. grad: always, also at gamma 0 (a control). "
          "stop_gradient: always, as targets only (4/3 of the cost of a mixup step instead of 2). ema_teacher: as "
          "targets, by a net whose weights are an average over the steps."),
    Field("objective.ema_decay", 0.999, RATE, "Decay of that average per step; ema_teacher only."),
    Field("objective.penalty_every", 1, Range(1, MANY),
          "The penalty in every k-th step, k times as strong, so that its mean stays. Cheaper, not exact."),
    Field("objective.penalty_fraction", 1.0, SHARE, "The penalty on so large a part of the pairs. Cheaper, not exact."),
    Field("objective.mixes_per_clean", 1, Range(1, 32),
          "Mixed batches of a step, sharing one pass of the clean images."),
    Field("objective.distance", "l2", Words("sem_jax.objectives.sem:DISTANCES"),
          "Distance in the penalty. l2 is Eq. 9; normalised is between unit vectors: small features cannot lower it."),
    Field("objective.penalty_pairs", "right", Words("sem_jax.objectives.build:PENALTY_PAIRS"),
          "wrong, a control: the target is the mixture of another pair."),
    Field("objective.bn_running", "both", Words("sem_jax.training.forward:BN_RUNNING"),
          "Images whose statistics enter the running averages of BatchNorm. three_passes: as PyTorch has it in the "
          "three passes of Algorithm 1, mixed, anchors, partners: an update for each, with the unbiased variance."),
    Field("objective.label_smoothing", 0.0, RATE, "Share of a target that is spread evenly over the classes."),
    Field("objective.regmixup", False, None, "RegMixup, a comparator: half of the label loss is on clean images."),

    Field("optim.name", "sgd", Words("sem_jax.training.optim:OPTIMIZERS"),
          "adamw is what vit and mlp_mixer want, with a learning rate of about 1e-3."),
    Field("optim.learning_rate", 0.1, POSITIVE, "The highest learning rate of the run."),
    Field("optim.momentum", 0.9, RATE, "Momentum of sgd, b1 of adamw."),
    Field("optim.nesterov", False, None, "Nesterov's momentum; sgd."),
    Field("optim.weight_decay", 1e-4, Range(0, MANY),
          "Weight decay of every parameter. sgd: added to the gradient, and mixup wants less than the usual 5e-4. "
          "adamw: decoupled, 0.05 is usual."),
    Field("optim.clip_norm", 0.0, Range(0, MANY),
          "The gradient's global norm is scaled down to this where it is larger, before weight decay and momentum; "
          "0 = never. grad_norm in metrics.jsonl is the norm before; transformers often take 1."),
    Field("optim.ema_decay", 0.0, RATE,
          "Decay per step of a moving average of the weights and of BatchNorm's running averages, which is scored and "
          "saved beside the last ones (--checkpoint=ema); after step t it is at most (1 + t) / (10 + t). 0 = none; "
          "0.999 to 0.9999 are usual, the longer the run the closer to 1."),
    Field("optim.schedule", "auto", Words("sem_jax.training.optim:SCHEDULES"),
          "Learning rate over the steps. auto = step, as in the paper, or onecycle below 60 epochs, where the plateaus "
          "of step are too short."),
    Field("optim.boundaries", (0.5, 0.75), None, "step: the rate falls tenfold after these fractions of training."),
    Field("optim.warmup_epochs", 0.0, Range(0, MANY),
          "Epochs of a linear rise from 0; schedules step, cosine, constant."),
    Field("optim.freeze", "", None,
          "Parameters that stay as they are: patterns of their names with commas between them, as in stem*, stage1*; "
          "features = all but the head (a linear probe)."),

    Field("train.epochs", EPOCHS, Range(1, MANY), "Passes over the training images."),
    Field("train.batch_size", 128, Range(1, MANY), "Images of a step, on all devices; an epoch drops the remainder."),
    Field("train.gradient_accumulation", 1, Range(1, 1024),
          "Parts of a batch that are run one after the other, for less memory; the batch is mixed as a whole. "
          "Statistics of BatchNorm are those of the parts: that changes numbers, so it is no field of runtime."),
    Field("train.eval_every", 5, Range(1, ENDLESS),
          "Epochs between scores on val (or, without val, on test); the last always."),
    Field("train.checkpoint_every", 5, Range(1, ENDLESS), "Epochs between checkpoints; the last always."),
    Field("train.keep", 2, Range(1, ENDLESS), "Latest checkpoints that are kept, beside the best one on val."),
    Field("train.keep_epochs", (), None, "Epochs after which a checkpoint is saved and never deleted."),
    Field("train.on_nan", "stop", Words("sem_jax.training.step:ON_NAN"),
          "When a loss, gradient, statistic or metric of a step is not finite: stop the run, with the last good "
          "checkpoint kept, or skip the update. Scores that are not finite stop the run, or are logged as null."),

    Field("runtime.passes", "auto", Words("sem_jax.training.forward:PASSES"),
          "Clean and mixed images go through the net stacked, as one batch, or one after the other (sequential); "
          "auto = stacked on a single GPU."),
    Field("runtime.remat", "none", Words("sem_jax.training.forward:REMAT"),
          "What the backward pass computes again instead of storing it: elementwise (BatchNorm and ReLU) or full (each "
          "forward pass). Less memory, more time."),
    Field("runtime.vmem", 0, Range(0, 128),
          "TPU: MiB of a chip's fast memory that one operation may take; 0 = chosen for the chip."),
    Field("runtime.loop", "auto", Words("sem_jax.training.calls:LOOPS"),
          "Steps of a call loop on the device or on the host; auto = host on CPU, else device."),
    Field("runtime.steps_per_call", 0, Range(0, MANY),
          "Optimizer steps of a compiled call; 0 = about one second's worth."),
    Field("runtime.devices", 0, Range(0, MANY), "Number of devices; 0 = all."),
    Field("runtime.residency", "auto", Words("sem_jax.data.pipeline:RESIDENCY"),
          "Where training images live: decoded on the device or in the host's memory, or encoded on disk (read through "
          "grain); auto = the first of these that has the memory."),
    Field("runtime.workers", -1, Range(-1, 1024),
          "Processes that decode encoded images; 0 = threads; -1 = one a core, or threads where there are few cores."),
    Field("runtime.eval_batch_size", 500, Range(1, MANY), "Images of a batch in evaluation."),
    Field("runtime.cache_dir", "", None,
          'Folder of compiled programs for later runs; "" = below the user\'s cache directory, none = not kept.'),
    Field("runtime.keep_host_memory", True, None,
          "Linux without accelerator: memory that a step frees stays with the process instead of going to the kernel."),
    Field("runtime.progress", True, None, "Progress bar on a terminal."),
    Field("runtime.tracker", "tensorboard", Words("sem_jax.runs.trackers:TRACKERS"),
          "Where a copy of metrics.jsonl is shown: tensorboard (event files in the run folder), wandb or trackio "
          "(extras of these names), or none."),
    Field("runtime.lock_seconds", 60.0, Range(1, 3600),
          "Of a run in a bucket: seconds of a trainer's silence after which the next one may take the run over."),
)
# fmt: on
FIELDS = {field.name: field for field in TABLE}
Rules = Iterator[tuple[str, bool, str]]  # field, whether the rule holds, what is expected


def enforce(cfg: Mapping[str, Any], rules: Rules) -> None:
    """Raises a ConfigError for the first rule that does not hold."""
    for name, holds, expected in rules:
        if not holds:
            group, _, field = name.rpartition(".")
            raise ConfigError(f"{name} must be {expected}, got {cfg[group][field]!r}", FIELDS[name].doc)


def field_meant(name: str) -> str:
    """The field that people mean by `name`, whatever group they put it in: by said.txt, or by its last part; or "".

    >>> field_meant("lr"), field_meant("train.learning_rate"), field_meant("epochs"), field_meant("name")
    ('optim.learning_rate', 'optim.learning_rate', 'train.epochs', '')
    """
    last = plainest(name.rpartition(".")[2])
    same = [field for field in FIELDS if plainest(field.rpartition(".")[2]) == last]
    return same[0] if len(same) == 1 else meant(last, FIELDS)[0]


def did_you_mean(name: str, prefix: str = "") -> str:
    """The rest of "Unknown field NAME.": its new name, or the nearest one; all names start with `prefix`."""
    bare = name.removeprefix(prefix)
    if renamed := RENAMED.get(bare):
        return f" It is called {prefix + renamed!r} now."
    if found := field_meant(bare):
        return f" Did you mean {prefix + found!r}?"
    return nearest(name, [prefix + known for known in FIELDS])


def describe() -> str:
    """All fields by group in Markdown, with default, allowed values and meaning."""
    lines = [INTRODUCTION]
    for group in ("", *GROUPS):
        lines += [f"\n## {group}\n\n{GROUPS[group]}\n"] if group else []
        fields = (field for field in TABLE if field.name.rpartition(".")[0] == group)
        lines += [f"- `{field.name}={field.default}` ({field.expected}): {field.doc}" for field in fields]
    return "\n".join(lines) + "\n"
