"""Every suite on a tiny run: official layouts give the numbers counted by hand, what is missing is said in a line."""

import html.parser
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from sklearn.metrics import roc_auc_score

from sem_jax.errors import ConfigError, DataError, RunError
from sem_jax.evaluation import Options, evaluate
from sem_jax.evaluation.corruptions.published import NAMES
from sem_jax.evaluation.report import page
from sem_jax.evaluation.run_data import load_splits
from sem_jax.evaluation.suites import SUITES
from sem_jax.evaluation.suites.equivariance import LAM, boxes, pairs
from sem_jax.mixers.cutmix import apply_cutmix
from sem_jax.runs.opening import open_run
from tests.helpers.runs import CLASSES, pictures, write_run, write_tree

FAST = {"pairs": 6, "umap": False, "progress": False}
CORRUPTIONS = ("brightness", "jpeg_compression")


@pytest.fixture(autouse=True)
def blank_pictures(monkeypatch):
    """Figures are drawn in full for the `report` alone, which is made outside of any one test."""
    stream = io.BytesIO()
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(stream, "PNG")
    monkeypatch.setattr(page, "to_png", lambda figure: stream.getvalue())


@pytest.fixture(scope="module")
def run(run_dir):
    return open_run(run_dir)


@pytest.fixture(scope="module")
def splits(run):
    return load_splits(run).splits


@pytest.fixture(scope="module")
def count(run):
    """Top-1 by NumPy of the model called by hand."""

    def top1(images, labels):
        x = (np.asarray(images) / 255.0 - np.array(run.data.mean)) / np.array(run.data.std)
        logits = np.asarray(run.model.apply(run.variables, x.astype(np.float32), train=False).logits)
        return np.mean(logits.argmax(1) == np.asarray(labels))

    return top1


@pytest.fixture(scope="module")
def full(place, tmp_path_factory, splits):
    """Every standard set but Places365, in the official formats."""
    folder = tmp_path_factory.mktemp("full")
    shutil.copytree(place / "cifar10", folder / "cifar10")
    labels = np.arange(12) % 10
    np.save(folder / "cifar10.1_v4_data.npy", pictures(12, 21))
    np.save(folder / "cifar10.1_v4_labels.npy", labels.astype(np.int32))
    (folder / "CIFAR-10.1/datasets").mkdir(parents=True)
    np.save(folder / "CIFAR-10.1/datasets/cifar10.1_v6_data.npy", pictures(11, 22))
    np.save(folder / "CIFAR-10.1/datasets/cifar10.1_v6_labels.npy", labels[:11].astype(np.int64))
    np.savez(folder / "cifar102_test.npz", images=pictures(12, 23), labels=labels, label_names=np.array([{}], object))
    write_published(folder / "CIFAR-10-C", splits["test"].labels)
    digits = pictures(9, 24).transpose(1, 2, 3, 0)
    savemat(folder / "test_32x32.mat", {"X": digits, "y": np.arange(1, 10, dtype=np.uint8)[:, None]})
    write_tree(folder / "LSUN" / "test", pictures(8, 25, size=36), [""] * 8)
    write_tree(folder / "LSUN_resize", pictures(7, 26), [""] * 7)
    for size, name in ((40, "banded"), (50, "dotted")):
        write_tree(folder / "dtd/images", pictures(3, size, size=size), [name] * 3)
    (folder / "dtd/labels").mkdir()
    return folder


def write_published(folder, labels, names=NAMES):
    folder.mkdir()
    for index, name in enumerate(names):
        np.save(folder / f"{name}.npy", pictures(5 * len(labels), 30 + index))
    np.save(folder / "labels.npy", np.tile(labels, 5).astype(np.uint8))


@pytest.fixture(scope="module", autouse=True)
def report(run_dir, full, tmp_path_factory):
    """(record, folder) of all suites."""
    out = tmp_path_factory.mktemp("report")
    lines = []
    record = evaluate(run_dir, Options(data_dir=str(full), corruptions=CORRUPTIONS, out=out, **FAST), say=lines.append)
    assert len(lines) == len(SUITES)
    return record, out


def test_every_suite_is_done(report):
    record, out = report
    assert {name: suite["status"] for name, suite in record["suites"].items()} == dict.fromkeys(SUITES, "done")
    assert record["nulls"] == {} or all("quantiles" in place or "rows" in place for place in record["nulls"])
    shown = {name for suite in record["suites"].values() for name in suite["figures"]}
    assert {path.stem for path in out.glob("*.png")} == shown | {"curves"} and {"errors", "likest_ood"} <= shown
    assert {"confusion", "corruptions", "corruption_sheet", "roc_msp", "reliability_mass", "two_classes_pca"} <= shown
    assert record["run"]["step"] == 3 and record["run"]["checkpoint"] == "final"


def test_clean_counts(report, splits, count):
    scalars = report[0]["suites"]["clean"]["scalars"]
    assert scalars["top1"] == pytest.approx(count(*splits["test"]), abs=1e-12)
    assert scalars["items"] == 20 and 0 <= scalars["top5"] <= 1


def test_published_corruptions_counted_by_hand(report, full, splits, count):
    suite = report[0]["suites"]["corruptions"]
    labels = splits["test"].labels
    expected = [
        [count(np.load(full / f"CIFAR-10-C/{name}.npy")[20 * s : 20 * s + 20], labels) for s in range(5)]
        for name in CORRUPTIONS
    ]
    (table,) = suite["tables"]
    np.testing.assert_allclose([row[1:6] for row in table["rows"][:2]], expected, atol=1e-12)
    assert suite["scalars"]["mean accuracy"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert suite["scalars"]["mCE (unnormalised)"] == pytest.approx(1 - np.mean(expected), abs=1e-12)
    assert "CIFAR-10-C" in table["title"] and "published" in suite["note"]
    assert suite["scalars"]["images"] == "published" and suite["scalars"]["corruptions"] == 2


def test_shift_counted_by_hand(report, full, count):
    suite = report[0]["suites"]["shift"]
    v4 = count(np.load(full / "cifar10.1_v4_data.npy"), np.load(full / "cifar10.1_v4_labels.npy"))
    v6 = full / "CIFAR-10.1/datasets"
    v6 = count(np.load(v6 / "cifar10.1_v6_data.npy"), np.load(v6 / "cifar10.1_v6_labels.npy"))
    expected = {
        "top1 CIFAR-10.1 v4 (12 images)": v4,
        "top1 CIFAR-10.1 v6 (11 images)": v6,
        "top1 CIFAR-10.2 (12 images)": count(pictures(12, 23), np.arange(12) % 10),
    }
    assert suite["scalars"] == pytest.approx(expected, abs=1e-12)
    rows = {row[0]: row for row in suite["tables"][0]["rows"]}
    assert rows["CIFAR-10.2 (12 images)"][-1] == pytest.approx(
        expected["top1 CIFAR-10.2 (12 images)"] - rows["test (not shifted)"][2]
    )


def test_ood_sets_and_numbers(report, run, splits):
    suite = report[0]["suites"]["ood"]
    rows = {(row[0], row[2]): row for row in suite["tables"][1]["rows"]}
    assert {name for name, _ in rows} == {"SVHN (9 images)", "LSUN-Crop", "LSUN-Resize", "Textures"}
    assert len(rows) == 4 * 6
    assert "36x36 pixels, the middle 32x32 cut out" in suite["note"]
    assert "Textures: resized to 32 pixels" in suite["note"]
    absent = suite["tables"][2]["rows"]
    assert [row[0] for row in absent] == ["Places365"] and "val_256.tar" in absent[0][2]

    def confidence(images):
        x = (images / 255.0 - np.array(run.data.mean)) / np.array(run.data.std)
        z = np.asarray(run.model.apply(run.variables, x.astype(np.float32), train=False).logits, np.float64)
        p = np.exp(z - z.max(1, keepdims=True))
        return (p / p.sum(1, keepdims=True)).max(1)

    inside, outside = confidence(splits["test"].images), confidence(pictures(8, 25, size=36)[:, 2:34, 2:34])
    expected = roc_auc_score(np.repeat([1, 0], [20, 8]), np.concatenate([inside, outside]))
    assert rows["LSUN-Crop", "max softmax probability"][3] == pytest.approx(expected, abs=1e-12)
    assert suite["scalars"]["AUROC msp LSUN-Crop"] == pytest.approx(expected, abs=1e-12)


def test_calibration_uses_val_alone_for_the_temperature(report):
    suite = report[0]["suites"]["calibration"]
    assert "10 items of val" in suite["note"] and suite["scalars"]["temperature"] > 0
    assert {"ECE equal-width", "ECE equal-mass scaled"} <= set(suite["scalars"])


def test_equivariance_ends_are_exact(report):
    """At lam 1 the mixed image is the anchor and at lam 0 the partner: the error is 0 but for rounding."""
    for table in report[0]["suites"]["equivariance"]["tables"]:
        if table["title"].endswith("by lam"):
            rows = np.array([row[1:4] for row in table["rows"]])
            assert len(rows) == 11 and rows[0, 0] == 0 and rows[-1, 0] == 1
            assert rows[[0, -1], 1].max() < 1e-4 < rows[5, 1] and rows[[0, -1], 2].max() < 1e-4


class Requests(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [
            v for k, v in attrs if k in ("src", "href", "action", "srcset") and not v.startswith(("data:", "#"))
        ]


def test_page_asks_no_host(report):
    text = (report[1] / "eval.html").read_text()
    parser = Requests()
    parser.feed(text)
    assert parser.found == [] and not re.search(r"url\(|@import|<script", text)
    assert json.loads((report[1] / "eval.json").read_text())["suites"].keys() == SUITES.keys()


def test_second_time_computes_nothing(report, run_dir, full, tmp_path, monkeypatch):
    from sem_jax.runs.predict import Predictor

    def refuse(*_, **__):
        raise AssertionError("predicted again")

    monkeypatch.setattr(Predictor, "_map", refuse)
    again = evaluate(run_dir, Options(data_dir=str(full), corruptions=CORRUPTIONS, out=tmp_path, **FAST))
    assert again["suites"] == report[0]["suites"]


def test_generated_is_called_generated(run_dir, place, tmp_path, count, splits):
    options = {"suites": ["corruptions"], "corruptions": CORRUPTIONS, "corruption_items": 8}
    record = evaluate(run_dir, Options(out=tmp_path, **options, **FAST))
    suite = record["suites"]["corruptions"]
    assert suite["scalars"]["items"] == 8 and suite["scalars"]["images"] == "generated"
    assert "choice of 8 of 20" in suite["note"]
    for text in (suite["tables"][0]["title"], *suite["figures"].values(), *record["run"]["data"]):
        assert "CIFAR-10-C" not in text
    assert "generated" in suite["tables"][0]["title"]
    rows = np.sort(np.random.default_rng(0).choice(20, 8, replace=False))
    expected = count(splits["test"].images[rows], splits["test"].labels[rows])
    assert suite["scalars"]["accuracy of clean images"] == pytest.approx(expected)


def test_missing_sets_are_said_in_one_line_each(run_dir, tmp_path):
    lines = []
    record = evaluate(run_dir, Options(suites=["clean", "shift", "ood"], out=tmp_path, **FAST), say=lines.append)
    shift, ood = record["suites"]["shift"], record["suites"]["ood"]
    assert shift["status"] == ood["status"] == "missing"
    assert "CIFAR-10.1 v4" in shift["reason"] and "modestyachts" in shift["remedy"] and "--shift" in shift["remedy"]
    for name in ("SVHN", "LSUN-Crop", "LSUN-Resize", "Textures", "Places365"):
        assert name in ood["reason"]
    assert "prepare svhn_cropped" in ood["remedy"]
    assert lines[1].startswith("shift") and "missing: " in lines[1] and "\n" not in lines[1] + lines[2]


def test_small_grey_images(place, tmp_path):
    write_run(tmp_path / "digits", place, name="digits", val_size=0, steps=(1,))
    ood = tmp_path / "noise_data.npy"
    np.save(ood, np.random.default_rng(0).integers(0, 256, (6, 16, 16), np.uint8))
    record = evaluate(tmp_path / "digits", Options(ood={"noise": str(ood)}, **FAST))
    suites = record["suites"]
    assert suites["corruptions"]["reason"].startswith("corruptions need RGB images of 32 pixels or more")
    assert "digits are 8x8 with 1 channel" in suites["corruptions"]["reason"]
    assert suites["shift"]["status"] == "missing" and suites["ood"]["status"] == "done"
    assert "16x16 pixels, resized to 8x8" in suites["ood"]["note"]
    assert "No temperature scaling" in suites["calibration"]["note"]
    assert "temperature" not in suites["calibration"]["scalars"]


def test_compare_puts_runs_side_by_side(run_dir, place, tmp_path):
    write_run(tmp_path / "other", place, seed=1, val_size=0, steps=(1,))
    compare = {"suites": ["clean", "equivariance"], "compare": [tmp_path / "other", run_dir], "out": tmp_path / "out"}
    record = evaluate(run_dir, Options(**compare, **FAST))
    suite = record["suites"]["equivariance"]
    assert [row[0] for row in suite["tables"][0]["rows"]] == ["tiny", "other"]
    assert {row[0] for row in suite["tables"][3]["rows"]} == {"tiny", "other"}
    (table,) = record["comparison"]["tables"]
    rows = {row[0]: row for row in table["rows"]}
    assert table["columns"][1:3] == ["tiny", "other"] and {"clean: top1", "equivariance: relative error CutMix"} <= set(
        rows
    )
    alone = evaluate(tmp_path / "other", Options(suites=["clean", "equivariance"], data_dir=str(place), **FAST))
    for name, (_, mine, theirs, change, low, high, _) in rows.items():
        of, _, scalar = name.partition(": ")
        assert mine == record["suites"][of]["scalars"][scalar] and change == pytest.approx(theirs - mine)
        assert theirs == pytest.approx(alone["suites"][of]["scalars"][scalar], rel=1e-4)
        assert low is None or low <= change + 1e-9 and change - 1e-9 <= high
    assert "comparison" not in alone and "Evaluation of tiny" in (tmp_path / "out/eval.html").read_text()
    np.testing.assert_allclose(
        alone["suites"]["equivariance"]["tables"][0]["rows"][0][1:], suite["tables"][0]["rows"][1][1:], rtol=1e-4
    )
    write_run(tmp_path / "digits", place, name="digits", val_size=0, steps=(1,))
    with pytest.raises(RunError, match="other classes or sizes"):
        evaluate(run_dir, Options(suites=["equivariance"], compare=[tmp_path / "digits"], out=tmp_path, **FAST))


def test_an_opened_run_is_scored_at_its_checkpoint(run_dir, tmp_path):
    record = evaluate(open_run(run_dir, 2), Options.quick(suites=["clean"], out=tmp_path))
    assert record["run"]["step"] == 2 and record["run"]["checkpoint"] == "2" and list(record["suites"]) == ["clean"]


def test_cheap_suites(run_dir, splits, tmp_path):
    shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("predictions"))
    record = evaluate(tmp_path / "run", Options.quick())
    assert list(record["suites"]) == ["clean", "calibration", "equivariance"]
    assert (tmp_path / "run/evaluation/eval.html").is_file()
    record = evaluate(tmp_path / "run", Options(suites=["clean"], progress=False))
    names = {path.name for path in (tmp_path / "run/evaluation").iterdir()}
    assert names == {
        "eval.html",
        "eval.md",
        "eval.json",
        "confusion.png",
        "errors.png",
        "curves.png",
    }  # pictures of the other suites are gone


def _objects(folder):
    np.save(folder / "fog.npy", np.array([{"a": 1}] * 100, dtype=object))


DAMAGE = {
    "rows": lambda f: np.save(f / "labels.npy", np.load(f / "labels.npy")[:-1]),
    "dtype": lambda f: np.save(f / "fog.npy", np.load(f / "fog.npy").astype(np.float32)),
    "objects": _objects,
    "missing": lambda f: (f / "fog.npy").unlink(),
    "shuffled": lambda f: np.save(f / "labels.npy", np.tile(np.roll(np.load(f / "labels.npy")[:20], 1), 5)),
}
SAID = {
    "rows": "[99], expected integers [100]",
    "dtype": "expected uint8",
    "objects": "fog.npy holds pickled objects",
    "missing": "lacks 1 of 16 files: fog.npy",
    "shuffled": "labels differ from the clean test set's",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("given", [True, False])
def test_damaged_published_set_gives_no_number(run_dir, place, splits, tmp_path, damage, given):
    folder = tmp_path / "CIFAR-10-C"
    write_published(folder, splits["test"].labels)
    DAMAGE[damage](folder)
    where = {"corruptions_dir": str(folder)} if given else {"data_dir": str(tmp_path)}
    (tmp_path / "cifar10").symlink_to(place / "cifar10")
    with pytest.raises(DataError) as caught:
        evaluate(run_dir, Options(suites=["corruptions"], out=tmp_path / "out", **where, **FAST))
    assert SAID[damage] in str(caught.value) and len(str(caught.value).splitlines()) <= 3
    assert not (tmp_path / "out").exists()


def test_published_folders(run_dir, splits, tmp_path, count):
    """Tiny-ImageNet-C's layout, <corruption>/<severity>/<class>/, with the classes of this run."""
    labels = splits["test"].labels
    names = [CLASSES[label] for label in labels]
    expected = []
    for severity in range(1, 6):
        write_tree(tmp_path / "set/fog" / str(severity), pictures(20, 70 + severity), names)
        expected.append(count(pictures(20, 70 + severity), labels))
    options = {"corruptions_dir": str(tmp_path / "set"), "corruptions": ["fog"], "out": tmp_path / "out"}
    suite = evaluate(run_dir, Options(suites=["corruptions"], **options, **FAST))["suites"]["corruptions"]
    assert suite["tables"][0]["rows"][0][1:6] == pytest.approx(expected, abs=1e-12)
    assert "another order" in suite["figures"]["corruption_sheet"]


def test_given_sets(run_dir, run, tmp_path, count):
    images, labels = pictures(10, 40), np.arange(10, dtype=np.int64)
    write_tree(tmp_path / "tree", images, CLASSES)
    np.save(tmp_path / "pair_data.npy", images)
    np.save(tmp_path / "pair_labels.npy", labels)
    given = {"tree": str(tmp_path / "tree"), "file": str(tmp_path / "pair_data.npy"), "pair": str(tmp_path / "pair")}
    record = evaluate(run_dir, Options(suites=["shift"], shift=given, out=tmp_path / "out", **FAST))
    found = record["suites"]["shift"]["scalars"]
    assert found == pytest.approx({f"top1 {name}": count(images, labels) for name in given}, abs=1e-12)


def _pair(folder, images, labels):
    np.save(folder / "x_data.npy", images)
    np.save(folder / "x_labels.npy", labels)
    return str(folder / "x_data.npy")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: str(f / "nothing"), "does not exist"),
        (lambda f: _pair(f, pictures(3, 0, size=40), np.zeros(3, int)), "40x40 with 3 channels"),
        (lambda f: _pair(f, pictures(3, 0)[..., :1], np.zeros(3, int)), "32x32 with 1 channel"),
        (lambda f: _pair(f, pictures(3, 0), np.array([0, 1, 10])), "labels up to 10"),
        (lambda f: _pair(f, pictures(3, 0), np.array([0, 1])), "2 labels for 3 images"),
        (lambda f: _pair(f, pictures(3, 0).astype(float), np.zeros(3, int)), "float64"),
        (lambda f: write_tree(f / "t", pictures(2, 0), ["cat", "zebra"]) or str(f / "t"), "zebra"),
        (lambda f: write_tree(f / "t", pictures(2, 0), ["", ""]) or str(f / "t"), "without a class folder"),
    ],
)
def test_wrong_shift_sets(run_dir, tmp_path, make, words):
    with pytest.raises(DataError, match=words):
        evaluate(run_dir, Options(suites=["shift"], shift={"mine": make(tmp_path)}, out=tmp_path / "out", **FAST))
    assert not (tmp_path / "out").exists()


def test_wrong_arguments(run_dir, tmp_path):
    with pytest.raises(ConfigError, match="Unknown suite 'claen'. Did you mean 'clean'"):
        Options(suites=["claen"])
    with pytest.raises(ConfigError, match="corruption_items must be >= 0"):
        Options(corruption_items=-1)
    with pytest.raises(DataError, match="lacks frost1.png"):
        evaluate(run_dir, Options(suites=["corruptions"], frost_dir=str(tmp_path), **FAST))
    with pytest.raises(RunError, match="Cannot write the report"):
        (tmp_path / "file").write_text("")
        evaluate(run_dir, Options(suites=["clean"], out=tmp_path / "file", **FAST))
    with pytest.raises(DataError, match="1 channel"):
        grey = _pair(tmp_path, pictures(3, 0)[..., :1], np.zeros(3, int))
        evaluate(run_dir, Options(suites=["ood"], ood={"grey": grey}, **FAST))


@pytest.mark.parametrize("shape", [(32, 32), (8, 8), (9, 13), (1, 5)])
def test_boxes_leave_the_share_they_should(shape):
    rng = np.random.default_rng(0)
    for lam in LAM:
        draws = boxes(lam, 20, shape, rng)
        anchor, partner = np.zeros((*shape, 1), np.float32), np.ones((*shape, 1), np.float32)
        for i in range(0, 20, 10):
            mixed, found = apply_cutmix(type(draws)(*(field[i] for field in draws)), anchor, partner)
            assert float(found) == pytest.approx(1 - float(np.mean(mixed)), abs=1e-6)
            assert abs(float(found) - lam) <= 0.6 / min(max(shape), 32) + 1e-6
        assert (draws.top >= 0).all() and (draws.bottom <= shape[0]).all() and (draws.right <= shape[1]).all()
    assert float(apply_cutmix(type(draws)(*(f[0] for f in draws)), anchor, partner)[1]) == 1.0


def test_pairs_are_of_two_items():
    anchor, partner = pairs(7, 100, seed=0)
    assert sorted(anchor) == list(range(7)) and (anchor != partner).all() and partner.max() < 7
