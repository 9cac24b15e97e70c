"""The objective: the scalar that is differentiated, and the metrics that are logged.

objective = make_objective(gamma=0.3)
loss, metrics = objective({"mixed": outputs_mixed, "clean": outputs_clean}, batch, mix)     # Eq. 9
loss, metrics = objective({"clean": outputs}, batch, None)                                   # plain ERM
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Batch, Metrics, Mix, Outputs, partners_of
from sem_jax.objectives.losses import label_loss, mixed_accuracy, mixed_targets
from sem_jax.objectives.sem import DISTANCES, safe_norm, sem_penalty
from sem_jax.registry import lookup

CLEAN_FEATURES = ("exact", "grad", "stop_gradient", "ema_teacher")
PENALTY_PAIRS = ("right", "wrong")
Objective = Callable[..., tuple[jax.Array, Metrics]]
Gamma = float | Callable[[jax.Array], jax.Array]  # a number, or a function of the step


def has_penalty(gamma: Gamma) -> bool:
    """Whether the penalty is a term of the objective."""
    return callable(gamma) or gamma > 0


def needs_clean_pass(gamma: Gamma, clean_features: str, regmixup: bool = False) -> bool:
    """Whether the net has to see the clean images beside the mixed ones."""
    return has_penalty(gamma) or clean_features in ("grad", "stop_gradient") or regmixup


def make_objective(
    *,
    gamma: Gamma,
    clean_features: str = "exact",
    label_smoothing: float = 0.0,
    distance: str = "l2",
    penalty_pairs: str = "right",
    regmixup: bool = False,
    groups: int = 1,
) -> Objective:
    """Eq. 9: mean_b[ CE(f(x_mixed), lam y_i + (1 - lam) y_j) + gamma || g(x_mixed) - mixture ||_2 ].

    Args:
      gamma: coefficient of the penalty, >= 0; a number, or a function step i32[] -> f32[] such as `sem.rising`.
      clean_features: with "exact" or "grad" gradients flow through the clean representations too (Algorithm 1), with
        "stop_gradient" or "ema_teacher" they do not.
      label_smoothing: in [0, 1).
      regmixup: RegMixup (Pinto et al. 2022), a comparator: the label loss is the mean over the mixed and the clean
        images. (There both are one batch to BatchNorm, here they are two passes.)
      distance: a key of objectives.sem.DISTANCES.
      penalty_pairs: "right"; or "wrong", a control that must not help: the target of a mixed image is the mixture of
        the pair before it in the batch, with the mixed image's own lam.
      groups: number of equal parts of the clean pass within which the pairs lie, as of `mixers.make_mix`.

    Returns:
      objective(outputs, batch, mix, step=None) -> (loss f32[], metrics of f32[]). `outputs` maps the passes "mixed"
      and "clean" to Outputs. The penalty needs both. If the clean pass has only n items, the penalty is that of the
      first n pairs, which must be paired among themselves. With `mix` None the loss is plain cross-entropy on "clean".
      `step` i32[] is needed where gamma is a function.
      Metrics are means over the real items of the batch: loss, label_loss, accuracy and, where they are defined,
      penalty, feature_norm, lam and clean_accuracy; also gamma, where it is a function.

    Raises:
      ConfigError: for values out of range; by the objective, for a penalty without the pass "clean".

    >>> outputs = Outputs(jnp.asarray([[3.0], [5.0]]), jnp.zeros((2, 10)))
    >>> batch = Batch(jnp.zeros((2, 8, 8, 3)), jnp.asarray([7, 1]), jnp.ones(2))
    >>> mix = Mix(jnp.asarray([0.5, 0.5]), jnp.asarray([1, 0]))
    >>> loss, metrics = make_objective(gamma=0.3)({"mixed": outputs, "clean": outputs}, batch, mix)
    >>> round(float(metrics["label_loss"]), 4), float(metrics["penalty"])     # log(10), and both are 1 from 4
    (2.3026, 1.0)
    """
    _check(gamma, clean_features, label_smoothing, penalty_pairs, distance)

    def objective(
        outputs: Mapping[str, Outputs], batch: Batch, mix: Mix | None, step: jax.Array | None = None
    ) -> tuple[jax.Array, Metrics]:
        if mix is not None and has_penalty(gamma) and "clean" not in outputs:
            raise ConfigError(f'gamma > 0 needs the outputs of the pass "clean", got those of {", ".join(outputs)}')
        loss, metrics = _label_terms(outputs, batch, mix, label_smoothing, regmixup)
        if mix is not None and "clean" in outputs:
            clean = outputs["clean"].features
            if clean_features in ("stop_gradient", "ema_teacher"):
                clean = jax.lax.stop_gradient(clean)
            distances = _penalties(outputs["mixed"].features, clean, mix, distance, penalty_pairs, groups)
            penalty = metrics["penalty"] = _mean(distances, batch)
            if callable(gamma):
                if step is None:
                    raise ConfigError("gamma is a function of the step: objective(outputs, batch, mix, step)")
                metrics["gamma"] = gamma(step)
                loss = loss + metrics["gamma"] * penalty
            elif gamma > 0:  # else the term is left out, not multiplied by 0: 0 * inf would be NaN
                loss = loss + gamma * penalty
        return loss, {"loss": loss, **metrics}

    return objective


def _check(gamma: Gamma, clean_features: str, label_smoothing: float, penalty_pairs: str, distance: str) -> None:
    if not callable(gamma) and not 0.0 <= gamma < float("inf"):
        raise ConfigError(f"gamma must be >= 0 and finite, got {gamma}")
    if clean_features not in CLEAN_FEATURES:
        raise ConfigError(f"clean_features must be one of {', '.join(CLEAN_FEATURES)}, got {clean_features!r}")
    if not 0.0 <= label_smoothing < 1.0:
        raise ConfigError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    if penalty_pairs not in PENALTY_PAIRS:
        raise ConfigError(f"penalty_pairs must be one of {', '.join(PENALTY_PAIRS)}, got {penalty_pairs!r}")
    lookup(DISTANCES, "distance", distance)


def _mean(values: jax.Array, batch: Batch) -> jax.Array:
    """The mean of f[n] over the real ones of the first n items; what the others are does not matter, be it NaN."""
    mask = batch.mask[: len(values)]
    return jnp.sum(jnp.where(mask > 0, values * mask, 0.0)) / jnp.sum(mask)


def _label_terms(
    outputs: Mapping[str, Outputs], batch: Batch, mix: Mix | None, label_smoothing: float, regmixup: bool
) -> tuple[jax.Array, Metrics]:
    """The label loss, and the metrics that need no penalty."""
    identity = jnp.arange(len(batch.labels))
    lam, pairing = (jnp.ones_like(batch.mask), identity) if mix is None else mix
    logits = outputs["clean" if mix is None else "mixed"].logits
    targets = mixed_targets(batch.labels, lam, pairing, num_classes=logits.shape[-1])
    loss = _mean(label_loss(logits, targets, label_smoothing=label_smoothing), batch)
    if regmixup and mix is not None:
        clean_targets = jax.nn.one_hot(batch.labels, logits.shape[-1])
        clean_loss = label_loss(outputs["clean"].logits, clean_targets, label_smoothing=label_smoothing)
        loss = 0.5 * (loss + _mean(clean_loss, batch))
    metrics = {"label_loss": loss, "accuracy": _mean(mixed_accuracy(logits, batch.labels, lam, pairing), batch)}
    if "clean" in outputs:
        features, logits = outputs["clean"]
        metrics["clean_accuracy"] = _mean(jnp.argmax(logits, axis=-1) == batch.labels[: len(logits)], batch)
        metrics["feature_norm"] = _mean(safe_norm(jax.lax.stop_gradient(features).astype(jnp.float32)), batch)
    if mix is not None:
        metrics["lam"] = _mean(lam, batch)
    return loss, metrics


def _penalties(mixed: jax.Array, clean: jax.Array, mix: Mix, distance: str, pairs: str, groups: int) -> jax.Array:
    """The penalty of each of the n pairs whose clean features [n d] are there, f32[n]."""
    n, (lam, pairing) = len(clean), mix
    anchor, partner = clean, partners_of(clean, pairing[:n], groups=groups)
    if pairs == "wrong":
        anchor, partner = jnp.roll(anchor, 1, axis=0), jnp.roll(partner, 1, axis=0)
    return sem_penalty(mixed[:n], anchor, partner, lam[:n], distance=distance)
