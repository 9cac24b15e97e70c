"""The ledger: appended to by several, torn, entered twice; items packed and unpacked."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.paper.ledger import FORMAT, Ledger, pack, unpack
from sem_jax.errors import RunError

ROOT = Path(__file__).parent.parent.parent


def done(name, **more):
    return {"id": name, "status": "done", **more}


def test_the_newest_done_entry_counts_and_a_failure_after_it_does_not(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append({"id": "a", "status": "failed", "error": "first"})
    ledger.append(done("a", value=1))
    ledger.append(done("a", value=2))
    ledger.append({"id": "a", "status": "failed", "error": "later"})
    ledger.append({"id": "b", "status": "failed", "error": "one"})
    ledger.append({"id": "b", "status": "failed", "error": "two"})
    book = ledger.read()
    assert book.done["a"]["value"] == 2 and book.duplicates == {"a": 2} and book.torn == 0
    assert list(book.failed) == ["b"] and book.failed["b"]["error"] == "two"


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_cut_off_costs_only_itself(tmp_path, cut):
    ledger = Ledger(tmp_path)
    ledger.append(done("a"))
    ledger.append(done("b"))
    ledger.path.write_bytes(ledger.path.read_bytes()[:-cut])
    ledger.append(done("c"))
    book = ledger.read()
    # Without its newline alone the second line is whole.
    assert set(book.done) == ({"a", "b", "c"} if cut == 1 else {"a", "c"}) and book.torn == (cut > 1)


def test_lines_that_are_no_entries_are_counted(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append(done("a"))
    with open(ledger.path, "ab") as file:
        file.write(b'{"id": 3}\n[1]\nnull\n\xff\xfe\n\n')
    assert ledger.read().torn == 4 and list(ledger.read().done) == ["a"]
    with open(ledger.path, "ab") as file:
        file.write(json.dumps({"id": "z", "status": "done", "format": FORMAT + 1}).encode() + b"\n")
    with pytest.raises(RunError, match=f"format {FORMAT + 1}, this version reads {FORMAT}"):
        ledger.read()


def test_no_ledger_is_said(tmp_path):
    with pytest.raises(RunError, match="no ledger"):
        Ledger(tmp_path).read()
    assert Ledger(tmp_path).read_or_empty().done == {}


def test_several_processes_append_at_once(tmp_path):
    code = (
        "import sys; from experiments.paper.ledger import Ledger\n"
        "for i in range(40):\n"
        "    Ledger(sys.argv[1]).append({'id': f'{sys.argv[2]}-{i}', 'status': 'done', 'x': 'y' * 9000})"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(i)], cwd=ROOT) for i in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 3
    book = Ledger(tmp_path).read()
    assert len(book.done) == 120 and book.torn == 0


def test_items_come_back_as_they_were_and_small(rng):
    correct = rng.random(10_003) < 0.3
    # Certain predictions: in float16 probabilities themselves these would tie.
    chance = 1 - 10.0 ** -np.linspace(1, 12, 500)
    content = pack({"correct test": correct, "msp test": chance, "relative error mixup": np.array([0.25, np.nan])})
    out = unpack(content)
    np.testing.assert_array_equal(out["correct test"], correct)
    assert out["correct test"].dtype == bool
    assert (np.diff(out["msp test"]) > 0).all(), "the order of scores is all that AUROC knows"
    np.testing.assert_array_equal(out["relative error mixup"], np.array([0.25, np.nan], np.float16))
    assert len(content) < 10_003 / 8 + 500 * 2 + 2500


def test_items_belong_to_their_entry(tmp_path):
    ledger = Ledger(tmp_path)
    first = ledger.append(done("a"), {"correct test": np.array([True, False])})
    second = ledger.append(done("a"), {"correct test": np.array([True, True])})
    ledger = Ledger(tmp_path)  # another reader
    assert ledger.items(first) is None, "the file is of the newer entry"
    np.testing.assert_array_equal(ledger.items(second)["correct test"], [True, True])
    assert ledger.items(ledger.append(done("b"))) is None
