"""The options that are not exact: what each computes, what it costs, and that a run with them resumes bit for bit."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.errors import ConfigError
from sem_jax.interfaces import Batch, Mix, Outputs
from sem_jax.mixers import MIXERS, make_mix
from sem_jax.objectives.build import make_objective
from sem_jax.runs.state import init_state, jit_init_state
from sem_jax.training import shortcuts
from sem_jax.training.averages import Average, params_of, start, with_averages
from sem_jax.training.calls import make_advance, zero_sums
from sem_jax.training.draw import make_draw
from sem_jax.training.forward import make_forward
from sem_jax.training.gradient import make_gradient
from sem_jax.training.optim import make_optimizer
from sem_jax.training.shortcuts import alternate, average_over_mixes, clean_items
from sem_jax.training.step import make_train_step
from tests.helpers.tiny_net import TinyNet
from tests.helpers.training import assert_equal, records, run, tiny_backbone  # noqa: F401

B, K, GAMMA = 16, 4, 0.3
MODEL = TinyNet(num_classes=K)
MIX = make_mix(MIXERS["mixup"](alpha=1.0))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(B, 8, 8, 3)), jnp.float32)
    return Batch(images, jnp.asarray(rng.integers(0, K, B)), jnp.ones(B))


TX = make_optimizer(0.1, weight_decay=1e-4)
TEACHER = {"teacher": Average(params_of, 0.1)}


def build(*, gamma=GAMMA, clean_features="exact", clean=True, model=MODEL, items=None, mixes=1):
    teacher = clean_features == "ema_teacher"
    mix = MIX if items is None else make_mix(MIXERS["mixup"](alpha=1.0), first=items)
    draw = shortcuts.draw_together([make_draw(mix, clean_pass=clean, name=f"mixer{k}") for k in range(mixes)])
    objective = average_over_mixes(make_objective(gamma=gamma, clean_features=clean_features), mixes)
    gradient_of = make_gradient(
        make_forward(model, stacked=False), objective, teacher_of=(lambda s: s.averages["teacher"]) if teacher else None
    )
    draw = draw if items is None else shortcuts.keep_clean(draw, items)
    return with_averages(make_train_step(draw, gradient_of, TX), TEACHER if teacher else {})


def first_state(teacher=False):
    state = jit_init_state(MODEL, TX, image_shape=(8, 8, 3))(jax.random.key(0))
    return start(TEACHER if teacher else {}, state)


def test_the_first_step_with_a_teacher_is_the_one_with_stopped_gradients(batch):
    """The teacher starts as the net itself; from the second step on the two differ."""
    a, b = first_state(teacher=True), first_state()
    teach, stop = jax.jit(build(clean_features="ema_teacher")), jax.jit(build(clean_features="stop_gradient"))
    for same in (True, False):
        (a, from_teacher), (b, stopped) = (f(s, batch, jax.random.key(1)) for f, s in ((teach, a), (stop, b)))
        assert np.allclose(from_teacher["penalty"], stopped["penalty"], rtol=1e-5) == same
        if same:
            np.testing.assert_allclose(from_teacher["grad_norm"], stopped["grad_norm"], rtol=1e-5)
    moved = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a.params, a.averages["teacher"])
    assert 1e-6 < max(jax.tree.leaves(moved)) < 0.1


def test_a_part_of_the_batch_is_paired_within_itself(batch):
    mix = make_mix(MIXERS["mixup"](alpha=1.0), first=6)
    mixed, (lam, pairing) = mix(jax.random.key(2), batch.images)
    pairing = np.asarray(pairing)
    assert sorted(pairing[:6]) == list(range(6)) and sorted(pairing[6:]) == list(range(6, B))
    share = lam[:, None, None, None]
    np.testing.assert_allclose(mixed, share * batch.images + (1 - share) * batch.images[pairing], atol=1e-6)
    fetched, _ = mix(jax.random.key(2), batch.images, lambda rows: batch.images[rows])
    np.testing.assert_array_equal(mixed, fetched)
    _, (lam, _) = make_mix(MIXERS["mixup"](alpha=1.0), first=6, scope="batch")(jax.random.key(2), batch.images)
    assert len(set(np.asarray(lam).tolist())) == 1  # one for all pairs of the step, whichever part they are in
    _, (_, pairing) = make_mix(MIXERS["mixup"](), first=8, groups=2)(jax.random.key(2), batch.images)
    assert [sorted(part) for part in np.asarray(pairing).reshape(4, 4)] == np.arange(16).reshape(4, 4).tolist()
    with pytest.raises(ConfigError, match="penalty_fraction"):
        clean_items(0.01, batch_size=16)


def test_the_penalty_of_a_part_is_the_mean_over_that_part():
    rng = np.random.default_rng(1)
    f = {n: rng.normal(size=(k, 5)).astype(np.float32) for n, k in (("mixed", B), ("clean", 6))}
    outputs = {n: Outputs(jnp.asarray(x), jnp.zeros((len(x), K))) for n, x in f.items()}
    lam, pairing = rng.uniform(size=B).astype(np.float32), np.r_[rng.permutation(6), 6 + rng.permutation(10)]
    batch = Batch(jnp.zeros((B, 1)), jnp.zeros(B, jnp.int32), jnp.ones(B))
    _, metrics = make_objective(gamma=GAMMA)(outputs, batch, Mix(jnp.asarray(lam), jnp.asarray(pairing)))
    by_hand = np.mean(
        [
            np.linalg.norm(f["mixed"][i] - lam[i] * f["clean"][i] - (1 - lam[i]) * f["clean"][pairing[i]])
            for i in range(6)
        ]
    )
    np.testing.assert_allclose(metrics["penalty"], by_hand, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.log(K) + GAMMA * by_hand, rtol=1e-5)


def test_several_mixes_are_averaged():
    rng = np.random.default_rng(2)
    outputs = {
        n: Outputs(*(jnp.asarray(rng.normal(size=(B, d)), jnp.float32) for d in (5, K)))
        for n in ("mixed", "mixed1", "clean")
    }
    batch = Batch(jnp.zeros((B, 1)), jnp.asarray(rng.integers(0, K, B)), jnp.ones(B))
    mixes = tuple(Mix(jnp.asarray(rng.uniform(size=B), jnp.float32), jnp.asarray(rng.permutation(B))) for _ in "ab")
    objective = make_objective(gamma=GAMMA)
    loss, metrics = average_over_mixes(objective, 2)(outputs, batch, mixes)
    each = [
        objective({"mixed": outputs[n], "clean": outputs["clean"]}, batch, m)[0]
        for n, m in zip(("mixed", "mixed1"), mixes, strict=True)
    ]
    np.testing.assert_allclose(loss, sum(each) / 2, rtol=1e-6)
    np.testing.assert_allclose(metrics["lam"], sum(m.lam.mean() for m in mixes) / 2, rtol=1e-6)


def test_alternating_steps_are_the_two_steps(batch):
    def fetch(data, rows, key, step):
        del rows, key, step
        return data, None

    steps, key, state = [build(gamma=2 * GAMMA), build(gamma=0.0, clean=False)], jax.random.key(3), first_state()
    both = jax.jit(alternate(*(make_advance(step, fetch) for step in steps), every=2))
    zeros = zero_sums(steps, fetch, state, batch, None, key)
    for expected, clean_steps in zip(steps, (1, 0), strict=True):
        reference, metrics = jax.jit(expected)(state, batch, key)
        state, sums = both(state, zeros, batch, None, key)
        np.testing.assert_allclose(sums.means["loss"].value, metrics["loss"], rtol=1e-5)
        assert sums.means["loss"].count == 1 and sums.means["penalty"].count == clean_steps
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(reference), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_what_each_costs():
    """In operations, relative to a mixup step."""
    from sem_jax.models import MODELS

    model = MODELS["preact_resnet"](num_classes=10, width=8)
    abstract = Batch(
        jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.float32),
        jax.ShapeDtypeStruct((64,), jnp.int32),
        jax.ShapeDtypeStruct((64,), jnp.float32),
    )
    key = jax.eval_shape(lambda: jax.random.key(0))

    def flops(**options):
        kept = TEACHER if options.get("clean_features") == "ema_teacher" else {}
        state = jax.eval_shape(lambda: start(kept, init_state(model, TX, jax.random.key(0), image_shape=(32, 32, 3))))
        return jax.jit(build(model=model, **options)).lower(state, abstract, key).cost_analysis()["flops"]

    mixup = flops(gamma=0.0, clean=False)
    assert abs(flops(clean_features="ema_teacher") / mixup - 4 / 3) < 0.02
    assert abs(flops(items=16) / mixup - 1.25) < 0.02
    assert abs(flops(mixes=2) / mixup - 3.0) < 0.03  # two mixed batches: 1.5 each


@pytest.mark.parametrize(
    "options",
    [
        {"clean_features": "ema_teacher", "ema_decay": 0.5},
        {"penalty_every": 2},
        {"penalty_fraction": 0.5, "mixes_per_clean": 2},
        {"gamma_warmup": 1.0, "penalty_every": 2},
    ],
    ids=lambda o: "+".join(o),
)
def test_a_run_with_a_shortcut_says_so_and_resumes_bit_for_bit(tmp_path, options):
    changes = {f"objective__{name}": value for name, value in options.items()}
    if "ema_decay" in options:  # with what recipes add, and beside the teacher's average that of the weights
        changes |= {"optim__ema_decay": 0.9, "optim__clip_norm": 1.0, "data__randaugment": 2}
    once = run(tmp_path, "once", **changes)
    shutil.copytree(tmp_path / "once", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "10")
    (tmp_path / "again" / "result.json").unlink()
    again = run(tmp_path, "again", **changes)
    assert_equal(once, again)
    assert records(tmp_path / "once") == records(tmp_path / "again")
    first = records(tmp_path / "once")[0]
    assert first["penalty"] > 0.0 and 0.0 < first["penalty_relative"] < 5.0
    if options == {"penalty_every": 2}:  # 3 of the epoch's 5 steps, each with twice the coefficient
        np.testing.assert_allclose(first["loss"], first["label_loss"] + 0.6 * 3 / 5 * first["penalty"], rtol=1e-4)
    if "gamma_warmup" in options:  # the coefficient of the steps that had one, of 0, 2 and 4 tenths of 2 * 0.3
        np.testing.assert_allclose(first["gamma"], 0.6 * 0.2, rtol=1e-5)
    result = json.loads((tmp_path / "once" / "result.json").read_text())
    assert {name: result["objective"][name] for name in options} == options
