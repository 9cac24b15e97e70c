"""Images per second of batches that are decoded while they are read, by number of worker processes.

    python -m experiments.speed.input_pipeline [--cifar10=DIR] [--workers=0,1,2]

Makes 512 JPEGs of photographic content from scikit-learn's sample pictures in a temporary folder and reads random
resized crops of 224 pixels from them; with --cifar10, also the records of a CIFAR-10 prepared as array_record.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.commands import parser


def write_photos(root: Path, count: int) -> None:
    """An image folder of two classes: parts of two photographs, of many sizes."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("test", 4)):
        for label, pixels in enumerate(load_sample_images().images):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            picture = Image.fromarray(pixels)
            for i in range(number // 2):
                width, height = int(rng.integers(400, 600)), int(rng.integers(330, 427))
                left, top = int(rng.integers(0, 641 - width)), int(rng.integers(0, 428 - height))
                part = picture.crop((left, top, left + width, top + height))
                part.save(folder / f"{i}.jpg", quality=90)


def measure(name: str, split, workers: list[int], *, batch_size: int, batches: int, crop_scale: float) -> None:
    """Prints CPU time an image, and images/s for each number of workers."""
    from sem_jax.data.encoded_feed import BatchSource, open_batches

    source = BatchSource(split, seed=0, batch_size=batch_size, epochs=1000, crop_scale=crop_scale)
    source[0]
    begin = time.process_time()
    for k in (1, 2):
        source[k]
    print(f"{name}: {(time.process_time() - begin) / (2 * batch_size) * 1e3:.2f} ms of CPU time an image")
    for number in workers:
        begin = time.perf_counter()
        feed = open_batches(source, 0, number)
        for _ in range(4 + 2 * number):  # until every worker has started and its buffer is drained
            next(feed)
        start, begin = time.perf_counter() - begin, time.perf_counter()
        for _ in range(batches):
            next(feed)
        rate = batches * batch_size / (time.perf_counter() - begin)
        getattr(feed, "close", lambda: None)()  # ends the workers
        load = os.getloadavg()[0]
        print(f"{name}, {number} workers: {rate:,.0f} images/s, started in {start:.1f} s (load {load:.1f})", flush=True)


def main() -> None:
    from sem_jax.data import Reading, load

    options = parser("experiments.speed.input_pipeline", __doc__)
    options.add_argument("--cifar10", default="", help="data.dir of a CIFAR-10 prepared as array_record")
    options.add_argument("--workers", default="0,1,2")
    args = options.parse_args()
    workers = [int(number) for number in args.workers.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), 512)
        reading = Reading(encoded=True, eval_crop=0.875)
        split = load("image_folder", data_dir=folder, image_size=224, reading=reading).splits["train"]
        measure("JPEG to 224", split, workers, batch_size=32, batches=12, crop_scale=0.08)
    if args.cifar10:
        split = load("cifar10", data_dir=args.cifar10, reading=Reading(encoded=True)).splits["train"]
        measure("PNG 32x32", split, workers, batch_size=128, batches=60, crop_scale=0.0)


if __name__ == "__main__":
    main()
