"""What strangers share to harm who loads it, as a table: folders of `sem-jax share`, and repositories of a hub.

The rows are those of `hostile_runs`: `row(copy of a run folder, canary)` makes a shared run of the folder and returns
the word of the refusal; `hostile_runs.call(row, folder)` is what a user does. A hub is a server on loopback. Without
safetensors or huggingface_hub there are no rows, since everything would be refused for that reason.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import struct
import tempfile
from pathlib import Path
from unittest import mock

from sem_jax.convert.pretrained import open_start
from sem_jax.convert.share import share_run
from sem_jax.data import load
from sem_jax.models import make_model
from sem_jax.runs.manifest import read_manifest, write_manifest
from sem_jax.runs.opening import open_run
from tests.helpers.hub_server import HubServer

HOSTILE_SHARES = []  # the rows
REPO, WEIGHTS = "some-one/net", "model.safetensors"
_SHARED: dict[str, bytes] = {}  # the files of a shared run, made once


def _on_hub(folder, use=open_run, kind="model", served=(), names=()):
    """`use` of the address of a repository with the files of a folder; what is fetched lies below the home folder.

    Args:
      served: names of files of which other bytes are sent than the hub states.
      names: of more files.
    """
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {name: b"x" for name in names}
    with HubServer() as hub, contextlib.ExitStack() as stack:
        hub.add(REPO, files, kind)
        hub.served.update({(REPO, name): bytes(len(files[name])) for name in served})
        here = tempfile.mkdtemp(dir=Path.home())  # a cache has the good file of another row under the same digest
        places = {"HF_HUB_CACHE": f"{here}/hf", "SEM_JAX_CACHE": f"{here}/cache"}
        stack.enter_context(mock.patch.dict(os.environ, {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"} | places))
        return use(f"hf://{REPO}")


def _start(text):
    model = make_model(name="mlp_mixer", depth=1, width=16, patch_size=4, num_classes=2, dtype="float32")
    return open_start(str(text), model, "mlp_mixer", image_shape=(8, 8, 3), class_names=("a", "b"))


def _start_from_file(folder):
    return _start(folder / WEIGHTS)


def hostile(change, word, *, by=open_run, name=""):
    """A row: the shared run with a change, of which the manifest knows as a hostile owner would see to."""

    def row(run, canary):
        if not _SHARED:
            share_run(str(run), str(run.parent / "shared"))
            _SHARED.update({path.name: path.read_bytes() for path in (run.parent / "shared").iterdir()})
            shutil.rmtree(run.parent / "shared")
        shutil.rmtree(run)
        run.mkdir()
        for file, content in _SHARED.items():
            (run / file).write_bytes(content)
        about = {key: value for key, value in read_manifest(run).items() if key not in ("files", "format")}
        for file in ("manifest.json", "README.md"):
            (run / file).unlink()
        change(run, canary)
        if not (run / "manifest.json").exists():
            write_manifest(run, about)
        return word

    row.by, row.__name__ = by, f"shared_{name or change.__name__.strip('_')}"
    HOSTILE_SHARES.append(row)


def _code(run, canary):
    (run / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()\n")


def _model_of_code(run, canary):
    values = json.loads((run / "config.json").read_text())
    values["model"]["name"] = "evil:Net"
    (run / "config.json").write_text(json.dumps(values))


def _link_out(run, canary):
    (run / "config.json").unlink()
    (run / "config.json").symlink_to("/etc/hostname")
    (run / "manifest.json").write_bytes(_SHARED["manifest.json"])


def _other_arrays_than_the_manifest(run, canary):
    content = bytearray((run / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (run / WEIGHTS).write_bytes(content)
    (run / "manifest.json").write_bytes(_SHARED["manifest.json"])


def _arrays(header, body=b"\0" * 8, length=None):
    """Replaces the weights by a file with this header, a JSON value or bytes."""

    def change(run, canary):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        (run / WEIGHTS).write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)

    return change


def _array(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LYING = {  # a header of safetensors -> how it lies
    "a_header_longer_than_the_file": _arrays({}, length=1 << 62),
    "a_header_of_four_gigabytes": _arrays({}, length=(1 << 32) + 5),
    "an_array_of_a_terabyte": _arrays({"params/a": _array([1 << 38], 0, 1 << 40)}),
    "an_array_beyond_the_end": _arrays({"params/a": _array([1 << 20], 0, 1 << 22)}),
    "a_shape_that_is_not_its_bytes": _arrays({"params/a": _array([1 << 20, 1 << 20], 0, 8)}),
    "a_shape_that_overflows": _arrays({"params/a": _array([1 << 62, 1 << 62], 0, 8)}),
    "arrays_that_overlap": _arrays({"params/a": _array([2], 0, 8), "params/b": _array([2], 0, 8)}),
    "offsets_that_run_back": _arrays({"params/a": _array([2], 8, 0)}),
    "a_dtype_of_nobody": _arrays({"params/a": _array([2], 0, 8, "O64")}),
    "brackets_without_end": _arrays(b"[" * 200_000),
    "a_pickle": _arrays(b"\x80\x04cos\nsystem\n(S'touch canary'\ntR."),
}

if importlib.util.find_spec("safetensors"):
    hostile(_code, "'evil.py' is unknown in a shared run", name="with_a_module")
    hostile(_model_of_code, "which is code and was not imported")
    hostile(_link_out, "config.json: no regular file")
    hostile(_other_arrays_than_the_manifest, "model.safetensors: contents changed")
    for what, change in LYING.items():
        hostile(change, "cannot be read as safetensors", name=what)
        hostile(change, "cannot be read as safetensors", by=_start_from_file, name=f"{what}_as_a_start")

if importlib.util.find_spec("safetensors") and importlib.util.find_spec("huggingface_hub"):

    def _nothing(run, canary):
        pass

    def _on(hub_files):
        return lambda folder: _on_hub(folder, **hub_files)

    HUBS = {  # name -> (change of the shared run, how the hub differs, word)
        "code": (_model_of_code, {}, "which is code and was not imported"),
        "arrays_with_a_wrong_digest": (_nothing, {"served": (WEIGHTS,)}, "model.safetensors is damaged: digest"),
        "config_with_a_wrong_digest": (_nothing, {"served": ("config.json",)}, "config.json is damaged: digest"),
        "a_start_with_a_wrong_digest": (_nothing, {"served": (WEIGHTS,), "use": _start}, "is damaged: digest"),
        "a_start_with_a_lying_header": (
            LYING["an_array_of_a_terabyte"], {"use": _start}, "cannot be read as safetensors",
        ),
    }  # fmt: skip
    for climbing in ("../config.json", "/etc/config.json", "a/../../config.json", "..\\config.json"):
        data = {"use": lambda url: load("hf", data_dir=url), "kind": "dataset"}
        data |= {"names": (climbing.replace("config.json", "train.parquet"),)}
        HUBS[f"data_called_{climbing}"] = _nothing, data, "whose name cannot be used here"
    for what, (change, hub, word) in HUBS.items():
        hostile(change, word, by=_on(hub), name=f"on_a_hub_{what}")
