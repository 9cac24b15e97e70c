"""Do the files of a published corrupted set have each other's names?

    check_names(opened, test.images)                # DataError if fog.npy holds brightness and brightness.npy fog

No checksum is needed: what a file holds is compared with corruptions of the same clean images generated here. Those
have other draws and agree with the published ones in distribution only, so the comparison is one of statistics, not
of pixels, and a true set must never be refused for being made by another program. Hence a set is refused only for a
closed exchange: every file of it is clearly nearer to the next one's corruption than to that of its own name, and the
last one to the first's. A difference between the two programs moves a file away from its name; that another file
moves to the place it left is what only an exchange does. A file that holds anything else is not refused.

Measured on CIFAR-10 test images, eight groups of 32, with sets made by our generator from other draws (the published
set was not at hand): 98 to 100 of the 105 exchanges of two names are found. Those that can't be told apart are
gaussian_noise and shot_noise; elastic_transform and motion_blur, zoom_blur and often glass_blur or defocus_blur;
motion_blur and zoom_blur; snow and frost, which are left out on purpose. Where the set is of severity 4 and the
comparison of 5, 83 to 92 are found: fog and contrast, brightness and snow, frost or jpeg_compression, defocus_blur and
pixelate or jpeg_compression and, in some groups, a few more are missed too. No true set was refused, its files being
of severity 3, 4 or 5 and each as it is, or lightened or darkened by up to 25, of another contrast, blurred, noisier,
shifted by a pixel, clipped or stored as JPEG: for each two files but snow and frost 14,112 cases, and 20,000 whole
sets.

Checked is severity 5 alone, and the files of the corruptions that are scored.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from sem_jax.errors import DataError
from sem_jax.evaluation.corruptions import MIN_SIZE, corrupt
from sem_jax.evaluation.corruptions.published import Published

SEVERITY = 5  # the one at which the corruptions are least alike
IMAGES, LEAST_IMAGES = 32, 16
RATIO, MARGIN = 2.0, 0.35  # a file is clearly another's if its own distance is so much larger, by factor and by amount
# The one pair for which true sets, changed as above, were refused.
UNSURE = frozenset({"snow", "frost"})
# Spread of each statistic over the 15 corruptions of CIFAR-10's test images. Constants, so that a verdict on two files
# does not depend on which others are compared.
_SCALES = np.array([0.079, 0.224, 0.048, 0.037, 0.312, 0.235, 0.044, 0.022, 0.102, 0.049])
_NEVER = 1e6  # cost of what is not allowed; infinity would be refused


def describe(corrupted: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """f64[k], statistics that tell the corruptions apart and hardly depend on their random draws.

    Args:
      corrupted, clean: u8[n h w c], the same images.
    """
    x, y = corrupted / 255.0, clean / 255.0
    pixels = (1, 2, 3)

    def centred(images):
        return images - images.mean((1, 2), keepdims=True)

    def mean_of_neighbours(images, function):
        down, right = function(images[:, 1:], images[:, :-1]), function(images[:, :, 1:], images[:, :, :-1])
        return (down.mean(pixels) + right.mean(pixels)) / 2

    change = centred(x - y)
    power = (change**2).mean(pixels) + 1e-4
    inner = x[:, 1:-1, 1:-1]
    around = (x[:, 2:, 1:-1] + x[:, :-2, 1:-1] + x[:, 1:-1, 2:] + x[:, 1:-1, :-2]) / 4
    detail = np.abs(inner - around)
    per_image = [
        (x - y).mean(pixels),  # lighter: brightness, snow, frost
        (centred(x) * centred(y)).mean(pixels) / ((centred(y) ** 2).mean(pixels) + 1e-4),  # contrast that is left
        np.sqrt((centred(x) ** 2).mean(pixels)),
        np.sqrt(power),
        mean_of_neighbours(change, np.multiply) / power,  # is the change rough (noise) or smooth (weather)?
        (change.mean(3) ** 2).mean((1, 2)) / power,  # is it grey (snow, fog) or of any colour (noise)?
        np.sqrt((detail**2).mean(pixels)),  # noise adds fine detail, blur takes it away
        np.median(detail.reshape(len(x), -1), axis=1),  # that of most pixels: impulse noise spares them
        mean_of_neighbours(x, np.equal),  # pixelate
        ((x == 0) | (x == 1)).mean(pixels) - ((y == 0) | (y == 1)).mean(pixels),  # impulse; shot noise spares black
    ]
    return np.mean(per_image, axis=1)


def distances(generated: Mapping[str, np.ndarray], files: Mapping[str, np.ndarray], clean: np.ndarray) -> np.ndarray:
    """f64[k k], [i, j] between the corruption generated as name i and the file of name j; around 1 if unlike."""
    made = np.stack([describe(images, clean) for images in generated.values()])
    found = np.stack([describe(files[name], clean) for name in generated])
    return np.sqrt((((made[:, None] - found[None]) / _SCALES) ** 2).mean(-1))


def exchanged(distance: np.ndarray, names: Sequence[str]) -> dict[str, str]:
    """File -> the name whose corruption it seems to hold, for all files of closed exchanges.

    The files are given to the names so that the distances are least, where a file may only stay or go to a name that
    is clearly nearer than its own. What moves in such an assignment moves in cycles.

    Args:
      distance: f64[k k], as `distances` gives them.
      names: of its rows and columns.
    """
    own = np.diag(distance)
    clear = (own >= RATIO * distance) & (own - distance >= MARGIN)
    unsure = np.isin(names, list(UNSURE))
    allowed = (clear & ~np.outer(unsure, unsure)) | np.eye(len(own), dtype=bool)
    holds, files = linear_sum_assignment(np.where(allowed, np.log(distance + 0.01), _NEVER))
    return {names[file]: names[name] for name, file in zip(holds, files, strict=True) if name != file}


def check_names(opened: Published, clean: np.ndarray, *, seed: int = 0, frost_dir: str = "") -> str:
    """Refuses a set of arrays in which two or more files have each other's names.

    Args:
      opened: the set; of the corruptions in it, and of no others, each other's names are found.
      clean: u8[m h w c], the clean test images in the set's order.
      seed, frost_dir: of the corruptions generated for comparison.

    Returns:
      "" if the names were checked, else a sentence saying why they could not be.

    Raises:
      DataError: an exchange; names the files and what each seems to hold.
    """
    if opened.layout != "arrays":
        return "Whether corruptions have each other's names is not checked: the set is in an order of its own."
    clean = np.asarray(clean[:IMAGES])
    if len(clean) < LEAST_IMAGES or clean.dtype != np.uint8 or min(clean.shape[1:3]) < MIN_SIZE or clean.shape[3] != 3:
        return f"Whether files have each other's names is not checked: that takes {LEAST_IMAGES} clean RGB images."
    files = {name: np.asarray(opened.read(name, SEVERITY).images[: len(clean)]) for name in opened.names}
    if any(images.shape != clean.shape for images in files.values()):
        return "Whether files have each other's names is not checked: there are no clean images of the same size."
    if len(files) < 2:
        return ""
    made = {name: corrupt(clean, name, SEVERITY, seed=seed, frost_dir=frost_dir) for name in files}
    moved = exchanged(distances(made, files, clean), list(made))
    if moved:
        seems = ", ".join(f"{file}.npy looks like {name}" for file, name in sorted(moved.items()))
        raise DataError(
            f"{opened.path}: {len(moved)} files seem to have each other's names: {seems}",
            f"Judged by {len(clean)} images of severity {SEVERITY} and the same corruptions generated here; "
            "get the published files again.",
        )
    return ""
