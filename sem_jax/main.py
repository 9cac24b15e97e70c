"""Trains a configuration; the same command again continues the run.

    python -m sem_jax.main --config=digits
    python -m sem_jax.main --config=wrn_c10:mixup+es+sem --workdir=runs/wrn_c10 --config.data.dir=~/data
    python -m sem_jax.main --config=wrn_c10 --plan --target=v5e:2x2    # what it will cost there

A configuration is a name, or the path of a file, which is Python and is executed: use your own. Exit status: 0
finished, 2 refused or ended (one message says why); after saving, 130 or 143 stopped by Ctrl-C or SIGTERM, 142 the time
of --max_minutes was up.

On several hosts, the same command on each, with a run folder that all of them see, or in a bucket:

    python -m sem_jax.main --config=... --workdir=... --distributed        # Cloud TPU, SLURM: JAX finds the others
    python -m sem_jax.main ... --distributed --coordinator_address=HOST:PORT --num_processes=N --process_id=I
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from sem_jax.system.signals import end_at_interrupt

    end_at_interrupt()

from absl import app, flags, logging
from ml_collections import config_flags

from sem_jax.errors import ConfigError, exit_on_error
from sem_jax.registry import nearest
from sem_jax.system.host_memory import keep_freed_memory, steps_use_malloc
from sem_jax.system.output import quiet_for_gone_readers
from sem_jax.system.signals import BEGAN

_CONFIG = config_flags.DEFINE_config_file("config", None, "name or file of a configuration, perhaps with :METHOD")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "run folder, or gs://BUCKET/FOLDER; default: runs/<configuration file>[-METHOD]"
)
_PROFILE = flags.DEFINE_bool("profile", False, "capture a profiler trace of a few steps in the run folder's profile/")
_TRUST = flags.DEFINE_string(
    "trust_model", "", "the MODULE:FACTORY that a run found elsewhere (mixer.scorer) may import"
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "train on several hosts, with the same command on each")
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "with --distributed: host:port of process 0")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "with --distributed: how many there are", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process_id", None, "with --distributed: which this one is", lower_bound=0)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds", 100, "with --distributed: a process silent for so long ends the others", lower_bound=1
)
_EXTEND = flags.DEFINE_bool(
    "extend", False, "train a run on to a larger train.epochs; its schedules follow that length"
)
_MINUTES = flags.DEFINE_float(
    "max_minutes", 0.0, "save and end after so long, counted from the process's start; 0 = no limit", lower_bound=0.0
)
_PLAN = flags.DEFINE_bool("plan", False, "say what the run will cost, and end; no folder is made, no data is needed")
_TARGET = flags.DEFINE_string("target", "", "with --plan: hardware that is not here, such as v5e:2x2, v6e or h100")
_FLAGS = (
    _CONFIG,
    _WORKDIR,
    _EXTEND,
    _MINUTES,
    _PROFILE,
    _PLAN,
    _TARGET,
    _TRUST,
    _DISTRIBUTED,
    _COORDINATOR,
    _PROCESSES,
    _PROCESS,
    _HEARTBEAT,
)


def parse(argv: list[str]) -> list[str]:
    """Parses the command line; every mistake in it becomes one ConfigError."""
    from sem_jax.config.finding import known_configs

    sys.argv = argv = located(argv)  # ml_collections reads the settings from there
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.items()  # a file that fails to load raises only here
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError) as error:
        raise ConfigError(explain(argv, error)) from error
    if _CONFIG.value is None:
        hint = f" Did you mean --config={rest[1]}?" if rest[1:] and rest[1].partition(":")[0] in known_configs() else ""
        raise ConfigError(f"--config is missing.{hint}", "For example: python -m sem_jax.main --config=digits")
    return rest


def _switch() -> str:
    """Leaves out what the file sets for its own model or data set where the command line names another; says so."""
    from sem_jax.config.finding import choices, load_config, switch

    given = config_flags.get_override_values(flags.FLAGS["config"])
    if not given.keys() & choices(_CONFIG.value).keys():
        return ""
    before = choices(load_config(config_flags.get_config_filename(flags.FLAGS["config"])))
    return "".join(f"{line}\n" for line in switch(_CONFIG.value, before, given))


def located(argv: list[str]) -> list[str]:
    """The command line with the file of its configuration in place of a name, as in --config=digits:mixup."""
    from sem_jax.config.finding import find_config

    found = list(argv)
    for number, argument in enumerate(argv[1:], 1):
        option, equals, text = argument.partition("=")
        if option in ("--config", "-config") and (equals or number + 1 < len(argv)):
            path, method = find_config(text if equals else argv[number + 1])
            text = f"{path}:{method}" if method else str(path)
            found[number + (not equals)] = f"--config={text}" if equals else text
    return found


def explain(argv: list[str], error: Exception) -> str:
    """One line for an error of absl or ml_collections, naming the field and the nearest one."""
    from sem_jax.config.fields import FIELDS, did_you_mean, field_meant

    names = {argument.split("=")[0] for argument in argv[1:] if argument.startswith("--config.")}
    if unknown := names - {f"--config.{field}" for field in FIELDS}:
        name = min(unknown)
        return f"Unknown field {name}.{did_you_mean(name, '--config.')}"
    if isinstance(error, flags.UnrecognizedFlagError):
        field, options = field_meant(error.flagname), ["--help", *(f"--{holder.name}" for holder in _FLAGS)]
        near = f" Did you mean '--config.{field}'?" if field else nearest(f"--{error.flagname}", options)
        return f"Unknown option --{error.flagname}.{near}"
    # ml_collections quotes the traceback of a configuration file that failed; the reason is its last line.
    reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    kinds = {bool: "True or False", int: "a whole number", float: "a number"}
    field, _, value = reason.partition(": ")[0].removeprefix("flag --config.").partition("=")
    if isinstance(error, flags.IllegalFlagValueError) and field in FIELDS and type(FIELDS[field].default) in kinds:
        return f"--config.{field} must be {kinds[type(FIELDS[field].default)]}, got {value!r}"
    given = ", ".join(argument for argument in argv[1:] if argument.startswith("--config"))
    return f"{given}: {reason.removeprefix('sem_jax.errors.ConfigError: ')}"


def usage() -> str:
    """The text of --help: the command, its options and every field of the configuration."""
    from sem_jax.config.help import help_text

    options = [f"  --{holder.name:<20} {flags.FLAGS[holder.name].help}" for holder in _FLAGS]
    return "\n".join([str(__doc__), "Options:", *options, "", help_text()])


def default_workdir(config: str) -> str:
    """runs/wrn_c10-mixup+sem for configs/wrn_c10.py:mixup+sem."""
    path, _, method = config.partition(":")
    return str(Path("runs") / (Path(path).stem + (f"-{method}" if method else "")))


def _train(argv: list[str]) -> None:
    with exit_on_error():
        if len(argv) > 1:
            raise ConfigError(f"Unexpected argument {argv[1]!r}: options are --config=... and --workdir=...")
        from sem_jax.config import validate

        note = _switch()
        validate(_CONFIG.value)  # before jax is started
        print(note, end="")
        if _CONFIG.value.runtime.keep_host_memory and steps_use_malloc():
            keep_freed_memory()
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.FATAL)  # orbax logs every file it writes, and failures that we report
        if _PLAN.value or _TARGET.value:
            return _plan()
        import jax

        from sem_jax.system.compile_cache import use_cache

        if _DISTRIBUTED.value:
            from sem_jax.system.hosts import connect

            connect(
                coordinator_address=_COORDINATOR.value,
                num_processes=_PROCESSES.value,
                process_id=_PROCESS.value,
                heartbeat_seconds=_HEARTBEAT.value,
            )
        elif _COORDINATOR.value or _PROCESSES.value or _PROCESS.value is not None:
            raise ConfigError("--coordinator_address, --num_processes and --process_id need --distributed")
        from sem_jax.runs.storage import open_storage
        from sem_jax.training.loop import train_and_evaluate

        use_cache(_CONFIG.value.runtime.cache_dir)

        workdir = _WORKDIR.value or default_workdir(config_flags.get_config_filename(flags.FLAGS["config"]))
        deadline = BEGAN + 60 * _MINUTES.value if _MINUTES.value else None
        options = {
            "profile": _PROFILE.value,
            "trust_model": _TRUST.value,
            "extend": _EXTEND.value,
            "deadline": deadline,
        }
        train_and_evaluate(_CONFIG.value, workdir, **options)
        storage = open_storage(workdir)
        command = f"python -m sem_jax.evaluation --workdir={workdir}"
        if jax.process_count() > 1:
            if jax.process_index() == 0:
                print(f"Report: {command}")
        elif _CONFIG.value.data.use_test and not _has_report(storage.path / "evaluation"):
            from sem_jax.evaluation import Options, evaluate

            evaluate(storage.path, Options.quick(trust_model=f"{_CONFIG.value.model.name},{_TRUST.value}"))
            storage.publish("evaluation")
            print(f"Report: {workdir}/evaluation/eval.html (all suites: {command})")


def _plan() -> None:
    """Prints what the run will cost; refuses one that does not fit."""
    if not _PLAN.value:
        raise ConfigError("--target needs --plan: it names hardware that is not here")
    if _TARGET.value:
        from sem_jax.system import targets

        targets.find_target(_TARGET.value)
        targets.stay_off_devices()
    from sem_jax.training.plan import plan

    found = plan(_CONFIG.value, _TARGET.value)
    print(found)
    found.check()


def _has_report(folder: Path) -> bool:
    return all((folder / f"eval.{suffix}").is_file() for suffix in ("html", "json", "md"))


def main() -> None:
    """Entry point of `python -m sem_jax.main` and `sem-jax train`."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        with quiet_for_gone_readers():
            print(usage())
        return
    with exit_on_error():
        sys.argv = parse(sys.argv)
    try:
        with quiet_for_gone_readers():
            app.run(_train, argv=sys.argv, flags_parser=lambda args: args)
    except KeyboardInterrupt:  # a second Ctrl-C, or one outside of training
        sys.exit(130)


if __name__ == "__main__":
    main()
