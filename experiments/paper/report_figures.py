"""The figures of the report: ledger entries in, a matplotlib Figure out; None where there is nothing to draw."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.paper import grid
from experiments.paper.stats import mean_sd
from experiments.paper.tables import Rows
from sem_jax.evaluation.report.figures import COLOURS

GREY = "#9a9a9a"
MIXERS = {"erm": "#000000", "mixup": COLOURS[0], "cutmix": COLOURS[1]}


def _axes(width: float, height: float, columns: int = 1):
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, axis="both")
        axis.set_axisbelow(True)
    return figure, axes


def accuracy(rows: Rows) -> Figure | None:
    """Test accuracy of the nine methods, one panel a (backbone, data set): the mean, its deviation, every seed."""
    groups = [group for group in rows.groups() if rows.entries(*group)]
    if not groups:
        return None
    figure, axes = _axes(1.2 + 4.6 * len(groups), 3.9, len(groups))
    for axis, group in zip(axes, groups, strict=True):
        for place, method in enumerate(grid.METHODS):
            values = [100 * e["accuracy"]["last"] for e in rows.done.get((*group, method), {}).values()]
            mean, sd, _ = mean_sd(values)
            if mean is None:
                continue
            colour, sem = MIXERS[method.split("+")[0]], "sem" in method
            axis.plot(values, [place] * len(values), ".", color=colour, alpha=0.45, markersize=6)
            style = {"color": colour, "markerfacecolor": colour if sem else "white", "markersize": 8}
            axis.errorbar(mean, place, xerr=sd, fmt="D" if sem else "o", capsize=3, linewidth=1.5, **style)
        axis.set_yticks(range(len(grid.METHODS)), grid.METHODS)
        axis.set_ylim(len(grid.METHODS) - 0.5, -0.5)
        axis.set_xlabel("test accuracy (%)")
        axis.set_title(f"{grid.net_name(rows.size, group[0])}, {group[1]}", loc="left", fontsize=11)
    return figure


def shares(lines: Sequence[tuple], size: str) -> Figure:
    """SEM's share with its interval: a row a method and set, a panel a (backbone, data set)."""
    groups = list(dict.fromkeys((b, d) for b, d, *_ in lines))
    tall = max(sum((b, d) == group for b, d, *_ in lines) for group in groups)
    figure, axes = _axes(2.2 + 5.4 * len(groups), 1.2 + 0.27 * tall, len(groups))
    for axis, group in zip(axes, groups, strict=True):
        own = [line for line in lines if line[:2] == group]
        own.sort(key=lambda line: (line[3].table, line[3].set))
        axis.axvline(0, color=GREY, linewidth=1)
        for place, (_, _, method, _, it) in enumerate(own):
            colour = MIXERS[method.split("+")[0]]
            axis.plot(it.sem_interval, [place, place], color=colour, linewidth=2)
            axis.plot(it.sem, place, "D" if "es" in method.split("+") else "o", color=colour, markersize=6)
        axis.set_yticks(
            range(len(own)), [f"{_short(metric.set)}: {method}" for _, _, method, metric, _ in own], fontsize=8
        )
        axis.set_ylim(len(own) - 0.5, -0.5)
        axis.set_xlabel("with SEM minus without (percentage points of accuracy or AUROC)")
        axis.set_title(f"{grid.net_name(size, group[0])}, {group[1]}", loc="left", fontsize=11)
    return figure


def _short(name: str) -> str:
    name = name.replace(" images)", ")")
    return name if len(name) <= 34 else name[:33] + "…"


def error_curves(lines: Mapping[str, Mapping[int, Mapping]], gamma_of: Callable) -> Figure | None:
    """Relative error against lam under mixup and CutMix, a line a method: mean over pairs and seeds, ± deviation.

    Solid: without SEM; dashed: with it, darker for a larger gamma.
    """
    figure, axes = _axes(11.0, 4.6, 2)
    shown = [
        m for m in lines if m in ("erm", "mixup", "mixup+clean", "mixup+sem", *grid.GAMMAS, "cutmix", "cutmix+sem")
    ]
    drawn = 0
    for axis, mixer in zip(axes, ("mixup", "cutmix"), strict=True):
        for index, method in enumerate(shown):
            curves = [e["curves"][mixer] for e in lines[method].values() if mixer in e.get("curves", {})]
            if not curves:
                continue
            lam = np.asarray(curves[0]["lam"], float)
            values = np.array(
                [[np.nan if v is None else v for v in curve["relative error"]] for curve in curves], float
            )
            entry = next(iter(lines[method].values()))
            label = f"{method}, gamma {gamma_of(entry):g}" if "sem" in method else method
            style = "--" if "sem" in method else "-"
            mean, colour = values.mean(axis=0), COLOURS[index % len(COLOURS)]
            axis.plot(lam, mean, style, color=colour, marker="o", markersize=3, linewidth=1.8, label=label)
            if len(values) > 1:
                sd = values.std(axis=0, ddof=1)
                axis.fill_between(lam, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
            drawn += 1
        axis.set_xlabel("lam, weight of the anchor")
        axis.set_title(f"images mixed by {'mixup' if mixer == 'mixup' else 'CutMix'}", loc="left", fontsize=11)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("error / distance of the pair's features")
    if not drawn:
        return None
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def against_gamma(points: Mapping[float, Mapping]) -> Figure:
    """Relative error with its interval, feature norm and test accuracy against gamma."""
    figure, axes = _axes(12.0, 3.8, 3)
    gammas = list(points)
    error = np.array([points[g]["error"] for g in gammas])
    low, high = np.array([points[g]["interval"] for g in gammas]).T
    options = {"marker": "o", "capsize": 3, "linewidth": 1.8, "markersize": 5}
    axes[0].errorbar(gammas, error, yerr=[error - low, high - error], color=COLOURS[0], **options)
    axes[0].set_ylabel("relative error at lam 0.5")
    for axis, what, label, colour in (
        (axes[1], "norm", "mean feature norm, clean images", COLOURS[2]),
        (axes[2], "accuracy", "test accuracy (%)", COLOURS[1]),
    ):
        kept = [g for g in gammas if points[g][what][0] is not None]
        mean = [points[g][what][0] for g in kept]
        sd = [points[g][what][1] or 0.0 for g in kept]
        axis.errorbar(kept, mean, yerr=sd if any(sd) else None, color=colour, **options)
        axis.set_ylabel(label)
    for axis in axes[:2]:
        axis.set_ylim(bottom=0)
    for axis in axes:
        axis.set_xlabel("gamma")
    return figure
