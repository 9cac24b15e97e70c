"""Random configurations: each is accepted, or refused with one message in seconds, before anything is compiled."""

import os
import subprocess
import sys
import time
from pathlib import Path

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

ROOT = Path(__file__).parents[2]
SECONDS = 5  # that a refusal may take
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
    """Values that a field may take, or that somebody might give it."""
    allowed, kind = field.allowed, type(field.default)
    texts = st.sampled_from(TEXTS.get(field.name, ["", "none", "x", "/does/not/exist", "\0", "\ud800"]))
    if isinstance(allowed, Words):
        own = st.sampled_from(sorted(resolve(allowed.place)))
        own = own | texts if field.name in TEXTS else own
    elif isinstance(allowed, Range):
        near = min(allowed.high, allowed.low + 40)
        own = st.integers(int(allowed.low), int(near)) if kind is int else st.floats(allowed.low, near)
        own = own | st.sampled_from([kind(x) for x in (allowed.low, near, allowed.low - 1, allowed.high) if x < 1e300])
    elif kind is bool:
        own = st.booleans()
    elif kind is str:
        own = texts
    elif kind is int:  # mixer.stop_epoch
        own = st.integers(0, 30)
    else:
        own = st.lists(st.floats(0, 1) | st.integers(0, 30), max_size=4).map(lambda x: tuple(sorted(x)))
    return own | own | own | ANYTHING


CHANGES = (
    st.sets(st.sampled_from(TABLE), min_size=1, max_size=5)
    .map(lambda fields: sorted(fields, key=lambda field: field.name))
    .flatmap(lambda fields: st.fixed_dictionaries({field.name: values_of(field) for field in fields}))
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
    begin = time.perf_counter()
    try:
        config_lib.override(cfg, changes)
        config_lib.validate(cfg, num_devices=1)
        if cfg.data.name == "digits":
            assemble.check(cfg, dataset, on=assemble.Platform("cpu", 1), scorer=lambda images, labels: images[..., 0])
    except SemError as error:
        assert time.perf_counter() - begin < SECONDS, changes
        message = str(error)
        assert 1 <= len(message.splitlines()) <= 3, message
        assert message.encode(errors="strict").decode().replace("\n", "").isprintable(), message
        return message
    return "accepted"


@settings(max_examples=50, **SETTINGS)
@given(changes=CHANGES)
def test_a_random_configuration_is_accepted_or_refused(digits, changes):
    outcome_of(changes, digits)


@pytest.mark.slow
@settings(max_examples=1000, **SETTINGS)
@given(changes=CHANGES)
def test_a_thousand_random_configurations_are_accepted_or_refused(digits, changes):
    outcome_of(changes, digits)


@settings(max_examples=50, **SETTINGS)
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


@pytest.mark.slow
@settings(max_examples=40, **SETTINGS)
@given(changes=CHANGES)
def test_the_command_ends_with_0_or_with_2_and_leaves_no_folder(tmp_path_factory, changes):
    """The command line: an accepted run of one epoch ends well, a refused one leaves nothing."""
    changes = {name: value for name, value in changes.items() if isinstance(value, (str, int, float))}
    if changes.get("data.name", "digits") != "digits" or changes.get("runtime.workers", 0) > 4:
        return  # nothing is downloaded, and no hundreds of processes are started
    few = {"data.use_test": False, "data.val_size": 100, "data.train_size": 128, "train.epochs": 1, "model.width": 1}
    if "model.name" in changes:
        few |= {"model.width": 0, "model.depth": 0}
    arguments = [f"--config.{name}={value}" for name, value in (few | changes).items()]
    if any("\0" in argument or not argument.isprintable() for argument in arguments):
        return  # no command line has them
    workdir = tmp_path_factory.mktemp("random") / "run"
    command = [sys.executable, "-m", "sem_jax.main", f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    said = done.stderr.strip().splitlines()
    trained = done.returncode == 0 or "Not finite" in done.stderr
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr, (arguments, done.stderr)
    assert trained or (1 <= len(said) <= 3 and not workdir.exists()), (arguments, done.stderr)
