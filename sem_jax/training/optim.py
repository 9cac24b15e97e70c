"""The optimizer and its learning rate over optimizer steps: SGD with momentum, or AdamW.

learning_rate = make_schedule(total_steps=78_000, learning_rate=0.1, schedule="step", boundaries=(0.5, 0.75))
tx = make_optimizer(learning_rate, momentum=0.9, weight_decay=1e-4)
"""

import optax

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("auto", "step", "cosine", "onecycle", "constant")
SHORT = 60  # epochs; "auto" takes one-cycle for runs of fewer


def choose_schedule(schedule: str, epochs: int) -> str:
    """What "auto" means for a run of so many epochs: "step", or "onecycle" for a short one. Others stay."""
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
      warmup_steps: linear from 0 over so many steps; not for "onecycle", which has its own.
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
) -> optax.GradientTransformation:
    """SGD and AdamW as PyTorch has them; weight decay is on every parameter.

    Args:
      learning_rate: a number, or a function of the step as `make_schedule` makes one.
      name: "sgd", weight decay added to the gradient, before the momentum; or "adamw" (Loshchilov and Hutter 2019),
        weight decay decoupled, b1 = momentum, b2 = 0.999, eps = 1e-8.
      momentum, nesterov, weight_decay: numbers as in the literature; momentum 0 = none.
    """
    if name == "adamw":
        return optax.adamw(learning_rate, b1=momentum, weight_decay=weight_decay, nesterov=nesterov)
    sgd = optax.sgd(learning_rate, momentum=momentum or None, nesterov=nesterov)
    return optax.chain(optax.add_decayed_weights(weight_decay), sgd) if weight_decay else sgd
