"""How a state lies in a checkpoint: its parts.

items = items_of(state)                       # {"model": ..., "trainer": ...}
state = state_of(step, items)
"""

from typing import Any, NamedTuple

import jax

from sem_jax.runs.state import TrainState

TRAINER = "trainer"  # the part that only a trainer reads


class _WithTeacher(NamedTuple):
    """The trainer's part where the state has a teacher's average; the form of version 0.1.0."""

    inner: Any
    teacher: Any


def items_of(state: TrainState) -> dict:
    """The parts of a checkpoint, by the name of their subfolder."""
    kept = state.averages
    return {
        "model": {"params": state.params, "batch_stats": state.batch_stats},
        TRAINER: {
            "opt_state": _WithTeacher(state.opt_state, kept["teacher"]) if "teacher" in kept else state.opt_state
        },
        **({"ema": kept["ema"]} if "ema" in kept else {}),
    }


def state_of(step: jax.Array, items: dict) -> TrainState:
    """The inverse of `items_of`."""
    opt_state, averages = items[TRAINER]["opt_state"], {}
    if isinstance(opt_state, _WithTeacher):
        opt_state, averages["teacher"] = opt_state
    if "ema" in items:
        averages["ema"] = items["ema"]
    return TrainState(step, **items["model"], opt_state=opt_state, averages=averages)
