"""The record of an evaluation, which becomes eval.json: its types and its check.

    checked({"run": {"name": "wrn_c10"}, "suites": {"clean": {"status": "done", "scalars": {"top1": 0.9512}}}})

Accuracies and rates are fractions in [0, 1]; `units` says which numbers the pages show in percent. NumPy numbers and
arrays are allowed. JSON has no NaN or infinity: such a number becomes null, and `nulls` has its place and value.
"""

import math
import os
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np

from sem_jax.errors import RunError

STATUSES = ("done", "missing")
PARTS = ("training", "comparison")  # of the page beside the suites; each is there or not


class Table(TypedDict):
    columns: list[str]
    rows: list[list[Any]]  # a cell for each column
    title: NotRequired[str]
    note: NotRequired[str]
    units: NotRequired[dict[str, str]]  # column -> "%" or "points": fractions, which pages show times 100
    row_units: NotRequired[list[str]]  # the same for each row, where rows are different quantities


class Suite(TypedDict):
    status: str  # "done", or "missing" with a reason
    scalars: dict[str, Any]  # name -> number; `checked` adds this and the next two if they are left out
    tables: list[Table]
    figures: dict[str, str]  # name -> caption
    units: NotRequired[dict[str, str]]  # scalar -> unit, as in Table
    galleries: NotRequired[dict[str, list[dict[str, Any]]]]  # figure -> row, true and predicted class of its pictures
    note: NotRequired[str]
    reason: NotRequired[str]  # what is missing: "no data set 'svhn' below DIR"
    remedy: NotRequired[str]  # how to get it: "python -m sem_jax prepare svhn"


class Record(TypedDict):
    run: dict[str, Any]  # name: str; checkpoint, step, config, data, versions ... of any kind, shown as dotted fields
    suites: dict[str, Suite]
    training: NotRequired[Suite]  # learning curves
    comparison: NotRequired[Suite]  # this run beside others
    nulls: dict[str, str]  # place -> number that is not finite


def checked(record: Mapping[str, Any]) -> Record:
    """Returns the record in plain JSON values, with every part and with `nulls`.

    Raises:
      RunError: names the place, what was found and what was expected.
    """
    nulls: dict[str, str] = {}
    plain = _plain(dict(record), "", nulls)
    run, suites = plain.get("run"), plain.get("suites")
    if not isinstance(run, dict) or not isinstance(run.get("name"), str):
        raise RunError("record['run'] must be a dict with a 'name'")
    if not isinstance(suites, dict):
        raise RunError(f"record['suites'] must be a dict, got {type(suites).__name__}")
    for name, suite in [*suites.items(), *((part, plain[part]) for part in PARTS if part in plain)]:
        _check_suite(name, suite)
    plain["nulls"] = plain.get("nulls", {}) | nulls
    return plain


def parts(record: Record) -> dict[str, Suite]:
    """The parts of the page in its order: what is beside the suites, then these."""
    beside = {"training": record.get("training"), "comparison": record.get("comparison")}
    return {name: it for name, it in beside.items() if it is not None} | record["suites"]


def _check_suite(name: str, suite: Any) -> None:
    """Adds what is left out.

    Raises:
      RunError: as `checked`.
    """
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
        if len(table.get("row_units", rows)) != len(rows):
            raise RunError(f"suite {name!r}, table {index}: row_units must have {len(rows)} units, as rows")


def _plain(value: Any, place: str, nulls: dict[str, str]) -> Any:
    """`value` in JSON's types; numbers that are not finite become None and are added to `nulls`."""
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
