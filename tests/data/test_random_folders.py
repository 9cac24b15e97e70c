"""Any data folder is read, or refused with one message in seconds: drawn at random (tests/helpers/random_data.py)."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.helpers.data_sets import small_cifar10
from tests.helpers.random_data import folders, judge

QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture
def home(own_home, made, monkeypatch):
    small_cifar10(monkeypatch)
    return own_home


@settings(max_examples=30, derandomize=True, **QUIET)
@given(plan=folders())
def test_a_folder_is_read_or_refused(home, plan):
    judge(plan, home)


@pytest.mark.slow
@settings(max_examples=400, **QUIET)
@given(plan=folders())
def test_hundreds_of_folders_are_read_or_refused(home, plan):
    judge(plan, home)
