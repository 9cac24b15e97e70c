"""What the commands of these folders share: parsers, paths, tables. Only what is quick to import is imported."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from sem_jax.errors import ConfigError
from sem_jax.system.urls import require_local


class _Parser(argparse.ArgumentParser):
    """Refuses addresses (gs://, ...) in all options: these commands read and write on this machine."""

    def parse_known_args(self, args=None, namespace=None):
        found, rest = super().parse_known_args(args, namespace)
        for name, value in vars(found).items():
            for path in value if isinstance(value, list) else [value]:
                # A cluster's address names no file.
                if name != "address" and isinstance(path, str | Path):
                    try:
                        require_local(f"--{name.replace('_', '-')}", path)
                    except ConfigError as error:
                        self.error(str(error))
        return found, rest


def parser(name: str, doc: str | None, *, epilog: str = "") -> argparse.ArgumentParser:
    """A parser for `python -m <name>`, whose --help shows the module's text.

    Args:
      name: of the module that is run.
      doc: the module's `__doc__`: a summary line, then more.
      epilog: shown after that.
    """
    summary, _, more = (doc or "").partition("\n")
    return _Parser(
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
