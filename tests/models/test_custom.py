"""Custom models, Linen and NNX: the example of docs/models.md trains, saves and is scored; the step is the same."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax import config as config_lib
from sem_jax.errors import ConfigError, RunError
from sem_jax.interfaces import Batch, Outputs
from sem_jax.mixers import MIXERS, make_mix
from sem_jax.models import make_model
from sem_jax.models.custom import find_factory
from sem_jax.objectives.build import make_objective
from sem_jax.registry import parse_options
from sem_jax.runs.opening import open_run
from sem_jax.runs.state import jit_init_state
from sem_jax.training import loop
from sem_jax.training.draw import make_draw
from sem_jax.training.forward import make_forward
from sem_jax.training.gradient import make_gradient
from sem_jax.training.optim import make_optimizer
from sem_jax.training.step import make_train_step
from tests.helpers.watch import watch

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
EXTRA = """

import numpy
from flax import nnx as _nnx

NOT_A_FACTORY = 3


def takes_nothing() -> LinenNet:
    return LinenNet(2, jnp.float32)


def returns_a_number(num_classes, dtype) -> nn.Module:
    return num_classes


def says_nothing(num_classes, dtype):
    return LinenNet(num_classes, dtype)


def documented(num_classes, dtype):
    '''Returns a Linen module.'''
    return LinenNet(num_classes, dtype)


def in_words(num_classes, dtype) -> "nn.Module":
    return LinenNet(num_classes, dtype)


def takes_anything(num_classes, **options) -> nn.Module:
    return LinenNet(num_classes, **options)


def leaves(num_classes) -> nn.Module:
    raise SystemExit(3)


def built_nnx(num_classes, dtype) -> _nnx.Module:
    return NnxNet(num_classes=num_classes, dtype=dtype, rngs=_nnx.Rngs(0))


class OneOutput(LinenNet):
    def __call__(self, images, *, train):
        return images.mean((1, 2))


class Counter(_nnx.Module):
    def __init__(self, num_classes, rngs):
        self.calls = _nnx.Variable(jnp.zeros(()))

    def __call__(self, images):
        return images.mean((1, 2)), images.mean((1, 2))


class Staged(LinenNet):
    @nn.compact
    def __call__(self, images, *, train, at_stage=lambda k, x: x):
        features = at_stage(0, images).mean((1, 2))
        return features, nn.Dense(self.num_classes)(features)
"""


@pytest.fixture(autouse=True)
def my_nets(tmp_path, monkeypatch):
    """The page's module, in the working directory and nowhere else."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (code,) = [block for block in blocks if block.startswith("# my_nets.py")]
    (tmp_path / "my_nets.py").write_text(code + EXTRA)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_nets", raising=False)
    monkeypatch.setattr(loop.curves, "draw_curves", lambda *_, **__: None)
    return tmp_path


def variables_of(model, images):
    return jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))


@pytest.mark.parametrize("name", ["LinenNet", "NnxNet"])
def test_the_example_of_the_page_trains_resumes_and_is_scored(name, my_nets):
    cfg = config_lib.get_default()
    cfg.data.name, cfg.data.crop_padding, cfg.data.flip = "digits", 1, False
    cfg.model.name, cfg.model.width = f"my_nets:{name}", 4
    cfg.model.options = "channels=1" if name == "NnxNet" else ""
    cfg.train.epochs, cfg.train.batch_size = 1, 512
    cfg.runtime.devices, cfg.runtime.progress = 1, False
    state = loop.train_and_evaluate(cfg, "run")
    again = loop.train_and_evaluate(cfg, "run")  # finished: restored from the checkpoint
    with pytest.raises(RunError, match=f"config.json names the model 'my_nets:{name}'.*\n.*--trust_model"):
        open_run("run")
    with pytest.raises(RunError, match="names the model"):
        open_run("run", trust_model="my_nets:Other")
    run = open_run("run", trust_model=f"my_nets:Other, my_nets:{name}")
    assert run.config.model.name == f"my_nets:{name}" and f"my_nets:{name}" in repr(run.model)
    for found in (again.params, run.variables["params"]):
        jax.tree.map(np.testing.assert_array_equal, found, state.params)
    jax.tree.map(np.testing.assert_array_equal, run.variables["batch_stats"], state.batch_stats)
    outputs = run.model.apply(run.variables, jnp.zeros((2, 8, 8, 1)), train=False)
    assert isinstance(outputs, Outputs) and outputs.features.shape == (2, 4) and outputs.logits.shape == (2, 10)


def test_a_step_of_an_nnx_model_is_a_function_of_its_key(rng):
    """Both passes of SEM, stacked and not; dropout by the key; BatchNorm's averages move."""
    model = make_model(name="my_nets:NnxNet", num_classes=3, width=4, options="channels=3")
    images = jnp.asarray(rng.normal(size=(8, 8, 8, 3)), jnp.float32)
    batch = Batch(images, jnp.arange(8) % 3, jnp.ones(8))
    tx = make_optimizer(0.1)
    state = jit_init_state(model, tx, image_shape=(8, 8, 3))(jax.random.key(0))

    def step(stacked):
        draw = make_draw(make_mix(MIXERS["mixup"](alpha=1.0)), clean_pass=True)
        return make_train_step(draw, make_gradient(make_forward(model, stacked=stacked), make_objective(gamma=0.3)), tx)

    first = jax.jit(step(False))
    (a, loss_a), (b, loss_b) = first(state, batch, jax.random.key(1)), first(state, batch, jax.random.key(1))
    _, loss_c = first(state, batch, jax.random.key(2))
    _, loss_d = jax.jit(step(True))(state, batch, jax.random.key(1))
    assert loss_a["loss"] == loss_b["loss"] != loss_c["loss"]
    np.testing.assert_allclose(loss_d["loss"], loss_a["loss"], rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    assert not np.allclose(a.batch_stats["norm"]["mean"], state.batch_stats["norm"]["mean"])
    assert not np.allclose(a.params["conv"]["kernel"], state.params["conv"]["kernel"])


def test_the_nnx_adapter_gives_what_the_module_gives(rng):
    from flax import nnx

    module = find_factory("my_nets:NnxNet")(num_classes=3, dtype=jnp.float32, rngs=nnx.Rngs(jax.random.key(5)), width=4)
    model = make_model(name="my_nets:NnxNet", num_classes=3, width=4, dtype="float32")
    images = jnp.asarray(rng.normal(size=(4, 8, 8, 1)), jnp.float32)
    variables = model.init(jax.random.key(5), images, train=False)
    np.testing.assert_array_equal(variables["params"]["conv"]["kernel"], module.conv.kernel[...])
    module.eval()
    for ours, theirs in zip(model.apply(variables, images, train=False), module(images), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    module.dropout.rate = 0.0  # the rest of training mode, without the random part
    module.train()
    module(images)
    key = {"dropout": jax.random.key(0)}
    _, updated = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=key)
    np.testing.assert_allclose(updated["batch_stats"]["norm"]["mean"], module.norm.mean[...], rtol=1e-6)


def test_a_hook_reaches_a_model_that_takes_it_and_is_refused_by_one_that_does_not():
    images = jnp.ones((2, 8, 8, 3))
    staged = make_model(name="my_nets:Staged", num_classes=2)
    variables = variables_of(staged, images)
    outputs = staged.apply(variables, images, train=False, at_stage=lambda k, x: 2 * x)
    np.testing.assert_array_equal(outputs.features, 2)
    plain = make_model(name="my_nets:LinenNet", num_classes=2)
    with pytest.raises(ConfigError, match="no argument at_stage"):
        plain.apply(variables_of(plain, images), images, train=False, at_stage=lambda k, x: x)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("no_such_module:Net", {}, "importing 'no_such_module' failed: ModuleNotFoundError"),
        ("my_nets:Net", {}, "my_nets has no factory 'Net'"),
        ("my_nets:NOT_A_FACTORY", {}, "has no factory 'NOT_A_FACTORY'"),
        ("my_nets:takes_nothing", {}, "cannot be called with num_classes=2: it names no argument .num_classes."),
        ("my_nets:returns_a_number", {}, "must return a Linen module, or an NNX module and take rngs; got int"),
        ("my_nets:says_nothing", {}, "neither a Linen or NNX module class nor a function said to return one"),
        ("my_nets:takes_anything", {"options": "width=2"}, "it names no argument 'width'"),
        ("my_nets:leaves", {}, "cannot be called with num_classes=2: SystemExit: 3"),
        ("my_nets:built_nnx", {}, "and take rngs; got NnxNet"),
        ("my_nets:Counter", {}, "calls is an nnx.Variable; a run keeps nnx.Param and nnx.BatchStat alone"),
        ("my_nets:LinenNet", {"heads": 2}, "model.heads is no option of my_nets:LinenNet, got 2\nIt has: width"),
        ("my_nets:LinenNet", {"options": "hidden=2"}, "model.hidden is no option of my_nets:LinenNet"),
        ("my_nets:LinenNet", {"options": "width"}, "model.options must be like"),
        ("vit", {"options": "depth=2"}, "model.options is for models named module.path:factory"),
    ],
)
def test_what_is_no_model_is_refused_by_name(name, fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_model(name=name, num_classes=2, dtype="float32", **fields)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("name", ["documented", "in_words"])
def test_a_function_says_that_it_returns_a_module(name):
    assert make_model(name=f"my_nets:{name}", num_classes=2, dtype="float32").dtype == jnp.float32


@pytest.mark.parametrize(
    "name",
    "builtins:max builtins:print os:system os:mkdir logging:basicConfig numpy:savez distutils.core:setup "
    "subprocess:Popen pathlib:Path flax.serialization:to_bytes jax:jit".split(),
)
def test_what_is_no_module_is_not_called(name, tmp_path):
    """Neither by training nor by name in Python; the module is imported, the function is looked at."""
    for options in ("", "filename='made'", "file='made'", "script_args=['--version']"):
        with (
            watch(allowed=(), suspect=tmp_path) as seen,
            pytest.raises(ConfigError, match="was not called|failed|stand"),
        ):
            make_model(name=name, num_classes=2, dtype="float32", options=options)
        assert seen == ([], []) and sorted(path.name for path in tmp_path.iterdir()) == ["my_nets.py"]


def test_a_module_that_exits_is_an_error_like_others(my_nets):
    (my_nets / "leaving.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(ConfigError, match="importing 'leaving' failed: SystemExit: 0"):
        make_model(name="leaving:Net", num_classes=2, dtype="float32")


def test_a_model_with_one_output_is_refused():
    model = make_model(name="my_nets:OneOutput", num_classes=2, dtype="float32")
    with pytest.raises(ConfigError, match="must return .features .b d., logits"):
        model.apply({}, jnp.zeros((1, 4, 4, 3)), train=False)


def test_an_option_may_be_false_zero_or_empty_and_is_given_once(my_nets):
    assert "width=0" in repr(make_model(name="my_nets:LinenNet", num_classes=2, dtype="float32", options="width=0"))
    with pytest.raises(ConfigError, match="model.options must be without width, which is the field model.width"):
        make_model(name="my_nets:LinenNet", num_classes=2, dtype="float32", width=4, options="width=2")


def test_options_are_literals_and_nothing_is_executed():
    found = parse_options("hidden=64, act='gelu', sizes=(1, 2)", "model.options")
    assert found == {"hidden": 64, "act": "gelu", "sizes": (1, 2)}
    nested = "x=" + "-" * 5000 + "1"
    for text in ("__import__('os')", "x=print(1)", "**{}", "x=", "x=1) + (2", "x=1)(y=2", "x={[]: 1}", nested):
        with pytest.raises(ConfigError, match="model.options must be like"):
            parse_options(text, "model.options")


def test_a_changed_source_is_another_model(my_nets):
    before = repr(make_model(name="my_nets:LinenNet", num_classes=2, dtype="float32"))
    with (my_nets / "my_nets.py").open("a") as file:
        file.write("# another version\n")
    assert repr(make_model(name="my_nets:LinenNet", num_classes=2, dtype="float32")) != before
