"""Draws mixtures of two pictures at lam 0.1 ... 0.9: the sheet of `python -m sem_jax mixers`.

draw_mixers(Path("mixers.png"), load_pair(["cat.png", "dog.png"], size=64), ["mixup", "fmix(decay=2.0)"], seed=0)
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from sem_jax.errors import ConfigError, DataError
from sem_jax.mixers.alignmix import align
from sem_jax.mixers.mixer import Mixer
from sem_jax.mixers.saliency import spectral_residual
from sem_jax.mixers.table import make_mixer

LAMS = np.arange(1, 10) / 10
ALIGNMIX = "alignmix"  # mixes hidden states; the sheet shows it on patches of pixels
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
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")  # no others, whatever the file's name: reading EPS would start a program
TRIES = 512  # draws from which those of the nearest lam are taken
MARGIN, GAP, CAPTION, TOP = 150, 4, 14, 20  # pixels
EXAMPLE = "Give two images, or a folder of them: --images a.png b.png"


def find_images(paths: Sequence[str]) -> list[Path]:
    """The first two files; of a folder with a folder for each class, one of each class in turn.

    Raises:
      DataError: there are fewer than two.
    """
    files = [Path(p) for p in paths]
    if len(files) == 1 and files[0].is_dir():
        files = sorted(p for p in files[0].rglob("*") if p.suffix.lower() in SUFFIXES)
        classes = [list(group) for _, group in itertools.groupby(files, key=lambda p: p.parent)]
        files = [p for row in itertools.zip_longest(*classes) for p in row if p]
    if len(files) < 2:
        count = f"{len(files)} image{'s' * (len(files) != 1)}"
        raise DataError(f"--images found {count}, expected two or more", EXAMPLE)
    return files[:2]


def read_image(path: Path) -> np.ndarray:
    """u8[h w 3], turned as its Exif says.

    Raises:
      DataError: the file cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error ... on bad bytes
        raise DataError(f"--images: {path}: {getattr(error, 'strerror', None) or error}", EXAMPLE) from None


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """f32[size size 3] in [0, 1] of u8[side side 3]."""
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS), np.float32) / 255


def load_pair(paths: Sequence[str], size: int) -> np.ndarray:
    """The middle squares of two pictures, f32[2 size size 3] in [0, 1]; without paths those of scikit-learn."""
    if paths:
        pictures = [read_image(p) for p in find_images(paths)]
    else:
        from sklearn.datasets import load_sample_images  # takes seconds to import

        pictures = load_sample_images().images[::-1]
    squares = []
    for picture in pictures:
        side = min(picture.shape[:2])
        top, left = ((n - side) // 2 for n in picture.shape[:2])
        squares.append(resized(picture[top : top + side, left : left + side], size))
    return np.stack(squares)


def made(text: str) -> Mixer:
    """The mixer of "cutmix" or "cutmix(alpha=0.2)", with a scorer that needs no net.

    Raises:
      ConfigError: the mixer or an option is unknown, or the mixer is one of hidden states.
    """

    def scorer(images, labels):
        del labels
        maps = spectral_residual(images)
        return jax.image.resize(maps, (len(images), 8, 8), "linear") if "attentive" in text else maps

    mixer = make_mixer(text, alpha=1.0, scorer=scorer)
    if mixer.hook is not None:
        raise ConfigError(f"{text} mixes hidden states and cannot be shown on images; leave it out of --mixers")
    return mixer


def alignmix_row(pair: jax.Array) -> np.ndarray:
    """AlignMix at each of LAMS, of a map of 8x8 patches of pixels."""
    cells, (_, height, width, channels) = 8, pair.shape
    maps = pair.reshape(2, cells, height // cells, cells, width // cells, channels).swapaxes(2, 3)
    maps = maps.reshape(2, cells, cells, -1)
    options = {"reverse": jnp.asarray(False), "epsilon": 0.1, "iterations": 200, "tolerance": 0.0}
    mixed = jax.vmap(lambda lam: align(maps[0], maps[1], lam, **options))(jnp.asarray(LAMS, jnp.float32))
    mixed = mixed.reshape(len(LAMS), cells, cells, height // cells, width // cells, channels).swapaxes(2, 3)
    return np.asarray(mixed.reshape(len(LAMS), height, width, channels))


def mixer_row(text: str, pair: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Nine mixed pictures, of the draws with lam nearest to 0.1 ... 0.9, and those lam.

    If no draw comes near, the picture is white and lam is NaN.
    """
    x = jnp.asarray(pair)
    if text == ALIGNMIX:
        return alignmix_row(x), LAMS
    mixer, maps = made(text), ()
    if mixer.score is not None:
        scored = mixer.score(x, None, None)
        maps = tuple(jax.tree.map(lambda m, i=i: m[i], scored) for i in range(2))

    def one(key):
        return mixer.apply(mixer.sample(key, (x.shape[1], x.shape[2], x.shape[3])), x[0], x[1], *maps)

    keys = jax.random.split(jax.random.key(seed), TRIES)
    lam = np.asarray(jax.jit(jax.vmap(lambda key: one(key)[1]))(keys))
    nearest = np.abs(lam[:, None] - LAMS[None]).argmin(axis=0)
    mixed = np.array(jax.jit(jax.vmap(one))(keys[nearest])[0])
    found = np.where(np.abs(lam[nearest] - LAMS) <= 0.05, lam[nearest], np.nan)
    mixed[np.isnan(found)] = 1.0
    return mixed, found


def save_sheet(path: Path, rows: list[tuple[str, Sequence[np.ndarray], list[str]]], head: list[str]) -> None:
    """Draws rows: a title at the left, tiles f32[size size 3], a caption below each tile."""
    font, small = ImageFont.load_default(size=13), ImageFont.load_default(size=10)
    size = len(rows[0][1][0])
    across, down = size + GAP, size + GAP + CAPTION
    sheet = Image.new("RGB", (MARGIN + len(rows[0][1]) * across, TOP + len(rows) * down), "white")
    draw = ImageDraw.Draw(sheet)
    for j, text in enumerate(head):
        draw.text((MARGIN + j * across + size / 2, TOP / 2), text, "black", font, anchor="mm")
    for i, (title, tiles, captions) in enumerate(rows):
        y = TOP + i * down
        draw.multiline_text((4, y + size / 2), title, "black", font, anchor="lm", spacing=2)
        for j, (tile, text) in enumerate(zip(tiles, captions, strict=True)):
            x = MARGIN + j * across
            sheet.paste(Image.fromarray((np.clip(tile, 0, 1) * 255 + 0.5).astype(np.uint8)), (x, y))
            draw.text((x + size / 2, y + size + CAPTION / 2), text, "black", small, anchor="mm")
    # 128 colours look the same and take a third of the bytes.
    sheet.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def draw_mixers(path: Path, pair: np.ndarray, texts: Sequence[str] = ROWS, seed: int = 0) -> None:
    """Draws a row for each mixer: partner, nine mixtures with their lam, anchor.

    Args:
      path: of the picture.
      pair: anchor and partner, f32[2 size size 3] in [0, 1]; size is a multiple of 16.
      texts: mixers, "name" or "name(option=value)".
      seed: of the draws.
    """
    rows = []
    for text in texts:
        tiles, lam = mixer_row(text, pair, seed)
        captions = ["partner", *["" if np.isnan(value) else f"{value:.2f}" for value in lam], "anchor"]
        title = "alignmix\n(of 8x8 patches)" if text == ALIGNMIX else text.replace("(", "\n(")
        rows.append((title, [pair[1], *tiles, pair[0]], captions))
    save_sheet(path, rows, ["lam 0", *[f"{value:.1f}" for value in LAMS], "1"])
