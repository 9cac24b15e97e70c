"""The commands: `python -m sem_jax COMMAND ...`, and `sem-jax COMMAND ...` where the package is installed.

python -m sem_jax                     # lists them
python -m sem_jax train --config=configs/digits.py
python -m sem_jax evaluate --workdir=runs/digits
"""

import contextlib
import importlib
import sys

from sem_jax import __version__
from sem_jax.errors import exit_on_error
from sem_jax.registry import lookup
from sem_jax.runs.reading import without_current_folder
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
}


def main() -> None:
    """Runs the command that is named first; without a name, `train`. `COMMAND --help` has its options."""
    if len(sys.argv) == 1 or sys.argv[1] in ("--help", "-h"):
        print("usage: python -m sem_jax COMMAND ...\n")
        print("\n".join(f"  {name:<10} {line}" for name, (_, line) in COMMANDS.items()))
        print("\npython -m sem_jax COMMAND --help shows what a command takes.")
        return
    if sys.argv[1] == "--version":
        print(__version__)
        return
    name = "train" if sys.argv[1].startswith("--") else sys.argv.pop(1)
    with exit_on_error():
        module, _ = lookup(COMMANDS, "command", name)
    if name == "train":
        end_at_interrupt()
    with contextlib.nullcontext() if name == "train" else without_current_folder():
        importlib.import_module(module).main()


if __name__ == "__main__":
    main()
