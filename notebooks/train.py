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
# # Train with SEM on the accelerator at hand
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sem-jax/sem_jax/blob/main/notebooks/train.ipynb)
#
# Mixup with the penalty of *Semantic Equivariant Mixup*, on CIFAR-10 or on your own pictures, in the time that you
# allow: the notebook times one epoch on this machine and then trains as many as fit. In Colab choose Runtime, Change
# runtime type, and a GPU or TPU. On a CPU it trains on 1,437 handwritten digits instead, which takes two minutes and no
# download.

# %%
# Installs what is not importable: the package from the checkout this notebook lies in, else from GitHub. The jax that
# is here stays as it is, since it belongs to the GPU's or TPU's plugin: pip stops rather than replace it.
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

checkout = Path("..").resolve()
sources = {
    "sem_jax": str(checkout) if (checkout / "pyproject.toml").is_file() else "git+https://github.com/sem-jax/sem_jax",
    "pandas": "pandas",
}
packages = ((it.metadata["Name"] or "", it.version) for it in importlib.metadata.distributions())
kept = sorted(f"{name}=={version}" for name, version in packages if name.startswith(("jax", "libtpu")))
for name, source in sources.items():
    if importlib.util.find_spec(name) is None:
        Path("kept_versions.txt").write_text("\n".join(kept))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", "kept_versions.txt", source]
        subprocess.run(command, check=True)

# %%
import jax

print(jax.devices())
on_cpu = jax.default_backend() == "cpu"

# %% [markdown]
# ## What to train on
#
# `PICTURES` is a folder of yours, or a mounted Google Drive folder: `train/cat/1.jpg`, `train/dog/2.jpg`, ...,
# `test/cat/3.jpg`, .... "" is CIFAR-10, which is downloaded (170 MB), or the digits on a CPU.
#
# Without `test`, add `cfg |= {"data.val_size": 200, "data.use_test": False}` at the end of the next cell. 200 training
# pictures are then held out, and each epoch is scored on them. The part "Score" below needs test pictures.

# %%
import sem_jax as sj

PICTURES = ""
METHOD = "mixup+sem"  # or erm, mixup, cutmix, cutmix+sem, mixup+es+sem, ...
MINUTES = 0.5 if on_cpu else 8  # of training; compiling and scoring come on top
RUN = "runs/mine"  # or "gs://my-runs/mine": a bucket outlives the session

if PICTURES:
    cfg = {"name": "preact_c10", "data.name": "image_folder", "data.dir": PICTURES}
    cfg |= {"model.width": 8, "data.image_size": 32} if on_cpu else {"data.image_size": 64}
elif on_cpu:
    cfg = {"name": "digits", "model.width": 1}
else:
    cfg = {"name": "preact_c10"}
    sj.load_data("cifar10")  # downloads it, once
cfg |= {"method": METHOD, "optim.schedule": "onecycle", "optim.learning_rate": 0.2, "train.eval_every": 1}
cfg |= {"runtime.progress": False}

# %% [markdown]
# ## How many epochs fit
#
# One epoch is timed; its seconds are without compiling. The one-cycle schedule must know the number of epochs before it
# begins, so that the rate has come down at the end. A run that is continued in another session needs the number that it
# began with: set EPOCHS to it.

# %%
EPOCHS = 0  # 0: as many as fit

if not EPOCHS:
    timed = sj.train(sj.get_config(**cfg, **{"train.epochs": 1}), f"{RUN}_timed")
    seconds = timed.metrics()[0]["seconds"]
    EPOCHS = int(min(6 if on_cpu else 60, max(3, 60 * MINUTES / seconds)))
    print(f"{seconds:.1f} s an epoch: {EPOCHS} epochs")

# %% [markdown]
# ## Train
#
# The same call again continues a run that was stopped, from its last checkpoint.

# %%
run = sj.train(sj.get_config(**cfg, **{"train.epochs": EPOCHS}), RUN)

# %%
from IPython.display import Image, display

display(Image(run.plot(), width=800))
run.metrics().to_pandas().tail(3)

# %% [markdown]
# ## Score
#
# The report is `runs/mine/evaluation/eval.html`. The notebook `evaluate` goes on from here.

# %%
record = run.evaluate(suites=("clean", "calibration", "equivariance"), say=print, umap=False, pairs=256, progress=False)
display(Image(run.folder / "evaluation/equivariance_path.png", width=700))
display(Image(run.folder / "evaluation/errors.png", width=700))

# %% [markdown]
# Few epochs say little about a method: in short runs mixing costs accuracy, and one seed is one draw. What was measured
# so far, with seeds and intervals, is on the [results
# pages](https://github.com/sem-jax/sem_jax/tree/main/experiments/results).
#
# ## Keep it, or share it
#
# In Colab the disk is lost at the end of the session. Copy the run folder to Drive:
#
# ```python
# import shutil
#
# from google.colab import drive
# drive.mount("/content/drive")
# shutil.copytree(RUN, "/content/drive/MyDrive/runs/mine")
# ```
#
# Or train in a bucket in the first place, `RUN = "gs://my-runs/mine"`, with the extra `gcs`
# ([Colab](https://github.com/sem-jax/sem_jax/blob/main/docs/colab.md#train)). A mounted Drive is no place for a run
# that is being trained.
#
# `sem-jax share --workdir=runs/mine --to=shared/mine` makes a folder of it for others, with a model card.

# %%
if on_cpu and not PICTURES:
    assert record["suites"]["clean"]["scalars"]["top1"] > 0.8
