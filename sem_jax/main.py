"""Trains a configuration.

    python -m sem_jax.main --config=configs/digits.py
    python -m sem_jax.main --config=configs/wrn_c10.py:mixup+es+sem --workdir=runs/wrn_c10 --config.data.dir=~/data

The same command again continues the run. A configuration file is Python and is executed: use your own.
Exit status: 0 finished, 2 refused (one message says why), 130 or 143 stopped by Ctrl-C or SIGTERM after saving.
"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from sem_jax.errors import ConfigError, exit_on_error
from sem_jax.host_memory import keep_freed_memory
from sem_jax.registry import nearest

_CONFIG = config_flags.DEFINE_config_file("config", None, "configuration file, with :METHOD after it if you like")
_WORKDIR = flags.DEFINE_string("workdir", None, "run folder; default: runs/<configuration file>[-METHOD]")


def parse(argv: list[str]) -> list[str]:
    """Parses the command line; what is wrong with it becomes one ConfigError instead of a traceback."""
    path = next((a.split("=", 1)[1].split(":")[0] for a in argv[1:] if a.startswith("--config=")), "")
    if path and not Path(path).expanduser().is_file():
        near = nearest(path, map(str, Path(path).parent.glob("*.py")))
        raise ConfigError(f"--config={path}: there is no such file.{near}")
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.items()  # a file that failed to load is noticed only here
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError) as error:
        raise ConfigError(explain(argv, error)) from error
    if _CONFIG.value is None:
        raise ConfigError("--config is missing", "For example: python -m sem_jax.main --config=configs/digits.py")
    return rest


def explain(argv: list[str], error: Exception) -> str:
    """One line for an error of absl or ml_collections, naming the field and the nearest one."""
    from sem_jax.config import flatten, get_default

    names = {name.split("=")[0].lstrip("-") for name in argv[1:] if name.startswith("--config.")}
    known = [f"config.{name}" for name, _ in flatten(get_default())]
    for name in sorted(names - set(known)):
        return f"Unknown field --{name}.{nearest(name, known)}"
    # ml_collections quotes the traceback of a configuration file that failed: its last line is the reason.
    reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    given = ", ".join(argument for argument in argv[1:] if argument.startswith("--config"))
    return f"{given}: {reason.removeprefix('sem_jax.errors.ConfigError: ')}"


def default_workdir(config: str) -> str:
    """runs/wrn_c10-mixup+sem for configs/wrn_c10.py:mixup+sem."""
    path, _, method = config.partition(":")
    return str(Path("runs") / (Path(path).stem + (f"-{method}" if method else "")))


def main(argv: list[str]) -> None:
    with exit_on_error():
        if len(argv) > 1:
            raise ConfigError(f"Unexpected argument {argv[1]!r}: options are --config=... and --workdir=...")
        from sem_jax.config import validate

        validate(_CONFIG.value)  # before jax is started
        if _CONFIG.value.runtime.keep_host_memory:
            keep_freed_memory()
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # orbax tells every file it writes
        import jax

        if _CONFIG.value.runtime.cache_dir:
            jax.config.update("jax_compilation_cache_dir", str(Path(_CONFIG.value.runtime.cache_dir).expanduser()))
        from sem_jax.loop import train_and_evaluate

        workdir = _WORKDIR.value or default_workdir(flags.FLAGS["config"].config_filename)
        train_and_evaluate(_CONFIG.value, workdir)
        if jax.process_index() == 0 and not (Path(workdir) / "evaluation" / "eval.html").exists():
            from sem_jax.evaluation import evaluate_run

            evaluate_run(workdir)
            print(
                f"Report: {workdir}/evaluation/eval.html (all suites: python -m sem_jax.evaluation --workdir={workdir})"
            )


def run() -> None:
    """Entry point of `sem-jax` and `python -m sem_jax.main`."""
    with exit_on_error():
        sys.argv = parse(sys.argv)
    app.run(main, argv=sys.argv, flags_parser=lambda args: args)


if __name__ == "__main__":
    run()
