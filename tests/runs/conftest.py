"""The small run of the evaluation's tests serves here too."""

from tests.evaluation.conftest import own_home, place, run_dir  # noqa: F401
