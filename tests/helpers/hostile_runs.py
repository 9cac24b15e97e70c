"""Run folders of strangers made to harm who scores them, as a table.

    word = row(copy of a run folder, canary)     # call(row, folder) is to raise an error that says `word`, or, where
    call(row, folder)                            # `word` is "", to go on as if nothing had happened

`call` is `open_run`, or another way in which a run is opened or scored; it is started in the run folder. `canary` is a
path: a payload that runs creates it. Read by test_hostile_runs.py and by experiments/drills/refusals.py.
"""

import contextlib
import importlib.util
import json
import os
import pickle
import shutil
from pathlib import Path
from unittest import mock

import sem_jax as sj
from sem_jax.convert import export_weights
from sem_jax.convert.export import export_run
from sem_jax.evaluation import Options, evaluate, runner
from sem_jax.evaluation.given import _open_compared
from sem_jax.runs.manifest import read_manifest, write_manifest
from sem_jax.runs.opening import open_run, open_scorer
from tests.helpers import bombs

HOSTILE_RUNS = []  # the rows


def hostile(row, *, by=open_run, name=""):
    row.by, row.__name__ = by, name or row.__name__
    HOSTILE_RUNS.append(row)
    return row


def call(row, folder):
    """What a user does with the folder."""
    with contextlib.chdir(folder):
        return row.by(folder)


def score(folder, **options):
    """Scores a run; the report is written to the home folder. Git, which tells the commit, is not asked."""
    about = {"versions": {}, "commit": "", "platform": ""}
    options = {"suites": ("clean",), "out": Path.home() / "report", "cached": False} | options
    with mock.patch.object(runner, "environment", lambda: about):
        return evaluate(folder, Options.quick(**options))


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def _edit(file, **fields):
    """Replaces fields, a dotted one inside its group."""
    values = json.loads(file.read_text())
    for name, value in fields.items():
        group, _, field = name.rpartition("__")
        (values[group] if group else values)[field] = value
    file.write_text(json.dumps(values))


@hostile
def python_config_beside_the_checkpoint(run, canary):
    for folder in (run, run / "checkpoints", run / "checkpoints/3"):
        for name in ("config.py", "__init__.py", "sitecustomize.py", "conftest.py", "config.json.py"):
            (folder / name).write_text(f"open({str(canary)!r}, 'w').close()\n")
    return ""


@hostile
def pickles_beside_the_checkpoint(run, canary):
    for name in ("state.pkl", "checkpoints/3/model.pkl", "checkpoints/3/model/.params.pickle"):
        (run / name).write_bytes(pickle.dumps(Payload(canary)))
    return ""


@hostile
def pickle_inside_the_checkpoint(run, canary):
    (run / "checkpoints/3/model/params.pickle").write_bytes(pickle.dumps(Payload(canary)))
    return "model/params.pickle: not in manifest.json"


@hostile
def config_is_python(run, canary):
    (run / "config.json").write_text(f"__import__('os').system('touch {canary}')")
    return "config.json"


@hostile
def config_is_a_pickle(run, canary):
    (run / "config.json").write_bytes(pickle.dumps(Payload(canary)))
    return "config.json"


@hostile
def config_is_yaml_with_an_object(run, canary):
    (run / "config.json").write_text(f"!!python/object/apply:os.system ['touch {canary}']\n")
    return "config.json"


@hostile
def config_nested(run, canary):
    (run / "config.json").write_text("[" * 200_000 + "]" * 200_000)
    return "config.json"


@hostile
def config_nested_in_a_field(run, canary):
    deep = "x"
    for _ in range(900):
        deep = {"a": deep}
    _edit(run / "config.json", model=deep)
    return "config.json"


@hostile
def config_of_ten_gigabytes(run, canary):
    with (run / "config.json").open("r+b") as file:
        file.truncate(10 << 30)
    return "config.json"


@hostile
def config_with_ten_million_numbers(run, canary):
    (run / "config.json").write_text("[" + "0," * 10_000_000 + "0]")
    return "config.json"


@hostile
def config_with_a_long_name(run, canary):
    _edit(run / "config.json", **{"x" * 100_000: 1})
    return "Unknown field"


@hostile
def config_with_a_long_value(run, canary):
    _edit(run / "config.json", model__name="x" * 100_000)
    return "model.name"


@hostile
def config_with_a_name_of_many_lines(run, canary):
    _edit(run / "config.json", model__name="a\nb\nc\nd\ne\x1b[2J")
    return "model.name"


@hostile
def config_with_a_number_of_many_digits(run, canary):
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"depth": 10', '"depth": ' + "9" * 10_000))
    return "config.json"


@hostile
def config_of_another_type(run, canary):
    (run / "config.json").write_text('"text"')
    return "config.json"


@hostile
def config_with_a_list_for_a_group(run, canary):
    _edit(run / "config.json", model=[1, 2])
    return "model"


@hostile
def config_with_a_group_for_a_number(run, canary):
    _edit(run / "config.json", model__depth={"a": 1})
    return "model.depth"


@hostile
def config_with_null(run, canary):
    _edit(run / "config.json", model__width=None)
    return "model.width"


@hostile
def config_with_nan(run, canary):
    _edit(run / "config.json", optim__learning_rate=float("nan"))
    return "the number NaN"


@hostile
def config_with_a_number_beyond_floats(run, canary):
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"learning_rate": 0.1', '"learning_rate": 1e999'))
    return "the number 1e999"


@hostile
def config_with_a_foreign_class(run, canary):
    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({"__class__": "os.system", "_target_": "os.system"} | values))
    return "__class__"


@hostile
def model_wider_than_any_memory(run, canary):
    _edit(run / "config.json", model__width=10**30)
    return "model.width"


@hostile
def model_wider_than_the_checkpoint(run, canary):
    _edit(run / "config.json", model__width=2)
    return "heckpoint"


@hostile
def data_facts_with_nan(run, canary):
    _edit(run / "data.json", mean=[float("nan")] * 3)
    return "the number NaN"


@hostile
def data_facts_with_infinity(run, canary):
    _edit(run / "data.json", std=[float("inf")] * 3)
    return "the number Infinity"


@hostile
def data_facts_with_a_mean_that_no_float_holds(run, canary):
    _edit(run / "data.json", mean=[10**60] * 3)
    return "mean"


@hostile
def data_facts_with_a_std_of_nothing(run, canary):
    _edit(run / "data.json", std=[1e-300] * 3)
    return "std"


@hostile
def image_of_gigabytes(run, canary):
    _edit(run / "data.json", image_shape=[65536, 65536, 3])
    return "image_shape"


@hostile
def image_larger_than_any_memory(run, canary):
    _edit(run / "data.json", image_shape=[10**12, 10**12, 3])
    return "image_shape"


@hostile
def data_facts_nested(run, canary):
    (run / "data.json").write_text('{"name": ' + "[" * 200_000 + "]" * 200_000 + "}")
    return "data.json"


@hostile
def metadata_of_the_checkpoint_is_a_pickle(run, canary):
    for file in (run / "checkpoints/3").rglob("*METADATA*"):
        file.write_bytes(pickle.dumps(Payload(canary)))
    return "heckpoint"


@hostile
def arrays_of_the_checkpoint_are_pickles(run, canary):
    for file in (run / "checkpoints/3").rglob("*"):
        if file.is_file():
            file.write_bytes(pickle.dumps(Payload(canary)))
    return "heckpoint"


# A model of config.json that is code. Nothing of it is imported unless the user names it too.

CODE = {
    "a_shell_command": ("distutils.core:setup", "script_args=['--command-packages', 'evil', 'run']"),
    "a_log_file": ("logging:basicConfig", "filename='CANARY'"),
    "an_array_file": ("numpy:savez", "file='CANARY', a=1"),
    "a_call_of_the_system": ("os:system", "command='touch CANARY'"),
    "a_layer_of_flax": ("flax.linen:Dense", "features=2"),
    "a_module_beside_the_checkpoint": ("evil:Net", ""),
}
OPENING = {
    "opened": open_run,
    "loaded": sj.load,
    "scored": score,
    "compared": lambda folder: _open_compared(folder, "final", ""),
    "a_scorer": lambda folder: open_scorer(folder, image_shape=(32, 32, 3), mean=(0.5,) * 3, std=(0.5,) * 3),
    "exported": lambda folder: export_run(str(folder), Path.home() / "net.safetensors", kind="safetensors"),
    "converted": lambda folder: export_weights(str(folder), Path.home() / "net.safetensors"),
}
if importlib.util.find_spec("flatbuffers"):  # without it an export is refused for that reason
    OPENING["exported_as_a_program"] = lambda folder: export_run(
        str(folder), Path.home() / "net.stablehlo", kind="stablehlo"
    )


def _write_evil(run, canary):
    payload = f"open({str(canary)!r}, 'w').close()\n"
    for name in ("evil.py", "run.py", "numpy.py", "matplotlib.py", "umap.py", "torch.py", "orbax.py", "tensorstore.py"):
        (run / name).write_text(payload)


def _names_code(name, options, word="which is code and was not imported"):
    def row(run, canary):
        _write_evil(run, canary)
        _edit(run / "config.json", model__name=name, model__options=options.replace("CANARY", str(canary)))
        return word

    return row


for what, (factory, arguments) in CODE.items():
    for how, by in OPENING.items():
        hostile(_names_code(factory, arguments), by=by, name=f"model_is_{what}_{how}")
    if factory != "evil:Net":  # what is imported here is the user's choice
        trusted = lambda folder, factory=factory: open_run(folder, trust_model=factory)  # noqa: E731
        hostile(_names_code(factory, arguments, factory), by=trusted, name=f"model_is_{what}_trusted")


@hostile
def model_is_named_outside_its_group(run, canary):
    _write_evil(run, canary)
    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({"model.name": "evil:Net"} | values))
    return "which is code and was not imported"


@hostile
def modules_beside_the_checkpoint(run, canary):
    _write_evil(run, canary)
    return ""


# Checkpoints of another step or run than they say.


def _rewrite(checkpoint, **about):
    """The manifest with other contents, if any, and digests that agree with the files."""
    values = read_manifest(checkpoint) | about
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint, {name: value for name, value in values.items() if name not in ("format", "files")})


@hostile
def checkpoint_renamed_to_a_later_step(run, canary):
    (run / "checkpoints/2").rename(run / "checkpoints/95")
    return "it is the checkpoint of step 2"


@hostile
def checkpoint_in_place_of_the_last(run, canary):
    (run / "checkpoints/3").rename(run / "checkpoints/4")
    (run / "checkpoints/1").rename(run / "checkpoints/3")
    (run / "checkpoints/4").rename(run / "kept")
    return "it is the checkpoint of step 1"


@hostile
def checkpoint_of_another_seed(run, canary):
    _rewrite(run / "checkpoints/3", seed=7)
    return "it is of another run: seed 7 there, 0"


@hostile
def checkpoint_of_other_data(run, canary):
    _rewrite(run / "checkpoints/3", data="0" * 64)
    return "it is of another run: data 000000000000 there"


@hostile
def checkpoint_of_another_configuration(run, canary):
    values = json.loads((run / "config.json").read_text())
    values["optim"]["learning_rate"] = 0.5
    _rewrite(run / "checkpoints/3", config=values)
    return "it is of another run: optim.learning_rate 0.5 there, 0.1"


MANIFESTS = {
    "step": "3",
    "progress": [],
    "metrics": {"val_accuracy": "high"},
    "arrays": {"['model']": 1},
    "seed": {"a": 1},
}
for field, value in MANIFESTS.items():

    def manifest(run, canary, field=field, value=value):
        _rewrite(run / "checkpoints/3", **{field: value})
        return f"{field} "

    hostile(manifest, name=f"manifest_with_another_{field}")


@hostile
def manifest_of_files_without_a_size(run, canary):
    from sem_jax.runs.manifest import _digest

    path = run / "checkpoints/3/manifest.json"
    values = read_manifest(path.parent) | {"files": {"model/x": {}}}
    path.write_text(json.dumps(values | {"sha256": _digest(values)}))
    return "manifest.json: 'model/x' has no size"


@hostile
def manifest_of_a_file_of_less_than_nothing(run, canary):
    from sem_jax.runs.manifest import _digest

    path = run / "checkpoints/3/manifest.json"
    values = read_manifest(path.parent)
    values["files"]["trainer/x"] = {"bytes": -(1 << 40), "sha256": "0" * 64}
    path.write_text(json.dumps(values | {"sha256": _digest(values)}))
    return "manifest.json: 'trainer/x' has no size"


@hostile
def checkpoint_with_a_sparse_file(run, canary):
    from sem_jax.runs.manifest import _digest

    with (run / "checkpoints/3/trainer/more").open("wb") as file:
        file.truncate(20 << 30)
    values = read_manifest(run / "checkpoints/3")
    values["files"]["trainer/more"] = {"bytes": 20 << 30, "sha256": "0" * 64}
    (run / "checkpoints/3/manifest.json").write_text(json.dumps(values | {"sha256": _digest(values)}))
    return "its files have 214"


# Arrays, and what leads to them, that unpack to gigabytes; the digests agree.

NOT_WRITTEN = "which no run writes"


def _refolded(chunk_shape, inner=None):
    def change(about):
        about["chunk_grid"]["configuration"]["chunk_shape"] = chunk_shape
        about["codecs"][0]["configuration"]["chunk_shape"] = inner or chunk_shape
        return about

    return change


def _packed_otherwise(*codecs):
    return lambda about: about | {"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, *codecs]}


BLOSC = {"cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "typesize": 4, "blocksize": 0}
ZSTD = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
ARRAYS = {
    "chunks_of_a_terabyte": _refolded([64, 1 << 32]),
    "a_chunk_for_each_number": _refolded([1 << 20, 10], [1, 1]),
    "another_shape": lambda about: about | {"shape": [64, 1 << 40]},
    "another_dtype": lambda about: about | {"data_type": "float64"},
    "blosc": _packed_otherwise({"name": "blosc", "configuration": BLOSC}),
    "two_layers_of_zstd": _packed_otherwise(ZSTD, ZSTD),
    "a_long_text": lambda about: about | {"attributes": {"x": "x" * (1 << 19)}},
    "many_brackets": lambda about: about | {"attributes": {"x": [[[]] * 10_000] * 10}},
}
for what, change in ARRAYS.items():

    def array(run, canary, change=change):
        bombs.change_array(run / "checkpoints/3", change)
        _rewrite(run / "checkpoints/3")
        return NOT_WRITTEN

    hostile(array, name=f"array_with_{what}")


@hostile
def chunk_that_unpacks_to_gigabytes(run, canary):
    """tensorstore unpacks no more of it than the array needs."""
    bombs.change_chunk(run / "checkpoints/3", bombs.zeros(4 << 30))
    _rewrite(run / "checkpoints/3")
    return "cannot be restored"


@hostile
def tree_that_unpacks_to_gigabytes(run, canary):
    path = run / "checkpoints/3/model/manifest.ocdbt"
    begin = b"u" * 16 + bytes([0]) + bombs.varint(100) + bombs.varint(10**8) + bytes([4, 0]) + bombs.varint(1 << 33)
    path.write_bytes(bombs.node(bombs.MANIFEST, bombs.zeros(4 << 30, begin), 1))
    _rewrite(run / "checkpoints/3")
    return NOT_WRITTEN


@hostile
def node_with_a_table_of_a_billion_files(run, canary):
    files = bytes([0]) + bombs.varint(1 << 33)
    bombs.replace_tree(run / "checkpoints/3", lambda size: (bombs.zeros((size - 40) // 4 << 17, files), 1))
    _rewrite(run / "checkpoints/3")
    return NOT_WRITTEN


@hostile
def node_of_keys_that_share_their_beginnings(run, canary):
    """65,534 bytes a key, written as three."""

    def keys(size):
        count = (size - 20) // 4 - 1
        shared = b"\xfe\xff\x03" * (count - 1)
        return bytes([0, 0]) + bombs.varint(count) + shared + b"\xff\xff\x03" + b"\1" * (count - 1), 0

    bombs.replace_tree(run / "checkpoints/3", keys)
    _rewrite(run / "checkpoints/3")
    return NOT_WRITTEN


@hostile
def metadata_of_the_arrays_is_a_long_list(run, canary):
    (run / "checkpoints/3/model/_METADATA").write_text("[" + "[]," * (1 << 20) + "[]]")
    _rewrite(run / "checkpoints/3")
    return "model/_METADATA: 3145732 bytes, expected at most"


@hostile
def metadata_names_another_format(run, canary):
    _edit(run / "checkpoints/3/model/_METADATA", use_zarr3=False)
    _rewrite(run / "checkpoints/3")
    return "model/_METADATA: use_zarr3 is not true"


@hostile
def model_of_gigabytes_made_of_nothing(run, canary):
    _edit(run / "config.json", model__width=200)
    return "its arrays need"


@hostile
def model_of_gigabytes_beside_files_that_are_not_there(run, canary):
    from sem_jax.runs.manifest import _digest

    checkpoint = run / "checkpoints/3"
    _edit(run / "config.json", model__width=200)
    values = read_manifest(checkpoint)
    values["files"] = {name: it for name, it in values["files"].items() if not name.startswith("trainer/")}
    values["files"]["trainer/x"] = {"bytes": 1 << 33, "sha256": "0" * 64}
    shutil.rmtree(checkpoint / "trainer")
    (checkpoint / "manifest.json").write_text(json.dumps(values | {"sha256": _digest(values)}))
    return "its arrays need"


# Files that are none, endless or larger than any memory.


def _pipe(path):
    os.mkfifo(path)


def _device(path):
    path.symlink_to("/dev/zero")


def _folder(path):
    path.mkdir()


def _link_out(path):
    outside = path.parent.parent / "outside.json"
    outside.write_text("{}")
    path.symlink_to(outside)


def _circle(path):
    path.symlink_to(path.name)


def _sparse(path):
    with path.open("wb") as file:
        file.truncate(20 << 30)


def _nested(path):
    path.write_text('{"step": ' + "[" * 100 + "]" * 100 + "}\n{}\n")


def _digits(path):
    path.write_text('{"step": ' + "9" * 5000 + "}\n{}\n")


def _no_number(path):
    path.write_text('{"step": 1, "val_accuracy": NaN}\n{}\n')


def _half_a_character(path):
    path.write_text('{"step": 1, "name": "\\ud800"}\n{}\n')


READ = {  # file -> how it is read
    "config.json": open_run,
    "data.json": open_run,
    "metrics.jsonl": lambda folder: open_run(folder, "best_val"),
    "checkpoints/3/manifest.json": open_run,
}
for file, by in READ.items():
    for made in (_pipe, _device, _folder, _link_out, _circle, _sparse, _nested, _digits, _no_number, _half_a_character):

        def replaced(run, canary, file=file, made=made):
            (run / file).unlink()
            made(run / file)
            return Path(file).name

        hostile(replaced, by=by, name=f"{Path(file).stem}_is_{made.__name__[1:]}")


ORBAX = "_CHECKPOINT_DELETION model/_sharding model/array_metadatas/process_0 model/_METADATA model/d trainer/x".split()
for file in ORBAX:
    for made in (_pipe, _device, _link_out):

        def inside(run, canary, file=file, made=made):
            path = run / "checkpoints/3" / file
            if path.is_dir():
                path.rename(run / "kept")
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            made(path)
            return "is damaged: "

        hostile(inside, name=f"{file.replace('/', '_')}_of_the_checkpoint_is_{made.__name__[1:]}")


FIELDS = {
    "model__depth": 6_000_004,
    "model__width": 10**9,
    "model__heads": 10**9,
    "model__patch_size": 10**9,
    "model__num_classes": 10**9,
    "data__image_size": 10**8,
    "runtime__eval_batch_size": 10**60,
}
for field, value in FIELDS.items():

    def large(run, canary, field=field, value=value):
        _edit(run / "config.json", **{field: value})
        return field.replace("__", ".")

    hostile(large, name=f"{field}_of_{value:.0e}")


# Scoring: what is written stays in the run folder; what is shown is text.


def _linked(name):
    def row(run, canary):
        (run.parent / "outside").mkdir()
        (run / name).symlink_to(run.parent / "outside")
        return "evaluation is a link" if name == "evaluation" else ""

    return row


hostile(_linked("evaluation"), by=lambda folder: score(folder, out=""), name="evaluation_is_a_link")
hostile(_linked("predictions"), by=lambda folder: score(folder, cached=True), name="predictions_are_a_link")


def _score_over_a_pipe(folder):
    old = Path.home() / "report over a pipe" / "eval.json"
    if not old.exists():
        old.parent.mkdir(exist_ok=True)
        os.mkfifo(old)
    return score(folder, out=old.parent)


@hostile
def report_of_before_is_a_pipe(run, canary):
    return ""


report_of_before_is_a_pipe.by = _score_over_a_pipe


def _score_and_read(folder):
    score(folder)
    for suffix in ("md", "html"):
        shown = (Path.home() / f"report/eval.{suffix}").read_text(encoding="utf-8")
        assert shown.replace("\n", "").isprintable(), suffix


@hostile
def names_of_classes_that_a_terminal_obeys(run, canary):
    names = [
        "\x1b[2J",
        "\x1b]0;title\x07",
        "a\nb\rc",
        "<script>x</script>",
        "\u202egnp",
        "$x^{$",
        "_",
        "x" * 9999,
        "\x9b",
        " ",
    ]
    _edit(run / "data.json", class_names=names)
    return ""


names_of_classes_that_a_terminal_obeys.by = _score_and_read
