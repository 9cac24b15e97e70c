"""Prepares a public data set: writes it as tensorflow-datasets does, as array_record and without TensorFlow.

The directory has the canonical name and version, so that `tfds.data_source("cifar10", split="train")` reads it. It is
built under another name, read back, compared and then renamed. What an interrupted run leaves is removed by the next.
"""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from sem_jax.data.bucket_data import bring, here, push
from sem_jax.data.download import fetch, is_official
from sem_jax.data.facts import PublicSet, Raw
from sem_jax.data.files import is_archive
from sem_jax.data.images import encode_png
from sem_jax.data.places import find_raw, missing, named, places
from sem_jax.data.tfds_folder import INFO, read_split
from sem_jax.errors import DataError
from sem_jax.system.urls import is_url


def prepare(
    spec: PublicSet,
    *,
    data_dir: str | os.PathLike = "",
    source: Path | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Makes the directory <data_dir>/<name>/<version> and returns its path.

    Args:
      data_dir: root of prepared sets; "" means $TFDS_DATA_DIR or ~/tensorflow_datasets.
      source: archive or folder with the official files, or an image folder (or zip) of the set; None downloads to
        <data_dir>/downloads/manual, where tensorflow-datasets looks too.
      force: replace a set that exists already.
      say: is called with each line of the report.

    Raises:
      DataError: the download failed, the source cannot be used, or the directory cannot be written.
    """
    root = places(data_dir)[0]
    target = root / spec.name / spec.version
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.parent / ".prepare.lock"):
            if (target / INFO).is_file() and not force:
                say(f"{spec.name} is prepared already in {target}; --force makes it again")
                return target
            for stale in target.parent.glob("incomplete.*"):  # nobody else writes there under the lock
                shutil.rmtree(stale, ignore_errors=True)
            readers = spec.open_raw(spec, _source(spec, source, root, say))
            splits = {name: read() for name, read in readers.items()}
            for name, raw in splits.items():
                found, official = (len(raw.labels), len(np.unique(raw.labels))), (spec.sizes[name], spec.num_classes)
                other = "" if found == official else f" (the official set: {official[0]} of {official[1]})"
                say(f"{name}: {found[0]} images of {found[1]} classes{other}")
            _write(spec, splits, target)
    except OSError as error:
        where = error.filename or target
        raise DataError(f"cannot write {where}: {error.strerror}", "Give another place with --data-dir.") from error
    say(f"written to {target}")
    return target


def prepare_there(spec: PublicSet, *, data_dir: str = "", force: bool = False, say, **options) -> str:
    """`prepare`, also for a `data_dir` (or $TFDS_DATA_DIR) in a bucket, to which the result is uploaded.

    Returns:
      What data.dir has to be then: a folder, or gs://BUCKET/FOLDER.

    Raises:
      SemError: as `prepare`; or the bucket cannot be read or written.
    """
    root = named(data_dir)[0]
    if not is_url(root):
        return str(prepare(spec, data_dir=data_dir, force=force, say=say, **options).parent.parent)
    bring(spec, root)
    missing = force or not (here(root) / spec.name / spec.version / INFO).is_file()
    target = prepare(spec, data_dir=data_dir, force=force, say=say, **options)
    if missing:
        push(root, target.relative_to(here(root)).as_posix())
        say(f"uploaded to {root.rstrip('/')}/{spec.name}/{spec.version}")
    return root


def _source(spec: PublicSet, source: Path | None, root: Path, say) -> Path:
    if source is None:
        folder = root / "downloads" / "manual"
        try:
            files = [fetch(remote, folder, say=say) for remote in spec.remotes]
        except DataError as error:
            raise missing(spec, places(root), str(error).split("\n")[0]) from error
        return files[0] if len(files) == 1 else folder
    source = source.expanduser()
    if not source.exists():
        raise DataError(f"{source} does not exist", "Give the archive with --archive, or a folder with --folder.")
    if (found := find_raw(spec, source)) is None:
        remedy = f"Expected {spec.archives}, packed or unpacked, or an image folder with train/ and test/."
        raise DataError(f"{source} holds nothing of {spec.name}", remedy)
    if is_archive(found) and not any(is_official(found, remote) for remote in spec.remotes):
        say(f"warning: {found} does not have the official checksum; it is used because you named it")
    return found


def _write(spec: PublicSet, splits: Mapping[str, Raw], target: Path) -> None:
    class_names = next(iter(splits.values())).class_names
    if any(raw.class_names != class_names for raw in splits.values()):
        raise DataError(f"{spec.name}: classes of {' and '.join(splits)} differ", "Give both the same class folders.")
    temporary = Path(tempfile.mkdtemp(prefix="incomplete.", dir=target.parent))
    try:
        _build(spec, splits, class_names, temporary)
        built = temporary / spec.name / spec.version
        for name, raw in splits.items():
            (images, labels), names = read_split(built, name, spec.shape)
            same = isinstance(images, np.ndarray) and np.array_equal(images, raw.images)
            if not same or not np.array_equal(labels, raw.labels) or names != class_names:
                raise DataError(f"{built}: {name} differs when it is read back", "Check the disk for errors.")
        if target.exists():  # with --force, or without dataset_info.json
            os.replace(target, temporary / "replaced")
        os.replace(built, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _build(spec: PublicSet, splits: Mapping[str, Raw], class_names: tuple[str, ...], root: Path) -> None:
    """Runs a tensorflow-datasets builder over the arrays. It shuffles by index, as the official builders do."""
    import tensorflow_datasets as tfds

    from sem_jax.system.progress import bar

    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=spec.shape, encoding_format=None if spec.class_names else "jpeg"),
        "label": tfds.features.ClassLabel(names=list(class_names)),
    }
    if spec.coarse:
        features["coarse_label"] = tfds.features.ClassLabel(names=list(spec.coarse[0]))
    digits = 5 if spec.name.startswith("cifar") else 6  # of the ids, as in the official builds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = spec.name
        VERSION = tfds.core.Version(spec.version)
        url_infos = {}  # else tfds imports importlib_resources, which it does not depend on

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                description=spec.description,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                homepage=spec.homepage,
            )

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(name, raw) for name, raw in splits.items()}

        def _generate_examples(self, split, raw):
            shown = bar(raw.labels.tolist(), desc=f"writing {spec.name} {split}", unit="img", leave=False)
            for i, label in enumerate(shown):
                image = raw.encoded[i] if raw.encoded else encode_png(raw.images[i])
                row = {"id": f"{split}_{i:0{digits}d}", "image": image, "label": label}
                if spec.coarse:
                    row["coarse_label"] = spec.coarse[1][label]
                yield i, row

    level = logging.getLogger("absl").level
    logging.getLogger("absl").setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # tfds prints to it
            Builder(data_dir=str(root), file_format="array_record").download_and_prepare()
    finally:
        logging.getLogger("absl").setLevel(level)
        tfds.enable_progress_bar()


@contextlib.contextmanager
def _lock(path: Path):
    """Lets one process at a time prepare a set. The operating system frees the lock when a process dies."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    # Never through a link, and what is there stays as it is.
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
