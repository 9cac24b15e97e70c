"""What is known to fail from a run's facts and the options alone, refused before anything is opened; no jax.

check_early("digits", (8, 8, 1), Options(suites=("ood",)))    # DataError: no OOD set is known for digits: ...
"""

from collections.abc import Sequence
from pathlib import Path

from sem_jax.data import DATASETS
from sem_jax.data.npy_files import read_npy_header
from sem_jax.errors import DataError
from sem_jax.evaluation.options import Options
from sem_jax.runs.reading import read_json

NPY = "_data.npy"


def size_text(shape: Sequence[int]) -> str:
    """ "32x32 with 3 channels" of an image shape (h, w, c)."""
    return f"{shape[0]}x{shape[1]} with {shape[2]} channel{'s' if shape[2] > 1 else ''}"


def unsuited(data: str, image_shape: tuple[int, ...]) -> str:
    """Why the published OOD sets say nothing about a run on the data set `data`; "" if they do."""
    if image_shape[2] != 3:
        return f"they are RGB, {data} has {size_text(image_shape)}"
    if data not in DATASETS or DATASETS[data].own:
        return "they were chosen for CIFAR; pictures of your own may be of the same kind as theirs"
    return ""


def check_early(data: str, image_shape: tuple[int, ...], options: Options) -> None:
    """Refuses sets that do not fit the images of a run, by their kind and header.

    Args:
      data: name of the run's data set.
      image_shape: (h, w, c) of its images.
      options: of the evaluation.

    Raises:
      DataError: suites=("ood",) without a set that could be scored; a set of another number of channels, or a labelled
        array of another size.
    """
    if tuple(options.suites) == ("ood",) and not options.ood and (reason := unsuited(data, image_shape)):
        raise DataError(f"no OOD set is known for {data}: of the published ones, {reason}", "Give one: --ood NAME=PATH")
    for suite, sets in (("ood", options.ood), ("shift", options.shift)):
        for name, path in sets.items() if suite in options.suites else ():
            found = _shape(Path(path).expanduser())
            if suite == "shift" and len(found) == 3 and found != tuple(image_shape):
                message = f"{name}: images are {size_text(found)}, those of training {size_text(image_shape)}"
                raise DataError(message, "Bring the images to that size first: a labelled set is not resized silently.")
            if found and found[-1] != image_shape[-1]:
                raise DataError(f"{name} has {found[-1]} channels, the model was trained on {image_shape[-1]}")


def check_folder(folder: Path, options: Options) -> None:
    """`check_early` for a run folder, if it has a data.json that can be read."""
    try:
        facts = read_json(folder / "data.json")
        name, shape = str(facts["name"]), tuple(int(n) for n in facts["image_shape"])
        height, width, channels = shape
    except (ValueError, TypeError, KeyError):  # opening the run says what is wrong
        return
    check_early(name, (height, width, channels), options)


def _shape(path: Path) -> tuple[int, ...]:
    """(h, w, c) of an array's images, (3,) of pictures, which are RGB; () where only reading it tells."""
    pair = path.with_name(path.name + NPY)
    path = pair if pair.is_file() else path
    if path.suffix == ".npy" and path.is_file():
        with path.open("rb") as file:
            shape = read_npy_header(file, path.stat().st_size, str(path))[1]
        return shape[1:] if len(shape) == 4 else (*shape[1:], 1) if len(shape) == 3 else ()
    arrays = path.is_dir() and any(path.glob(f"*{NPY}"))
    return (3,) if path.is_dir() and not arrays else ()
