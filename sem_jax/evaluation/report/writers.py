"""The two pages of a report: `Markdown` and `Html`, each written part by part with the same calls."""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sem_jax.evaluation.report.gallery import Gallery
from sem_jax.evaluation.report.record import Table
from sem_jax.evaluation.report.text import text, with_unit

LONG = 30  # rows beyond which a table is folded away
INCH = 96  # pixels of a page


def shown(table: Table) -> tuple[list[str], list[list[str]]]:
    """Columns and cells as they are read. Where rows have units, the unit is in the cell; else in the column's name."""
    units, columns, rows = table.get("units") or {}, table["columns"], table["rows"]
    if by_row := table.get("row_units"):
        cells = [
            [with_unit(cell, units.get(name, unit) if unit else "") for name, cell in zip(columns, row, strict=True)]
            for row, unit in zip(rows, by_row, strict=True)
        ]
        return columns, cells
    named = [f"{name} ({units[name]})" if name in units else name for name in columns]
    cells = [[text(cell, units.get(name, "")) for name, cell in zip(columns, row, strict=True)] for row in rows]
    return named, cells


class Markdown:
    suffix = "md"

    def __init__(self):
        self.parts: list[str] = []

    def plain(self, value: Any) -> str:
        escaped = html.escape(" ".join(text(value).split()), quote=False)
        return re.sub(r"([\\`*|\[\]])", r"\\\1", escaped)

    def heading(self, title: str, level: int = 2, anchor: str = "") -> None:
        self.parts.append(f"{'#' * level} {self.plain(title)}")

    def paragraph(self, words: str, alarming: bool = False) -> None:
        self.parts += [self.plain(words)] if words else []

    def facts(self, pairs: Sequence[tuple[str, str]]) -> None:
        lines = (": ".join(self.plain(words) for words in pair if words) for pair in pairs)
        self.parts.append("\n".join(f"- {line}" for line in lines))

    def contents(self, entries: Sequence[tuple[str, str, str]]) -> None:
        self.facts([(name, words) for _, name, words in entries])

    def table(self, it: Table) -> None:
        def row(cells: Iterable) -> str:
            return f"| {' | '.join(map(self.plain, cells))} |"

        columns, rows = shown(it)
        title = it.get("title")
        self.parts += [f"**{self.plain(title)}**"] if title else []
        self.parts.append("\n".join([row(columns), f"|{' --- |' * len(columns)}", *map(row, rows)]))
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
h1,h2,p,figcaption,dd,li{overflow-wrap:anywhere}h2 a{text-decoration:none}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr));gap:.7rem 1.2rem;margin:1rem 0}
dt{color:var(--soft);font-size:.85rem}dd{margin:0}
nav{background:var(--card);border-radius:6px;padding:.6rem 1rem;margin:1rem 0}
nav ul{margin:.3rem 0;padding-left:1.1rem}nav li{color:var(--soft)}nav li a{color:var(--ink);font-weight:600}
td{overflow-wrap:break-word;max-width:44rem}td:last-child:not(.n){overflow-wrap:anywhere;min-width:8rem}
p,figcaption{color:var(--soft)}.missing{color:var(--bad)}a{color:inherit}
.scroll{overflow-x:auto;margin:.5rem 0 1rem}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
caption,summary{text-align:left;font-weight:600;padding:.3rem 0}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;min-width:4rem}
th{background:var(--card)}td.n,th.n{text-align:right;white-space:nowrap}
@media(min-width:60rem){td:first-child:has(+td.n){white-space:nowrap}} /* the name of a run before its numbers */
figure{margin:1rem 0}
img{max-width:100%;height:auto;background:#fff;padding:.5rem;border-radius:6px;border:1px solid var(--line)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(7.2rem,1fr));gap:.6rem}
.tiles figure{margin:0;font-size:.8rem;line-height:1.3}.tiles img{padding:0;image-rendering:pixelated;border-radius:3px}
/* On a phone a chart keeps a legible size, and is scrolled. */
@media(max-width:40rem){.chart div{overflow-x:auto}.chart img{max-width:40rem}
body{padding:.7rem}th,td{padding:.25rem .45rem;min-width:3rem}h1{font-size:1.35rem}}
"""


class Html:
    """One file that makes no request, which the policy in its head enforces. Every text is escaped."""

    suffix = "html"

    def __init__(self, title: str, pictures: Mapping[str, bytes | Gallery], dots_per_inch: int):
        self.title, self.pictures, self.dots, self.parts = title, pictures, dots_per_inch, []

    def plain(self, value: Any) -> str:
        return html.escape(text(value))

    def heading(self, title: str, level: int = 2, anchor: str = "") -> None:
        words, mark = self.plain(title), f' id="{anchor}"' if anchor else ""
        words = f'<a href="#{anchor}">{words}</a>' if anchor else words
        self.parts.append(f"<h{level}{mark}>{words}</h{level}>")

    def paragraph(self, words: str, alarming: bool = False) -> None:
        mark = ' class="missing"' if alarming else ""
        self.parts += [f"<p{mark}>{self.plain(words)}</p>"] if words else []

    def facts(self, pairs: Sequence[tuple[str, str]]) -> None:
        body = (f"<div><dt>{self.plain(name)}</dt><dd>{self.plain(value)}</dd></div>" for name, value in pairs)
        self.parts.append(f"<dl>{''.join(body)}</dl>")

    def contents(self, entries: Sequence[tuple[str, str, str]]) -> None:
        lines = (f'<li><a href="#{a}">{self.plain(name)}</a> {self.plain(words)}</li>' for a, name, words in entries)
        self.parts.append(f'<nav aria-label="contents"><ul>{chr(10).join(lines)}</ul></nav>')

    def table(self, it: Table) -> None:
        columns, rows = shown(it)
        number = (int, float, type(None))
        right = [bool(rows) and all(isinstance(r[c], number) for r in it["rows"]) for c in range(len(columns))]
        marks = [' class="n"' if is_right else "" for is_right in right]

        def line(tag: str, row: list) -> str:
            cells = (f"<{tag}{mark}>{self.plain(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=True))
            return f"<tr>{''.join(cells)}</tr>\n"

        head, body = line("th", columns), "".join(line("td", row) for row in rows)
        title, long = self.plain(it.get("title") or ""), len(rows) > LONG
        caption = f"<caption>{title}</caption>" if title and not long else ""
        self.parts += [f"<details><summary>{title} ({len(rows)} rows)</summary>"] if long else []
        self.parts.append(f'<div class="scroll"><table>{caption}<thead>{head}</thead>{body}</table></div>')
        self.paragraph(it.get("note") or "")
        self.parts += ["</details>"] if long else []

    def picture(self, name: str, caption: str) -> None:
        picture, caption = self.pictures[name], self.plain(caption)
        if isinstance(picture, Gallery):
            tiles = zip(picture.tiles(), picture.captions, strict=True)
            body = "\n".join(self._image(data, w, h, self.plain(words)) for (data, w, h), words in tiles)
            self.parts.append(f'<p>{caption}</p><div class="tiles">{body}</div>')
            return
        # The size, from the PNG's header, keeps the page from jumping while it loads.
        width, height = (int.from_bytes(picture[at : at + 4], "big") * INCH // self.dots for at in (16, 20))
        self.parts.append(self._image(picture, width, height, caption, "chart"))

    def _image(self, data: bytes, width: int, height: int, caption: str, kind: str = "tile") -> str:
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        image = f'<img src="{source}" width="{width}" height="{height}" alt="{caption}">'
        return f'<figure class="{kind}"><div>{image}</div><figcaption>{caption}</figcaption></figure>'

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
