"""Brings what a sweep has made home as a few files, and makes a sweep of them that goes on elsewhere.

    keep(work, out)            # ledger.jsonl, evidence.tgz and, of runs that are not finished, checkpoint.000, ...
    restore(out, work)         # on another machine

evidence.tgz has the ledger with its items and the small files of every run folder. The newest checkpoint of an
unfinished run is cut into parts of PART_BYTES; checkpoint.json has their digests. What is read back is data: names and
sizes are bounded, and a part with another digest is refused.
"""

import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

from experiments.paper.ledger import Ledger
from sem_jax.errors import RunError
from sem_jax.runs.checkpoint import steps
from sem_jax.runs.records import read_json, write_json

PART_BYTES = 15 * 2**20
MOST = 2**32  # bytes of what is unpacked
SMALL = ("config.json", "data.json", "metrics.jsonl", "result.json", "curves.png")
EVIDENCE, PARTS = "evidence.tgz", "checkpoint.json"
LEDGER = Path("ledger/ledger.jsonl")


def records(work: Path) -> list[Path]:
    """The small files of a sweep's folder."""
    found = [*work.glob("ledger/ledger.jsonl"), *work.glob("ledger/items/*.npz"), *work.glob("runs/*.log")]
    for run in sorted(p for p in work.glob("runs/*") if p.is_dir() and not p.name.startswith(".")):
        found += [run / name for name in SMALL]
        found += [*sorted(run.glob("evaluation/*.json")), *sorted(run.glob("evaluation/*.md"))]
    return [path for path in found if path.is_file()]


def keep_records(work: Path, out: Path) -> None:
    """ledger.jsonl and evidence.tgz, each put in its place as a whole."""
    files = records(work)
    if not files:
        return
    ledger = work / LEDGER
    if ledger.is_file():
        _replace(out / "ledger.jsonl", ledger.read_bytes())
    _replace(out / EVIDENCE, _tar(work, files, "w:gz"))


def keep(work: Path, out: Path, *, megabytes: float = 0.0) -> list[str]:
    """All of it; the names of the unfinished runs whose checkpoints lie in `out`.

    Args:
      megabytes: of checkpoints in all; 0 = no limit. A run that does not fit stays in `work` alone.
    """
    keep_records(work, out)
    for old in out.glob("checkpoint.*"):
        old.unlink()
    kept, content, done = [], b"", Ledger(work / "ledger").read_or_empty().done
    for run in sorted((p for p in work.glob("runs/*") if p.is_dir()), key=lambda p: p.stat().st_mtime, reverse=True):
        saved = steps(run / "checkpoints") if (run / "checkpoints").is_dir() else []
        if not saved or run.name in done or run.name.startswith("."):
            continue
        folder = run / "checkpoints" / str(max(saved))
        one = _tar(work, [p for p in sorted(folder.rglob("*")) if p.is_file()], "w")
        if megabytes and len(content) + len(one) > megabytes * 2**20:
            continue
        content, kept = content + one, [*kept, run.name]
    if kept:
        parts = [content[i : i + PART_BYTES] for i in range(0, len(content), PART_BYTES)]
        for number, part in enumerate(parts):
            _replace(out / f"checkpoint.{number:03d}", part)
        digests = [hashlib.sha256(part).hexdigest() for part in parts]
        write_json(out / PARTS, {"runs": kept, "bytes": len(content), "sha256": digests})
    return kept


def restore(out: Path, work: Path) -> list[str]:
    """Puts what `keep` made back into a sweep's folder; the newest of several comes first.

    Files that are there already stay, but for the ledger: it gets the lines that it lacks, before its own, which are
    newer.

    Returns:
      Names of the runs that can be continued.

    Raises:
      RunError: a part is missing or not what checkpoint.json says, or an archive has something else in it.
    """
    if (out / EVIDENCE).is_file():
        _unpack(out / EVIDENCE, (out / EVIDENCE).read_bytes(), "r:gz", work)
    if not (out / PARTS).is_file():
        return []
    about = read_json(out / PARTS)
    try:
        digests, size, runs = list(about["sha256"]), int(about["bytes"]), [str(name) for name in about["runs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{out / PARTS} is not what this command writes: {error!r}") from None
    content = io.BytesIO()
    for number, digest in enumerate(digests):
        path = out / f"checkpoint.{number:03d}"
        part = path.read_bytes() if path.is_file() and path.stat().st_size <= PART_BYTES else b""
        if hashlib.sha256(part).hexdigest() != digest:
            raise RunError(f"{path} is missing or damaged", "Copy it once more, or remove checkpoint.json: what is "
                           "finished is kept, and the run begins anew.")  # fmt: skip
        content.write(part)
    if content.tell() != size:
        raise RunError(f"{out / PARTS} says {size} bytes, the parts have {content.tell()}")
    _unpack(out / PARTS, content.getvalue(), "r", work)
    return runs


def _tar(root: Path, files: Iterable[Path], mode: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for path in files:
            archive.add(path, str(path.relative_to(root)), recursive=False)
    return made.getvalue()


def _unpack(where: Path, content: bytes, mode: str, work: Path) -> None:
    """Plain files below ledger/ and runs/ alone."""
    total, stream = 0, io.BytesIO(content)
    try:
        # ignore_zeros: archives of several runs lie one behind the other.
        with tarfile.open(fileobj=stream, mode=mode, ignore_zeros=True) as archive:  # type: ignore[call-overload]
            for member in archive:
                path = Path(member.name)
                inside = path.parts[:1] in (("ledger",), ("runs",)) and ".." not in path.parts
                total += member.size
                if not (member.isreg() and inside) or total > MOST:
                    raise RunError(f"{where}: {member.name!r:.100} is not a file of a ledger or run")
                target, source = work / path, archive.extractfile(member)
                if source is None:
                    continue
                if target.exists():
                    if path == LEDGER:
                        with source:
                            _add_lines(target, source.read())
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise RunError(f"{where} cannot be unpacked: {error}") from error


def _add_lines(ledger: Path, earlier: bytes) -> None:
    """Puts the lines of an earlier ledger that are lacking before those of this one; a half line is one of them."""
    own = ledger.read_bytes()
    there = set(own.splitlines())
    if missing := [line for line in earlier.splitlines() if line not in there]:
        _replace(ledger, b"".join(line + b"\n" for line in missing) + own)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content)
    temporary.replace(path)
