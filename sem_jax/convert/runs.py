"""Files of weights and run folders: reading a state dict without running code from it, making a run, writing one.

import_weights(Path("resnet18.pth"), Path("runs/theirs"), data={"name": "cifar10"})
export_weights("runs/preact_c10", Path("preact18.safetensors"))
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sem_jax.convert.naming import NAMINGS, Arrays, recognise, to_state_dict, to_variables
from sem_jax.errors import ConfigError, RunError

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the state dict


def read_state_dict(path: Path) -> Arrays:
    """The tensors of a .safetensors, .pt or .pth file, "module." of a parallel run taken off; runs no code from it.

    Raises:
      RunError: a file that is missing, damaged or holds anything but tensors.
    """
    if not path.is_file():
        raise RunError(f"{path} does not exist", "Give a .safetensors, .pt or .pth file: --from=FILE.")
    if path.suffix == ".safetensors":
        from sem_jax.convert.export import read_safetensors

        arrays = read_safetensors(path)
    elif path.suffix in (".pt", ".pth"):
        arrays = _read_torch(path)
    else:
        raise RunError(f"{path} must be a .safetensors, .pt or .pth file")
    if arrays and all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


def _read_torch(path: Path) -> Arrays:
    try:
        import torch
    except ImportError:
        raise RunError(f"{path} needs PyTorch to be read", "pip install torch, or save it as .safetensors.") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have their own
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise RunError(
            f"{path} cannot be read as tensors alone: {reason}",
            "Damaged, or it holds Python objects; save model.state_dict() where it was made.",
        ) from None
    for name in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not all(isinstance(x, torch.Tensor) for x in loaded.values()):
        raise RunError(f"{path} holds no state dict, but a {type(loaded).__name__}")
    return {name: tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)).numpy()
            if tensor.is_floating_point() else tensor.numpy() for name, tensor in loaded.items()}  # fmt: skip


def import_weights(source: Path, workdir: Path, *, data: Mapping[str, Any], mean=None, std=None, **model: Any) -> None:
    """Makes a run folder of a state dict: config.json, data.json, checkpoints/1 and converted.json.

    Args:
      source: .safetensors, .pt or .pth.
      workdir: must not hold a run.
      data: fields of the `data` group: what the model is scored on; the class names are taken in its order.
      mean, std: what the images were normalised with in training; None = those of the data set here.
      **model: fields of the `model` group instead of what the file tells (stem, variant).

    Raises:
      SemError: nothing is written then.
    """
    import jax

    from sem_jax import config as config_lib
    from sem_jax import data as data_lib
    from sem_jax.models import make_model
    from sem_jax.runs.checkpoint import Checkpoints
    from sem_jax.runs.opening import DataFacts, abstract_variables
    from sem_jax.runs.records import environment, write_json
    from sem_jax.runs.state import TrainState

    if (workdir / "config.json").exists():
        raise RunError(f"{workdir} holds a run already", "Give another --workdir.")
    arrays = read_state_dict(source)
    fields = recognise(arrays, where=str(source)) | {name: value for name, value in model.items() if value}
    cfg = config_lib.get_default()
    cfg.data.update(data)
    cfg.mixer.name, cfg.objective.gamma = "none", 0.0  # how it was trained is not known
    num_classes = fields.pop("num_classes")
    cfg.model.update(fields)
    config_lib.validate(cfg)
    dataset = data_lib.load(cfg.data.name, data_dir=cfg.data.dir, image_size=cfg.data.image_size)
    if len(dataset.class_names) != num_classes:
        raise RunError(f"{source} has {num_classes} classes, {cfg.data.name} has {len(dataset.class_names)}")
    shape = dataset.splits["train"].images.shape[1:]
    mean, std = (tuple(given or own) for given, own in ((mean, dataset.mean), (std, dataset.std)))
    if not len(mean) == len(std) == shape[2] or min(std) <= 0:
        raise ConfigError(f"--mean and --std must have {shape[2]} numbers, std > 0; got {list(mean)}, {list(std)}")
    net = make_model(**{**cfg.model, "num_classes": num_classes})
    variables = to_variables(cfg.model.name, arrays, abstract_variables(net, shape), where=str(source))
    sizes = {name: len(split.labels) for name, split in dataset.splits.items()}
    facts = DataFacts(dataset.name, dataset.fingerprint, dataset.class_names, shape, mean, std, sizes)
    workdir.mkdir(parents=True, exist_ok=True)
    with Checkpoints(workdir / "checkpoints", keep=1, best=None) as checkpoints:
        variables = jax.device_put(variables)
        state = TrainState(np.int32(1), variables["params"], variables["batch_stats"], {})
        checkpoints.save(1, state, {})
    write_json(workdir / "data.json", {k: list(v) if isinstance(v, tuple) else v for k, v in facts._asdict().items()})
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    naming = NAMINGS[cfg.model.name].source
    write_json(workdir / "converted.json", {"file": source.name, "sha256": digest, "naming": naming, **environment()})
    write_json(workdir / "config.json", config_lib.to_dict(cfg))  # last: a folder without it is no run


def export_weights(workdir: str, target: Path, *, checkpoint: str = "final") -> None:
    """Writes a checkpoint as .safetensors with PyTorch's names.

    Raises:
      SemError: a run that cannot be opened, or a model without a PyTorch naming.
    """
    from sem_jax.convert.export import write_safetensors
    from sem_jax.runs.opening import open_run

    if target.suffix != ".safetensors":
        raise ConfigError(f"--to={target} must end in .safetensors")
    run = open_run(workdir, checkpoint)
    model = run.config.model
    if model.name not in NAMINGS or model.norm not in ("", "batch"):
        norm = f" with model.norm={model.norm}" if model.norm not in ("", "batch") else ""
        raise RunError(f"{run.folder} is a {model.name}{norm}, which has no PyTorch naming here")
    write_safetensors(target, to_state_dict(model.name, run.variables), {"model": model.name, "source": "sem_jax"})
