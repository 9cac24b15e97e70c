"""Input and output of a suite: `Context`, the run with its data and predictions; `Result`, its part of the report."""

import functools
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sem_jax.data.places import places
from sem_jax.data.splits import digest
from sem_jax.errors import DataError, RunError, SemError
from sem_jax.evaluation.given import Given
from sem_jax.evaluation.options import Options
from sem_jax.evaluation.prediction_cache import Arrays, Cache
from sem_jax.evaluation.report.gallery import Gallery
from sem_jax.evaluation.report.record import Suite, Table
from sem_jax.evaluation.report.text import with_unit
from sem_jax.evaluation.run_data import Loaded
from sem_jax.evaluation.sets import Absent, EvalSet, Standard
from sem_jax.interfaces import Images, Split
from sem_jax.runs.opening import Run
from sem_jax.runs.predict import Predictions, make_predictor


class Missing(SemError):
    """A suite lacks its data. The report says so in a line, and the evaluation goes on."""

    def __init__(self, reason: str, remedy: str = ""):
        super().__init__(reason, remedy)
        self.reason, self.remedy = reason, remedy

    @classmethod
    def of(cls, error: SemError) -> "Missing":
        reason, _, remedy = str(error).partition("\n")
        return cls(reason, remedy)

    def record(self) -> dict[str, Any]:
        """The suite's part of the record."""
        return {"status": "missing", "reason": f"{self.reason.rstrip('.')}.", "remedy": self.remedy}

    def line(self) -> str:
        """The line that is printed when the suite is done."""
        return " ".join(f"missing: {self.record()['reason']} {self.remedy}".split())


@dataclass
class Result:
    """A suite's part of the record (see record.py) and its figures."""

    scalars: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Figure | Gallery] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)  # of scalars: "%" of a fraction that pages show in percent
    galleries: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    note: str = ""
    absent: list[Absent] = field(default_factory=list)  # sets that were not found
    data: dict[str, Any] = field(default_factory=dict)  # facts of the sets that were scored
    items: dict[str, np.ndarray] = field(default_factory=dict)  # one row an item, for paired tests of two runs
    others: dict[str, "Result"] = field(default_factory=dict)  # scalars and items of the compared runs, by their names

    def picture(self, name: str, figure: Figure, caption: str) -> None:
        """Adds a figure."""
        self.figures[name], self.captions[name] = figure, caption

    def gallery(self, name: str, images: np.ndarray, facts: list[dict[str, Any]], captions: list[str], caption: str):
        """Adds a gallery: u8[n h w c], what is known of each image, and the text below it."""
        if len(images):
            self.figures[name], self.captions[name] = Gallery(images, captions), caption
            self.galleries[name] = facts[: len(captions)]

    def percent(self, *scalars: str) -> None:
        """Marks scalars as fractions that pages show in percent."""
        self.units |= dict.fromkeys(scalars, "%")

    def record(self) -> Suite:
        """The suite's part of the record."""
        tables = list(self.tables)
        if self.absent:
            rows = [list(it) for it in self.absent]
            columns = ["set", "what is missing", "how to get it"]
            tables.append({"title": "Sets that are not there", "columns": columns, "rows": rows})
        return {
            "status": "done",
            "note": self.note,
            "scalars": self.scalars,
            "tables": tables,
            "figures": self.captions,
            "units": self.units,
            "galleries": self.galleries,
        }

    def line(self) -> str:
        """The text that is printed when the suite is done: the scalars, then each set that was left out."""
        shown = {name: with_unit(it, self.units.get(name, "")) for name, it in self.scalars.items()}
        absent = [f"\n{'':<13} left out {it.name}: {it.reason}; {it.remedy}" for it in self.absent]
        return ", ".join(f"{name} {value}" for name, value in shown.items()) + "".join(absent)


class Context:
    """One checkpoint with its data and its predictions."""

    def __init__(self, run: Run, loaded: Loaded, options: Options, given: Given | None = None):
        self.run, self.loaded, self.options, self.given = run, loaded, options, given or Given()
        self.predictor = make_predictor(run, progress=options.progress)
        self.cache = Cache(run.folder / "predictions" if options.cached else None, run.fingerprint, run.precision)
        self._digests: dict[int, tuple[weakref.ref, str]] = {}

    @functools.cached_property
    def runs(self) -> list[tuple[str, "Context"]]:
        """(name, context) of this run and of the runs to compare it with, on the same test images.

        Raises:
          RunError: a run of other classes or sizes.
          Missing: there are runs to compare with, but no test split.
        """
        own, folders = self.run, {self.run.folder.resolve()}
        runs: list[Context] = [self]
        for run in self.given.compared:
            if run.folder.resolve() in folders:
                continue
            folders.add(run.folder.resolve())
            if (run.data.image_shape, run.data.class_names) != (own.data.image_shape, own.data.class_names):
                raise RunError(
                    f"{run.folder} was trained on other classes or sizes ({run.data.name}) than {own.folder}",
                    "Compare runs with images of one size and the same classes.",
                )
            # They share the sets that are scored only: each run may have been trained on other data.
            loaded, given = Loaded({"test": self.split("test")}), self.given._replace(compared=())
            runs.append(Context(run, loaded, self.options, given))
        names = [it.run.name for it in runs]
        return [(it.run.name if names.count(it.run.name) == 1 else str(it.run.folder), it) for it in runs]

    @property
    def places(self) -> list[Path]:
        """The folders in which standard sets are searched."""
        return places(self.options.data_dir or self.run.config.data.dir)

    @property
    def home(self) -> Path:
        """The folder in which messages tell users to put a standard set."""
        return self.places[0] if self.options.data_dir else places()[0]

    def standard_sets(self, known: Iterable[Standard]) -> Iterator[EvalSet | Absent]:
        """Reads the `known` sets one by one; yields Absent for a set that is not there or is damaged."""
        places = self.places
        for it in known:
            there = [place / sub for place in places for sub in it.places if (place / sub).exists()]
            if not there:
                reason = f"no {it.what} in {', '.join(map(str, places))}"
                yield Absent(it.name, reason, it.remedy.format(home=self.home))
                continue
            try:
                yield it.read(self.run, there[0])
            except DataError as error:
                reason, _, remedy = str(error).partition("\n")
                yield Absent(it.name, reason, remedy or "Replace the file.")

    def facts(self, split: Split) -> dict[str, Any]:
        """Digest and size of a set, for the record."""
        return {"images": self.digest(split.images), "items": len(split.labels)}

    def split(self, name: str) -> Split:
        """A split of the run's own data.

        Raises:
          Missing: it is not there.
        """
        if name in self.loaded.splits:
            return self.loaded.splits[name]
        raise Missing.of(self.loaded.absent or DataError(f"the run has no {name} split"))

    def digest(self, images: Images) -> str:
        """SHA-256 of images, computed once for an array."""
        there, value = self._digests.get(id(images), (lambda: None, ""))
        if there() is not images:  # a new array may have the id of an old one
            value = digest(images)
            self._digests[id(images)] = weakref.ref(images), value
        return value

    def outputs(self, name: str, images: Images) -> Predictions:
        """Features and logits of a set of images; computed once and cached."""

        def make() -> Arrays:
            return self.predictor.outputs(images, label=name)._asdict()

        arrays = self.cache(name, self.digest(images), make, wanted=Predictions._fields)
        return Predictions(arrays["features"], arrays["logits"])
