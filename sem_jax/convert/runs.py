"""Makes run folders of state dicts, and state dicts of checkpoints.

import_weights(Path("resnet18.pth"), Path("runs/theirs"), data={"name": "cifar10"})
export_weights("runs/preact_c10", Path("preact18.safetensors"))
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from sem_jax import config as config_lib
from sem_jax import data as data_lib
from sem_jax.convert.files import read_state_dict, write_safetensors
from sem_jax.convert.layouts import NAMINGS
from sem_jax.convert.naming import layout_of, recognise, to_state_dict, to_variables
from sem_jax.errors import ConfigError, RunError
from sem_jax.models import make_model
from sem_jax.runs.checkpoint import Checkpoints, steps
from sem_jax.runs.opening import DataFacts, abstract_variables, open_run
from sem_jax.runs.records import environment, write_json
from sem_jax.runs.state import TrainState


def import_weights(
    source: Path,
    workdir: Path,
    *,
    data: Mapping[str, Any],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **model: Any,
) -> DataFacts:
    """Makes a run folder of a state dict: config.json, data.json, checkpoints/1 and converted.json.

    Args:
      source: .safetensors, .pt or .pth.
      workdir: must not hold a run.
      data: fields of the `data` group, for the set that the model is scored on; the logits have its order of classes.
      mean, std: normalisation of the images in training; by default that of the source, where its layout tells it
        (ImageNet's for torchvision's ResNet), else this package's for the data set.
      **model: fields of the `model` group that replace those found in the file (stem, variant).

    Returns:
      What data.json holds.

    Raises:
      SemError: a file, fields or data that do not fit each other; nothing is written.
    """
    if (workdir / "config.json").exists():
        raise RunError(f"{workdir} holds a run already", "Give another --workdir.")
    if steps(workdir / "checkpoints"):  # saving one more would delete them
        raise RunError(f"{workdir} has checkpoints but no config.json", "Give another --workdir.")
    arrays = read_state_dict(source)
    fields = recognise(arrays, where=str(source)) | {name: value for name, value in model.items() if value}
    layout, num_classes = layout_of(arrays, where=str(source)), fields.pop("num_classes", 0)
    cfg = config_lib.get_default()
    cfg.data.update(data)
    cfg.model.update(fields)
    cfg.mixer.name, cfg.objective.gamma = "none", 0.0  # the training is unknown
    config_lib.validate(cfg)
    dataset = data_lib.load(cfg.data.name, data_dir=cfg.data.dir, image_size=cfg.data.image_size)
    if len(dataset.class_names) != num_classes:
        raise RunError(f"{source} has {num_classes} classes, {cfg.data.name} has {len(dataset.class_names)}")
    facts = DataFacts.of(dataset)
    channels = facts.image_shape[2]
    known = NAMINGS[layout].trained_with(fields)
    if known and len(known[0]) == channels:
        facts = facts._replace(mean=known[0], std=known[1])
    facts = facts._replace(mean=tuple(mean or facts.mean), std=tuple(std or facts.std))
    if not len(facts.mean) == len(facts.std) == channels or min(facts.std) <= 0:
        found = f"{list(facts.mean)}, {list(facts.std)}"
        raise ConfigError(f"--mean and --std must have {channels} numbers, std > 0; got {found}")
    like = abstract_variables(make_model(**{**cfg.model, "num_classes": num_classes}), facts.image_shape)
    variables = jax.device_put(to_variables(layout, arrays, like, where=str(source)))
    workdir.mkdir(parents=True, exist_ok=True)
    with Checkpoints(workdir / "checkpoints", keep=1, best=None) as checkpoints:
        checkpoints.save(1, TrainState(jnp.int32(1), variables["params"], variables["batch_stats"], {}), {})
    write_json(workdir / "data.json", facts.to_json())
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    naming = NAMINGS[layout].source
    write_json(workdir / "converted.json", {"file": source.name, "sha256": digest, "naming": naming, **environment()})
    write_json(workdir / "config.json", config_lib.to_dict(cfg))  # last: a folder without it is no run
    return facts


def export_weights(workdir: str, target: Path, *, checkpoint: str = "final", trust_model: str = "") -> None:
    """Writes a checkpoint as .safetensors with PyTorch's names.

    Raises:
      SemError: a run that cannot be opened, or a model without PyTorch names.
    """
    if target.suffix != ".safetensors":
        raise ConfigError(f"--to={target} must end in .safetensors")
    run = open_run(workdir, checkpoint, trust_model=trust_model)
    model = run.config.model
    unlike = {"norm": model.norm not in ("", "batch"), "pool": model.pool == "mean"}
    if model.name not in NAMINGS or any(unlike.values()):
        how = "".join(f" with model.{name}={model[name]}" for name, other in unlike.items() if other)
        raise RunError(f"{run.folder} is a {model.name}{how}, which has no PyTorch naming here")
    write_safetensors(target, to_state_dict(model.name, run.variables), {"model": model.name, "source": "sem_jax"})
