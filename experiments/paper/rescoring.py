"""What an entry was scored on against what is asked for, and one entry of two scorings.

    lacks(job, entry)                        # ["corruptions of 300 images", "SVHN"]; [] = nothing
    enter(ledger, entry, items)              # with what the run was scored on before

Files are looked for and none of a run is opened. A standard set that is there but was refused as damaged is lacking
until it is repaired or removed.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.paper import grid
from experiments.paper.ledger import Ledger
from experiments.paper.rows import beside
from experiments.paper.scores import CORRUPTED, Items
from sem_jax.data import DATASETS
from sem_jax.data.places import places
from sem_jax.errors import DataError

if TYPE_CHECKING:  # it imports this module
    from experiments.paper.cell import Job

SOURCES = ("published", "generated")  # of corrupted images
BY_SET = ("shift", "ood")  # suites with a scalar a set


def lacks(job: "Job", entry: Mapping) -> list[str]:
    """What a job asks for and the entry of its cell was not scored on: suites, sets, another choice of corruptions."""
    suites = entry["suites"]
    if absent := [name for name in job.suites if name not in suites]:
        return absent
    out = [*_corruptions(job, entry)] if "corruptions" in job.suites else []
    for suite, given in (("shift", job.shift), ("ood", job.ood)):
        if suite in job.suites:
            note = suites[suite].get("note") or ""
            wanted = [*(name for name, _ in given), *_standard(job.cell.dataset, suite, job.data_dir)]
            out += [name for name in wanted if not _in(entry["sets"], note, name)]
    return out


def _in(sets: Mapping, note: str, name: str) -> bool:
    """Whether a set was scored, under its name or "NAME (7,136 images)", or left out as it equals another."""
    return f"{name} is left out" in note or any(it == name or it.startswith(f"{name} (") for it in sets)


def _corruptions(job: "Job", entry: Mapping) -> Iterator[str]:
    suite, clean = (entry["suites"].get(name, {}).get("scalars", {}) for name in ("corruptions", "clean"))
    done = entry["suites"]["corruptions"]["status"] == "done"
    if (job.corruptions_dir or _published(job.cell.dataset, job.data_dir)) and (
        not done or suite.get("images") == "generated"
    ):
        yield "published corruptions"
    elif done:
        asked = grid.SIZES[job.cell.size].corruption_items if job.corruption_items < 0 else job.corruption_items
        every = clean.get("items") or DATASETS[job.cell.dataset].test_size or 0
        wanted = asked if 0 < asked < every or not every else every
        if wanted and suite.get("items", wanted) != wanted:
            yield f"corruptions of {wanted:,} images"


@cache
def _published(dataset: str, data_dir: str) -> bool:
    """Whether a published corrupted set lies where the evaluation looks for it."""
    from sem_jax.evaluation.suites.corruptions import PUBLISHED

    names = [PUBLISHED[dataset][0]] if dataset in PUBLISHED else []
    names += ["cifar10_corrupted"] if dataset == "cifar10" else []
    return any((place / name).is_dir() for place in places(data_dir) for name in names)


@cache
def _standard(dataset: str, suite: str, data_dir: str) -> list[str]:
    """The suite's standard sets that lie where the evaluation looks for them."""
    from sem_jax.evaluation.early import unsuited
    from sem_jax.evaluation.suites import ood, shift

    looked_at = places(data_dir)
    if suite == "ood" and unsuited(dataset, (0, 0, DATASETS[dataset].channels or 3)):
        return []
    known = ood.STANDARD if suite == "ood" else shift.STANDARD.get(dataset, ())
    found = [it.name for it in known if any((place / sub).exists() for place in looked_at for sub in it.places)]
    return [*found, "SVHN"] if suite == "ood" and any(map(_has_svhn, looked_at)) else found


def _has_svhn(place: Path) -> bool:
    from sem_jax.evaluation.sets import load_svhn

    for folder in (place, place / "svhn"):
        try:
            return bool(load_svhn(folder))
        except DataError:
            continue
    return False


def enter(ledger: Ledger, entry: dict, items: Items) -> dict:
    """Appends a run that is done; one that was scored before keeps what it was scored on then."""
    old = ledger.read_or_empty().done.get(entry["id"])
    if old and old.get("checkpoint") == entry["checkpoint"]:
        entry, items = merged(old, entry, ledger.items(old) or {}, items)
    return ledger.append(entry, items)


def merged(old: Mapping, new: Mapping, old_items: Items, items: Items) -> tuple[dict, dict]:
    """The entry of a run that is scored again, and its items: those of both scorings, of what both have the newer.

    Args:
      old: the done entry of the same checkpoint.
      new: what the run would be entered as without it.
      old_items: from the ledger; {} where they are gone.
      items: of the new scoring.
    """
    suites, again = dict(old["suites"]), set()
    for name, suite in new["suites"].items():
        before = suites.get(name)
        if suite["status"] == "done":
            again.add(name)
        elif before and before["status"] == "done":
            continue  # its data was there the last time
        suites[name] = _both(before, suite) if name in BY_SET and before else suite
    drop = "corruptions" in again  # one source and number of images at a time
    sets = {name: it for name, it in old["sets"].items() if not (drop and it.get("images") in SOURCES)}
    kept = {name: rows for name, rows in old_items.items() if not (drop and name in CORRUPTED)}
    found = {"suites": suites, "sets": sets | new["sets"], "branched_from": old.get("branched_from", "")}
    spent = {name: round(old.get(name, 0.0) + new.get(name, 0.0), 1) for name in ("wall_time_s", "cpu_time_s")}
    spent["beside_time_s"] = round(beside(old) + beside(new), 1)
    return {**new, **found, **spent}, kept | dict(items)


def _both(old: Mapping, new: Mapping) -> dict:
    """A suite with the sets of two scorings."""
    notes = dict.fromkeys(filter(None, (old.get("note"), new.get("note"))))
    return {**new, "scalars": {**old.get("scalars", {}), **new.get("scalars", {})}, "note": " ".join(notes)}
