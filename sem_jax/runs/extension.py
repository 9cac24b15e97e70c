"""Raises train.epochs of a run (--extend): what may differ, the history of its lengths, and where its result of before
is kept.

    if is_longer(names, there, here): ...      # the configurations differ in their length alone
    extend(folder, there, here)                # before config.json is written; a second call changes nothing
    earlier = read_lengths(folder)             # [{"epochs": 200, "stop_epoch": 200, "step": 78000}]

lengths.json has an entry for each shorter length: its train.epochs and mixer.stop_epoch, and the step of the checkpoint
from which the longer run went on. The result, curves and report of a shorter run that had ended are moved to
earlier/<epochs>_epochs/.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sem_jax.errors import RunError
from sem_jax.runs.reading import read_json

LENGTH = ("train.epochs", "mixer.stop_epoch", "train.keep_epochs")  # fields that may differ
NAME = "lengths.json"
_ENDS = ("evaluation", "curves.png", "result.json")  # the result last: a kill before it is no loss


def differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The fields that differ, without an end of mixing that follows the length.

    >>> differing({"train.epochs": 2, "mixer.stop_epoch": 2, "seed": 0}, {"train.epochs": 4, "mixer.stop_epoch": 4})
    ['seed', 'train.epochs']
    """
    names = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
    epochs, end = LENGTH[:2]
    follows = epochs in names and all(it.get(end) == it.get(epochs) for it in (there, here))
    return [name for name in names if not (follows and name == end)]


def is_longer(names: Iterable[str], there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether the fields that differ are those of a longer run.

    >>> is_longer(["train.epochs"], {"train.epochs": 200}, {"train.epochs": 400})
    True
    """
    return set(names) <= set(LENGTH) and here.get("train.epochs", 0) > there.get("train.epochs", 0)


def extend(folder: Path, there: Mapping[str, Any], write: Any) -> None:
    """Notes the length of before in lengths.json and moves the result of before out of the way.

    Args:
      there: the fields of before, by their dotted names.
      write: (path, JSON) -> None, replaces a file.
    """
    earlier, epochs = read_lengths(folder), there["train.epochs"]
    entry = {"epochs": epochs, "stop_epoch": there["mixer.stop_epoch"], "step": _latest(folder / "checkpoints")}
    # Killed before config.json was written: the same entry again.
    write(folder / NAME, [it for it in earlier if it["epochs"] < epochs] + [entry])
    if (folder / "result.json").exists():
        kept = folder / "earlier" / f"{epochs}_epochs"
        if links := [it for it in (kept.parent, kept) if it.is_symlink()]:
            raise RunError(f"{links[0]} is a link; a run writes through none.", "Remove it.")
        kept.mkdir(parents=True, exist_ok=True)
        for name in _ENDS:
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder / name, kept / name)


def read_lengths(folder: Path) -> list[dict[str, int]]:
    """The shorter lengths that a run had, oldest first; [] for a run that was never extended.

    Raises:
      RunError: the file is not as a run writes it.
    """
    path = folder / NAME
    if not path.exists():
        return []
    found = read_json(path)
    fields = {"epochs", "stop_epoch", "step"}
    if not isinstance(found, list) or not all(
        isinstance(it, dict) and it.keys() == fields and all(type(v) is int for v in it.values()) for it in found
    ):
        raise RunError(f"{path} is not as a run writes it", "Take the run's own lengths.json.")
    return found


def recorded_lengths(folder: Path) -> dict[str, Any]:
    """What result.json says of it; {} for a run that was never extended."""
    earlier = read_lengths(folder)
    return {"earlier_lengths": earlier} if earlier else {}


def _latest(checkpoints: Path) -> int:
    """Step of the latest checkpoint; 0 without one."""
    names = [it.name for it in checkpoints.iterdir()] if checkpoints.is_dir() else []
    return max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)
