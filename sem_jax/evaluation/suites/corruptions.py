"""The suite of the 15 corruptions (SEM, Table 2): published images if they are there, else generated ones."""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sem_jax.data.decoded_cache import cached
from sem_jax.data.splits import digest
from sem_jax.errors import DataError
from sem_jax.evaluation import corruptions as generator
from sem_jax.evaluation.context import Context, Missing, Result
from sem_jax.evaluation.corruptions.frost_pictures import FILES
from sem_jax.evaluation.corruptions.generate import corrupt
from sem_jax.evaluation.corruptions.published import Published
from sem_jax.evaluation.corruptions.sheet import picture_sheet
from sem_jax.evaluation.given import open_corrupted
from sem_jax.evaluation.measures import metrics
from sem_jax.evaluation.report import figures
from sem_jax.evaluation.sets import size_text
from sem_jax.interfaces import Split
from sem_jax.system.progress import bar

PUBLISHED = {  # data set -> name and source of its corrupted test set
    "cifar10": ("CIFAR-10-C", "https://zenodo.org/records/2535967"),
    "cifar100": ("CIFAR-100-C", "https://zenodo.org/records/3555552"),
    "tiny_imagenet": ("Tiny-ImageNet-C", "https://zenodo.org/records/2536630"),
}
_SHOWN = 2  # images of the picture sheet
_OFFICIAL = 10_000
_KEPT = 1_000  # corrupted images of at most so many items are cached for the next run: 230 MB of 32x32 pixels


class _Source(NamedTuple):
    """A source of corrupted images."""

    name: str  # "CIFAR-10-C", or "generated corruptions"
    note: str
    key: Callable[[str, int], str | None]  # a text that determines the images; None if only they do
    read: Callable[[str, int], Split]


def _published(context: Context, opened: Published, rows: np.ndarray) -> _Source:
    name = PUBLISHED.get(context.run.data.name, (Path(opened.path).name, ""))[0]
    count = len(context.split("test").labels)
    if opened.layout == "tfds":
        name += " (tfds cifar10_corrupted)"
    elif count != _OFFICIAL:
        name += f" layout, {count:,} images"

    def read(corruption: str, severity: int) -> Split:
        split = opened.read(corruption, severity)
        return split if len(rows) == len(split.labels) else Split(split.images[rows], split.labels[rows])

    return _Source(name, f"{name}, published images read from {opened.path}.", lambda *_: None, read)


def _find_published(context: Context) -> Published | None:
    """A published set in the folders of standard sets."""
    data = context.run.data.name
    if data not in PUBLISHED:
        return None
    folders = [place / PUBLISHED[data][0] for place in context.places]
    folders += [place for place in context.places if data == "cifar10" and (place / "cifar10_corrupted").is_dir()]
    labels = context.split("test").labels
    there = next((folder for folder in folders if folder.is_dir()), None)
    return open_corrupted(context.run, there, context.options.corruptions, labels) if there else None


@functools.cache
def _generator_version() -> str:
    """Digest of the code that generates corruptions, since other code may make other images."""
    files = sorted(Path(generator.__file__).parent.glob("*.py"))
    made_by = [file for file in files if file.name not in ("published.py", "sheet.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in made_by)).hexdigest()


def _generated(context: Context, chosen: Split) -> _Source:
    options, shape = context.options, chosen.images.shape[1:]
    if min(shape[:2]) < generator.MIN_SIZE or shape[2] not in (1, 3):
        needed = f"corruptions need RGB images of {generator.MIN_SIZE} pixels or more"
        found = f"those of {context.run.data.name} are {size_text(shape)}"
        raise Missing(f"{needed}; {found}", "Score a run on such images.")
    frost = "the published photographs" if options.frost_dir else "textures of our own"
    images = digest(chosen.images)
    files = [Path(options.frost_dir).expanduser() / file for file in FILES] if options.frost_dir else []
    pictures = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

    def key(name: str, severity: int) -> str:
        frost = pictures if name == "frost" else ""
        return json.dumps(["generated", _generator_version(), images, name, severity, options.seed, frost])

    def make(name: str, severity: int) -> Split:
        made = corrupt(np.asarray(chosen.images), name, severity, seed=options.seed, frost_dir=options.frost_dir)
        return Split(made, chosen.labels)

    def read(name: str, severity: int) -> Split:
        if len(chosen.labels) > _KEPT:
            return make(name, severity)
        # A sweep scores many checkpoints on the same few images, which take longer to make than to predict.
        return cached(f"corrupted-{name}-{severity}", [key(name, severity)], lambda: (make(name, severity), ()))[0]

    title = f"generated corruptions of {context.run.data.name}"
    note = f"Generated from the test images, seed {options.seed}, frost from {frost}: comparable among runs of this "
    published, url = PUBLISHED.get(context.run.data.name, ("", ""))
    note += f"program, not with numbers on {published}. " if published else "program only. "
    note += f"For those, unpack {url} to {context.home / published}." if published else ""
    return _Source(title, note.strip(), key, read)


def _chosen_items(context: Context) -> np.ndarray:
    count, wanted = len(context.split("test").labels), context.options.corruption_items
    if not 0 < wanted < count:
        return np.arange(count)
    return np.sort(np.random.default_rng(context.options.seed).choice(count, wanted, replace=False))


def corruptions(context: Context) -> Result:
    """Accuracy under every corruption and severity; published images if they are there, else generated ones."""
    options, test, rows = context.options, context.split("test"), _chosen_items(context)
    try:
        opened = context.given.published or _find_published(context)
    except DataError as error:
        raise Missing.of(error) from error  # a damaged published set is not replaced by a generated one
    chosen = Split(test.images[rows], test.labels[rows])
    source = _published(context, opened, rows) if opened else _generated(context, chosen)
    accuracy, sheet, items = {}, {}, {}
    cells = [(name, severity) for name in options.corruptions for severity in generator.SEVERITIES]
    try:
        for name, severity in bar(cells, desc=source.name, unit="set", shown=options.progress, leave=False):
            hits, sheet[name, severity] = _cell(context, source, name, severity, chosen.labels)
            accuracy[name, severity], items[f"correct {name} {severity}"] = float(hits.mean()), hits
    except DataError as error:
        raise Missing.of(error) from error
    table = metrics.corruption_table(accuracy)
    # Folders and tfds have the images in another order, in which `rows` are other images.
    same = np.arange(len(test.labels)) if opened and opened.layout != "arrays" else rows
    own = metrics.top1(context.outputs("test", test.images).logits[same], test.labels[same])
    severities = [f"severity {s}" for s in table.severities]
    body = [[n, *table.accuracy[i], table.by_corruption[i]] for i, n in enumerate(table.corruptions)]
    body.append(["mean", *table.by_severity, table.mean_accuracy])
    result = Result(note=source.note, items=items)
    result.scalars = {
        "mean accuracy": table.mean_accuracy,
        "mCE (unnormalised)": table.mean_error,
        "accuracy of clean images": own,
        "items": len(rows),
        "corruptions": len(table.corruptions),
        "images": "published" if opened else "generated",
    }
    result.percent("mean accuracy", "mCE (unnormalised)", "accuracy of clean images")
    if len(rows) < len(test.labels):
        result.note += f" A seeded choice of {len(rows):,} of {len(test.labels):,} test images."
    note = f"Mean accuracy is the mean over all {table.accuracy.size} cells. mCE (unnormalised) is 1 minus it: nobody "
    note += "has published the baseline errors that mCE divides by for these sets."
    columns = ["corruption", *severities, "mean"]
    title, units = f"Accuracy: {source.name}", dict.fromkeys(columns[1:], "%")
    result.tables.append({"title": title, "columns": columns, "rows": body, "note": note, "units": units})
    heat = figures.corruption_heatmap(table.corruptions, table.severities, table.accuracy)
    result.picture("corruptions", heat, f"Accuracy in percent: {source.name}.")
    first = test.images[rows[:_SHOWN]]
    grid = np.stack([[first, *(sheet[name, s] for s in table.severities)] for name in table.corruptions])
    title = f"{source.name[0].upper()}{source.name[1:]}"
    caption = f"The first images, clean and at each severity: {source.name}."
    if opened and opened.layout != "arrays":
        caption += " The published images are in another order than the clean ones."
    result.picture("corruption_sheet", picture_sheet(grid, names=table.corruptions, title=title), caption)
    result.data = {source.name: {"images": "published" if opened else "generated", "items": len(rows)}}
    return result


def _cell(context: Context, source: _Source, name: str, severity: int, clean_labels: np.ndarray):
    """One corruption at one severity: (which images are classified correctly, bool[n]; the first images)."""
    key = source.key(name, severity)
    split = source.read(name, severity) if key is None else None

    def make():
        read = split or source.read(name, severity)
        out = context.predictor.outputs(read.images, features=False, label=f"{name} {severity}")
        return {"logits": out.logits, "first": np.asarray(read.images[:_SHOWN])}

    key = digest(split.images) if split else key or ""
    arrays = context.cache(f"{source.name} {name} {severity}", key, make, wanted=("logits", "first"))
    return metrics.correct(arrays["logits"], split.labels if split else clean_labels), arrays["first"][:_SHOWN]
