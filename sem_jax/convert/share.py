"""Shares a run: its checkpoint as safetensors, configuration, metrics, a manifest and a model card.

    python -m sem_jax share --workdir=runs/mine --to=hf://owner/name --license=apache-2.0
    python -m sem_jax share --workdir=runs/mine --to=shared/mine         # a folder: the same files, to look at first

`sj.load("hf://owner/name")`, or of the folder, brings the run back: the same predictions, and nothing is executed.
Paths of this machine (data.dir and the like) are left out. A hub needs the package huggingface_hub (`pip install -e
.[hub]`), and a token that may write: `hf auth login`, or HF_TOKEN. $HF_ENDPOINT names another hub.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from sem_jax import config as config_lib
from sem_jax.errors import ConfigError, RunError, command_parser, exit_on_error
from sem_jax.runs import manifest as manifests
from sem_jax.runs.reading import read_json, require_run, without_current_folder
from sem_jax.runs.shared import FILES, is_shared
from sem_jax.system import hub

CARD = "README.md"
KEPT = ("method", "objective", "seed", "steps", "epochs", "schedule", "skipped_steps", "wall_time_s", "data", "devices")
KEPT += ("dtype", "versions", "commit", "best_val", "test_accuracy", "test_nll", "val_accuracy", "val_nll")
KEPT += ("ema_test_accuracy", "ema_test_nll", "ema_val_accuracy", "ema_val_nll", "near_chance", "majority_share")


def share_run(
    workdir: str,
    to: str,
    *,
    checkpoint: str = "final",
    license: str = "",
    private: bool = False,
    trust_model: str = "",
) -> str:
    """Writes a shared run to a folder, or publishes it on a hub in one commit.

    Args:
      workdir: the run.
      to: hf://owner/name[@branch], or a folder that is empty, not there or holds a shared run.
      checkpoint: "final", "best_val", "ema" or a step.
      license: for the card, as the hub spells it; "" = none, and the card says nothing.
      private: whether a repository that is made is private.
      trust_model: as for `sj.load`.

    Returns:
      Where it is: the folder, or hf://owner/name@COMMIT.

    Raises:
      SemError: a run that cannot be opened, a folder that holds something else, no permission, no network.
    """
    target = None if hub.is_hub(to) else Path(to).expanduser()
    if target is None:
        place = hub.parse(to)
        if place.file or place.kind != "model":
            raise ConfigError(f"--to={to} must be a folder, or the address of a model: hf://owner/name")
    elif "://" in to or target.is_file() or (target.is_dir() and any(target.iterdir()) and not is_shared(target)):
        raise ConfigError(f"--to={to} must be hf://owner/name or a new folder", "It is none, or holds something else.")
    require_run(workdir, checkpoint)
    if target is None:
        hub.package()  # refused where it is not installed, before the run is opened
    with tempfile.TemporaryDirectory() as folder:
        where = target.resolve().name if target else to  # a path of this machine is nobody's business
        pack(workdir, Path(folder), where=where, checkpoint=checkpoint, license=license, trust_model=trust_model)
        files = {path.name: path for path in sorted(Path(folder).iterdir())}
        if target is None:
            commit = hub.publish(to, files, message="A run of sem_jax", private=private)
            return str(hub.parse(to)._replace(revision=commit))
        for name, path in files.items():
            _write(target / name, path.read_bytes())
    return str(target)


def _write(path: Path, content: bytes) -> None:
    from sem_jax.convert.files import write_bytes

    try:
        write_bytes(path, content)
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror or error}", "Give another folder: --to=DIR.") from None


def pack(workdir: str, folder: Path, *, where: str, checkpoint: str, license: str, trust_model: str) -> None:
    """Fills an empty folder with the files of a shared run; arguments as of `share_run`."""
    from sem_jax.convert.card import make_card, scores_of
    from sem_jax.convert.export import about_model, flat_arrays
    from sem_jax.convert.files import write_safetensors
    from sem_jax.runs.opening import open_run
    from sem_jax.runs.records import environment, read_metrics, write_json

    run = open_run(workdir, checkpoint, trust_model=trust_model)
    arrays, about = flat_arrays(run.variables), environment()
    write_json(folder / FILES[0], config_lib.without_places(run.config))
    write_json(folder / FILES[1], run.data.to_json())
    write_safetensors(folder / FILES[2], arrays, about_model(run))
    if log := read_metrics(run.folder):
        (folder / FILES[3]).write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    result = read_json(run.folder / FILES[4]) if (run.folder / FILES[4]).exists() else None
    if isinstance(result, dict):
        write_json(
            folder / FILES[4], config_lib.without_places({name: result[name] for name in KEPT if name in result})
        )
    manifest: dict[str, Any] = {"step": run.step or 0, "progress": {}, "metrics": {}, "fingerprint": run.fingerprint}
    manifest["arrays"] = {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}
    manifests.write_manifest(folder, manifest | {"versions": about["versions"], "commit": about["commit"]})
    card = make_card(run, scores_of(run), where=where, license=license)
    (folder / CARD).write_text(card, encoding="utf-8")  # after the manifest: its owner may edit it


def main(argv: list[str] | None = None) -> None:
    """Entry point of `python -m sem_jax share`."""
    parser = command_parser("sem_jax share", __doc__)
    add = parser.add_argument
    add("--workdir", required=True, metavar="DIR", help="run folder, or gs://BUCKET/FOLDER")
    add("--to", required=True, metavar="PLACE", help="hf://owner/name, or a folder")
    add("--checkpoint", default="final", help="final, best_val, ema or a step; default: final")
    add("--license", default="", metavar="NAME", help="for the model card: apache-2.0, mit, cc-by-4.0, ...")
    add("--private", action="store_true", help="a repository that is made is private")
    add("--trust_model", default="", metavar="MODULE:FACTORY", help="custom model of the run that may be imported")
    args = parser.parse_args(argv)
    with exit_on_error(), without_current_folder():
        place = share_run(args.workdir, args.to, **{k: v for k, v in vars(args).items() if k not in ("workdir", "to")})
        print(f'Shared as {place}\nAnybody loads it with: sj.load("{place}")')
        if not args.license:
            print(f"Its card ({CARD}) names no license: give --license=NAME, or nobody knows what they may do with it.")


if __name__ == "__main__":
    sys.exit(main())
