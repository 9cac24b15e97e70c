"""The report of an evaluation: eval.json, eval.md, a self-contained eval.html, and the figures as PNG files.

    write_report(record, {"confusion": figure}, "runs/digits/evaluation")

See record.py for what a record holds. `_write` writes both pages, part by part. No jax is imported.
"""

import base64
import html
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sem_jax.config import flatten
from sem_jax.errors import RunError, plain
from sem_jax.evaluation.report.figures import DOTS_PER_INCH, to_png
from sem_jax.evaluation.report.record import Record, Suite, Table, checked
from sem_jax.runs.records import replacing

LONG = 30  # rows beyond which a table is folded away


def write_report(
    record: Mapping[str, Any],
    figures: Mapping[str, Figure | bytes],
    outdir: str | os.PathLike,
    *,
    stem: str = "eval",
    title: str = "",
    part: str = "suite",
) -> None:
    """Writes the report of `record` below `outdir`: pictures, eval.md, eval.html, and last eval.json.

    Args:
      record: see record.py.
      figures: name -> Figure, or the bytes of a PNG, for `<name>.png`. Those that no suite names are shown at the end.
      outdir: made if it is not there.
      stem: of the three files' names.
      title: of the report; "" = "Evaluation of" the run.
      part: word for a suite.

    Raises:
      RunError: a record that is not as described, a figure's name that is no plain file name, or a figure that a
        suite names and `figures` lacks. Nothing is written then.
    """
    record = checked(record)
    named = [name for suite in record["suites"].values() for name in suite["figures"]]
    for name in [*figures, *named]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise RunError(f"figure name {name!r} must be letters, digits, '_', '-' and '.', as it becomes a file name")
    if missing := sorted(set(named) - set(figures)):
        raise RunError(f"suites name figures that were not given: {', '.join(missing)}")
    pictures = {name: it if isinstance(it, bytes) else to_png(it) for name, it in figures.items()}
    title = title or f"Evaluation of {record['run']['name']}"
    others = [name for name in pictures if name not in named]
    folder = Path(outdir)
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{name}.png": picture for name, picture in pictures.items()}
    for page in (_Markdown(), _Html(title, pictures)):
        _write(page, record, others, title, part)
        files[f"{stem}.{page.suffix}"] = page.text().encode()
    files[f"{stem}.json"] = (json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
    for name, content in files.items():
        with replacing(folder / name) as file:
            file.write(content)


def _write(page: "_Markdown | _Html", record: Record, others: list[str], title: str, part: str) -> None:
    """Writes the contents of the report from top to bottom."""
    run, suites = record["run"], record["suites"]
    page.heading(title, 1)
    page.paragraph(", ".join(f"{key} {_text(run[key])}" for key in ("checkpoint", "step") if key in run))
    overview = [[name, suite["status"], _headline(suite)] for name, suite in suites.items()]
    page.table({"columns": [part, "status", "in short"], "rows": overview})
    for name, suite in suites.items():
        page.heading(name)
        if suite["status"] == "missing":
            page.paragraph(f"Missing: {_headline(suite)}", alarming=True)
        page.paragraph(suite.get("note") or "")
        if scalars := suite["scalars"]:
            page.table({"columns": list(scalars), "rows": [list(scalars.values())]})
        for table in suite["tables"]:
            page.table(table)
        for figure, caption in suite["figures"].items():
            page.picture(figure, caption)
    if others:
        page.heading("More figures")
    for name in others:
        page.picture(name, name)
    page.heading("Settings")
    # Settings are shown exactly, unlike measured numbers.
    rows = [[name, repr(value) if isinstance(value, float) else value] for name, value in flatten(run)]
    page.table({"title": "Settings, data and versions", "columns": ["field", "value"], "rows": rows})
    if record["nulls"]:
        rows = [list(it) for it in record["nulls"].items()]
        page.table({"title": "Numbers that are not finite", "columns": ["place", "was"], "rows": rows})


def _headline(suite: Suite) -> str:
    if suite["status"] == "missing":
        return " ".join(f"{suite.get('reason')} {suite.get('remedy') or ''}".split())
    first = list(suite["scalars"].items())[:4]
    return ", ".join(f"{name} {_text(value)}" for name, value in first) or suite.get("note") or ""


def _text(value: Any) -> str:
    """Text of a cell: numbers that are not whole to about four figures, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        size = abs(value)
        if value == 0 or 1e-4 <= size < 10:
            return f"{value:.4f}"
        return f"{value:.2f}" if 10 <= size < 1e5 else f"{value:.3g}"
    return plain(str(value) if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False))


class _Markdown:
    suffix = "md"

    def __init__(self):
        self.parts: list[str] = []

    def plain(self, value: Any) -> str:
        text = html.escape(" ".join(_text(value).split()), quote=False)
        return re.sub(r"([\\`*|\[\]])", r"\\\1", text)

    def heading(self, text: str, level: int = 2) -> None:
        self.parts.append(f"{'#' * level} {self.plain(text)}")

    def paragraph(self, text: str, alarming: bool = False) -> None:
        self.parts += [self.plain(text)] if text else []

    def table(self, it: Table) -> None:
        def row(cells: Iterable) -> str:
            return f"| {' | '.join(map(self.plain, cells))} |"

        title = it.get("title")
        self.parts += [f"**{self.plain(title)}**"] if title else []
        self.parts.append("\n".join([row(it["columns"]), f"|{' --- |' * len(it['columns'])}", *map(row, it["rows"])]))
        self.paragraph(it.get("note") or "")

    def picture(self, name: str, caption: str) -> None:
        self.parts += [f"![{self.plain(caption)}]({name}.png)", self.plain(caption)]

    def text(self) -> str:
        return "\n\n".join(self.parts) + "\n"


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


class _Html:
    """One file that makes no request, which the policy in its head enforces. Every text is escaped."""

    suffix = "html"

    def __init__(self, title: str, pictures: Mapping[str, bytes]):
        self.title, self.pictures, self.parts = title, pictures, []

    def plain(self, value: Any) -> str:
        return html.escape(_text(value))

    def heading(self, text: str, level: int = 2) -> None:
        self.parts.append(f"<h{level}>{self.plain(text)}</h{level}>")

    def paragraph(self, text: str, alarming: bool = False) -> None:
        mark = ' class="missing"' if alarming else ""
        self.parts += [f"<p{mark}>{self.plain(text)}</p>"] if text else []

    def table(self, it: Table) -> None:
        rows, number = it["rows"], (int, float, type(None))
        right = [bool(rows) and all(isinstance(r[c], number) for r in rows) for c in range(len(it["columns"]))]
        marks = [' class="n"' if is_right else "" for is_right in right]

        def line(tag: str, row: list) -> str:
            cells = (f"<{tag}{mark}>{self.plain(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=True))
            return f"<tr>{''.join(cells)}</tr>\n"

        head, body = line("th", it["columns"]), "".join(line("td", row) for row in rows)
        title, long = self.plain(it.get("title") or ""), len(rows) > LONG
        caption = f"<caption>{title}</caption>" if title and not long else ""
        self.parts += [f"<details><summary>{title} ({len(rows)} rows)</summary>"] if long else []
        self.parts.append(f'<div class="scroll"><table>{caption}<thead>{head}</thead>{body}</table></div>')
        self.paragraph(it.get("note") or "")
        self.parts += ["</details>"] if long else []

    def picture(self, name: str, caption: str) -> None:
        data, caption = self.pictures[name], self.plain(caption)
        # The size, from the PNG's header, keeps the page from jumping while it loads.
        width, height = (int.from_bytes(data[at : at + 4], "big") * 96 // DOTS_PER_INCH for at in (16, 20))
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        image = f'<img src="{source}" width="{width}" height="{height}" alt="{caption}">'
        self.parts.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")

    def text(self) -> str:
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{self.plain(self.title)}</title><style>{_CSS}</style></head>
<body>
{chr(10).join(self.parts)}
</body></html>
"""
