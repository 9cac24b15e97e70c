"""A shared run: one checkpoint for others, as `sem-jax share` writes it, in a folder or on a hub. Nothing is executed.

    found = local_folder("hf://owner/name@v1")               # fetched, as a run in a bucket is
    if is_shared(found.folder):
        manifest = read_shared(found.folder)                 # every file is as its manifest says
        variables = load_variables(found.folder, manifest, like)

Its files:

    config.json data.json      of the run, without paths of the machine it was trained on
    model.safetensors          "params/stem/kernel", ...: float32, bit for bit those of the checkpoint
    metrics.jsonl result.json  of the run, where it has them
    manifest.json              size and SHA-256 of each file above, step and versions; written last
    README.md                  the model card, which its owner may edit
"""

import hashlib
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from sem_jax.errors import ConfigError, RunError, one_line
from sem_jax.runs import manifest as manifests
from sem_jax.runs.manifest import Damaged, read_manifest
from sem_jax.runs.reading import own_folder
from sem_jax.system import hub
from sem_jax.system.urls import is_url

NEEDED = ("config.json", "data.json", "model.safetensors")
FILES = (*NEEDED, "metrics.jsonl", "result.json")
LIMIT = 1 << 35  # bytes of a shared run: 8 billion parameters
NAMED = ("final", "best_val", "ema")  # checkpoints
HEADER = 16 << 20  # bytes of a .safetensors file beside its arrays


class Here(NamedTuple):
    """A run on this machine."""

    folder: str | Path
    source: str = ""  # gs://BUCKET/FOLDER, or the address on a hub with its commit; "" for a run that was here already
    step: int | None = None  # the checkpoint that was fetched of a run in a bucket


def local_folder(workdir: str | Path, checkpoint: str = "final") -> Here:
    """The folder of a run, which is fetched if it is in a bucket or on a hub.

    Args:
      workdir: a folder, gs://BUCKET/FOLDER or hf://owner/name.
      checkpoint: of a run in a bucket, the one to fetch. It may be an address itself, which replaces `workdir`.

    Raises:
      SemError: a run that cannot be fetched, or an address of something else.
    """
    if "://" in checkpoint:
        workdir, checkpoint = checkpoint, "final"
    elif checkpoint not in NAMED and not checkpoint.isdigit():
        return Here(workdir)  # a folder
    if not hub.is_hub(workdir):
        return _from_bucket(str(workdir), checkpoint) if is_url(workdir) else Here(workdir)
    place = hub.parse(str(workdir))
    if place.file or place.kind != "model":
        raise ConfigError(f"--workdir={workdir} must be the address of a shared run: hf://owner/name[@revision]")
    fetched = hub.fetch(str(place), files=(*FILES, manifests.NAME), limit=LIMIT)
    if missing := [name for name in (manifests.NAME, *NEEDED) if name not in fetched.files]:
        remedy = "Weights to start a training from are given with --config.model.init_from."
        raise RunError(f"{place} is no run of `sem-jax share`: it has no {missing[0]}", remedy)
    return Here(fetched.path, str(place._replace(revision=fetched.revision)))


def _from_bucket(url: str, checkpoint: str) -> Here:
    from sem_jax.runs.fetched import fetch_run

    if match := re.fullmatch(r"(.+)/checkpoints(?:/(\d+))?/*", url):
        url, named = match[1], match[2] or "final"
        checkpoint = named if checkpoint == "final" else checkpoint
    folder, step = fetch_run(url, "final" if checkpoint == "ema" else checkpoint)
    return Here(folder, url.rstrip("/"), step)


def is_shared(folder: Path) -> bool:
    """Whether a folder is a shared run, and not one that a trainer writes to."""
    return (folder / NEEDED[-1]).is_file() and (folder / manifests.NAME).is_file()


def report_folder(workdir: str | Path) -> Path:
    """Where the report of a run goes: its evaluation/, or NAME-evaluation/ in the current folder for an address."""
    if hub.is_hub(workdir):
        return Path(hub.parse(str(workdir)).repo.rpartition("/")[2] + "-evaluation")
    if is_url(workdir):
        return Path(re.sub(r"/checkpoints(/\d+)?/*$", "", str(workdir)).rstrip("/").rpartition("/")[2] + "-evaluation")
    return own_folder(Path(workdir).expanduser() / "evaluation")


def read_shared(folder: Path) -> dict[str, Any]:
    """The manifest of a shared run, after a check of every file that it names.

    Raises:
      RunError: names the first file that is missing, differs or does not belong there.
    """
    try:
        manifest = read_manifest(folder)
        there = manifest["files"]
        if odd := [name for name in there if name not in FILES] + [name for name in NEEDED if name not in there]:
            raise Damaged(f"{odd[0]!r:.60} is unknown in a shared run, or missing in its {manifests.NAME}")
        for name, expected in there.items():
            path = folder / name
            if path.is_symlink() or not path.is_file():
                raise Damaged(f"{name}: no regular file")
            if path.stat().st_size != expected["bytes"]:
                raise Damaged(f"{name}: {path.stat().st_size} bytes, expected {expected['bytes']}")
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                    raise Damaged(f"{name}: contents changed")
    except (Damaged, OSError) as error:
        raise RunError(f"{folder} is damaged: {one_line(error)}", "Fetch it once more, or share it anew.") from None
    return manifest


def check_checkpoint(folder: Path, manifest: dict[str, Any], checkpoint: str) -> None:
    """Refuses another checkpoint than the one that is there."""
    step = manifest["step"]
    if checkpoint not in ("final", str(step)):
        found = f"{folder} is a shared run with one checkpoint, of step {step}"
        raise RunError(f"{found}; there is no {checkpoint!r}", "Leave --checkpoint out.")


def load_variables(folder: Path, manifest: dict[str, Any], like: Any) -> Any:
    """The arrays of a shared run as {"params", "batch_stats"}.

    Args:
      folder, manifest: as `read_shared` checked them.
      like: nested shapes and dtypes that the run's model has.

    Raises:
      RunError: the arrays do not fit the model; safetensors is not installed.
    """
    import jax

    paths, tree = jax.tree_util.tree_flatten_with_path(like)
    expected = {"/".join(str(key.key) for key in path): leaf for path, leaf in paths}
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in expected.values())
    path, size = folder / NEEDED[-1], manifest["files"][NEEDED[-1]]["bytes"]
    if size > needed + HEADER:
        raise RunError(f"{path} is damaged: it has {size} bytes, its model needs {needed}", "Share the run anew.")
    try:
        import safetensors.numpy as safetensors
    except ImportError:
        raise RunError(f"{path} needs safetensors, which is not installed", "pip install safetensors") from None
    try:
        arrays = safetensors.load_file(path)
    except Exception as error:  # safetensors raises several kinds
        raise RunError(f"{path} cannot be read as safetensors: {one_line(error)}", "Share the run anew.") from None
    shapes = {name: (leaf.shape, leaf.dtype) for name, leaf in expected.items()}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if odd := sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name)):
        there, here = found.get(odd[0], "missing"), shapes.get(odd[0], "none")
        message = f"{path} does not fit its config.json: {odd[0]} is {there!s:.60}, the model has {here!s:.60}"
        raise RunError(message, "Share the run anew.")
    return jax.tree.unflatten(tree, [jax.device_put(arrays[name], jax.local_devices()[0]) for name in expected])
