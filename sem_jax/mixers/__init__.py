"""Mixers by name: `MIXERS[name](alpha=...)` makes one, `make_mix` turns it into a function of a batch.

    from sem_jax.mixers import MIXERS, make_mix

    mix = make_mix(MIXERS["cutmix"](alpha=1.0))
    mixed, (lam, pairing) = mix(key, images)

`python -m sem_jax.mixers` draws what each of them does, `--list` names their options.

To add one: a file with `sample_<name>`, `apply_<name>` and `make_<name>`, and a line here; the contract tests pick
it up.
"""

from sem_jax.mixers.alignmix import make_alignmix
from sem_jax.mixers.attentive_cutmix import make_attentive_cutmix
from sem_jax.mixers.build import make_mixer
from sem_jax.mixers.choice import make_choice
from sem_jax.mixers.cutmix import make_cutmix
from sem_jax.mixers.fmix import make_fmix
from sem_jax.mixers.gridmix import make_gridmix
from sem_jax.mixers.manifold_mixup import make_manifold_mixup
from sem_jax.mixers.mixer import Mixer, make_mix
from sem_jax.mixers.mixup import make_mixup
from sem_jax.mixers.none import make_none
from sem_jax.mixers.pairing import PAIRINGS, draw_pairing
from sem_jax.mixers.puzzlemix import make_puzzlemix
from sem_jax.mixers.resizemix import make_resizemix
from sem_jax.mixers.saliency import gradient_saliency, make_scorer
from sem_jax.mixers.saliencymix import make_saliencymix
from sem_jax.mixers.schedule import SCHEDULES, make_schedule
from sem_jax.mixers.smoothmix import make_smoothmix

MIXERS = {
    "none": make_none,
    "mixup": make_mixup,
    "cutmix": make_cutmix,
    "resizemix": make_resizemix,
    "fmix": make_fmix,
    "gridmix": make_gridmix,
    "smoothmix": make_smoothmix,
    "saliencymix": make_saliencymix,
    "attentive_cutmix": make_attentive_cutmix,
    "puzzlemix": make_puzzlemix,
    "manifold_mixup": make_manifold_mixup,
    "alignmix": make_alignmix,
    "choice": make_choice,
}

__all__ = [
    "MIXERS",
    "PAIRINGS",
    "SCHEDULES",
    "Mixer",
    "draw_pairing",
    "gradient_saliency",
    "make_mix",
    "make_mixer",
    "make_schedule",
    "make_scorer",
]
