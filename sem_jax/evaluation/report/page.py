"""The report of an evaluation: eval.json, eval.md, a self-contained eval.html, and the figures as PNG files.

    write_report(record, {"confusion": figure}, "runs/digits/evaluation")

What a record holds is said in record.py. Both pages are made from one list of blocks; no jax is imported.
"""

import base64
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from sem_jax.errors import RunError
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
    """Writes the report of `record` below `outdir`: the pictures, eval.md, eval.html, and last eval.json.

    Each file is replaced whole, and eval.json comes last: where it is there, the rest is complete.

    Args:
      record: see record.py.
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
    title = title or f"Evaluation of {record['run']['name']}"
    blocks = list(_blocks(record, [name for name in pictures if name not in named], title, part))
    folder = Path(outdir)
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{name}.png": picture for name, picture in pictures.items()}
    files[f"{stem}.md"] = _markdown(blocks).encode()
    files[f"{stem}.html"] = _page(blocks, title, pictures).encode()
    files[f"{stem}.json"] = (json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
    for name, content in files.items():
        with replacing(folder / name) as file:
            file.write(content)


class Heading(NamedTuple):
    """A heading of level 1 or 2."""

    text: str
    level: int = 2


class Text(NamedTuple):
    """A paragraph; an alarming one says what is missing."""

    text: str
    alarming: bool = False


class Picture(NamedTuple):
    """A figure with what is written below it."""

    name: str
    caption: str


Block = Heading | Text | Picture | Table


def _blocks(record: Record, others: list[str], title: str, part: str) -> Iterator[Block]:
    """What the report shows, from top to bottom."""
    run, suites = record["run"], record["suites"]
    yield Heading(title, 1)
    yield Text(", ".join(f"{key} {_text(run[key])}" for key in ("checkpoint", "step") if key in run))
    overview = [[name, suite["status"], _headline(suite)] for name, suite in suites.items()]
    yield {"columns": [part, "status", "in short"], "rows": overview}
    for name, suite in suites.items():
        yield Heading(name)
        if suite["status"] == "missing":
            yield Text(f"Missing: {_headline(suite)}", alarming=True)
        yield Text(suite.get("note") or "")
        if scalars := suite["scalars"]:
            yield {"columns": list(scalars), "rows": [list(scalars.values())]}
        yield from suite["tables"]
        yield from (Picture(figure, caption) for figure, caption in suite["figures"].items())
    if others:
        yield Heading("More figures")
        yield from (Picture(name, name) for name in others)
    yield Heading("Settings")
    yield {"title": "Settings, data and versions", "columns": ["field", "value"], "rows": list(_flat(run))}
    if record["nulls"]:
        rows = [list(it) for it in record["nulls"].items()]
        yield {"title": "Numbers that are not finite", "columns": ["place", "was"], "rows": rows}


def _headline(suite: Suite) -> str:
    if suite["status"] == "missing":
        return " ".join(f"{suite.get('reason')} {suite.get('remedy') or ''}".split())
    first = list(suite["scalars"].items())[:4]
    return ", ".join(f"{name} {_text(value)}" for name, value in first) or suite.get("note") or ""


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[list]:
    for key, value in fields.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:  # settings are shown as they were written: 0.0001, not a measured number's four figures
            yield [prefix + key, repr(value) if isinstance(value, float) else value]


def _text(value: Any) -> str:
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


def _markdown(blocks: Iterable[Block]) -> str:
    def plain(value: Any) -> str:
        text = html.escape(" ".join(_text(value).split()), quote=False)
        return re.sub(r"([\\`*|\[\]])", r"\\\1", text)

    def row(cells: Iterable) -> str:
        return f"| {' | '.join(map(plain, cells))} |"

    def written(block: Block) -> list[str]:
        match block:
            case Heading(text, level):
                return [f"{'#' * level} {plain(text)}"]
            case Text(text):
                return [plain(text)] if text else []
            case Picture(name, caption):
                return [f"![{plain(caption)}]({name}.png)", plain(caption)]
        lines = [row(block["columns"]), f"|{' --- |' * len(block['columns'])}", *map(row, block["rows"])]
        title, note = plain(block.get("title") or ""), plain(block.get("note") or "")
        return [*([f"**{title}**"] if title else []), "\n".join(lines), *([note] if note else [])]

    return "\n\n".join(part for block in blocks for part in written(block)) + "\n"


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


def _page(blocks: Iterable[Block], title: str, pictures: Mapping[str, bytes]) -> str:
    """One file that asks no host for anything, which the policy in its head enforces; every text is escaped."""

    def plain(value: Any) -> str:
        return html.escape(_text(value))

    def table(it: Table) -> str:
        rows, number = it["rows"], (int, float, type(None))
        right = [bool(rows) and all(isinstance(r[c], number) for r in rows) for c in range(len(it["columns"]))]
        marks = [' class="n"' if is_right else "" for is_right in right]

        def line(tag: str, row: list) -> str:
            cells = (f"<{tag}{mark}>{plain(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=True))
            return f"<tr>{''.join(cells)}</tr>\n"

        head, body = line("th", it["columns"]), "".join(line("td", row) for row in rows)
        title, note = plain(it.get("title") or ""), plain(it.get("note") or "")
        long = len(rows) > LONG
        text = f"<caption>{title}</caption>" if title and not long else ""
        text = f'<div class="scroll"><table>{text}<thead>{head}</thead>{body}</table></div>'
        text += f"<p>{note}</p>" if note else ""
        return f"<details><summary>{title} ({len(rows)} rows)</summary>{text}</details>" if long else text

    def written(block: Block) -> str:
        match block:
            case Heading(text, level):
                return f"<h{level}>{plain(text)}</h{level}>"
            case Text(text, alarming):
                mark = ' class="missing"' if alarming else ""
                return f"<p{mark}>{plain(text)}</p>" if text else ""
            case Picture(name, caption):
                data = pictures[name]
                # A PNG's header holds its size: with it the page does not jump while it loads.
                width, height = (int.from_bytes(data[at : at + 4], "big") * 96 // DOTS_PER_INCH for at in (16, 20))
                source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
                image = f'<img src="{source}" width="{width}" height="{height}" alt="{plain(caption)}">'
                return f"<figure>{image}<figcaption>{plain(caption)}</figcaption></figure>"
        return table(block)

    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{plain(title)}</title><style>{_CSS}</style></head>
<body>
{chr(10).join(filter(None, map(written, blocks)))}
</body></html>
"""
