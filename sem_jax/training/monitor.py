"""Scores a split of the data set in training: accuracy and negative log-likelihood (NLL).

monitor = Monitor(model, dataset, batch_size=500, sharding=by_batch)
monitor(state, "test")          # {"test_accuracy": 0.97, "test_nll": 0.11}
"""

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from sem_jax.interfaces import Dataset, EncodedImages, Model, Split
from sem_jax.runs.predict import Batches, make_score, to_batches
from sem_jax.runs.state import TrainState


class Monitor:
    """Scores splits with the parameters of a state.

    Args:
      dataset: arrays are kept on the devices from the first score on; encoded images are decoded batch by batch.
      batch_size: of all devices together.
      sharding: of the batches [m b ...], by item.
    """

    def __init__(self, model: Model, dataset: Dataset, *, batch_size: int, sharding: jax.sharding.NamedSharding):
        self._dataset, self._batch_size, self._sharding = dataset, batch_size, sharding
        self._devices = sharding.mesh.size
        self._score = make_score(model, mean=dataset.mean, std=dataset.std)
        self._batches: dict[str, Batches] = {}

    def __call__(self, state: TrainState, split: str) -> dict[str, float]:
        """Accuracy in [0, 1] and NLL in nats, named after the split."""
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        images, labels = self._dataset.splits[split]
        if not isinstance(images, np.ndarray):
            sums = self._score_encoded(variables, images, labels)
        else:
            if split not in self._batches:
                self._batches[split] = self._place(self._cut(Split(images, labels)))
            sums = [self._score(variables, self._batches[split])]
        total = {name: sum(float(part[name]) for part in sums) for name in ("correct", "nll", "count")}
        return {f"{split}_accuracy": total["correct"] / total["count"], f"{split}_nll": total["nll"] / total["count"]}

    def _place(self, batches: Batches) -> Batches:
        return jax.device_put(batches, Batches(*[self._sharding] * 3))

    def _cut(self, split: Split) -> Batches:
        return to_batches(split, batch_size=self._batch_size, multiple_of=self._devices)

    def _score_encoded(self, variables, images: EncodedImages, labels: np.ndarray) -> list[dict]:
        """Keeps one batch in memory, while the next one is decoded."""
        size = min(self._batch_size, len(labels))
        full = -(-size // self._devices) * self._devices

        def read(first: int) -> Batches:
            rows = slice(first, first + size)
            batch = self._cut(Split(images[rows], labels[rows]))
            # The last batch gets the shape of the others, so that nothing is compiled for it.
            missing = full - batch.labels.shape[1]
            return Batches(*(np.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2)) for x in batch))

        parts = []
        with ThreadPoolExecutor(1) as thread:
            ahead = thread.submit(read, 0)
            for first in range(size, len(labels) + size, size):
                batches = self._place(ahead.result())
                if first < len(labels):
                    ahead = thread.submit(read, first)
                parts.append(self._score(variables, batches))
        return jax.device_get(parts)
