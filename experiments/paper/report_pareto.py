"""The report's figure of accuracy against equivariance: an arrow a mixer, from without SEM to with it.

    captions = pareto(rows, figures)       # adds its figures; {} where no method has runs without and with SEM

Up is more accurate, left more equivariant: an arrow that goes up and left costs nothing.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.paper import grid, text
from experiments.paper.report_equivariance import base_method, errors
from experiments.paper.report_figures import (
    DARK,
    GREY,
    HIGHER,
    LOWER,
    about,
    legend_below,
    panels,
    without_and_with,
)
from experiments.paper.rows import Group, Rows, Seeds, mixed_alike

VARIANTS = (*grid.GAMMAS, "sem-warmup", "sem-normalised", "cutmix-sem-warmup", "cutmix-sem-normalised")
PAIRS = {f"{m}+sem": m for m in (*grid.MIXING, "mixup+es", "cutmix+es")} | {"mixup+es+sem": "mixup+es"}
PAIRS |= {"cutmix+es+sem": "cutmix+es"} | {name: base_method(name) for name in VARIANTS}
MIXINGS = {"own": "images mixed as in training", "mixup": "images mixed by mixup, lam 0.5"}


class Arrow(NamedTuple):
    """A method with SEM and the same without; [seeds 2] of (relative error, accuracy in percent)."""

    name: str
    without: np.ndarray
    with_sem: np.ndarray


def points(runs: Seeds, mixing: str) -> np.ndarray:
    """(relative error, accuracy in percent) of every seed that has both, f64[seeds 2]."""
    found = [(errors({seed: entry}, mixing), 100 * entry["accuracy"]["last"]) for seed, entry in runs.items()]
    return np.array([(error[0], accuracy) for error, accuracy in found if error], np.float64).reshape(-1, 2)


def arrows(rows: Rows, group: Group, mixing: str) -> list[Arrow]:
    """The pairs that have runs and were mixed with the same settings."""
    found = (
        Arrow(name, points(rows.runs(group, without), mixing), points(rows.runs(group, name), mixing))
        for name, without in PAIRS.items()
        if mixed_alike(rows.runs(group, name), rows.runs(group, without))
    )
    return [it for it in found if len(it.without) and len(it.with_sem)]


def pareto(rows: Rows, figures: dict) -> dict[str, str]:
    """Captions by figure; a figure a (backbone, data set)."""
    captions = {}
    for group in rows.groups():
        drawn = {mixing: arrows(rows, group, mixing) for mixing in MIXINGS}
        if not any(drawn.values()):
            continue
        name = f"pareto-{'-'.join(group)}"
        shown = [rows.runs(group, method) for it in drawn["mixup"] for method in (it.name, PAIRS[it.name])]
        erm = points(rows.runs(group, "erm"), "mixup")
        figures[name] = draw(drawn, erm, about(rows, group, shown, ", "))
        captions[name] = (
            "Test accuracy against relative equivariance error: an arrow from the mean without SEM (hollow) to that "
            "with it; small dots are seeds, where there are several. Orange: the error is larger with SEM. Errors of "
            "different mixers are of different images on the left, of the same images on the right."
        )
        if unlike := [m for m, base in PAIRS.items() if not mixed_alike(rows.runs(group, m), rows.runs(group, base))]:
            captions[name] += (
                f" No arrow, since it was mixed with other settings than without SEM: {', '.join(unlike)}."
            )
    return captions


def draw(drawn: dict[str, list[Arrow]], erm: np.ndarray, title: str) -> Figure:
    figure, axes = panels(12.0, 6.0, 2, sharey=True)
    several, named = False, []
    for axis, (mixing, found) in zip(axes, drawn.items(), strict=True):
        ends = []
        for it in found:
            tail, head = it.without.mean(axis=0), it.with_sem.mean(axis=0)
            colour = LOWER if head[0] <= tail[0] else HIGHER
            style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "shrinkA": 3, "shrinkB": 0, "alpha": 0.8}
            axis.annotate("", (head[0], head[1]), (tail[0], tail[1]), arrowprops=style)
            axis.plot(*tail, "o", color=colour, markerfacecolor="white", markersize=6, zorder=4)
            axis.plot(*head, "o", color=colour, markersize=4, zorder=4)
            for seeds, mean in ((it.without, tail), (it.with_sem, head)):
                for seed in seeds if len(seeds) > 1 else ():
                    several = True
                    line = {"color": colour, "alpha": 0.6, "linewidth": 0.6}
                    axis.plot(
                        *zip(seed, mean, strict=True), ".-", markevery=[0], markersize=7, markeredgewidth=0, **line
                    )
            ends.append((it.name, tail, head))
        if mixing == "mixup" and len(erm):
            axis.plot(*erm.mean(axis=0), "s", color="black", markersize=6)
            ends.append(("erm", erm.mean(axis=0), erm.mean(axis=0)))
        axis.set_xlabel(f"relative error, {MIXINGS[mixing]}\n(left: more equivariant)")
        axis.margins(x=0.06, y=0.06)
        named.append(ends)
    for axis, ends in zip(axes, named, strict=True):  # after all panels, whose heights are shared
        _label(axis, ends)
    axes[0].set_ylabel("test accuracy (%)")
    handles = without_and_with(any(line.get_color() == HIGHER for axis in axes for line in axis.lines))
    handles += [Line2D([], [], color=LOWER, marker=".", linewidth=0.6, alpha=0.6, label="a seed")] if several else []
    legend_below(figure, handles)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _cross(first: np.ndarray, end: float, second: np.ndarray, other_end: float) -> bool:
    """Whether the lines from two points to their names at x = 1.02."""
    left, right = sorted(((first, end), (second, other_end)), key=lambda it: it[0][0])
    height = left[0][1] + (left[1] - left[0][1]) * (right[0][0] - left[0][0]) / (1.02 - left[0][0])
    return (height - right[0][1]) * (left[1] - right[1]) < 0


def _label(axis: Axes, ends: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Names beside the panel, in the order of the heights of what they name, with a thin line to it.

    An arrow is named at its start; arrows from one start at their heads. Lines that would cross change places.
    """
    starts = [tuple(tail) for _, tail, _ in ends]
    alone = [starts.count(it) == 1 for it in starts]
    at = [
        (name.removesuffix("+sem") if own else text.method_name(name), tail if own else head)
        for (name, tail, head), own in zip(ends, alone, strict=True)
    ]
    at.sort(key=lambda it: it[1][1])
    axis.autoscale_view()
    inside = axis.transLimits.transform([point for _, point in at]).reshape(-1, 2)  # in fractions of the panel
    places = inside[:, 1].copy()
    step = min(0.052, 1 / max(1, len(at) - 1))
    for _ in range(200):  # as near to their height as the least distance allows
        for i in range(len(places) - 1):
            if (gap := step - (places[i + 1] - places[i])) > 0:
                places[i] -= gap / 2
                places[i + 1] += gap / 2
        places = places.clip(0, 1)
    for _ in at:
        for i, j in combinations(range(len(at)), 2):
            if _cross(inside[i], places[i], inside[j], places[j]):
                places[[i, j]] = places[[j, i]]
    for (name, point), place in zip(at, places, strict=True):
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4, "relpos": (0, 0.5)}
        options = {"textcoords": "axes fraction", "va": "center", "fontsize": 8.5, "color": DARK}
        axis.annotate(name, (point[0], point[1]), (1.02, place), arrowprops=line, annotation_clip=False, **options)
