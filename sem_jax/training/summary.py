"""What a run says of itself: the lines at its start, and result.json at its end.

print(announcement(cfg, dataset, programs, state, folder))
result = result_of(cfg, dataset, programs, scores, log)
check_result(result, ("test_accuracy", "test_nll"), total, folder)
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sem_jax import config as config_lib
from sem_jax.errors import RunError
from sem_jax.interfaces import Dataset
from sem_jax.runs import records
from sem_jax.runs.state import TrainState
from sem_jax.training import assemble
from sem_jax.training.optim import choose_schedule
from sem_jax.training.programs import Programs


def announcement(cfg: ConfigDict, dataset: Dataset, programs: Programs, state: TrainState, folder: str) -> str:
    """What is trained, on which devices, and where it is recorded; two lines."""
    sizes = ", ".join(f"{len(split.labels):,} {name}" for name, split in dataset.splits.items())
    count = sum(x.size for x in jax.tree.leaves(state.params))
    devices, dtype = programs.devices, jnp.dtype(programs.model.dtype).name
    return (
        f"{config_lib.method_of(cfg)} | {dataset.name}: {sizes}, {len(dataset.class_names)} classes\n"
        f"{cfg.model.name}: {count:,} parameters | {len(devices)} x {devices[0].device_kind}, {dtype} | "
        f"run folder: {folder}"
    )


def extension(cfg: ConfigDict, programs: Programs, before: dict[str, int], step: int) -> str:
    """What a longer run does from here, where the shorter one would have been or was at its end; two lines.

    Args:
      before: an entry of `runs.extension.read_lengths`.
      step: of the checkpoint from which it goes on.
    """
    old = cfg.copy_and_resolve_references()
    old.train.epochs = before["epochs"]
    old_lengths = assemble.Lengths(programs.lengths.epoch, programs.lengths.epoch * before["epochs"])
    last = float(assemble.learning_rate(old, old_lengths)(max(step - 1, 0)))
    schedule, ends = choose_schedule(cfg.optim.schedule, cfg.train.epochs), cfg.mixer.stop_epoch
    mixing = "" if cfg.mixer.name == "none" else f" Mixing ends after epoch {ends} (before: {before['stop_epoch']})."
    return (
        f"Extended from {before['epochs']} to {cfg.train.epochs} epochs: from here on every schedule is that of a run "
        f"of {cfg.train.epochs} epochs.\nLearning rate ({schedule}): {last:.3g} at step {step:,} before, "
        f"{float(programs.learning_rate(step)):.3g} from there on.{mixing}"
    )


def result_of(
    cfg: ConfigDict, dataset: Dataset, programs: Programs, scores: dict[str, float], log: Sequence[dict]
) -> dict[str, Any]:
    """The contents of result.json; scores that are not finite become null.

    Args:
      scores: of the last state.
      log: the records of metrics.jsonl.
    """
    result = {
        **{name: value if math.isfinite(value) else None for name, value in scores.items()},
        "method": config_lib.method_of(cfg),
        "objective": dict(cfg.objective),
        "seed": cfg.seed,
        "steps": programs.lengths.total,
        "epochs": cfg.train.epochs,
        "schedule": choose_schedule(cfg.optim.schedule, cfg.train.epochs),
        "skipped_steps": sum(r.get("skipped_steps") or 0 for r in log),
        "wall_time_s": round(sum(r.get("seconds") or 0.0 for r in log), 3),
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "devices": [device.device_kind for device in programs.devices],
        "dtype": jnp.dtype(programs.model.dtype).name,
        **records.environment(),
    }
    if scored := [r for r in log if r.get("val_accuracy") is not None]:
        best = max(scored, key=lambda r: (r["val_accuracy"], r["step"]))  # the later of equals, as `Checkpoints`
        result["best_val"] = {name: best.get(name) for name in ("step", "epoch", "val_accuracy")}
    return result


def check_result(result: dict[str, Any], names: tuple[str, str], total: int, folder: str) -> None:
    """Ends a run that finished with train.on_nan=skip and learned nothing that has a score.

    Args:
      names: of the scores in the result.
      total: steps of the run.
    """
    skipped = result.get("skipped_steps", 0)
    bad = [name for name in names if not isinstance(result[name], int | float)]
    if bad or skipped == total:
        reason = f"{', '.join(bad)} not finite" if bad else "nothing was learned"
        raise RunError(
            f"{folder}: {reason}; {skipped} of {total} steps were skipped (train.on_nan=skip).",
            "Lower optim.learning_rate, and choose another folder with --workdir, or delete that one.",
        )
