"""Decodes image files of every mode to uint8 RGB arrays, with Pillow."""

import contextlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sem_jax.errors import DataError, one_line

# Files beside images that are skipped; every other name may be an image's, and the file's first bytes decide.
BESIDE = tuple(
    ".txt .md .rst .json .jsonl .xml .yaml .yml .csv .tsv .html .log .ini .db .py .sh .mat .npy .npz .pdf .zip .tar "
    ".gz .tgz .md5 .sha1 .sha256 license readme copying makefile md5sums sha256sums".split()
)
# The formats that Pillow may open, whatever the file's name; its reader of EPS, for one, starts a program.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM", "TIFF")
MAX_PIXELS = 89_478_485  # the limit of Pillow's own warning: 268 MB of RGB
RESIZED_PIXELS = 1 << 24  # pixels that resizing may make before the centre is cut out; else only the centre is made
THREADS = min(8, os.cpu_count() or 1)
THREADS_FROM = 20_000  # bytes a file; smaller ones decode faster in one thread (measured on 32x32 PNG)

Where = Callable[[int], str]  # index of an image -> its name, for messages


def is_image(name: str) -> bool:
    """Whether a file of this name may be an image: any name but those of BESIDE and hidden ones."""
    last = name.rsplit("/", 1)[-1]
    return not last.startswith(".") and not last.lower().endswith(BESIDE)


def holds_image(data: bytes) -> bool:
    """Whether the first bytes are those of an image in one of FORMATS; it may be damaged further on."""
    from PIL import Image

    with contextlib.suppress(Exception):  # Pillow raises many kinds
        Image.open(io.BytesIO(data), formats=FORMATS)
        return True
    return False


def decode(
    data: bytes,
    where: str,
    image_size: int = 0,
    *,
    eval_crop: float = 1.0,
    box: Callable[[int, int], tuple[float, float, float, float]] | None = None,
) -> np.ndarray:
    """One encoded image as RGB.

    EXIF orientation is applied, 16-bit grey is scaled to 8 bit, alpha is dropped (as torchvision does), and CMYK,
    palette and grey become RGB. An animation gives its first frame.

    Args:
      where: the file's name, for messages.
      image_size: 0 keeps the size; else the shorter side is resized to it, antialiased, and the centre cut out.
      eval_crop: share of the shorter side that the centre crop keeps: 0.875 resizes to 256 for an image_size of 224.
      box: (width, height) -> (left, top, right, bottom), a part to resize to image_size instead of the centre crop.

    Returns:
      u8[h w 3].

    Raises:
      DataError: the file is empty, damaged or no image, or has more than MAX_PIXELS.
    """
    from PIL import Image, ImageOps

    if not data:
        raise DataError(f"{where} is empty (0 bytes)", "Delete the file or replace it with a good copy.")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            message = f"{where} is too large to be a training image: {image.width}x{image.height} pixels"
            raise DataError(message, f"At most {MAX_PIXELS} pixels are read; delete the file or make it smaller.")
        if image.getexif():  # calling exif_transpose without this costs a third of the decoding time
            image = ImageOps.exif_transpose(image)
        image = _to_rgb(image, where)
        if image_size and box:
            image = image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box(*image.size))
        elif image_size:
            image = _fit(image, image_size, eval_crop)
        return np.asarray(image)
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds on damaged bytes
        message = f"{where} is not a readable image: {one_line(error).split(' <_io')[0]}"
        raise DataError(message, "Delete it or replace it with a good copy.") from error


def decode_all(
    count: int,
    read: Callable[[int], bytes],
    where: Where,
    *,
    image_size: int = 0,
    shape: tuple[int, ...] | None = None,
    progress: str = "",
) -> np.ndarray:
    """Decodes `count` >= 1 images of one size to u8[n h w 3].

    Args:
      read: index -> encoded bytes.
      where: index -> name, for messages.
      image_size: see `decode`.
      shape: (h, w, 3) that every image must have; None takes the first image's.
      progress: label of a progress bar, which only a terminal shows.

    Raises:
      DataError: an image cannot be read or has another size, or the images need more memory than the machine has.
    """
    data = read(0)
    one = decode(data, where(0), image_size)
    needed, there = count * int(np.prod(shape or one.shape)), memory_of_machine()
    if needed > there:  # else the operating system would end the process half an hour later
        size = f"{count} images of {one.shape[1]}x{one.shape[0]} ({where(0)} and others)"
        message = f"{size} need {needed / 1e9:.0f} GB of memory; this machine has {there / 1e9:.0f} GB"
        raise DataError(message, "Set data.image_size to a smaller number, or use fewer images.")
    threads = 1 if len(data) < THREADS_FROM else THREADS
    image = lambda i: decode(read(i), where(i), image_size) if i else one  # noqa: E731
    return gather(count, image, where, shape or one.shape, "" if shape else where(0), threads, progress)


def gather(count: int, image: Callable[[int], np.ndarray], where: Where, shape, first="", threads=1, progress=""):
    """u8[count *shape] of every `image(i)`; DataError if one has another shape than the image named `first`."""
    from sem_jax.system.progress import bar

    out = np.empty((count, *shape), np.uint8)

    def fill(i: int) -> None:
        pixels = image(i)
        if pixels.shape != shape:
            size, want = (f"{s[1]}x{s[0]}" for s in (pixels.shape, shape))
            if not first:
                message = f"{where(i)} has {size} pixels, expected {want}"
                raise DataError(message, "Prepare the data again from the official files.")
            message = f"images differ in size: {first} has {want} pixels, {where(i)} has {size}"
            raise DataError(message, "Set data.image_size, such as --config.data.image_size=64, to resize them.")
        out[i] = pixels

    with ThreadPoolExecutor(threads) as pool:
        done = (pool.map if threads > 1 else map)(fill, range(count))
        for _ in bar(done, desc=progress, total=count, leave=False, unit="img", shown=bool(progress)):
            pass
    return out


def cover(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """u8[h w c], c 1 or 3, resized (antialiased) so that it just covers height x width, and the middle cut out."""
    from PIL import Image

    scale = max(height / image.shape[0], width / image.shape[1])
    rows, columns = max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale))
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    picture = picture.resize((columns, rows), Image.Resampling.BILINEAR)  # Pillow's resize is antialiased
    top, left = (rows - height) // 2, (columns - width) // 2
    return np.asarray(picture.crop((left, top, left + width, top + height))).reshape(height, width, -1)


def encode_png(image: np.ndarray) -> bytes:
    """u8[h w 3] -> lossless PNG bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG")
    return file.getvalue()


def memory_of_machine() -> float:
    """Bytes of memory; infinity if the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return float("inf")


def _to_rgb(image, where: str):
    from PIL import Image

    if image.mode == "F":
        raise DataError(f"{where} has floating-point pixels, whose range is unknown", "Save it as an 8-bit PNG.")
    if image.mode.startswith("I"):  # 16-bit grey; older Pillows open it as 32-bit "I"
        values = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _fit(image, size: int, share: float):
    from PIL import Image

    width, height = image.size
    shorter = round(size / share)
    if min(width, height) != shorter:
        scale = shorter / min(width, height)
        wide, high = max(shorter, round(width * scale)), max(shorter, round(height * scale))
        if wide * high > RESIZED_PIXELS:  # a line of 60000x1 would become 60000 squares
            left, top = (wide - size) // 2, (high - size) // 2
            box = (left * width / wide, top * height / high, (left + size) * width / wide, (top + size) * height / high)
            return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
        image = image.resize((wide, high), Image.Resampling.BILINEAR)  # Pillow's resize is antialiased
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
