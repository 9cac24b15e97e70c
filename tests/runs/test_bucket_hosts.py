"""Two hosts train one run in a bucket; they share nothing else, and both are lost on the way."""

import os

import numpy as np
import pytest

from sem_jax.runs.lease import read
from sem_jax.runs.records import read_metrics
from sem_jax.system.bucket import Bucket
from tests.training.test_hosts import CONFIG, finish, processes, wait_for


@pytest.mark.slow
def test_two_hosts_without_a_common_disk_die_and_go_on_from_the_bucket(tmp_path, bucket_server):
    compiled = os.environ["SEM_JAX_TEST_CACHE"]  # by its name: the disks begin empty
    more = f"runtime__devices=0, runtime__lock_seconds=2, runtime__cache_dir={compiled!r}"
    config = CONFIG.replace("runtime__devices=0", more)
    whole, url = tmp_path / "whole", "gs://sem-jax-test/hosts"
    codes, out = finish(processes(tmp_path, 2, 2, whole, config=config), limit=900)
    assert codes == [0, 0], out

    bucket = Bucket(url)
    started = processes(tmp_path, 2, 2, url, config=config, pause=0.2, disks=tmp_path / "first")
    wait_for(lambda: read(bucket)[2], started, limit=900)
    for process, _ in started:
        process.kill()
    finish(started)
    saved = max(read(bucket)[2])
    assert 0 < saved < 15

    codes, out = finish(processes(tmp_path, 2, 2, url, config=config, disks=tmp_path / "second"), limit=900)
    assert codes == [0, 0], out
    assert f"Continuing from step {saved} of" in out[0] and "Continuing" not in out[1]
    for name in ("metrics.jsonl", "result.json"):
        bucket.download(name, tmp_path / "there" / name)
    there, here = read_metrics(tmp_path / "there"), read_metrics(whole)
    times = {"seconds", "images_per_s"}
    assert [{k: v for k, v in r.items() if k not in times} for r in there] == [
        {k: v for k, v in r.items() if k not in times} for r in here
    ]
    with np.load(tmp_path / "bucket.npz") as weights, np.load(f"{whole}.npz") as wanted:
        assert len(wanted.files) > 5
        for name in wanted.files:
            np.testing.assert_array_equal(weights[name], wanted[name], err_msg=name)
