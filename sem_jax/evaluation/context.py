"""What a suite is given: the run, its data, cached predictions, and the options of the evaluation."""

import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sem_jax.data.public import places
from sem_jax.data.splits import digest
from sem_jax.errors import DataError, SemError
from sem_jax.evaluation.corruptions import CORRUPTIONS
from sem_jax.evaluation.corruptions.published import Published
from sem_jax.evaluation.prediction_cache import Arrays, Cache
from sem_jax.evaluation.sets import EvalSet
from sem_jax.interfaces import Outputs, Split
from sem_jax.runs.opening import Loaded, Run
from sem_jax.runs.predict import Predictor


class Missing(SemError):
    """What a suite needs is not there: its line in the report, not the end of the evaluation."""

    def __init__(self, reason: str, remedy: str = ""):
        super().__init__(reason, remedy)
        self.reason, self.remedy = reason, remedy

    @classmethod
    def of(cls, error: SemError) -> "Missing":
        reason, _, remedy = str(error).partition("\n")
        return cls(reason, remedy)


@dataclass(frozen=True)
class Options:
    """Of the evaluation; what a person gave is read and checked before anything is computed."""

    data_dir: str = ""
    shift: tuple[EvalSet, ...] = ()
    ood: tuple[EvalSet, ...] = ()
    published: Published | None = None  # given with --corruptions-dir
    frost_dir: str = ""
    corruption_items: int = 0  # test images that are corrupted; 0 = all
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    compare: tuple[str, ...] = ()
    pairs: int = 1000  # of the equivariance suite
    umap: bool = True
    cached: bool = True
    seed: int = 0
    progress: bool = True


@dataclass
class Result:
    """What a suite gives: its part of the record (see page.py) and its figures by name."""

    scalars: dict[str, Any] = field(default_factory=dict)
    tables: list[dict] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    note: str = ""
    data: dict[str, Any] = field(default_factory=dict)  # of the sets it was scored on, for the record of the run
    items: dict[str, np.ndarray] = field(default_factory=dict)  # one row an item, for paired tests of two runs

    def picture(self, name: str, figure: Figure, caption: str) -> None:
        self.figures[name], self.captions[name] = figure, caption

    def record(self) -> dict:
        return {
            "status": "done",
            "note": self.note,
            "scalars": self.scalars,
            "tables": self.tables,
            "figures": self.captions,
        }


class Context:
    """One checkpoint with its data and its predictions.

    Args:
      run, loaded: from `loading`.
      options: of the evaluation.
    """

    def __init__(self, run: Run, loaded: Loaded, options: Options):
        self.run, self.loaded, self.options = run, loaded, options
        self.predictor = Predictor(
            run.model,
            run.variables,
            mean=run.data.mean,
            std=run.data.std,
            batch_size=run.config.runtime.eval_batch_size,
            progress=options.progress,
        )
        self.cache = Cache(run.folder / "predictions" if options.cached else None, run.fingerprint, run.precision)
        self._digests: dict[int, tuple[weakref.ref, str]] = {}

    @property
    def places(self) -> list[Path]:
        """Folders in which standard sets are looked for."""
        return places(self.options.data_dir or self.run.config.data.dir)

    @property
    def home(self) -> Path:
        """The one of `places` that a person is told to put a standard set in."""
        return self.places[0] if self.options.data_dir else places()[0]

    def split(self, name: str) -> Split:
        """A split of the run's own data.

        Raises:
          Missing: it is not there.
        """
        if name in self.loaded.splits:
            return self.loaded.splits[name]
        absent = self.loaded.absent or DataError(f"the run has no {name} split")
        raise Missing.of(absent)

    def digest(self, images: np.ndarray) -> str:
        """SHA-256 of images, computed once for an array."""
        there, value = self._digests.get(id(images), (lambda: None, ""))
        if there() is not images:  # an id is given again once its array is gone
            value = digest(images)
            self._digests[id(images)] = weakref.ref(images), value
        return value

    def outputs(self, name: str, images: np.ndarray) -> Outputs:
        """Features and logits of a set, from the cache where they are."""

        def make() -> Arrays:
            return self.predictor.outputs(images, label=name)._asdict()

        arrays = self.cache(name, self.digest(images), make, wanted=Outputs._fields)
        return Outputs(arrays["features"], arrays["logits"])
