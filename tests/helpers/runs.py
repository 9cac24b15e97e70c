"""A run folder as a trainer leaves it, made without training: a tiny net on a part of CIFAR-10 made of noise."""

from pathlib import Path

import jax
import numpy as np
from PIL import Image

from sem_jax import config, data
from sem_jax.data.cifar import CIFAR10
from sem_jax.models import make_model
from sem_jax.runs import records
from sem_jax.runs.checkpoint import Checkpoints
from sem_jax.runs.opening import DataFacts
from sem_jax.runs.records import write_json
from sem_jax.runs.state import TrainState

CLASSES = CIFAR10.class_names
TRAIN, TEST, VAL = 4, 2, 10  # images of a class, twice; images held out of train


def pictures(count: int, seed: int, size: int = 32) -> np.ndarray:
    """u8[n size size 3]: noise around a colour of each image's own."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(30, 225, (count, 1, 1, 3))
    return (colour + rng.integers(-30, 31, (count, size, size, 3))).astype(np.uint8)


def write_tree(folder: Path, images: np.ndarray, names) -> None:
    """One PNG an image, in the folder of its name ('' for none)."""
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name / f"{index:04}.png")


def write_cifar10(place: Path) -> None:
    """train/ and test/ of a small part of CIFAR-10, as an image folder."""
    for seed, (split, count) in enumerate((("train", TRAIN), ("test", TEST))):
        names = [name for name in CLASSES for _ in range(count)]
        write_tree(place / "cifar10" / split, pictures(len(names), seed), names)


def random_state(model, image_shape, step: int, seed: int) -> TrainState:
    """Parameters drawn with NumPy: nothing has to be compiled."""
    rng = np.random.default_rng(seed)
    images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        name = path[-1].key
        if name == "kernel":
            return jax.numpy.asarray(noise * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1]))))
        return jax.numpy.asarray(np.float32(name in ("scale", "var")) + np.float32(0.1) * np.tanh(noise))

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    return TrainState(jax.numpy.int32(step), variables["params"], variables["batch_stats"], {})


def write_run(
    folder: Path, place: Path, *, seed: int = 0, val_size: int = VAL, steps=(1, 2, 3), name: str = "cifar10"
) -> None:
    """config.json, data.json, metrics.jsonl and a checkpoint at each step, of other parameters each.

    val_accuracy is 0.1, 0.9, 0.2 at steps 1, 2, 3.
    """
    cfg = config.get_default()
    cfg.seed = seed
    cfg.data.name, cfg.data.dir, cfg.data.val_size = name, str(place), val_size
    cfg.model.name, cfg.model.depth, cfg.model.width = "wide_resnet", 10, 1
    cfg.runtime.eval_batch_size = 16
    dataset = data.load(
        name, data_dir=str(place), val_size=val_size, val_seed=seed, reading=data.Reading(download=False)
    )
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config.to_dict(cfg))
    facts = DataFacts.of(dataset)
    write_json(folder / "data.json", facts.to_json())
    model, lines = make_model(**{**cfg.model, "num_classes": 10}), []
    run = records.RunFolder(folder)
    with Checkpoints(run.checkpoints, keep=9, best="val_accuracy" if val_size else None) as checkpoints:
        for step in steps:
            scores = {"val_accuracy": {1: 0.1, 2: 0.9, 3: 0.2}[step]} if val_size else {}
            checkpoints.save(step, random_state(model, facts.image_shape, step, 10 * seed + step), {}, scores)
            lines.append({"step": step, "epoch": step, **scores})
        checkpoints.wait()
    (folder / "metrics.jsonl").write_text("".join(records.json.dumps(line) + "\n" for line in lines))
