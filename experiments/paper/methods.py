"""What a run of the grid can be: the paper's nine methods, controls beside them, and other mixers.

    base_of("sem-squared")                     # ("mixup+sem", {"objective.distance": "squared"}, 1)
    methods_named("nine,controls", "paper")    # names, those that the size has

A control or another mixer is a method and config overrides, nothing else. Importing this brings no jax.
"""

from typing import Any, NamedTuple

from experiments.commands import names as split
from sem_jax.config import METHODS
from sem_jax.registry import lookup

# The library's defaults, where the paper's configurations follow its literal reading (docs/reproducing.md).
OWN = {"data.mean": (), "data.std": (), "mixer.scope": "sample", "objective.bn_running": "both", "model.variant": ""}
LITERAL = ("paper", "gpu30")  # the sizes that do


class Control(NamedTuple):
    """A row beside the nine: a method with other settings.

    `epochs` multiplies the size's; `sizes` are those where it is no row of the nine under another name, () = all.
    """

    method: str
    overrides: dict[str, Any]
    says: str
    epochs: int = 1
    sizes: tuple[str, ...] = ()


CONTROLS = {
    "mixup+clean": Control(
        "mixup",
        {"objective.clean_features": "grad"},
        "gamma 0 with the clean pass: what BatchNorm seeing it does alone",
    ),
    "mixup-x2": Control("mixup", {}, "twice the steps: what SEM's second pass would buy as training", epochs=2),
    "sem-bn-mixed": Control("mixup+sem", {"objective.bn_running": "mixed"}, "running averages of the mixed pass"),
    "sem-bn-clean": Control("mixup+sem", {"objective.bn_running": "clean"}, "running averages of the clean pass"),
    "sem-stopgrad": Control(
        "mixup+sem", {"objective.clean_features": "stop_gradient"}, "clean representations are targets only"
    ),
    "sem-wrong-pairs": Control(
        "mixup+sem", {"objective.penalty_pairs": "wrong"}, "the mixture of another pair as target: must not help"
    ),
    "sem-squared": Control("mixup+sem", {"objective.distance": "squared"}, "squared distance"),
    "sem-normalised": Control(
        "mixup+sem", {"objective.distance": "normalised"}, "distance of unit vectors: shrinking gains nothing"
    ),
    "cutmix-sem-normalised": Control(
        "cutmix+sem", {"objective.distance": "normalised"}, "CutMix: distance of unit vectors"
    ),
    "sem-warmup": Control(
        "mixup+sem", {"objective.gamma_warmup": 0.5}, "gamma rises from 0 over the first half of training"
    ),
    "cutmix-sem-warmup": Control(
        "cutmix+sem", {"objective.gamma_warmup": 0.5}, "CutMix: gamma rises from 0 over the first half of training"
    ),
    "regmixup": Control(
        "mixup", {"objective.regmixup": True}, "RegMixup: label loss on the clean images too, half each"
    ),
    "mixup-own": Control("mixup", OWN, "mixup by the library's own defaults", sizes=LITERAL),
    "sem-own": Control("mixup+sem", OWN, "mixup + SEM by the library's own defaults", sizes=LITERAL),
    "sem-gamma0.1": Control("mixup+sem", {"objective.gamma": 0.1}, "gamma 0.1"),
    "sem-gamma0.5": Control("mixup+sem", {"objective.gamma": 0.5}, "gamma 0.5"),
    "sem-gamma1": Control("mixup+sem", {"objective.gamma": 1.0}, "gamma 1"),
}
GAMMAS = ("sem-gamma0.1", "sem-gamma0.5", "sem-gamma1")

# Mixers beside the paper's two, with their settings; "<name>" and "<name>+sem" are rows. A scorer is given as the
# method whose run of the same seed is asked.
OTHER_MIXERS: dict[str, dict[str, Any]] = {
    "resizemix": {},
    "fmix": {},
    "gridmix": {},
    "smoothmix": {},
    "saliencymix": {},
    "attentive_cutmix": {"mixer.scorer": "erm"},
    "puzzlemix": {"mixer.options": "blocks=(2, 4, 8)"},  # cells of 2 pixels cost ten times the others on CPU
    "manifold_mixup": {"mixer.alpha": 2.0},
    # Not the last map: its mean over the places is all that the penalty sees of it, and aligning leaves that as it is.
    "alignmix": {"mixer.alpha": 2.0, "mixer.options": "stage=-2"},
    "choice": {},
}
MIXING = ("mixup", "cutmix", *OTHER_MIXERS)  # every mixer, as rows without and with SEM


def base_of(method: str) -> tuple[str, dict[str, Any], int]:
    """(one of the nine, overrides, factor of the epochs) of a method, a control or another mixer.

    Raises:
      ConfigError: for another name.
    """
    if method in METHODS:
        return method, {}, 1
    if (name := method.removesuffix("+sem")) in OTHER_MIXERS:
        return method.replace(name, "mixup"), {"mixer.name": name} | OTHER_MIXERS[name], 1
    if method not in CONTROLS:
        lookup(dict.fromkeys((*METHODS, *OTHER_MIXERS, *CONTROLS), ""), "method or control", method)
    control = CONTROLS[method]
    return control.method, control.overrides, control.epochs


def methods_named(names: str, size: str = "") -> list[str]:
    """Methods of a comma-separated list in which "nine", "controls", "gammas", "mixers" and "all" stand for theirs.

    With `size`, the groups have only what that size has.

    Raises:
      ConfigError: for an unknown name.
    """
    controls = tuple(name for name, it in CONTROLS.items() if not (size and it.sizes) or size in it.sizes)
    groups = {
        "nine": METHODS,
        "mixers": ("erm", *(method for name in MIXING for method in (name, f"{name}+sem"))),
        "controls": controls,
        "gammas": GAMMAS,
        "all": (*METHODS, *controls),
    }
    known = dict.fromkeys((*METHODS, *OTHER_MIXERS, *CONTROLS, *(f"{name}+sem" for name in OTHER_MIXERS)))
    rows = groups | {name: (name,) for name in known}
    return list(dict.fromkeys(row for name in split(names) for row in lookup(rows, "method", name)))
