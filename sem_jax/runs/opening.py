"""Opens a run folder: rebuilds the model of a checkpoint, to be scored.

    run = open_run("runs/wrn_c10", "best_val")
    run.model.apply(run.variables, images, train=False)

config.json and data.json are read as data. No configuration file is executed and the trainer is not imported. A model
named module:factory in config.json is imported only if the caller gives the same text as `trust_model`.
"""

import hashlib
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sem_jax import config as config_lib
from sem_jax.data.images import MAX_PIXELS
from sem_jax.errors import ConfigError, RunError
from sem_jax.interfaces import Dataset, Model, Scorer
from sem_jax.mixers import make_scorer
from sem_jax.models import make_model
from sem_jax.runs import shared
from sem_jax.runs.array_files import check_size
from sem_jax.runs.checkpoint import load_model, steps
from sem_jax.runs.extension import read_lengths
from sem_jax.runs.layout import TRAINER
from sem_jax.runs.manifest import Damaged, read_manifest
from sem_jax.runs.reading import read_json, require_run, without_current_folder
from sem_jax.runs.records import read_metrics
from sem_jax.system.hub import is_hub
from sem_jax.system.urls import require_local

LARGEST = 3 * MAX_PIXELS  # numbers of an image; no picture that is read has more


class DataFacts(NamedTuple):
    """The contents of data.json: what is needed to rebuild the model and to recognise the run's data."""

    name: str
    fingerprint: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sizes: dict[str, int]

    @classmethod
    def of(cls, dataset: Dataset) -> "DataFacts":
        """The facts of a data set."""
        height, width, channels = next(iter(dataset.splits.values())).images.shape[1:]
        sizes = {name: len(split.labels) for name, split in dataset.splits.items()}
        shape = height, width, channels
        return cls(dataset.name, dataset.fingerprint, dataset.class_names, shape, dataset.mean, dataset.std, sizes)

    def to_json(self) -> dict[str, Any]:
        """The contents of data.json."""
        return {name: list(it) if isinstance(it, tuple) else it for name, it in self._asdict().items()}


class Run(NamedTuple):
    """One checkpoint of one run."""

    name: str  # of the run folder
    folder: Path  # has config.json
    checkpoint: str  # as the caller named it: "final", "ema", "best_val", a step or a folder
    step: int | None  # None for a checkpoint folder whose name is no number
    config: ConfigDict
    data: DataFacts
    model: Model
    variables: Any  # {"params", "batch_stats"}
    fingerprint: str  # hex SHA-256 of model, variables, mean and std
    source: str = ""  # where it was fetched: gs://BUCKET/FOLDER, hf://owner/name@COMMIT; "" = the folder

    @property
    def precision(self) -> str:
        """The dtype of the computation and the kind of device, on which the digits of predictions depend."""
        return f"{jnp.dtype(self.model.dtype).name}-{jax.default_backend()}"


def open_run(workdir: str | Path, checkpoint: str | int = "final", *, trust_model: str = "") -> Run:
    """Rebuilds the model of a checkpoint from config.json and data.json.

    Args:
      workdir: the run folder, or one of its checkpoints/STEP; gs://BUCKET/FOLDER of a run in a bucket; or a shared run:
        its folder, or hf://owner/name. Ignored if `checkpoint` is a folder.
      checkpoint: "final" (the latest), "ema" (its averaged weights), "best_val" (highest val_accuracy of those kept), a
        step, or a folder as above.
      trust_model: the custom model that may be imported, which executes its code: "my_nets:Net", as in the run's
        config.json; several with commas between them.

    Raises:
      RunError: no such run or checkpoint, it does not fit its configuration, there is no val to choose by, or its model
        is a custom one that `trust_model` does not name.
      ConfigError: config.json is of another version or damaged.
    """
    with without_current_folder():
        return _open_run(workdir, checkpoint, trust_model)


def _open_run(workdir: str | Path, checkpoint: str | int, trust_model: str) -> Run:
    called = str(checkpoint)
    workdir, source, fetched = shared.local_folder(workdir, called)
    workdir = Path(workdir).expanduser()
    by_name = called in shared.NAMED or called.isdigit()
    manifest = shared.read_shared(workdir) if by_name and shared.is_shared(workdir) else None
    part, checkpoint = ("ema", "final") if called == "ema" and not manifest else ("model", called)
    if fetched is not None:
        checkpoint = str(fetched)
    if checkpoint == "final" and not (workdir / "checkpoints").is_dir() and _holds_checkpoint(workdir):
        checkpoint = str(workdir.resolve())  # absolute: a folder may be called 7800 or final
    folder = workdir if manifest else _locate(workdir, checkpoint)[0]
    values = read_json(folder / "config.json")
    if not isinstance(values, dict):
        found = type(values).__name__
        raise RunError(f"{folder / 'config.json'} must hold the fields of a configuration, not a {found}")
    _check_trust(values, folder / "config.json", trust_model)
    cfg, facts = config_lib.from_dict(values), read_facts(folder / "data.json")
    if cfg.model.num_classes not in (0, len(facts.class_names)):
        classes = f"config.json has {cfg.model.num_classes} classes, data.json {len(facts.class_names)}"
        raise RunError(f"{folder}: {classes}", "The two files are not of one run.")
    model = make_model(**{**cfg.model, "num_classes": len(facts.class_names)})
    lengths = [it["epochs"] for it in read_lengths(folder)]
    about = {"seed": cfg.seed, "data": facts.fingerprint, "config": values, "lengths": lengths}
    like = abstract_variables(model, facts.image_shape)
    if manifest:
        shared.check_checkpoint(workdir, manifest, checkpoint)
        name, variables = str(manifest["step"]), shared.load_variables(workdir, manifest, like)
    else:
        name, variables = _load(workdir, checkpoint, like, about, part)
    return Run(
        name=folder.resolve().name,
        folder=folder,
        checkpoint=called if part == "ema" or fetched is not None else checkpoint,
        step=int(name) if name.isdigit() else None,
        config=cfg,
        data=facts,
        model=model,
        variables=variables,
        fingerprint=_fingerprint(variables, repr(model), facts),
        source=source,
    )


def _check_trust(values: dict, where: Path, trust_model: str) -> None:
    """Refuses a configuration that was found and names code, unless the user has named the same."""
    trusted = [name.strip() for name in trust_model.split(",")]
    for field, name in config_lib.flatten(values):
        if field == "model.name" and ":" in str(name) and name not in trusted:
            raise RunError(
                f"{where} names the model {str(name)!r:.200}, which is code and was not imported",
                "If you trust it, give the same name with --trust_model=MODULE:FACTORY (in Python: trust_model=...).",
            )


def open_scorer(
    folder: str | Path, *, image_shape, mean, std, sharding=None, trust_model: str = "", fetch: bool = False
) -> Scorer:
    """Opens the frozen net of a saliency mixer, which tells where the object is in another run's images.

    Args:
      folder: run folder of the frozen net (mixer.scorer).
      image_shape, mean, std: of the other run's images, (h, w, c) and per channel.
      sharding: of the net's parameters.
      trust_model: as for `open_run`.
      fetch: whether `folder` may be gs://BUCKET/FOLDER.

    Raises:
      RunError: no such run. ConfigError: it was trained on images of another shape.
    """
    if is_hub(folder):  # it may be named in a configuration that was found
        raise ConfigError(f"mixer.scorer must be a folder, got {folder}", "Fetch the run first: `hf download`.")
    if not fetch:
        require_local("mixer.scorer", folder)
    run = open_run(folder, trust_model=trust_model)
    if run.data.image_shape != tuple(image_shape):
        expected = f"mixer.scorer must be trained on images of shape {tuple(image_shape)}"
        raise ConfigError(f"{expected}, got {run.data.image_shape} in {folder}")
    mean, std, own_mean, own_std = (jnp.asarray(x)[None, None, None] for x in (mean, std, run.data.mean, run.data.std))
    score = make_scorer(run.model, jax.device_put(run.variables, sharding))

    def scorer(images, labels):
        return score((images * std + mean - own_mean) / own_std, labels)

    return scorer


def abstract_variables(model: Model, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Shapes of a model's {"params", "batch_stats"} for images (h, w, c), as ShapeDtypeStructs."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    like = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    return {"params": like["params"], "batch_stats": like.get("batch_stats", {})}


def _load(workdir: Path, checkpoint: str, like: Any, about: dict, part: str) -> tuple[str, Any]:
    """(name, variables) of a checkpoint. Another one is chosen if a trainer deletes it while it is read."""
    while True:
        _, checkpoints, name = _locate(workdir, checkpoint)
        try:
            _check_size(checkpoints / name, like)
            return name, load_model(checkpoints, name, like, about=about, part=part)
        except RunError:
            if (checkpoints / name).is_dir() or _locate(workdir, checkpoint)[2] == name:
                raise


def _check_size(path: Path, like: Any) -> None:
    """Refuses a checkpoint whose files do not fit its arrays; one that is not there is left to `load_model`."""
    if not path.is_dir():
        return
    try:
        manifest = read_manifest(path)
        if not (path / TRAINER).exists():  # what it says of files that are not there is only said
            manifest["files"] = {k: it for k, it in manifest["files"].items() if not k.startswith(f"{TRAINER}/")}
        check_size(manifest, like)
    except Damaged as error:
        raise RunError(f"Checkpoint {path} is damaged: {error}", "Choose another one with --checkpoint.") from None


def _locate(workdir: Path, checkpoint: str) -> tuple[Path, Path, str]:
    """(folder of config.json, folder of the checkpoints, name of the chosen one)."""
    require_run(workdir, checkpoint)
    if checkpoint in ("final", "best_val") or checkpoint.isdigit():
        return workdir, workdir / "checkpoints", str(_choose(workdir, checkpoint))
    path = Path(checkpoint).expanduser()
    if (path / "checkpoints").is_dir():
        return path, path / "checkpoints", str(_choose(path, "final"))
    if not _holds_checkpoint(path):
        raise RunError(f"{path} holds no checkpoint", "Expected a run folder or one of its checkpoints/STEP folders.")
    with_config = [it for it in (path, *path.resolve().parents[:2]) if (it / "config.json").is_file()]
    if not with_config:
        remedy = "Copy the run's config.json and data.json there too."
        raise RunError(f"no config.json in {path} or the two folders above it", remedy)
    there = steps(path)  # if it is the folder of the checkpoints
    return with_config[0], *((path, str(there[-1])) if there else (path.parent, path.name))


def _holds_checkpoint(path: Path) -> bool:
    """True for the checkpoints folder of a run and for one of the checkpoints in it."""
    return bool(steps(path)) or (path / "model").is_dir()


def _choose(folder: Path, which: str) -> int:
    there = steps(folder / "checkpoints")
    if not there:
        raise RunError(f"{folder} has no checkpoint", "Train first: python -m sem_jax.main --config=... --workdir=...")
    if which == "final":
        return there[-1]
    if which != "best_val":
        return int(which)
    scores = {r["step"]: r["val_accuracy"] for r in read_metrics(folder) if type(r.get("val_accuracy")) in (int, float)}
    if not scores:
        remedy = "The run held no data out (data.val_size 0): use --checkpoint=final."
        raise RunError(f"{folder} has no val_accuracy in metrics.jsonl, so there is no best_val checkpoint", remedy)
    kept = [step for step in there if step in scores]
    if not kept:
        raise RunError(f"{folder}: none of the checkpoints {', '.join(map(str, there))} was scored on val")
    return max(kept, key=lambda step: scores[step])


def read_facts(path: Path) -> DataFacts:
    """Reads and checks data.json.

    Raises:
      RunError: names the field that is missing, or that is not as a run writes it.
    """
    values = read_json(path)

    def numbers(v: Any, low: float, *kinds: type) -> bool:
        return isinstance(v, list) and bool(v) and all(type(x) in kinds and low < x < 1e6 for x in v)

    wanted = {
        "name": lambda v: isinstance(v, str),
        "fingerprint": lambda v: isinstance(v, str) and v,
        "class_names": lambda v: isinstance(v, list) and len(v) >= 2 and all(isinstance(name, str) for name in v),
        "image_shape": lambda v: numbers(v, 0, int) and len(v) == 3 and math.prod(v) <= LARGEST,
        "mean": lambda v: numbers(v, -1e6, int, float),
        "std": lambda v: numbers(v, 1e-6, int, float),
        "sizes": lambda v: isinstance(v, dict) and all(type(n) is int for n in v.values()),
    }
    for name, holds in wanted.items():
        found = values.get(name) if isinstance(values, dict) else None
        if not holds(found):
            raise RunError(f"{path}: {name} is {found!r:.80}, which no run writes", "Take the run's own data.json.")
    if not len(values["mean"]) == len(values["std"]) == values["image_shape"][2]:
        raise RunError(f"{path}: mean, std and image_shape must agree on the number of channels")
    fields: Any = {name: tuple(values[name]) if isinstance(values[name], list) else values[name] for name in wanted}
    return DataFacts(**fields)


def _fingerprint(variables: Any, model: str, facts: DataFacts) -> str:
    state = hashlib.sha256(repr((model, facts.mean, facts.std)).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = np.ascontiguousarray(leaf)
        state.update(f"{jax.tree_util.keystr(path)}{array.dtype.str}{array.shape}".encode())
        state.update(array.data.cast("B"))
    return state.hexdigest()
