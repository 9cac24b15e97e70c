"""Kills a run, damages its checkpoints, reads them while they are written; counts what was lost. 0 is expected.

    python -m experiments.drills.faults --kills 100    # kill -9 at random moments, then started again
    python -m experiments.drills.faults --flips 20     # every file of a checkpoint deleted, emptied, cut, bytes flipped
    python -m experiments.drills.faults --reads 1000   # an evaluator reads while the trainer saves and deletes

Exit status 1 if anything was lost.
"""

import collections
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

import jax.numpy as jnp
import numpy as np

from experiments.commands import parser
from experiments.drills import small_run
from experiments.drills.small_run import PHASES, digest, log_of, start
from sem_jax.errors import RunError
from sem_jax.runs.checkpoint import Checkpoints, steps
from sem_jax.runs.opening import open_run
from sem_jax.runs.state import TrainState
from sem_jax.training import loop


def kills(count: int, seed: int, out: Path) -> dict:
    """Kills starts of a run until `count` were killed; a run that got through is compared and another begun."""
    rng = random.Random(seed)
    cfg = small_run.configure(out / "cache")
    start(cfg, out / "warm")  # fills the cache of compiled programs
    status, told = start(cfg, out / "whole")
    if status:
        raise SystemExit(f"the run fails undisturbed: {(out / 'log.txt').read_text()[-2000:]}")
    whole, log, seconds = told[-1][1], log_of(out / "whole"), small_run.durations(told)
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
        lost["acknowledged checkpoints lost"] += any(step < acknowledged for step in small_run.numbers(told, "from"))
        acknowledged = max([acknowledged, *small_run.numbers(told, "saved")])
        if status == -signal.SIGKILL:
            result["kills"] += 1
            phases[small_run.open_phase(told)] += 1
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
    cfg = small_run.configure(out / "cache")
    pid = os.fork()  # before this process touches a device
    if pid == 0:
        try:
            small_run.draw_nothing()
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
