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
# # The mixers and the SEM penalty in your own training loop
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sem-jax/sem_jax/blob/main/notebooks/use_sem_in_your_loop.ipynb)
#
# Two functions are all it takes, and neither knows a model or a framework:
#
# - `mix(key, images) -> mixed, (lam, pairing)` mixes every image with the one `pairing` names; `lam` is the weight of
#   the first that is really in the image, so labels follow the pixels.
# - `sem_penalty(g(mixed), g(images), g(images)[pairing], lam)` is the distance of the mixed image's representation
#   from the mixture of the two representations, one number an image. `g` is what the last, linear layer is given.
#
# A step runs the model twice, on the mixed and on the clean images: the partners' representations are the clean ones
# in another order. Here both go into a plain Flax NNX loop and into an Equinox loop.

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
    "equinox": "equinox",
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
import jax.numpy as jnp
import optax

import sem_jax as sj

GAMMA, STEPS, BATCH = 0.3, 300, 128

digits = sj.load_data("digits")
train, test = ((jnp.asarray(s.images / 255.0, jnp.float32), jnp.asarray(s.labels)) for s in digits.splits.values())
mix = sj.make_mix(sj.make_mixer("mixup", alpha=1.0))  # or "cutmix"


def objective(predict, images, labels, key, gamma):
    """Eq. 9 for any model: predict(images) -> (features, logits)."""
    mixed, (lam, pairing) = mix(key, images)
    features_mixed, logits_mixed = predict(mixed)
    features, _ = predict(images)
    targets = sj.mixed_targets(labels, lam, pairing, num_classes=10)
    label_loss = optax.softmax_cross_entropy(logits_mixed, targets)
    penalty = sj.sem_penalty(features_mixed, features, features[pairing], lam)
    distance = jnp.linalg.norm(features - features[pairing], axis=1)
    relative = penalty.sum() / distance.sum()  # how far from equivariant, whatever the features' scale
    return jnp.mean(label_loss + gamma * penalty), relative


def batch_of(key):
    rows = jax.random.choice(key, len(train[1]), (BATCH,), replace=False)
    return train[0][rows], train[1][rows]


# %% [markdown]
# ## Flax NNX

# %%
from flax import nnx


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 32, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images):
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(images))))
        features = x.mean(axis=(1, 2))
        return features, self.head(features)


@nnx.jit
def nnx_step(model, optimizer, key, gamma):
    data_key, mix_key = jax.random.split(key)
    loss = nnx.value_and_grad(lambda m: objective(m, *batch_of(data_key), mix_key, gamma), has_aux=True)
    (_, relative), gradients = loss(model)
    optimizer.update(model, gradients)
    return relative


def train_nnx(gamma):
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    for key in jax.random.split(jax.random.key(1), STEPS):
        relative = nnx_step(model, optimizer, key, gamma)
    accuracy = jnp.mean(jnp.argmax(model(test[0])[1], axis=1) == test[1])
    return float(accuracy), float(relative)


for gamma in (0.0, GAMMA):
    accuracy, relative = train_nnx(gamma)
    print(f"Flax NNX, gamma {gamma}: test accuracy {accuracy:.1%}, relative error of mixed features {relative:.3f}")
    assert accuracy > 0.75

# %% [markdown]
# ## Equinox
#
# Equinox models take one image, channels first; `predict` brings the two together, and the objective stays as it is.

# %%
import equinox as eqx


class EqxNet(eqx.Module):
    conv1: eqx.nn.Conv2d
    conv2: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.conv1 = eqx.nn.Conv2d(1, 32, 3, padding=1, key=keys[0])
        self.conv2 = eqx.nn.Conv2d(32, 64, 3, stride=2, padding=1, key=keys[1])
        self.head = eqx.nn.Linear(64, 10, key=keys[2])

    def __call__(self, image):
        x = jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(image.transpose(2, 0, 1)))))
        features = x.mean(axis=(1, 2))
        return features, self.head(features)


tx = optax.adam(3e-3)


@eqx.filter_jit
def eqx_step(model, opt_state, key, gamma):
    data_key, mix_key = jax.random.split(key)
    loss = eqx.filter_value_and_grad(
        lambda m: objective(jax.vmap(m), *batch_of(data_key), mix_key, gamma), has_aux=True
    )
    (_, relative), gradients = loss(model)
    updates, opt_state = tx.update(gradients, opt_state, eqx.filter(model, eqx.is_array))
    return eqx.apply_updates(model, updates), opt_state, relative


def train_equinox(gamma):
    model = EqxNet(jax.random.key(0))
    opt_state = tx.init(eqx.filter(model, eqx.is_array))
    for key in jax.random.split(jax.random.key(1), STEPS):
        model, opt_state, relative = eqx_step(model, opt_state, key, gamma)
    accuracy = jnp.mean(jnp.argmax(jax.vmap(model)(test[0])[1], axis=1) == test[1])
    return float(accuracy), float(relative)


for gamma in (0.0, GAMMA):
    accuracy, relative = train_equinox(gamma)
    print(f"Equinox, gamma {gamma}: test accuracy {accuracy:.1%}, relative error of mixed features {relative:.3f}")
    assert accuracy > 0.75
