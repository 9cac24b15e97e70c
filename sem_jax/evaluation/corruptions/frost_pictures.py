"""Pictures from which frost is cropped: the published photographs of a folder, or generated textures."""

import functools
from pathlib import Path

import numpy as np

from sem_jax.data.files import FolderFiles
from sem_jax.data.images import decode
from sem_jax.errors import DataError

# The original chooses among its six files with randint(5), so the sixth never appears.
FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
COUNT = len(FILES)

# For each generated texture: darkest colour, brightest colour, mean and deviation of the grey level, strength of the
# veins relative to the grain. Means and deviations are near those of the photographs, as they set how hard frost is.
_STYLES = (
    ((30, 95, 120), (215, 235, 240), 130, 19, 0.9),
    ((120, 130, 150), (255, 255, 255), 207, 24, 1.0),
    ((135, 135, 140), (255, 255, 255), 205, 24, 1.4),
    ((45, 55, 70), (250, 252, 255), 152, 31, 1.0),
    ((15, 22, 35), (245, 250, 255), 123, 43, 1.6),
)
_HEIGHT, _WIDTH = 600, 900


def _noise(rng: np.random.Generator, length: float, width: float, angle: float) -> np.ndarray:
    """Smooth normal noise of variance 1; `length` and `width` are deviations in pixels along and across `angle`."""
    spectrum = np.fft.rfft2(rng.standard_normal((_HEIGHT, _WIDTH)))
    fy, fx = np.fft.fftfreq(_HEIGHT)[:, None], np.fft.rfftfreq(_WIDTH)[None, :]
    along = fx * np.cos(angle) + fy * np.sin(angle)
    across = fy * np.cos(angle) - fx * np.sin(angle)
    spectrum *= np.exp(-2 * np.pi**2 * ((length * along) ** 2 + (width * across) ** 2))
    noise = np.fft.irfft2(spectrum, s=(_HEIGHT, _WIDTH))
    return (noise - noise.mean()) / noise.std()


def _texture(rng: np.random.Generator, low, high, mean: float, deviation: float, veins: float) -> np.ndarray:
    """Crystal needles in six directions, grain and slow shading, u8[H W 3].

    Needles are the ridges exp(-(n / 0.3)^2) of noise n that is smooth along one direction. Slower noise weights the
    directions at each point.
    """
    angles = rng.uniform(0, np.pi) + np.arange(6) * np.pi / 6
    ridges = [np.exp(-((_noise(rng, 36, 3.5, angle) / 0.3) ** 2)) for angle in angles]
    patches = np.exp(3.0 * np.stack([_noise(rng, 45, 45, 0) for _ in angles]))
    needles = (np.stack(ridges) * patches).sum(0) / patches.sum(0)
    needles = (needles - needles.mean()) / needles.std()
    grain = _noise(rng, 2.5, 2.5, 0)
    rough = np.exp(0.35 * _noise(rng, 90, 90, 0))  # rime lies thicker in some places
    shade = _noise(rng, 120, 120, 0)
    height = (veins * needles + grain) * rough + 1.1 * shade
    gray = mean + deviation * (height - height.mean()) / height.std()
    low, high = np.array(low, float), np.array(high, float)
    share = np.clip((gray - low.mean()) / (high.mean() - low.mean()), -0.2, 1.05)[..., None]
    return np.clip(low + share * (high - low), 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=1)
def textures() -> tuple[np.ndarray, ...]:
    """Five generated pictures of frost, u8[600 900 3], the same in every run."""
    return tuple(_texture(np.random.default_rng(100 + i), *style) for i, style in enumerate(_STYLES))


def read(frost_dir: str) -> tuple[np.ndarray, ...]:
    """The published photographs frost1.png ... frost5.jpg of a folder, u8[H W 3] each.

    Raises:
      DataError: a file is missing or cannot be read.
    """
    missing = [name for name in FILES if not Path(frost_dir, name).is_file()]
    if missing:
        raise DataError(
            f"frost_dir={frost_dir!r} lacks {', '.join(missing)}",
            "Take them from github.com/hendrycks/robustness, or leave frost_dir empty for generated textures.",
        )
    folder = FolderFiles(Path(frost_dir), FILES)
    return tuple(decode(folder.read(name), folder.where(name)) for name in FILES)


def _shrink(picture: np.ndarray, factor: float) -> np.ndarray:
    """Resizes by bilinear interpolation without smoothing, as OpenCV does; a factor of 1/5 takes every fifth pixel."""

    def positions(size):
        made = round(size * factor)
        position = np.clip((np.arange(made) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.minimum(np.floor(position).astype(int), size - 2)
        return low, position - low

    picture = picture.astype(np.float64)
    (rows, down), (cols, right) = (positions(size) for size in picture.shape[:2])
    picture = picture[rows] * (1 - down)[:, None, None] + picture[rows + 1] * down[:, None, None]
    picture = picture[:, cols] * (1 - right)[:, None] + picture[:, cols + 1] * right[:, None]
    return np.floor(picture + 0.5)


@functools.lru_cache(maxsize=4)
def stacked(frost_dir: str, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The pictures, f32[5 H W c], padded with zeros, and their true heights and widths, i32[5 2].

    They are scaled to 1/5 for images of 32 pixels, as in the original, and in proportion for larger ones.

    Args:
      frost_dir: folder of the published photographs; "" = generated textures.
      shape: (h, w, c) of the images; c = 1 makes the pictures grey.

    Raises:
      DataError: a picture is missing, unreadable or too small.
    """
    height, width, channels = shape
    factor = 0.2 * max(height, width) / 32
    pictures = [_shrink(picture, factor) for picture in (read(frost_dir) if frost_dir else textures())]
    if channels == 1:
        pictures = [np.floor(picture @ [0.299, 0.587, 0.114] + 0.5)[..., None] for picture in pictures]
    sizes = np.array([picture.shape[:2] for picture in pictures], np.int32)
    for name, size in zip(FILES, sizes, strict=True):
        if size[0] <= height or size[1] <= width:
            found = f"{round(size[0] / factor)}x{round(size[1] / factor)}"
            raise DataError(f"{Path(frost_dir, name)} is too small: {found} pixels for {height}x{width} images")
    out = np.zeros((COUNT, *sizes.max(axis=0), channels), np.float32)
    for slot, picture in zip(out, pictures, strict=True):
        slot[: picture.shape[0], : picture.shape[1]] = picture
    return out, sizes
