"""One optimizer step: draw, run, differentiate, update.

train_step = make_train_step(draw, gradient_of, tx)
state, metrics = jax.jit(train_step, donate_argnums=0)(state, batch, key)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sem_jax.interfaces import Batch, Key, Metrics
from sem_jax.runs.state import TrainState
from sem_jax.training.draw import Draw, Take
from sem_jax.training.gradient import Gradient
from sem_jax.training.optim import at_step

TrainStep = Callable[..., tuple[TrainState, Metrics]]
ON_NAN = ("stop", "skip")
# What can be NaN or infinite in a step; bit i of the metric `not_finite` stands for entry i.
QUANTITIES = ("loss", "gradient", "BatchNorm statistics", "another metric")


def make_train_step(
    draw: Draw, gradient_of: Gradient, tx: optax.GradientTransformation, *, skip_nonfinite: bool = False
) -> TrainStep:
    """A pure function that makes one optimizer step; jit it with the state donated.

    Args:
      draw, gradient_of: from `draw.make_draw` (or `draw.draw_clean`) and `gradient.make_gradient`.
      skip_nonfinite: when `finite` is 0, change nothing of the state but the step count, and with it the learning rate.

    Returns:
      train_step(state, batch, key, take=None) -> (state, metrics of f32[]). `key` is the run's key, the same at every
      step. The metrics are the objective's; grad_norm, the global norm of the gradient; not_finite, the sum of
      2**index over the QUANTITIES that are not finite; and finite, 1 where there are none.
    """

    def train_step(state: TrainState, batch: Batch, key: Key, take: Take | None = None):
        passes, mixes = draw(state, batch, key, take)
        gradient, batch_stats, metrics = gradient_of(state, passes, batch, mixes, key)  # Eq. 9
        metrics["grad_norm"] = optax.tree.norm(gradient)
        metrics["not_finite"] = _not_finite(metrics, batch_stats)
        finite = metrics["not_finite"] == 0
        metrics["finite"] = finite.astype(jnp.float32)
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = state._replace(step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state)
        if skip_nonfinite:
            kept = state._replace(step=new.step, opt_state=at_step(state.opt_state, new.step))
            new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, kept)
        return new, metrics

    return train_step


def _not_finite(metrics: Metrics, batch_stats: Any) -> jax.Array:
    """Which of QUANTITIES are not finite, f32[].

    The statistics are among them because XLA:CPU's relu turns NaN into 0: a NaN in the images can spoil the running
    averages while loss and gradient stay finite.
    """
    others = [value for name, value in metrics.items() if name not in ("loss", "grad_norm")]
    looked_at = ([metrics["loss"]], [metrics["grad_norm"]], jax.tree.leaves(batch_stats), others)
    bad = [~jnp.all(jnp.stack([jnp.isfinite(x).all() for x in xs])) if xs else jnp.array(False) for xs in looked_at]
    return sum((jnp.where(is_bad, float(2**i), 0.0) for i, is_bad in enumerate(bad)), jnp.zeros(()))
