"""The benchmark: its FLOP constant, its floor, how it times, that the three-pass reference is Algorithm 1, and that
both suites run to their end."""

import contextlib
import io
import json
import subprocess
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.speed import __main__ as command
from experiments.speed import cases, flags, mixing, settings, tables
from experiments.speed.cases import Bench, Case, Setting
from experiments.speed.flops import count, floor_seconds
from experiments.speed.timing import Timing, measure, ratio
from sem_jax.mixers import MIXERS
from sem_jax.models import MODELS
from sem_jax.training.calls import make_advance, make_call
from tests.helpers.tiny_net import TinyNet


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
    assert {"mixup", "erm", "cutmix", "sem", "sem, 3 passes", "sem, stop-gradient"} <= set(settings.METHODS)
    assert {(s.size, s.batch) for s in settings.GPU} == {(32, 128), (32, 512), (64, 128), (64, 512)}


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setitem(MODELS, "preact_resnet", lambda *, num_classes, width, **_: TinyNet(num_classes, width=width))
    return Bench(Setting("preact_resnet", 18, 8, batch=16, size=8, items=40))


def test_a_case_in_three_passes_is_the_shipped_step(bench):
    """Same key, same draw: the loss of a step in three passes is that in two."""
    losses = []
    for case in (settings.SEM, settings.SEM._replace(three_passes=True)):
        parts = bench.parts(case)
        state, _, data, order, _, _, key = bench.arguments(parts)

        def one(state, data, rows, key, parts=parts):
            batch, take = parts.fetch(data, rows, key, state.step)
            return parts.steps[0](state, batch, key, take)[1]["loss"]

        losses.append(float(jax.jit(one)(state, data, order[0], key)))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_rows_of_a_measurement(bench):
    bench.add("mixup", Case())
    bench.add("sem", settings.SEM)
    bench.add("device loop", settings.LOOP["mixup, device loop"])
    bench.add("3 passes", settings.METHODS["sem, 3 passes"])
    bench.add("every second", settings.sem(objective__penalty_every=2))
    timings = measure(bench.runs, steps=2, blocks=2, warmup=1)
    rows = {r["case"]: r for r in tables.rows(bench, timings, cpu=True, limit=(790e12, 4.3e12))}
    wanted = {"step_ms", "images_per_s", "time_ratio", "flops_ratio", "mfu", "peak_bytes", "compile_s", "floor_ratio"}
    assert all(wanted <= set(r) for r in rows.values())
    assert rows["mixup"]["time_ratio"] == 1.0 and rows["mixup"]["flops_ratio"] == 1.0
    assert 1.8 < rows["sem"]["flops_ratio"] < 2.2
    np.testing.assert_allclose(rows["every second"]["flops_ratio"], (1 + rows["sem"]["flops_ratio"]) / 2)
    assert rows["sem"]["peak_bytes"] > 0 and rows["sem"]["images_per_s"] > 0
    text = tables.table(list(rows.values()))
    assert len(text.splitlines()) == 2 + len(rows) and "not known" not in text


def test_a_shipped_step_on_cpu_has_no_loop_around_its_convolutions(bench):
    """Host callbacks, float64 and convolutions inside loops would each be slow, and are not there."""
    parts = bench.parts(settings.SEM)
    call = make_call(make_advance(parts.steps[0], parts.fetch), looped=False)
    text = call.lower(*bench.arguments(parts)).compiler_ir("hlo").as_hlo_text()
    assert "f64[" not in text and "callback" not in text
    # 2 layers in 2 passes: forward, kernel gradient, and input gradient but for the first layer's.
    assert text.count(" convolution(") == 2 * (2 + 2 + 1)
    entry = text[text.index("ENTRY") :]
    assert entry.count(" convolution(") == text.count(" convolution(")
    assert jnp.float32 == bench.model.dtype


ROW = {"step_ms", "images_per_s", "time_ratio", "flops_ratio", "mfu", "floor_ratio", "peak_bytes", "compile_s"}
ENVIRONMENT = {"sem_jax", "jax", "jaxlib", "python", "device", "platform_version", "xla_flags", "git", "gpu"}


@pytest.fixture
def tiny(monkeypatch):
    """The command with a net that compiles in a moment, a device whose limits are known, a "GPU", and "other processes"
    that are this one."""
    for net in ("preact_resnet", "wide_resnet"):
        monkeypatch.setitem(MODELS, net, lambda *, num_classes, width, **_: TinyNet(num_classes, width=8))
    monkeypatch.setattr(settings, "limits", lambda kind: (790e12, 4.3e12))
    monkeypatch.setattr(command, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(command, "no_gpu", lambda: False)
    answers = {}

    def run(arguments, **_):
        request = arguments[-1]
        if request not in answers:
            out = io.StringIO()
            if request.startswith("--child="):
                with contextlib.redirect_stdout(out):
                    command.main([request])
            answers[request] = out.getvalue()
        return subprocess.CompletedProcess(arguments, 0, answers[request])

    monkeypatch.setattr(flags, "subprocess", SimpleNamespace(run=run))
    return monkeypatch


def shrink(monkeypatch, suite, *, count):
    """The first settings of a suite, with few small images."""
    shrunk = [s._replace(batch=4, size=8, items=8) for s in getattr(settings, suite.upper())[:count]]
    monkeypatch.setattr(settings, suite.upper(), shrunk)


@pytest.fixture
def uncompiled(monkeypatch):
    """Every step is traced and lowered, which is where a case that does not fit the step fails; none is compiled."""
    memory = SimpleNamespace(argument_size_in_bytes=1, output_size_in_bytes=1, temp_size_in_bytes=1)

    class Call:
        platforms = ()  # lowered for these too, though they are not here

        def __init__(self, call):
            self._call = call

        def lower(self, *arguments):
            for platform in self.platforms:
                self._call.trace(*arguments).lower(lowering_platforms=(platform,))
            self._cost = self._call.lower(*arguments).cost_analysis()
            return self

        def cost_analysis(self):
            return self._cost

        def compile(self):
            return self

        def memory_analysis(self):
            return memory

        def __call__(self, state, sums, *_):
            return state, sums

    monkeypatch.setattr(cases, "make_call", lambda *a, **options: Call(make_call(*a, **options)))
    return Call


def run_suite(path, *arguments):
    command.main([*arguments, "--steps=1", "--blocks=1", f"--out={path}"])
    found = json.loads(path.read_text())
    assert ENVIRONMENT <= set(found["environment"]) and found["environment"]["device"]
    assert all(ROW <= set(row) for row in found["rows"])
    for row in found["rows"]:
        for name in ("step_ms", "images_per_s", "time_ratio", "flops_ratio", "mfu", "peak_bytes"):
            assert row[name] > 0, (name, row)
    return found


def check_every_part(suite, path, printed):
    parts = [part for part in command.PARTS if part != "mixers"]
    found = run_suite(path, f"--suite={suite}", f"--parts={','.join(parts)}")
    wanted = {**settings.METHODS, **settings.OPTIONS, **settings.PASSES, **settings.PIPELINE, **settings.LOOP}
    assert {row["case"] for row in found["rows"]} == set(wanted)
    assert not found["skipped"]
    assert found["compile_s"]["cold"] > 0 and found["compile_s"]["cached"] > 0
    tried = flags.CPU_FLAGS if suite == "cpu" else flags.GPU_FLAGS
    assert set(found["flags"]) == {"setting", "", *tried}
    assert all(found["flags"][flag]["sem"]["wall_ms"] > 0 for flag in ("", *tried))
    assert ("device_peak_bytes" in found) == (suite == "gpu")
    text = printed()
    assert all(f"| {row['case']} |" in text for row in found["rows"])


@pytest.mark.parametrize("suite", ["cpu", "gpu"])
@pytest.mark.slow
def test_a_suite_goes_through_every_part_to_its_end(tiny, uncompiled, tmp_path, capsys, suite):
    shrink(tiny, suite, count=1)
    check_every_part(suite, tmp_path / "bench.json", lambda: capsys.readouterr().out)


@pytest.mark.slow
def test_a_suite_is_really_measured(tiny, tmp_path, capsys):
    shrink(tiny, "cpu", count=1)
    check_every_part("cpu", tmp_path / "bench.json", lambda: capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["cpu", "gpu"])
def test_every_setting_and_mixer_of_a_suite_is_lowered(tiny, uncompiled, tmp_path, suite):
    """At their real batches and sizes of images; the GPU's for CUDA."""
    uncompiled.platforms = ("cuda",) if suite == "gpu" else ()
    found = run_suite(
        tmp_path / "bench.json", f"--suite={suite}", "--parts=methods,options,mixers,passes,pipeline,loop"
    )
    assert not found["skipped"]
    there = {setting.name: set() for setting in getattr(settings, suite.upper())}
    for row in found["rows"]:
        there[row["setting"]].add(row["case"])
    assert all(
        {*settings.METHODS, *settings.PASSES, *settings.PIPELINE, *settings.LOOP} <= names for names in there.values()
    )
    assert {row["mixer"] for row in found["mixing"]} == set(mixing.pixel_mixers()) and len(found["mixing"]) == 16
    once = {f"mixer {name}" for name in MIXERS if name not in ("none", "mixup")} | set(settings.OPTIONS)
    assert [name.split("-")[0] for name, names in there.items() if once <= names] == ["preact18", "wrn28"]


def test_what_the_memory_does_not_hold_is_skipped_and_the_rest_measured(tiny, uncompiled, tmp_path):
    add = Bench.add

    def full(self, name, case):
        if "3 passes" in name or self.setting.net == "wide_resnet":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")
        add(self, name, case)

    shrink(tiny, "cpu", count=2)
    tiny.setattr(Bench, "add", full)
    tiny.setattr(
        settings, "METHODS", {name: settings.METHODS[name] for name in ("mixup", "mixup (again)", "sem, 3 passes")}
    )
    found = run_suite(tmp_path / "bench.json", "--parts=methods")
    assert [row["case"] for row in found["rows"]] == ["mixup", "mixup (again)"]
    assert len(found["skipped"]) == 1 + 3 and all("Out of memory" in reason for reason in found["skipped"].values())


def test_mixing_alone(monkeypatch):
    names = ["mixup", "cutmix", "resizemix", "fmix", "gridmix", "smoothmix", "saliencymix", "choice"]
    assert mixing.pixel_mixers() == names
    monkeypatch.setattr(mixing, "pixel_mixers", lambda: names[:2])  # the others take longer to compile
    setting = Setting("preact_resnet", 18, 8, batch=2, size=4, items=4)
    rows = mixing.measure_mixing(setting, step={"wall_ms": 100.0, "cpu_ms": 200.0}, blocks=3, steps=2)
    mixup, cutmix = rows
    assert (mixup["mixer"], cutmix["mixer"]) == ("mixup", "cutmix") and mixup["step_ratio"] == 1.0
    more = cutmix["mixing_cpu_ms"] - mixup["mixing_cpu_ms"]
    np.testing.assert_allclose(cutmix["step_ratio"], 1 + more / 200.0)
    lines = mixing.table([mixup, cutmix | {"step_ratio": 1.04}]).splitlines()
    assert lines[2].endswith("| 1.000 |") and lines[3].endswith("| 1.040 |")


def test_some_of_a_parts_cases(tiny, uncompiled, tmp_path, capsys):
    shrink(tiny, "cpu", count=1)
    found = run_suite(tmp_path / "bench.json", "--parts=methods", "--cases=cutm,3 passes")
    assert {row["case"] for row in found["rows"]} == {"mixup", "mixup (again)", "sem, 3 passes", "cutmix"}
    with pytest.raises(SystemExit):
        command.main(["--parts=methods", "--cases=puzle"])
    assert "no case of the parts methods has 'puzle' in its name" in capsys.readouterr().err


def test_without_a_gpu_its_suite_says_so():
    with pytest.raises(SystemExit, match="not measured"):
        command.main(["--suite=gpu"])


@pytest.mark.slow
def test_the_peers_agree_and_are_measured_to_the_end(tmp_path, monkeypatch):
    """The real nets of both sides: their losses are compared before anything is timed."""
    pytest.importorskip("torch")
    from experiments.speed import peers as bench_peers

    wrong = Setting("wide_resnet", 10, 2, batch=8, size=8, items=16)
    monkeypatch.setattr(settings, "CPU", (wrong, Setting("wide_resnet", 10, 1, batch=8, size=8, items=16)))
    ours = bench_peers.our_loss
    monkeypatch.setattr(bench_peers, "our_loss", lambda bench, *a, **o: ours(bench, *a, **o) + (bench.setting == wrong))
    monkeypatch.setattr(bench_peers, "keep_freed_memory", lambda: None)
    out = tmp_path / "peers.json"
    assert bench_peers.main(["--nets=", "--steps=1", "--blocks=1", f"--out={out}"]) == 1
    found = json.loads(out.read_text())
    assert {"jax", "torch", "device", "xla_flags"} <= set(found["environment"])
    left_out, setting = found["settings"]  # the first, whose losses differ, does not stop the second
    assert left_out["loss_difference"]["eager"] > 0.1 and not left_out["rows"]
    assert setting["loss_difference"]["eager"] <= 1e-5
    rows = {row["case"]: row for row in setting["rows"]}
    assert {"ours mixup", "ours sem", "eager mixup", "eager sem", "eager sem, 3 passes"} <= set(rows)
    assert all(row["step_ms"] > 0 and row["ours_faster_wall"] > 0 for row in rows.values())
