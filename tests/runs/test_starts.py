"""A trainer starts in a run folder with something wrong in it: refused in one message, or gone on as documented."""

import pytest

from sem_jax.errors import RunError
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
