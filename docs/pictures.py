"""Draws the pictures of the documentation: mixers.png, pairings.png and schedules.png.

python -m docs.pictures                # into docs/
python -m docs.pictures --out=DIR
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from sem_jax.mixers.pairing import PAIRINGS, paired_within
from sem_jax.mixers.sheet import draw_mixers, load_pair, resized, save_sheet
from sem_jax.mixers.strength import STRENGTHS, make_strength

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  the backend is chosen first

SIZE, SEED = 64, 0


def draw_pairings(path: Path, pictures: Sequence[np.ndarray], names: Sequence[str], size: int = SIZE) -> None:
    """pairings.png: a small batch of crops, and below each item the partner it gets.

    Args:
      path: of the picture.
      pictures: two of them, u8[h w 3]; six crops are of the first, four of the second.
      names: the class of each.
      size: pixels of a crop in the picture.
    """
    rng = np.random.default_rng(SEED)
    which = [0, 1] * 4 + [0, 0]
    labels = jnp.asarray(which, jnp.int32)
    tiles = []
    for i in which:
        side = min(pictures[i].shape[:2]) // 2
        top, left = (rng.integers(0, n - side + 1) for n in pictures[i].shape[:2])
        tiles.append(resized(pictures[i][top : top + side, left : left + side], size))

    def row(title, order):
        return title, [tiles[i] for i in order], [f"{i}: {names[which[i]]}" for i in order]

    pairs = list(PAIRINGS.items())
    pairs.insert(1, ("permutation,\nacross_device=False\non 2 devices", paired_within(PAIRINGS["permutation"], 2)))
    key = jax.random.key(SEED)
    rows = [row("the batch", range(10)), *[row(name, pair(key, labels).tolist()) for name, pair in pairs]]
    save_sheet(path, rows, [str(i) for i in range(10)])


def draw_schedules(path: Path) -> None:
    """schedules.png: strength over 20 epochs, mixing until the 15th."""
    steps, epochs, stop = 50, 20, 15
    figure, axes = plt.subplots(1, len(STRENGTHS), figsize=(10, 2.2), sharey=True, layout="constrained")
    for axis, name in zip(axes, STRENGTHS, strict=True):
        strength = make_strength(name, total_steps=stop * steps, steps_per_epoch=steps)
        at = jnp.arange(stop * steps)
        axis.step(at / steps, [float(v) for v in strength(at)], where="post", color="#1f77b4")
        axis.plot([stop, stop, epochs], [float(strength(at[-1])), 0, 0], color="#d62728", label="stopped")
        axis.set(title=name, xlabel="epoch", ylim=(-0.05, 1.05))
    axes[0].set_ylabel("strength")
    axes[0].legend(frameon=False, loc="lower left")
    figure.suptitle("mixer.schedule, here with mixer.stop_epoch = 15 of 20", fontsize=10)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    from sklearn.datasets import load_sample_images

    parser = argparse.ArgumentParser(prog="python -m docs.pictures", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder (default: docs)")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_disable_most_optimizations", True)  # every program runs once
    draw_mixers(out / "mixers.png", load_pair([], SIZE))
    draw_pairings(out / "pairings.png", load_sample_images().images[::-1], ("flower", "temple"))
    draw_schedules(out / "schedules.png")


if __name__ == "__main__":
    main()
