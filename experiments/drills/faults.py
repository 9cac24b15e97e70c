"""Kills a run, damages its checkpoints, reads them while they are written; counts what was lost. 0 is expected.

    python -m experiments.drills.faults --kills 100  # kill -9 at random moments, then started again
    python -m experiments.drills.faults --flips 20  # every file of a checkpoint deleted, emptied, cut, bytes flipped
    python -m experiments.drills.faults --reads 1000  # an evaluator reads while the trainer saves and deletes

A tiny net on the digits. Each start is a process of its own, forked from one that has imported the package and has
not yet touched a device: what is killed is the run, not Python's imports. Exit status 1 if anything was lost.
"""

import argparse
import collections
import hashlib
import importlib
import json
import logging
import os
import random
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sem_jax import config as config_lib
from sem_jax.errors import RunError
from sem_jax.interfaces import Outputs
from sem_jax.models import MODELS
from sem_jax.runs import opening as loading
from sem_jax.runs.checkpoint import Checkpoints, steps
from sem_jax.runs.state import TrainState
from sem_jax.training import loop

EPOCHS = 6
PHASES = ("prepare", "compile", "step", "save", "evaluate", "metric write")


class Tiny(nn.Module):
    """One convolution with BatchNorm: compiles in a moment."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        x = nn.Conv(4, (3, 3), strides=2, use_bias=False)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        features = x.mean(axis=(1, 2))
        return Outputs(features, nn.Dense(self.num_classes)(features))


def configure(cache: Path):
    """Mixup + SEM with ES, a checkpoint every epoch; a call is one step, as a kill is to find many of them."""
    for name in ("sklearn.datasets", "tensorboardX"):  # once here, not in every start
        importlib.import_module(name)
    MODELS["faults_tiny"] = lambda *, num_classes, **_: Tiny(num_classes)
    cfg = config_lib.get_default()
    cfg.model.name, cfg.model.dtype = "faults_tiny", "float32"
    cfg.data.name, cfg.data.crop_padding, cfg.data.flip, cfg.data.val_size = "digits", 1, False, 200
    cfg.train.epochs, cfg.train.batch_size, cfg.train.checkpoint_every, cfg.train.eval_every = EPOCHS, 128, 1, 1
    cfg.runtime.progress, cfg.runtime.steps_per_call, cfg.runtime.devices = False, 1, 1
    config_lib.apply_method(cfg, "mixup+es+sem")
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return cfg


def digest(tree) -> str:
    """SHA-256 over all leaves."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
        sha.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


def train(cfg, workdir: Path, tell: Callable[[str], None], plan: tuple[str, int, float] | None) -> None:
    """The run, in a process of its own: tells its phases, and kills itself as planned.

    Args:
      plan: (phase, n, delay): SIGKILL `delay` seconds after the phase is entered for the n-th time.
    """
    visits = collections.Counter()

    def die(delay: float) -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    def enter(phase: str) -> None:
        visits[phase] += 1
        tell(f"+{phase}")
        if plan and plan[:2] == (phase, visits[phase]):
            threading.Thread(target=die, args=(plan[2],), daemon=True).start()

    def watch(owner, name: str, phase: str, after: Callable = lambda *_: None) -> None:
        inner = getattr(owner, name)

        def outer(*args, **kwargs):
            enter(phase)
            value = inner(*args, **kwargs)
            after(*args)
            tell(f"-{phase}")
            return value

        setattr(owner, name, outer)

    def acknowledge(checkpoints, step, *_) -> None:
        if checkpoints._error is None:
            tell(f"saved {step}")

    watch(loop.Programs, "prepare", "compile")
    watch(loop.Programs, "run", "step")
    watch(loop.Checkpoints, "_write", "save", acknowledge)
    watch(loop.Programs, "evaluate", "evaluate")
    watch(loop.records.RunFolder, "append", "metric write")
    rewind = loop.records.RunFolder.rewind

    def prepared(folder, step):
        tell(f"from {step}")
        records = rewind(folder, step)
        tell("-prepare")
        return records

    loop.records.RunFolder.rewind = prepared
    loop.report.draw_curves = lambda *_, **__: None
    enter("prepare")
    state = loop.train_and_evaluate(cfg, str(workdir))
    tell(f"done {digest(state)}")


def start(cfg, workdir: Path, plan=None) -> tuple[int, list[tuple[float, str]]]:
    """Forks one start of the run; returns its exit status (-9 when killed) and what it told, with times."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        status = 1
        try:
            with open(workdir.parent / "log.txt", "a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            train(cfg, workdir, lambda text: os.write(write, f"{time.monotonic()} {text}\n".encode()), plan)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    with open(read) as pipe:
        told = [line.rstrip("\n").split(" ", 1) for line in pipe]
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, [(float(moment), text) for moment, text in told]


def open_phase(told: list[tuple[float, str]]) -> str:
    """The phase in which a process died: the last one entered and not left."""
    open_ = []
    for _, text in told:
        if text[0] == "+":
            open_.append(text[1:])
        elif text[0] == "-":
            open_.remove(text[1:])
    return open_[-1] if open_ else "between"


def durations(told) -> dict[str, float]:
    """Mean seconds of a visit, by phase."""
    entered, spent = {}, collections.defaultdict(list)
    for moment, text in told:
        if text[0] == "+":
            entered[text[1:]] = moment
        elif text[0] == "-":
            spent[text[1:]].append(moment - entered[text[1:]])
    return {phase: sum(values) / len(values) for phase, values in spent.items()}


def log_of(workdir: Path) -> list[dict]:
    """metrics.jsonl, every line of it read strictly, without the times."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "images_per_s")} for line in lines]


def kills(count: int, seed: int, out: Path) -> dict:
    """Kills starts of a run until `count` were killed; a run that got through is compared and another begun."""
    rng = random.Random(seed)
    cfg = configure(out / "cache")
    start(cfg, out / "warm")  # fills the cache of compiled programs
    status, told = start(cfg, out / "whole")
    if status:
        raise SystemExit(f"the run fails undisturbed: {(out / 'log.txt').read_text()[-2000:]}")
    whole, log, seconds = told[-1][1], log_of(out / "whole"), durations(told)
    result = collections.Counter(dict.fromkeys(["kills", "starts", "runs compared", "failed starts"], 0))
    lost = collections.Counter(
        dict.fromkeys(["acknowledged checkpoints lost", "final parameters differ", "metrics.jsonl differs"], 0)
    )
    phases = collections.Counter()
    number, acknowledged, workdir = 0, 0, out / "run0"
    while result["kills"] < count or acknowledged >= 0:
        finish = result["kills"] >= count  # the last run is let through, to be compared
        phase = rng.choice(PHASES)
        visit = 1 if phase in ("prepare", "compile") else rng.randint(1, 12 if phase == "step" else 3)
        plan = (phase, visit, rng.uniform(0, 1.2 * seconds[phase]))
        status, told = start(cfg, workdir, None if finish else plan)
        result["starts"] += 1
        begun = next((int(text.split()[1]) for _, text in told if text.startswith("from ")), None)
        if begun is not None and begun < acknowledged:
            lost["acknowledged checkpoints lost"] += 1
        acknowledged = max([acknowledged, *(int(text.split()[1]) for _, text in told if text.startswith("saved "))])
        if status == -signal.SIGKILL:
            result["kills"] += 1
            phases[open_phase(told)] += 1
            if result["kills"] % 10 == 0:
                print(f"{result['kills']} kills: {dict(phases)}; {dict(lost)}", flush=True)
        elif status:
            result["failed starts"] += 1
            print((out / "log.txt").read_text()[-2000:])
            break
        else:
            result["runs compared"] += 1
            lost["final parameters differ"] += told[-1][1] != whole
            lost["metrics.jsonl differs"] += log_of(workdir) != log
            shutil.rmtree(workdir)
            number, acknowledged = number + 1, -1 if finish else 0
            workdir = out / f"run{number}"
    return {**result, **lost, "by phase": dict(phases), "bad": sum(lost.values()) + result["failed starts"]}


def small_state(seed: int) -> TrainState:
    """A state of some arrays, so that every kind of file is there."""
    rng = np.random.default_rng(seed)
    params = {
        "a": jnp.asarray(rng.normal(size=(16, 8)), jnp.float32),
        "b": jnp.asarray(rng.normal(size=8), jnp.float32),
    }
    return TrainState(
        jnp.asarray(seed, jnp.int32), params, {"mean": params["b"] * 2}, (params["a"] * 3, params["b"] * 4)
    )


def faults_of(path: Path, flips: int, rng: random.Random):
    """(name, new contents or None) of every damage of one file."""
    data = path.read_bytes()
    yield "deleted", None
    if data:
        yield "emptied", b""
        yield "cut", data[: len(data) // 2]
        for _ in range(flips):
            at = rng.randrange(len(data))
            yield "flipped", data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def damage(flips: int, seed: int, out: Path) -> dict:
    """Every file of the latest of two checkpoints damaged in turn; what is restored has to be one of the two."""
    rng = random.Random(seed)
    wanted = {step: digest(small_state(step)[1:]) for step in (10, 20)}
    with Checkpoints(out / "good", keep=2, best=None) as checkpoints:
        for step in wanted:
            checkpoints.save(step, small_state(step), {"step": step})
    result = collections.Counter()
    names = [p.relative_to(out / "good") for p in sorted((out / "good/20").rglob("*")) if p.is_file()]
    for name in names:
        for kind, contents in faults_of(out / "good" / name, flips, rng):
            shutil.copytree(out / "good", out / "bad")
            (out / "bad" / name).unlink() if contents is None else (out / "bad" / name).write_bytes(contents)
            with Checkpoints(out / "bad", keep=2, best=None) as checkpoints:
                restored = checkpoints.restore(small_state(0))
                step = int(restored.state.step)
                right = digest(restored.state[1:]) == wanted[step] and restored.progress == {"step": step}
                result["bit-identical" if step == 20 else "fell back"] += right
                result["silently different"] += not right
                if step == 10:  # the run goes on: what it saves then has to be there
                    checkpoints.save(20, small_state(20), {"step": 20})
            result["not saved again"] += int(steps(out / "bad")[-1] != 20)
            result[kind] += 1
            shutil.rmtree(out / "bad")
    return {"files": len(names), **result, "bad": result["silently different"] + result["not saved again"]}


def reads(count: int, out: Path) -> dict:
    """Opens the final model `count` times while another process saves and deletes, some times a second."""
    cfg = configure(out / "cache")
    pid = os.fork()  # before this process touches a device
    if pid == 0:
        try:
            loop.report.draw_curves = lambda *_, **__: None
            loop.train_and_evaluate(cfg, str(out / "run"))
            with Checkpoints(out / "run/checkpoints", keep=2, best=None) as checkpoints:
                restored = checkpoints.restore(loop.Programs(cfg, loop.data_lib.load("digits")).initial_state())
                step = int(restored.state.step)
                while os.getppid() != 1:
                    step += 1
                    checkpoints.save(step, restored.state, {})
                    time.sleep(0.2)
        finally:
            os._exit(1)
    logging.disable()  # orbax is loud about files that are deleted while it reads
    try:
        while not (out / "run/result.json").exists():
            time.sleep(0.2)
        failures, seen, wanted = [], set(), None
        for _ in range(count):
            try:
                run = loading.open_run(out / "run")
                seen.add(run.step)
                wanted = wanted or digest(run.variables)
                if digest(run.variables) != wanted:
                    failures.append("different")
            except RunError as error:
                failures.append(str(error))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return {"reads": count, "failures": len(failures), "checkpoints seen": len(seen), "bad": len(failures)} | (
        {"first": failures[0]} if failures else {}
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0, help="kill -9 so often")
    parser.add_argument("--flips", type=int, default=0, help="flip so many bytes of each file of a checkpoint")
    parser.add_argument("--reads", type=int, default=0, help="read so often while checkpoints are written")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    bad = 0
    # The runs that fork come first: nothing may have touched a device before.
    for name, wanted, measure in (
        ("kills", args.kills, lambda out: kills(args.kills, args.seed, out)),
        ("reads", args.reads, lambda out: reads(args.reads, out)),
        ("damage", args.flips, lambda out: damage(args.flips, args.seed, out)),
    ):
        if wanted:
            with tempfile.TemporaryDirectory(prefix="sem_jax_faults_") as out:
                found = measure(Path(out))
            bad += found.pop("bad")
            print(f"{name}: {json.dumps(found)}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
