"""Types shared by the layers: containers of arrays, and Protocols for models, encoded images and feeds.

Shapes: b batch, h height, w width, c channels, d features, k classes, n items of a data set.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

Key = jax.Array
Metrics = dict[str, jax.Array]
HEADS = ("classifier", "head", "fc")  # names of the layer that makes logits of features; ours have the first


class Batch(NamedTuple):
    """The input of a training step."""

    images: jax.Array  # f32[b h w c], normalised
    labels: jax.Array  # i32[b]
    mask: jax.Array  # f32[b], 1 = a real item, 0 = padding


class Outputs(NamedTuple):
    """The output of every model."""

    features: jax.Array  # f32[b d], the pooled pre-logits vector g(x)
    logits: jax.Array  # f32[b k], f(x)


class Mix(NamedTuple):
    """The random numbers of a mixed batch."""

    lam: jax.Array  # f32[b] in [0, 1], weight of the anchor after clipping
    pairing: jax.Array  # i32[b], partner = anchor[pairing]


def partners_of(values: jax.Array, pairing: jax.Array, *, groups: int = 1) -> jax.Array:
    """`values[pairing]`, [b ...], for a pairing i32[b] that is made within `groups` equal parts.

    With one part a device, XLA then sees that each device has the partners of its own items. From `values[pairing]` it
    cannot see that, and sends every item to every device.

    >>> partners_of(jnp.asarray([1.0, 2.0, 3.0, 4.0]), jnp.asarray([1, 0, 3, 2]), groups=2).tolist()
    [2.0, 1.0, 4.0, 3.0]
    """
    if groups == 1:
        return values[pairing]
    parts, within = values.reshape(groups, -1, *values.shape[1:]), pairing.reshape(groups, -1)
    start = jnp.arange(groups, dtype=pairing.dtype)[:, None] * within.shape[1]
    return jax.vmap(lambda part, chosen: part[chosen])(parts, within - start).reshape(values.shape)


class EncodedImages(Protocol):
    """Images that stay encoded on disk. Like u8[n h w c]; indexing decodes the items."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nbytes(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...

    def select(self, rows: Any) -> "EncodedImages":
        """Some of the images; nothing is read."""
        ...

    def batch(self, rows: Any) -> np.ndarray:
        """`self[rows]`, decoded by one thread."""
        ...

    def cropped(self, rows: Any, *, seed: int, epoch: int, scale: float) -> np.ndarray:
        """Random resized crops of items, u8[b h w c]; they depend on the arguments alone."""
        ...

    def scan(self) -> tuple[str, np.ndarray]:
        """Decodes every image once: (hex SHA-256 of the decoded array, i64[c 256] its histogram)."""
        ...


Images = np.ndarray | EncodedImages  # u8[n h w c], decoded in host memory or encoded on disk


class Split(NamedTuple):
    """One split of a data set."""

    images: Images
    labels: np.ndarray  # i32[n]


class Dataset(NamedTuple):
    """A data set with its splits and what is known of them."""

    name: str
    splits: dict[str, Split]  # "train", "test" and, when held out of train, "val"
    class_names: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, ...]
    fingerprint: str  # hex SHA-256 over every image and label of every split, in order


class Model(Protocol):
    """A backbone: a Linen module, or a custom module that `models.custom` has wrapped."""

    dtype: Any  # of the computation

    def init(self, rngs: Key, images: jax.Array, /, **options: Any) -> Any:
        """New variables: {"params": ...} and, with BatchNorm, {"batch_stats": ...}; options: train."""
        ...

    def apply(self, variables: Any, images: jax.Array, /, **options: Any) -> Any:
        """`Outputs`, and with `mutable` the new statistics too; options: train, rngs, mutable, at_stage."""
        ...


class Feed(Protocol):
    """Brings the training images to the compiled calls."""

    steps: int  # the largest number of steps in a call; 0 = any number

    def order(self, epoch: int) -> Any:
        """The items of an epoch's steps, one row a step."""
        ...

    def example(self, order: Any) -> tuple[Any, Any, int]:
        """An example of what `__call__` returns, for its shapes."""
        ...

    def __call__(self, order: Any, first: int, count: int) -> tuple[Any, Any, int]:
        """(data, order, first) with which a compiled call runs `count` steps from row `first` of `order`."""
        ...

    def close(self) -> None:
        """Ends the threads and processes of the feed."""
        ...


class Mean(NamedTuple):
    """A mean whose values are still being added up."""

    total: Any  # f32[], sum of the values
    count: Any  # f32[], number of the values

    @property
    def value(self) -> Any:
        """total / count; 0 before the first value."""
        return self.total / max(self.count, 1)


# A model calls it with (k, hidden [b ...]): k = 0 are the images, k the output of stage k, and the last is what is
# pooled. The model goes on with what it returns. So a mixer of hidden states needs no model of its own.
StageHook = Callable[[int, jax.Array], jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hooked:
    """The images of a pass whose hidden states are mixed; given to a pass in place of an array of images.

    features, logits = model.apply(variables, mixed.images, train=False, at_stage=mixed.at_stage(last=4))
    """

    images: jax.Array  # f32[b h w c]
    drawn: Any  # arrays
    hook: Callable[[Any, int, int, jax.Array], jax.Array] = field(metadata={"static": True})

    def at_stage(self, last: int) -> StageHook:
        """The hook of a model whose last stage is number `last`."""
        return lambda k, hidden: self.hook(self.drawn, k, last, hidden)

    def at_stage_of(self, model: Model, variables: Any) -> StageHook:
        """The hook of a model; tracing the model once counts its stages."""
        stages = []

        def record(k, hidden):
            stages.append(k)
            return hidden

        jax.eval_shape(lambda v, x: model.apply(v, x, train=False, at_stage=record), variables, self.images[:1])
        return self.at_stage(max(stages))


MixFn = Callable[..., tuple[jax.Array | Hooked, Mix]]  # (key, images, take=None, ...), see `mixers.make_mix`
Scorer = Callable[[jax.Array, jax.Array | None], jax.Array]  # (images, labels) -> how salient each place, f32[b gh gw]
