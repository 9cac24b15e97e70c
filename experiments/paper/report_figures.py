"""The figures of the report: numbers in, a matplotlib Figure out; None where there is nothing to draw.

One meaning of a bar in all of them: a 95% interval, thick over test items, thin over seeds and test items (see
`stats`). Where the items of the runs are absent there is no bar. Small dots are seeds; one seed has none of its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy

from experiments.paper import grid, text
from experiments.paper.rows import Group, Rows, Seeds, recipe
from experiments.paper.scores import Metric, Score, measured_accuracy
from experiments.paper.stats import Measured
from sem_jax.evaluation.report.figures import COLOURS

GREY, DARK, LOWER, HIGHER = "#9a9a9a", "#444444", "#0072B2", "#D55E00"
MIXERS = {"erm": "#000000", "mixup": COLOURS[0], "cutmix": COLOURS[1]}
NAMES = {"erm": "no mixing (erm)", "mixup": "mixup", "cutmix": "CutMix"}
MARKERS = "osD^vP"
BOX = {"frameon": False, "fontsize": 9, "handlelength": 3.2}  # long enough to tell dashed from solid


def panels(width: float, height: float, columns: int = 1, rows: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches, and its panels row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, axis="both")
        axis.set_axisbelow(True)
    return figure, axes


def about(rows: Rows, group: Group, runs: Iterable[Seeds], between: str = "\n", *, epochs: bool = True) -> str:
    """A title: net, data set, number of training images and epochs, number of seeds of the runs that are drawn."""
    shown = [it for it in runs if it]
    trained = recipe(next(iter(shown[0].values())) if shown else rows.entries(group)[0])
    counts = sorted({len(it) for it in shown})
    seeds = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"
    parts = [text.images(trained)]
    parts += [f"{trained['train.epochs']} epochs"] if epochs else []
    parts += ["one seed" if seeds == "1" else f"{seeds} seeds"]
    return f"{grid.net_name(rows.size, group[0])}, {text.data_name(group[1])}{between}{', '.join(parts)}"


def rows_of(axis: Axes, names: Sequence[str], **options: Any) -> None:
    """A row a name, the first on top."""
    axis.set_yticks(range(len(names)), names, **options)
    axis.set_ylim(len(names) - 0.4, -0.6)


def spot(axis: Axes, place: float, it: Measured, *, across: bool = True, marker: str = "o", **style: Any) -> None:
    """A mean with its intervals, and its seeds beside it where there are several.

    Args:
      across: the number runs along x and `place` is on y; else the other way round.
      style: color, markerfacecolor.
    """
    colour = style["color"]

    def line(values: Sequence[float], *form: str, **options: Any) -> None:
        places = [place] * len(values)
        axis.plot(*((values, places) if across else (places, values)), *form, **options)

    if it.intervals and it.intervals.both:
        line(it.intervals.both, color=colour, linewidth=1.3, zorder=2)
    if it.intervals:
        line(it.intervals.items, color=colour, linewidth=4.5, alpha=0.45, solid_capstyle="butt", zorder=2)
    line([it.mean], marker, **{"markersize": 7, "zorder": 4} | style)
    if len(it.seeds) > 1:
        figure = axis.get_figure(root=True)
        moved = offset_copy(axis.transData, fig=figure, x=0 if across else 9, y=-9 if across else 0, units="points")
        line(it.seeds, ".", color=colour, markersize=6, markeredgewidth=0, zorder=3, transform=moved)


def key_to(drawn: Iterable[Measured], *, mean: bool = True) -> list[Line2D]:
    """Legend entries that say what is drawn of those numbers, and no more."""
    found = list(drawn)
    several = any(len(it.seeds) > 1 for it in found)
    out = [Line2D([], [], color=DARK, marker="o", linestyle="", label="mean over seeds")] if several and mean else []
    if several:
        out.append(Line2D([], [], color=DARK, marker=".", linestyle="", markeredgewidth=0, label="a seed"))
    if any(it.intervals for it in found):
        label = "95% over test items"
        out.append(Line2D([], [], color=DARK, linewidth=4.5, alpha=0.45, label=label))
    if any(it.intervals and it.intervals.both for it in found):
        out.append(Line2D([], [], color=DARK, linewidth=1.3, label="95% over seeds and test items"))
    return out


def legend_below(figure: Figure, handles: Sequence[Any], columns: int = 4) -> None:
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), **BOX)


def without_and_with(larger: bool) -> list[Line2D]:
    """Legend entries of errors without and with SEM; `larger`: there is one that is larger with it."""
    looks = [(LOWER, "white", "without SEM"), (LOWER, LOWER, "with SEM: smaller error")]
    looks += [(HIGHER, HIGHER, "with SEM: larger error")] if larger else []
    return [Line2D([], [], color=c, marker="o", linestyle="", markerfacecolor=f, label=s) for c, f, s in looks]


def accuracy(rows: Rows) -> Figure | None:
    """Test accuracy of the nine methods, one panel a (backbone, data set), on one scale."""
    groups = [group for group in rows.groups() if rows.entries(group)]
    names = [method for method in grid.METHODS if any(rows.runs(group, method) for group in groups)]
    if not names:
        return None
    figure, axes = panels(1.4 + 4.0 * len(groups), 1.6 + 0.42 * len(names), len(groups), sharex=True, sharey=True)
    drawn = []
    for axis, group in zip(axes, groups, strict=True):
        for place, method in enumerate(names):
            if runs := rows.runs(group, method):
                colour, it = MIXERS[method.split("+")[0]], measured_accuracy(rows, runs)
                face = colour if "sem" in method else "white"
                spot(axis, place, it, color=colour, markerfacecolor=face, markeredgewidth=1.5)
                drawn.append(it)
        axis.set_xlabel("test accuracy (%)")
        axis.set_title(about(rows, group, (rows.runs(group, m) for m in names)), loc="left", fontsize=10)
    rows_of(axes[0], names)
    look: dict[str, Any] = {"color": DARK, "marker": "o", "linestyle": ""}
    handles = [
        Line2D([], [], markerfacecolor=f, label=s, **look) for f, s in ((DARK, "with SEM"), ("white", "without"))
    ]
    legend_below(figure, [*handles, *key_to(drawn, mean=False)], 3)
    return figure


def shares(lines: Sequence[tuple[Group, str, Metric, Score]], rows: Rows) -> Figure:
    """SEM's share: a row a method and set, a panel a (backbone, data set), on one scale."""
    groups = list(dict.fromkeys(group for group, *_ in lines))
    of = {g: sorted((it for it in lines if it[0] == g), key=lambda it: (it[2].table, it[2].set)) for g in groups}
    names = {g: [f"{m.quantity}, {_set_name(m, rows, g)}: {name}" for _, name, m, _ in of[g]] for g in groups}
    alike = all(it == names[groups[0]] for it in names.values())  # said once
    width = 3.2 + 3.6 * len(groups) if alike else 6.8 * len(groups)
    tall = max(map(len, of.values()))
    figure, axes = panels(width, 1.7 + 0.3 * tall, len(groups), sharex=True, sharey=alike)
    drawn = []
    for axis, group in zip(axes, groups, strict=True):
        own = of[group]
        axis.axvline(0, color=DARK, linewidth=1)
        for place, (_, method, _, it) in enumerate(own):
            colour, marker = MIXERS[method.split("+")[0]], "D" if "es" in method.split("+") else "o"
            if it.sem.measured:
                spot(axis, place, it.sem.measured, marker=marker, color=colour)
                drawn.append(it.sem.measured)
        if axis is axes[0] or not alike:
            rows_of(axis, names[group], fontsize=9)
        axis.set_xlabel("with SEM minus without, percentage points\n(right of 0: better with SEM)")
        pairs = (rows.runs(group, method) for _, method, *_ in own)
        axis.set_title(about(rows, group, pairs), loc="left", fontsize=10)
    handles = key_to(drawn)
    if any("es" in method.split("+") for _, method, *_ in lines):
        handles.append(Line2D([], [], color=DARK, marker="D", linestyle="", label="with ES (early stop of mixing)"))
    legend_below(figure, handles, 2)
    return figure


def _set_name(metric: Metric, rows: Rows, group: Group) -> str:
    """A set and its number of images, for a row of a panel whose title has the data set."""
    if metric.table == "1":
        items = {entry["suites"].get("clean", {}).get("scalars", {}).get("items") for entry in rows.entries(group)}
        return "test images" + (f" ({items.pop():,})" if len(items) == 1 and None not in items else "")
    name = metric.set.replace(" images)", ")").replace(f" of {group[1]}", "")
    return name if len(name) <= 34 else name[:33] + "…"


class Curve(NamedTuple):
    """A line of `error_curves`; `style` and `marker` are matplotlib's."""

    label: str
    runs: Seeds
    colour: Any
    style: str = "-"
    marker: str = "o"


def figure_3(lines: Mapping[str, Seeds]) -> list[Curve]:
    """The four lines: one colour a mixer, solid without SEM, dashed with it."""
    four = [(mixer, sem) for mixer in ("mixup", "cutmix") for sem in ("", "+sem")]
    return [
        Curve(NAMES[mixer] + (" + SEM" if sem else ""), lines[mixer + sem], MIXERS[mixer], "--" if sem else "-", "")
        for mixer, sem in four
        if mixer + sem in lines
    ]


def beside_figure_3(lines: Mapping[str, Seeds], gamma_of: Callable) -> list[Curve]:
    """What Fig. 3 leaves out: the clean pass alone, and mixup + SEM, darker with gamma; [] without those."""
    if not {"mixup+clean", *grid.GAMMAS} & set(lines):
        return []
    plain = (("erm", NAMES["erm"], MIXERS["erm"], ":"), ("mixup", "mixup", MIXERS["mixup"], "-"))
    plain += (("mixup+clean", "mixup with the clean pass, gamma 0", COLOURS[3], "-."),)
    out = [Curve(label, lines[name], colour, style, "") for name, label, colour, style in plain if name in lines]
    sem = sorted((gamma_of(lines[m]), m) for m in ("mixup+sem", *grid.GAMMAS) if m in lines)
    for index, (gamma, method) in enumerate(sem):
        colour = colormaps["YlOrBr"](0.4 + 0.55 * (index + 1) / len(sem))
        out.append(Curve(f"mixup + SEM, gamma {gamma:g}", lines[method], colour, "--", MARKERS[index]))
    return out


def error_curves(curves: Sequence[Curve], title: str) -> Figure | None:
    """Relative error against lam under mixup and CutMix, on the same axes: means over pairs and seeds; thin, seeds."""
    figure, axes = panels(10.0, 5.0, 2, sharex=True, sharey=True)
    empty, several = True, False
    for axis, mixer in zip(axes, ("mixup", "cutmix"), strict=True):
        for label, runs, colour, style, marker in curves:
            found = [e["curves"][mixer] for e in runs.values() if mixer in e.get("curves", {})]
            if not found:
                continue
            lam = np.asarray(found[0]["lam"], float)
            values = np.array([curve["relative error"] for curve in found], float)  # None becomes NaN
            label = f"{label} (n = {len(values)})"
            look = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 2.2, "label": label, "zorder": 3}
            axis.plot(lam, values.mean(axis=0), style, **look)
            if len(values) > 1:
                several = True
                axis.plot(lam, values.T, style, color=colour, linewidth=0.8, alpha=0.55)
            empty = False
        axis.set_xlabel("lam, weight of the anchor")
        axis.set_title(f"test images mixed by {NAMES[mixer]}", loc="left", fontsize=10)
    axes[0].set_ylabel("relative equivariance error")
    axes[0].set(xlim=(-0.02, 1.02), ylim=(0, None))
    if empty:
        return None
    top = max(float(np.nanmax(np.asarray(line.get_ydata()), initial=0)) for axis in axes for line in axis.lines)
    axes[0].set_ylim(0, 1.06 * top)
    handles = axes[0].get_legend_handles_labels()[0]
    handles += [Line2D([], [], color=DARK, linewidth=0.8, alpha=0.55, label="a seed")] if several else []
    legend_below(figure, handles, 3 if len(handles) > 4 else 2)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def against_gamma(points: Mapping[float, Mapping[str, Measured]], title: str) -> Figure:
    """Relative error, feature norm and test accuracy of mixup + SEM against gamma (0: mixup)."""
    figure, axes = panels(12.0, 4.4, 3)
    for axis, what, label, colour in (
        (axes[0], "error", "relative error at lam 0.5", COLOURS[0]),
        (axes[1], "norm", "mean feature norm, clean images", COLOURS[2]),
        (axes[2], "accuracy", "test accuracy (%)", COLOURS[1]),
    ):
        found = {gamma: point[what] for gamma, point in points.items() if point[what].seeds}
        axis.plot(list(found), [it.mean for it in found.values()], color=colour, linewidth=1.5, alpha=0.6)
        for gamma, it in found.items():
            spot(axis, gamma, it, across=False, color=colour)
        axis.set_ylabel(label)
        axis.set_xticks(list(points), [f"{gamma:g}\n({len(point['error'].seeds)})" for gamma, point in points.items()])
        axis.set_xlabel("gamma (number of seeds)")
        axis.margins(x=0.08, y=0.08)
    for axis in axes[:2]:
        axis.set_ylim(0, 1.02 * axis.get_ylim()[1])
    legend_below(figure, key_to(it for point in points.values() for it in point.values()))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def every_mixer(drawn: Mapping[Group, Sequence], rows: Rows) -> Figure:
    """A panel a backbone, a row a mixer: from the error without SEM to that with it; see `report_mixers.Line`."""
    names = [m for m in grid.MIXING if any(it.mixer == m for found in drawn.values() for it in found)]
    figure, axes = panels(1.8 + 3.9 * len(drawn), 1.9 + 0.36 * len(names), len(drawn), sharex=True, sharey=True)
    most = 0.0
    for axis, (group, found) in zip(axes, drawn.items(), strict=True):
        for it in found:
            if it.pair is None:
                continue
            without, with_sem = it.pair
            place, colour = names.index(it.mixer), LOWER if with_sem <= without else HIGHER
            axis.plot([without, with_sem], [place, place], color=colour, linewidth=2, alpha=0.6)
            axis.plot(without, place, "o", color=colour, markerfacecolor="white", markersize=7)
            axis.plot(with_sem, place, "o", color=colour, markersize=7)
            most = max(most, without, with_sem)
        axis.set_title(about(rows, group, (runs for it in found for runs in it.both)), loc="left", fontsize=10)
        axis.set_xlabel("relative error, own mixing")
    axes[0].set_xlim(0, 1.06 * most or None)  # after all panels, which share it: none may reach beyond
    rows_of(axes[0], names)
    legend_below(figure, without_and_with(any(line.get_color() == HIGHER for axis in axes for line in axis.lines)))
    return figure
