"""What a run answers with: predictions, metrics and scores. Each becomes a table of pandas, where that is installed."""

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sem_jax.errors import ConfigError, RunError
from sem_jax.registry import lookup

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(rows: Any, columns: Any = None) -> "DataFrame":
    """A pandas.DataFrame.

    Raises:
      RunError: pandas is not installed.
    """
    if importlib.util.find_spec("pandas") is None:
        raise RunError("pandas is not installed, which to_pandas() needs", "pip install pandas")
    import pandas

    return pandas.DataFrame(rows, columns=columns)


class Prediction(NamedTuple):
    """The predictions of n images, NumPy arrays with one row an image; from `Run.predict`.

    >>> logits = np.array([[0.0, 20.0], [20.0, 0.0]], np.float32)
    >>> found = Prediction.of(np.zeros((2, 5)), logits, ("cat", "dog"), ["a.png", "b.png"])
    >>> found.names, found.labels.tolist()
    (['dog', 'cat'], [1, 0])
    >>> next(found.rows())
    {'file': 'a.png', 'class': 'dog', 'probability': 1.0}
    """

    labels: np.ndarray  # i[n], the most probable class
    names: list[str]  # of these classes
    probabilities: np.ndarray  # f32[n k]
    features: np.ndarray  # f32[n d], g(x)
    logits: np.ndarray  # f32[n k], f(x)
    files: list[str]  # of the images; [] for an array
    class_names: tuple[str, ...]  # of all k classes, in label order

    @classmethod
    def of(cls, features: np.ndarray, logits: np.ndarray, class_names: tuple[str, ...], files: list[str]):
        """From a model's outputs."""
        labels = logits.argmax(axis=1)
        likely = np.exp(logits - logits.max(axis=1, keepdims=True))
        names = [class_names[label] for label in labels]
        return cls(labels, names, likely / likely.sum(axis=1, keepdims=True), features, logits, files, class_names)

    def rows(self, top: int = 1) -> Iterator[dict[str, Any]]:
        """One row an image: file, class, probability, and class_2, probability_2, ... up to `top`.

        Raises:
          ConfigError: `top` is smaller than 1.
        """
        if top < 1:
            raise ConfigError(f"top must be >= 1, got {top}")
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :top]
        for index, ranked in enumerate(order):
            row: dict[str, Any] = {"file": self.files[index]} if self.files else {}
            for rank, label in enumerate(ranked, 1):
                end = "" if rank == 1 else f"_{rank}"
                row[f"class{end}"] = self.class_names[label]
                row[f"probability{end}"] = float(str(self.probabilities[index, label]))  # the shortest that is the same
            yield row

    def to_pandas(self, top: int = 1) -> "DataFrame":
        """`rows` as a DataFrame; a RunError where pandas is not installed."""
        return frame(list(self.rows(top)))


class Records(list):
    """The records of metrics.jsonl, one dict an epoch.

    >>> Records([{"step": 10, "loss": 0.5}])[-1]["loss"]
    0.5
    """

    def to_pandas(self) -> "DataFrame":
        """One row an epoch, one column a metric; a RunError where pandas is not installed."""
        return frame(list(self))


class Evaluation(dict):
    """The record of an evaluation, as in eval.json: "run", the facts, and "suites", what each of them found.

    >>> done = Evaluation(suites={"clean": {"scalars": {"top1": 0.97}, "tables": []}})
    >>> done.scalars
    [{'suite': 'clean', 'measure': 'top1', 'value': 0.97}]
    """

    @property
    def scalars(self) -> list[dict[str, Any]]:
        """The main numbers of every suite that was done."""
        suites = self["suites"].items()
        scalars = ((name, *pair) for name, suite in suites for pair in suite.get("scalars", {}).items())
        return [dict(zip(("suite", "measure", "value"), row, strict=True)) for row in scalars]

    def to_pandas(self, title: str = "") -> "DataFrame":
        """The main numbers, with columns suite, measure and value; or one table of the report, by its title.

        Raises:
          RunError: pandas is not installed. ConfigError: no suite has a table of this title.
        """
        if not title:
            return frame(self.scalars)
        parts = [*self["suites"].values(), self.get("comparison") or {}]
        tables = {table["title"]: table for part in parts for table in part.get("tables", []) if "title" in table}
        table = lookup(tables, "table", title)
        return frame(table["rows"], table["columns"])
