"""The report: files written whole, no request to any host, all text escaped, numbers finite; every figure draws."""

import html.parser
import json
import os
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from sem_jax.errors import RunError
from sem_jax.evaluation.measures import calibration, equivariance, metrics, ood
from sem_jax.evaluation.report import figures, page
from sem_jax.evaluation.report import record as records

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
    sources = [value for name, value in tags.attributes if name in ("src", "href", "srcset")]
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
        assert len(lines) == 1 and "Get it from https://example.org/svhn and pass --data=DIR" in lines[0]


def test_numbers_are_legible():
    shown = [page._text(v) for v in (0.95123, 3, 12.345, 123456.0, 3e-7, None, True, 0.0, -2.5, "x")]
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
    cells = {(name, severity): 0.9 - 0.1 * severity for name in ("fog", "jpeg_compression") for severity in (1, 2, 3)}
    table = metrics.corruption_table(cells)
    roc = {name: (*ood.roc_curve(inside, s), ood.detection(inside, s).auroc) for name, s in outside.items()}
    plane = equivariance.embed(mixed, anchor, partner, lams)
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
        "error": figures.equivariance_error(runs),
        "features": figures.equivariance_features(runs[:1]),
        "embedding": figures.embedding([("mixup", plane), ("_$SEM$", plane)], ("cat", "$dog$")),
    }


@pytest.mark.filterwarnings("error")
def test_every_figure_draws_without_warning_or_global_state():
    before = dict(matplotlib.rcParams)
    for name, picture in drawn().items():
        assert isinstance(picture, Figure), name
        content = figures.to_png(picture, dpi=50)
        assert content.startswith(b"\x89PNG") and len(content) > 500, name
    assert dict(matplotlib.rcParams) == before
    assert figures._label("_$x$") == r" _\$x\$" and len(figures._label("a" * 99)) == 24
