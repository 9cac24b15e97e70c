"""Scores checkpoints: accuracy, corruptions, shift, OOD detection, calibration and equivariance.

    from sem_jax.evaluation import evaluate

    record = evaluate("runs/digits", suites=("clean", "calibration"))

The trainer is not imported: objectives, step and loop are not needed to score.
"""

__all__ = ["evaluate", "evaluate_run"]


def __getattr__(name: str):
    # On demand: whoever imports evaluation.predict, as the trainer does, needs neither matplotlib nor the suites.
    if name in __all__:
        from sem_jax.evaluation import runner

        return getattr(runner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
