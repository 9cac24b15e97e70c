"""Tells local paths from gs://BUCKET/FOLDER, and checks the names of both; imports nothing large.

if is_url(workdir):                       # refuses s3://, hdfs://, ...
    bucket, folder = split_url(workdir)
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
