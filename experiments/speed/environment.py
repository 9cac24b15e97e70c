"""What measured times depend on: versions, device, load, flags."""

import os
import subprocess

import jax

from sem_jax.runs import records


def environment() -> dict:
    """For the JSON of a measurement."""
    device, about = jax.devices()[0], records.environment()
    return {
        **about["versions"],
        "git": about["commit"] or None,
        "device": device.device_kind,
        "devices": len(jax.devices()),
        "platform_version": getattr(device.client, "platform_version", ""),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "gpu": gpu_state(),
    }


def gpu_state() -> str | None:
    """Driver, clocks and power limit, as nvidia-smi has them; None without it."""
    query = "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit"
    try:
        done = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def no_gpu() -> bool:
    return jax.default_backend() == "cpu"
