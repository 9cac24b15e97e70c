"""The figures of equivariance: errors against lam, two classes in one plane, and the path of one mixed image.

    equivariance_path(pair.images, [("mixup", path), ("mixup+sem", other)])

As in figures.py, each returns a matplotlib Figure.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from sem_jax.evaluation.measures.equivariance import Embedding, Equivariance, Spread, Straightened
from sem_jax.evaluation.report.figures import COLOURS, FAINT, INK, legend_below, name_axes, new_axes, short, style

_DOTTED = {"linewidth": 2, "marker": "o", "markersize": 4}


class Pair(NamedTuple):
    """A pair of images of which `equivariance_path` shows the mixed ones."""

    images: np.ndarray  # f32[l h w c] in [0, 1], the mixed image at each lam
    names: tuple[str, str]  # classes of partner (lam = 0) and anchor (lam = 1)


def _band(axis, lam: np.ndarray, spread: Spread, name: str, index: int, wide: bool) -> None:
    colour = COLOURS[index % len(COLOURS)]
    for low, high, alpha in ((0, 4, 0.12), (1, 3, 0.22)) if wide else ((1, 3, 0.18),):
        axis.fill_between(lam, *spread.quantiles[:, [low, high]].T, color=colour, alpha=alpha, linewidth=0)
    axis.plot(lam, spread.quantiles[:, 2], label=short(name), **_DOTTED, **style(index))


def _against_lam(figure: Figure, axes: np.ndarray, names: Sequence[tuple[str, str]], *, from_zero) -> Figure:
    """Labels a row of panels, [(y, title), ...], and puts the legend below them."""
    for axis, (y, title) in zip(axes[0], names, strict=True):
        name_axes(axis, "lam, weight of the anchor", y, title)
        axis.set(xlim=(-0.02, 1.02))  # room for the markers at both ends
    for axis in from_zero:
        high = axis.dataLim.y1
        if 0 < high < np.inf:  # else nothing is drawn: features that do not differ have no relative error
            axis.set_ylim(-0.03 * high, 1.04 * high)  # room for the markers at 0 and at the top
    legend_below(figure, axes[0, 0])
    return figure


def equivariance_error(runs: Sequence[tuple[str, Equivariance]]) -> Figure:
    """Error of the mixed representation against lam, relative and absolute: median, middle 50% and 90% of the pairs.

    With more than two runs the wider bands are left out, since they would hide each other.
    """
    figure, axes = new_axes(10.4, 4.8, 1, 2)
    wide = len(runs) <= 2
    bands = "median, middle 50% and 90% of pairs" if wide else "median, middle 50% of pairs"
    for index, (name, result) in enumerate(runs):
        _band(axes[0, 0], result.lam, result.relative, name, index, wide)
        _band(axes[0, 1], result.lam, result.absolute, name, index, wide)
    relative = ("error / distance of the pair's features", f"relative error: {bands}")
    names = [relative, ("error (feature units)", f"absolute error: {bands}")]
    return _against_lam(figure, axes, names, from_zero=axes[0])


def equivariance_features(runs: Sequence[tuple[str, Equivariance]]) -> Figure:
    """Cosine to the mixture, mean feature norm and effective rank against lam: does the penalty collapse features?"""
    figure, axes = new_axes(12.0, 4.2, 1, 3)
    for index, (name, result) in enumerate(runs):
        for axis, values in zip(axes[0], (result.cosine.mean, result.norm, result.rank), strict=True):
            axis.plot(result.lam, values, label=short(name), **_DOTTED, **style(index))
    names = [
        ("mean cosine", "cosine to the mixture"),
        ("mean norm (feature units)", "norm of mixed features"),
        ("effective rank (dimensions)", "effective rank of mixed features"),
    ]
    return _against_lam(figure, axes, names, from_zero=axes[0, 1:])


def embedding(runs: Sequence[tuple[str, Embedding]], class_names: tuple[str, str] = ("partner", "anchor")) -> Figure:
    """Mixed representations (left) and the mixtures that they should equal (right), a row a run, coloured by lam.

    `class_names` are those of the partners (lam = 0) and of the anchors (lam = 1).
    """
    figure, axes = new_axes(9.4, 0.6 + 3.9 * len(runs), len(runs), 2, sharex="row", sharey="row")
    for row, (name, picture) in zip(axes, runs, strict=True):
        lam = np.repeat(picture.lam, picture.mixed.shape[1])
        panels = ((picture.mixed, "g(mixed image)"), (picture.target, "mixture of g(anchor), g(partner)"))
        for axis, (points, what) in zip(row, panels, strict=True):
            flat = points.reshape(-1, 2)
            axis.set_aspect("equal")  # distances are what is compared
            dots = axis.scatter(*flat.T, c=lam, cmap="cividis", vmin=0, vmax=1, s=14, alpha=0.8, linewidths=0)
            name_axes(axis, f"{picture.method.upper()} 1", "", f"{short(name)}: {what}")
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(f"{picture.method.upper()} 2", fontsize=11)
    partner, anchor = (short(name, 16) for name in class_names)
    label = f"lam, from class {partner} (0) to class {anchor} (1)"
    figure.colorbar(dots, ax=axes, label=label, shrink=min(1.0, 1.4 / len(runs)))
    return figure


def equivariance_path(pair: Pair, runs: Sequence[tuple[str, Straightened]]) -> Figure:
    """What equivariance means: mixed images of one pair, and below, a panel a run, the path of their features.

    The straight line is the chord of the mixtures lam g(x_i) + (1 - lam) g(x_j), of length 1 in every panel. The path
    is that of g(mixed image). A thin line joins what belongs to one lam: its length is the relative error, as far as it
    lies in the plane.
    """
    count, columns = len(pair.images), len(runs)
    points = np.concatenate([part for _, it in runs for part in (it.mixed, it.target)])
    (left, low), (right, high) = points.min(axis=0) - 0.06, points.max(axis=0) + 0.06
    width = max(7.6, 5.0 * columns)
    strip = 0.75 + 0.9 * width / count
    tall = 2.1 + (width - 2.0) / columns * (high - low) / (right - left)
    figure = Figure(figsize=(width, strip + tall), layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[strip, tall])[:, 0]
    for axis, image, lam in zip(top.subplots(1, count, squeeze=False)[0], pair.images, runs[0][1].lam, strict=True):
        axis.imshow(np.broadcast_to(image, (*image.shape[:2], 3)), interpolation="nearest", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color(FAINT)
        axis.set_xlabel(f"{lam:.1f}", fontsize=10)
    partner, anchor = (short(name, 16) for name in pair.names)
    top.suptitle(f"lam, from class {partner} (left) to class {anchor} (right)", fontsize=11, x=0.01, ha="left")
    axes = bottom.subplots(1, columns, squeeze=False)[0]
    for axis, (name, it) in zip(axes, runs, strict=True):
        axis.plot(*it.target.T, color=INK, linewidth=1.5, label="mixtures of the two representations")
        joined = {"color": FAINT, "linewidth": 1, "zorder": 1}
        for one, other in zip(it.mixed, it.target, strict=True):
            axis.plot(*np.stack([one, other]).T, **joined)
        axis.plot(*it.mixed.T, color=COLOURS[1], linewidth=1.5, label="representations of the mixed images")
        for points, edge in ((it.target, INK), (it.mixed, COLOURS[1])):
            look = {"c": it.lam, "cmap": "cividis", "vmin": 0, "vmax": 1, "edgecolors": edge, "zorder": 3}
            dots = axis.scatter(*points.T, s=34, **look)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set(aspect="equal", xlim=(left, right), ylim=(low, high))
        title = f"{short(name)}\nthis pair's relative error {it.relative:.2f} at lam 0.5"
        name_axes(axis, "along the chord", "", f"{title}\n{100 * it.explained:.0f}% of the spread in this plane")
    axes[0].set_ylabel("PCA, across it", fontsize=11)
    bottom.colorbar(dots, ax=axes, label="lam")
    bottom.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=10, frameon=False)
    return figure
