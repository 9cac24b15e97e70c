"""Predicts the classes of pictures with the net of a run.

    sem-jax predict --workdir=runs/mine photos/ --out=predictions.csv
    sem-jax predict --workdir=runs/mine cat.jpg dog.png --top=3              # to standard output
    sem-jax predict --workdir=runs/mine images.npy --out=predictions.json

PATH is a picture, a folder with pictures at any depth, or an .npy file of images [n h w c] of the model's size (uint8,
or floats in [0, 1]). Pictures may have any name, PNG, JPEG, BMP, WebP, GIF, PPM and TIFF inside, and any size: the
shorter side is resized to the model's, and the centre cut out. A row has the columns file, class and probability; with
--top=3, class_2, probability_2, class_3 and probability_3 too. Images are read in batches, so that a folder may be
larger than memory. Exit status: 0 done, 2 refused (one message says why), and nothing is written then.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from sem_jax.errors import ConfigError, RunError, command_parser, exit_on_error, plain
from sem_jax.runs.reading import require_run, without_current_folder
from sem_jax.system.output import quiet_for_gone_readers
from sem_jax.system.progress import bar
from sem_jax.system.urls import require_local

FORMATS = (".csv", ".json")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sem_jax predict", __doc__)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="pictures, folders of them, or .npy files")
    add("--workdir", default="", metavar="DIR", help="run folder, gs://BUCKET/FOLDER or hf://owner/name")
    add("--out", default="", metavar="FILE", help=".csv or .json; default: CSV on standard output")
    add("--top", type=int, default=1, metavar="K", help="how many classes of an image, most probable first; default: 1")
    add(
        "--checkpoint", default="final", help="final, best_val, ema, a step, or a folder: a run or its checkpoints/STEP"
    )
    add("--batch_size", type=int, default=0, metavar="N", help="images at a time; default: runtime.eval_batch_size")
    add("--skip_broken", action="store_true", help="leave out pictures that cannot be read, and count them")
    add(
        "--trust_model",
        default="",
        metavar="MODULE:FACTORY",
        help="custom model of the run that may be imported and executed",
    )
    return parser


def predict_rows(run, inputs, *, top: int = 1, batch_size: int = 0) -> Iterator[dict[str, Any]]:
    """The rows of the table, one an image, while the images are read batch by batch.

    Args:
      run: from `open_run`.
      inputs: `runs.inputs.Inputs` of the run's image shape.
      top: classes in a row.
      batch_size: 0 = the run's.
    """
    import numpy as np

    from sem_jax.runs.predict import make_predictor
    from sem_jax.runs.results import Prediction

    size, names = batch_size or run.config.runtime.eval_batch_size, inputs.names
    predictor = make_predictor(run, batch_size=size)
    with bar(total=len(inputs), desc="predicting", unit="img", leave=False) as shown:
        for first in range(0, len(inputs), size):
            images = inputs[first : first + size]
            count = len(images)
            if first:  # the last batch is filled up, for which no other program has to be compiled
                images = np.concatenate([images, np.repeat(images[-1:], size - count, axis=0)])
            features, logits = predictor.outputs(images, features=False)
            kept = [row for row in range(count) if first + row not in inputs.broken]
            files = [names[first + row] for row in kept]
            yield from Prediction.of(features[kept], logits[kept], run.data.class_names, files).rows(top)
            shown.update(count)


def write_rows(rows: Iterable[dict[str, Any]], file: IO[str], kind: str) -> int:
    """Writes a table as `kind` ".csv" or ".json" and returns the number of rows."""
    count, writer = 0, None
    for count, row in enumerate(rows, 1):  # noqa: B007
        if kind == ".json":
            file.write(("[\n" if count == 1 else ",\n") + json.dumps(row))
            continue
        if writer is None:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    if kind == ".json":
        file.write("\n]\n" if count else "[]\n")
    return count


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what a terminal would obey: the classes are a stranger's, the files only for a terminal."""
    safe = sys.stdout.isatty()
    return {k: plain(it) if isinstance(it, str) and (safe or k != "file") else it for k, it in row.items()}


@contextlib.contextmanager
def _opened(out: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that has its name only when it is whole."""
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # names of files need not be UTF-8
        yield sys.stdout
        return
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}")  # nobody else's, nor a link
    try:
        with part.open("x", encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield file
        os.replace(part, out)
    except OSError as error:
        raise RunError(f"--out={out} cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def _check(args: argparse.Namespace) -> Path | None:
    """Refuses options that cannot work, before jax is imported; the file to write, None for standard output."""
    if not args.workdir and "://" not in args.checkpoint and not Path(args.checkpoint).expanduser().is_dir():
        raise ConfigError("--workdir is missing", "For example: sem-jax predict --workdir=runs/NAME photos/")
    for name, least in (("top", 1), ("batch_size", 0)):
        if (value := getattr(args, name)) < least:
            raise ConfigError(f"--{name} must be >= {least}, got {value}")
    require_local("--out", args.out, out=True)
    out = Path(args.out).expanduser() if args.out else None
    if out and out.suffix not in FORMATS:
        raise ConfigError(f"--out must end in {' or '.join(FORMATS)}, got {args.out!r}")
    if out and not out.parent.is_dir():
        raise ConfigError(f"--out={args.out}: there is no folder {out.parent}", "Make it first.")
    require_run(args.workdir, args.checkpoint)
    return out


def main(argv: list[str] | None = None) -> None:
    """Entry point of `python -m sem_jax predict`."""
    with exit_on_error(), without_current_folder(), quiet_for_gone_readers():
        args = _parser().parse_intermixed_args(argv)
        out = _check(args)
        from sem_jax.runs.inputs import Inputs, list_inputs

        items = list_inputs(args.paths)
        from sem_jax.runs.opening import open_run  # not before the rest is checked: jax takes seconds to start

        if argv is None:  # only as a program: a caller in Python has settings of its own
            from sem_jax.system.compile_cache import use_cache

            use_cache()
        run = open_run(args.workdir, args.checkpoint, trust_model=args.trust_model)
        crop = run.config.data.eval_crop
        inputs = Inputs(items, run.data.image_shape, eval_crop=crop, skip_broken=args.skip_broken)
        rows = predict_rows(run, inputs, top=args.top, batch_size=args.batch_size)
        with _opened(out) as file:
            rows = rows if out else map(_shown, rows)
            count = write_rows(rows, file, ".csv" if out is None else out.suffix)
        say = lambda line: print(plain(line), file=sys.stderr)  # noqa: E731
        if inputs.broken:
            first = next(iter(inputs.broken.values()))
            say(f"Skipped {len(inputs.broken):,} of {len(inputs):,} that cannot be read; the first: {first}")
        if out:
            say(f"Wrote {out}, {count:,} rows")


if __name__ == "__main__":
    sys.exit(main())
