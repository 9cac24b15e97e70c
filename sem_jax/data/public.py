"""The loader of the public data sets: finds a set (`places`), or prepares it, and reads it."""

import functools
import logging
import sys
from collections.abc import Sequence

from sem_jax.data.array_records import read_encoded_split
from sem_jax.data.decoded_cache import Labelled, read_splits
from sem_jax.data.facts import DEFAULT, Loaded, PublicSet, Reading
from sem_jax.data.places import Found, locate, missing, named, places
from sem_jax.data.prepare import prepare
from sem_jax.data.tfds_folder import read_split
from sem_jax.errors import DataError
from sem_jax.interfaces import Split
from sem_jax.system.urls import is_url

log = logging.getLogger("sem_jax.data")


def load_public(
    spec: PublicSet,
    data_dir: str = "",
    splits: Sequence[str] = ("train", "test"),
    image_size: int = 0,
    reading: Reading = DEFAULT,
) -> Loaded:
    """Reads splits of a set, which is downloaded and prepared if it is not found and `reading.download` allows it.

    `image_size` has no effect, since these sets have a size. `reading.encoded=None` decodes: the sets are small.

    Raises:
      DataError: the set is not found and cannot be downloaded, is damaged, or lacks a split.
    """
    looked_at = places(data_dir)
    if (found := locate(spec, looked_at)) is None:
        if not reading.download:
            raise missing(spec, looked_at)
        # Nothing is put into a bucket unasked.
        local = next(place for place in named(data_dir) if not is_url(place))
        directory = prepare(spec, data_dir=local, say=lambda line: print(line, file=sys.stderr, flush=True))
        found = Found(directory, prepared=True)
    path = found.path
    log.info("reading %s from %s", spec.name, path)
    opened = functools.cache(lambda: spec.open_raw(spec, path))

    def read(split: str) -> Labelled:
        if found.prepared:
            return read_encoded_split(path, split) if reading.encoded else read_split(path, split, spec.shape)
        readers = opened()
        if split not in readers:
            has = ", ".join(readers)
            raise DataError(f"{path} has no {split!r} split of {spec.name} (it has: {has})", "Add its official file.")
        raw = readers[split]()
        return Split(raw.images, raw.labels), raw.class_names

    if reading.encoded and not found.prepared:
        message = f"{path} is not prepared as array_record, which encoded images need"
        raise DataError(message, f"Prepare it: python -m sem_jax prepare {spec.name} --archive {path}")
    out, names = read_splits(spec.name, path, (), splits, read, cache=reading.cache and not reading.encoded)
    count = {split: len(value.labels) for split, value in out.items()}
    official = {split: spec.sizes[split] for split in out}
    if count != official or len(names) != spec.num_classes:
        line = "%s is a part of %s or another set: %s images and %d classes, officially %s and %d"
        log.warning(line, path, spec.name, count, len(names), official, spec.num_classes)
    return Loaded(out, names, spec.mean, spec.std)
