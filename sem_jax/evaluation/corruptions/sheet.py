"""The picture sheet of the report: every corruption at every severity, to be checked by eye."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sem_jax.evaluation.corruptions import CORRUPTIONS, SEVERITIES


def picture_sheet(
    grid: np.ndarray, *, names: Sequence[str] = tuple(CORRUPTIONS), title: str = "Generated corruptions"
) -> Figure:
    """Draws a grid with a row for each corruption; clean and the five severities from left to right.

    Args:
      grid: u8[r 6 n h w c], images under r corruptions: clean, then severity 1 to 5; n images side by side in a cell.
      names: the r row labels.
      title: of the sheet; must say "generated" if the images are.
    """
    count, columns, images, height, width, channels = grid.shape
    if count != len(names) or columns != 1 + len(SEVERITIES):
        raise ValueError(f"grid must be [{len(names)} {1 + len(SEVERITIES)} n h w c], got {list(grid.shape)}")
    cells = grid.transpose(0, 1, 3, 2, 4, 5).reshape(count, columns, height, images * width, channels)
    figsize = (1.0 + 1.05 * columns * images, 0.6 + 1.1 * count * height / width)
    figure = Figure(figsize=figsize, layout="constrained")
    axes = figure.subplots(count, columns, squeeze=False)
    size = 10 * max(1.0, figsize[0] / 11)  # legible on a page, which is 11 inches wide at most
    for row, name in enumerate(names):
        for column in range(columns):
            axis = axes[row, column]
            # Repeats a single channel, which imshow would show in false colours.
            axis.imshow(np.broadcast_to(cells[row, column], (height, images * width, 3)), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if row == 0:
                axis.set_title("clean" if column == 0 else f"severity {column}", fontsize=size)
        axes[row, 0].set_ylabel(name.replace("_", "\n", 1), rotation=0, ha="right", va="center", fontsize=size)
    figure.suptitle(title, fontsize=1.1 * size)
    return figure
