"""How XLA compiles a training step on a kind of device.

    program = compile_step(lowered, "TPU v5 lite", vmem=0)      # jax.stages.Lowered -> jax.stages.Compiled

A TPU has a fast memory (VMEM) beside its matrix units, 128 MiB on a v5e. On some chips XLA gives one operation 16 MiB
of it unless told otherwise, and a large convolution then reads its operands again and again. What was compared is in
experiments/speed/performance_notes.md.
"""

from typing import Any

import jax

from sem_jax.errors import ConfigError, one_line
from sem_jax.system.output import say

VMEM_OPTION = "xla_tpu_scoped_vmem_limit_kib"
# MiB for one operation, by jax.Device.device_kind. More of it leaves less for what is kept between operations. A v6e
# has 32 without being told, which is best for it; on a v4 the number changes nothing.
VMEM = {"TPU v5 lite": 48, "TPU v5": 48, "TPU v5p": 48}  # a v5e, and a v5p by two names


def step_options(kind: str, *, vmem: int = 0) -> dict[str, Any]:
    """Options of `jax.stages.Lowered.compile` for a training step.

    Args:
      kind: `jax.Device.device_kind`.
      vmem: MiB of fast memory for one operation, on a TPU; 0 = as in `VMEM`, else XLA's own.

    >>> step_options("TPU v5 lite"), step_options("TPU v5 lite", vmem=64), step_options("cpu", vmem=64)
    ({'xla_tpu_scoped_vmem_limit_kib': '49152'}, {'xla_tpu_scoped_vmem_limit_kib': '65536'}, {})
    """
    size = vmem or VMEM.get(kind, 0)
    return {VMEM_OPTION: str(size << 10)} if size and kind.startswith("TPU") else {}


def compile_step(lowered: Any, kind: str, *, vmem: int = 0) -> Any:
    """Compiles a training call. Where the compiler refuses what was chosen here, it is compiled without that.

    Raises:
      ConfigError: the compiler refuses what the configuration asks for.
    """
    options = step_options(kind, vmem=vmem)
    if not options:
        return lowered.compile()
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "memory space hbm" in str(error):  # the step is too large, whatever the options
            raise
        if vmem:
            raise ConfigError(f"runtime.vmem={vmem}: the compiler says: {one_line(error)[:200]}") from error
        say(f"Compiled without {VMEM_OPTION}: {one_line(error)[:200]}")
        return lowered.compile()
