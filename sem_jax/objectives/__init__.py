"""Objectives: losses of each example (`losses`, `sem`) and their weighted sum (`build`).

from sem_jax.objectives.sem import sem_penalty          # the penalty alone, for another training loop
"""
