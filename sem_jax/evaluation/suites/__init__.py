"""The suites by name. Each has its own file, which is imported when it is run.

A suite is a function `Context -> Result` that raises Missing if its data is not there. To add one, add a file here and
a line in SUITES.
"""

from collections.abc import Callable
from typing import Any

from sem_jax.registry import Table

SUITES: Table[Callable[[Any], Any]] = Table(
    {
        "clean": "sem_jax.evaluation.suites.clean:clean",
        "corruptions": "sem_jax.evaluation.suites.corruptions:corruptions",
        "shift": "sem_jax.evaluation.suites.shift:shift",
        "ood": "sem_jax.evaluation.suites.ood:ood",
        "calibration": "sem_jax.evaluation.suites.calibration:calibrate",
        "equivariance": "sem_jax.evaluation.suites.equivariance:equivariance",
    }
)
