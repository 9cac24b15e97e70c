"""sem_jax: Semantic Equivariant Mixup (SEM, arXiv 2308.06451) in JAX and Flax.

    import sem_jax as sj

    cfg = sj.get_config("digits", method="mixup+sem")       # train, open, predict, score
    run = sj.train(cfg, "runs/digits")
    run = sj.load("runs/digits")

    mix = sj.make_mix(sj.make_mixer("cutmix", alpha=1.0))   # or take the parts into your own loop
    penalty = sj.sem_penalty(mixed, anchor, partner, lam)

On the command line: `python -m sem_jax`. Importing this package imports no jax; names are imported when first used.
"""

from typing import TYPE_CHECKING

from sem_jax.registry import on_demand

if TYPE_CHECKING:  # for editors and type checkers; "as" marks a name as offered
    from sem_jax.api import Prediction as Prediction
    from sem_jax.api import Run as Run
    from sem_jax.api import get_config as get_config
    from sem_jax.api import load as load
    from sem_jax.api import train as train
    from sem_jax.data import DATASETS as DATASETS
    from sem_jax.data import load as _load
    from sem_jax.errors import SemError as SemError
    from sem_jax.mixers import MIXERS as MIXERS
    from sem_jax.mixers import make_mix as make_mix
    from sem_jax.mixers import make_mixer as make_mixer
    from sem_jax.models import MODELS as MODELS
    from sem_jax.models import make_model as make_model
    from sem_jax.objectives.build import make_objective as make_objective
    from sem_jax.objectives.losses import mixed_targets as mixed_targets
    from sem_jax.objectives.sem import sem_penalty as sem_penalty

    load_data = _load

__version__ = "0.1.0"

_NAMES = {
    "sem_jax.mixers": "MIXERS, make_mixer, make_mix",
    "sem_jax.objectives.sem": "sem_penalty",
    "sem_jax.objectives.losses": "mixed_targets",
    "sem_jax.objectives.build": "make_objective",
    "sem_jax.models": "MODELS, make_model",
    "sem_jax.data": "DATASETS, load as load_data",
    "sem_jax.api": "get_config, train, load, Run, Prediction",
    "sem_jax.errors": "SemError",
}
__getattr__, __dir__, __all__ = on_demand(__name__, _NAMES)
