"""Kills a run, damages its checkpoints, reads them while they are written; counts what was lost. 0 is expected.

    python -m experiments.drills.faults --kills 100    # the command, kill -9 at random moments, then started again
    python -m experiments.drills.faults --flips 20     # every file of a checkpoint deleted, emptied, cut, bytes flipped
    python -m experiments.drills.faults --reads 1000   # an evaluator reads while the trainer saves and deletes

Exit status 1 if anything was lost.
"""

import collections
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.commands import parser
from experiments.drills import small_run
from experiments.drills.small_run import Plan
from sem_jax.config import apply_method, get_default, override
from sem_jax.errors import RunError
from sem_jax.runs.checkpoint import Checkpoints, steps
from sem_jax.runs.opening import open_run
from sem_jax.runs.state import TrainState
from sem_jax.training import loop


def kills(count: int, seed: int, out: Path) -> dict:
    """Kills the command until `count` starts were killed; a run that got through is compared and another begun."""
    rng, cache = random.Random(seed), out / "cache"
    small_run.start(out / "warm/run", cache)  # fills the cache of compiled programs
    undisturbed = small_run.start(out / "whole/run", cache)
    if undisturbed.status:
        raise SystemExit(f"the run fails undisturbed: {(out / 'whole/log.txt').read_text()[-2000:]}")
    whole = small_run.contents(out / "whole/run") | {"final parameters": open_run(out / "whole/run").fingerprint}
    result = collections.Counter(dict.fromkeys(["kills", "starts", "runs compared", "failed starts", "tracebacks"], 0))
    lost = collections.Counter(
        dict.fromkeys(["acknowledged checkpoints lost", *(f"{name} differ" for name in whole)], 0)
    )
    phases, number, saved = collections.Counter(), 0, 0
    while result["kills"] < count or (out / f"{number}/run").exists():  # the last run is let through, to be compared
        workdir = out / f"{number}/run"
        phase = rng.choice(small_run.PHASES)  # of a run that is past it nothing is killed
        plan = Plan(phase, rng.uniform(0, 1.05 * undisturbed.seconds[phase]), visit=rng.randint(1, 3))
        ended = small_run.start(workdir, cache, plan if result["kills"] < count else None)
        result["starts"] += 1
        result["tracebacks"] += "Traceback" in (log := (out / f"{number}/log.txt").read_text())
        lost["acknowledged checkpoints lost"] += ended.begun is not None and ended.begun < saved
        saved = ended.saved
        if ended.status == -signal.SIGKILL:
            result["kills"] += 1
            phases[ended.phase] += 1
            if result["kills"] % 10 == 0:
                print(f"{result['kills']} kills: {dict(phases)}; {dict(result)}; {dict(lost)}", flush=True)
        elif ended.status:
            result["failed starts"] += 1
            print(log[-2000:], flush=True)
            break
        else:
            result["runs compared"] += 1
            found = small_run.contents(workdir) | {"final parameters": open_run(workdir).fingerprint}
            for name, value in whole.items():
                lost[f"{name} differ"] += found[name] != value
            shutil.rmtree(workdir)
            number, saved = number + 1, 0
    wrong = sum(lost.values()) + result["failed starts"] + result["tracebacks"]
    return {**result, **lost, "by phase": dict(phases), "bad": wrong}


def digest(tree: Any) -> str:
    """SHA-256 over all leaves."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
        sha.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


def small_state(seed: int) -> TrainState:
    """A state of some arrays, so that every kind of file is there."""
    rng = np.random.default_rng(seed)
    a, b = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((16, 8), (8,)))
    return TrainState(jnp.asarray(seed, jnp.int32), {"a": a, "b": b}, {"mean": b * 2}, (a * 3, b * 4))


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
                state, progress, _ = checkpoints.restore(small_state(0)) or (small_state(0), {}, {})
                step = int(state.step)  # 0: nothing was restored
                right = digest(state[1:]) == wanted.get(step) and progress == {"step": step}
                result["bit-identical" if step == 20 else "fell back"] += right
                result["silently different"] += not right
                if step != 20:  # the run goes on: what it saves then has to be there
                    checkpoints.save(20, small_state(20), {"step": 20})
            result["not saved again"] += int(steps(out / "bad")[-1] != 20)
            result[kind] += 1
            shutil.rmtree(out / "bad")
    return {"files": len(names), **result, "bad": result["silently different"] + result["not saved again"]}


def reads(count: int, out: Path) -> dict:
    """Opens the final model `count` times while another process saves and deletes, some times a second."""
    cfg = apply_method(override(get_default(), small_run.FIELDS | {"data.name": "digits"}), "mixup+sem")
    cfg.model.name, cfg.model.depth = "wide_resnet", 10
    pid = os.fork()  # before this process touches a device
    if pid == 0:
        try:
            state = loop.train_and_evaluate(cfg, str(out / "run"))
            step = int(state.step)
            with Checkpoints(out / "run/checkpoints", keep=2, best=None) as checkpoints:
                while os.getppid() != 1:
                    step += 1
                    checkpoints.save(step, state, {})
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
                run = open_run(out / "run")
                seen.add(run.step)
                wanted = wanted or digest(run.variables)
                if digest(run.variables) != wanted:
                    failures.append("different")
            except RunError as error:
                failures.append(str(error))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    first = {"first": failures[0]} if failures else {}
    return {"reads": count, "failures": len(failures), "checkpoints seen": len(seen), "bad": len(failures)} | first


def main(argv: list[str] | None = None) -> int:
    options = parser("experiments.drills.faults", __doc__)
    options.add_argument("--kills", type=int, default=0, help="kill -9 so often")
    options.add_argument("--flips", type=int, default=0, help="flip so many bytes of each file of a checkpoint")
    options.add_argument("--reads", type=int, default=0, help="read so often while checkpoints are written")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args(argv)
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
    sys.exit(main())
