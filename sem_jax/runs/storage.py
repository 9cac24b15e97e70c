"""Where a run lives: a folder on a disk, or a bucket.

    storage = open_storage("gs://my-runs/wrn_c10", lock_seconds=60)
    with storage.look() as folder: ...                   # the config.json and data.json that are there, to be compared
    with storage:                                        # takes the run; its newest checkpoint is in storage.path
        ...                                              # train in storage.path, a folder on a disk
        storage.committed(390)                           # the checkpoint of step 390 survives this machine
        storage.deleted(312)
    storage.publish("evaluation")

A run on a disk needs none of these (`disk`). `mirror` does them for a bucket, and is the only one that knows how.
"""

from pathlib import Path

from sem_jax.runs.disk import Disk, local_folder
from sem_jax.system.urls import is_url


def open_storage(workdir: str | Path, *, lock_seconds: float = 60.0) -> Disk:
    """The place of a run, by the text that --workdir has.

    Args:
      lock_seconds: a trainer in a bucket that has been silent for so long has lost the run to the next one.

    Raises:
      ConfigError: a URL of another kind, or of a bucket without a folder in it.
    """
    if is_url(workdir):
        from sem_jax.runs.mirror import Mirror

        return Mirror(str(workdir), lock_seconds)
    return Disk(local_folder(workdir), str(Path(workdir).expanduser()))
