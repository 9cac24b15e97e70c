from tests.helpers.small_run import own_home, place, run_dir  # noqa: F401
