"""The commands: `python -m sem_jax COMMAND ...`, and `sem-jax COMMAND ...` where the package is installed.

python -m sem_jax                     # lists them; --list, what may be given to them
python -m sem_jax train --config=digits
python -m sem_jax evaluate --workdir=runs/digits
"""

import contextlib
import importlib
import sys

from sem_jax import __version__
from sem_jax.errors import exit_on_error
from sem_jax.registry import lookup, names_at
from sem_jax.runs.reading import without_current_folder
from sem_jax.system.output import quiet_for_gone_readers
from sem_jax.system.signals import end_at_interrupt

COMMANDS = {  # name -> (module whose `main` runs it, one line for the list)
    "train": ("sem_jax.main", "train a configuration, or continue its run"),
    "evaluate": ("sem_jax.evaluation.__main__", "score a checkpoint and write the report"),
    "predict": ("sem_jax.runs.__main__", "classes of pictures, by the net of a run"),
    "prepare": ("sem_jax.data.__main__", "download and prepare a public data set"),
    "mixers": ("sem_jax.mixers.__main__", "draw what the mixers do, list their options"),
    "convert": ("sem_jax.convert.__main__", "PyTorch weights into a run folder, and back"),
    "export": ("sem_jax.convert.export", "write a run's model as safetensors or StableHLO"),
    "share": ("sem_jax.convert.share", "publish a run with a model card, on a hub or as a folder"),
    "plan": ("sem_jax.main", "what a run will cost, before anything is rented; as train --plan"),
}
LISTED = {  # kind -> where its names are; each is read without importing what the rows name
    "methods": "sem_jax.config:METHODS",
    "models": "sem_jax.models:MODELS",
    "mixers": "sem_jax.mixers:MIXERS",
    "data sets": "sem_jax.data:DATASETS",
    "suites": "sem_jax.evaluation.suites:SUITES",
}


def usage() -> str:
    """The list of commands."""
    lines = [f"  {name:<10} {line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join(
        ["usage: sem-jax COMMAND ...        (or python -m sem_jax COMMAND ...)", "", *lines, ""]
        + ["sem-jax COMMAND --help   what a command takes; of train, every setting too"]
        + ["sem-jax --list           configurations, methods, models, mixers, data sets, suites"]
        + ["sem-jax --version"]
    )


def listing() -> str:
    """The names that may be given to the commands."""
    from sem_jax.config.finding import about, known_configs

    configs = sorted(known_configs().items())
    lines = ["configurations (--config=NAME, --config=NAME:METHOD)"]
    lines += [f"  {name:<18} {about(path)}" for name, path in configs]
    for kind, place in LISTED.items():
        lines += ["", kind, f"  {', '.join(names_at(place))}"]
    return "\n".join(lines)


def main() -> None:
    """Runs the command that is named first; without a name, `train`. `COMMAND --help` has its options."""
    with quiet_for_gone_readers():
        _run()


def _run() -> None:
    first = sys.argv[1] if len(sys.argv) > 1 else "--help"
    texts = {"--help": usage, "-h": usage, "help": usage, "--list": listing, "--version": lambda: __version__}
    if first in texts:
        print(texts[first]())
        return
    name = "train" if first.startswith("-") else sys.argv.pop(1)
    with exit_on_error():
        module, _ = lookup(COMMANDS, "command", name)
    if name == "plan":
        sys.argv.insert(1, "--plan")
    trains = module == "sem_jax.main"
    if trains:
        end_at_interrupt()
    with contextlib.nullcontext() if trains else without_current_folder():
        importlib.import_module(module).main()


if __name__ == "__main__":
    main()
