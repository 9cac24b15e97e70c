"""Feeds broken data, hostile files and wrong configurations from the tests' own tables, and counts what happens.

    python -m experiments.drills.refusals                      # everything, some minutes; needs the dev requirements
    python -m experiments.drills.refusals --no-command-lines   # in this process only, half a minute

Every case must be refused with one message of three lines or fewer, or be read as documented; no code of a file may run
and nothing may be written but the cache. Part of the cases go through `python -m sem_jax.main` and
`python -m sem_jax.evaluation` as a user would start them. Exit status 1 if one case is neither.
"""

import argparse
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
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
RUN_SAMPLE = "python_config_beside_the_checkpoint config_nested config_of_ten_gigabytes config_is_a_pickle".split()


class Outcome(NamedTuple):
    family: str
    name: str
    result: str  # "refused", "handled", or what went wrong
    executed: int
    written: int
    cpu: float  # seconds
    wall: float  # seconds


def judge(said: str, word: str) -> str:
    """'refused' for a message as promised, else what is wrong with it."""
    lines = said.strip().splitlines()
    if "Traceback" in said or not 1 <= len(lines) <= 3:
        return f"{len(lines)} lines: {' / '.join(lines[-4:])[:300]}"
    return "refused" if word in said else f"does not name {word!r}: {said[:300]}"


def here(family: str, name: str, prepare: Callable, home: Path) -> Outcome:
    """One case in this process; `prepare(folder, canary)` gives the call and the word, or a check in place of it."""
    from sem_jax.errors import SemError
    from tests.helpers.watch import watch

    with tempfile.TemporaryDirectory() as sandbox:
        sandbox, path = Path(sandbox), list(sys.path)
        canary = sandbox / "canary"
        call, expected = prepare(sandbox / "target", canary)
        before = set(sandbox.rglob("*"))
        cpu, wall = time.process_time(), time.perf_counter()
        with watch(allowed=(home,), suspect=sandbox) as seen:
            try:
                value = call()
                result = "not refused" if isinstance(expected, str) else "handled"
            except SemError as error:
                result = judge(str(error), expected) if isinstance(expected, str) else f"refused: {error}"
            except Exception as error:
                result = f"{type(error).__name__}: {error}"[:300]
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if result == "handled":
            try:
                expected(value)
            except AssertionError as error:
                result = f"not as documented: {error}"
        written = len(seen.written) + len(set(sandbox.rglob("*")) - before)
        sys.path[:] = path
        return Outcome(family, name, result, len(seen.executed) + canary.exists(), written, cpu, wall)


def command(family: str, name: str, arguments: list[str], word: str, *, cwd: Path = ROOT, sandbox=None) -> Outcome:
    """One case as a process; word '' is one that is to succeed."""
    before = set(sandbox.rglob("*")) if sandbox else set()
    usage, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, env=env, capture_output=True, text=True)
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    status = 2 if word else 0
    if done.returncode != status:
        result = f"exit status {done.returncode}: {done.stderr[-300:]}"
    else:
        result = judge(done.stderr, word) if word else "handled"
    new = set(sandbox.rglob("*")) - before if sandbox else set()
    canaries = {path for path in new if path.name == "canary"}
    # A report that was asked for is no harm.
    written = {path for path in new - canaries if "evaluation" not in path.parts and "home" not in path.parts}
    return Outcome(family, name, result, len(canaries), len(written), cpu, wall)


def data_cases(home: Path) -> Iterable[Outcome]:
    """Broken and odd data sets."""
    import data_faults

    from sem_jax.data import load
    from tests.helpers.data_sets import made_cifar10

    def prepared(fault):
        def prepare(folder, canary):
            shutil.copytree(made_cifar10()[0], folder)
            word = fault(folder)
            return lambda: load("cifar10", data_dir=str(folder), prepare=False), word

        return prepare

    def raw(fault):
        def prepare(folder, canary):
            name, word = fault(folder)
            place = folder / "photos.zip" if (folder / "photos.zip").is_file() else folder
            return lambda: load(name, data_dir=str(place), prepare=False), word

        return prepare

    def odd(row):
        def prepare(folder, canary):
            name, options, check = row(folder)
            return lambda: load(name, data_dir=str(folder), **options), check

        return prepare

    for table, kind in (
        (data_faults.PREPARED_FAULTS, prepared),
        (data_faults.RAW_FAULTS, raw),
        (data_faults.HANDLED, odd),
    ):
        for row in table:
            yield here("broken data", row.__name__, kind(row), home)
    yield here("broken data", "wrong_sha256_of_a_download", wrong_download, home)


def wrong_download(folder: Path, canary: Path):
    """A server whose file is not the official one."""
    import functools
    import http.server
    import threading

    from sem_jax.data import CIFAR10
    from sem_jax.data.download import fetch

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder.mkdir()
    (folder / CIFAR10.remotes[0].file).write_bytes(b"not the archive")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{CIFAR10.remotes[0].file}"
    downloads = Path(os.environ["HOME"]) / "downloads"
    return lambda: fetch(CIFAR10.remotes[0], downloads, url=url), "checksum"


def hostile_cases(home: Path) -> Iterable[Outcome]:
    """Files and run folders made to do harm."""
    import hostile_files
    import hostile_runs

    from sem_jax.runs.opening import open_run
    from tests.helpers.runs import write_cifar10, write_run

    for row in hostile_files.HOSTILE:
        yield here("hostile files", row.__name__, row, home)
    write_cifar10(home / "place")
    write_run(home / "run", home / "place")

    def run(row):
        def prepare(folder, canary):
            shutil.copytree(home / "run", folder)
            return lambda: open_run(folder), row(folder, canary) or (lambda run: None)

        return prepare

    for row in hostile_runs.HOSTILE_RUNS:
        yield here("hostile files", row.__name__, run(row), home)


def config_cases(home: Path) -> Iterable[Outcome]:
    """Wrong fields and folders of other runs."""
    from sem_jax import config as config_lib
    from sem_jax.runs.records import RunFolder
    from tests.helpers.wrong_configs import RESUMED, WRONG, set_field

    def wrong(field, value):
        def prepare(folder, canary):
            cfg = config_lib.get_default()
            set_field(cfg, field, value)
            name = field if field not in ("data.name", "model.name", "mixer.name") else str(value)
            if (field, value) == ("mixer.name", "none"):
                name = "objective.gamma"  # the field that does not go with it
            return lambda: config_lib.validate(cfg, num_devices=8), name

        return prepare

    def resumed(field, first, second):
        def prepare(folder, canary):
            cfg, data = config_lib.get_default(), {"fingerprint": "f", "name": "cifar10"}
            set_field(cfg, field, first)
            RunFolder(folder).claim(config_lib.to_dict(cfg), data)
            set_field(cfg, field, second)
            return lambda: RunFolder(folder).claim(config_lib.to_dict(cfg), data), field

        return prepare

    for field, value, _ in WRONG:
        yield here("wrong configurations", f"{field}={value}", wrong(field, value), home)
    for field, first, second in RESUMED:
        yield here("wrong configurations", f"resume with another {field}", resumed(field, first, second), home)


def command_lines(home: Path) -> Iterable[Outcome]:
    """Cases of all three kinds as a user meets them."""
    from tests.helpers.wrong_configs import COMMAND_LINES, MORE_COMMAND_LINES

    train, digits = "sem_jax.main", "--config=configs/digits.py"
    for number, (arguments, word) in enumerate((*COMMAND_LINES, *MORE_COMMAND_LINES)):
        if arguments:
            arguments = [*arguments, f"--workdir={home / 'runs' / str(number)}"]
        yield command("command lines: configurations", " ".join(arguments), [train, *arguments], word)
    yield from other_run(home, [train, digits])
    yield from data_lines(home, train)
    import hostile_runs

    for row in hostile_runs.HOSTILE_RUNS:
        if row.__name__ in RUN_SAMPLE:
            with tempfile.TemporaryDirectory() as sandbox:
                sandbox = Path(sandbox)
                shutil.copytree(home / "run", sandbox / "run")
                word = row(sandbox / "run", sandbox / "canary")
                arguments = ["sem_jax.evaluation", f"--checkpoint={sandbox / 'run'}", "--suites=clean", "--no-cache"]
                yield command(
                    "command lines: files", row.__name__, arguments, word, cwd=sandbox / "run", sandbox=sandbox
                )


def other_run(home: Path, start: list[str]) -> Iterable[Outcome]:
    """The folder of a run on the digits, and the command of another one."""
    from configs.digits import get_config
    from sem_jax import config as config_lib
    from sem_jax.data import load
    from sem_jax.runs.records import RunFolder

    folder, data = home / "runs/digits", {"name": "digits", "fingerprint": load("digits").fingerprint}
    RunFolder(folder).claim(config_lib.to_dict(get_config()), data)
    for change in ("--config.seed=1", "--config.model.width=4", "--config.model.name=preact_resnet"):
        field = change.removeprefix("--config.").split("=")[0]
        more = ["--config.model.depth=18"] if "name" in field else []
        arguments = [*start, f"--workdir={folder}", change, *more]
        yield command("command lines: configurations", f"resume with {change}", arguments, field)


def data_lines(home: Path, train: str) -> Iterable[Outcome]:
    """Data rows of the two samples through the trainer; started in the folder of the files."""
    import data_faults
    import hostile_files

    from tests.helpers.data_sets import made_cifar10

    asked = {}
    rows = [(row, "prepared") for row in data_faults.PREPARED_FAULTS] + [(row, "raw") for row in data_faults.RAW_FAULTS]
    rows = [(row, kind) for row, kind in rows if row.__name__ in DATA_SAMPLE]
    rows += [(row, "hostile") for row in hostile_files.HOSTILE if row.__name__ in HOSTILE_SAMPLE]
    for row, kind in rows:
        with tempfile.TemporaryDirectory() as sandbox:
            sandbox, path, load = Path(sandbox), list(sys.path), hostile_files.load
            folder = sandbox / "target"
            if kind == "prepared":
                shutil.copytree(made_cifar10()[0], folder)
                name, place, word = "cifar10", folder, row(folder)
            elif kind == "raw":
                (name, word), place = row(folder), folder
            else:
                call, word = row(folder, sandbox / "canary")
                hostile_files.load = lambda name, **options: asked.update(options, name=name)
                call()  # tells what it would have read
                hostile_files.load, name, place = load, asked["name"], asked["data_dir"]
            evil = next(folder.rglob("evil.py"), None)
            arguments = [train, f"--config={ROOT}/configs/digits.py", f"--workdir={sandbox}/home/run"]
            arguments += [f"--config.data.name={name}", f"--config.data.dir={place}"]
            cwd = evil.parent if evil else folder
            yield command("command lines: files", row.__name__, arguments, word, cwd=cwd, sandbox=sandbox)
            sys.path[:] = path


def table(outcomes: list[Outcome]) -> str:
    """Markdown: a row a family."""
    head = ["", "cases", "refused", "as documented", "code executed", "files written", "slowest: CPU s", "wall s"]
    lines = [head, ["---"] * len(head)]
    for family in dict.fromkeys(o.family for o in outcomes):
        rows = [o for o in outcomes if o.family == family]
        counts = [sum(o.result == result for o in rows) for result in ("refused", "handled")]
        harm = [sum(o.executed for o in rows), sum(o.written for o in rows)]
        slowest = [f"{max(o.cpu for o in rows):.1f}", f"{max(o.wall for o in rows):.1f}"]
        lines.append([family, str(len(rows)), *map(str, counts + harm), *slowest])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-command-lines", action="store_true", help="leave out the cases that are processes")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    args = parser.parse_args(argv)
    sys.path.append(str(ROOT))  # the cases are the tests' own tables
    import pytest

    logging.disable(logging.ERROR)  # of libraries about the very files that are broken here
    outcomes = []
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        home = Path(home) / "home"
        home.mkdir()
        patch.setenv("HOME", str(home))
        patch.setenv("SEM_JAX_CACHE", str(home / "cache"))
        patch.setenv("JAX_PLATFORMS", "cpu")
        patch.delenv("TFDS_DATA_DIR", raising=False)
        from tests.helpers.data_sets import made_cifar10, small_cifar10

        small_cifar10(patch)
        made_cifar10(home / "made")
        families = [data_cases, hostile_cases, config_cases] + ([] if args.no_command_lines else [command_lines])
        for family in families:
            for outcome in family(home):
                outcomes.append(outcome)
                if args.verbose or outcome.result not in ("refused", "handled") or outcome.executed or outcome.written:
                    print(*outcome, sep=" | ", flush=True)
    print(table(outcomes))
    bad = [o for o in outcomes if o.result not in ("refused", "handled") or o.executed or o.written]
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
