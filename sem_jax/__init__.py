"""sem_jax: Semantic Equivariant Mixup (SEM, arXiv 2308.06451) in JAX and Flax.

    python -m sem_jax.main --config=configs/digits.py      # train
    from sem_jax.mixers import MIXERS, make_mix             # or take the parts
    from sem_jax.objectives.sem import sem_penalty

Importing this package imports no jax and starts nothing.
"""

__version__ = "0.1.0"
