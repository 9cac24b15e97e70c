"""The 15 corruptions of CIFAR-10-C at its 5 severities, generated for images of any size from 32 up.

    noisy = corrupt(images, "gaussian_noise", severity=3, seed=0)      # u8[n h w 3] -> u8[n h w 3]

Operations and severities are those of the CIFAR sets of Hendrycks & Dietterich, *Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations* (2019), which are milder than those of ImageNet-C and
Tiny-ImageNet-C. Lengths in pixels stay the same in larger images, unless a docstring says otherwise. The published
arrays were made without a seed and partly with ImageMagick and OpenCV, so the images made here agree with them in
distribution only. Results on these must be labelled "generated", never "CIFAR-10-C"; published.py reads the published
sets. The docstring of a corruption names its departures from the original.

To add a corruption, write a `Corruption` (see corruption.py and noise.py) and add a row below.
"""

from sem_jax.evaluation.corruptions.corruption import Corruption
from sem_jax.registry import Table, on_demand

SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIZE = 32  # pixels of height and width

CORRUPTIONS: Table[Corruption] = Table(
    {
        "gaussian_noise": "sem_jax.evaluation.corruptions.noise:GAUSSIAN_NOISE",
        "shot_noise": "sem_jax.evaluation.corruptions.noise:SHOT_NOISE",
        "impulse_noise": "sem_jax.evaluation.corruptions.noise:IMPULSE_NOISE",
        "defocus_blur": "sem_jax.evaluation.corruptions.blur:DEFOCUS_BLUR",
        "glass_blur": "sem_jax.evaluation.corruptions.blur:GLASS_BLUR",
        "motion_blur": "sem_jax.evaluation.corruptions.blur:MOTION_BLUR",
        "zoom_blur": "sem_jax.evaluation.corruptions.blur:ZOOM_BLUR",
        "snow": "sem_jax.evaluation.corruptions.weather:SNOW",
        "frost": "sem_jax.evaluation.corruptions.weather:FROST",
        "fog": "sem_jax.evaluation.corruptions.weather:FOG",
        "brightness": "sem_jax.evaluation.corruptions.digital:BRIGHTNESS",
        "contrast": "sem_jax.evaluation.corruptions.digital:CONTRAST",
        "elastic_transform": "sem_jax.evaluation.corruptions.digital:ELASTIC_TRANSFORM",
        "pixelate": "sem_jax.evaluation.corruptions.digital:PIXELATE",
        "jpeg_compression": "sem_jax.evaluation.corruptions.digital:JPEG_COMPRESSION",
    }
)

__getattr__, __dir__, _ = on_demand(__name__, {"sem_jax.evaluation.corruptions.generate": "corrupt"})
