"""A run that is scored again: what it was scored on before stays, and other sets than before are seen."""

import copy

import numpy as np
import pytest

from experiments.paper import grid, rescoring, sweep
from experiments.paper.cell import Job
from experiments.paper.ledger import Ledger
from experiments.paper.rows import choose
from experiments.paper.scores import metrics_of
from tests.helpers.ledgers import entry

CORRUPTED = "generated corruptions of cifar10"


def job(out, table="all", **more):
    """Of the runs of `entry`, whose corruptions are of 50 images."""
    cell = grid.Cell("cpu", "preact", "cifar10", "mixup", 0)
    suites = ("clean", *sweep.SUITES[table], *sweep.CHEAP[1:])
    return Job(cell, str(out), suites, **{"data_dir": str(out / "data"), "corruption_items": 50} | more)


def scored(table, **more):
    """What a run is entered as that was scored for one table."""
    made, items = entry("mixup", 0, checkpoint="ab", branched_from="", cpu_time_s=5.0, **more)
    kept = ("clean", *sweep.SUITES[table], *sweep.CHEAP[1:])
    sets = {"1": (), "2": ("CINIC-10", CORRUPTED), "3": ("SVHN",), "all": made["sets"]}[table]
    made["suites"] = {name: it for name, it in made["suites"].items() if name in kept}
    made["sets"] = {name: it for name, it in made["sets"].items() if name in sets}
    table3 = table in ("3", "all")
    items = {n: v for n, v in items.items() if ("msp" not in n or table3) and (n != "msp test" or table3)}
    if table not in ("2", "all"):
        items = {n: v for n, v in items.items() if not n.startswith("correct ") or n == "correct test"}
    return made, items


@pytest.fixture(autouse=True)
def nothing_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


def test_table_2_and_then_table_3_give_both(tmp_path):
    ledger = job(tmp_path).ledger
    _, alone = scored("all")
    for table, time in (("2", "2026-01-01"), ("3", "2026-01-02"), ("2", "2026-01-03")):
        rescoring.enter(ledger, *scored(table, time=time))
        assert sweep.state(job(tmp_path, table), ledger.read()) == "done"
    assert sweep.state(job(tmp_path), ledger.read()) == "done"
    (runs,) = choose(ledger, "cpu").done.values()
    assert [metric.table for metric in metrics_of(list(runs.values()))] == ["1", "2", "2", "3"]
    items = ledger.items(runs[0])
    assert items and set(items) == set(alone)
    np.testing.assert_array_equal(np.argsort(items["msp SVHN"]), np.argsort(alone["msp SVHN"].astype(np.float32)))
    assert items["msp SVHN"].min() < 0, "log odds, packed once"
    assert (runs[0]["time"], runs[0]["wall_time_s"], runs[0]["cpu_time_s"]) == ("2026-01-03", 30.0, 15.0)
    assert runs[0]["beside_time_s"] == 30.0, "the cost of every scoring"


def test_other_corruptions_take_the_place_of_those_before_and_other_sets_stand_beside_them(tmp_path):
    first, items = scored("all")
    second, more = copy.deepcopy(first), {"correct fog 1": np.ones(80, bool), "correct own": np.ones(9, bool)}
    second["sets"] = {"CIFAR-10-C": {"images": "published", "items": 80}, "own": {"items": 9}}
    second["suites"]["corruptions"]["scalars"]["images"] = "published"
    second["suites"]["shift"]["scalars"] = {"top1 own": 1.0}
    second["suites"]["ood"] = {"status": "missing", "reason": "no OOD set is there", "scalars": {}}
    made, found = rescoring.merged(first, second, items, more)
    assert set(made["sets"]) == {"CIFAR-10-C", "own", "CINIC-10", "SVHN"}
    assert set(made["suites"]["shift"]["scalars"]) == {"top1 own", "top1 CINIC-10"}
    assert made["suites"]["ood"]["status"] == "done", "its data was there before"
    assert made["suites"]["corruptions"]["scalars"]["images"] == "published"
    assert set(found) == (set(items) - set(rescoring.CORRUPTED)) | {"correct fog 1", "correct own"}


def test_another_checkpoint_takes_nothing_from_the_one_before(tmp_path):
    ledger = Ledger(tmp_path)
    rescoring.enter(ledger, *scored("2"))
    made, items = scored("3")
    assert "shift" not in rescoring.enter(ledger, made | {"checkpoint": "cd"}, items)["suites"]


def test_scored_on_other_data_than_asked_for_is_not_done(tmp_path):
    made, _ = scored("all")
    assert rescoring.lacks(job(tmp_path), made) == []
    assert rescoring.lacks(job(tmp_path, corruption_items=-1), made) == ["corruptions of 300 images"]
    assert rescoring.lacks(job(tmp_path, corruption_items=0), made) == ["corruptions of 10,000 images"]
    assert rescoring.lacks(job(tmp_path, corruptions_dir="x"), made) == []
    made["suites"]["corruptions"]["scalars"]["images"] = "generated"
    assert rescoring.lacks(job(tmp_path, corruptions_dir="x"), made) == ["published corruptions"]
    assert rescoring.lacks(job(tmp_path, shift=(("own", "x"),)), made) == ["own"]
    made["suites"].pop("ood")
    assert rescoring.lacks(job(tmp_path, "2"), made) == [] and rescoring.lacks(job(tmp_path), made) == ["ood"]


def test_a_set_that_was_absent_is_asked_for_once_it_is_there(tmp_path):
    made, _ = scored("all")
    made["sets"].pop("SVHN")
    made["suites"]["ood"] = {"status": "missing", "reason": "no OOD set is there", "scalars": {}}
    made["suites"]["corruptions"] = {"status": "missing", "reason": "damaged", "scalars": {}}
    assert rescoring.lacks(job(tmp_path), made) == [], "it still is"
    data = tmp_path / "new"
    (data / "CIFAR-10-C").mkdir(parents=True)
    (data / "LSUN").mkdir()
    (data / "cifar10.1_v4_data.npy").touch()
    found = rescoring.lacks(job(tmp_path, data_dir=str(data)), made)
    assert found == ["published corruptions", "CIFAR-10.1 v4", "LSUN-Crop"]
    made["sets"] |= {"LSUN-Crop (80 images)": {"items": 80}}
    made["suites"]["shift"]["note"] = "CIFAR-10.1 v4 is left out: its images are those of CINIC-10."
    assert rescoring.lacks(job(tmp_path, data_dir=str(data)), made) == ["published corruptions"]
    cell = grid.Cell("smoke", "wrn", "digits", "mixup", 0)
    of_digits = job(tmp_path, "3", data_dir=str(data))._replace(cell=cell)
    assert rescoring.lacks(of_digits, made) == [], "photographs say nothing about digits"
