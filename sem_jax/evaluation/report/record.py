"""The record of an evaluation, as in eval.json.

    {"run": {"name": "wrn_c10",            # str
             "checkpoint": "final",        # str: final, best_val, a step or the folder
             "step": 78200,                # int
             "config": {...},              # any nested dict: flattened to dotted fields in the report
             "data": {...},                # data sets and their fingerprints, likewise
             "versions": {...}},           # packages and devices, likewise
     "suites": {"clean": {"status": "done",
                          "note": "one line",                                      # optional
                          "scalars": {"top1": 0.9512},                             # optional, name -> number
                          "tables": [{"title": "...", "columns": [...], "rows": [[...]], "note": "..."}],  # optional
                          "figures": {"confusion": "caption"}},                    # optional, name -> caption
                "ood": {"status": "missing",
                        "reason": "no data set 'svhn' below DIR",                  # what is missing
                        "remedy": "python -m sem_jax prepare svhn"}}}              # how to get it

Accuracies and rates are fractions in [0, 1]. NumPy numbers and arrays are taken as they are. JSON has no NaN: such a
number becomes null, and `nulls` in eval.json says at which place and what it was; the report shows a dash.
"""

import math
import os
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np

from sem_jax.errors import RunError

STATUSES = ("done", "missing")


class Table(TypedDict):
    """A table of the report; every row has as many cells as there are columns."""

    columns: list[str]
    rows: list[list[Any]]
    title: NotRequired[str]
    note: NotRequired[str]


class Suite(TypedDict):
    """A suite's part of a record, once `checked` has filled in what may be left out."""

    status: str
    scalars: dict[str, Any]
    tables: list[Table]
    figures: dict[str, str]
    note: NotRequired[str]
    reason: NotRequired[str]
    remedy: NotRequired[str]


class Record(TypedDict):
    """A whole record, once `checked`."""

    run: dict[str, Any]
    suites: dict[str, Suite]
    nulls: dict[str, str]


def checked(record: Mapping[str, Any]) -> Record:
    """The record as plain JSON values with every optional part filled in, and `nulls`: {place: what stood there}.

    Raises:
      RunError: naming the place, what was found and what was expected.
    """
    nulls: dict[str, str] = {}
    plain = _plain(dict(record), "", nulls)
    run, suites = plain.get("run"), plain.get("suites")
    if not isinstance(run, dict) or not isinstance(run.get("name"), str):
        raise RunError("record['run'] must be a dict with a 'name'")
    if not isinstance(suites, dict):
        raise RunError(f"record['suites'] must be a dict, got {type(suites).__name__}")
    for name, suite in suites.items():
        status = suite.get("status") if isinstance(suite, dict) else suite
        if status not in STATUSES:
            raise RunError(f"suite {name!r} must have a status of {' or '.join(STATUSES)}, got {status!r}")
        if status == "missing" and not suite.get("reason"):
            raise RunError(f"suite {name!r} is missing and must say in 'reason' what is not there")
        for key, empty in (("scalars", {}), ("tables", []), ("figures", {})):
            if not isinstance(suite.setdefault(key, empty), type(empty)):
                raise RunError(f"suite {name!r}: {key} must be a {type(empty).__name__}, got {suite[key]!r:.60}")
        for index, table in enumerate(suite["tables"]):
            if not isinstance(table, dict):
                raise RunError(f"suite {name!r}, table {index}: must be a dict, got {table!r:.60}")
            columns, rows = table.setdefault("columns", []), table.setdefault("rows", [])
            if any(len(row) != len(columns) for row in rows):
                raise RunError(f"suite {name!r}, table {index}: every row must have {len(columns)} cells, as columns")
    plain["nulls"] = plain.get("nulls", {}) | nulls
    return plain


def _plain(value: Any, place: str, nulls: dict[str, str]) -> Any:
    """`value` in the types that JSON has; numbers that are not finite become None and are written down in `nulls`."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{place}.{key}" if place else str(key), nulls) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{index}]", nulls) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        nulls[place] = str(value)
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise RunError(f"record at {place!r} must be a number, text, list or dict, got {type(value).__name__}")
