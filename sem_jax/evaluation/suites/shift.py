"""The suite of natural shift: accuracy on other data of the same classes."""

from sem_jax.data import read_array_pair
from sem_jax.evaluation.context import Context, Missing, Result
from sem_jax.evaluation.measures import metrics
from sem_jax.evaluation.sets import EvalSet, Standard, check, named

_FOLDERS = ("", "cifar10.1", "CIFAR-10.1", "CIFAR-10.1/datasets", "cifar10.2", "cifar-10.2", "CIFAR-10.2")


def _published(name: str, file: str, size: int, url: str) -> Standard:
    labels = f" and {file.replace('_data', '_labels')}" if "_data" in file else ""
    remedy = f"put {file}{labels} of {url} into {{home}}"
    places = tuple(f"{folder}/{file}".lstrip("/") for folder in _FOLDERS)

    def read(run, path) -> EvalSet:
        return check(run, named(name, read_array_pair(path), size), labelled=True)

    return Standard(name, file, places, remedy, read)


STANDARD = {  # data set -> published shifted sets of its classes
    "cifar10": (
        _published("CIFAR-10.1 v4", "cifar10.1_v4_data.npy", 2021, "https://github.com/modestyachts/CIFAR-10.1"),
        _published("CIFAR-10.1 v6", "cifar10.1_v6_data.npy", 2000, "https://github.com/modestyachts/CIFAR-10.1"),
        _published("CIFAR-10.2", "cifar102_test.npz", 2000, "https://github.com/modestyachts/cifar-10.2"),
    )
}


def shift(context: Context) -> Result:
    """Accuracy on other data of the same classes, beside that on test."""
    found, absent = [], []
    for it in context.standard_sets(STANDARD.get(context.run.data.name, ())):
        (found if isinstance(it, EvalSet) else absent).append(it)
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
        result.percent(f"top1 {name}")
        result.data[name] = context.facts(split)
    columns = ["set", "items", *metrics.METRICS, "top1 against test"]
    units = {"top1": "%", "top5": "%", "top1 against test": "points"}
    result.tables.append({"title": "Natural shift", "columns": columns, "rows": rows, "units": units})
    result.note = " ".join(f"{it.name}: {it.note}." for it in found if it.note)
    return result
