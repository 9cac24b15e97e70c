"""What recipes need beside the method: a run that ends in time, clipping, averages; each off by default."""

import json
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sem_jax.errors import RunError
from sem_jax.runs import extension
from sem_jax.runs.checkpoint import steps
from sem_jax.runs.layout import items_of, state_of
from sem_jax.runs.opening import open_run
from sem_jax.runs.records import write_json
from sem_jax.runs.state import TrainState
from sem_jax.system.signals import TIME_IS_UP, Interrupted, StopRequest
from sem_jax.training.averages import Average, averaged, params_of, start, variables_of, warmed_up, with_averages
from tests.helpers.training import assert_equal, records, run, tiny_backbone  # noqa: F401


def test_a_run_ends_when_its_time_is_up_and_the_same_command_continues(tmp_path, capsys):
    """Each start makes one call at least; a run whose last epoch is done by then writes its result."""
    changes = {"runtime__steps_per_call": 2, "optim__clip_norm": 0.01}
    whole = run(tmp_path, "whole", **changes)
    seen = []
    for _ in range(9):
        try:
            done = run(tmp_path, "parts", deadline=time.monotonic(), **changes)
        except Interrupted as stopped:
            assert stopped.code == 142
            seen.append(steps(tmp_path / "parts/checkpoints")[-1])
        else:
            break
    assert seen == [2, 4, 5, 7, 9] and "The time is up. Saved step 9" in capsys.readouterr().out
    assert_equal(done, whole)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    assert (tmp_path / "parts/result.json").exists()
    assert records(tmp_path / "parts")[0]["grad_norm"] > 0.02  # the norm before it is clipped to 0.01


def test_a_signal_goes_before_the_end_of_the_time():
    stop = StopRequest(deadline=time.monotonic() + 60)
    assert stop.reason == 0
    stop.deadline = time.monotonic() - 1
    assert stop.reason == TIME_IS_UP
    stop.signal = 15
    assert stop.reason == 15 and StopRequest().reason == 0


def test_averages_against_float64():
    """A teacher's of constant rate, and one whose decay warms up; a step that is not finite moves neither."""
    values, finite = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32), np.arange(40) != 7

    def train_step(state, batch, key, take=None):
        del key, take
        new = state._replace(step=state.step + 1, params={"w": batch["w"]}, batch_stats={"m": -batch["w"]})
        return new, {"finite": batch["finite"]}

    averages = {"teacher": Average(params_of, 1.0 - 0.9), "ema": Average(variables_of, warmed_up(0.75))}
    state = start(averages, TrainState(jnp.zeros((), jnp.int32), {"w": jnp.ones(3)}, {"m": -jnp.ones(3)}, ()))
    step = with_averages(train_step, averages)
    teacher, ema, seen = np.ones(3), np.ones(3), []
    for t, (value, good) in enumerate(zip(values, finite, strict=True), start=1):
        state, _ = step(state, {"w": jnp.asarray(value), "finite": jnp.float32(good)}, None)
        if good:
            decay = min(0.75, (1 + t) / (10 + t))
            teacher, ema = 0.9 * teacher + 0.1 * value, decay * ema + (1 - decay) * np.float64(value)
            seen.append(decay)
    np.testing.assert_allclose(state.averages["teacher"]["w"], teacher, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(averaged(state).params["w"], ema, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(averaged(state).batch_stats["m"], -ema, rtol=1e-5, atol=1e-6)
    assert seen[0] == 2 / 11 and seen[-1] == 0.75 and with_averages(train_step, {}) is train_step

    items = items_of(state)  # as version 0.1.0 wrote a teacher, so that its checkpoints are read, and an item more
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(items)]
    stored = ["['ema']['batch_stats']['m']", "['ema']['params']['w']", "['trainer']['opt_state'].teacher['w']"]
    assert [name for name in names if "model" not in name] == stored
    assert_equal(state_of(state.step, items), state)


def test_averaged_weights_are_scored_saved_and_resumed_and_change_nothing_else(tmp_path, capsys):
    """Beside a teacher's average, with a stop in the middle of the second epoch."""
    changes = {"objective__clean_features": "ema_teacher", "runtime__steps_per_call": 3, "data__val_size": 100}
    plain = run(tmp_path, "plain", **changes)
    with pytest.raises(RunError, match="has no averaged weights\nTrain with optim.ema_decay"):
        open_run(tmp_path / "plain", "ema")
    changes |= {"optim__ema_decay": 0.5}
    whole = run(tmp_path, "whole", **changes)
    assert_equal(plain, whole._replace(averages={"teacher": whole.averages["teacher"]}))
    for _ in range(4):
        with pytest.raises(Interrupted):
            run(tmp_path, "parts", deadline=time.monotonic(), **changes)
        if steps(tmp_path / "parts/checkpoints")[-1] == 8:
            break
    assert_equal(run(tmp_path, "parts", **changes), whole)
    log, result = records(tmp_path / "whole"), json.loads((tmp_path / "whole/result.json").read_text())
    assert log == records(tmp_path / "parts")
    assert [{k: v for k, v in r.items() if not k.startswith("ema_")} for r in log] == records(tmp_path / "plain")
    assert {"ema_val_accuracy", "ema_val_nll"} <= log[0].keys() and log[0]["ema_val_nll"] != log[0]["val_nll"]
    assert result["ema_test_nll"] != result["test_nll"] and "Averaged weights: test accuracy" in capsys.readouterr().out
    final, ema = (open_run(tmp_path / "whole", which) for which in ("final", "ema"))
    assert_equal(final.variables, {"params": whole.params, "batch_stats": whole.batch_stats})
    assert_equal(ema.variables, whole.averages["ema"])
    assert (ema.checkpoint, ema.step) == ("ema", final.step) and ema.fingerprint != final.fingerprint


def test_a_run_is_extended_and_stays_one_that_resumes(tmp_path, capsys):
    base, longer = {"method": "mixup+es+sem", "train__epochs": 2}, {"method": "mixup+es+sem", "train__epochs": 4}
    run(tmp_path, "run", **base)
    folder = tmp_path / "run"
    (folder / "evaluation").mkdir()
    before = json.loads((folder / "result.json").read_text())
    with pytest.raises(RunError, match=r"train.epochs: 2 there, 4 now\).\nTo train that run on, add --extend"):
        run(tmp_path, "run", **longer)
    with pytest.raises(RunError, match="gamma") as refused:
        run(tmp_path, "run", objective__gamma=0.5, extend=True, **longer)
    assert "--extend" not in str(refused.value)
    for name in ("parts", "killed"):
        shutil.copytree(folder, tmp_path / name)
    capsys.readouterr()
    whole = run(tmp_path, "run", extend=True, **longer)
    said = capsys.readouterr().out
    assert "Extended from 2 to 4 epochs" in said and "Mixing ends after epoch 3 (before: 1)." in said
    assert int(whole.step) == 20 and records(folder)[:2] == records(tmp_path / "parts")
    assert [record["mixing"] for record in records(folder)] == [True, False, True, False]
    entry = {"epochs": 2, "stop_epoch": 1, "step": 10}
    assert json.loads((folder / "lengths.json").read_text()) == [entry]
    result = json.loads((folder / "result.json").read_text())
    assert result["epochs"] == 4 and result["earlier_lengths"] == [entry]
    assert json.loads((folder / "earlier/2_epochs/result.json").read_text()) == before
    assert (folder / "earlier/2_epochs/evaluation").is_dir() and not (folder / "evaluation").exists()

    with pytest.raises(Interrupted):
        run(tmp_path, "parts", extend=True, deadline=time.monotonic(), **longer)
    assert_equal(run(tmp_path, "parts", **longer), whole)  # --extend is not needed again, and does no harm
    assert records(tmp_path / "parts") == records(folder)
    extension.extend(tmp_path / "killed", {"train.epochs": 2, "mixer.stop_epoch": 1}, write_json)  # and then a kill
    assert_equal(run(tmp_path, "killed", extend=True, **longer), whole)
    assert json.loads((tmp_path / "killed/lengths.json").read_text()) == [entry]
    assert (tmp_path / "killed/earlier/2_epochs/result.json").exists()

    assert open_run(folder).step == 20 and open_run(folder, 15).step == 15
    with pytest.raises(RunError, match="train.epochs: 4 there, 2 now"):
        run(tmp_path, "run", extend=True, **base)
    (folder / "lengths.json").write_text('[{"epochs": "2"}]')
    with pytest.raises(RunError, match="lengths.json is not as a run writes it"):
        open_run(folder)


def test_an_unfinished_run_is_extended_from_its_checkpoint_of_another_length(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, deadline=time.monotonic(), runtime__steps_per_call=3)
    assert open_run(tmp_path / "run").step == 3
    run(tmp_path, extend=True, train__epochs=3)
    assert json.loads((tmp_path / "run/lengths.json").read_text()) == [{"epochs": 2, "stop_epoch": 2, "step": 3}]
    assert not (tmp_path / "run/earlier").exists() and not (tmp_path / "run/checkpoints/damaged").exists()
