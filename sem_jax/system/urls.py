"""Tells local paths from gs://BUCKET/FOLDER, and checks the names of both; imports nothing large.

if is_url(workdir):                       # refuses s3://, hdfs://, ...
    bucket, folder = split_url(workdir)
require_local("--items", path, out=True)  # refuses gs://, too
"""

import re
from pathlib import Path

from sem_jax.errors import ConfigError


def is_url(path: str | Path) -> bool:
    """Whether a path option names a bucket: gs://...

    Raises:
      ConfigError: it is a URL of another kind, of which a local path would make a folder called `s3:`.

    >>> is_url("gs://my-runs/wrn_c10"), is_url("runs/wrn_c10")
    (True, False)
    >>> is_url("s3://my-runs/wrn_c10")
    Traceback (most recent call last):
    ...
    sem_jax.errors.ConfigError: 's3://my-runs/wrn_c10' is neither a local path nor gs://BUCKET/FOLDER
    Copy it to one of these, or mount it and give the local path.
    """
    if match := re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/+", str(path)):
        if match[1] == "gs" and str(path).startswith("gs://"):
            return True
        if len(match[1]) > 1:  # one letter is a drive of Windows
            raise ConfigError(
                f"{str(path)!r} is neither a local path nor gs://BUCKET/FOLDER",
                "Copy it to one of these, or mount it and give the local path.",
            )
    return False


def require_local(option: str, path: str | Path, *, out: bool = False) -> None:
    """Refuses an address where only a path of this machine works, before a folder called `gs:` is made.

    Args:
      option: as the user writes it: "--ood", "data.dir", "$SEM_JAX_CACHE".
      path: also a `Path`, which has lost one of the two slashes.
      out: whether it is written to.

    Raises:
      ConfigError: an address of any kind.

    >>> require_local("--ood", "pictures/places")
    >>> require_local("--ood", "gs://my-data/places")
    Traceback (most recent call last):
    ...
    sem_jax.errors.ConfigError: --ood=gs://my-data/places must be a path of this machine
    Copy it here: gcloud storage cp -r gs://my-data/places . (or mount the bucket read-only), and give that path.
    """
    if not (match := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+", str(path))):
        return
    url = f"{match[1]}://{str(path)[match.end() :]}"
    remedy = f"Copy it here: gcloud storage cp -r {url} . (or mount the bucket read-only), and give that path."
    if out:
        remedy = f"Give a local path, and copy the result: gcloud storage cp -r PATH {url}"
    if match[1] != "gs":
        remedy = "Copy it, or mount it, and give the local path."
    raise ConfigError(f"{option}={url} must be a path of this machine", remedy)


def split_url(url: str) -> tuple[str, str]:
    """(bucket, folder in it without slashes at its ends) of gs://BUCKET/FOLDER.

    >>> split_url("gs://my-runs/cifar/wrn_c10/")
    ('my-runs', 'cifar/wrn_c10')
    """
    bucket, _, folder = str(url).removeprefix("gs://").partition("/")
    folder = folder.rstrip("/")
    if not is_url(url) or not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket):
        raise ConfigError(f"{str(url)!r:.200} must be gs://BUCKET/FOLDER, with the name of a bucket")
    if folder and not is_plain(folder):
        raise ConfigError(f"{str(url)!r:.200} must be gs://BUCKET/FOLDER, with names between single slashes")
    return bucket, folder


def is_plain(name: str) -> bool:
    """Whether a name in a bucket can be a relative path on a disk, with no way out of its folder.

    >>> is_plain("checkpoints/390/manifest.json"), is_plain("../x"), is_plain("a//b")
    (True, False, False)
    """
    parts = name.split("/")
    odd = not name.isprintable() or len(name.encode(errors="replace")) > 900 or re.search(r'[\\:*?"<>|#\[\]]', name)
    return not odd and all(part not in ("", ".", "..") for part in parts)
