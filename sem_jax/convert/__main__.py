"""The command `python -m sem_jax convert`; exit status 0 done, 2 refused (one message says why)."""

import logging
import sys
from pathlib import Path

import sem_jax.convert as convert
from sem_jax.convert.files import require_place
from sem_jax.errors import RunError, command_parser, exit_on_error
from sem_jax.runs.reading import require_run, without_current_folder
from sem_jax.system.urls import is_url, require_local


def main(argv: list[str] | None = None) -> None:
    """Entry point of `python -m sem_jax convert`."""
    parser = command_parser("sem_jax convert", convert.__doc__)
    add = parser.add_argument
    add("--workdir", required=True, metavar="DIR", help="run folder: made by --from, read by --to")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--from", dest="source", type=Path, metavar="FILE", help=".safetensors, .pt or .pth")
    way.add_argument("--to", dest="target", type=Path, metavar="FILE", help=".safetensors")
    add("--checkpoint", default="final", help="with --to: final, best_val, ema or a step")
    add("--trust_model", default="", metavar="MODULE:FACTORY", help="with --to: custom model that may be imported")
    add("--data", default="cifar10", metavar="NAME", help="with --from: data set the model is scored on")
    add("--data-dir", default="", metavar="DIR", help="with --from: folder of that data set")
    add("--image-size", type=int, default=0, metavar="N", help="with --from: size of the images of an image folder")
    add(
        "--mean",
        type=float,
        nargs="+",
        help="with --from: normalisation in training; default: the source's, or the data's own",
    )
    add("--std", type=float, nargs="+", help="with --from: likewise")
    add("--stem", default="", help="with --from: 3x3s2, whose weights look like those of 3x3")
    add("--variant", default="", help="with --from: variant of a PreActResNet, if the names mislead")
    args = parser.parse_args(argv)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns of an empty optimizer state
    with exit_on_error(), without_current_folder():
        require_local("--to", args.target or "", out=True)
        require_local("--from", args.source or "")
        is_url(args.data_dir)  # refuses others
        if args.source:
            require_local("--workdir", args.workdir, out=True)
            if not args.source.expanduser().is_file():
                raise RunError(f"{args.source} does not exist", "Give a .safetensors, .pt or .pth file.")
        else:
            require_place("--to", args.target.expanduser())
            require_run(args.workdir, args.checkpoint)
        from sem_jax.convert.runs import export_weights, import_weights  # brings jax, which no refusal waits for

        if args.target:
            target = args.target.expanduser()
            export_weights(args.workdir, target, checkpoint=args.checkpoint, trust_model=args.trust_model)
            print(f"Wrote {target}")
            return
        workdir = Path(args.workdir).expanduser()
        data = {"name": args.data, "dir": args.data_dir, "image_size": args.image_size}
        options = {name: getattr(args, name) for name in ("mean", "std", "stem", "variant")}
        facts = import_weights(args.source.expanduser(), workdir, data=data, **options)
        print(f"Wrote {workdir}, for images normalised with mean {facts.mean} and std {facts.std} (--mean, --std)")
        print(f"Score it with: python -m sem_jax evaluate --workdir={workdir}")


if __name__ == "__main__":
    sys.exit(main())
