"""Run folders with something wrong in them, as a trainer that starts there meets them.

A row makes the folder below `home` and returns the call, and the word of its refusal or a check of what it returns.
"""

import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from sem_jax.runs.checkpoint import Checkpoints, steps
from sem_jax.runs.manifest import _digest
from sem_jax.runs.records import RunFolder, read_metrics, write_json
from sem_jax.runs.state import TrainState

ABOUT = {"seed": 0, "data": "f" * 64, "config": {"objective": {"gamma": 0.5}}}
FACTS = {"name": "digits", "fingerprint": ABOUT["data"]}


def state(seed: int) -> TrainState:
    """A state of some arrays, so that every kind of file is there."""
    rng = np.random.default_rng(seed)
    a, b = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((16, 8), (8,)))
    return TrainState(jnp.asarray(seed, jnp.int32), {"a": a, "b": b}, {"mean": b * 2}, (a * 3, b * 4))


def write(folder: Path, *, about: dict | None = None, saved=(10, 20)) -> Path:
    """A run that was stopped after its second epoch of ten steps."""
    with RunFolder(folder) as run, Checkpoints(run.checkpoints, keep=9, best=None, about=about or ABOUT) as checkpoints:
        run.claim(ABOUT["config"], FACTS)
        run.rewind(0)
        for step in saved:
            run.append({"step": step, "epoch": step // 10, "loss": 1.0})
            checkpoints.save(step, state(step), {})
    return folder


def start(folder: Path):
    """What the trainer does first; returns (step, log)."""

    def call():
        with RunFolder(folder) as run:
            run.claim(ABOUT["config"], FACTS)
            with Checkpoints(run.checkpoints, keep=9, best=None, about=ABOUT) as checkpoints:
                restored = checkpoints.restore(state(0))
                step = int(restored.state.step) if restored else 0
                return step, [line["step"] for line in run.rewind(step, every=10)]

    return call


def goes_on_from(step: int, log: list[int], *also):
    def check(found):
        assert found == (step, log), found
        assert all(holds() for holds in also)

    return check


def renamed_checkpoint(home):
    (write(home) / "checkpoints/20").rename(home / "checkpoints/30")
    return start(home), goes_on_from(10, [10], lambda: steps(home / "checkpoints") == [10])


def renamed_checkpoint_and_no_other(home):
    (write(home, saved=(20,)) / "checkpoints/20").rename(home / "checkpoints/30")
    return start(home), "it is the checkpoint of step 20"


def checkpoints_of_another_seed(home):
    return start(write(home, about=ABOUT | {"seed": 1})), "seed"


def checkpoints_on_other_data(home):
    return start(write(home, about=ABOUT | {"data": "e" * 64})), "data"


def checkpoints_of_another_configuration(home):
    return start(write(home, about=ABOUT | {"config": {"objective": {"gamma": 0.25}}})), "objective.gamma"


def files_and_links_named_as_unfinished_saves(home):
    other = home.parent / f"{home.name}-other"
    other.mkdir()
    (other / "kept").write_text("")
    (write(home) / "checkpoints/.saving-5").write_text("")
    (home / "checkpoints/.deleting-5").symlink_to(other)
    swept = lambda: not list(home.glob("checkpoints/.*"))  # noqa: E731
    return start(home), goes_on_from(20, [10, 20], swept, (other / "kept").exists)


def manifest_with_a_number_beyond_floats(home):
    path = write(home) / "checkpoints/20/manifest.json"
    path.write_text(path.read_text().replace('"step": 20', '"step": 1e999'))
    return start(home), goes_on_from(10, [10], (home / "checkpoints/damaged/20").is_dir)


def manifest_of_a_step_beyond_integers(home):
    path = write(home) / "checkpoints/20/manifest.json"
    values = json.loads(path.read_text()) | {"step": 1 << 40}
    values.pop("sha256")
    path.write_text(json.dumps(values | {"sha256": _digest(values)}))
    path.parent.rename(path.parent.with_name(str(1 << 40)))
    return start(home), goes_on_from(10, [10])


def settings_of_another_run(home):
    """The end of mixing follows the length, and is not named."""
    settings = [{"train": {"epochs": n}, "mixer": {"stop_epoch": n}} for n in (2, 1)]
    RunFolder(home).claim(settings[0], FACTS)
    there = "(train.epochs: 2 there, 1 now).\nTo continue it, give the settings that are there."
    return lambda: RunFolder(home).claim(settings[1], FACTS), there


def file_named_damaged(home):
    (write(home) / "checkpoints/damaged").write_text("mine")
    (home / "checkpoints/20/manifest.json").write_text("")
    kept = lambda: (home / "checkpoints/damaged").read_text() == "mine"  # noqa: E731
    return start(home), goes_on_from(10, [10], kept, (home / "checkpoints/damaged-1/20").is_dir)


def file_named_as_a_checkpoint(home):
    (write(home) / "checkpoints/30").write_text("")
    return start(home), goes_on_from(20, [10, 20])


def _link(home, name):
    other = home.parent / f"{home.name}-other"
    write(other)
    home.mkdir()
    (home / name).symlink_to(other / name)
    return start(home), name


def lock_is_a_link(home):
    return _link(home, ".lock")


def checkpoints_are_a_link(home):
    return _link(home, "checkpoints")


def tensorboard_is_a_link(home):
    return _link(home, "tensorboard")


def earlier_results_are_a_link(home):
    return _link(home, "earlier")


def profile_is_a_link(home):
    return _link(home, "profile")


def log_doubled(home):
    path = write(home) / "metrics.jsonl"
    path.write_text(path.read_text() * 2)
    return start(home), goes_on_from(20, [10, 20], lambda: len(read_metrics(home)) == 2)


def log_lost(home):
    (write(home) / "metrics.jsonl").unlink()
    return start(home), goes_on_from(20, [])


def log_of_other_steps(home):
    path = write(home) / "metrics.jsonl"
    path.write_text('{"step": 7}\n{"step": -10}\n' + path.read_text())
    return start(home), goes_on_from(20, [10, 20])


def log_with_text_for_a_number(home):
    path = write(home) / "metrics.jsonl"
    path.write_text('{"step": 10, "loss": "\\u001b[2J"}\n' + path.read_text())
    return start(home), "loss is no number"


def leftovers_of_a_killed_process(home):
    names = [home / ".config.json.99999999", home / ".data.json.99999999-0a1b2c3d"]
    names += [home / f"evaluation/.eval.html.{os.getpid()}"]
    write(home)
    (home / "evaluation").mkdir()
    for path in names:
        path.write_text("half")
    return start(home), goes_on_from(20, [10, 20], lambda: not any(path.exists() for path in names))


def link_named_as_a_temporary_file(home):
    target = home.parent / f"{home.name}-target"
    target.write_text("kept")
    (write(home) / f".other.json.{os.getpid()}").symlink_to(target)
    return lambda: write_json(home / "other.json", 1), lambda _: _equal(target.read_text(), "kept")


def result_that_is_no_json(home):
    (write(home) / "result.json").write_text("{")
    return RunFolder(home).result, lambda found: _equal(found, None)


def data_json_that_is_a_list(home):
    (write(home) / "data.json").write_text("[]")
    return start(home), "fingerprint"


def _equal(found, expected):
    assert found == expected, found


STARTS = [
    renamed_checkpoint,
    renamed_checkpoint_and_no_other,
    checkpoints_of_another_seed,
    checkpoints_on_other_data,
    checkpoints_of_another_configuration,
    files_and_links_named_as_unfinished_saves,
    manifest_with_a_number_beyond_floats,
    manifest_of_a_step_beyond_integers,
    settings_of_another_run,
    file_named_damaged,
    file_named_as_a_checkpoint,
    lock_is_a_link,
    checkpoints_are_a_link,
    tensorboard_is_a_link,
    earlier_results_are_a_link,
    profile_is_a_link,
    log_doubled,
    log_lost,
    log_of_other_steps,
    log_with_text_for_a_number,
    leftovers_of_a_killed_process,
    link_named_as_a_temporary_file,
    result_that_is_no_json,
    data_json_that_is_a_list,
]
