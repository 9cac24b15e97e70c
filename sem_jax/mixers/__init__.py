"""Mixers by name: `MIXERS[name](alpha=...)` makes one, `make_mix` turns it into a function of a batch.

    from sem_jax.mixers import MIXERS, make_mix

    mix = make_mix(MIXERS["cutmix"](alpha=1.0))
    mixed, (lam, pairing) = mix(key, images)

To add one: a file with `sample_<name>`, `apply_<name>` and `make_<name>`, and a line here; the contract tests pick
it up.
"""

from sem_jax.mixers.cutmix import make_cutmix
from sem_jax.mixers.mixer import Mixer, make_mix
from sem_jax.mixers.mixup import make_mixup
from sem_jax.mixers.none import make_none
from sem_jax.mixers.pairing import draw_pairing

MIXERS = {
    "none": make_none,
    "mixup": make_mixup,
    "cutmix": make_cutmix,
}

__all__ = ["MIXERS", "Mixer", "draw_pairing", "make_mix"]
