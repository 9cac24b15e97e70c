"""Draws what the mixers make of any two images, and lists their options.

    python -m sem_jax mixers --out=sheet                                   # two pictures that come with scikit-learn
    python -m sem_jax mixers --out=sheet --images cat.png dog.png --mixers cutmix "fmix(decay=2.0)"
    python -m sem_jax mixers --list

Writes mixers.png, with a row for each mixer and lam from 0.1 to 0.9.
"""

from pathlib import Path

from sem_jax.errors import ConfigError, command_parser, exit_on_error
from sem_jax.mixers.table import MIXERS, options_of
from sem_jax.system.urls import require_local


def list_options() -> str:
    """Every mixer with its options, written as in mixer.options."""
    lines = []
    for name, make in MIXERS.items():
        options = [f"{key}={value!r}" for key, value in options_of(make).items() if key != "alpha"]
        lines.append(f"{name:<17} {', '.join(options)}".rstrip())
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = command_parser("sem_jax mixers", __doc__)
    add = parser.add_argument
    add("--out", type=Path, default="mixers_sheet", help="folder for the picture (default: %(default)s)")
    add("--images", nargs="+", default=[], metavar="PATH", help="two images, or a folder of them")
    add("--mixers", nargs="+", metavar="NAME", help='"name" or "name(option=value)" (default: those that mix pixels)')
    add("--size", type=int, default=64, help="pixels of an image, a multiple of 16 (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    add("--list", action="store_true", help="name every mixer's options and end")
    options = parser.parse_args(arguments)
    with exit_on_error():
        require_local("--out", options.out, out=True)
        for path in options.images:
            require_local("--images", path)
        if options.list:
            print(list_options())
            return
        if options.size < 16 or options.size % 16:
            raise ConfigError(f"--size must be a multiple of 16, got {options.size}")
        if not 0 <= options.seed < 2**32:
            raise ConfigError(f"--seed must be in [0, 2**32), got {options.seed}")
        import jax

        from sem_jax.mixers import sheet  # here, since --help does not need it

        texts = options.mixers or sheet.ROWS
        for text in set(texts) - {sheet.ALIGNMIX}:
            sheet.made(text)
        # Every program runs once, and compiling it takes most of the time.
        jax.config.update("jax_disable_most_optimizations", True)
        pair = sheet.load_pair(options.images, options.size)
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out={options.out}: no folder can be made there ({error.strerror})") from None
        sheet.draw_mixers(options.out / "mixers.png", pair, texts, options.seed)
        print(options.out / "mixers.png")


if __name__ == "__main__":
    main()
