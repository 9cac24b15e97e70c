"""Mixers by name: `MIXERS[name](alpha=...)` makes one, `make_mix` turns it into a function of a batch.

    >>> import jax
    >>> from sem_jax.mixers import MIXERS, make_mix
    >>> mix = make_mix(MIXERS["cutmix"](alpha=1.0))
    >>> mixed, (lam, pairing) = mix(jax.random.key(0), jax.numpy.zeros((4, 8, 8, 3)))
    >>> mixed.shape, lam.shape, pairing.shape
    ((4, 8, 8, 3), (4,), (4,))

`python -m sem_jax mixers` draws what each of them does, `--list` names their options.

To add one: a file with `sample_<name>`, `apply_<name>` and `make_<name>`, and a line in `table.py`; the contract tests
pick it up. Importing this package imports no mixer and no jax: each name comes when it is asked for.
"""

from typing import TYPE_CHECKING

from sem_jax.mixers.table import MIXERS, make_mixer
from sem_jax.registry import on_demand

if TYPE_CHECKING:  # what the table below offers, for editors and type checkers
    from sem_jax.mixers.mixer import SCOPES, Mixer, make_mix
    from sem_jax.mixers.pairing import PAIRINGS, draw_pairing
    from sem_jax.mixers.saliency import gradient_saliency, make_scorer
    from sem_jax.mixers.strength import STRENGTHS, make_strength

__getattr__ = on_demand(
    __name__,
    {
        "SCOPES": "sem_jax.mixers.mixer:SCOPES",
        "Mixer": "sem_jax.mixers.mixer:Mixer",
        "make_mix": "sem_jax.mixers.mixer:make_mix",
        "PAIRINGS": "sem_jax.mixers.pairing:PAIRINGS",
        "draw_pairing": "sem_jax.mixers.pairing:draw_pairing",
        "gradient_saliency": "sem_jax.mixers.saliency:gradient_saliency",
        "make_scorer": "sem_jax.mixers.saliency:make_scorer",
        "STRENGTHS": "sem_jax.mixers.strength:STRENGTHS",
        "make_strength": "sem_jax.mixers.strength:make_strength",
    },
)

__all__ = [
    "MIXERS",
    "PAIRINGS",
    "SCOPES",
    "STRENGTHS",
    "Mixer",
    "draw_pairing",
    "gradient_saliency",
    "make_mix",
    "make_mixer",
    "make_scorer",
    "make_strength",
]
