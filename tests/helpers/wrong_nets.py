"""Custom models that cannot be trained, for tests of what is said about them."""

import flax.linen as nn
import jax.numpy as jnp


class NoStages(nn.Module):
    """It works, but has no `at_stage` for mixers of hidden states."""

    num_classes: int

    @nn.compact
    def __call__(self, images, train):
        features = nn.Dense(4)(images.reshape(len(images), -1))
        return features, nn.Dense(self.num_classes)(features)


class Divides(NoStages):
    """It raises an error of Python."""

    @nn.compact
    def __call__(self, images, train):
        return images / (1 // 0), None


class Exits(NoStages):
    """It ends the program."""

    @nn.compact
    def __call__(self, images, train):
        raise SystemExit(3)


class Mismatched(NoStages):
    """Its shapes do not fit together."""

    @nn.compact
    def __call__(self, images, train):
        return images @ jnp.zeros((7, 7)), None


class Flat(NoStages):
    """Its outputs are those of one image, whatever the batch."""

    @nn.compact
    def __call__(self, images, train):
        features, logits = nn.Dense(4)(images.reshape(len(images), -1)), nn.Dense(self.num_classes)
        return features[:1], logits(features[:1])
