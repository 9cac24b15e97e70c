"""The benchmark: its FLOP constant, its floor, how it times, and that the three-pass reference is Algorithm 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.bench import report, suites
from sem_jax.bench.cases import GAMMA, Bench, Case, Setting
from sem_jax.bench.flops import count, floor_seconds
from sem_jax.bench.timing import Timing, measure, ratio
from sem_jax.models import MODELS
from tests.tiny_net import TinyNet


@pytest.mark.parametrize(
    ("net", "options", "size", "gmac", "gflop", "floor_us"),
    [
        ("preact_resnet", {"depth": 18, "width": 64}, 32, 0.5554, 3.33, 7.22),
        ("wide_resnet", {"depth": 28, "width": 10}, 32, 5.243, 31.46, 52.3),
        ("preact_resnet", {"depth": 18, "width": 64}, 64, 2.222, 13.32, 28.9),
        ("wide_resnet", {"depth": 28, "width": 10}, 64, 20.97, 125.8, 209),
    ],
)
def test_operations_and_floor_of_the_papers_nets(net, options, size, gmac, gflop, floor_us):
    """Counted by hand from the layers' sizes; the floor with 790 TFLOP/s and 4.3 TB/s (H200, measured)."""
    cost = count(MODELS[net](num_classes=10, **options), image_shape=(size, size, 3))
    np.testing.assert_allclose(cost.macs / 1e9, gmac, rtol=2e-3)
    np.testing.assert_allclose(cost.step_flops / 1e9, gflop, rtol=2e-3)
    without_weights = floor_seconds(cost._replace(parameters=0), batch=1, peak_flops=790e12, bandwidth=4.3e12)
    np.testing.assert_allclose(without_weights * 1e6, floor_us, rtol=5e-3)


def test_blocks_are_interleaved_and_ratios_are_taken_within_a_round():
    called = []
    timings = measure({n: lambda k, n=n: called.append((n, k)) for n in "ab"}, steps=3, blocks=2, warmup=1)
    assert called == [("a", 1), ("b", 1), ("a", 3), ("b", 3), ("a", 3), ("b", 3)]
    assert set(timings) == {"a", "b"} and timings["a"].wall.shape == (2,)
    slow = Timing(np.asarray([2.0, 4.0, 60.0]), np.ones(3))
    fast = Timing(np.asarray([1.0, 2.0, 30.0]), np.ones(3))  # the last round met a busy machine
    assert ratio(slow, fast, cpu=False) == (2.0, 0.0) and ratio(slow, fast, cpu=True).median == 1.0


def test_what_the_suites_have():
    assert {"mixup", "erm", "cutmix", "sem", "sem, 3 passes", "sem, stop-gradient"} <= set(suites.METHODS)
    assert {(s.size, s.batch) for s in suites.GPU} == {(32, 128), (32, 512), (64, 128), (64, 512)}


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setitem(MODELS, "preact_resnet", lambda *, num_classes, width, **_: TinyNet(num_classes, width=width))
    return Bench(Setting("preact_resnet", 18, 8, batch=16, size=8, items=40))


def test_a_case_in_three_passes_is_the_shipped_step(bench):
    """Same key, same draw: the loss of a step in three passes is that in two."""
    losses = []
    for case in (Case(gamma=GAMMA), Case(gamma=GAMMA, three_passes=True)):
        fetch, step = bench._fetch(case), bench.step(case)

        def one(state, rows, key, step=step, fetch=fetch):
            batch, take = fetch(bench._data, rows, key, state.step)
            return step(state, batch, key, take)[1]["loss"]

        from sem_jax.state import jit_init_state

        state = jit_init_state(bench.model, bench._sgd, image_shape=(8, 8, 3))(jax.random.key(0))
        losses.append(float(jax.jit(one)(state, bench._order[0], jax.random.key(0))))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_rows_of_a_measurement(bench):
    bench.add("mixup", Case())
    bench.add("sem", Case(gamma=GAMMA))
    bench.add("device loop", Case(looped=True))
    bench.add("3 passes", Case(gamma=GAMMA, three_passes=True))
    bench.add_alternating("every second", "sem", "mixup", every=2)
    timings = measure(bench.runs, steps=2, blocks=2, warmup=1)
    rows = {r["case"]: r for r in report.rows(bench, timings, cpu=True, limit=(790e12, 4.3e12))}
    wanted = {"step_ms", "images_per_s", "time_ratio", "flops_ratio", "mfu", "peak_bytes", "compile_s", "floor_ratio"}
    assert all(wanted <= set(r) for r in rows.values())
    assert rows["mixup"]["time_ratio"] == 1.0 and rows["mixup"]["flops_ratio"] == 1.0
    assert 1.8 < rows["sem"]["flops_ratio"] < 2.2
    np.testing.assert_allclose(rows["every second"]["flops_ratio"], (1 + rows["sem"]["flops_ratio"]) / 2)
    assert rows["sem"]["peak_bytes"] > 0 and rows["sem"]["images_per_s"] > 0
    text = report.table(list(rows.values()))
    assert len(text.splitlines()) == 2 + len(rows) and "not known" not in text


def test_a_shipped_step_on_cpu_has_no_loop_around_its_convolutions(bench):
    """Host callbacks, float64 and convolutions inside loops would each be slow, and are not there."""
    from sem_jax.state import jit_init_state
    from sem_jax.step import make_train_call, zero_sums

    case = Case(gamma=GAMMA)
    step, fetch, key = bench.step(case), bench._fetch(case), jax.random.key(0)
    state = jit_init_state(bench.model, bench._sgd, image_shape=(8, 8, 3))(key)
    sums = zero_sums(step, fetch, state, bench._data, bench._order[0], key)
    text = (
        make_train_call(step, fetch, looped=False)
        .lower(state, sums, bench._data, bench._order, 0, 1, key)
        .compiler_ir("hlo")
        .as_hlo_text()
    )
    assert "f64[" not in text and "callback" not in text
    # 2 layers in 2 streams: forward, kernel gradient, and input gradient but for the first layer's.
    assert text.count(" convolution(") == 2 * (2 + 2 + 1)
    entry = text[text.index("ENTRY") :]
    assert entry.count(" convolution(") == text.count(" convolution(")
    assert jnp.float32 == bench.model.dtype
