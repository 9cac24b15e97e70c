"""The box: parts that fail, hang or find no time; what comes home, and that it goes on elsewhere; uploads and back."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.paper import grid
from experiments.paper.ledger import Ledger
from experiments.speed.cases import Case
from experiments.timebox import box as boxes
from experiments.timebox import keep, pack, run, speed
from experiments.timebox.__main__ import missing
from experiments.timebox.box import Box, Part
from experiments.timebox.run import QUEUE, step_ms
from sem_jax.errors import DataError, RunError
from sem_jax.interfaces import Split
from tests.helpers.ledgers import entry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Modules that do what their names say."""
    bodies = {
        "fine": "print('fine')",
        "fails": "raise SystemExit(3)",
        "hangs": "import time; print('hangs', flush=True); time.sleep(60)",
        "deaf": """
            import signal, subprocess, sys, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            print("child", child.pid, flush=True)
            time.sleep(60)
        """,
    }
    for name, body in bodies.items():
        (tmp_path / f"part_{name}.py").write_text(textwrap.dedent(body))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(boxes, "GRACE", 0.5)
    monkeypatch.setattr(boxes, "LEAST", 0.1)
    return tmp_path / "out"


def test_no_part_stops_another_and_each_is_recorded_at_once(parts):
    said, ticks = [], []

    def tick():
        ticks.append(None)
        if len(ticks) == 2:
            raise OSError("no space")

    box = Box(parts, seconds=60, tick=tick, say=said.append)
    found = box.run(
        [
            Part("fails", ("part_fails",)),
            Part("hangs", ("part_hangs",), 1.0),
            Part("deaf", ("part_deaf",), 1.5),
            Part("absent", ("part_fine",), needs="PyTorch is not installed"),
            Part("fine", ("part_fine",)),
        ]
    )
    assert [it["status"] for it in found] == [
        "failed",
        "out of time",
        "killed",
        "left out: PyTorch is not installed",
        "done",
    ]
    assert found == [json.loads(line) for line in (parts / "timebox.jsonl").read_text().splitlines()]
    log = (parts / "timebox.log").read_text()
    assert "=== hangs, at most 1 s" in log and log.rstrip().endswith("fine")
    child = int(log.partition("child ")[2].split()[0])
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z", "children of a killed part are killed"
    assert len(ticks) >= 5 and "collecting failed: OSError: no space" in said


def test_what_finds_no_time_is_left_out(parts):
    box = Box(parts, seconds=30, groups={"few": 1.2}, say=lambda _: None)
    found = box.run(
        [Part("few: hangs", ("part_hangs",)), Part("few: fine", ("part_fine",)), Part("fine", ("part_fine",))]
    )
    assert [it["status"] for it in found] == ["out of time", "left out: no time", "done"]
    assert [it["status"] for it in Box(parts, seconds=0.1, say=print).run([Part("a", ("part_fine",))])] == [
        "left out: no time"
    ]


def test_a_group_gets_what_the_one_before_it_left(parts):
    box = Box(parts, seconds=30, groups={"first": 8.0, "second": 0.05}, say=lambda _: None)
    found = box.run([Part("first: fine", ("part_fine",)), Part("second: fine", ("part_fine",))])
    assert [it["status"] for it in found] == ["done", "done"]


def test_what_is_not_compiled_in_time_is_left_out():
    """Equal cases are compiled once; one that fails or takes too long does not keep the others from being measured."""
    release, asked = threading.Event(), []

    def add(name, case):
        asked.append(name)
        if case.fields.get("slow"):
            release.wait(30)
        elif case.fields.get("wrong"):
            raise ValueError("no such thing")
        bench.runs[name], bench.compiled[name] = (lambda steps: None), None

    bench = SimpleNamespace(runs={}, compiled={}, add=add, drop=lambda name: None)
    cases = {
        "a": Case(),
        "wrong": Case({"wrong": 1}),
        "b": Case(),
        "slow": Case({"slow": 1}),
        "slow too": Case({"slow": 1}),
    }
    try:
        failed, late = speed.add_all(bench, cases, until=time.monotonic() + 0.3)
    finally:
        release.set()
    assert sorted(asked) == ["a", "slow", "wrong"] and set(bench.runs) - {"slow"} == {"a", "b"}
    assert failed == {"wrong": "ValueError: no such thing"} and late == ["slow"]


def sweep_folder(work):
    """A sweep with one run that is done and one that was begun."""
    made, items = entry("mixup", size="paper")
    Ledger(work / "ledger").append(made, items)
    begun = grid.Cell("paper", "preact", "cifar10", "mixup+sem", 0).id
    for name in (made["id"], begun):
        for step in ("390", "780"):
            (work / "runs" / name / "checkpoints" / step).mkdir(parents=True)
            (work / "runs" / name / "checkpoints" / step / "params").write_bytes(step.encode() * 300_000)
        (work / "runs" / name / "config.json").write_text("{}")
        (work / "runs" / name / "metrics.jsonl").write_text('{"epoch": 2}\n')
    return made["id"], begun


def test_what_is_unfinished_goes_on_from_the_files_that_came_home(tmp_path, monkeypatch):
    monkeypatch.setattr(keep, "PART_BYTES", 2**18)
    work, out, there = (tmp_path / name for name in ("work", "out", "there"))
    out.mkdir()
    finished, begun = sweep_folder(work)
    assert keep.keep(work, out) == [begun]
    names = {path.name for path in out.iterdir()}
    assert {"ledger.jsonl", "evidence.tgz", "checkpoint.json", "checkpoint.000", "checkpoint.003"} <= names
    assert all(path.stat().st_size <= 2**18 for path in out.glob("checkpoint.0*"))
    assert keep.restore(out, there) == [begun]
    assert set(Ledger(there / "ledger").read().done) == {finished}
    checkpoints = there / "runs" / begun / "checkpoints"
    assert [p.name for p in checkpoints.iterdir()] == ["780"], "the newest"
    assert (checkpoints / "780/params").read_bytes() == b"780" * 300_000
    assert not (there / "runs" / finished / "checkpoints").exists()
    assert keep.keep(work, out, megabytes=0.1) == [] and not list(out.glob("checkpoint.*"))


def test_the_same_command_on_another_machine_loses_no_line_of_the_newer_box(tmp_path, monkeypatch):
    """--out=second --continue=first, twice: the second machine finds both folders and an empty --work."""

    def enter(work, name, value):
        Ledger(work / "ledger").append({"id": name, "status": "done", "value": value})

    first, second, work = (tmp_path / name for name in ("first", "second", "work"))
    first.mkdir()
    enter(tmp_path / "a", "A", "old")
    keep.keep(tmp_path / "a", first)
    monkeypatch.setattr(run.Box, "run", lambda self, parts: enter(work, "A", "new") or enter(work, "B", "new") or [])
    second.mkdir()
    args = SimpleNamespace(minutes=1, parts="check", resume=[str(first)], narrow=True, bring_mb=0.0)
    run.run(args, second, work)
    work = tmp_path / "elsewhere"
    monkeypatch.setattr(run.Box, "run", lambda self, parts: [])
    run.run(args, second, work)
    for place in (work / "ledger", second):
        book = Ledger(place).read()
        assert {name: it["value"] for name, it in book.done.items()} == {"A": "new", "B": "new"}
        assert book.duplicates == {"A": 2}
    # Boxes that know nothing of each other; a half line stays one, and is no newer than whole ones.
    (second / "ledger.jsonl").unlink()
    enter(tmp_path / "c", "A", "other")
    enter(tmp_path / "c", "C", "other")
    with open(tmp_path / "c/ledger/ledger.jsonl", "ab") as file:
        file.write(b'{"id": "D"')
    (tmp_path / "third").mkdir()
    keep.keep(tmp_path / "c", tmp_path / "third")
    keep.restore(tmp_path / "third", work)
    book = Ledger(work / "ledger").read()
    assert {name: it["value"] for name, it in book.done.items()} == {"A": "new", "B": "new", "C": "other"}
    assert book.torn == 1


def test_a_damaged_part_and_an_archive_of_other_things_are_refused(tmp_path, monkeypatch):
    work, out = tmp_path / "work", tmp_path / "out"
    out.mkdir()
    sweep_folder(work)
    keep.keep(work, out)
    part = out / "checkpoint.000"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match="checkpoint.000 is missing or damaged"):
        keep.restore(out, tmp_path / "there")
    (work / "runs" / "link.log").symlink_to("/etc/passwd")
    (tmp_path / "outside").write_text("x")
    for name in ("runs/link.log", "../outside"):
        (out / "evidence.tgz").write_bytes(keep._tar(work, [work / name], "w:gz") if "link" in name else b"no archive")
        with pytest.raises(RunError, match="not a file of a ledger or run|cannot be unpacked"):
            keep.restore(out, tmp_path / "there")


def test_a_set_goes_through_uploads_and_comes_back(tmp_path, monkeypatch, rng):
    monkeypatch.setattr(pack, "PIECE", 15)

    def split(count):
        return Split(
            rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, count).astype(np.int32)
        )

    sets = {"train": split(50), "test": split(20), "SVHN": split(12)}
    folders = pack.make(sets, tuple("abcdefghij"), tmp_path / "uploads", limit=150_000)
    assert len(folders) > 1 and all((it / pack.FILE).stat().st_size <= 150_000 for it in folders)
    to = tmp_path / "data"
    missing = [pack.open_upload(folder, to) for folder in reversed(folders)]
    assert all(missing[:-1]) and missing[-1] == []
    rows = np.fromfile(to / "cifar-10-batches-bin/data_batch_2.bin", np.uint8).reshape(-1, 3073)
    np.testing.assert_array_equal(rows[:, 0], sets["train"].labels[10:20])
    np.testing.assert_array_equal(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), sets["train"].images[10:20])
    np.testing.assert_array_equal(np.load(to / "SVHN_data.npy"), sets["SVHN"].images)
    assert len((to / "cifar-10-batches-bin/batches.meta.txt").read_text().split()) == 10
    (folders[0] / pack.FILE).write_bytes((folders[0] / pack.FILE).read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be read"):
        pack.open_upload(folders[0], to)


def test_the_queue_is_of_rows_that_the_papers_size_has(tmp_path):
    assert QUEUE[:5] == ("mixup+sem", "mixup", "cutmix+sem", "cutmix", "erm") and QUEUE[9:11] == (
        "sem-own",
        "mixup-own",
    )
    assert set(QUEUE) == set(grid.methods_named("all", "paper")) and len(QUEUE) == len(set(QUEUE))
    row = {"net": "preact_resnet", "batch": 128, "case": "mixup", "step_ms": 1.5}
    (tmp_path / "speed.jsonl").write_text("".join(json.dumps(row | more) + "\n" for more in ({}, {"batch": 512})))
    assert step_ms(tmp_path) == 1.5 and step_ms(tmp_path / "nothing") == 0.0


def test_packages_that_are_missing_are_said_first(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["numpy>=2", "no-such-thing[x]>=1; python>3"]\n'
    )
    assert missing(tmp_path / "pyproject.toml") == ["no-such-thing"]


def test_the_rehearsal(tmp_path):
    """All three parts with small nets, as a user starts it; a run that the time cuts off goes on in a second box."""
    out = tmp_path / "box"
    command = [sys.executable, "-m", "experiments.timebox", "--narrow", f"--out={out}", "--seeds=0"]
    minutes = round(6 * min(max(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0), 4.0))  # longer beside other work
    begin = time.monotonic()
    done = subprocess.run(
        [*command, f"--minutes={minutes}", "--methods=erm,mixup+sem"], cwd=ROOT, capture_output=True, text=True
    )
    assert time.monotonic() - begin < 60 * minutes + 30
    said = [json.loads(line) for line in (out / "timebox.jsonl").read_text().splitlines()]
    assert [it["part"] for it in said] == ["check", "speed: narrow", "evidence"], done.stdout + done.stderr
    assert all(it["status"] in ("done", "out of time") for it in said), (out / "timebox.log").read_text()[-3000:]
    if said[1]["status"] == "done":
        assert {json.loads(line)["case"] for line in (out / "speed.jsonl").read_text().splitlines()} >= {"mixup"}
    if said[-1]["status"] == "done":
        assert len(Ledger(tmp_path / "box.work/ledger").read().done) == 2
