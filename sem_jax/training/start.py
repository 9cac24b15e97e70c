"""What a run starts from: the weights that model.init_from names, and the normalisation that goes with them.

    dataset, start = begin(cfg, load, folder, trust_model="")        # start is None in a run that has a checkpoint
    state = programs.initial_state(start)
    record(folder, start)                                            # init_from.json
    result |= recorded(folder)                                       # {"init_from": {...}}

The source is read before the first step alone. A run that is resumed has its arrays in the checkpoint and its mean and
std in data.json, so the source may be gone.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from sem_jax.data import normalised_with
from sem_jax.errors import RunError
from sem_jax.interfaces import Dataset
from sem_jax.runs.checkpoint import steps
from sem_jax.runs.opening import read_facts
from sem_jax.runs.reading import read_json
from sem_jax.runs.records import write_json
from sem_jax.training import assemble

if TYPE_CHECKING:
    from sem_jax.convert.pretrained import Start

RECORD = "init_from.json"


def begin(
    cfg: ConfigDict, load: Callable[[], Dataset], folder: Path, *, trust_model: str = ""
) -> "tuple[Dataset, Start | None]":
    """The data with the mean and std that the run uses, and the weights of a run that has no checkpoint yet.

    data.mean and data.std come first, then those of the source, then the data's own.

    Args:
      load: reads the data; called when the source is known to be there.
      folder: of the run; it may have no files yet.
      trust_model: custom models that a run folder as source may import.

    Raises:
      SemError: the source cannot be used, or has another number of channels.
    """
    continued = bool(steps(folder / "checkpoints"))
    text = cfg.model.init_from
    if not continued and text and "://" not in text and not Path(text).expanduser().exists():
        raise RunError(f"model.init_from={text!r}: there is no such file or folder", "Give another one, or hf://...")
    dataset = load()
    start, mean, std = None, dataset.mean, dataset.std
    if text and continued:
        facts = read_facts(folder / "data.json")
        mean, std = facts.mean, facts.std
    elif text:
        from sem_jax.convert.pretrained import open_start

        start = open_start(
            text,
            assemble.model(cfg, len(dataset.class_names)),
            cfg.model.name,
            image_shape=dataset.splits["train"].images.shape[1:],
            class_names=dataset.class_names,
            trust_model=trust_model,
        )
        mean, std = start.normalisation or (mean, std)
    return normalised_with(dataset, mean=cfg.data.mean or mean, std=cfg.data.std or std), start


def record(folder: Path, start: "Start | None") -> None:
    """Writes down in the run folder what the run starts from."""
    if start:
        write_json(folder / RECORD, start.record)


def recorded(folder: Path) -> dict[str, Any]:
    """{"init_from": what `record` wrote}, for result.json; {} for a run that started from drawn numbers."""
    with contextlib.suppress(RunError):
        return {"init_from": read_json(folder / RECORD)}
    return {}
