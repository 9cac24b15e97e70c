"""Fetches files from a hub of models and data sets, and publishes there: `hf://owner/name[@revision][/file]`.

    fetched = fetch("hf://timm/resnet18.a1_in1k/model.safetensors")                # one file
    fetched.path, fetched.revision, fetched.files                                  # where; commit; {name: SHA-256}
    fetched = fetch("hf://owner/name@v1", files=("config.json", "*.safetensors"))  # a folder with these
    commit = publish("hf://owner/name", {"README.md": Path("card.md")}, message="A run")

No other module knows huggingface_hub, the extra `hub`. Its cache is used ($HF_HUB_CACHE, $HF_HOME), its token
($HF_TOKEN, `hf auth login`), $HF_ENDPOINT as it is at the time of the call, and $HF_HUB_OFFLINE=1: then what was
fetched before is taken from the cache. `hf://datasets/owner/name` is a data set.

What a hub sends is a stranger's: number, size and names of the files are bounded before the first is fetched, and each
file is compared with the digest that the hub states for it at that commit. The files are handed out as regular files
below $SEM_JAX_CACHE/hub, hard links to the hub's cache where the disk has them: nothing may be written there.
"""

import contextlib
import fnmatch
import glob
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sem_jax.errors import ConfigError, DataError, RunError, one_line
from sem_jax.registry import nearest

SCHEME = "hf://"
MAX_FILES, MAX_BYTES = 10_000, 1 << 38  # of one call
_NAME = r"[A-Za-z0-9_][\w.-]{0,95}"
_REVISION = rf"refs/(?:convert/parquet|pr/\d+)|{_NAME}"
_URL = re.compile(rf"hf://(datasets/|models/)?({_NAME})/({_NAME})(?:@({_REVISION}))?(?:/(.+))?", re.ASCII)


class Place(NamedTuple):
    """A repository of a hub, or a file in it."""

    kind: str  # "model" or "dataset"
    repo: str  # "owner/name"
    revision: str  # branch, tag or commit; "" = the main branch
    file: str  # "" = the whole repository

    def __str__(self) -> str:
        kind = "datasets/" if self.kind == "dataset" else ""
        at, file = self.revision and f"@{self.revision}", self.file and f"/{self.file}"
        return f"{SCHEME}{kind}{self.repo}{at}{file}"

    def error(self, message: str, remedy: str = "") -> DataError | RunError:
        """The error of this kind of repository."""
        return (DataError if self.kind == "dataset" else RunError)(message, remedy)


class Fetched(NamedTuple):
    """What `fetch` brought."""

    path: Path  # a regular file, or a folder of regular files; read only
    repo: str  # "owner/name"
    revision: str  # the commit, 40 hexadecimal digits
    files: dict[str, str]  # name in the repository -> hex SHA-256


def is_hub(path: object) -> bool:
    """Whether a path is one of a hub.

    >>> is_hub("hf://owner/name"), is_hub("runs/name")
    (True, False)
    """
    return str(path).startswith(SCHEME)


def parse(url: str, kind: str = "model") -> Place:
    """Takes a url apart. `kind` is that of a url that does not say datasets/ or models/.

    >>> parse("hf://owner/name@v1/weights/net.safetensors")
    Place(kind='model', repo='owner/name', revision='v1', file='weights/net.safetensors')

    Raises:
      ConfigError: it is no such url.
    """
    found = _URL.fullmatch(url)
    if not found or (found[5] and not _is_plain(found[5])):
        raise ConfigError(f"{url!r} must be like hf://owner/name, hf://owner/name@revision or hf://owner/name/file")
    kind = found[1].rstrip("s/") if found[1] else kind
    return Place(kind, f"{found[2]}/{found[3]}", found[4] or "", found[5] or "")


def fetch(
    url: str, *, files: Sequence[str] = ("*",), kind: str = "model", limit: int = MAX_BYTES, offline: bool = False
) -> Fetched:
    """Fetches a file, or the files of a repository, unless they are in the cache.

    Args:
      url: `hf://owner/name[@revision][/file]`.
      files: patterns of the names to fetch, if the url names no file; `*` matches slashes too.
      kind: "model" or "dataset", if the url does not say.
      limit: bytes of all files together that are accepted.
      offline: take the files from the cache alone, as with HF_HUB_OFFLINE=1.

    Raises:
      SemError: no such repository, revision or file; no permission; no network; a full disk; more bytes than `limit`; a
        file that is not what the hub states; huggingface_hub is not installed. DataError for a data set, else RunError.
    """
    from sem_jax.data.decoded_cache import cache_dir  # brings jax, for which a wrong address does not have to wait

    place = parse(url, kind)
    patterns = [glob.escape(place.file)] if place.file else list(files)
    with _refusing(place):
        found = _from_cache(place, patterns) if offline or _is_offline() else _from_hub(place, patterns, limit)
        snapshot, digests = found
        owner, name = place.repo.split("/")
        folder = cache_dir() / "hub" / f"{place.kind}s" / owner / snapshot.name / name
        sums = {file: _place(snapshot / file, folder / file, digests[file], place) for file in sorted(digests)}
    return Fetched(folder / place.file if place.file else folder, place.repo, snapshot.name, sums)


def publish(url: str, files: Mapping[str, Path], *, message: str, private: bool = False) -> str:
    """Makes one commit with these files; the repository is made if it is not there. Returns the commit.

    Args:
      url: `hf://owner/name[@branch]`.
      files: name in the repository -> file here.
      message: of the commit.
      private: whether a repository that is made is private.

    Raises:
      SemError: no token, no permission, no network; huggingface_hub is not installed.
    """
    place = parse(url)
    if place.file:
        raise ConfigError(f"{url!r} names a file; give a repository: hf://owner/name")
    with _refusing(place, writes=True):
        hub = package()
        api = hub.HfApi(endpoint=_endpoint())
        api.create_repo(place.repo, repo_type=place.kind, private=private, exist_ok=True)
        adding = [hub.CommitOperationAdd(name, str(path)) for name, path in files.items()]
        where: dict = {"repo_type": place.kind, "revision": place.revision or None}
        return api.create_commit(place.repo, adding, commit_message=message, **where).oid
    raise AssertionError  # for type checkers: `_refusing` lets nothing pass


def package() -> Any:
    """huggingface_hub; a RunError where it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise RunError("hf:// needs huggingface_hub, which is not installed", "pip install huggingface_hub") from None
    return huggingface_hub


def _endpoint() -> str:
    """huggingface_hub reads these variables once, when it is imported; ours may be set later."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _options() -> dict[str, Any]:
    home = os.environ.get("HF_HOME")
    cache = os.environ.get("HF_HUB_CACHE") or (home and os.path.join(home, "hub")) or None
    return {"endpoint": _endpoint(), "cache_dir": cache}


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true")


def _is_plain(name: str) -> bool:
    """Whether a file's name stays below a folder on every system."""
    parts = PurePosixPath(name).parts
    return bool(parts) and "/".join(parts) == name and ".." not in parts and not re.search(r'[\\:\0-\x1f<>"|?*]', name)


def _from_hub(place: Place, patterns: list[str], limit: int) -> tuple[Path, dict[str, str]]:
    """(folder of the snapshot, {file: digest that the hub states}) after a download."""
    hub = package()
    where: dict = {"repo_type": place.kind, "revision": place.revision or None}
    info = hub.HfApi(endpoint=_endpoint()).repo_info(place.repo, **where, files_metadata=True)
    there = {it.rfilename: it for it in info.siblings or ()}
    wanted = [name for name in there if any(fnmatch.fnmatchcase(name, it) for it in patterns)]
    if not wanted:
        raise _no_file(place, patterns, there)
    if odd := [name for name in wanted if not _is_plain(name)]:
        raise place.error(f"{place} has a file {odd[0]!r:.200}, whose name cannot be used here")
    size = sum(there[name].size or 0 for name in wanted)
    if len(wanted) > MAX_FILES or size > limit:
        found = f"{len(wanted):,} files with {size:,} bytes"
        raise place.error(
            f"{place} has {found}, at most {MAX_FILES:,} with {limit:,} are fetched", "Name one file of it."
        )
    options = {
        **where,
        **_options(),
        "allow_patterns": [glob.escape(it) for it in wanted[:1]] if place.file else patterns,
    }
    snapshot = Path(hub.snapshot_download(place.repo, **options))
    if snapshot.name != info.sha:
        raise place.error(
            f"{place} changed while it was fetched", "Try again, or name a commit: hf://owner/name@COMMIT."
        )
    return snapshot, {name: _digest_of(there[name]) for name in wanted}


def _digest_of(sibling: Any) -> str:
    return sibling.lfs.sha256 if sibling.lfs else sibling.blob_id


def _from_cache(place: Place, patterns: list[str]) -> tuple[Path, dict[str, str]]:
    """The same from huggingface_hub's cache, where a file is a link to one that has its digest as name."""
    options = {**_options(), "repo_type": place.kind, "revision": place.revision or None, "allow_patterns": patterns}
    snapshot = Path(package().snapshot_download(place.repo, **options, local_files_only=True))
    names = (path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())
    wanted = [name for name in names if any(fnmatch.fnmatchcase(name, it) for it in patterns) and _is_plain(name)]
    if not wanted:
        raise _no_file(place, patterns, ())
    return snapshot, {name: (snapshot / name).resolve().name for name in wanted}


def _no_file(place: Place, patterns: list[str], there: Any) -> Exception:
    if not place.file:
        return place.error(f"{place} has no file {' or '.join(patterns)}", "Give the repository that has them.")
    near = nearest(place.file, list(there)[:1000])
    return place.error(f"{place._replace(file='')} has no file {place.file!r}.{near}", "Name one of its files.")


def _place(source: Path, target: Path, expected: str, place: Place) -> str:
    """Puts a file of the hub's cache at `target` after a check of its digest; returns its hex SHA-256."""
    with open(source, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        found = sha256
        if len(expected) == 40:  # git's digest of a small file
            state = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
            file.seek(0)
            while block := file.read(1 << 20):
                state.update(block)
            found = state.hexdigest()
    if len(expected) in (40, 64) and found != expected:
        remedy = f"Delete it and fetch it again: {source.resolve()}"
        raise place.error(f"{place}: {target.name} is damaged: digest {found[:12]}, expected {expected[:12]}", remedy)
    if target.exists() and os.path.samefile(source, target):
        return sha256
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        os.link(source.resolve(), temporary)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # replacing a file by a link to itself does nothing
    return sha256


@contextlib.contextmanager
def _refusing(place: Place, writes: bool = False) -> Iterator[None]:
    """Turns whatever huggingface_hub and the network raise into one line and a remedy."""
    try:
        yield
    except (ConfigError, DataError, RunError):
        raise
    except Exception as error:
        cause = error.__cause__ if type(error) is RuntimeError else None  # of an upload in a thread
        raise place.error(*_explained(cause or error, place, writes)) from None


def _explained(error: BaseException, place: Place, writes: bool) -> tuple[str, str]:
    from huggingface_hub import errors

    login = "Log in with `hf auth login`, or set HF_TOKEN."
    code = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{place} has no revision {place.revision or 'main'!r}", "Give a branch, tag or commit that is there."
    if isinstance(error, errors.GatedRepoError) or code == 403:
        return f"{place}: no permission{' to write' if writes else ''} at {_endpoint()}", login
    if code == 401 and writes or isinstance(error, errors.LocalTokenNotFoundError):
        return f"{place}: {_endpoint()} knows no token of yours that may write there", login
    if isinstance(error, errors.RepositoryNotFoundError) or code in (401, 404):
        return f"{place}: no such repository at {_endpoint()}, or a private one", f"Check the name. {login}"
    if isinstance(error, errors.LocalEntryNotFoundError) or _is_offline():
        kind = " --repo-type dataset" if place.kind == "dataset" else ""
        return f"{place} is not in the cache", f"Fetch it: hf download {place.repo}{kind}; unset HF_HUB_OFFLINE."
    if code:
        return f"{place}: {_endpoint()} answers with status {code}", "Try again later."
    if isinstance(error, OSError) and error.errno and error.filename:  # a disk's, not a connection's
        return (
            f"{place} cannot be kept in {error.filename}: {error.strerror}",
            "Make room, or set HF_HOME, SEM_JAX_CACHE.",
        )
    remedy = "Check the network. HF_HUB_OFFLINE=1 takes what was fetched before."
    return f"{place}: {_endpoint()} cannot be reached ({one_line(error)})", remedy
