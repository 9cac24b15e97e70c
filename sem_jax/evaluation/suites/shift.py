"""The suite of natural shift: accuracy on other data of the same classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sem_jax.data import read_array_pair
from sem_jax.errors import DataError
from sem_jax.evaluation.context import Context, Missing, Result
from sem_jax.evaluation.measures import metrics
from sem_jax.evaluation.sets import Absent, EvalSet, check, named
from sem_jax.runs.opening import Run


class _Standard(NamedTuple):
    name: str
    file: str
    size: int
    url: str


STANDARD = {  # data set -> published shifted sets of its classes
    "cifar10": (
        _Standard("CIFAR-10.1 v4", "cifar10.1_v4_data.npy", 2021, "https://github.com/modestyachts/CIFAR-10.1"),
        _Standard("CIFAR-10.1 v6", "cifar10.1_v6_data.npy", 2000, "https://github.com/modestyachts/CIFAR-10.1"),
        _Standard("CIFAR-10.2", "cifar102_test.npz", 2000, "https://github.com/modestyachts/cifar-10.2"),
    )
}
_FOLDERS = ("", "cifar10.1", "CIFAR-10.1", "CIFAR-10.1/datasets", "cifar10.2", "cifar-10.2", "CIFAR-10.2")


def standard_shift(run: Run, places: Sequence[Path], home: Path) -> tuple[list[EvalSet], list[Absent]]:
    """CIFAR-10.1 and CIFAR-10.2, for a model of CIFAR-10's classes; ([], []) for others.

    Args:
      run: the run to score.
      places: where sets are looked for; home: the one to put them in.
    """
    found, absent = [], []
    for name, file, size, url in STANDARD.get(run.data.name, ()):
        paths = (place / folder / file for place in places for folder in _FOLDERS)
        there = next((path for path in paths if path.is_file()), None)
        if there is None:
            labels = f" and {file.replace('_data', '_labels')}" if "_data" in file else ""
            reason = f"no {file} in {', '.join(map(str, places))}"
            absent.append(Absent(name, reason, f"put {file}{labels} of {url} into {home}"))
            continue
        try:
            found.append(check(run, named(name, read_array_pair(there), size), labelled=True))
        except DataError as error:
            absent.append(Absent.damaged(name, error))
    return found, absent


def shift(context: Context) -> Result:
    """Accuracy on other data of the same classes, beside that on test."""
    found, absent = standard_shift(context.run, context.places, context.home)
    found += context.given.shift
    if not found:
        if absent:
            names = ", ".join(a.name for a in absent)
            raise Missing(f"none of {names} is there ({absent[0].reason})", f"{absent[0].remedy}; or --shift NAME=PATH")
        remedy = "Give a labelled set with the same classes: --shift NAME=PATH (array pair or image folder)."
        raise Missing(f"no standard shift set is known for {context.run.data.name}", remedy)
    result, rows, own = Result(absent=absent), [], None
    if "test" in context.loaded.splits:
        test = context.split("test")
        own = metrics.classification(context.outputs("test", test.images).logits, test.labels)
        rows.append(["test (not shifted)", len(test.labels), *own.values(), 0.0])
    for name, split, _ in found:
        logits = context.outputs(name, split.images).logits
        scores = metrics.classification(logits, split.labels)
        result.items[f"correct {name}"] = metrics.correct(logits, split.labels)
        rows.append([name, len(split.labels), *scores.values(), scores["top1"] - own["top1"] if own else None])
        result.scalars[f"top1 {name}"] = scores["top1"]
        result.data[name] = {"images": context.digest(split.images), "items": len(split.labels)}
    columns = ["set", "items", *metrics.METRICS, "top1 against test"]
    result.tables.append({"title": "Natural shift", "columns": columns, "rows": rows})
    result.note = " ".join(f"{it.name}: {it.note}." for it in found if it.note)
    return result
