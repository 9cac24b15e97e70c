"""The report of an evaluation: eval.json, eval.md, a self-contained eval.html, and the figures as PNG files.

A record is a plain dict:

    {"run": {"name": "wrn_c10",            # str
             "checkpoint": "final",        # str: final, best_val or the folder
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

import base64
import html
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sem_jax.errors import RunError
from sem_jax.evaluation.report.figures import to_png

STATUSES = ("done", "missing")


def write_report(
    record: Mapping,
    figures: Mapping[str, Figure | bytes],
    outdir: str | os.PathLike,
    *,
    stem: str = "eval",
    title: str = "",
    part: str = "suite",
) -> None:
    """Writes the report of `record` below `outdir`: the pictures, eval.md, eval.html, and last eval.json.

    Each file is replaced whole, and eval.json comes last: where it is there, the rest is complete.

    Args:
      record: as at the head of this file.
      figures: name -> Figure, or the bytes of a PNG; the name becomes `<name>.png`. Figures that no suite names
        are shown at the end.
      outdir: made if it is not there.
      stem: of the three files' names.
      title: of the report; "" = "Evaluation of" the run.
      part: what a suite is called.

    Raises:
      RunError: for a record that is not as described, a figure's name that is no plain file name, or a figure that
        a suite names and `figures` lacks. Nothing is written then.
    """
    record = checked(record)
    named = [name for suite in record["suites"].values() for name in suite["figures"]]
    for name in [*figures, *named]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise RunError(f"figure name {name!r} must be letters, digits, '_', '-' and '.', as it becomes a file name")
    if missing := sorted(set(named) - set(figures)):
        raise RunError(f"suites name figures that were not given: {', '.join(missing)}")
    pictures = {name: it if isinstance(it, bytes) else to_png(it) for name, it in figures.items()}
    others = [name for name in pictures if name not in named]
    folder = Path(outdir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        _replace(folder / f"{name}.png", picture)
    title = title or f"Evaluation of {record['run']['name']}"
    _replace(folder / f"{stem}.md", _markdown(record, others, title, part).encode())
    _replace(folder / f"{stem}.html", _page(record, pictures, others, title, part).encode())
    _replace(
        folder / f"{stem}.json", (json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
    )


def checked(record: Mapping) -> dict:
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
    return plain | {"nulls": plain.get("nulls", {}) | nulls}


def _plain(value, place: str, nulls: dict[str, str]):
    """`value` in the types that JSON has; numbers that are not finite become None and are written down."""
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


def _replace(path: Path, content: bytes) -> None:
    """Writes the file beside its place and moves it there, so that no reader ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _text(value) -> str:
    """A cell: whole numbers whole, others to about four figures, what is not there as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        size = abs(value)
        if value == 0 or 1e-4 <= size < 10:
            return f"{value:.4f}"
        return f"{value:.2f}" if 10 <= size < 1e5 else f"{value:.3g}"
    return str(value) if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)


def _flat(fields, prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in fields.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:  # settings are shown as they were written: 0.0001, not a measured number's four figures
            yield prefix + key, repr(value) if isinstance(value, float) else value


def _tables(suite: dict) -> list[dict]:
    """The suite's scalars, as a table, and its tables."""
    scalars = [{"title": "", "columns": list(suite["scalars"]), "rows": [list(suite["scalars"].values())]}]
    return (scalars if suite["scalars"] else []) + suite["tables"]


def _headline(suite: dict) -> str:
    if suite["status"] == "missing":
        return " ".join(f"{suite['reason']} {suite.get('remedy') or ''}".split())
    first = list(suite["scalars"].items())[:4]
    return ", ".join(f"{name} {_text(value)}" for name, value in first) or suite.get("note") or ""


def _markdown(record: dict, others: list[str], title: str, part: str) -> str:
    def plain(value) -> str:
        text = html.escape(" ".join(_text(value).split()), quote=False)
        return re.sub(r"([\\`*|\[\]])", r"\\\1", text)

    def row(cells: Iterable) -> str:
        return f"| {' | '.join(map(plain, cells))} |"

    def table(it: dict) -> list[str]:
        title, note = it.get("title"), it.get("note")
        lines = [f"**{plain(title)}**", ""] if title else []
        lines += [row(it["columns"]), f"|{' --- |' * len(it['columns'])}", *map(row, it["rows"]), ""]
        return lines + ([plain(note), ""] if note else [])

    run, suites = record["run"], record["suites"]
    lines = [f"# {plain(title)}", ""]
    overview = [[name, suite["status"], _headline(suite)] for name, suite in suites.items()]
    lines += table({"columns": [part, "status", "in short"], "rows": overview})
    for name, suite in suites.items():
        lines += [f"## {plain(name)}", ""]
        lines += [f"Missing: {plain(_headline(suite))}", ""] if suite["status"] == "missing" else []
        lines += [plain(suite["note"]), ""] if suite.get("note") else []
        for it in _tables(suite):
            lines += table(it)
        for figure, caption in suite["figures"].items():
            lines += [f"![{plain(caption)}]({figure}.png)", "", plain(caption), ""]
    if others:
        lines += ["## More figures", ""] + [f"![{plain(name)}]({name}.png)" for name in others] + [""]
    lines += ["## Settings, data and versions", ""] + table({"columns": ["field", "value"], "rows": list(_flat(run))})
    if record["nulls"]:
        rows = list(record["nulls"].items())
        lines += table({"title": "Numbers that are not finite", "columns": ["place", "was"], "rows": rows})
    return "\n".join(lines)


_CSS = """
:root{color-scheme:light dark;--ink:#1d1d1f;--soft:#5c5f66;--line:#d9dbe0;--back:#fff;--card:#f5f6f8;--bad:#a33c00}
@media(prefers-color-scheme:dark){
:root{--ink:#e8e8ea;--soft:#a5a8b0;--line:#3b3e45;--back:#17181b;--card:#22242a;--bad:#ffb182}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:1rem;font:16px/1.5 system-ui,sans-serif}
body{color:var(--ink);background:var(--back)}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.25rem;margin-top:2.5rem;border-bottom:1px solid var(--line)}
h1,h2,p,figcaption{overflow-wrap:anywhere}
td{overflow-wrap:break-word;max-width:44rem}td:last-child:not(.n){overflow-wrap:anywhere;min-width:8rem}
p,figcaption{color:var(--soft)}.missing{color:var(--bad)}a{color:inherit}
.scroll{overflow-x:auto;margin:.5rem 0 1rem}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
caption,summary{text-align:left;font-weight:600;padding:.3rem 0}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;min-width:4rem}
th{background:var(--card)}td.n,th.n{text-align:right;white-space:nowrap}
figure{margin:1rem 0}
img{max-width:100%;height:auto;background:#fff;padding:.5rem;border-radius:6px;border:1px solid var(--line)}
"""


def _page(record: dict, pictures: Mapping[str, bytes], others: list[str], title: str, part: str) -> str:
    """One file without a request to anywhere, which the policy in its head enforces; every text is escaped."""

    def plain(value) -> str:
        return html.escape(_text(value))

    def table(it: dict) -> str:
        rows, number = it["rows"], (int, float, type(None))
        right = [bool(rows) and all(isinstance(r[c], number) for r in rows) for c in range(len(it["columns"]))]
        marks = [' class="n"' if is_right else "" for is_right in right]

        def line(tag: str, row: list) -> str:
            cells = (f"<{tag}{mark}>{plain(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=True))
            return f"<tr>{''.join(cells)}</tr>\n"

        head, body = line("th", it["columns"]), "".join(line("td", row) for row in rows)
        title, note = it.get("title"), it.get("note")
        long = len(rows) > 30
        text = f"<caption>{plain(title)}</caption>" if title and not long else ""
        text = f'<div class="scroll"><table>{text}<thead>{head}</thead>{body}</table></div>'
        text += f"<p>{plain(note)}</p>" if note else ""
        return f"<details><summary>{plain(title)} ({len(rows)} rows)</summary>{text}</details>" if long else text

    def picture(name: str, caption) -> str:
        data = pictures[name]
        # A PNG's header holds its size: with it the page does not jump while it loads. Figures have 150 dots an inch.
        width, height = (int.from_bytes(data[at : at + 4], "big") * 96 // 150 for at in (16, 20))
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        image = f'<img src="{source}" width="{width}" height="{height}" alt="{plain(caption)}">'
        return f"<figure>{image}<figcaption>{plain(caption)}</figcaption></figure>"

    def section(name: str, suite: dict) -> str:
        parts = [f"<h2>{plain(name)}</h2>"]
        if suite["status"] == "missing":
            parts.append(f'<p class="missing">Missing: {plain(_headline(suite))}</p>')
        parts += [f"<p>{plain(suite['note'])}</p>"] if suite.get("note") else []
        parts += map(table, _tables(suite))
        parts += [picture(figure, caption) for figure, caption in suite["figures"].items()]
        return "<section>" + "\n".join(parts) + "</section>"

    run, suites = record["run"], record["suites"]
    title = plain(title)
    where = ", ".join(f"{key} {plain(run[key])}" for key in ("checkpoint", "step") if key in run)
    overview = [[name, suite["status"], _headline(suite)] for name, suite in suites.items()]
    parts = [f"<h1>{title}</h1><p>{where}</p>", table({"columns": [part, "status", "in short"], "rows": overview})]
    parts += [section(name, suite) for name, suite in suites.items()]
    parts += ["<h2>More figures</h2>", *(picture(name, name) for name in others)] if others else []
    rows = list(map(list, _flat(run)))
    fields = table({"title": "Settings, data and versions", "columns": ["field", "value"], "rows": rows})
    parts.append(f"<h2>Settings</h2>{fields}")
    if record["nulls"]:
        rows = list(map(list, record["nulls"].items()))
        parts.append(table({"title": "Numbers that are not finite", "columns": ["place", "was"], "rows": rows}))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title><style>{_CSS}</style></head>
<body>
{chr(10).join(parts)}
</body></html>
"""
