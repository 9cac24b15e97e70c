"""Random configurations: each is accepted, or refused with one message in seconds, before anything is compiled."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.digits import get_config
from sem_jax import config as config_lib
from sem_jax import data as data_lib
from sem_jax.config.fields import TABLE, Range, Words
from sem_jax.errors import SemError
from sem_jax.registry import resolve
from sem_jax.training import assemble

SECONDS = 5  # of computing that a refusal may take
TEXTS = {
    "model.variant": ["v1", "v2", "v3", "v4"],
    "model.stem": ["3x3", "3x3s2", "7x7s2", "9x9"],
    "model.norm": ["batch", "group", "layer", "none"],
    "model.pool": ["token", "mean", "max"],
    "model.options": ["hidden=64", "hidden=", "a=1, a=2", "f(1)", "**{}", "x=" + "(" * 300],
    "mixer.options": [
        *("alpha=2", "alpha=.5, alpha=.3", "min_area=0.2", "min_area=nan", "decay=1e39", "decay=-1.0", "layers=(0, 9)"),
        *("layers=()", "layers=(1,)", "weights=('a', 2)", "weights=(1e308, 1e308)", "choices=('mixup(', 'cutmix')"),
        *(
            "choices=('choice', 'alignmix')",
            "choices=()",
            "choices=('puzzlemix', 'mixup(alpha=0.0)')",
            "blocks=(10, 3)",
        ),
        *("stage=0", "stage=99", "iterations=0", "iterations=999999999", "max_holes=100000", "variant='x'", "k=-1"),
        *("x=" + "9" * 5000, "é=1", "k=1e999", "=", ",", "epsilon=1e-45"),
    ],
    "model.name": ["tests.helpers.wrong_nets:Divides", "tests.helpers.wrong_nets:Flat", "os:system", "a:", "x y:z"],
}
ODD_NUMBERS = [10**400, -(2**63), 2**31, 2**32, 2**63, 10**9, -1, 0, 1, 1e-320, 1e-45, 1e39, 1e308, -0.0, 1e-31]
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(ODD_NUMBERS),
    st.floats(),
    st.text(max_size=30),
    st.lists(st.one_of(st.floats(), st.integers(), st.text(max_size=3)), max_size=4).map(tuple),
)


def values_of(field):
    """Values of a field's type, most of them in its range."""
    allowed, kind = field.allowed, type(field.default)
    texts = st.sampled_from(TEXTS.get(field.name, ["", "none", "x", "/does/not/exist"]))
    if isinstance(allowed, Words):
        words = st.sampled_from(sorted(resolve(allowed.place)))
        return words | words | texts if field.name in TEXTS else words
    if isinstance(allowed, Range):
        near = min(allowed.high, allowed.low + 20)
        usual = st.integers(int(allowed.low), int(near)) if kind is int else st.floats(allowed.low, near)
        return usual | usual | st.sampled_from([kind(x) for x in (allowed.low, near, allowed.low - 1, allowed.high)])
    if kind is bool:
        return st.booleans()
    if kind is str:
        return texts
    if kind is int:  # mixer.stop_epoch
        return st.integers(0, 30)
    return st.lists(st.floats(0, 1) | st.integers(0, 30), max_size=4).map(lambda x: tuple(sorted(x)))


def some(fields, values, least, most):
    """Dictionaries of `least` to `most` of the fields, with values drawn for each."""
    chosen = st.sets(st.sampled_from(fields), min_size=least, max_size=most)
    chosen = chosen.map(lambda fields: sorted(fields, key=lambda field: field.name))
    return chosen.flatmap(lambda fields: st.fixed_dictionaries({field.name: values(field) for field in fields}))


MODELS = st.fixed_dictionaries(
    {"model.name": st.sampled_from(["vit", "mlp_mixer", "convnext", "preact_resnet", "resnet", "wide_resnet"])},
    optional={
        "model.depth": st.sampled_from([0, 1, 3, 6, 10, 16, 18]),
        "model.width": st.sampled_from([0, 1, 3, 16, 24, 16384]),
        "model.patch_size": st.sampled_from([0, 1, 2, 3, 4, 8, 16, 1024]),
        "model.heads": st.sampled_from([0, 1, 3, 5]),
        "model.norm": st.sampled_from(["batch", "group", "layer"]),
    },
)
MIXERS = st.fixed_dictionaries(
    {"mixer.name": st.sampled_from(sorted(resolve("sem_jax.mixers:MIXERS")))},
    optional={"mixer.options": st.sampled_from(TEXTS["mixer.options"]), "mixer.alpha": st.floats(0, 3)},
)
USUAL = some(TABLE, values_of, 1, 4)
ODD = some(TABLE, lambda field: ANYTHING, 1, 1)
MOSTLY_USUAL = st.sampled_from("....!")  # one value of another kind in every fifth
FEW = st.tuples(MOSTLY_USUAL, USUAL, ODD).map(lambda x: x[1] | (x[2] if x[0] == "!" else {}))
CHANGES = st.tuples(MOSTLY_USUAL, USUAL, ODD, MODELS | st.just({}), MIXERS | st.just({})).map(
    lambda x: x[1] | x[3] | x[4] | (x[2] if x[0] == "!" else {})
)
SETTINGS = {"database": None, "deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def digits():
    return data_lib.load("digits")


def outcome_of(changes, dataset):
    """ "accepted", or the message of the refusal."""
    cfg = get_config()
    if "model.name" in changes:
        cfg.model.depth = cfg.model.width = 0
    begin = time.process_time()
    try:
        config_lib.override(cfg, changes)
        config_lib.validate(cfg, num_devices=1)
        if cfg.data.name == "digits":
            assemble.check(cfg, dataset, on=assemble.Platform("cpu", 1), scorer=lambda images, labels: images[..., 0])
    except SemError as error:
        assert time.process_time() - begin < SECONDS, changes
        message = str(error)
        assert 1 <= len(message.splitlines()) <= 3, message
        assert message.encode(errors="strict").decode().replace("\n", "").isprintable(), message
        return message
    return "accepted"


@settings(max_examples=15, **SETTINGS)
@given(changes=FEW)
def test_a_random_configuration_is_accepted_or_refused(digits, changes):
    outcome_of(changes, digits)


@pytest.mark.slow
@settings(max_examples=500, **SETTINGS)
@given(changes=CHANGES)
def test_five_hundred_random_configurations_are_accepted_or_refused(digits, changes):
    outcome_of(changes, digits)


@settings(max_examples=40, **SETTINGS)
@given(changes=CHANGES)
def test_a_random_saved_configuration_is_accepted_or_refused(changes):
    """What config.json of a stranger's run says."""
    saved = config_lib.to_dict(get_config())
    for name, value in changes.items():
        *groups, field = name.split(".")
        (saved[groups[0]] if groups else saved)[field] = list(value) if isinstance(value, tuple) else value
    try:
        config_lib.from_dict(saved)
    except SemError as error:
        assert len(str(error).splitlines()) <= 3
