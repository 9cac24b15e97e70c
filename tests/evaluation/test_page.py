"""The report: files written whole, no request to any host, all text escaped, numbers finite; every figure draws."""

import html.parser
import itertools
import json
import os
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from sem_jax.errors import RunError
from sem_jax.evaluation.measures import calibration, equivariance, metrics, ood
from sem_jax.evaluation.report import equivariance_figures, figures, page, summary
from sem_jax.evaluation.report import record as records
from sem_jax.evaluation.report.gallery import MOST, Gallery
from sem_jax.evaluation.report.text import text

NASTY = "<script>alert('x')</script>"


def record():
    return {
        "run": {
            "name": f"wrn {NASTY}",
            "checkpoint": "final",
            "step": 78200,
            "config": {"model": {"name": "wide_resnet", "depth": 28}},
            "data": {"cifar10": {"fingerprint": "ab12"}},
            "versions": {"jax": "0.10.2"},
        },
        "suites": {
            "clean": {
                "status": "done",
                "scalars": {"top1": np.float32(0.75), "nll": 0.5},
                "tables": [
                    {
                        "title": "Per class",
                        "columns": ["class", "accuracy", "items"],
                        "rows": [[NASTY, 0.5, np.int64(7)], ["a|b `c` [d](https://example.org) & 'e'", np.nan, 0]],
                        "note": f"A dash is a class without items. {NASTY}",
                    }
                ],
                "figures": {"confusion": f"Confusion {NASTY}"},
            },
            "ood": {
                "status": "missing",
                "reason": "no data set 'svhn' below ~/data",
                "remedy": "Get it from https://example.org/svhn and pass --data=DIR",
            },
        },
    }


def figure():
    return Figure(figsize=(1, 1))


def write(folder, **changes):
    page.write_report(record() | changes, {"confusion": figure(), "spare-1": figure()}, folder)
    return folder


class Tags(html.parser.HTMLParser):
    """Opens and closes every tag, and keeps the attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.names, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_writes_every_file_and_leaves_nothing_else(tmp_path):
    write(tmp_path / "new" / "report")
    names = sorted(path.name for path in (tmp_path / "new" / "report").iterdir())
    assert names == ["confusion.png", "eval.html", "eval.json", "eval.md", "spare-1.png"]
    assert (tmp_path / "new" / "report" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    first = {path.name: path.read_bytes() for path in write(tmp_path / "again").iterdir()}
    assert first == {path.name: path.read_bytes() for path in write(tmp_path / "again").iterdir()}


def test_json_is_strict_and_says_which_numbers_are_not_finite(tmp_path):
    def refuse(name):
        raise AssertionError(name)

    saved = json.loads((write(tmp_path) / "eval.json").read_text(), parse_constant=refuse)
    table = saved["suites"]["clean"]["tables"][0]
    assert table["rows"][0] == [NASTY, 0.5, 7] and table["rows"][1][1] is None
    assert saved["nulls"] == {"suites.clean.tables[0].rows[1][1]": "nan"}
    assert saved["suites"]["clean"]["scalars"] == {"top1": 0.75, "nll": 0.5}
    assert records.checked(saved) == saved  # a report that is read again is the same report


def test_html_asks_nobody_for_anything(tmp_path):
    text = (write(tmp_path) / "eval.html").read_text()
    assert not re.search(r"""(src|href|srcset|action)\s*=\s*["']?\s*(https?:)?//""", text, re.I)
    assert not re.search(r"(url\(|@import|<link|<iframe|<object|<script)", text, re.I)
    tags = Tags()
    tags.feed(text)
    assert tags.open == [] and tags.names.count("img") == 2
    links = [value for name, value in tags.attributes if name == "href"]
    marks = [value for name, value in tags.attributes if name == "id"]
    assert links and all(it.startswith("#") and it[1:] in marks for it in links) and len(set(marks)) == len(marks)
    sources = [value for name, value in tags.attributes if name in ("src", "srcset")]
    assert len(sources) == 2 and all(value.startswith("data:image/png;base64,") for value in sources)
    assert any(name == "content" and value.startswith("default-src 'none'") for name, value in tags.attributes)
    assert "width=device-width" in text and "prefers-color-scheme:dark" in text


def test_everything_from_files_is_escaped(tmp_path):
    folder = write(tmp_path)
    text, marked = (folder / "eval.html").read_text(), (folder / "eval.md").read_text()
    assert "<script" not in text and "<script" not in marked
    assert text.count("&lt;script&gt;") >= 4 and "&lt;script&gt;" in marked
    assert r"a\|b \`c\` \[d\](https://example.org) &amp;" in marked
    rows = [line for line in marked.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) >= 3 for line in rows)


def test_a_missing_suite_is_one_line_with_the_remedy(tmp_path):
    folder = write(tmp_path)
    for name in ("eval.html", "eval.md"):
        lines = [line for line in (folder / name).read_text().splitlines() if "Missing: no data set" in line]
        assert len(lines) == 2, "in the contents and in its place"
        assert all("Get it from https://example.org/svhn and pass --data=DIR" in line for line in lines)


def test_people_read_percent_and_files_hold_fractions(tmp_path):
    made = record()
    suite = made["suites"]["clean"]
    suite |= {"scalars": {"top1": 0.75, "items": 200}, "units": {"top1": "%"}}
    suite["tables"] = [
        {
            "columns": ["set", "top1", "against"],
            "rows": [["a", 0.5, -0.25]],
            "units": {"top1": "%", "against": "points"},
        },
        {
            "columns": ["what", "one", "change"],
            "rows": [["x", 0.5, 0.125]],
            "row_units": ["%"],
            "units": {"change": "points"},
        },
    ]
    page.write_report(made, {"confusion": figure()}, tmp_path)
    assert json.loads((tmp_path / "eval.json").read_text())["suites"]["clean"]["scalars"]["top1"] == 0.75
    marked = (tmp_path / "eval.md").read_text()
    for line in ("| top1 (%) | items |", "| a | 50.00 | -25.00 |", "| set | top1 (%) | against (points) |"):
        assert line in marked
    assert "| x | 50.00% | +12.50 points |" in marked and "test accuracy: 75.00% (68.57 to 80.49)" in marked
    assert "200 images, 95% interval 68.57 to 80.49" in summary.terminal(records.checked(made))  # Wilson's
    assert "| done |" not in marked


def test_galleries_are_small_and_escaped(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 300, 200, 3), np.uint8)
    gallery = Gallery(images, [f"{NASTY}, taken for $x_{i}$" for i in range(40)])
    made = record()
    made["suites"]["clean"]["figures"] = {"errors": f"Errors {NASTY}"}
    page.write_report(made, {"errors": gallery}, tmp_path)
    html_page = (tmp_path / "eval.html").read_text()
    assert "<script" not in html_page and html_page.count("<img") == MOST and len(html_page) < 400_000
    tiles = gallery.tiles()
    assert len(tiles) == MOST and all((w, h) == (64, 96) for _, w, h in tiles)
    assert Gallery(images[:1, :8, :8, :1], ["digit"]).tiles()[0][1:] == (96, 96)
    assert (tmp_path / "errors.png").stat().st_size > 10_000  # pictures, not an empty sheet


def test_numbers_are_legible():
    shown = [text(v) for v in (0.95123, 3, 12.345, 123456.0, 3e-7, None, True, 0.0, -2.5, "x")]
    assert shown == ["0.9512", "3", "12.35", "1.23e+05", "3e-07", "–", "yes", "0.0000", "-2.5000", "x"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"run": {}}, "'name'"),
        ({"suites": []}, "must be a dict, got list"),
        ({"suites": {"clean": {"status": "ok"}}}, "'clean' must have a status .* got 'ok'"),
        ({"suites": {"ood": {"status": "missing"}}}, "'ood' is missing and must say"),
        ({"suites": {"ood": {"status": "done", "tables": {}}}}, "tables must be a list"),
        ({"suites": {"a": {"status": "done", "tables": [{"columns": ["x"], "rows": [[1, 2]]}]}}}, "must have 1 cells"),
        ({"suites": {"a": {"status": "done", "figures": {"roc": ""}}}}, "not given: roc"),
        ({"suites": {"a": {"status": "done", "figures": {"../roc": ""}}}}, "'../roc' must be letters"),
        ({"suites": {"a": {"status": "done", "tables": [3]}}}, "table 0: must be a dict, got 3"),
        ({"extra": object()}, "record at 'extra' must be .* got object"),
    ],
)
def test_a_wrong_record_writes_nothing(tmp_path, change, message):
    with pytest.raises(RunError, match=message):
        write(tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    before = (write(tmp_path) / "eval.json").read_bytes()
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, extra=1)
    assert (tmp_path / "eval.json").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def drawn():
    """Every figure once, with names that matplotlib would take for mathematics or hide."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(300, 10)), rng.integers(0, 10, 300)
    inside, outside = rng.normal(size=200), {"SVHN": rng.normal(-1, 1, 300), "_$x$": rng.normal(-2, 1, 30)}
    result = calibration.calibrate(logits, labels, logits[:100], labels[:100])
    anchor, partner, lams = rng.normal(size=(20, 8)), rng.normal(size=(20, 8)), np.linspace(0, 1, 5)
    mixed = np.tanh(equivariance.mixtures(anchor, partner, lams))
    runs = [(name, equivariance.equivariance(mixed, anchor, partner, lams)) for name in ("mixup", "_$SEM$", "third")]
    zeros = np.zeros((20, 8))
    collapsed = [("collapsed", equivariance.equivariance(np.zeros((5, 20, 8)), zeros, zeros, lams))]
    cells = {(name, severity): 0.9 - 0.1 * severity for name in ("fog", "jpeg_compression") for severity in (1, 2, 3)}
    table = metrics.corruption_table(cells)
    roc = {name: (*ood.roc_curve(inside, s), ood.detection(inside, s).auroc) for name, s in outside.items()}
    plane = equivariance.embed(mixed, anchor, partner, lams)
    path = equivariance.straightened(mixed[:, 0], anchor[0], partner[0], lams)
    pair = equivariance_figures.Pair(rng.random((5, 4, 4, 1)), ("cat", "$dog$"))
    return {
        "confusion": figures.confusion_matrix(metrics.confusion_matrix(logits, labels), [f"$c_{i}" for i in range(10)]),
        "confusion_200": figures.confusion_matrix(np.eye(200, dtype=int)),
        "confusion_empty_class": figures.confusion_matrix([[0, 0], [1, 1]]),
        "corruptions": figures.corruption_heatmap(table.corruptions, table.severities, table.accuracy),
        "roc": figures.roc_curves(roc, "msp"),
        "histograms": figures.score_histograms(inside, outside, "energy"),
        "histograms_constant": figures.score_histograms(np.zeros(5), {"a": np.zeros(5)}, "msp"),
        "reliability": figures.reliability_diagram(result.before["width"], result.after["width"], 1.5),
        "reliability_mass": figures.reliability_diagram(result.before["mass"]),
        "path": equivariance_figures.equivariance_path(pair, [("mixup", path), ("_$SEM$", path)]),
        "error": equivariance_figures.equivariance_error(runs),
        "error_collapsed": equivariance_figures.equivariance_error(collapsed),
        "features": equivariance_figures.equivariance_features(runs[:1]),
        "features_collapsed": equivariance_figures.equivariance_features(collapsed),
        "embedding": equivariance_figures.embedding([("mixup", plane), ("_$SEM$", plane)], ("cat", "$dog$")),
    }


@pytest.mark.filterwarnings("error")
def test_every_figure_draws_without_warning_or_global_state():
    before = dict(matplotlib.rcParams)
    for name, picture in drawn().items():
        assert isinstance(picture, Figure), name
        content = figures.to_png(picture, dpi=50)
        assert content.startswith(b"\x89PNG") and len(content) > 500, name
    assert dict(matplotlib.rcParams) == before
    assert figures.short("_$x$") == r" _\$x\$" and len(figures.short("a" * 99)) == 24


# Machado, Oliveira & Fernandes (2009): what red- and green-blind eyes see, of linear RGB.
EYES = {
    "all colours": np.eye(3),
    "green-blind": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "red-blind": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def lab(colour, eyes):
    """CIELAB of a colour as those eyes see it."""
    rgb = np.array(to_rgb(colour))
    linear = np.clip(
        np.asarray(EYES[eyes]) @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1
    )
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.asarray(to_xyz) @ linear / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eyes", EYES)
def test_colours_can_be_told_apart(eyes):
    seen = [lab(colour, eyes) for colour in figures.COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 17
