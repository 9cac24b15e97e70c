"""Scores a checkpoint.

    python -m sem_jax.evaluation --workdir=runs/wrn_c10
    python -m sem_jax.evaluation --workdir=runs/wrn_c10 --suites=clean,ood --ood "Places=~/places_crops"
    python -m sem_jax.evaluation --checkpoint=moved/checkpoints/78200 --data-dir=~/tensorflow_datasets

Every suite with data is run. For each other suite a line says what is missing and how to get it. The report is
eval.html, eval.md and eval.json below WORKDIR/evaluation. The model is rebuilt from the run's config.json; no
configuration file is executed, and a custom model is imported only if --trust_model names it. Exit status: 0 done,
2 refused (one message says why).
"""

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

from sem_jax.errors import ConfigError, command_parser, exit_on_error, plain
from sem_jax.runs.reading import require_run, without_current_folder


def _parser() -> argparse.ArgumentParser:
    """Each option has the name of a field of `Options`, except --no-umap and --no-cache."""
    from sem_jax.evaluation.suites import SUITES

    parser = command_parser("sem_jax.evaluation", __doc__)
    add, several = parser.add_argument, {"nargs": "+", "action": "extend", "default": []}
    add("--workdir", default="", metavar="DIR", help="run folder, gs://BUCKET/FOLDER or hf://owner/name")
    add("--suites", default=",".join(SUITES), metavar="A,B,...", help=f"some of {', '.join(SUITES)}; default: all")
    add(
        "--checkpoint",
        default="final",
        help="final, best_val, ema, a step, or a folder: a run's or its checkpoints/STEP",
    )
    add(
        "--trust_model",
        "--trust-model",
        default="",
        metavar="MODULE:FACTORY",
        help="custom model of the run that may be imported and executed",
    )
    add("--data-dir", default="", metavar="DIR", help="folder of the run's data and standard sets; default: the run's")
    add("--shift", **several, metavar="NAME=PATH", help="labelled sets, same classes")
    add("--ood", **several, metavar="NAME=PATH", help="out-of-distribution sets")
    add("--corruptions-dir", default="", metavar="DIR", help="published corrupted set; default: found, else generated")
    add("--corruption-items", type=int, default=0, metavar="N", help="corrupt N test images only; default: all")
    add("--frost-dir", default="", metavar="DIR", help="published frost photographs; default: our own textures")
    add("--compare", **several, metavar="DIR", help="runs to compare with this one, on the same images")
    add("--pairs", type=int, default=1000, metavar="N", help="pairs of the equivariance suite; default: 1000")
    add("--no-umap", dest="umap", action="store_false", help="draw PCA only")
    add("--no-cache", dest="cached", action="store_false", help="keep no predictions below the run folder")
    add("--seed", type=int, default=0, help="of corruptions, pairs and choices; default: 0")
    add("--items", default="", metavar="FILE", help="write each item's results there (.npz), for paired tests")
    add(
        "--out",
        default="",
        metavar="DIR",
        help="folder of the report; default: WORKDIR/evaluation, or NAME-evaluation for gs:// and hf://",
    )
    return parser


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    sets = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name.strip() and equals and path.strip()):
            raise ConfigError(f"--{option} must be NAME=PATH, got {text!r}")
        if name.strip() in sets:
            raise ConfigError(f"--{option} names {name.strip()!r} twice")
        sets[name.strip()] = path.strip()
    return sets


def main(argv: list[str] | None = None) -> None:
    """Entry point of `python -m sem_jax.evaluation`."""
    with exit_on_error(), without_current_folder():  # before NumPy, matplotlib ... are imported
        fields = vars(_parser().parse_args(argv))
        workdir, checkpoint = fields.pop("workdir"), fields.pop("checkpoint")
        if not workdir and "://" not in checkpoint and not Path(checkpoint).expanduser().is_dir():
            raise ConfigError("--workdir is missing", "For example: python -m sem_jax.evaluation --workdir=runs/NAME")
        fields["suites"] = tuple(name.strip() for name in fields["suites"].split(",") if name.strip())
        fields |= {option: _pairs(option, fields[option]) for option in ("shift", "ood")}
        from sem_jax.evaluation.options import Options

        options = Options(**fields)
        require_run(workdir, checkpoint)
        if workdir and "://" not in workdir:
            from sem_jax.evaluation.early import check_folder

            check_folder(Path(workdir).expanduser(), options)
        from sem_jax.runs.shared import report_folder

        if workdir and "://" not in workdir + checkpoint and not options.out:
            options = dataclasses.replace(options, out=str(report_folder(workdir)))
        logging.getLogger("absl").setLevel(logging.WARNING)  # orbax names every file it reads
        from sem_jax.evaluation.report.summary import terminal
        from sem_jax.evaluation.runner import evaluate  # not before the options are checked: jax takes seconds to start
        from sem_jax.runs.opening import open_run

        if argv is None:  # only as a program: a caller in Python has settings of its own
            from sem_jax.system.compile_cache import use_cache

            use_cache()

        run = open_run(workdir, checkpoint, trust_model=options.trust_model)
        record = evaluate(run, options, say=lambda line: print(plain(line), flush=True))
        if numbers := terminal(record):
            print(f"\n{plain(numbers)}\n")
        folder = Path(options.out or report_folder(run.source or run.folder)).expanduser()
        print(plain(f"{run.name}, {run.checkpoint}, step {run.step}: report in {folder / 'eval.html'}"))


if __name__ == "__main__":
    sys.exit(main())
