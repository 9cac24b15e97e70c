"""Feeds broken data, hostile files and wrong configurations to the package, and counts what happens.

    python -m experiments.drills.refusals                      # everything, some minutes; needs the dev requirements
    python -m experiments.drills.refusals --no-command-lines   # in this process only, half a minute
    python -m experiments.drills.refusals --random 40          # random configurations by the command line, no tables

The cases are the tables of the tests (experiments/drills/cases.py). Every case must be refused with one message of
three lines or fewer, or be read as documented; no code of a file may run, and nothing may be written but the cache.
Some of the cases go through `python -m sem_jax.main` and `python -m sem_jax.evaluation`, as a user would start them.
Exit status 1 if one case is neither.
"""

import logging
import sys
import tempfile
from pathlib import Path

from experiments.commands import markdown, parser
from experiments.drills.trial import Outcome


def table(outcomes: list[Outcome]) -> str:
    """Markdown: a row a family."""
    lines = []
    for family in dict.fromkeys(o.family for o in outcomes):
        rows = [o for o in outcomes if o.family == family]
        counts = [sum(o.result == result for o in rows) for result in ("refused", "handled")]
        harm = [sum(o.executed for o in rows), sum(o.written for o in rows)]
        slowest = [f"{max(o.cpu for o in rows):.1f}", f"{max(o.wall for o in rows):.1f}"]
        slowest.append(f"{max(o.memory for o in rows) >> 20}" if any(o.memory for o in rows) else "-")
        lines.append([family, len(rows), *counts, *harm, *slowest])
    columns = [
        "",
        "cases",
        "refused",
        "as documented",
        "code executed",
        "files written",
        "slowest: CPU s",
        "wall s",
        "most memory: MB",
    ]
    return markdown(columns, lines)


def main(argv: list[str] | None = None) -> int:
    options = parser("experiments.drills.refusals", __doc__)
    options.add_argument("--no-command-lines", action="store_true", help="leave out the cases that are processes")
    options.add_argument("--random", type=int, default=0, help="start so many random configurations, and nothing else")
    options.add_argument("--verbose", action="store_true", help="print every case")
    args = options.parse_args(argv)
    import pytest

    from experiments.drills import cases
    from experiments.drills.random_lines import random_lines
    from tests.helpers.data_sets import made_cifar10, small_cifar10

    logging.disable(logging.ERROR)  # of libraries about the very files that are broken here
    outcomes = []
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        home = Path(home) / "home"
        home.mkdir()
        patch.setenv("HOME", str(home))
        patch.setenv("SEM_JAX_CACHE", str(home / "cache"))
        patch.setenv("JAX_PLATFORMS", "cpu")
        patch.delenv("TFDS_DATA_DIR", raising=False)
        small_cifar10(patch)
        made_cifar10(home / "made")
        families = cases.HERE if args.no_command_lines else (*cases.HERE, cases.command_lines)
        if args.random:
            families = (lambda home: random_lines(home, args.random),)
        for family in families:
            for outcome in family(home):
                outcomes.append(outcome)
                if args.verbose or not outcome.good:
                    print(*outcome, sep=" | ", flush=True)
    print(table(outcomes))
    return int(not all(outcome.good for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
