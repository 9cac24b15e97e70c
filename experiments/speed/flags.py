"""XLA flags and compile times, each in a process of its own: XLA reads its flags once, and an unknown one aborts.

accepted("--xla_gpu_experimental_enable_conv_fusion=true")
run_child(setting, {"sem": SEM}, steps=20, blocks=5, flags="--xla_...", cache_dir=None)
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from experiments.speed.cases import Case, Setting

# Tried one at a time against the defaults. The first two are what XLA leaves out of CUDA graphs and of fusion.
GPU_FLAGS = (
    "--xla_gpu_enable_command_buffer=+CONVOLUTION",
    "--xla_gpu_experimental_enable_conv_fusion=true",
    "--xla_gpu_graph_min_graph_size=1",
)
CPU_FLAGS = (
    "--xla_cpu_prefer_vector_width=512",
    "--xla_cpu_enable_concurrency_optimized_scheduler=true",
    "--xla_cpu_enable_fast_math=true",
)


def _environment(flags: str, cache_dir: str | None) -> dict[str, str]:
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the process that waits has most of a GPU's memory already
    }
    if cache_dir:
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": cache_dir,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    return environment


def accepted(flags: str) -> bool:
    """Whether this jaxlib knows the flags."""
    code = "import jax; jax.jit(lambda x: x + 1)(1.0)"
    done = subprocess.run([sys.executable, "-c", code], env=_environment(flags, None), capture_output=True)
    return done.returncode == 0


def run_child(
    setting: Setting,
    cases: Mapping[str, Case],
    *,
    steps: int,
    blocks: int,
    flags: str = "",
    cache_dir: str | None = None,
) -> dict[str, dict]:
    """Measures cases in another process.

    Returns:
      name -> {"wall_ms", "cpu_ms", "compile_s", "device_peak_bytes"}, or {} when the process failed. The last is the
      most that the process had in use on its GPU, so of all cases together; None on CPU.
    """
    request = {
        "setting": setting._asdict(),
        "cases": {name: case._asdict() for name, case in cases.items()},
        "steps": steps,
        "blocks": blocks,
    }
    done = subprocess.run(
        [sys.executable, "-m", "experiments.speed", f"--child={json.dumps(request)}"],
        env=_environment(flags, cache_dir),
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else {}
