"""sem_jax: Semantic Equivariant Mixup (SEM, arXiv 2308.06451) in JAX and Flax.

    import sem_jax as sj

    cfg = sj.get_config("digits", method="mixup+sem")       # train, open, predict, score
    run = sj.train(cfg, "runs/digits")
    run = sj.load("runs/digits")

    mix = sj.make_mix(sj.make_mixer("cutmix", alpha=1.0))   # or take the parts into your own loop
    penalty = sj.sem_penalty(mixed, anchor, partner, lam)

On the command line: `python -m sem_jax`. Importing this package imports no jax and starts nothing: each name below
comes when it is asked for.
"""

from typing import TYPE_CHECKING

from sem_jax.registry import on_demand

if TYPE_CHECKING:  # what the table below offers, for editors and type checkers
    from sem_jax.api import Prediction, Run, get_config, load, train
    from sem_jax.data import DATASETS
    from sem_jax.data import load as load_data
    from sem_jax.errors import SemError
    from sem_jax.mixers import MIXERS, make_mix, make_mixer
    from sem_jax.models import MODELS, make_model
    from sem_jax.objectives.build import make_objective
    from sem_jax.objectives.losses import mixed_targets
    from sem_jax.objectives.sem import sem_penalty

__version__ = "0.1.0"

_PLACES = {
    "MIXERS": "sem_jax.mixers:MIXERS",
    "make_mixer": "sem_jax.mixers:make_mixer",
    "make_mix": "sem_jax.mixers:make_mix",
    "sem_penalty": "sem_jax.objectives.sem:sem_penalty",
    "mixed_targets": "sem_jax.objectives.losses:mixed_targets",
    "make_objective": "sem_jax.objectives.build:make_objective",
    "MODELS": "sem_jax.models:MODELS",
    "make_model": "sem_jax.models:make_model",
    "DATASETS": "sem_jax.data:DATASETS",
    "load_data": "sem_jax.data:load",
    "get_config": "sem_jax.api:get_config",
    "train": "sem_jax.api:train",
    "load": "sem_jax.api:load",
    "Run": "sem_jax.api:Run",
    "Prediction": "sem_jax.api:Prediction",
    "SemError": "sem_jax.errors:SemError",
}
__all__ = [  # noqa: F822  found by __getattr__
    "DATASETS",
    "MIXERS",
    "MODELS",
    "Prediction",
    "Run",
    "SemError",
    "get_config",
    "load",
    "load_data",
    "make_mix",
    "make_mixer",
    "make_model",
    "make_objective",
    "mixed_targets",
    "sem_penalty",
    "train",
]
__getattr__ = on_demand(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
