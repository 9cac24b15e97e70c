"""The suites by name, each in a file of its own and imported when it is run.

A suite is a function `Context -> Result` that raises Missing where its data is not there. To add one: a file here and
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
