# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train on the digits, score the checkpoint, look at the report
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sem-jax/sem_jax/blob/main/notebooks/evaluate.ipynb)
#
# Handwritten digits of 8x8 pixels from scikit-learn: nothing is downloaded, and the whole notebook takes about a
# minute on two CPU cores. The same commands score a CIFAR-10 run, where the corruptions, shifted and
# out-of-distribution sets come in too.

# %%
# Installs the package where it is not importable: from the checkout this notebook lies in, else from GitHub.
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("sem_jax") is None:
    checkout = Path("..").resolve()
    source = str(checkout) if (checkout / "pyproject.toml").is_file() else "git+https://github.com/sem-jax/sem_jax"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)

# %% [markdown]
# ## Train
#
# `configs/digits.py` with fewer epochs. In a shell this is
# `python -m sem_jax.main --config=configs/digits.py --config.train.epochs=8`.

# %%
import tempfile

from sem_jax.config import apply_method, get_default
from sem_jax.training.loop import train_and_evaluate

cfg = get_default()
cfg.data.name = "digits"
cfg.data.crop_padding = 1
cfg.data.flip = False
cfg.data.val_size = 200  # held out of train: the temperature is fitted on it
cfg.model.name, cfg.model.depth, cfg.model.width = "wide_resnet", 10, 1
cfg.train.epochs, cfg.train.batch_size = 8, 64
cfg.optim.schedule, cfg.optim.learning_rate = "onecycle", 0.2
apply_method(cfg, "mixup+sem")

workdir = Path(tempfile.mkdtemp()) / "digits"
state = train_and_evaluate(cfg, str(workdir))

# %% [markdown]
# ## Score
#
# `python -m sem_jax.evaluation --workdir=runs/digits` in a shell. Suites whose data is not there say in one line what
# is missing: the corruptions need larger images, and nobody has published shifted sets of these digits.

# %%
from sem_jax.evaluation import evaluate

record = evaluate(workdir, umap=False, pairs=256, progress=False, say=print)

# %% [markdown]
# The numbers are in the record, and in `eval.json`; accuracies are fractions in [0, 1].

# %%
scalars = record["suites"]["clean"]["scalars"]
assert scalars["top1"] > 0.8
print(scalars)

# %% [markdown]
# ## The report's figures
#
# The report itself is `evaluation/eval.html`, one file with all pictures inside.

# %%
from IPython.display import Image, Markdown, display

for suite in record["suites"].values():
    for name, caption in suite.get("figures", {}).items():
        display(Markdown(f"**{caption}**"), Image(workdir / "evaluation" / f"{name}.png", width=700))

# %% [markdown]
# ## Score a checkpoint by its path
#
# A run that was moved or handed on: the model is rebuilt from the `config.json` beside the checkpoints. No
# configuration file is executed.

# %%
import shutil

from sem_jax.runs.checkpoint import steps

moved = Path(tempfile.mkdtemp()) / "from_somebody"
shutil.copytree(workdir, moved, ignore=shutil.ignore_patterns("evaluation", "predictions"))
earlier = moved / "checkpoints" / str(steps(moved / "checkpoints")[0])

record = evaluate(checkpoint=str(earlier), suites=("clean", "calibration"), progress=False, say=print)
record["run"]["step"], record["suites"]["clean"]["scalars"]["top1"]
