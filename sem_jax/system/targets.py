"""Hardware that is not here: its facts, and devices that XLA compiles for without it.

    target = find_target("v5e:2x2")
    with compiling_for(target) as devices:      # 4 of jax's devices, which compile and never run
        ...

This is the only module that touches `jax.experimental.topologies`, which may change. TPUs need the package libtpu (the
extra `tpu`), GPUs JAX's CUDA plugin (the extra `cuda`); neither needs the hardware.
"""

import contextlib
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from typing import Any, NamedTuple

from sem_jax.errors import ConfigError


class Chip(NamedTuple):
    """Facts of one device, of the makers' data sheets."""

    kind: str  # "tpu" or "gpu"
    name: str
    memory: int  # bytes
    flops: float  # dense bfloat16 FLOP/s
    bandwidth: float  # bytes/s of its memory
    clock: float = 0.0  # Hz, TPU: what XLA's cycles are divided by
    gpu: str = ""  # GPU: the fields of XLA's gpu_device_info that are not the same for all


GIB = 1 << 30
_HOPPER = (
    "cuda_compute_capability { major: 9 minor: 0 } shared_memory_per_core: 233472 fpus_per_core: 128 core_count: 132 "
    "shared_memory_per_block_optin: 232448 l2_cache_size: 52428800 clock_rate_ghz: 1.98 "
)
_AMPERE = (
    "cuda_compute_capability { major: 8 minor: 0 } shared_memory_per_core: 167936 fpus_per_core: 64 core_count: 108 "
    "shared_memory_per_block_optin: 166912 l2_cache_size: 41943040 clock_rate_ghz: 1.41 "
)
CHIPS = {
    "v4": Chip("tpu", "TPU v4", 32 * GIB, 275e12, 1.228e12, 1.05e9),
    "v5e": Chip("tpu", "TPU v5e", 16 * GIB, 197e12, 0.819e12, 1.5e9),
    "v5p": Chip("tpu", "TPU v5p", 95 * GIB, 459e12, 2.765e12, 1.75e9),
    "v6e": Chip("tpu", "TPU v6e", 32 * GIB, 918e12, 1.64e12, 1.75e9),
    "a100": Chip("gpu", "NVIDIA A100-SXM4-80GB", 80 * GIB, 312e12, 2.039e12, gpu=_AMPERE),
    "h100": Chip("gpu", "NVIDIA H100 80GB HBM3", 80 * GIB, 989e12, 3.352e12, gpu=_HOPPER),
    "h200": Chip("gpu", "NVIDIA H200", 141 * GIB, 989e12, 4.8e12, gpu=_HOPPER),
}


class Target(NamedTuple):
    """Chips of one kind, with their arrangement."""

    text: str  # as it was asked for
    chip: Chip
    shape: tuple[int, ...]  # TPU: chips along each axis of the slice; GPU: (1,)

    @property
    def package(self) -> str:
        """What pip installs so that it can be compiled for: jax's extra, of the jax that is here."""
        return f"jax[{'tpu' if self.chip.kind == 'tpu' else 'cuda13'}]=={metadata.version('jax')}"


def find_target(text: str) -> Target:
    """The target of a name such as "v5e:2x2", "v5e" (one chip) or "h100".

    >>> find_target("v5e:2x2").shape, find_target("h100").chip.memory // GIB
    ((2, 2), 80)
    >>> find_target("v9")
    Traceback (most recent call last):
    ...
    sem_jax.errors.ConfigError: unknown target 'v9'
    Known ones: v4:2x2x1, v5p:2x2x1, v5e:1x1, v6e:1x1 (and larger ones of even sides, as v5e:2x4), a100, h100, h200.

    Raises:
      ConfigError: an unknown name or shape; the remedy lists the known ones.
    """
    name, _, shape = text.lower().partition(":")
    chip, axes = CHIPS.get(name), 3 if name in ("v4", "v5p") else 2
    if chip and chip.kind == "tpu":
        written = shape or "x".join("1" * axes)
        sides = [int(side) for side in written.split("x")] if re.fullmatch(r"\d{1,3}(x\d{1,3})+", written) else []
        whole = math.prod(sides) == 1 or not any(side % 2 for side in sides[:2])  # hosts have 2x2 chips
        if len(sides) == axes and all(sides) and whole:
            return Target(text, chip, tuple(sides))
    elif chip and not shape:
        return Target(text, chip, (1,))
    known = "v4:2x2x1, v5p:2x2x1, v5e:1x1, v6e:1x1 (and larger ones of even sides, as v5e:2x4), a100, h100, h200"
    raise ConfigError(f"unknown target {text!r}", f"Known ones: {known}.")


def stay_off_devices() -> None:
    """Keeps JAX on the CPU and libtpu from looking for a TPU; to be called before a device is used."""
    _share_libtpu()
    import jax

    jax.config.update("jax_platforms", "cpu")


def _share_libtpu() -> None:
    """Lets libtpu compile without a TPU's metadata and beside other processes that have loaded it.

    Only a process that computes on the chips needs libtpu's lock file; two that compile would refuse each other.
    """
    for name in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        os.environ.setdefault(name, "1")


@contextlib.contextmanager
def compiling_for(target: Target) -> Iterator[list[Any]]:
    """Devices of the target, as `jax.Device`; what the compilers print meanwhile about missing hardware is dropped.

    Raises:
      ConfigError: the compiler is not installed, or does not know the arrangement of chips.
    """
    from jax.experimental import topologies

    _share_libtpu()
    with _silent():
        try:
            if target.chip.kind == "tpu":
                options = {"chips_per_host_bounds": (1, 1, 1)} if math.prod(target.shape) == 1 else {}
                name = f"{target.text.split(':')[0].lower()}:{'x'.join(map(str, target.shape))}"
                topology = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
            else:
                topology = topologies.get_topology_desc(
                    platform="cuda", topology_name="1x1x1", topology="1 x 1 x 1", target_config=_gpu_config(target.chip)
                )
        except Exception as error:  # of jaxlib, of several types: no plugin, no libtpu, an impossible topology
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise ConfigError(
                f"cannot compile for {target.text}: {reason}", f'It needs pip install "{target.package}".'
            ) from error
        yield list(topology.devices)


def compiler_options(target: Target) -> dict[str, Any]:
    """Options of `jax.stages.Lowered.compile`: on a GPU that is not here nothing can be tried out."""
    return {"xla_gpu_autotune_level": 0} if target.chip.kind == "gpu" else {}


def _gpu_config(chip: Chip) -> str:
    """XLA's text of a GPU's facts (stream_executor's GpuTargetConfigProto)."""
    return (
        f"gpu_device_info {{ {chip.gpu} threads_per_block_limit: 1024 threads_per_warp: 32 "
        "shared_memory_per_block: 49152 threads_per_core_limit: 2048 block_dim_limit_x: 2147483647 "
        "block_dim_limit_y: 65535 block_dim_limit_z: 65535 registers_per_core_limit: 65536 "
        f"registers_per_block_limit: 65536 memory_bandwidth: {int(chip.bandwidth)} device_memory_size: {chip.memory} "
        f'}} platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} device_description_str: "{chip.name}"'
    )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Sends what native code writes to standard error into a file that is thrown away."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
