"""Downloads one official file with pooch: to a temporary name, which becomes the real one if the checksum agrees.

$SEM_JAX_MIRROR, if set, is the address of a folder with copies of the official files. Checksums are still compared.
"""

import hashlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from sem_jax.data.facts import Remote
from sem_jax.errors import DataError, one_line

TIMEOUT = 30.0  # seconds without a byte
_CAUSES = {  # cause in plain words -> phrases in the errors of requests and urllib3, in lower case
    "connection refused": ("refused",),
    "no such host, or no network": ("resolve",),
    "network unreachable": ("unreachable",),
    "no answer in time": ("timed out",),
    "the connection was cut": ("incompleteread", "connection reset", "remotedisconnected", "connection broken"),
}


def fetch(remote: Remote, folder: Path, *, url: str = "", say: Callable[[str], None] = lambda line: None) -> Path:
    """The path of the file, downloaded unless `folder` has a copy with the right checksum.

    Args:
      folder: made if missing.
      url: address to download from; "" means the mirror's, or else the official one.
      say: is called with a line when the server has answered.

    Raises:
      DataError: no network, an error of the server, a cut connection or a wrong checksum; no file is left behind.
    """
    import pooch

    mirror = os.environ.get("SEM_JAX_MIRROR", "").rstrip("/")
    url = url or (f"{mirror}/{remote.file}" if mirror else remote.url)
    pooch.get_logger().setLevel(logging.WARNING)

    def announce(response, **_):
        if response.ok and not response.is_redirect:
            say(f"downloading {url} ({remote.size / 1e6:.0f} MB) to {folder}")

    # pooch would also draw its progress bar into log files.
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT, hooks={"response": announce})
    call = lambda *arguments, **options: downloader(*arguments, **options)  # noqa: E731 - pooch names them otherwise
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(pooch.retrieve(url, remote.digest, fname=remote.file, path=folder, downloader=call))
    except Exception as error:  # many kinds from requests and urllib3; OSError for a full disk
        message = f"{url} cannot be downloaded: {_reason(error)}"
        remedy = f"Try again with a network, or set SEM_JAX_MIRROR, or put {remote.file} into {folder}."
        if isinstance(error, ValueError) and "hash" in str(error):
            message = f"{url}: checksum of the download is not the official {remote.digest[:19]}..., so it was deleted"
            remedy = "Try again; if that fails, get the file elsewhere and give it with --archive."
        raise DataError(message, remedy) from error


def is_official(path: Path, remote: Remote) -> bool:
    """Whether the file has the official checksum."""
    algorithm, _, expected = remote.digest.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == expected


def _reason(error: BaseException) -> str:
    """Short cause of a failed download."""
    if (response := getattr(error, "response", None)) is not None:
        return f"the server answers {response.status_code} {response.reason}"
    text = f"{type(error).__name__}: {error}".lower()
    return next((cause for cause, said in _CAUSES.items() if any(p in text for p in said)), one_line(error))
