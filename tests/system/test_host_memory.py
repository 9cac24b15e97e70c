"""Freed memory stays: a step's arrays cost no page faults after the first step."""

import subprocess
import sys
from pathlib import Path

import pytest

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CODE = """
import resource, sys
from sem_jax.system.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
import jax, jax.numpy as jnp
f = jax.jit(lambda x: jnp.cumsum(jnp.cumsum(x, 0) * 2.0, 0).sum())  # temporary arrays of 48 MB, too large to be pooled
x = jax.random.uniform(jax.random.key(0), (6, 2_000_000))
for _ in range(3):
    f(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    f(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 3)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
def test_a_step_that_ran_before_has_its_memory_already():
    def faults(mode):
        done = subprocess.run([sys.executable, "-c", CODE, mode], check=True, capture_output=True, text=True)
        return float(done.stdout)

    assert faults("keep") < 600  # of 4 kB; 48 MB have 12,288
    if "[always]" not in HUGE_PAGES.read_text():  # there the kernel does by itself what is asked for here
        assert faults("plain") > 10_000
