"""What recipes need beside the method: a run that ends in time, clipping, averages; each off by default."""

import time

from sem_jax.runs.checkpoint import steps
from sem_jax.system.signals import TIME_IS_UP, Interrupted, StopRequest
from sem_jax.training import loop
from tests.helpers.training import assert_equal, configure, records, run, tiny_backbone  # noqa: F401


def test_a_run_ends_when_its_time_is_up_and_the_same_command_continues(tmp_path, capsys):
    """Each start makes one call at least; a run whose last epoch is done by then writes its result."""
    changes = {"runtime__steps_per_call": 2, "optim__clip_norm": 0.01}
    whole = run(tmp_path, "whole", **changes)
    seen = []
    for _ in range(9):
        try:
            done = loop.train_and_evaluate(configure(**changes), str(tmp_path / "parts"), deadline=time.monotonic())
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
