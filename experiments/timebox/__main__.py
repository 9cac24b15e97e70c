"""`python -m experiments.timebox`: see `experiments.timebox.run`. First it says which packages are missing here."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def missing(project: Path = PROJECT) -> list[str]:
    """The dependencies of the package that are not installed."""
    found = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    absent = []
    for name in (re.split(r"[<>=!~;\[ ]", text, maxsplit=1)[0] for text in found):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(name)
    return absent


def main() -> int:
    absent = missing()
    if absent:
        print(f"not installed here: {', '.join(absent)}", flush=True)
    try:
        from experiments.timebox.run import main as run
    except ModuleNotFoundError as error:
        if not absent:
            raise
        print(f"{error}; docs/accelerators.md says how packages are brought along", file=sys.stderr)
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
