"""Scores checkpoints: accuracy, corruptions, shift, OOD detection, calibration and equivariance.

    from sem_jax.evaluation import Options, evaluate

    record = evaluate("runs/digits", Options(suites=("clean", "calibration")))
    record["suites"]["clean"]["scalars"]["top1"]

Importing this package imports no jax.
"""

from sem_jax.registry import on_demand

__getattr__, __dir__, __all__ = on_demand(
    __name__,
    {
        "sem_jax.evaluation.suites": "SUITES",
        "sem_jax.evaluation.options": "Options",
        "sem_jax.evaluation.runner": "evaluate",
    },
)
