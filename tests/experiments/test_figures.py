"""The report's figures on hand-made ledgers: nothing is cut off, a bar has one meaning, seeds are drawn and counted."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from experiments.paper import report, report_figures, report_pareto, stats
from experiments.paper.ledger import Ledger
from experiments.paper.report_figures import HIGHER, MIXERS
from tests.helpers.ledgers import entry

POINTS = (
    (0.29, 33.6),
    (0.21, 33.6),
    (0.27, 33.0),
    (0.32, 32.0),
    (0.28, 31.1),
    (0.34, 31.0),
    (0.30, 29.2),
    (0.38, 29.6),
)


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setattr(stats.auroc_intervals, "__kwdefaults__", {"draws": 50, "seed": 0})
    return Ledger(tmp_path / "ledger")


def built(ledger):
    record, figures, _ = report.make_report(ledger, "cpu")
    return {n: c for part in record["suites"].values() for n, c in part.get("figures", {}).items()}, figures


def cut_off(figure):
    """Points of lines in data coordinates that lie outside of their panel."""
    figure.draw_without_rendering()
    out = []
    for axis in figure.axes:
        inside = axis.viewLim
        for line in axis.lines:
            if line.get_transform() == axis.transData:
                out += [xy for xy in line.get_xydata() if np.isfinite(xy).all() and not inside.contains(*xy)]
    return out


def names(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def fill(ledger, *, items=True, seeds=(0, 1)):
    """A ledger of every kind of figure; each later panel reaches further out than the first."""
    methods = {"erm": 0.45, "mixup": 0.40, "mixup+sem": 0.30, "cutmix": 0.5, "cutmix+sem": 0.6, "sem-gamma1": 0.2}
    methods |= {"fmix": 0.3, "fmix+sem": 0.28, "mixup+clean": 0.41}
    for scale, backbone in ((1.0, "preact"), (1.4, "vit")):
        for at, (method, error) in enumerate(methods.items()):
            for seed in seeds:
                made, own = entry(
                    method, seed, backbone=backbone, error_at_half=scale * error, accuracy=(0.3 + 0.05 * at) * scale
                )
                ledger.append(made, own if items else None)
    for epochs in (3, 24):
        made, own = entry("mixup", 0, accuracy=0.1 * epochs / 3, settings=(("train.epochs", epochs),))
        ledger.append(made, own if items else None)


@pytest.mark.parametrize("items", [True, False], ids=["with items", "without items"])
def test_nothing_is_cut_off_and_bars_are_drawn_where_there_are_items(ledger, items):
    fill(ledger, items=items)
    captions, figures = built(ledger)
    assert set(captions) == set(figures) >= {
        "accuracy", "sem_share", "every_mixer", "lengths", "pareto-vit-cifar10",
        "equivariance-vit-cifar10", "gammas-vit-cifar10", "gamma-vit-cifar10",
    }  # fmt: skip
    for name, figure in figures.items():
        assert not cut_off(figure), name
    for name in ("accuracy", "sem_share", "gamma-preact-cifar10"):
        assert "a seed" in names(figures[name])
        assert ("95% over test items" in names(figures[name])) == items, name
        assert ("95% over seeds and test items" in names(figures[name])) == items, name
    assert all("2 seeds" in axis.get_title(loc="left") for axis in figures["accuracy"].axes)


def test_a_larger_error_with_sem_in_a_later_panel_is_in_the_picture_and_in_its_caption(ledger):
    fill(ledger, seeds=(0,))
    captions, figures = built(ledger)
    first, second = figures["every_mixer"].axes
    assert first.get_xlim() == second.get_xlim() and second.get_xlim()[1] > 1.4 * 0.6
    assert "cutmix on ViT of width 48, 3 blocks, patches of 8, cifar10 (0.700 to 0.840)" in captions["every_mixer"]
    drawn = {to_hex(line.get_color()) for line in second.lines}
    assert HIGHER.lower() in drawn
    assert "with SEM: larger error" in names(figures["every_mixer"])
    assert [it.get_label() for it in report_figures.without_and_with(False)] == [
        "without SEM",
        "with SEM: smaller error",
    ]
    assert "one seed" in first.get_title(loc="left") and "images" in first.get_title(loc="left")
    assert "a seed" not in names(figures["accuracy"]) and "95% over test items" in names(figures["accuracy"])


def test_figure_3_has_four_lines_one_colour_a_mixer_on_equal_axes(ledger):
    fill(ledger, seeds=(0,))
    _, figures = built(ledger)
    left, right = figures["equivariance-preact-cifar10"].axes
    assert left.get_ylim() == right.get_ylim() and left.get_xlim() == right.get_xlim()
    for axis in (left, right):
        looks = [(to_hex(line.get_color()), line.get_linestyle()) for line in axis.lines]
        mixup, cutmix = MIXERS["mixup"].lower(), MIXERS["cutmix"].lower()
        assert looks == [(mixup, "-"), (mixup, "--"), (cutmix, "-"), (cutmix, "--")]
    labels = names(figures["equivariance-preact-cifar10"])
    assert labels == ["mixup (n = 1)", "mixup + SEM (n = 1)", "CutMix (n = 1)", "CutMix + SEM (n = 1)"]
    others = names(figures["gammas-preact-cifar10"])
    assert "mixup + SEM, gamma 1 (n = 1)" in others and "no mixing (erm) (n = 1)" in others


def test_an_arrow_goes_from_without_sem_to_with_it(ledger):
    fill(ledger, seeds=(0,))
    _, figures = built(ledger)
    own, mixup = figures["pareto-preact-cifar10"].axes
    arrows = {(tuple(np.round(it.xyann, 3)), tuple(np.round(it.xy, 3))) for it in own.texts if not it.get_text()}
    assert ((0.5, 45.0), (0.6, 50.0)) in arrows and ((0.4, 35.0), (0.3, 40.0)) in arrows  # cutmix, mixup
    said = {it.get_text() for it in mixup.texts}
    two_from_mixup = {"mixup+sem", "mixup+sem, gamma 1"}  # named at their heads
    assert {"erm", "fmix", "cutmix", *two_from_mixup} <= said


def test_lines_to_names_do_not_cross():
    _, (axis,) = report_figures.panels(4, 3)
    axis.plot(*np.transpose(POINTS), "o")
    report_pareto._label(axis, [(f"mixer {i}", np.array(point), np.zeros(2)) for i, point in enumerate(POINTS)])
    lines = [(axis.transLimits.transform(it.xy), it.xyann[1]) for it in axis.texts]
    assert len(lines) == len(POINTS)
    assert not any(report_pareto._cross(*a, *b) for a, b in combinations(lines, 2))


def test_a_row_without_a_finite_error_and_seeds_without_items_are_drawn_without_bars():
    assert stats.measure([0.5, 0.6]).intervals is None
    assert stats.measure([0.5, 0.6], [np.ones(4)]).intervals is None, "a seed without items"
    assert stats.measure([0.5], [np.full(4, np.nan)]).intervals is None
    figure, (axis,) = report_figures.panels(2, 2)
    report_figures.spot(axis, 0, stats.measure([0.5, 0.6]), color="black")
    assert len(axis.lines) == 2  # the mean and the seeds
