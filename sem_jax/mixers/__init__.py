"""Mixers by name: `MIXERS[name](alpha=...)` makes one, `make_mix` turns it into a function of a batch.

    >>> import jax
    >>> from sem_jax.mixers import MIXERS, make_mix
    >>> mix = make_mix(MIXERS["cutmix"](alpha=1.0))
    >>> mixed, (lam, pairing) = mix(jax.random.key(0), jax.numpy.zeros((4, 8, 8, 3)))
    >>> mixed.shape, lam.shape, pairing.shape
    ((4, 8, 8, 3), (4,), (4,))

`python -m sem_jax mixers` draws what each of them does, `--list` names their options.

To add one: a file with `sample_<name>`, `apply_<name>` and `make_<name>`, and a line in `table.py`; the contract tests
pick it up. Importing this package imports no mixer and no jax.
"""

from typing import TYPE_CHECKING

from sem_jax.registry import on_demand

if TYPE_CHECKING:  # for editors and type checkers; "as" marks a name as offered
    from sem_jax.mixers.mixer import SCOPES as SCOPES
    from sem_jax.mixers.mixer import Mixer as Mixer
    from sem_jax.mixers.mixer import make_mix as make_mix
    from sem_jax.mixers.pairing import PAIRINGS as PAIRINGS
    from sem_jax.mixers.pairing import draw_pairing as draw_pairing
    from sem_jax.mixers.saliency import gradient_saliency as gradient_saliency
    from sem_jax.mixers.saliency import make_scorer as make_scorer
    from sem_jax.mixers.strength import STRENGTHS as STRENGTHS
    from sem_jax.mixers.strength import make_strength as make_strength
    from sem_jax.mixers.table import MIXERS as MIXERS
    from sem_jax.mixers.table import make_mixer as make_mixer

__getattr__, __dir__, __all__ = on_demand(
    __name__,
    {
        "sem_jax.mixers.table": "MIXERS, make_mixer",
        "sem_jax.mixers.mixer": "SCOPES, Mixer, make_mix",
        "sem_jax.mixers.pairing": "PAIRINGS, draw_pairing",
        "sem_jax.mixers.saliency": "gradient_saliency, make_scorer",
        "sem_jax.mixers.strength": "STRENGTHS, make_strength",
    },
)
