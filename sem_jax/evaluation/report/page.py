"""The report of an evaluation: eval.json, eval.md, a self-contained eval.html, and the figures as PNG files.

    write_report(record, {"confusion": figure}, "runs/digits/evaluation")

See record.py for what a record holds. `_write` writes both pages, part by part. No jax is imported.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sem_jax.config import flatten
from sem_jax.errors import RunError
from sem_jax.evaluation.report import summary
from sem_jax.evaluation.report.figures import DOTS_PER_INCH, to_png
from sem_jax.evaluation.report.gallery import Gallery
from sem_jax.evaluation.report.record import Record, Suite, Table, checked, parts
from sem_jax.evaluation.report.text import anchors, with_unit
from sem_jax.evaluation.report.writers import Html, Markdown
from sem_jax.runs.records import replacing

SETTINGS, MORE = "Settings", "More figures"


def write_report(
    record: Mapping[str, Any],
    figures: Mapping[str, Figure | Gallery | bytes],
    outdir: str | os.PathLike,
    *,
    stem: str = "eval",
    title: str = "",
) -> None:
    """Writes the report of `record` below `outdir`: pictures, eval.md, eval.html, and last eval.json.

    Args:
      record: see record.py.
      figures: name -> Figure, gallery, or the bytes of a PNG, for `<name>.png`. Those that no suite names are shown at
        the end.
      outdir: made if it is not there.
      stem: of the three files' names.
      title: of the report; "" = "Evaluation of" the run.

    Raises:
      RunError: a record that is not as described, a figure's name that is no plain file name, or a figure that a
        suite names and `figures` lacks. Nothing is written then.
    """
    record = checked(record)
    named = [name for suite in parts(record).values() for name in suite["figures"]]
    for name in [*figures, *named]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise RunError(f"figure name {name!r} must be letters, digits, '_', '-' and '.', as it becomes a file name")
    if missing := sorted(set(named) - set(figures)):
        raise RunError(f"suites name figures that were not given: {', '.join(missing)}")
    pictures = {name: it if isinstance(it, bytes) else to_png(_figure(it)) for name, it in figures.items()}
    title = title or f"Evaluation of {record['run']['name']}"
    others = [name for name in pictures if name not in named]
    folder = Path(outdir)
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{name}.png": picture for name, picture in pictures.items()}
    galleries = {name: it for name, it in figures.items() if isinstance(it, Gallery)}
    for page in (Markdown(), Html(title, pictures | galleries, DOTS_PER_INCH)):
        _write(page, record, others, title)
        files[f"{stem}.{page.suffix}"] = page.text().encode()
    files[f"{stem}.json"] = (json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
    for name, content in files.items():
        with replacing(folder / name) as file:
            file.write(content)


def _figure(it: Figure | Gallery) -> Figure:
    return it.sheet() if isinstance(it, Gallery) else it


def _write(page: Markdown | Html, record: Record, others: list[str], title: str) -> None:
    """Writes the contents of the report from top to bottom."""
    shown = parts(record)
    named = anchors([*shown, *([MORE] if others else []), SETTINGS])
    page.heading(title, 1)
    if about := summary.facts(record):
        page.facts(about)
    if (numbers := summary.main_numbers(record))["rows"]:
        page.table(numbers)
    page.contents([(named[name], name, _headline(shown[name]) if name in shown else "") for name in named])
    for name, suite in shown.items():
        page.heading(name, anchor=named[name])
        _write_suite(page, suite)
    if others:
        page.heading(MORE, anchor=named[MORE])
    for name in others:
        page.picture(name, name)
    page.heading(SETTINGS, anchor=named[SETTINGS])
    # Settings are shown exactly, unlike measured numbers.
    rows = [[name, repr(value) if isinstance(value, float) else value] for name, value in flatten(record["run"])]
    page.table({"title": "Settings, data and versions", "columns": ["field", "value"], "rows": rows})
    if record["nulls"]:
        rows = [list(it) for it in record["nulls"].items()]
        page.table({"title": "Numbers that are not finite", "columns": ["place", "was"], "rows": rows})


def _write_suite(page: Markdown | Html, suite: Suite) -> None:
    if suite["status"] == "missing":
        page.paragraph(_headline(suite), alarming=True)
    page.paragraph(suite.get("note") or "")
    if scalars := suite["scalars"]:
        table: Table = {"columns": list(scalars), "rows": [list(scalars.values())], "units": suite.get("units") or {}}
        page.table(table)
    for table in suite["tables"]:
        page.table(table)
    for figure, caption in suite["figures"].items():
        page.picture(figure, caption)


def _headline(suite: Suite) -> str:
    if suite["status"] == "missing":
        return "Missing: " + " ".join(f"{suite.get('reason')} {suite.get('remedy') or ''}".split())
    units = suite.get("units") or {}
    first = list(suite["scalars"].items())[:4]
    return ", ".join(f"{name} {with_unit(value, units.get(name, ''))}" for name, value in first) or _sentence(suite)


def _sentence(suite: Suite) -> str:
    """The first sentence of the note, which stands whole below."""
    return re.split(r"(?<=[.]) ", suite.get("note") or "", maxsplit=1)[0]
