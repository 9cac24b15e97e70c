"""The report's part on every mixer: what SEM does to the equivariance error under each, on each kind of backbone.

    parts["Every mixer"] = every_mixer(rows, ledger, figures)      # None where the ledger has no such runs

The error is that under the mixer of the training itself (`evaluation.suites.own_mixing`), which is there for mixers of
masks, saliency and hidden states too; mixup's curve is shown beside it, which is the same question for all of them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.paper import grid
from experiments.paper.ledger import Ledger
from experiments.paper.report_equivariance import change, pair_errors
from experiments.paper.tables import Rows, metrics_of, read_paper, scalars, score

COLUMNS = (
    "mixer",
    "own mixing: without SEM",
    "with SEM",
    "change",
    "in %",
    "mixup's error at lam 0.5: without",
    "with SEM",
    "accuracy (%): without",
    "with SEM",
    "change",
    "feature norm: without",
    "with SEM",
    "effective rank: without",
    "with SEM",
    "n",
)


class Line(NamedTuple):
    """A mixer on a backbone; errors are means over pairs and seeds."""

    mixer: str
    without: float | None
    with_sem: float | None
    change: float | None
    interval: tuple[float, float] | None


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _norm(entries: Mapping[int, Mapping]) -> float | None:
    """Mean norm of the clean images' features: the curve under mixup at lam 1."""
    return _mean([e["curves"]["mixup"]["norm"][-1] for e in entries.values() if "mixup" in e.get("curves", {})])


def lines(rows: Rows, ledger: Ledger, group: tuple[str, str]) -> list[Line]:
    """The mixers that have runs on a (backbone, data set), in the order of the grid."""
    out = []
    for mixer in grid.MIXING:
        both = [rows.done.get((*group, method), {}) for method in (mixer, f"{mixer}+sem")]
        if not any(both):
            continue
        errors = [_mean(scalars(it, "equivariance", "relative error own mixer")) for it in both]
        value, interval, _ = change(*(pair_errors(ledger, it, "own") for it in both[::-1]))
        out.append(Line(mixer, *errors, value, interval))
    return out


def every_mixer(rows: Rows, ledger: Ledger, figures: dict) -> dict | None:
    """The part of the report; adds its figure to `figures`."""
    other = set(grid.OTHER_MIXERS)
    groups = [g for g in rows.groups() if other & {m.removesuffix("+sem") for m in rows.methods(*g)}]
    if not groups:
        return None
    paper, tables, drawn = read_paper(), [], {}
    for group in groups:
        found, body = lines(rows, ledger, group), []
        drawn[group] = found
        metrics = [m for m in metrics_of(rows.entries(*group)) if m.table == "1"]
        for it in found:
            both = [rows.done.get((*group, method), {}) for method in (it.mixer, f"{it.mixer}+sem")]
            under_mixup = [_mean(scalars(b, "equivariance", "relative error mixup")) for b in both]
            got = [
                score(rows, metrics[0], *group, method, ledger, paper, against=it.mixer)
                for method in (it.mixer, f"{it.mixer}+sem")
            ]
            span = f" [{it.interval[0]:+.3f}, {it.interval[1]:+.3f}]" if it.interval else ""
            gained = got[1].sem_interval
            body.append(
                [
                    it.mixer,
                    _shown(it.without, ".3f"),
                    _shown(it.with_sem, ".3f"),
                    _shown(it.change, "+.3f") + span,
                    _shown(100 * it.change / it.without if it.change is not None and it.without else None, "+.0f"),
                    *(_shown(value, ".3f") for value in under_mixup),
                    *(_shown(g.mean, ".2f") for g in got),
                    _shown(got[1].sem, "+.2f") + (f" [{gained[0]:+.2f}, {gained[1]:+.2f}]" if gained else ""),
                    *(_shown(_norm(b), ".2f") for b in both),
                    *(_shown(_mean(scalars(b, "equivariance", "effective rank")), ".1f") for b in both),
                    f"{len(both[0])}, {len(both[1])}",
                ]
            )
        name = grid.net_name(rows.size, group[0])
        tables.append({"title": f"{name}, {group[1]}", "columns": list(COLUMNS), "rows": body})
    figures["every_mixer"] = draw(drawn, rows.size)
    note = (
        "Own mixing: ||g(mixed) - mixture|| / ||g(x_i) - g(x_j)|| of pairs of test images mixed as in training, with "
        "lam between 0.05 and 0.95, in evaluation mode. Changes with 95% intervals over the pairs (over test items for "
        "accuracy), the seeds averaged. "
        "Errors of different mixers are of different images, so compare within a row."
    )
    caption = "Relative equivariance error under each mixer, without SEM (hollow) and with it (filled)."
    return {"status": "done", "note": note, "tables": tables, "figures": {"every_mixer": caption}}


def draw(drawn: Mapping[tuple[str, str], list[Line]], size: str) -> Figure:
    """A panel a backbone, a row a mixer: from the error without SEM to that with it."""
    names = [m for m in grid.MIXING if any(it.mixer == m for found in drawn.values() for it in found)]
    figure = Figure(figsize=(1.8 + 3.9 * len(drawn), 1.4 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(drawn), squeeze=False, sharex=True, sharey=True)[0]
    down, up = "#0072B2", "#D55E00"
    for axis, (group, found) in zip(axes, drawn.items(), strict=True):
        for it in found:
            place = names.index(it.mixer)
            if it.without is None or it.with_sem is None:
                continue
            colour = down if it.with_sem <= it.without else up
            axis.plot([it.without, it.with_sem], [place, place], color=colour, linewidth=2, alpha=0.6)
            axis.plot(it.without, place, "o", color=colour, markerfacecolor="white", markersize=7)
            axis.plot(it.with_sem, place, "o", color=colour, markersize=7)
        axis.set_title(f"{grid.net_name(size, group[0])},\n{group[1]}", loc="left", fontsize=10)
        axis.set_xlabel("relative error, own mixing")
        axis.set_xlim(left=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure
