"""A trainer starts in a run folder with something wrong in it: refused in one message, or gone on as documented."""

import pytest

from sem_jax.errors import RunError
from sem_jax.runs.extension import extend
from sem_jax.runs.records import replacing, write_json
from tests.helpers.start_faults import STARTS


@pytest.mark.parametrize("row", STARTS, ids=lambda row: row.__name__)
def test_a_start_in_a_folder_with_something_wrong(tmp_path, row):
    call, expected = row(tmp_path / "run")
    if not isinstance(expected, str):
        expected(call())
        return
    with pytest.raises(RunError) as caught:
        call()
    assert expected in str(caught.value) and len(str(caught.value).splitlines()) <= 3


def test_two_processes_of_one_number_write_two_files(tmp_path):
    """As in two containers, which both call their process 1."""
    path = tmp_path / "eval.json"
    with replacing(path) as one:
        one.write(b"A" * 10)
        with replacing(path) as other:
            other.write(b"B" * 5)
        assert path.read_bytes() == b"BBBBB"
    assert path.read_bytes() == b"A" * 10 and [it.name for it in tmp_path.iterdir()] == ["eval.json"]


@pytest.mark.parametrize("name", ["earlier", "earlier/2_epochs"])
def test_the_result_of_a_shorter_run_is_moved_through_no_link(tmp_path, name):
    run, outside = tmp_path / "run", tmp_path / "outside"
    (run / name).parent.mkdir(parents=True)
    outside.mkdir()
    (run / name).symlink_to(outside)
    (run / "result.json").write_text("{}")
    with pytest.raises(RunError, match=f"{name} is a link"):
        extend(run, {"train.epochs": 2, "mixer.stop_epoch": 1}, write_json)
    assert not list(outside.iterdir()) and (run / "result.json").exists()
