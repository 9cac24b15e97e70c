"""Draws what the mixers do, for any images; and lists their options.

    python -m sem_jax.mixers --out=docs                                   # two pictures that come with scikit-learn
    python -m sem_jax.mixers --out=sheet --images cat.png dog.png --mixers cutmix "fmix(decay=2.0)"
    python -m sem_jax.mixers --list

Writes mixers.png (a row a mixer, lam 0.1 ... 0.9), pairings.png and schedules.png.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from sem_jax.errors import ConfigError, DataError, exit_on_error

LAMS = np.arange(1, 10) / 10
ALIGNMIX = "alignmix"  # mixes hidden states; shown on patches of pixels in their place
ROWS = (
    "mixup",
    "cutmix",
    "resizemix",
    "resizemix(variant='area')",
    "fmix",
    "fmix(max_soft=0.3)",
    "gridmix",
    "smoothmix",
    "saliencymix",
    "attentive_cutmix(k=0)",
    "puzzlemix",
    ALIGNMIX,
    "choice",
)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")  # whatever the name says: the reader of EPS, for one, starts a program
SHOWN = 8  # pictures, in pairings.png
TRIES = 512  # draws among which the one of the nearest lam is found
EXAMPLE = "two images, or a folder of them: --images a.png b.png"


def find_images(paths: list[str]) -> list[Path]:
    """The files to read, SHOWN at most: those named, or of a folder one of each class in turn.

    Raises:
      DataError: there are not two.
    """
    files = [Path(p) for p in paths]
    if len(files) == 1 and files[0].is_dir():
        files = sorted(p for p in files[0].rglob("*") if p.suffix.lower() in SUFFIXES)
        classes = [list(group) for _, group in itertools.groupby(files, key=lambda p: p.parent)]
        files = [p for row in itertools.zip_longest(*classes) for p in row if p]
    if len(files) < 2:
        count = f"{len(files)} image{'s' * (len(files) != 1)}"
        raise DataError(f"--images found {count}, expected two or more", f"Give {EXAMPLE}")
    return files[:SHOWN]


def read_image(path: Path) -> np.ndarray:
    """u8[h w 3], turned as its Exif says.

    Raises:
      DataError: naming the file that cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=FORMATS) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error ... on bad bytes
        raise DataError(f"--images: {path}: {getattr(error, 'strerror', None) or error}", f"Give {EXAMPLE}") from None


def load_images(paths: list[str], size: int) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    """(two pictures f32[2 size size 3] in [0, 1], up to SHOWN of them in full, a class name for each)."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    if paths:
        files = find_images(paths)
        pictures = [read_image(p) for p in files]
        names = [p.parent.name for p in files]
        names = names if len(set(names)) > 1 else [p.stem for p in files]
    else:
        pictures, names = load_sample_images().images[::-1], ["flower", "temple"]

    def centre(picture):
        side = min(picture.shape[:2])
        top, left = ((n - side) // 2 for n in picture.shape[:2])
        square = Image.fromarray(picture[top : top + side, left : left + side])
        return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS), np.float32) / 255

    return np.stack([centre(p) for p in pictures[:2]]), list(pictures), names


def made(text: str):
    """The mixer of "cutmix" or "cutmix(alpha=0.2)", with a scorer that needs no net.

    Raises:
      ConfigError: an unknown mixer or option, or a mixer of hidden states.
    """
    import jax

    from sem_jax.mixers.build import make_mixer_of_text
    from sem_jax.mixers.saliency import spectral_residual

    def scorer(images, labels):
        del labels
        maps = spectral_residual(images)
        return jax.image.resize(maps, (len(images), 8, 8), "linear") if "attentive" in text else maps

    mixer = make_mixer_of_text(text, alpha=1.0, scorer=scorer)
    if mixer.hook is not None:
        raise ConfigError(f"{text} mixes hidden states and cannot be shown on images; leave it out of --mixers")
    return mixer


def mixer_row(text: str, pair: np.ndarray, seed: int) -> tuple[list[np.ndarray], list[float]]:
    """Nine mixed pictures, of the draws whose lam comes nearest to 0.1 ... 0.9, and those lam.

    512 draws are made; where none comes near, the picture is white and its lam NaN.
    """
    import jax
    import jax.numpy as jnp

    from sem_jax.mixers.alignmix import align

    x = jnp.asarray(pair)
    if text == ALIGNMIX:
        cells = 8
        maps = x.reshape(2, cells, x.shape[1] // cells, cells, x.shape[2] // cells, 3).swapaxes(2, 3)
        maps = maps.reshape(2, cells, cells, -1)
        options = {"epsilon": 0.1, "iterations": 200, "tolerance": 0.0}
        mixed = jax.vmap(lambda lam: align(maps[0], maps[1], lam, False, **options))(jnp.asarray(LAMS, jnp.float32))
        mixed = mixed.reshape(len(LAMS), cells, cells, x.shape[1] // cells, x.shape[2] // cells, 3).swapaxes(2, 3)
        return list(np.asarray(mixed.reshape(len(LAMS), *x.shape[1:]))), LAMS.tolist()

    mixer = made(text)
    maps = ()
    if mixer.score is not None:
        scored = mixer.score(x, None, None)
        maps = tuple(jax.tree.map(lambda m, i=i: m[i], scored) for i in range(2))

    def one(key):
        return mixer.apply(mixer.sample(key, x.shape[1:]), x[0], x[1], *maps)

    keys = jax.random.split(jax.random.key(seed), TRIES)
    lam = np.asarray(jax.jit(jax.vmap(lambda key: one(key)[1]))(keys))
    nearest = np.abs(lam[:, None] - LAMS[None]).argmin(axis=0)
    mixed = np.array(jax.jit(jax.vmap(one))(keys[nearest])[0])
    found = np.where(np.abs(lam[nearest] - LAMS) <= 0.05, lam[nearest], np.nan)
    mixed[np.isnan(found)] = 1.0
    return list(mixed), found.tolist()


def _canvas(rows: list[tuple[str, list[np.ndarray], list[str]]], head: list[str], size: int, margin: int):
    """A sheet: a title at the left, tiles f32[size size 3] and a caption below each."""
    from PIL import Image, ImageDraw, ImageFont

    font, small = ImageFont.load_default(size=13), ImageFont.load_default(size=10)
    gap, caption, top = 4, 14, 20
    columns = max(len(tiles) for _, tiles, _ in rows)
    width, height = margin + columns * (size + gap), top + len(rows) * (size + gap + caption)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for j, text in enumerate(head):
        draw.text((margin + j * (size + gap) + size / 2, top / 2), text, "black", font, anchor="mm")
    for i, (title, tiles, captions) in enumerate(rows):
        y = top + i * (size + gap + caption)
        draw.multiline_text((4, y + size / 2), title, "black", font, anchor="lm", spacing=2)
        for j, (tile, text) in enumerate(zip(tiles, captions, strict=True)):
            x = margin + j * (size + gap)
            sheet.paste(Image.fromarray((np.clip(tile, 0, 1) * 255 + 0.5).astype(np.uint8)), (x, y))
            draw.text((x + size / 2, y + size + caption / 2), text, "black", small, anchor="mm")
    return sheet


def _save(sheet, path: Path) -> None:
    from PIL import Image

    # 128 colours are enough to see by, and a third of the bytes.
    sheet.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def draw_mixers(path: Path, pair: np.ndarray, texts: list[str], seed: int) -> None:
    """mixers.png: partner, nine mixtures, anchor; under each the lam it really has."""
    rows = []
    for text in texts:
        tiles, lam = mixer_row(text, pair, seed)
        captions = ["partner", *["" if np.isnan(value) else f"{value:.2f}" for value in lam], "anchor"]
        title = "alignmix\n(of 8x8 patches)" if text == ALIGNMIX else text.replace("(", "\n(")
        rows.append((title, [pair[1], *tiles, pair[0]], captions))
    _save(_canvas(rows, ["lam 0", *[f"{value:.1f}" for value in LAMS], "1"], pair.shape[1], 150), path)


def draw_pairings(path: Path, pictures: list[np.ndarray], names: list[str], size: int, seed: int) -> None:
    """pairings.png: a small batch of crops, and below each item the partner it gets."""
    import jax
    import jax.numpy as jnp
    from PIL import Image

    from sem_jax.mixers.pairing import PAIRINGS, paired_within

    rng = np.random.default_rng(seed)
    classes = sorted(set(names))
    which = [i % len(pictures) if i < 8 else 0 for i in range(10)]  # of two pictures, six of the one, four of the other
    labels = jnp.asarray([classes.index(names[i]) for i in which], jnp.int32)
    tiles = []
    for i in which:
        side = min(pictures[i].shape[:2]) // 2
        top, left = (rng.integers(0, n - side + 1) for n in pictures[i].shape[:2])
        crop = Image.fromarray(pictures[i][top : top + side, left : left + side])
        tiles.append(np.asarray(crop.resize((size, size), Image.Resampling.LANCZOS), np.float32) / 255)

    def captions(order):
        return [f"{i}: {classes[int(labels[i])]}" for i in order]

    rows = [("the batch", tiles, captions(range(10)))]
    pairs = [(name, pair) for name, pair in PAIRINGS.items()]
    pairs.insert(1, ("permutation,\nacross_device=False\non 2 devices", paired_within(PAIRINGS["permutation"], 2)))
    for name, pair in pairs:
        order = pair(jax.random.key(seed), labels).tolist()
        rows.append((name, [tiles[j] for j in order], captions(order)))
    _save(_canvas(rows, [str(i) for i in range(10)], size, 150), path)


def draw_schedules(path: Path) -> None:
    """schedules.png: strength over 20 epochs, mixing until the 15th."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from sem_jax.mixers.schedule import SCHEDULES, make_schedule

    steps, epochs, stop = 50, 20, 15
    figure, axes = plt.subplots(1, len(SCHEDULES), figsize=(10, 2.2), sharey=True, layout="constrained")
    for axis, name in zip(axes, SCHEDULES, strict=True):
        strength = make_schedule(name, total_steps=stop * steps, steps_per_epoch=steps)
        at = np.arange(stop * steps)
        axis.step(at / steps, [float(v) for v in np.asarray(strength(at))], where="post", color="#1f77b4")
        axis.plot([stop, stop, epochs], [float(strength(np.asarray(at[-1]))), 0, 0], color="#d62728", label="stopped")
        axis.set(title=name, xlabel="epoch", ylim=(-0.05, 1.05))
    axes[0].set_ylabel("strength")
    axes[0].legend(frameon=False, loc="lower left")
    figure.suptitle("mixer.schedule, here with mixer.stop_epoch = 15 of 20", fontsize=10)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def list_options() -> str:
    """Every mixer with its options, as they are written in mixer.options."""
    from sem_jax.mixers import MIXERS
    from sem_jax.mixers.build import options_of

    lines = []
    for name, make in MIXERS.items():
        options = {key: value for key, value in options_of(make).items() if key != "alpha"}
        lines.append(f"{name:<17} {', '.join(f'{key}={value!r}' for key, value in options.items())}".rstrip())
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sem_jax.mixers", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--out", default="mixers_sheet", help="folder for the pictures (default: %(default)s)")
    parser.add_argument("--images", nargs="+", default=[], metavar="PATH", help="two or more images, or a folder")
    parser.add_argument(
        "--mixers", nargs="+", default=list(ROWS), metavar="NAME", help='"name" or "name(option=value)"'
    )
    parser.add_argument("--size", type=int, default=64, help="pixels of a picture, a multiple of 16 (default: 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="name every mixer's options and end")
    options = parser.parse_args(arguments)
    with exit_on_error():
        if options.list:
            print(list_options())
            return
        import jax

        if options.size < 16 or options.size % 16:
            raise ConfigError(f"--size must be a multiple of 16, got {options.size}")
        if not 0 <= options.seed < 2**32:
            raise ConfigError(f"--seed must be in [0, 2**32), got {options.seed}")
        for text in options.mixers:
            if text != ALIGNMIX:
                made(text)
        # Every program here runs once: most of the time is its compilation.
        jax.config.update("jax_disable_most_optimizations", True)
        pair, pictures, names = load_images(options.images, options.size)
        out = Path(options.out)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out={out}: no folder can be made there ({error.strerror})") from None
        draw_mixers(out / "mixers.png", pair, options.mixers, options.seed)
        draw_pairings(out / "pairings.png", pictures, names, options.size, options.seed)
        draw_schedules(out / "schedules.png")
        print(f"{out / 'mixers.png'}, pairings.png and schedules.png")


if __name__ == "__main__":
    main()
