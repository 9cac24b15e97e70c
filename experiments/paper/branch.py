"""ES runs from where their sibling without ES stood at the switch: the first three quarters are trained once.

    if start_from(sibling_folder, folder, cfg): ...     # then train in `folder` as ever: it continues at the switch

By files alone: the checkpoint of the switch and the log up to it are copied into a new run folder with its own
config.json. Up to the switch the two runs are the same program on the same numbers, so the branch ends bit for bit
where training it alone would.
"""

import json
import shutil
from pathlib import Path

from ml_collections import ConfigDict

from sem_jax.config import flatten, to_dict
from sem_jax.runs.checkpoint import steps
from sem_jax.runs.records import read_json, read_metrics, write_json

# What two siblings may differ in: the switch itself, what is kept on disk, and how fast it goes.
MAY_DIFFER = ("mixer.stop_epoch", "train.keep", "train.checkpoint_every", "runtime.", "data.dir")


def start_from(source: Path, folder: Path, cfg: ConfigDict) -> bool:
    """Makes `folder` a run of `cfg` that stands at the switch, from a sibling's run folder.

    Args:
      source: the sibling's run folder, with the checkpoint of epoch cfg.mixer.stop_epoch.
      folder: of the new run; left alone where it is there already.
      cfg: of the new run.

    Returns:
      Whether there is something to continue from; False where the sibling lacks the checkpoint or is another run's.
    """
    if (folder / "config.json").exists():
        return True
    if not (source / "config.json").exists() or not (source / "data.json").exists():
        return False
    theirs, ours = (dict(flatten(it)) for it in (read_json(source / "config.json"), to_dict(cfg)))
    unlike = {name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)}
    if any(not name.startswith(MAY_DIFFER) for name in unlike):
        return False
    log = [record for record in read_metrics(source) if record["epoch"] <= cfg.mixer.stop_epoch]
    if not log or log[-1]["epoch"] != cfg.mixer.stop_epoch or not all(record["mixing"] for record in log):
        return False
    switch = log[-1]["step"]
    if switch not in steps(source / "checkpoints"):
        return False
    if folder.exists() and not steps(folder / "checkpoints"):
        shutil.rmtree(folder)  # of a start that was refused
    made = folder.with_name(f".{folder.name}.branch")  # moved into place as a whole: a killed copy is no run
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(source / "checkpoints" / str(switch), made / "checkpoints" / str(switch))
    (made / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log), encoding="utf-8")
    shutil.copy(source / "data.json", made / "data.json")
    write_json(made / "config.json", to_dict(cfg))
    folder.parent.mkdir(parents=True, exist_ok=True)
    made.rename(folder)
    return True
