"""Run folders of strangers made to harm who scores them, as a table.

    word = row(copy of a run folder, canary)     # open_run(folder) is to raise an error that says `word`, or, where
                                                 # `word` is "", to read the run as if nothing had happened

`canary` is a path: a payload that runs creates it. Read by test_hostile_runs.py and by experiments/drills/refusals.py.
"""

import json
import os
import pickle

HOSTILE_RUNS = []  # the rows


def hostile(row):
    HOSTILE_RUNS.append(row)
    return row


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
    for name in ("state.pkl", "checkpoints/3/model.pkl", "checkpoints/3/model/params.pickle"):
        (run / name).write_bytes(pickle.dumps(Payload(canary)))
    return ""


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
    return "model.a"


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
    return "Unknown model"


@hostile
def config_with_a_name_of_many_lines(run, canary):
    _edit(run / "config.json", model__name="a\nb\nc\nd\ne\x1b[2J")
    return "Unknown model"


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
    return "optim.learning_rate"


@hostile
def config_with_a_foreign_class(run, canary):
    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({"__class__": "os.system", "_target_": "os.system"} | values))
    return "__class__"


@hostile
def model_wider_than_any_memory(run, canary):
    _edit(run / "config.json", model__width=10**30)
    return "heckpoint"


@hostile
def model_wider_than_the_checkpoint(run, canary):
    _edit(run / "config.json", model__width=4096)
    return "checkpoint"


@hostile
def data_facts_with_nan(run, canary):
    _edit(run / "data.json", mean=[float("nan")] * 3)
    return "mean"


@hostile
def data_facts_with_infinity(run, canary):
    _edit(run / "data.json", std=[float("inf")] * 3)
    return "std"


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
