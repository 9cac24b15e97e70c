"""The table of mixers, and `make_mixer`, which makes one from the texts of a configuration.

    mixer = make_mixer("fmix", alpha=1.0, options="decay=3.0, max_soft=0.2")
    mixer = make_mixer("choice", options="choices=('mixup', 'cutmix(alpha=0.2)'), weights=(2, 1)")

Options are the arguments of the row's `make_` function.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sem_jax.errors import ConfigError
from sem_jax.registry import Table, fits_float32, lookup, nearest, parameters_of, parse_call, parse_options

if TYPE_CHECKING:  # both import jax, which a list of names does not need
    from sem_jax.interfaces import Scorer
    from sem_jax.mixers.mixer import Mixer

MIXERS: "Table[Callable[..., Mixer]]" = Table(
    {
        "none": "sem_jax.mixers.none:make_none",
        "mixup": "sem_jax.mixers.mixup:make_mixup",
        "cutmix": "sem_jax.mixers.cutmix:make_cutmix",
        "resizemix": "sem_jax.mixers.resizemix:make_resizemix",
        "fmix": "sem_jax.mixers.fmix:make_fmix",
        "gridmix": "sem_jax.mixers.gridmix:make_gridmix",
        "smoothmix": "sem_jax.mixers.smoothmix:make_smoothmix",
        "saliencymix": "sem_jax.mixers.saliencymix:make_saliencymix",
        "attentive_cutmix": "sem_jax.mixers.attentive_cutmix:make_attentive_cutmix",
        "puzzlemix": "sem_jax.mixers.puzzlemix:make_puzzlemix",
        "manifold_mixup": "sem_jax.mixers.manifold_mixup:make_manifold_mixup",
        "alignmix": "sem_jax.mixers.alignmix:make_alignmix",
        "choice": "sem_jax.mixers.choice:make_choice",
    }
)
"""name -> make(*, alpha, ...) -> Mixer. An option out of range raises a ConfigError."""


LARGEST, MOST_VALUES = 10**6, 100
BOUNDS = f"at most {LARGEST} in size, 0 or at least 1e-30, with {MOST_VALUES} entries or less"


def options_of(make: Callable) -> dict[str, Any]:
    """The options of a row of MIXERS, with their defaults. A scorer is no option: no text can name it."""
    return {name: p.default for name, p in parameters_of(make).items() if name != "scorer"}


def make_mixer(name: str, *, alpha: float | None = None, options: str = "", scorer: "Scorer | None" = None) -> "Mixer":
    """The mixer of a name and options.

    >>> import jax
    >>> from sem_jax.mixers import make_mix, make_mixer
    >>> mixer = make_mixer("cutmix(min_area=0.2)", alpha=0.5)
    >>> mixed, mix = make_mix(mixer)(jax.random.key(0), jax.numpy.zeros((4, 8, 8, 3)))
    >>> mixed.shape, bool((mix.lam < 1).all())
    ((4, 8, 8, 3), True)

    Args:
      name: a key of MIXERS; options may follow in brackets, "cutmix(alpha=0.2)".
      alpha: concentration of the Beta distribution, unless the options name one; None = the row's default.
      options: more options, as text: "decay=3.0, max_soft=0.2".
      scorer: (images f32[b h w c], labels i32[b] or None) -> f32[b gh gw], for the rows that take one.

    Raises:
      ConfigError: for an unknown name or option, or a value out of range.
    """
    name, within = parse_call(name, "mixer")
    make = lookup(MIXERS, "mixer", name)
    known = options_of(make)
    remedy = f"Options of {name}: {', '.join(f'{option}={default!r}' for option, default in known.items())}"
    given: dict[str, Any] = {} if alpha is None else {"alpha": alpha}
    if scorer is not None and "scorer" in parameters_of(make):
        given["scorer"] = scorer
    for text in (within, options):
        for option, value in parse_options(text, "mixer.options", remedy).items():
            if option not in known:
                near = nearest(option, known)
                raise ConfigError(f"Unknown option {option!r} of mixer {name!r} in mixer.options.{near}", remedy)
            expected = type(known[option])
            if expected is float and type(value) is int:
                value = float(value)
            if type(value) is not expected:
                raise ConfigError(f"mixer.options: {option} of {name} must be like {known[option]!r}, got {value!r}")
            if not _in_bounds(value):
                raise ConfigError(f"mixer.options: {option} of {name} must be finite and {BOUNDS}, got {value!r:.60}")
            given[option] = value
    return make(**given)


def _in_bounds(value: Any) -> bool:
    values = value if isinstance(value, tuple) else (value,)
    numbers = [x for x in values if isinstance(x, int | float)]
    return len(values) <= MOST_VALUES and all(fits_float32(x) and abs(x) <= LARGEST for x in numbers)
