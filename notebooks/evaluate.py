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
# # Open a run, score it, look at it
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sem-jax/sem_jax/blob/main/notebooks/evaluate.ipynb)
#
# Name a run in the next cell. Without one, two small runs on handwritten digits are trained here, with and without the
# SEM penalty: nothing is downloaded, and the notebook takes about two minutes on two CPU cores.

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

# %% [markdown]
# ## Which run
#
# - a folder: `runs/wrn_c10`, or one of its `checkpoints/STEP`
# - a folder on Google Drive: in Colab, `from google.colab import drive; drive.mount("/content/drive")`, then
#   `/content/drive/MyDrive/runs/wrn_c10`
# - a shared run on a hub: `hf://OWNER/NAME`
# - a bucket: `gs://BUCKET/runs/wrn_c10`; in Colab, after `from google.colab import auth; auth.authenticate_user()`
#
# A run may come from somebody else: it is opened as data, and nothing found in it is executed.

# %%
import sem_jax as sj

RUN = ""  # yours; "" trains one here
OTHER = ""  # a second run to compare with it

if not RUN:
    # A narrow net for a few epochs; 200 images are held out, on which the temperature is fitted.
    fields = {
        "model.width": 1,
        "train.epochs": 8,
        "train.eval_every": 2,
        "data.val_size": 200,
        "runtime.progress": False,
    }
    for method in ("mixup", "mixup+sem"):
        run = sj.train(sj.get_config("digits", method=method, **fields), f"runs/digits_{method}")
    RUN, OTHER = "runs/digits_mixup+sem", "runs/digits_mixup"

run = sj.load(RUN)
run, run.config.model.name, run.class_names[:10]

# %% [markdown]
# ## Score
#
# In a shell this is `python -m sem_jax.evaluation --workdir=RUN --compare OTHER`. A suite whose data is not there says
# in one line what is missing: the corruptions need larger images than these, and nobody has published shifted digits.

# %%
record = run.evaluate(say=print, compare=[OTHER] if OTHER else [], umap=False, pairs=256, progress=False)

# %% [markdown]
# Everything is in `record`, as in `eval.json`, where accuracies are fractions in [0, 1]; and as tables of pandas.

# %%
record.to_pandas()

# %%
record.to_pandas("By class").round(3)

# %% [markdown]
# Two runs side by side. The interval of a difference is over test items (paired bootstrap), so it does not say what
# another seed would give.

# %%
record.to_pandas(f"{Path(OTHER).name} against {Path(RUN).name}").round(4) if OTHER else "no second run"

# %% [markdown]
# ## The figures
#
# The report is `evaluation/eval.html` in the run folder: one file with all pictures inside. Here are a few of them. The
# first one is what SEM is about: a mixed image's representation should lie on the straight line between the two.

# %%
from IPython.display import Image, Markdown, display

for name in ("equivariance_path", "equivariance_mixup", "errors"):
    for suite in record["suites"].values():
        if name in suite["figures"]:
            display(Image(run.folder / "evaluation" / f"{name}.png", width=700), Markdown(suite["figures"][name]))

# %% [markdown]
# In Colab, `from google.colab import files; files.download(str(run.folder / "evaluation/eval.html"))` brings the report
# to your machine.
#
# ## Your own pictures
#
# `predict` takes files, folders, `.npy` files and arrays. Pictures are resized to what the net was trained on. Here two
# test images are saved as files and read again.

# %%
from PIL import Image as Picture

PICTURES = []  # files or folders of yours

if not PICTURES and run.config.data.name == "digits":
    Path("runs/pictures").mkdir(parents=True, exist_ok=True)
    for row, image in enumerate(sj.load_data("digits").splits["test"].images[:6]):
        Picture.fromarray(image[..., 0]).save(f"runs/pictures/{row}.png")
    PICTURES = ["runs/pictures"]

prediction = run.predict(PICTURES, progress=False) if PICTURES else None
prediction.to_pandas(top=2).round(3) if prediction else "name some in PICTURES"

# %%
if prediction:
    print("features", prediction.features.shape, "probabilities", prediction.probabilities.shape)

# %% [markdown]
# ## The learning curves

# %%
run.metrics().to_pandas().tail(3)

# %%
display(Image(run.plot(), width=800))

# %%
if run.config.data.name == "digits":
    assert record["suites"]["clean"]["scalars"]["top1"] > 0.85
