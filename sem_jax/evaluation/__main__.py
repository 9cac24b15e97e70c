"""Scores a checkpoint.

    python -m sem_jax.evaluation --workdir=runs/wrn_c10
    python -m sem_jax.evaluation --workdir=runs/wrn_c10 --suites=clean,ood --ood "Places=~/places_crops"
    python -m sem_jax.evaluation --checkpoint=moved/checkpoints/78200 --data-dir=~/tensorflow_datasets

Every suite whose data is there is run; for each other one, one line says what is missing and how to get it. The
report is eval.html, eval.md and eval.json below WORKDIR/evaluation. The model is rebuilt from the run's config.json;
no configuration file is executed. Exit status: 0 done, 2 refused (one message says why).
"""

import argparse
import logging
import sys
from pathlib import Path

from sem_jax.errors import ConfigError, exit_on_error

NAMES = ("clean", "corruptions", "shift", "ood", "calibration", "equivariance")


def _parser() -> argparse.ArgumentParser:
    summary, _, more = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m sem_jax.evaluation",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workdir", default="", metavar="DIR", help="run folder")
    add("--suites", default=",".join(NAMES), metavar="A,B,...", help=f"of {', '.join(NAMES)}; default: all")
    add("--checkpoint", default="final", help="final, best_val, a step, or a folder: a run's or its checkpoints/STEP")
    add("--data-dir", default="", metavar="DIR", help="of the run's data and the standard sets; default: the run's")
    add("--shift", nargs="+", action="extend", default=[], metavar="NAME=PATH", help="labelled sets, same classes")
    add("--ood", nargs="+", action="extend", default=[], metavar="NAME=PATH", help="out-of-distribution sets")
    add("--corruptions-dir", default="", metavar="DIR", help="published corrupted set; default: found, else generated")
    add("--corruption-items", type=int, default=0, metavar="N", help="corrupt N test images only; default: all")
    add("--frost-dir", default="", metavar="DIR", help="published frost photographs; default: our own textures")
    add("--compare", nargs="+", action="extend", default=[], metavar="DIR", help="runs beside this one in Fig. 3")
    add("--pairs", type=int, default=1000, metavar="N", help="of the equivariance suite; default: 1000")
    add("--no-umap", action="store_true", help="draw PCA only")
    add("--no-cache", action="store_true", help="keep no predictions below the run folder")
    add("--seed", type=int, default=0, help="of corruptions, pairs and choices; default: 0")
    add("--items", default="", metavar="FILE", help="write what each item got there (.npz), for paired tests")
    add("--out", default="", metavar="DIR", help="folder of the report; default: WORKDIR/evaluation")
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
    args = _parser().parse_args(argv)
    with exit_on_error():
        if not args.workdir and not Path(args.checkpoint).expanduser().is_dir():
            raise ConfigError("--workdir is missing", "For example: python -m sem_jax.evaluation --workdir=runs/NAME")
        shift, ood = _pairs("shift", args.shift), _pairs("ood", args.ood)
        logging.getLogger("absl").setLevel(logging.WARNING)  # orbax tells every file it reads
        from sem_jax.evaluation.runner import evaluate  # after the arguments are right: jax takes seconds to start

        if argv is None:  # as a program: who calls it from Python has settings of his own
            from sem_jax.system.compile_cache import use_cache

            use_cache()

        record = evaluate(
            args.workdir,
            suites=tuple(name.strip() for name in args.suites.split(",") if name.strip()),
            checkpoint=args.checkpoint,
            data_dir=args.data_dir,
            shift=shift,
            ood=ood,
            corruptions_dir=args.corruptions_dir,
            corruption_items=args.corruption_items,
            frost_dir=args.frost_dir,
            compare=args.compare,
            pairs=args.pairs,
            umap=not args.no_umap,
            seed=args.seed,
            cached=not args.no_cache,
            items=args.items,
            out=args.out,
            say=lambda line: print(line, flush=True),
        )
        run = record["run"]
        folder = Path(args.out or Path(args.workdir or run["folder"]) / "evaluation").expanduser()
        print(f"{run['name']}, {run['checkpoint']}, step {run['step']}: report in {folder / 'eval.html'}")


if __name__ == "__main__":
    sys.exit(main())
