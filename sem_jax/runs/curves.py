"""Draws the learning curves of a run from its metrics log; imports no jax."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sem_jax.runs.records import read_metrics, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours of Okabe and Ito, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_LARGEST = 1e12  # a log may come from a stranger: larger numbers are left out


def draw_curves(folder: str | Path, *, title: str = "", out: str | Path = "") -> Path | None:
    """Draws accuracy, loss terms and the penalty relative to the feature norm into curves.png of a run folder.

    Scores of averaged weights are dashed, in the colour of those of the last weights.
    `title` is above the figure; "" = the folder's name. `out` is another file to write. Returns the path of the
    picture, or None if nothing is logged.
    """
    folder = Path(folder)
    figure = curves_figure(read_metrics(folder), title=title or folder.name)
    if figure is None:
        return None
    path = Path(out) if out else folder / "curves.png"
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
    return path


def curves_figure(metrics: Sequence[Mapping[str, Any]], *, title: str = "") -> "Figure | None":
    """The curves of a metrics log, one record an epoch as `read_metrics` gives them; None without records."""
    from matplotlib.figure import Figure

    log = [record for record in metrics if _number(record.get("epoch"))]
    if not log:
        return None

    def plot(axis, name, label, color, scale=1.0, **style):
        points = [(r["epoch"], scale * r[name]) for r in log if _number(r.get(name))]
        if points:
            axis.plot(*zip(*points, strict=True), label=label, color=color, lw=1.8, **style)

    figure = Figure(figsize=(13, 4), layout="constrained")
    accuracy, loss, penalty = figure.subplots(1, 3)
    few = {"marker": "o", "ms": 3.5}
    plot(accuracy, "test_accuracy", "test", BLUE, 100, **few)
    plot(accuracy, "val_accuracy", "validation", GREEN, 100, **few)
    for split, name, color in (("test", "test", BLUE), ("val", "validation", GREEN)):
        plot(accuracy, f"ema_{split}_accuracy", f"{name}, averaged weights", color, 100, ls="--", **few)
    plot(accuracy, "train_accuracy", "train, as mixed (lam-weighted)", ORANGE, 100)
    plot(accuracy, "train_clean_accuracy", "train, clean images", PURPLE, 100, ls="--")
    accuracy.set(title="accuracy", ylabel="%", ylim=(None, 100.5))
    plot(loss, "label_loss", "label loss", ORANGE)
    plot(loss, "loss", "loss = label loss + gamma x penalty", BLUE)
    plot(loss, "test_nll", "test NLL", BLUE, ls=":", **few)
    plot(loss, "val_nll", "validation NLL", GREEN, ls=":", **few)
    plot(loss, "ema_test_nll", "test NLL, averaged weights", BLUE, ls="--", **few)
    plot(loss, "ema_val_nll", "validation NLL, averaged weights", GREEN, ls="--", **few)
    loss.set(title="loss", ylabel="nats")
    plot(penalty, "penalty_relative", "penalty / feature norm", PURPLE)
    penalty.set(title="SEM penalty, relative", ylabel="")
    rate = penalty.twinx()
    if rates := [(r["epoch"], r["learning_rate"]) for r in log if _number(r.get("learning_rate"))]:
        rate.plot(*zip(*rates, strict=True), color="0.6", lw=1, ls="--")
    rate.set_ylabel("learning rate (dashed)", color="0.4")
    rate.set_ylim(bottom=0)
    switch = next((r["epoch"] - 1 for r in log if not r.get("mixing", True)), None)
    for axis in (accuracy, loss, penalty):
        axis.set_xlabel("epoch")
        axis.get_xaxis().get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        if switch:
            axis.axvline(switch, color="0.5", lw=1, ls=":")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, frameon=False)
    if not penalty.lines:
        penalty.text(0.5, 0.5, "no penalty in this run", transform=penalty.transAxes, ha="center", color="0.5")
    figure.suptitle(title)
    return figure


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < _LARGEST
