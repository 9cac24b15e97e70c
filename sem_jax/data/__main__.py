"""Downloads and prepares a public data set, without TensorFlow.

    python -m sem_jax prepare cifar10                                      # download the official archive
    python -m sem_jax prepare cifar10 --archive cifar-10-binary.tar.gz     # an archive you have
    python -m sem_jax prepare svhn_cropped --folder DIR                    # its files unpacked, or an image folder

Data sets: cifar10, cifar100, tiny_imagenet, svhn_cropped. sem_jax and `tfds.data_source` read the result by name.
SEM_JAX_MIRROR=http://host/folder takes the download from a copy of the official files.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from sem_jax.data import PUBLIC
from sem_jax.errors import command_parser, exit_on_error
from sem_jax.registry import lookup
from sem_jax.system.urls import require_local


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; exits with status 2 and a message of at most three lines if the data cannot be prepared."""
    parser = command_parser("sem_jax prepare", __doc__)
    parser.add_argument("name", metavar="NAME", help=", ".join(PUBLIC))
    add, given = parser.add_argument, parser.add_mutually_exclusive_group().add_argument
    given("--archive", type=Path, metavar="FILE", help="the official archive, or a zip of an image folder")
    given("--folder", type=Path, metavar="DIR", help="the unpacked archive, or an image folder")
    add("--data-dir", default="", metavar="DIR", help="default: $TFDS_DATA_DIR or ~/tensorflow_datasets; gs:// too")
    add("--force", action="store_true", help="replace a set that exists already")
    args = parser.parse_args(argv)
    with exit_on_error():
        require_local("--archive", args.archive or "")
        require_local("--folder", args.folder or "")
        spec = lookup(PUBLIC, "public data set", args.name)
        from sem_jax.data.prepare import prepare_there  # here, since neither --help nor a wrong name needs it

        source, say = args.archive or args.folder, functools.partial(print, flush=True)
        root = prepare_there(spec, data_dir=args.data_dir, source=source, force=args.force, say=say)
        say(f"use it with: python -m sem_jax train ... --config.data.name={spec.name} --config.data.dir={root}")


if __name__ == "__main__":
    main()
