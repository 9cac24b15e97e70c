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
# A narrow net on the digits, mixup + SEM, 8 epochs. `configs/digits.py` is nearly the same, and in a shell
# `python -m sem_jax.main --config=configs/digits.py` trains it.

# %%
import tempfile

import sem_jax as sj

cfg = sj.get_config(
    method="mixup+sem",
    **{
        "data.name": "digits",
        "data.crop_padding": 1,
        "data.flip": False,
        "data.val_size": 200,  # held out of train: the temperature is fitted on it
        "model.name": "wide_resnet",
        "model.depth": 10,
        "model.width": 1,
        "train.epochs": 8,
        "train.batch_size": 64,
        "optim.schedule": "onecycle",
        "optim.learning_rate": 0.2,
    },
)
run = sj.train(cfg, Path(tempfile.mkdtemp()) / "digits")

# %% [markdown]
# ## Score
#
# In a shell this is `python -m sem_jax.evaluation --workdir=runs/digits`. A suite whose data is not there says in one
# line what is missing: the corruptions need larger images, and nobody has published shifted sets of these digits.

# %%
from sem_jax.evaluation import Options, evaluate

record = evaluate(run.folder, Options(umap=False, pairs=256, progress=False), say=print)

# %% [markdown]
# The numbers are in the record, and in `eval.json`. Accuracies are fractions in [0, 1].

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
        display(Markdown(f"**{caption}**"), Image(run.folder / "evaluation" / f"{name}.png", width=700))

# %% [markdown]
# ## Predict
#
# `predict` takes arrays of the training images' size, or pictures: a file, a list of files or a folder.

# %%
test = sj.load_data("digits").splits["test"]
prediction = run.predict(test.images[:8])
print(prediction.names, test.labels[:8])
print(prediction.features.shape, prediction.probabilities.max(axis=1).round(2))

# %% [markdown]
# ## Score a checkpoint by its path
#
# A run may have been moved, or come from somebody else: the model is rebuilt from the `config.json` beside the
# checkpoints. No configuration file is executed.

# %%
import shutil

from sem_jax.runs.checkpoint import steps

moved = Path(tempfile.mkdtemp()) / "from_somebody"
shutil.copytree(run.folder, moved, ignore=shutil.ignore_patterns("evaluation", "predictions"))
earlier = sj.load(moved, steps(moved / "checkpoints")[0])

record = earlier.evaluate(suites=("clean", "calibration"), progress=False)
record["run"]["step"], record["suites"]["clean"]["scalars"]["top1"]
