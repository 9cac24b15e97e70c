"""Connects several processes that train one run together, each with the devices of its host.

    connect(coordinator_address="10.0.0.1:1234", num_processes=4, process_id=0)    # before any other call of jax
    if is_lead(): ...                           # one process writes
    stop, count = agree([stop, count])          # for each value, the largest of all processes
    step = from_lead(step)                      # the lead's value

The mesh spans the devices of all processes (`training.programs`); the batch does not depend on their number.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils

from sem_jax.errors import RunError


def connect(
    *,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_seconds: int = 100,
) -> None:
    """Joins the processes of a run; each process calls it before it uses jax.

    Args:
      coordinator_address: host:port of process 0. This and the next two are None where JAX finds them by itself
        (Cloud TPU, SLURM, Open MPI, Kubernetes).
      num_processes, process_id: number of processes, and index of this one.
      heartbeat_seconds: the processes end when one of them has been silent for so long.

    Raises:
      RunError: the processes cannot be joined.
    """
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=heartbeat_seconds,
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"--distributed: the processes of the run cannot be joined: {str(error).strip().splitlines()[0][:300]}",
            "Where JAX cannot find them by itself: --coordinator_address=HOST:PORT --num_processes=N --process_id=I",
        ) from error


def is_lead() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def agree(values: list[int]) -> list[int]:
    """For each value, the largest of all processes, which all call it at the same point."""
    if jax.process_count() == 1:
        return values
    return [int(v) for v in multihost_utils.process_allgather(np.asarray(values, np.int32)).max(axis=0)]


def from_lead(value: int) -> int:
    """The lead's value; called as `agree`."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.asarray(value, np.int32)))
