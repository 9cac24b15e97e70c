"""The cases of the drill `refusals`: the tests' own tables of what is broken, hostile or wrong, family by family.

for outcome in data_cases(home): ...          # Outcome; `home` is a folder for what the cases share
"""

import functools
import http.server
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

from experiments.drills.trial import ROOT, Outcome, command, here
from sem_jax import config as config_lib
from sem_jax.data import Reading, load
from sem_jax.data.cifar import CIFAR10
from sem_jax.data.download import fetch
from sem_jax.runs.records import RunFolder
from sem_jax.training.loop import train_and_evaluate
from tests.helpers import data_faults, hostile_files, hostile_runs, hostile_shares, start_faults
from tests.helpers.data_sets import made_cifar10
from tests.helpers.runs import write_cifar10, write_run
from tests.helpers.wrong_configs import (
    COMMAND_LINES,
    MORE_COMMAND_LINES,
    RESUMED,
    TOGETHER,
    WITH_DATA,
    WRONG,
    set_field,
)

# Rows that also go through the command line; the others are read in this process, which is a hundred times faster.
DATA_SAMPLE = (
    "flipped_array_record truncated_array_record flipped_tfrecord wrong_count label_out_of_range empty_class "
    "zero_byte_image half_a_jpeg cut_npy unequal_lengths gap_in_labels no_test_folder"
).split()
HOSTILE_SAMPLE = (
    "npy_with_pickled_objects npy_of_endless_nothing tar_absolute tar_bomb tar_bomb_in_a_name zip_climbs zip_bomb "
    "folder_with_an_endless_device image_that_is_postscript pickled_cifar10_archive metadata_that_imports_a_module "
    "mat_bomb"
).split()
RUN_SAMPLE = (
    "python_config_beside_the_checkpoint config_nested config_of_ten_gigabytes config_is_a_pickle config_is_pipe "
    "modules_beside_the_checkpoint model_is_a_module_beside_the_checkpoint_opened model_is_a_shell_command_opened "
    "checkpoint_in_place_of_the_last evaluation_is_a_link tree_that_unpacks_to_gigabytes "
    "array_with_chunks_of_a_terabyte"
).split()
TRAIN, DIGITS = "sem_jax.main", f"--config={ROOT}/configs/digits.py"
OFFLINE = Reading(download=False)


def data_cases(home: Path) -> Iterable[Outcome]:
    """Broken and odd data sets."""
    for table, prepare in (
        (data_faults.PREPARED_FAULTS, _prepared),
        (data_faults.RAW_FAULTS, _raw),
        (data_faults.HANDLED, _odd),
    ):
        for row in table:
            yield here("broken data", row.__name__, functools.partial(prepare, row), home)
    yield here("broken data", "wrong_sha256_of_a_download", _wrong_download, home)


def _prepared(fault, folder: Path, canary: Path):
    shutil.copytree(made_cifar10()[0], folder)
    word = fault(folder)
    return lambda: load("cifar10", data_dir=str(folder), reading=OFFLINE), word


def _raw(fault, folder: Path, canary: Path):
    name, word = fault(folder)
    place = folder / "photos.zip" if (folder / "photos.zip").is_file() else folder
    return lambda: load(name, data_dir=str(place), reading=OFFLINE), word


def _odd(row, folder: Path, canary: Path):
    name, options, check = row(folder)
    return lambda: load(name, data_dir=str(folder), **options), check


def _wrong_download(folder: Path, canary: Path):
    """A server whose file is not the official one."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    folder.mkdir()
    (folder / CIFAR10.remotes[0].file).write_bytes(b"not the archive")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{CIFAR10.remotes[0].file}"
    downloads = Path(os.environ["HOME"]) / "downloads"
    return lambda: fetch(CIFAR10.remotes[0], downloads, url=url), "checksum"


def hostile_cases(home: Path) -> Iterable[Outcome]:
    """Files, run folders, shared runs and repositories of a hub made to do harm."""
    for row in hostile_files.HOSTILE:
        yield here("hostile files", row.__name__, row, home)
    write_cifar10(home / "place")
    write_run(home / "run", home / "place")

    def run(row, folder: Path, canary: Path):
        shutil.copytree(home / "run", folder)
        return lambda: hostile_runs.call(row, folder), row(folder, canary) or (lambda run: None)

    for family, rows in {
        "hostile files": hostile_runs.HOSTILE_RUNS,
        "hostile shared runs and hubs": hostile_shares.HOSTILE_SHARES,
    }.items():
        for row in rows:
            yield here(family, row.__name__, functools.partial(run, row), home)


def config_cases(home: Path) -> Iterable[Outcome]:
    """Wrong fields, fields that do not go together or with the data, and folders of other runs."""
    from configs.digits import get_config as digits

    def wrong(field, value, folder: Path, canary: Path):
        cfg = config_lib.get_default()
        set_field(cfg, field, value)
        word = str(value) if field in ("data.name", "model.name", "mixer.name") else field
        if (field, value) == ("mixer.name", "none"):
            word = "objective.gamma"  # the field that does not go with it
        return lambda: config_lib.validate(cfg, num_devices=8), word

    def resumed(field, first, second, folder: Path, canary: Path):
        cfg, data = config_lib.get_default(), {"fingerprint": "f", "name": "cifar10"}
        set_field(cfg, field, first)
        RunFolder(folder).claim(config_lib.to_dict(cfg), data)
        set_field(cfg, field, second)
        return lambda: RunFolder(folder).claim(config_lib.to_dict(cfg), data), field

    def together(values, message, base, folder: Path, canary: Path):
        cfg = base()
        if "model.name" in values:
            cfg.model.depth = cfg.model.width = 0
        for field, value in values.items():
            set_field(cfg, field, value)
        if base is config_lib.get_default:
            return lambda: config_lib.validate(cfg, num_devices=8), re.compile(message)
        # The start of a run, which makes its folder only after everything is checked.
        return lambda: train_and_evaluate(cfg, str(folder)), re.compile(message)

    family = "wrong configurations"
    for field, value, _ in WRONG:
        yield here(family, f"{field}={value}", functools.partial(wrong, field, value), home)
    for base, table in ((config_lib.get_default, TOGETHER), (digits, WITH_DATA)):
        for values, message in table:
            yield here(family, f"{values}", functools.partial(together, values, message, base), home)
    for field, first, second in RESUMED:
        yield here(family, f"resume with another {field}", functools.partial(resumed, field, first, second), home)


def start_cases(home: Path) -> Iterable[Outcome]:
    """Run folders with something wrong in them, in which a trainer starts; it may write there."""
    import tensorboardX  # noqa: F401  its import starts ldconfig, which is no harm of a case

    def prepare(row, folder: Path, canary: Path):
        call, expected = row(home / "starts" / row.__name__)
        # TensorBoard's writer pickles its own events for its thread.
        return mock.patch("tensorboardX.SummaryWriter", mock.MagicMock())(call), expected

    for row in start_faults.STARTS:
        yield here("starts in a run folder", row.__name__, functools.partial(prepare, row), home)


HERE = (data_cases, hostile_cases, config_cases, start_cases)  # the families that run in this process


def command_lines(home: Path) -> Iterable[Outcome]:
    """Cases of all families as a user meets them, each a process."""
    for number, (arguments, word) in enumerate((*COMMAND_LINES, *MORE_COMMAND_LINES)):
        if arguments:
            arguments = [*arguments, f"--workdir={home / 'runs' / str(number)}"]
        yield command("command lines: configurations", " ".join(arguments), [TRAIN, *arguments], word)
    yield from _other_run(home)
    yield from _data_lines()
    for row in hostile_runs.HOSTILE_RUNS:
        if row.__name__ in RUN_SAMPLE:
            with tempfile.TemporaryDirectory() as sandbox:
                sandbox = Path(sandbox)
                run = sandbox / "run"
                shutil.copytree(home / "run", run)
                word = row(run, sandbox / "canary")
                arguments = ["sem_jax.evaluation", f"--checkpoint={run}", "--suites=clean", "--no-cache"]
                yield command("command lines: files", row.__name__, arguments, word, cwd=run, sandbox=sandbox)


def _other_run(home: Path) -> Iterable[Outcome]:
    """The folder of a run on the digits, and the command of another one."""
    from configs.digits import get_config

    folder, data = home / "runs/digits", {"name": "digits", "fingerprint": load("digits").fingerprint}
    RunFolder(folder).claim(config_lib.to_dict(get_config()), data)
    for change in ("--config.seed=1", "--config.model.width=4", "--config.model.name=preact_resnet"):
        field = change.removeprefix("--config.").split("=")[0]
        more = ["--config.model.depth=18"] if "name" in field else []
        arguments = [TRAIN, DIGITS, f"--workdir={folder}", change, *more]
        yield command("command lines: configurations", f"resume with {change}", arguments, field)


def _data_lines() -> Iterable[Outcome]:
    """Data rows of the two samples through the trainer, which is started in the folder of the files."""
    faults = [(row, "prepared") for row in data_faults.PREPARED_FAULTS] + [
        (row, "raw") for row in data_faults.RAW_FAULTS
    ]
    rows = [(row, kind) for row, kind in faults if row.__name__ in DATA_SAMPLE]
    rows += [(row, "hostile") for row in hostile_files.HOSTILE if row.__name__ in HOSTILE_SAMPLE]
    for row, kind in rows:
        with tempfile.TemporaryDirectory() as sandbox:
            sandbox, path = Path(sandbox), list(sys.path)
            folder = sandbox / "target"
            if kind == "prepared":
                shutil.copytree(made_cifar10()[0], folder)
                name, place, word = "cifar10", folder, row(folder)
            elif kind == "raw":
                (name, word), place = row(folder), folder
            else:
                name, place, word = _what_it_reads(row, folder, sandbox / "canary")
            evil = next(folder.rglob("evil.py"), None)
            arguments = [TRAIN, DIGITS, f"--workdir={sandbox}/home/run"]
            arguments += [f"--config.data.name={name}", f"--config.data.dir={place}"]
            cwd = evil.parent if evil else folder
            yield command("command lines: files", row.__name__, arguments, word, cwd=cwd, sandbox=sandbox)
            sys.path[:] = path


def _what_it_reads(row, folder: Path, canary: Path) -> tuple[str, str, str]:
    """(data.name, data.dir, word of the refusal) of a row of HOSTILE, whose call would read the files itself."""
    asked: dict = {}
    call, word = row(folder, canary)
    reader = hostile_files.load
    hostile_files.load = lambda name, **options: asked.update(options, name=name)
    try:
        call()
    finally:
        hostile_files.load = reader
    return asked["name"], asked["data_dir"], word
