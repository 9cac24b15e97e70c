"""The figures of the report: ledger entries in, a matplotlib Figure out; None where there is nothing to draw."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.paper import grid
from experiments.paper.rows import Group, Rows, Seeds
from experiments.paper.scores import Metric, Score
from experiments.paper.stats import mean_sd
from sem_jax.evaluation.report.figures import COLOURS

GREY, LOWER, HIGHER = "#9a9a9a", "#0072B2", "#D55E00"
MIXERS = {"erm": "#000000", "mixup": COLOURS[0], "cutmix": COLOURS[1]}
POINTS = {"marker": "o", "capsize": 3, "linewidth": 1.8, "markersize": 5}


def panels(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Figure, Sequence[Axes]]:
    """A figure of so many inches, and its panels side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False, **options)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, axis="both")
        axis.set_axisbelow(True)
    return figure, axes


def _rows(axis: Axes, names: Sequence[str], **options: Any) -> None:
    """A row a name, the first on top."""
    axis.set_yticks(range(len(names)), names, **options)
    axis.set_ylim(len(names) - 0.5, -0.5)


def _title(axis: Axes, size: str, group: Group, between: str = ", ", fontsize: int = 11) -> None:
    axis.set_title(f"{grid.net_name(size, group[0])}{between}{group[1]}", loc="left", fontsize=fontsize)


def accuracy(rows: Rows) -> Figure | None:
    """Test accuracy of the nine methods, one panel a (backbone, data set): the mean, its deviation, every seed."""
    groups = [group for group in rows.groups() if rows.entries(group)]
    if not groups:
        return None
    figure, axes = panels(1.2 + 4.6 * len(groups), 3.9, len(groups))
    for axis, group in zip(axes, groups, strict=True):
        for place, method in enumerate(grid.METHODS):
            values = [100 * e["accuracy"]["last"] for e in rows.runs(group, method).values()]
            mean, sd, _ = mean_sd(values)
            if mean is None:
                continue
            colour, sem = MIXERS[method.split("+")[0]], "sem" in method
            axis.plot(values, [place] * len(values), ".", color=colour, alpha=0.45, markersize=6)
            style = {"color": colour, "markerfacecolor": colour if sem else "white", "markersize": 8}
            axis.errorbar(mean, place, xerr=sd, fmt="D" if sem else "o", capsize=3, linewidth=1.5, **style)
        _rows(axis, grid.METHODS)
        axis.set_xlabel("test accuracy (%)")
        _title(axis, rows.size, group)
    return figure


def shares(lines: Sequence[tuple[Group, str, Metric, Score]], size: str) -> Figure:
    """SEM's share, with its interval where it has one: a row a method and set, a panel a (backbone, data set)."""
    groups = list(dict.fromkeys(group for group, *_ in lines))
    tall = max(sum(line[0] == group for line in lines) for group in groups)
    figure, axes = panels(2.2 + 5.4 * len(groups), 1.2 + 0.27 * tall, len(groups))
    for axis, group in zip(axes, groups, strict=True):
        own = sorted((line for line in lines if line[0] == group), key=lambda line: (line[2].table, line[2].set))
        axis.axvline(0, color=GREY, linewidth=1)
        for place, (_, method, _, it) in enumerate(own):
            colour = MIXERS[method.split("+")[0]]
            if it.sem.interval:
                axis.plot(it.sem.interval, [place, place], color=colour, linewidth=2)
            marker = "D" if "es" in method.split("+") else "o"
            axis.plot([x for x in (it.sem.value,) if x is not None], [place], marker, color=colour, markersize=6)
        _rows(axis, [f"{_short(metric.set)}: {method}" for _, method, metric, _ in own], fontsize=8)
        axis.set_xlabel("with SEM minus without (percentage points of accuracy or AUROC)")
        _title(axis, size, group)
    return figure


def _short(name: str) -> str:
    name = name.replace(" images)", ")")
    return name if len(name) <= 34 else name[:33] + "…"


def error_curves(lines: Mapping[str, Seeds], gamma_of: Callable) -> Figure | None:
    """Relative error against lam under mixup and CutMix, a line a method: mean over pairs and seeds, ± deviation.

    Solid: without SEM; dashed: with it, darker for a larger gamma.
    """
    figure, axes = panels(11.0, 4.6, 2)
    drawn = ("erm", "mixup", "mixup+clean", "mixup+sem", *grid.GAMMAS, "cutmix", "cutmix+sem")
    shown, empty = [m for m in lines if m in drawn], True
    for axis, mixer in zip(axes, ("mixup", "cutmix"), strict=True):
        for index, method in enumerate(shown):
            curves = [e["curves"][mixer] for e in lines[method].values() if mixer in e.get("curves", {})]
            if not curves:
                continue
            lam = np.asarray(curves[0]["lam"], float)
            values = np.array([curve["relative error"] for curve in curves], float)  # None becomes NaN
            label = f"{method}, gamma {gamma_of(lines[method]):g}" if "sem" in method else method
            style = "--" if "sem" in method else "-"
            mean, colour = values.mean(axis=0), COLOURS[index % len(COLOURS)]
            axis.plot(lam, mean, style, color=colour, marker="o", markersize=3, linewidth=1.8, label=label)
            if len(values) > 1:
                sd = values.std(axis=0, ddof=1)
                axis.fill_between(lam, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
            empty = False
        axis.set_xlabel("lam, weight of the anchor")
        axis.set_title(f"images mixed by {'mixup' if mixer == 'mixup' else 'CutMix'}", loc="left", fontsize=11)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("error / distance of the pair's features")
    if empty:
        return None
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def against_gamma(points: Mapping[float, Mapping]) -> Figure:
    """Relative error with its interval (where it has one), feature norm and test accuracy against gamma."""
    figure, axes = panels(12.0, 3.8, 3)
    gammas, errors = list(points), [point["error"] for point in points.values()]
    spans = [point["interval"] or (point["error"],) * 2 for point in points.values()]
    bars = [[e - low for e, (low, _) in zip(errors, spans, strict=True)]]
    bars += [[high - e for e, (_, high) in zip(errors, spans, strict=True)]]
    axes[0].errorbar(gammas, errors, yerr=bars, color=COLOURS[0], **POINTS)
    axes[0].set_ylabel("relative error at lam 0.5")
    for axis, what, label, colour in (
        (axes[1], "norm", "mean feature norm, clean images", COLOURS[2]),
        (axes[2], "accuracy", "test accuracy (%)", COLOURS[1]),
    ):
        found = {gamma: mean_sd(point[what]) for gamma, point in points.items() if point[what]}
        mean, sd = [it[0] or 0.0 for it in found.values()], [it[1] or 0.0 for it in found.values()]
        axis.errorbar(list(found), mean, yerr=sd if any(sd) else None, color=colour, **POINTS)
        axis.set_ylabel(label)
    for axis in axes[:2]:
        axis.set_ylim(bottom=0)
    for axis in axes:
        axis.set_xlabel("gamma")
    return figure


def every_mixer(drawn: Mapping[Group, Sequence], size: str) -> Figure:
    """A panel a backbone, a row a mixer: from the error without SEM to that with it; see `report_mixers.Line`."""
    names = [m for m in grid.MIXING if any(it.mixer == m for found in drawn.values() for it in found)]
    figure, axes = panels(1.8 + 3.9 * len(drawn), 1.4 + 0.36 * len(names), len(drawn), sharex=True, sharey=True)
    for axis, (group, found) in zip(axes, drawn.items(), strict=True):
        for it in found:
            if it.without is None or it.with_sem is None:
                continue
            place, colour = names.index(it.mixer), LOWER if it.with_sem <= it.without else HIGHER
            axis.plot([it.without, it.with_sem], [place, place], color=colour, linewidth=2, alpha=0.6)
            axis.plot(it.without, place, "o", color=colour, markerfacecolor="white", markersize=7)
            axis.plot(it.with_sem, place, "o", color=colour, markersize=7)
        _title(axis, size, group, ",\n", fontsize=10)
        axis.set_xlabel("relative error, own mixing")
        axis.set_xlim(left=0)
    _rows(axes[0], names)
    return figure


def lengths(points: Mapping[Group, Mapping[str, Mapping[int, Sequence[float]]]], size: str) -> Figure:
    """Accuracy (%) of every seed by method and epochs: the mean against epochs, a panel a (backbone, data set)."""
    figure, axes = panels(1.0 + 5.2 * len(points), 3.9, len(points))
    for axis, (group, found) in zip(axes, points.items(), strict=True):
        for index, (method, by_epochs) in enumerate(found.items()):
            epochs = sorted(by_epochs)
            middle, sd, _ = zip(*(mean_sd(by_epochs[n]) for n in epochs), strict=True)
            style, colour = "o--" if "sem" in method else "o-", COLOURS[index % len(COLOURS)]
            axis.errorbar(epochs, middle, [it or 0.0 for it in sd], fmt=style, capsize=3, color=colour, label=method)
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted({n for by_epochs in found.values() for n in by_epochs}))
        axis.get_xaxis().set_major_formatter("{x:.0f}")
        axis.minorticks_off()
        axis.set_xlabel("epochs")
        axis.set_ylabel("test accuracy (%)")
        _title(axis, size, group, fontsize=10)
        axis.legend(frameon=False, fontsize=9)
    return figure
