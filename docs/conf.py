"""The site, `python -m sphinx -W --keep-going -b html docs docs/_build`: these guides and the docstrings of sem_jax.

The guides are read on GitHub too, so their links are written as GitHub takes them. What lies outside docs/ is not on
the site: a link to it leads to a page that includes it, where there is one, and else to GitHub.
"""

import inspect
import os
import pydoc
import re
import sys
from functools import partial
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from docutils import nodes  # noqa: E402
from sphinx.ext import autosummary  # noqa: E402

import sem_jax  # noqa: E402

project = "sem_jax"
author = "the sem_jax authors"
version = release = sem_jax.__version__
REPOSITORY = "https://github.com/sem-jax/sem_jax"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]

html_theme = "furo"
html_title = f"sem_jax {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
smartquotes_action = "e"  # neither quotes nor dashes: a default of "" and an option --list stay as they are typed
pygments_style, pygments_dark_style = "friendly", "monokai"
highlight_language = "bash"  # of blocks that name none: commands

myst_heading_anchors = 3  # the ids of GitHub, which links use

autosummary_generate = True
autosummary.WELL_KNOWN_ABBREVIATIONS += ("Eq.",)  # no sentence ends there
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
default_role = "literal"  # docstrings write `code` as Markdown does

# Files outside docs/ that a page includes.
INCLUDED = {
    ROOT / "README.md": "index.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "experiments/results/README.md": "results.md",
    ROOT / "experiments/results/cpu/README.md": "results_cpu.md",
    ROOT / "experiments/results/mixers/README.md": "results_mixers.md",
    ROOT / "experiments/results/lengths/README.md": "results_lengths.md",
    ROOT / "experiments/speed/performance_notes.md": "performance.md",
}


def relink(text: str, folder: Path) -> str:
    """Makes the relative links of a Markdown file in `folder` lead to where the site has what they name."""

    def replaced(found: re.Match) -> str:
        picture, label, target = found.groups()
        file, hash_sign, anchor = target.partition("#")
        path = (folder / file).resolve()
        if ":" in target or not file or not path.exists():
            return found[0]
        if picture or path.is_relative_to(DOCS):
            place = os.path.relpath(path, DOCS)
        else:
            kind = "tree" if path.is_dir() else "blob"
            page = INCLUDED.get(path / "README.md" if path.is_dir() else path)
            place = page or f"{REPOSITORY}/{kind}/main/{path.relative_to(ROOT)}"
        return f"{picture}[{label}]({place}{hash_sign}{anchor})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", replaced, text)


def on_source(app, docname, content):
    if (DOCS / f"{docname}.md").exists():
        content[0] = relink(content[0], DOCS)


def on_include(app, path, parent, content):
    content[0] = relink(content[0], (DOCS / path).resolve().parent)


SECTION = re.compile(r"(Args|Returns|Raises|Attributes|Yields):$")


def as_rst(lines: list[str], module: bool) -> list[str]:
    """A docstring, which is laid out as Markdown is, in reStructuredText: indented code, tables, bars and stars.

    The sections of Google's style are left to napoleon.
    """
    # ruff moves code to the margin where all lines after the first are code.
    at_margin = not any(line.startswith(" ") for line in lines[1:])
    if (
        module
        and at_margin
        and any(re.match(r"[\w., ]+ = \w|[\w.]+\(|from \S+ import |python -m ", x) for x in lines[1:])
    ):
        lines = [lines[0], *(f"    {line}" if line else "" for line in lines[1:])]
    text, block, kind = [], [], ""
    before_sections, session = True, False
    for line in [*lines, ""]:
        session = ">>>" in line or session and bool(line.strip())  # a doctest, and what it prints
        before_sections &= not SECTION.match(line)
        line = re.sub(r"^( +)SemError:", r"\1~sem_jax.SemError:", line)  # documented in two places
        if not kind and (not text or not text[-1]):
            if line.startswith("  ") and before_sections and not session:
                kind, block = "code", []
            elif line.startswith("| "):
                kind, block = "table", []
        if kind == "code" and line and not line.startswith(" "):
            text += ["::", "", *block]
            kind = ""
        if kind == "table" and not line.startswith("|"):
            text += list_table(block)
            kind = ""
        if kind:
            block.append(line)
        elif session or line.startswith("    ") and not before_sections:
            text.append(line)
        else:
            text.append("`".join(escaped(part) if i % 2 == 0 else part for i, part in enumerate(line.split("`"))))
    return [*text, "::", "", *block] if kind == "code" else text


def escaped(text: str) -> str:
    return re.sub(
        r"\||(?<=, )\*(?=,)|(?<=, )\*\*(?=\w)", lambda found: found[0].replace("|", "\\|").replace("*", "\\*"), text
    )


def list_table(rows: list[str]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [rows[0], *rows[2:]]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(cells)]
    return [*lines, ""]


def comment_of(name: str) -> str:
    """The comment behind a field of a NamedTuple, which says its shape and meaning."""
    owner, _, field = name.rpartition(".")
    source = inspect.getsource(pydoc.locate(owner))
    found = re.search(rf"^ +{field}: [^#\n]*# (.*)$", source, re.MULTILINE)
    return found[1] if found else ""


def on_docstring(app, what, name, obj, options, lines):
    if lines and lines[0].startswith("Alias for field number"):
        lines[:] = [comment_of(name)]
    lines[:] = as_rst(lines, what == "module")


def dashes_of_fields(app, doctree, docname):
    """The two hyphens between a parameter and its meaning, which Sphinx leaves to smart quotes."""
    for body in doctree.findall(nodes.field_body):
        for text in [it for it in body.findall(nodes.Text) if str(it) == " -- "]:
            text.parent.replace(text, nodes.Text(" – "))


def words_of_commands(app, page, template, context, doctree):
    """Marks the words of blocks that name no language: a browser would break "--config" after its hyphens."""
    block = r'(?<=<div class="highlight-none notranslate"><div class="highlight"><pre><span></span>).*?(?=</pre>)'
    words = partial(re.sub, r"\S+", lambda word: f'<span class="word">{word[0]}</span>')
    context["body"] = re.sub(block, lambda found: words(found[0]), context.get("body", ""), flags=re.DOTALL)


def setup(app):
    app.connect("source-read", on_source)
    app.connect("include-read", on_include)
    app.connect("doctree-resolved", dashes_of_fields)
    app.connect("html-page-context", words_of_commands)
    app.connect("autodoc-process-docstring", on_docstring, priority=400)  # before napoleon
