"""The files of a run folder beside its checkpoints: JSON files, metrics log and lock; no jax.

    with RunFolder("runs/digits") as folder:   # refuses a second process
        folder.claim(config, data)             # refuses a folder of another configuration
        folder.rewind(step)                    # on resume: drops what was logged after the checkpoint
        folder.append({"step": 390, "epoch": 1, "loss": 2.1})
        folder.finish({"test_accuracy": 0.97})

The JSON files are config.json, data.json and result.json. The metrics log is metrics.jsonl, one line an epoch. Files
are replaced as a whole, so nobody reads half of one; the metrics log grows by whole lines.
"""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sem_jax import __version__
from sem_jax.config import flatten
from sem_jax.errors import RunError
from sem_jax.runs.extension import differing, extend, is_longer
from sem_jax.runs.reading import METRICS_LIMIT, parse_json, read_bytes, read_json

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "ml-collections")
LINKLESS = (".lock", "checkpoints", "tensorboard", "wandb", "earlier", "profile")  # written to or deleted from


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which replaces `path` at the end, so that nobody reads half of it."""
    # Processes of two containers may have one number.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:  # never through a link that lies there
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file; NaN and Infinity are refused with a ValueError."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with replacing(path) as file:
        file.write(f"{text}\n".encode())


def sweep(folder: Path) -> None:
    """Deletes the temporary files of `replacing` whose process was killed."""
    for path in folder.glob(".*.*") if folder.is_dir() and not folder.is_symlink() else ():
        if (match := re.fullmatch(r"\..+\.(\d{1,9})(-[0-9a-f]{8})?", path.name)) and not _is_alive(int(match[1])):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_alive(process: int) -> bool:
    """Whether another process of that number is there; on Windows, where asking would end it, always True."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return process != os.getpid()


def read_metrics(folder: str | Path) -> list[dict]:
    """The metrics log, one dict of numbers (or None) an epoch; a last line that was cut off is left out.

    Raises:
      RunError: another line is damaged, or the file is not as a run writes it.
    """
    path = Path(folder) / "metrics.jsonl"
    records, lines = [], []
    with contextlib.suppress(FileNotFoundError):
        lines = read_bytes(path, limit=METRICS_LIMIT).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_json(line)
            if not isinstance(record, dict) or type(record.get("step")) is not int:
                raise ValueError("no record of a step")
            if bad := [k for k, v in record.items() if not isinstance(v, int | float | None)]:
                raise ValueError(f"{bad[0]} is no number")
        except ValueError as error:
            if number == len(lines):
                break
            raise RunError(f"{path}, line {number} is damaged: {error}", "Delete that line.") from None
        records.append(record)
    return records


def versions() -> dict[str, str]:
    """Versions of Python, this package and the packages that numbers depend on."""
    found = {"python": platform.python_version(), "sem_jax": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def environment() -> dict:
    """Versions, commit and platform, for result.json and the report."""
    return {"versions": versions(), "commit": _commit(), "platform": platform.platform()}


def _commit() -> str:
    """Commit of this package's checkout, with '+' if there are uncommitted changes; '' outside git."""
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str:
        command = ["git", "-C", str(here), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        # An installed copy may lie inside another repository, which does not track this file.
        git("ls-files", "--error-unmatch", "records.py")
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


class RunFolder:
    """The folder of a run that trains.

    Args:
      path: made if it is not there.
      writer: False for the processes of a multi-process run that write nothing.
      name: of the run in messages; "" = the path.
    """

    def __init__(self, path: str | Path, *, writer: bool = True, name: str = ""):
        self.path = Path(path).expanduser()
        self.name = name or str(self.path)
        self._writer = writer
        self.tracker: Any = None  # `trackers.Tracker`, which gets a copy of the metrics log from now on
        self._lock = None

    def __enter__(self) -> "RunFolder":
        """Makes the folder and locks it for this process. The system frees the lock when the process ends.

        Raises:
          RunError: another process holds the lock.
        """
        if not self._writer:
            return self
        try:
            import fcntl
        except ImportError:  # Windows
            fcntl = None
        self.path.mkdir(parents=True, exist_ok=True)
        for name in LINKLESS:
            if (self.path / name).is_symlink():
                raise RunError(f"{self.path / name} is a link; a run writes through none.", self._remedy)
        self._lock = open(self.path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
        try:
            if fcntl:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read(100).strip() or "another process"
            self._lock.close()
            remedy = "Wait for it, end it, or choose another folder with --workdir."
            raise RunError(f"{self.name} is in use: {holder} is training there.", remedy) from None
        except OSError:  # a file system without locks
            return self
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {platform.node()}\n")
        self._lock.flush()
        for folder in (self.path, self.path / "evaluation", self.path / "predictions"):
            sweep(folder)
        return self

    def __exit__(self, *_) -> None:
        self.close()
        if self._lock is not None:
            self._lock.close()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def check(
        self,
        config: dict,
        data: dict,
        *,
        ignore: tuple[str, ...] = (),
        defaults: dict | None = None,
        extend: bool = False,
    ) -> dict | None:
        """Compares the config.json and data.json that are there with this run; writes nothing.

        Returns the fields of the run that is there, by their dotted names, if it becomes longer; else None.

        Args:
          config: nested plain values.
          data: facts of the data set; the fingerprint must agree.
          ignore: groups of config that may differ.
          defaults: values of the fields that an older config.json does not have.
          extend: the run may become longer; see `extension`.

        Raises:
          RunError: names the fields that differ.
        """
        shorter, path = None, self.path / "config.json"
        if path.exists():
            saved = read_json(path)
            if not isinstance(saved, dict):
                raise RunError(f"{path} holds no configuration.", self._remedy)

            def compared(values: dict) -> dict:
                return dict(flatten({group: value for group, value in values.items() if group not in ignore}))

            there, here = compared(defaults or {}) | compared(saved), compared(config)
            names = differing(there, here)
            shorter = there if names and is_longer(names, there, here) else None
            if names and not (extend and shorter):
                remedy = f"To continue it, give the settings that are there. {self._remedy}"
                remedy = f"To train that run on, add --extend. {self._remedy}" if shorter else remedy
                shown = "; ".join(f"{n}: {there.get(n)!r} there, {here.get(n)!r} now" for n in names[:3])
                more = f"; and {len(names) - 3} more" if len(names) > 3 else ""
                raise RunError(f"{self.name} holds a run of another configuration ({shown}{more}).", remedy)
            if (self.path / "data.json").exists():
                facts, now = read_json(self.path / "data.json"), data["fingerprint"]
                found = facts.get("fingerprint") if isinstance(facts, dict) else None
                if found != now:
                    differ = f"fingerprint {str(found)[:12]} there, {now[:12]} now ({data['name']})"
                    raise RunError(f"{self.name} holds a run on other data: {differ}.", self._remedy)
        elif self.checkpoints.is_dir() and any(self.checkpoints.iterdir()):
            raise RunError(f"{self.name} has checkpoints but no config.json.", self._remedy)
        return shorter

    def claim(self, config: dict, data: dict, **options: Any) -> None:
        """Writes config.json and data.json. If they are there, they must be of this run; arguments as of `check`."""
        shorter = self.check(config, data, **options)
        if not self._writer:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if shorter:
            extend(self.path, shorter, write_json)
        write_json(self.path / "config.json", config)
        write_json(self.path / "data.json", data)

    _remedy = "Choose another folder with --workdir, or delete that one to start afresh."

    def rewind(self, step: int, *, every: int = 1) -> list[dict]:
        """Drops what was logged after `step`, twice, or at no multiple of `every` steps, and returns the rest."""
        found = {line["step"]: line for line in read_metrics(self.path) if 0 < line["step"] <= step}
        log = [found[number] for number in sorted(found) if number % every == 0]
        if self._writer:
            with replacing(self.path / "metrics.jsonl") as file:
                file.write("".join(json.dumps(line) + "\n" for line in log).encode())
            for name in ("result.json", "curves.png"):
                (self.path / name).unlink(missing_ok=True)
        return log

    def append(self, line: dict) -> None:
        """Adds a line to the metrics log, and sends it to the tracker. Numbers that are not finite become null."""
        if not self._writer:
            return
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(plain) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if self.tracker is not None:
            self.tracker.write(plain)

    def finish(self, result: dict) -> None:
        """Writes result.json and closes the tracker."""
        if self._writer:
            write_json(self.path / "result.json", result)
        self.close()

    def close(self) -> None:
        if self.tracker is not None:
            self.tracker.close()
            self.tracker = None

    def result(self) -> dict | None:
        """The contents of result.json; None if it is not there or damaged: the run is not finished."""
        with contextlib.suppress(RunError):
            found = read_json(self.path / "result.json")
            return found if isinstance(found, dict) else None
        return None
