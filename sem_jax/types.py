"""Containers of arrays that travel between the layers; hardly any behaviour.

Shapes: b batch, h height, w width, c channels, d features, k classes, n items of a data set.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

Key = jax.Array
Metrics = dict[str, jax.Array]


class Batch(NamedTuple):
    """What a step is given. `mask` is 1 for a real item and 0 for one that only fills the last batch."""

    images: jax.Array  # f32[b h w c], normalised
    labels: jax.Array  # i32[b]
    mask: jax.Array  # f32[b]


class Outputs(NamedTuple):
    """What every model returns: the pooled pre-logits vector g(x) and the logits f(x)."""

    features: jax.Array  # f32[b d]
    logits: jax.Array  # f32[b k]


class Mix(NamedTuple):
    """What a mixer drew: weight of the anchor after clipping, and `partner = anchor[pairing]`."""

    lam: jax.Array  # f32[b] in [0, 1]
    pairing: jax.Array  # i32[b]


class Split(NamedTuple):
    """One split of a data set, in host memory, or with its images encoded on disk and decoded when indexed."""

    images: np.ndarray  # u8[n h w c], or a data.stream.StreamedImages
    labels: np.ndarray  # i32[n]


class Dataset(NamedTuple):
    """A data set as the trainer and the evaluation see it."""

    name: str
    splits: dict[str, Split]  # "train", "test" and, when held out of train, "val"
    class_names: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, ...]
    fingerprint: str  # hex SHA-256 over every image and label of every split, in order


# Called by a model with (k, hidden [b ...]), k = 0 the images, k the output of stage k, the last one what is pooled;
# what it returns takes the hidden state's place. So a mixer of hidden states needs no model of its own.
StageHook = Callable[[int, jax.Array], jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hooked:
    """Images for a model whose hidden states are to be mixed: a stream of a step, as an array of images is one.

    features, logits = model.apply(variables, mixed.images, train=False, at_stage=mixed.at_stage(last=4))
    """

    images: jax.Array  # f32[b h w c]
    drawn: Any  # arrays
    hook: Callable[[Any, int, int, jax.Array], jax.Array] = field(metadata={"static": True})

    def at_stage(self, last: int) -> StageHook:
        """What a model whose last stage is number `last` calls at each of them."""
        return lambda k, hidden: self.hook(self.drawn, k, last, hidden)

    def at_stage_of(self, model: Any, variables: Any) -> StageHook:
        """`at_stage` for a Linen module, whose number of stages is found by tracing it once; nothing is computed."""
        stages = []

        def record(k, hidden):
            stages.append(k)
            return hidden

        jax.eval_shape(lambda v, x: model.apply(v, x, train=False, at_stage=record), variables, self.images[:1])
        return self.at_stage(max(stages))


MixFn = Callable[..., tuple[jax.Array | Hooked, Mix]]  # (key, images, take=None, ...), see `mixers.make_mix`
Scorer = Callable[[jax.Array, jax.Array | None], jax.Array]  # (images, labels) -> how salient each place, f32[b gh gw]
