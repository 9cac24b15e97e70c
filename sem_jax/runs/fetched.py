"""One checkpoint of a run in a bucket, fetched to be read, while a trainer may be committing and deleting.

    folder, step = fetch_run("gs://my-runs/wrn_c10", "best_val")
    run = open_run(folder, step)
    publish_report("gs://my-runs/wrn_c10", Path("wrn_c10-evaluation"), ["eval.json"])

To read, permission to read the bucket is enough. What was fetched stays in $SEM_JAX_CACHE/fetched, apart from what
trainers use, and is not fetched again where its digest is the same. The optimizer's state, which no reader needs, is
not fetched. Checkpoints of a run that nobody has asked for in the last hour are deleted when another one is fetched.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from sem_jax.data.decoded_cache import cache_dir
from sem_jax.errors import RunError
from sem_jax.runs.folders import remove
from sem_jax.runs.layout import TRAINER
from sem_jax.runs.lease import read
from sem_jax.runs.manifest import Damaged
from sem_jax.runs.mirror import adopted, bring_step
from sem_jax.runs.reading import METRICS_LIMIT
from sem_jax.runs.records import read_metrics
from sem_jax.runs.small_files import CHECKPOINTS
from sem_jax.system.bucket import Altered, Bucket, parallel

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FILES = ("config.json", "data.json", "metrics.jsonl", "result.json")
_KEPT = 3600.0  # seconds for which a process may read what it has fetched
_TRIES = 20  # a trainer may delete what is being fetched; the next choice is a newer one


def fetch_run(url: str, checkpoint: str | int = "final") -> tuple[Path, int]:
    """(folder with config.json, data.json, metrics.jsonl and one checkpoint; its step).

    Args:
      url: gs://BUCKET/FOLDER of the run.
      checkpoint: "final" (the latest), "best_val" (the highest val_accuracy of those kept) or a step.

    Raises:
      RunError: there is no such run or checkpoint, or it is damaged, or the bucket cannot be reached.
    """
    bucket, error = Bucket(url), None
    name = bucket.url.rsplit("/", 1)[-1]
    folder = cache_dir() / "fetched" / hashlib.sha256(bucket.url.encode()).hexdigest()[:16] / name
    with _alone(folder):
        for _ in range(_TRIES):
            commits = read(bucket)[2] or adopted(bucket)
            if not commits:
                remedy = "Give the URL that --workdir had when it was trained."
                raise RunError(f"{bucket.url} has no checkpoint", remedy)
            _fetch_small(bucket, folder)
            step = _choose(bucket.url, folder, commits, str(checkpoint))
            try:
                bring_step(bucket, folder, step, commits[step], without=TRAINER)
                _delete_others(folder / CHECKPOINTS, step)
                return folder, step
            except (FileNotFoundError, Altered, Damaged) as found:
                error = found
    raise RunError(f"Checkpoint {step} of {bucket.url} is damaged: {error}", "Choose another one with --checkpoint.")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time fetches into a folder; the system frees the lock of one that has died."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _delete_others(folder: Path, step: int) -> None:
    """Deletes the checkpoints but one that nobody can be reading any more."""
    os.utime(folder / str(step))
    for other in folder.iterdir():
        if other.name != str(step) and other.lstat().st_mtime < time.time() - _KEPT:
            remove(other)


def publish_report(url: str, folder: Path, names: Iterable[str]) -> None:
    """Uploads files of a report to the run's evaluation/, whoever is training it.

    Raises:
      RunError: no permission, or the bucket cannot be reached.
    """
    bucket = Bucket(url)
    parallel(lambda name: bucket.write(f"evaluation/{name}", folder / name), names)


def _fetch_small(bucket: Bucket, folder: Path) -> None:
    for name in FILES:
        content = bucket.read(name, limit=METRICS_LIMIT)
        if content is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / f".{name}").write_bytes(content)
            (folder / f".{name}").replace(folder / name)


def _choose(url: str, folder: Path, commits: dict[int, str], checkpoint: str) -> int:
    if checkpoint == "final":
        return max(commits)
    if checkpoint.isdecimal() and int(checkpoint) in commits:
        return int(checkpoint)
    if checkpoint != "best_val":
        known = ", ".join(map(str, sorted(commits)))
        raise RunError(f"{url} has no checkpoint {checkpoint!r:.100}; there are: {known}")
    scores = {r["step"]: r["val_accuracy"] for r in read_metrics(folder) if type(r.get("val_accuracy")) in (int, float)}
    if not (scored := [step for step in commits if step in scores]):
        raise RunError(f"None of the checkpoints of {url} was scored on val", "Use --checkpoint=final.")
    return max(scored, key=lambda step: (scores[step], step))
