"""The optimizer and its learning rate over optimizer steps: SGD with momentum, or AdamW.

learning_rate = make_schedule(total_steps=78_000, learning_rate=0.1, schedule="step", boundaries=(0.5, 0.75))
tx = make_optimizer(learning_rate, momentum=0.9, weight_decay=1e-4)
"""

from typing import Any

import jax
import optax

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("auto", "step", "cosine", "onecycle", "constant")
SHORT = 60  # epochs; "auto" means one-cycle for shorter runs


def choose_schedule(schedule: str, epochs: int) -> str:
    """Replaces "auto" by "step", or by "onecycle" where the run is short."""
    if schedule != "auto":
        return schedule
    return "onecycle" if epochs < SHORT else "step"


def make_schedule(
    *,
    total_steps: int,
    learning_rate: float,
    schedule: str = "step",
    boundaries: tuple[float, ...] = (0.5, 0.75),
    warmup_steps: int = 0,
) -> optax.Schedule:
    """Learning rate as a function of the step, i32[] -> f32[].

    Args:
      total_steps: optimizer steps of the whole run.
      learning_rate: the highest value.
      schedule: "step" multiplies by 0.1 at each boundary, "cosine" ends at 0, "onecycle" rises for 30% of the run
        and falls by cosines (Smith and Topin 2018, optax's defaults), "constant" stays.
      boundaries: "step" only, as fractions of the run.
      warmup_steps: the rate rises linearly from 0 over these steps; "onecycle" has a rise of its own.
    """
    if schedule == "onecycle":
        return optax.cosine_onecycle_schedule(total_steps, learning_rate)
    if schedule == "step":
        base = optax.piecewise_constant_schedule(learning_rate, {round(f * total_steps): 0.1 for f in boundaries})
    elif schedule == "cosine":
        base = optax.cosine_decay_schedule(learning_rate, total_steps)
    else:
        base = optax.constant_schedule(learning_rate)
    if not warmup_steps:
        return base
    ramp = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return lambda step: ramp(step) * base(step)


def make_optimizer(
    learning_rate: optax.ScalarOrSchedule,
    *,
    name: str = "sgd",
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """SGD and AdamW as PyTorch has them; weight decay is on every parameter.

    Args:
      learning_rate: a number, or a function of the step as from `make_schedule`.
      name: "sgd", which adds weight decay to the gradient before the momentum; or "adamw" (Loshchilov and Hutter 2019),
        with decoupled weight decay, b1 = momentum, b2 = 0.999, eps = 1e-8.
      momentum: 0 = none.
      clip_norm: the gradient's global norm is scaled down to it where it is larger, before weight decay and momentum,
        as by `torch.nn.utils.clip_grad_norm_`, which adds 1e-6 to the norm; 0 = as it is.
    """
    if name == "adamw":
        tx = optax.adamw(learning_rate, b1=momentum, weight_decay=weight_decay, nesterov=nesterov)
    else:
        tx = optax.sgd(learning_rate, momentum=momentum or None, nesterov=nesterov)
        tx = optax.chain(optax.add_decayed_weights(weight_decay), tx) if weight_decay else tx
    return optax.chain(optax.clip_by_global_norm(clip_norm), tx) if clip_norm else tx


def at_step(opt_state: Any, step: jax.Array) -> Any:
    """An optimizer's state whose learning rate is that of `step`, i32[]; all else in it stays.

    For a step whose update is skipped: the schedule is one of the run's steps, as ES and gamma's are.
    """

    def is_schedule(path, value) -> bool:
        del value
        return getattr(path[-1], "tuple_name", "") == "ScaleByScheduleState"

    if not optax.tree.get_all_with_path(opt_state, "count", filtering=is_schedule):
        return opt_state  # a constant rate
    return optax.tree.set(opt_state, is_schedule, count=step)
