"""Checkpoints of a run, with orbax: the model for whoever scores it, the trainer's part for whoever continues it.

    with Checkpoints(folder, keep=2, best="val_accuracy") as checkpoints:
        checkpoints.save(step, state, progress, metrics)       # asynchronous
        restored = checkpoints.restore(state_like, step=None)  # None = latest
    variables = load_model(folder, step)                       # params and batch_stats alone, for evaluation

On disk: <folder>/<step>/model (params, batch_stats), /trainer (opt_state), and JSON metadata (what the trainer had
summed so far in this epoch).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from sem_jax.errors import RunError
from sem_jax.state import TrainState

POLICIES = ocp.training.preservation_policies


class Restored(NamedTuple):
    state: TrainState
    progress: dict  # JSON: what `save` was given
    metrics: dict  # JSON: what `save` was given


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _unreadable(path: Any, error: Exception) -> RunError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return RunError(
        f"Checkpoint {path} cannot be restored: {reason}",
        "Delete that folder to use the checkpoint before it.",
    )


class Checkpoints:
    """The checkpoints of one run: the latest `keep`, and the best by one metric.

    Args:
      folder: made if it is not there.
      keep: number of latest checkpoints kept.
      best: name of the metric (higher is better) whose best checkpoint is kept too; None keeps none.
      steps: steps whose checkpoint is kept too.
    """

    def __init__(self, folder: str | Path, *, keep: int, best: str | None, steps: Sequence[int] = ()):
        self._best = best
        policies = [POLICIES.LatestN(keep), POLICIES.CustomSteps(list(steps))]
        if best:
            policies.append(
                POLICIES.BestN(get_metric_fn=lambda m: m[best], n=1, keep_checkpoints_without_metrics=False)
            )
        self._orbax = ocp.training.Checkpointer(
            Path(folder).absolute() if "://" not in str(folder) else folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=POLICIES.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._orbax.close()  # waits for a save that is still being written

    @property
    def latest(self) -> int | None:
        """Step of the latest checkpoint, None if there is none."""
        return self._orbax.latest.step if self._orbax.latest else None

    def save(self, step: int, state: TrainState, progress: dict, metrics: dict[str, float] | None = None) -> None:
        """Starts writing a checkpoint and returns once the arrays are copied; a step that is there is left alone.

        Args:
          step: optimizer updates done.
          state: may be donated right after.
          progress: JSON.
          metrics: by name, for "best"; a value that is not finite is not handed on, so that it is never the best.
        """
        if self.latest is not None and self.latest >= step:
            return
        self._orbax.wait()
        model = {"params": state.params, "batch_stats": state.batch_stats}
        finite = {k: float(v) for k, v in (metrics or {}).items() if np.isfinite(v)}
        self._orbax.save_checkpointables_async(
            step,
            {"model": model, "trainer": {"opt_state": state.opt_state}},
            metrics=finite if self._best in finite else None,
            custom_metadata={"progress": progress, "metrics": finite},
        )

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        self._orbax.wait()

    def restore(self, like: TrainState) -> Restored:
        """The latest checkpoint, in the shapes, dtypes and shardings of `like`.

        Raises:
          RunError: when it does not fit or cannot be read.
        """
        step = self.latest
        wanted = {
            "model": _abstract({"params": like.params, "batch_stats": like.batch_stats}),
            "trainer": _abstract({"opt_state": like.opt_state}),
        }
        try:
            loaded = self._orbax.load_checkpointables(step, wanted)
            metadata = self._orbax.checkpointables_metadata(step).custom_metadata
        except Exception as error:  # orbax raises many types, bare Exception among them, for files it cannot read
            raise _unreadable(self._orbax.directory / str(step), error) from error
        model = loaded["model"]
        counter = jax.device_put(jnp.asarray(step, jnp.int32), like.step.sharding)
        state = TrainState(counter, model["params"], model["batch_stats"], loaded["trainer"]["opt_state"])
        return Restored(state, metadata["progress"], metadata["metrics"])


def steps(folder: str | Path) -> list[int]:
    """Steps of the checkpoints in a folder, ascending."""
    folder = Path(folder)
    names = [p.name for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def load_model(folder: str | Path, step: int, like: Any) -> Any:
    """The model of one checkpoint, without the trainer.

    Args:
      folder: the run's checkpoints folder.
      step: one of `steps(folder)`.
      like: {"params", "batch_stats"}, arrays or ShapeDtypeStructs of the model's shapes (`jax.eval_shape` of its
        init gives them).

    Returns:
      {"params", "batch_stats"}, float32, on the first device.

    Raises:
      RunError: when it is not there, does not fit or cannot be read.
    """
    path = Path(folder).absolute() / str(step)
    if not path.is_dir():
        known = ", ".join(map(str, steps(folder))) or "none"
        raise RunError(f"{folder} has no checkpoint of step {step}; there are: {known}")
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like)
    try:
        return ocp.load(path, like, checkpointable_name="model")
    except Exception as error:
        raise _unreadable(path, error) from error
