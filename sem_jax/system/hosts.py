"""Several processes that train one run together, each with the devices of its host; with one, nothing of it shows.

    connect(coordinator_address="10.0.0.1:1234", num_processes=4, process_id=0)    # before anything else of jax
    if is_lead(): ...                           # one process writes
    stop, count = agree([stop, count])          # the same on all: the largest
    step = from_lead(step)

The mesh spans the devices of all processes (`programs`), and the batch is the same on any number of them.
"""

import jax
import numpy as np

from sem_jax.errors import RunError


def connect(
    *,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_seconds: int = 100,
) -> None:
    """Joins the processes of a run; each calls it first of all.

    Args:
      coordinator_address: host:port of process 0; None, like the next two, where JAX finds it by itself (Cloud TPU,
        SLURM, Open MPI, Kubernetes).
      num_processes, process_id: how many there are, and which of them this one is.
      heartbeat_seconds: after so long without a sign of life of one of them, the others end too.

    Raises:
      RunError: when they cannot be joined.
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
    """The largest of every process's values; all processes call it at the same point."""
    if jax.process_count() == 1:
        return values
    from jax.experimental import multihost_utils

    return [int(v) for v in multihost_utils.process_allgather(np.asarray(values, np.int32)).max(axis=0)]


def from_lead(value: int) -> int:
    """The value that the lead has; all processes call it at the same point."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.asarray(value, np.int32)))
