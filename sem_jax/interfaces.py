"""What travels between the layers: containers of arrays, and what a model, images on disk and a feed must offer.

Shapes: b batch, h height, w width, c channels, d features, k classes, n items of a data set.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

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


class EncodedImages(Protocol):
    """Images that stay encoded on disk; looks like u8[n h w c], and decodes the items that it is indexed with."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nbytes(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...

    def select(self, rows: Any) -> "EncodedImages":
        """The same images, fewer of them; nothing is read."""
        ...

    def batch(self, rows: Any) -> np.ndarray:
        """`self[rows]`, decoded by one thread."""
        ...

    def cropped(self, rows: Any, *, seed: int, epoch: int, scale: float) -> np.ndarray:
        """Random resized crops of items, u8[b h w c], a function of the arguments alone."""
        ...

    def scan(self) -> tuple[str, np.ndarray]:
        """(hex SHA-256 of the array they stand for, i64[c 256] histogram of it); every image is decoded, once."""
        ...


Images = np.ndarray | EncodedImages  # u8[n h w c], decoded in host memory or encoded on disk


class Split(NamedTuple):
    """One split of a data set."""

    images: Images
    labels: np.ndarray  # i32[n]


class Dataset(NamedTuple):
    """A data set as the trainer and the evaluation see it."""

    name: str
    splits: dict[str, Split]  # "train", "test" and, when held out of train, "val"
    class_names: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, ...]
    fingerprint: str  # hex SHA-256 over every image and label of every split, in order


class Model(Protocol):
    """A backbone: a Linen module, or what `models.custom` makes of anyone's module."""

    dtype: Any  # of the computation

    def init(self, rngs: Key, images: jax.Array, /, **options: Any) -> Any:
        """Fresh variables: {"params": ...} and, with BatchNorm, {"batch_stats": ...}; options: train."""
        ...

    def apply(self, variables: Any, images: jax.Array, /, **options: Any) -> Any:
        """`Outputs`, and with `mutable` the new statistics too; options: train, rngs, mutable, at_stage."""
        ...


class Feed(Protocol):
    """Brings the training images to the compiled calls, a call's worth at a time."""

    steps: int  # that one call can be fed with; 0 = any number

    def order(self, epoch: int) -> Any:
        """What the steps of an epoch are made of, one row a step."""
        ...

    def example(self, order: Any) -> tuple[Any, Any, int]:
        """What a call will be given, for its shapes alone."""
        ...

    def __call__(self, order: Any, first: int, count: int) -> tuple[Any, Any, int]:
        """(data, order, first) with which a compiled call runs `count` steps from row `first` of `order`."""
        ...

    def close(self) -> None:
        """Ends what runs beside the steps."""
        ...


class Mean(NamedTuple):
    """A mean that is still being taken: sums can be added without knowing what else was logged."""

    total: Any  # f32[], of the values
    count: Any  # f32[], how many they are

    @property
    def value(self) -> Any:
        """total / count; 0 before the first value."""
        return self.total / max(self.count, 1)


# Called by a model with (k, hidden [b ...]), k = 0 the images, k the output of stage k, the last one what is pooled;
# what it returns takes the hidden state's place. So a mixer of hidden states needs no model of its own.
StageHook = Callable[[int, jax.Array], jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hooked:
    """Images for a model whose hidden states are to be mixed: what a pass is given, as an array of images is.

    features, logits = model.apply(variables, mixed.images, train=False, at_stage=mixed.at_stage(last=4))
    """

    images: jax.Array  # f32[b h w c]
    drawn: Any  # arrays
    hook: Callable[[Any, int, int, jax.Array], jax.Array] = field(metadata={"static": True})

    def at_stage(self, last: int) -> StageHook:
        """What a model whose last stage is number `last` calls at each of them."""
        return lambda k, hidden: self.hook(self.drawn, k, last, hidden)

    def at_stage_of(self, model: Model, variables: Any) -> StageHook:
        """`at_stage` for a model, whose number of stages is found by tracing it once; nothing is computed."""
        stages = []

        def record(k, hidden):
            stages.append(k)
            return hidden

        jax.eval_shape(lambda v, x: model.apply(v, x, train=False, at_stage=record), variables, self.images[:1])
        return self.at_stage(max(stages))


MixFn = Callable[..., tuple[jax.Array | Hooked, Mix]]  # (key, images, take=None, ...), see `mixers.make_mix`
Scorer = Callable[[jax.Array, jax.Array | None], jax.Array]  # (images, labels) -> how salient each place, f32[b gh gw]
