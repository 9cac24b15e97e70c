"""The picture sheet of the report: every corruption at every severity, for a person to see that each looks right."""

import numpy as np
from matplotlib.figure import Figure

from sem_jax.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt


def picture_grid(images: np.ndarray, *, seed: int = 0, frost_dir: str = "") -> np.ndarray:
    """The images clean and under all corruptions.

    Args:
      images: u8[n h w c]; see `corrupt`.
      seed, frost_dir: as for `corrupt`.

    Returns:
      u8[15 6 n h w c]: corruptions in the order of CORRUPTIONS, then clean and severity 1 to 5.
    """
    rows = []
    for name in CORRUPTIONS:
        made = [corrupt(images, name, severity, seed=seed, frost_dir=frost_dir) for severity in SEVERITIES]
        rows.append(np.stack([images, *made]))
    return np.stack(rows)


def picture_sheet(grid: np.ndarray, *, names=tuple(CORRUPTIONS), title: str = "Generated corruptions") -> Figure:
    """Draws a grid: a row for each corruption; clean and the five severities from left to right.

    Args:
      grid: u8[r 6 n h w c], for instance from `picture_grid`; the n images of a cell stand side by side.
      names: the r row labels.
      title: says what is shown; keep the word "generated" for images that are.

    Returns:
      A figure that belongs to no window and no global state; save it with `figure.savefig(path, dpi=...)`.
    """
    count, columns, images, height, width, channels = grid.shape
    if count != len(names) or columns != 1 + len(SEVERITIES):
        raise ValueError(f"grid must be [{len(names)} {1 + len(SEVERITIES)} n h w c], got {list(grid.shape)}")
    cells = grid.transpose(0, 1, 3, 2, 4, 5).reshape(count, columns, height, images * width, channels)
    figsize = (1.0 + 1.05 * columns * images, 0.6 + 1.1 * count * height / width)
    figure = Figure(figsize=figsize, layout="constrained")
    axes = figure.subplots(count, columns, squeeze=False)
    size = 10 * max(1.0, figsize[0] / 11)  # a page shows it 11 inches wide at most: the text must stay legible
    for row, name in enumerate(names):
        for column in range(columns):
            axis = axes[row, column]
            # One channel has to be repeated: imshow would paint it with a colour map.
            axis.imshow(np.broadcast_to(cells[row, column], (height, images * width, 3)), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if row == 0:
                axis.set_title("clean" if column == 0 else f"severity {column}", fontsize=size)
        axes[row, 0].set_ylabel(name.replace("_", "\n", 1), rotation=0, ha="right", va="center", fontsize=size)
    figure.suptitle(title, fontsize=1.1 * size)
    return figure
