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

TrainStep = Callable[..., tuple[TrainState, Metrics]]
ON_NAN = ("stop", "skip")
# What of a step can be NaN or infinite; bit i of the metric `not_finite` stands for the i-th.
QUANTITIES = ("loss", "gradient", "BatchNorm statistics", "another metric")


def make_train_step(
    draw: Draw, gradient_of: Gradient, tx: optax.GradientTransformation, *, skip_nonfinite: bool = False
) -> TrainStep:
    """One step, pure; jit it with the state donated.

    Args:
      draw: from `draw.make_draw`, or `draw.draw_clean`.
      gradient_of: from `gradient.make_gradient`: model, objective and how they are differentiated.
      tx: the optimizer.
      skip_nonfinite: leave the state as it is, but for the step count, when `finite` is 0.

    Returns:
      train_step(state, batch, key, take=None) -> (state, metrics of f32[]). `key` is the run's key, the same at every
      step. Metrics are the objective's plus grad_norm, the global norm of the gradient; finite, 1 when loss,
      gradient, BatchNorm's statistics and the other metrics all are; and not_finite, which of these QUANTITIES are
      not, as the sum of 2**index.
    """

    def train_step(state: TrainState, batch: Batch, key: Key, take: Take | None = None):
        passes, mixes = draw(state, batch, key, take)
        gradient, batch_stats, metrics = gradient_of(state, passes, batch, mixes, key)  # Eq. 9
        metrics["grad_norm"] = optax.tree.norm(gradient)
        metrics["not_finite"] = _not_finite(metrics, batch_stats)
        finite = metrics["not_finite"] == 0
        metrics["finite"] = finite.astype(jnp.float32)
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        new = TrainState(state.step + 1, optax.apply_updates(state.params, updates), batch_stats, opt_state)
        if skip_nonfinite:
            kept = state._replace(step=new.step)
            new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, kept)
        return new, metrics

    return train_step


def _not_finite(metrics: Metrics, batch_stats: Any) -> jax.Array:
    """Which of QUANTITIES are not finite, f32[].

    The statistics too: XLA:CPU's relu turns NaN into 0, so that a NaN in the images can leave a finite loss and
    gradient behind, and running averages that are lost.
    """
    others = [value for name, value in metrics.items() if name not in ("loss", "grad_norm")]
    looked_at = ([metrics["loss"]], [metrics["grad_norm"]], jax.tree.leaves(batch_stats), others)
    bad = [~jnp.all(jnp.stack([jnp.isfinite(x).all() for x in xs])) if xs else jnp.array(False) for xs in looked_at]
    return sum((jnp.where(is_bad, float(2**i), 0.0) for i, is_bad in enumerate(bad)), jnp.zeros(()))
