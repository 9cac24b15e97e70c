"""The figures of the report: functions of arrays that return a matplotlib Figure.

They do not use pyplot, which has global state. Ordered quantities use cividis. Those of equivariance are in
equivariance_figures.py.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import PowerNorm, to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sem_jax.errors import plain
from sem_jax.evaluation.measures.calibration import Reliability

# Six of Okabe and Ito and a wine red: any two are CIELAB 17 or more apart, to red- and green-blind eyes too (a test).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#882255")
LINES = ("-", "--", "-.", ":")
DOTS_PER_INCH = 150
INK, FAINT = "#222222", "#9a9a9a"


def to_png(figure: Figure, *, dpi: int = DOTS_PER_INCH) -> bytes:
    """The figure as PNG, without date or version, so that equal figures give equal bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, facecolor="white", bbox_inches="tight", metadata={"Software": None})
    return stream.getvalue()


def short(text: object, length: int = 24) -> str:
    """A name for matplotlib, which treats "$" and a first underscore specially, cut to a length."""
    name = plain(" ".join(str(text).split()))
    name = name if len(name) <= length else name[: length - 1] + "…"
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def new_axes(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=10, colors=INK)
    return figure, axes


def name_axes(axis, x: str, y: str, title: str = "") -> None:
    axis.set_xlabel(x, fontsize=11)
    axis.set_ylabel(y, fontsize=11)
    axis.set_title(title, fontsize=11, loc="left")


def legend_below(figure: Figure, axis) -> None:
    lines = axis.get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=3, fontsize=10, frameon=False)


def style(index: int) -> dict:
    colour = COLOURS[index % len(COLOURS)]
    return {"color": colour, "linestyle": LINES[(index // len(COLOURS) + index) % len(LINES)]}


def _on(colour) -> str:
    """Black or white, whichever is legible on the colour."""
    red, green, blue = to_rgb(colour)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _write_cells(axis, image, values: np.ndarray, text: np.ndarray, size: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        colour = _on(image.cmap(image.norm(value))[:3])
        axis.text(column, row, text[row, column], ha="center", va="center", color=colour, fontsize=size)


def confusion_matrix(matrix: ArrayLike, class_names: Sequence[str] = ()) -> Figure:
    """Confusion matrix i64[k k] of counts, rows true, normalised to fractions of the true class.

    Up to 25 classes are named, and up to 12 have numbers in the cells. The colour grows with the square root, so that
    rare confusions are visible beside the diagonal.
    """
    counts = np.asarray(matrix, np.float64)
    k = len(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, ((axis,),) = new_axes(7.6, 6.6)
    image = axis.imshow(share, cmap="cividis", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    name_axes(axis, "predicted class", "true class")
    axis.spines[:].set_visible(False)
    if k <= 25:
        names = [short(name, 16) for name in (class_names or range(k))]
        axis.set_xticks(range(k), names, rotation=90 if k > 4 else 0)
        axis.set_yticks(range(k), names)
    if k <= 12:
        text = np.array([["" if value < 0.005 else f"{value:.2f}" for value in row] for row in share])
        _write_cells(axis, image, share, text, 9)
    ticks = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]
    figure.colorbar(image, ax=axis, label="fraction of the true class", shrink=0.85, ticks=ticks)
    return figure


def corruption_heatmap(corruptions: Sequence[str], severities: Sequence[int], accuracy: ArrayLike) -> Figure:
    """Accuracy in percent by corruption (row) and severity (column); accuracy f64[c s] in [0, 1]."""
    table = np.asarray(accuracy, np.float64) * 100
    figure, ((axis,),) = new_axes(3.2 + 0.75 * len(severities), 1.4 + 0.36 * len(corruptions))
    image = axis.imshow(table, cmap="cividis", aspect="auto", interpolation="nearest", vmin=0, vmax=100)
    axis.set_xticks(range(len(severities)), [str(severity) for severity in severities])
    axis.set_yticks(range(len(corruptions)), [short(str(name).replace("_", " ")) for name in corruptions])
    _write_cells(axis, image, table, np.vectorize("{:.1f}".format)(table), 10)
    name_axes(axis, "severity", "")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    figure.colorbar(image, ax=axis, label="accuracy (%)")
    return figure


def roc_curves(curves: Mapping[str, tuple[ArrayLike, ArrayLike, float]], title: str = "") -> Figure:
    """ROC curves of one score, {OOD set: (fpr f64[p], tpr f64[p], AUROC)}; the diagonal is a random score."""
    figure, ((axis,),) = new_axes(6.4, 5.6)
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    axis.axhline(0.95, color=FAINT, linewidth=1, linestyle=":")
    beside = {"xytext": (4, 0), "textcoords": "offset points", "ha": "left", "va": "center", "annotation_clip": False}
    axis.annotate("95%\nTPR", (1, 0.95), fontsize=9, **beside)
    for index, (name, (fpr, tpr, area)) in enumerate(curves.items()):
        axis.plot(fpr, tpr, linewidth=2, label=f"{short(name)} ({100 * area:.1f})", **style(index))
    name_axes(
        axis, "OOD items accepted (false positive rate)", "ID items accepted (true positive rate)", short(title, 60)
    )
    axis.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axis.legend(title="OOD set (AUROC, %)", loc="lower right", fontsize=10, frameon=False)
    return figure


def score_histograms(id_scores: ArrayLike, ood_scores: Mapping[str, ArrayLike], score: str, bins: int = 60) -> Figure:
    """Histograms of one score, a panel for each OOD set, over the ID histogram; the right side is in-distribution.

    The range holds the middle 99% of each set; scores beyond it are counted in the end bins.
    """
    inside = np.asarray(id_scores, np.float64)
    outside = {name: np.asarray(values, np.float64) for name, values in ood_scores.items()}
    low = min(np.quantile(values, 0.005) for values in (inside, *outside.values()))
    high = max(np.quantile(values, 0.995) for values in (inside, *outside.values()))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    columns = min(3, max(1, len(outside)))
    count = -(-max(1, len(outside)) // columns)
    width = 6.4 if columns == 1 else 3.6 * columns
    figure, axes = new_axes(width, 0.4 + 2.7 * count, count, columns, sharex=True, sharey=True)
    for index, (axis, name) in enumerate(zip(axes.flat, outside, strict=False)):
        for values, label, colour in ((inside, "ID", COLOURS[0]), (outside[name], "OOD", COLOURS[1])):
            share = np.histogram(values.clip(edges[0], edges[-1]), edges)[0] / len(values) * 100
            axis.stairs(share, edges, fill=True, alpha=0.35, color=colour)
            line = "-" if label == "ID" else "--"
            axis.stairs(share, edges, color=colour, linewidth=1.5, linestyle=line, label=label)
        first, last = index % columns == 0, index + columns >= len(outside)
        name_axes(axis, short(score) if last else "", "items (%)" if first else "", short(name))
        axis.tick_params(labelbottom=last)
        if index == 0:
            axis.legend(fontsize=10, frameon=False)
    for axis in list(axes.flat)[len(outside) :]:
        axis.set_visible(False)
    return figure


def reliability_diagram(before: Reliability, after: Reliability | None = None, temperature: float = 1.0) -> Figure:
    """Accuracy of each bin, with the gap to its mean confidence; after temperature scaling on the right.

    Bins of equal width lie along the confidence, above the share of items in each. Bins of equal mass lie along the
    items in order of confidence, since most of them are very narrow in confidence.
    """
    width = before.scheme == "width"
    kind = f"ECE of {len(before.count)} {'equal-width' if width else 'equal-mass'} bins: "
    shown = [("", before)] if after is None else [("before scaling: ", before), (f"T = {temperature:.3g}: ", after)]
    options = {"sharex": True, "sharey": "row"} | ({"height_ratios": [3, 1]} if width else {})
    figure, axes = new_axes(5.4 * len(shown), 6.0 if width else 4.6, 2 if width else 1, len(shown), **options)
    figure.set_layout_engine("constrained", w_pad=0.12)
    for column, (title, result) in enumerate(shown):
        axis, full, share = axes[0, column], result.count > 0, 100 * result.count / result.count.sum()
        left, right = (result.lower, result.upper) if width else (share.cumsum() - share, share.cumsum())
        bars = {"x": left[full], "width": (right - left)[full], "align": "edge", "edgecolor": "white"}
        axis.bar(height=result.accuracy[full], color=COLOURS[0], label="accuracy", **bars)
        middle, gap = ((left + right) / 2)[full], {"color": COLOURS[1], "linewidth": 2}
        axis.vlines(middle, result.accuracy[full], result.confidence[full], label="gap to mean confidence", **gap)
        axis.plot(middle, result.confidence[full], "_", color=COLOURS[1], markersize=9, markeredgewidth=2)
        axis.set(xlim=(0, 1 if width else 100), ylim=(0, 1.02))
        name_axes(axis, "", "accuracy" if column == 0 else "", f"{title}{kind}{100 * result.ece:.2f}%")
        if width:
            axis.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
            axes[1, column].bar(height=share[full], color=FAINT, **bars)
            axes[1, 0].set_ylabel("items (%)", fontsize=11)
        below = "confidence (largest softmax probability)" if width else "items in order of confidence (%)"
        axes[-1, column].set_xlabel(below, fontsize=11)
    legend_below(figure, axes[0, 0])
    return figure
