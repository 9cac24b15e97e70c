"""Killed, signalled, fed NaN, started twice: nothing acknowledged is lost and nothing wrong is believed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.errors import RunError, SemError
from sem_jax.runs.checkpoint import steps
from sem_jax.runs.records import RunFolder, read_metrics
from sem_jax.system.signals import Interrupted, StopRequest
from sem_jax.training import assemble, loop
from tests.helpers.training import (  # noqa: F401
    DRAW_CURVES,
    ROOT,
    assert_equal,
    configure,
    records,
    run,
    tiny_backbone,
    use_tiny,
)


def faults(*options, limit=120):
    command = [sys.executable, "-m", "experiments.drills.faults", *options]
    env = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line.split(": ", 1)[1]) for line in done.stdout.splitlines() if line[:6] in ("kills:", "reads:")]


@pytest.mark.slow
def test_five_kills_of_the_command_lose_nothing():
    """The experiment's own counts; its exit status is 1 if one of them is not 0."""
    (kills,) = faults("--kills=5", limit=600)
    assert kills["kills"] == 5 and kills["runs compared"] >= 1
    assert kills["acknowledged checkpoints lost"] == kills["final parameters differ"] == kills["report differ"] == 0


@pytest.mark.slow
def test_thirty_reads_of_a_run_that_saves_and_deletes():
    (reads,) = faults("--reads=30")
    assert reads["reads"] == 30 and reads["failures"] == 0 and reads["checkpoints seen"] > 1


@pytest.mark.slow
def test_a_hundred_kills_a_thousand_reads_and_twenty_flips_of_every_file():
    faults("--kills=100", "--reads=1000", "--flips=20", limit=3600)


class StopAt(StopRequest):
    """Is told to stop after so many calls."""

    calls, asked = 1, 0

    @property
    def signal(self):
        self.asked += 1
        return signal.SIGTERM if self.asked >= self.calls else 0

    @signal.setter
    def signal(self, _):
        pass


@pytest.mark.parametrize("steps_per_call", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_resumed_after_every_call_of_two_epochs_it_is_the_run_in_one_go(tmp_path, monkeypatch, steps_per_call):
    """Stopped within an epoch, at its end and at the switch of ES; equal to the last bit."""
    changes = {"method": "mixup+es+sem", "runtime__steps_per_call": steps_per_call, "mixer__stop_epoch": 1}
    ends = [3, 5, 8, 10] if steps_per_call == 3 else list(range(1, 11))  # an epoch has five steps
    whole = run(tmp_path, "whole", **changes)
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", StopAt)
        for _ in ends:
            with pytest.raises(Interrupted) as stopped:
                run(tmp_path, "parts", **changes)
            assert stopped.value.code == 143
            seen.append(steps(tmp_path / "parts/checkpoints")[-1])
        assert not (tmp_path / "parts/result.json").exists()
        with pytest.raises(Interrupted):  # while the result is written
            run(tmp_path, "parts", **changes)
    assert seen == ends and (tmp_path / "parts/result.json").exists()
    state = run(tmp_path, "parts", **changes)
    assert int(state.step) == 10
    assert_equal(state, whole)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")


@pytest.mark.slow
def test_on_fewer_devices_the_same_leaves_come_back_and_the_next_loss(tmp_path, monkeypatch):
    """8 -> 4 -> 1 devices: what is restored is what was saved; the loss of the next step differs by rounding alone."""
    restored = {}
    restore = loop.Checkpoints.restore

    def remember(self, like):
        value = restore(self, like)
        if value:  # a copy: the state is donated to the next step
            restored["leaves"] = jax.device_get(value.state)
            restored["devices"] = {len(x.sharding.device_set) for x in jax.tree.leaves(value.state)}
        return value

    monkeypatch.setattr(loop.Checkpoints, "restore", remember)
    changes = {"runtime__steps_per_call": 1, "train__epochs": 1}

    def stop_after(calls, name, devices):
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(StopAt, "calls", calls)
            patch.setattr(loop, "StopRequest", StopAt)
            run(tmp_path, name, runtime__devices=devices, **changes)
        folder = tmp_path / name / "checkpoints"
        latest = json.loads((folder / str(steps(folder)[-1]) / "manifest.json").read_text())
        return latest["progress"]["sums"]["means"]["loss"]

    stop_after(2, "run", 8)
    for devices in (4, 1):
        shutil.copytree(tmp_path / "run", tmp_path / f"same{devices}")
        losses, leaves = [], []
        for name, count in ((f"same{devices}", 8), ("run", devices)):
            losses.append(stop_after(1, name, count))
            leaves.append(restored["leaves"])
            assert restored["devices"] == {count}
        assert_equal(*leaves)
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def inject(monkeypatch, where, at_step, value):
    """Puts NaN or infinity into one quantity of one step of every run from here on."""
    make = assemble.mixing_steps

    def mixing_steps(*arguments, **options):
        (step,) = make(*arguments, **options)

        def injected(state, batch, key, take=None):
            bad = jnp.where((state.step == at_step) | (at_step is None), value, 0.0)
            if where == "batch":
                batch = batch._replace(images=batch.images.at[0, 0, 0, 0].add(bad))
            new, metrics = step(state, batch, key, take)
            return new, metrics

        return (injected,)

    monkeypatch.setattr(assemble, "mixing_steps", mixing_steps)
    if where == "gradient":
        grad = jax.grad

        def bad_grad(function, **options):
            compute = grad(function, **options)

            def outer(params):
                gradient, aux = compute(params)
                # There is no step number in here: the bias moves from 0 with the first update.
                moved = jnp.abs(params["Dense_0"]["bias"]).sum() > 0
                return jax.tree.map(lambda g: g + jnp.where(moved, value, 0.0), gradient), aux

            return outer

        monkeypatch.setattr(jax, "grad", bad_grad)


@pytest.mark.parametrize(
    ("where", "step", "named", "value"),
    [
        ("batch", 6, "BatchNorm statistics", np.nan),
        ("gradient", 1, "gradient", np.inf),
        pytest.param("batch", 6, "BatchNorm statistics", np.inf, marks=pytest.mark.slow),
        pytest.param("gradient", 1, "gradient", np.nan, marks=pytest.mark.slow),
    ],
)
def test_what_is_not_finite_is_named_with_its_step_and_no_checkpoint_is_lost(
    tmp_path, monkeypatch, where, step, named, value
):
    inject(monkeypatch, where, step, value)
    with pytest.raises(RunError, match=rf"^Not finite at step {step} \(epoch {1 + step // 5}\): .*{named}") as caught:
        run(tmp_path)
    assert len(str(caught.value).splitlines()) <= 3
    # The epoch before was saved, and nothing of the bad one.
    assert steps(tmp_path / "run/checkpoints") == ([5] if step > 5 else [])
    monkeypatch.undo()
    use_tiny(monkeypatch)
    if step > 5:
        assert int(run(tmp_path).step) == 10


def test_a_bad_step_is_skipped_when_asked(tmp_path, monkeypatch):
    inject(monkeypatch, "batch", 6, np.nan)
    state = run(tmp_path, train__on_nan="skip")
    assert int(state.step) == 10 and all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(state)))
    log = read_metrics(tmp_path / "run")
    assert "skipped_steps" not in log[0] and log[1]["skipped_steps"] == 1
    assert steps(tmp_path / "run/checkpoints") == [5, 10]


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_a_score_that_is_not_finite_stops_or_is_null_and_never_the_best(tmp_path, monkeypatch, on_nan):
    evaluate = loop.Programs.evaluate
    found = iter([0.5, float("nan"), 0.25, 0.125])

    def bad(self, state, split):
        scores = evaluate(self, state, split)
        return scores | {"val_accuracy": next(found)} if split == "val" else scores

    monkeypatch.setattr(loop.Programs, "evaluate", bad)
    changes = {"data__val_size": 200, "train__epochs": 4, "train__keep": 1, "train__on_nan": on_nan}
    if on_nan == "stop":
        with pytest.raises(RunError, match="^Not finite at step 8: val_accuracy"):
            run(tmp_path, **changes)
        assert steps(tmp_path / "run/checkpoints") == [4]
        return
    run(tmp_path, **changes)
    assert [r["val_accuracy"] for r in read_metrics(tmp_path / "run")] == [0.5, None, 0.25, 0.125]
    assert steps(tmp_path / "run/checkpoints") == [4, 16]
    assert json.loads((tmp_path / "run/result.json").read_text())["best_val"]["step"] == 4


@pytest.mark.parametrize("every_step", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_run_that_learned_nothing_ends_in_one_message_at_every_start(tmp_path, monkeypatch, every_step):
    changes = {"train__on_nan": "skip", "train__epochs": 1}
    if every_step:
        inject(monkeypatch, "batch", None, np.nan)
    else:  # what was learned has no score
        evaluate = loop.Programs.evaluate
        bad = {"test_nll": float("nan")}
        monkeypatch.setattr(loop.Programs, "evaluate", lambda *args: evaluate(*args) | bad)
    message = "nothing was learned; 5 of 5 steps" if every_step else "test_nll not finite; 0 of 5 steps"
    for _ in range(2):
        with pytest.raises(RunError, match=message) as caught:
            run(tmp_path, **changes)
        assert len(str(caught.value).splitlines()) == 2
        result = json.loads((tmp_path / "run/result.json").read_text())
        assert (result["test_nll"] is None) == (not every_step) and result["skipped_steps"] == 5 * every_step


@pytest.mark.parametrize(
    "changes",
    [
        {"model__name": "convnext", "model__patch_size": 4},
        {"model__name": "vit", "model__patch_size": 3},
        {"mixer__name": "attentive_cutmix", "mixer__scorer": "nowhere"},
        {"train__batch_size": 5000},
        {"model__num_classes": 7},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_the_run_folder_is_made(tmp_path, changes):
    with pytest.raises(SemError) as caught:
        run(tmp_path, **changes)
    assert len(str(caught.value).splitlines()) <= 3 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "to"), [(".lock", "file"), ("checkpoints", "folder"), ("tensorboard", "folder")])
def test_a_run_writes_through_no_link_and_a_file_for_a_folder_is_one_message(tmp_path, name, to):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "run").mkdir()
    place = tmp_path / "run" / name
    place.symlink_to(tmp_path / to) if to else place.write_text("")
    with pytest.raises(RunError, match=name) as caught:
        run(tmp_path)
    assert len(str(caught.value).splitlines()) <= 3
    assert (tmp_path / "file").read_text() == "kept" and not list((tmp_path / "folder").iterdir())


@pytest.mark.slow
def test_a_log_that_was_doubled_or_lost_is_noticed_and_a_renamed_checkpoint_not_believed(tmp_path, monkeypatch, capsys):
    changes = {"train__epochs": 3}
    whole = run(tmp_path, "whole", **changes)
    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(StopAt, "calls", 2)
        patch.setattr(loop, "StopRequest", StopAt)
        run(tmp_path, **changes, runtime__steps_per_call=5)
    shutil.copytree(folder, tmp_path / "lost")
    shutil.copytree(folder, tmp_path / "renamed")
    log = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(log + log)
    assert_equal(run(tmp_path, **changes), whole)
    assert records(folder) == records(tmp_path / "whole")
    (tmp_path / "lost/metrics.jsonl").unlink()
    (tmp_path / "lost/.config.json.99999999").write_text("")  # left by a process that was killed
    assert_equal(run(tmp_path, "lost", **changes), whole)
    assert "metrics.jsonl lacks 1 of the 1 epochs" in capsys.readouterr().out
    assert not list((tmp_path / "lost").glob(".config*"))
    (tmp_path / "renamed/checkpoints/5").rename(tmp_path / "renamed/checkpoints/15")
    with pytest.raises(RunError, match=r"the latest \(15\): it is the checkpoint of step 5"):
        run(tmp_path, "renamed", **changes)


def test_a_finished_run_gets_the_curves_that_it_was_killed_before(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.curves, "draw_curves", DRAW_CURVES)
    run(tmp_path, train__epochs=1)
    path = tmp_path / "run/curves.png"
    whole = path.read_bytes()
    path.unlink()
    (tmp_path / "run/result.json").write_text("{}")  # damaged: written again
    run(tmp_path, train__epochs=1)
    assert path.read_bytes() == whole
    assert "test_accuracy" in json.loads((tmp_path / "run/result.json").read_text())


def test_a_second_process_on_a_run_folder_is_refused_until_the_first_is_dead(tmp_path):
    holder = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {str(ROOT)!r})
        from sem_jax.runs.records import RunFolder
        with RunFolder({str(tmp_path / "run")!r}):
            print("held", flush=True)
            time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"is in use: process {process.pid} on .* is training there"):
            run(tmp_path)
        process.kill()
    with RunFolder(tmp_path / "run"):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_acts_at_once(number):
    code = textwrap.dedent(
        """
        import os, signal, sys, time
        from sem_jax.system.signals import StopRequest
        number = int(sys.argv[1])
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        with StopRequest() as stop:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            print("noted", stop.signal, flush=True)
            os.kill(os.getpid(), number)
            time.sleep(60)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(number)], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert f"noted {int(number)}" in done.stdout
    assert done.returncode == -number


def test_an_interrupt_before_training_ends_at_once_and_without_a_traceback():
    code = """
import os, signal, time
from sem_jax.system.signals import StopRequest, end_at_interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
end_at_interrupt()
with StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    print("noted", stop.signal, flush=True)
os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 130 and "noted 2" in done.stdout and not done.stderr


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="Cannot write the run folder .*Not a directory") as caught:
        run(tmp_path / "file")
    assert len(str(caught.value).splitlines()) <= 3
    with pytest.raises(RunError, match="cannot be read: File name too long"):
        run(tmp_path / ("x" * 300))


def test_a_disk_that_fills_while_logging_ends_in_one_message_and_the_run_continues_later(tmp_path, monkeypatch):
    append = RunFolder.append

    def full(self, record):
        if record["epoch"] == 2:
            raise OSError(28, "No space left on device", str(self.path / "metrics.jsonl"))
        append(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", full)
        with pytest.raises(RunError, match=r"No space left on device \(.*metrics.jsonl\)"):
            run(tmp_path)
    assert steps(tmp_path / "run/checkpoints") == [5]
    assert int(run(tmp_path).step) == 10
    assert [r["epoch"] for r in read_metrics(tmp_path / "run")] == [1, 2]


def test_a_torn_last_line_is_dropped_and_a_damaged_one_before_it_refused(tmp_path):
    folder = tmp_path / "run"
    with RunFolder(folder) as run_folder:
        run_folder.rewind(0)
        for epoch in (1, 2):
            run_folder.append({"step": 5 * epoch, "epoch": epoch})
    path = folder / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 15, "ep')
    assert [r["epoch"] for r in read_metrics(folder)] == [1, 2]
    with RunFolder(folder) as run_folder:
        run_folder.rewind(10)
    assert path.read_text() == whole
    path.write_text("}" + whole)
    with pytest.raises(RunError, match="metrics.jsonl, line 1 is damaged"):
        read_metrics(folder)


def test_settings_saved_by_an_older_version_may_lack_new_fields(tmp_path):
    run(tmp_path, train__epochs=1)
    path = tmp_path / "run/config.json"
    values = json.loads(path.read_text())
    del values["model"]["stem"]
    path.write_text(json.dumps(values))
    run(tmp_path, train__epochs=1)
    assert configure().model.stem == json.loads(path.read_text())["model"]["stem"]
