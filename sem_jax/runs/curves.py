"""Draws the learning curves of a run from its metrics log; imports no jax."""

from pathlib import Path

from sem_jax.runs.records import read_metrics, replacing

# Colours of Okabe and Ito, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"


def draw_curves(folder: str | Path, *, title: str = "") -> Path | None:
    """Draws accuracy, loss terms and the penalty relative to the feature norm into curves.png of a run folder.

    `title` is above the figure; "" = the folder's name. Returns the path of curves.png, or None if nothing is logged.
    """
    from matplotlib.figure import Figure

    folder = Path(folder)
    log = [record for record in read_metrics(folder) if record.get("epoch") is not None]
    if not log:
        return None

    def plot(axis, name, label, color, scale=1.0, **style):
        points = [(r["epoch"], scale * r[name]) for r in log if r.get(name) is not None]
        if points:
            axis.plot(*zip(*points, strict=True), label=label, color=color, lw=1.8, **style)

    figure = Figure(figsize=(13, 4), layout="constrained")
    accuracy, loss, penalty = figure.subplots(1, 3)
    few = {"marker": "o", "ms": 3.5}
    plot(accuracy, "test_accuracy", "test", BLUE, 100, **few)
    plot(accuracy, "val_accuracy", "validation", GREEN, 100, **few)
    plot(accuracy, "train_accuracy", "train, as mixed (lam-weighted)", ORANGE, 100)
    plot(accuracy, "train_clean_accuracy", "train, clean images", PURPLE, 100, ls="--")
    accuracy.set(title="accuracy", ylabel="%", ylim=(None, 100.5))
    plot(loss, "label_loss", "label loss", ORANGE)
    plot(loss, "loss", "loss = label loss + gamma x penalty", BLUE)
    plot(loss, "test_nll", "test NLL", BLUE, ls=":", **few)
    plot(loss, "val_nll", "validation NLL", GREEN, ls=":", **few)
    loss.set(title="loss", ylabel="nats")
    plot(penalty, "penalty_relative", "penalty / feature norm", PURPLE)
    penalty.set(title="SEM penalty, relative", ylabel="")
    rate = penalty.twinx()
    rates = [(r["epoch"], r["learning_rate"]) for r in log if r.get("learning_rate") is not None]
    rate.plot(*zip(*rates, strict=True), color="0.6", lw=1, ls="--")
    rate.set_ylabel("learning rate (dashed)", color="0.4")
    rate.set_ylim(bottom=0)
    switch = next((r["epoch"] - 1 for r in log if not r.get("mixing", True)), None)
    for axis in (accuracy, loss, penalty):
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.25)
        if switch:
            axis.axvline(switch, color="0.5", lw=1, ls=":")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, frameon=False)
    if not penalty.lines:
        penalty.text(0.5, 0.5, "no penalty in this run", transform=penalty.transAxes, ha="center", color="0.5")
    figure.suptitle(title or folder.name)
    path = folder / "curves.png"
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
    return path
