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
import numpy as np
from ml_collections import ConfigDict
from scipy import special

from sem_jax import config as config_lib
from sem_jax.errors import RunError
from sem_jax.interfaces import Dataset
from sem_jax.runs import records
from sem_jax.runs.state import TrainState
from sem_jax.training import assemble
from sem_jax.training.optim import choose_schedule
from sem_jax.training.programs import Programs

FEW = 10  # steps an epoch


def announcement(cfg: ConfigDict, dataset: Dataset, programs: Programs, state: TrainState, folder: str) -> str:
    """What is trained, on which devices, and where it is recorded; two lines, and a third where an epoch is short."""
    sizes = ", ".join(f"{len(split.labels):,} {name}" for name, split in dataset.splits.items())
    count = sum(x.size for x in jax.tree.leaves(state.params))
    devices, dtype = programs.devices, jnp.dtype(programs.model.dtype).name
    return (
        f"{config_lib.method_of(cfg)} | {dataset.name}: {sizes}, {len(dataset.class_names)} classes\n"
        f"{cfg.model.name}: {count:,} parameters | {len(devices)} x {devices[0].device_kind}, {dtype} | "
        f"run folder: {folder}{few_steps(cfg, programs.lengths.epoch)}"
    )


def few_steps(cfg: ConfigDict, steps: int) -> str:
    """A line for runs of fewer than FEW steps an epoch; "" for others."""
    if steps >= FEW:
        return ""
    change = f"lower train.batch_size ({cfg.train.batch_size}) or raise train.epochs ({cfg.train.epochs})"
    return f"\nNote: an epoch has {steps} step{'s' * (steps > 1)} only; if the run learns little, {change}."


def chance(accuracy: float, labels: np.ndarray) -> dict[str, Any]:
    """Whether a score may be that of no learning: its 95% interval includes always naming the most frequent class.

    Args:
      accuracy: in [0, 1], of as many items as there are labels.
      labels: i[n] of the scored split.

    Returns:
      For result.json: majority_share, the accuracy of naming the most frequent class, and near_chance, whether the
      lower end of the accuracy's binomial interval (Clopper and Pearson 1934) is not above it.

    >>> chance(0.52, np.asarray([0, 1] * 50))
    {'majority_share': 0.5, 'near_chance': True}
    >>> chance(0.65, np.asarray([0, 1] * 50))["near_chance"]
    False
    """
    count, majority = len(labels), float(np.bincount(labels).max() / len(labels))
    correct = round(accuracy * count) if math.isfinite(accuracy) else 0
    lowest = float(special.betaincinv(correct, count - correct + 1, 0.025)) if correct else 0.0
    return {"majority_share": majority, "near_chance": lowest <= majority}


def chance_warning(cfg: ConfigDict, result: dict[str, Any], name: str) -> str:
    """A line where the score `name` of a result is near chance; "" where it is not."""
    if not result["near_chance"] or not isinstance(result[name], int | float):
        return ""
    change = "raise train.epochs or change optim.learning_rate"
    if cfg.objective.gamma > 0:
        change += "; a penalty that is strong from the first step can do that: objective.gamma_warmup=0.5"
    share = f"the most frequent class is {result['majority_share']:.1%} of the data"
    return f"Note: {name} {result[name]:.1%} is near chance ({share}): {change}."


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
