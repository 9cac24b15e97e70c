"""The table of models, and `make_model`, which makes one from the `model` group of a configuration."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from sem_jax.errors import ConfigError
from sem_jax.registry import Table, lookup, parameters_of, parse_options

if TYPE_CHECKING:  # it imports jax, which a list of names does not need
    from sem_jax.interfaces import Model

MODELS: "Table[Callable[..., Model]]" = Table(
    {
        "preact_resnet": "sem_jax.models.preact_resnet:make_preact_resnet",
        "wide_resnet": "sem_jax.models.wide_resnet:make_wide_resnet",
        "resnet": "sem_jax.models.resnet:make_resnet",
        "convnext": "sem_jax.models.convnext:make_convnext",
        "vit": "sem_jax.models.vit:make_vit",
        "mlp_mixer": "sem_jax.models.mlp_mixer:make_mlp_mixer",
    }
)
"""name -> make(*, num_classes, dtype, ...) -> Model. A wrong option raises a ConfigError."""

DTYPES = ("auto", "float32", "bfloat16")
MAX_PARAMETERS = 10**10  # every device holds all of them, their gradient and the state of the optimizer


def make_model(
    *, name: str, num_classes: int, dtype: str = "auto", options: str = "", init_from: str = "", **fields: Any
) -> "Model":
    """The model that the `model` group of a configuration describes.

    >>> import jax
    >>> model = make_model(name="vit", num_classes=10, depth=1, width=16, patch_size=4, dtype="float32")
    >>> images = jax.numpy.zeros((2, 8, 8, 3))
    >>> variables = model.init(jax.random.key(0), images, train=False)
    >>> features, logits = model.apply(variables, images, train=False)
    >>> features.shape, logits.shape
    ((2, 16), (2, 10))

    Args:
      name: a key of MODELS, or "module.path:factory" (see `custom`): that module is imported, which executes it.
      num_classes: k.
      dtype: of the computation, one of DTYPES; "auto" is float32 on CPU, where bfloat16 is emulated, else bfloat16.
        Parameters, BatchNorm statistics, features and logits are float32.
      options: more options of a custom model, as text: "hidden=64, act='gelu'".
      init_from: of no matter here: the weights that a run starts from are those of its state.
      **fields: options of the row. For 0 and "" the row's default is taken.

    Raises:
      ConfigError: for an unknown name or an option the model does not take.
    """
    import jax

    del init_from
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if ":" in name:
        from sem_jax.models.custom import find_factory, make_custom

        factory = find_factory(name)
        make = partial(make_custom, name, factory)
    elif options:
        raise ConfigError(f"model.options is for models named module.path:factory, got {options!r} for {name}")
    else:
        make = factory = lookup(MODELS, "model", name)
    given, more = {option: value for option, value in fields.items() if value}, parse_options(options, "model.options")
    if twice := sorted(given.keys() & more.keys()):
        raise ConfigError(
            f"model.options must be without {twice[0]}, which is the field model.{twice[0]}, got {options!r}"
        )
    given |= more
    parameters = parameters_of(factory)
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = sorted(set(parameters) - {"num_classes", "dtype", "rngs"})
        for option in given:
            if option not in known:
                remedy = f"It has: {', '.join(known)}."
                raise ConfigError(f"model.{option} is no option of {name}, got {given[option]!r}", remedy)
    return make(num_classes=num_classes, dtype=jax.numpy.dtype(dtype), **given)


def check_count(model: str, parameters: int) -> None:
    """Raises a ConfigError for more parameters than MAX_PARAMETERS."""
    if parameters > MAX_PARAMETERS:
        raise ConfigError(
            f"model.name={model!r} would have {parameters:.1e} parameters, at most {MAX_PARAMETERS:.0e} are possible",
            "Every device holds all of them: lower model.width, model.depth or the size of the images.",
        )
