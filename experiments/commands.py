"""What the commands of these folders share: parsers, paths, tables. Only the standard library is imported."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path


def parser(name: str, doc: str | None, *, epilog: str = "") -> argparse.ArgumentParser:
    """A parser for `python -m <name>`, whose --help shows the module's text.

    Args:
      name: of the module that is run.
      doc: the module's `__doc__`: a summary line, then more.
      epilog: shown after that.
    """
    summary, _, more = (doc or "").partition("\n")
    return argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=summary,
        epilog=more + epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def absolute(path: str) -> str:
    """The path for a process that starts in another folder; "" stays ""."""
    return str(Path(path).expanduser().absolute()) if path else ""


def names(text: str) -> list[str]:
    """The parts of "a, b,c" that are not empty."""
    return [part.strip() for part in text.split(",") if part.strip()]


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as Markdown."""
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
