"""The report's part on every mixer: what SEM does to the equivariance error under each, on each kind of backbone.

    parts["Every mixer"] = every_mixer(rows, figures)      # None where the ledger has no such runs

The error is that under the mixer of the training itself (the evaluation's "own mixer"), which is there for mixers of
masks, saliency and hidden states too; mixup's curve is shown beside it, which is the same question for all of them.
"""

from typing import NamedTuple

import numpy as np

from experiments.paper import grid, report_figures, text
from experiments.paper.report_equivariance import change, errors, norms
from experiments.paper.rows import Group, Rows, Seeds
from experiments.paper.scores import Change, accuracy_on_test, scalars, score

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
    both: tuple[Seeds, Seeds]  # runs without and with SEM
    without: float | None
    with_sem: float | None
    change: Change

    @property
    def pair(self) -> tuple[float, float] | None:
        """The errors without and with SEM, where both are there and are compared."""
        if self.without is None or self.with_sem is None or self.change.why:
            return None
        return self.without, self.with_sem


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def lines(rows: Rows, group: Group) -> list[Line]:
    """The mixers that have runs on a (backbone, data set), in the order of the grid."""
    out = []
    for mixer in grid.MIXING:
        without, with_sem = rows.runs(group, mixer), rows.runs(group, f"{mixer}+sem")
        if without or with_sem:
            a, b = (_mean(errors(it, "own")) for it in (without, with_sem))
            out.append(Line(mixer, (without, with_sem), a, b, change(rows, with_sem, without, "own", mixer)))
    return out


def every_mixer(rows: Rows, figures: dict) -> dict | None:
    """The part of the report; adds its figure to `figures`."""
    other = set(grid.OTHER_MIXERS)
    groups = [g for g in rows.groups() if other & {m.removesuffix("+sem") for m in rows.methods(g)}]
    if not groups:
        return None
    drawn = {group: lines(rows, group) for group in groups}
    tables = [
        {"title": rows.title(group), "columns": list(COLUMNS), "rows": [_cells(rows, group, it) for it in found]}
        for group, found in drawn.items()
    ]
    figures["every_mixer"] = report_figures.every_mixer(drawn, rows)
    note = (
        "Own mixing: ||g(mixed) - mixture|| / ||g(x_i) - g(x_j)|| of pairs of test images mixed as in training, with "
        "lam between 0.05 and 0.95, in evaluation mode. Changes with 95% intervals over the pairs (over test items for "
        "accuracy), the seeds averaged. "
        "Errors of different mixers are of different images, so compare within a row."
    )
    larger = [
        f"{it.mixer} on {rows.title(group)} ({it.pair[0]:.3f} to {it.pair[1]:.3f})"
        for group, found in drawn.items()
        for it in found
        if it.pair and it.pair[1] > it.pair[0]
    ]
    caption = (
        "Relative equivariance error under each mixer, without SEM (hollow) and with it (filled). Orange, larger with "
        f"SEM: {'; '.join(larger) or 'none'}. The table has the intervals over pairs."
    )
    return {"status": "done", "note": note, "tables": tables, "figures": {"every_mixer": caption}}


def _cells(rows: Rows, group: Group, it: Line) -> list[str]:
    metric = accuracy_on_test(group[1])
    got = [score(rows, metric, group, method, against=it.mixer) for method in (it.mixer, f"{it.mixer}+sem")]
    part = 100 * it.change.value / it.without if it.change.value is not None and it.without else None
    return [
        it.mixer,
        text.number(it.without, ".3f"),
        text.number(it.with_sem, ".3f"),
        text.change(it.change, "+.3f") or it.change.why,
        text.number(part, "+.0f"),
        *(text.number(_mean(errors(runs, "mixup")), ".3f") for runs in it.both),
        *(text.number(g.mean) for g in got),
        text.change(got[1].sem),
        *(text.number(_mean(norms(runs))) for runs in it.both),
        *(text.number(_mean(scalars(runs, "equivariance", "effective rank")), ".1f") for runs in it.both),
        f"{len(it.both[0])}, {len(it.both[1])}",
    ]
