"""hf://: a small hub on loopback, asked through huggingface_hub."""

import hashlib
import os
import sys

import pytest

from sem_jax.errors import ConfigError, DataError, RunError, SemError
from sem_jax.system.hub import Place, fetch, is_hub, parse, publish

REPO = "some-one/net.v2"
FILES = {"config.json": b"{}", "weights/net.safetensors": b"weights", "README.md": b"# A net\n"}
sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("hf://a/b", Place("model", "a/b", "", "")),
        ("hf://a/b.c@v1.0/d/e.f", Place("model", "a/b.c", "v1.0", "d/e.f")),
        ("hf://datasets/a/b@main", Place("dataset", "a/b", "main", "")),
        ("hf://datasets/a/b@refs/convert/parquet/c", Place("dataset", "a/b", "refs/convert/parquet", "c")),
        ("hf://models/a/b", Place("model", "a/b", "", "")),
    ],
)
def test_urls(url, place):
    assert parse(url) == place and is_hub(url)
    assert parse(str(place)) == place


@pytest.mark.parametrize(
    "url",
    "hf://a hf:// hf://a/b/../c hf://a/b//c hf://../b hf://a/b@ hf://a/b@../x hf://a/.b hf://a/b/C:\\x gs://a/b".split()
    + ["hf://a/b/c\0d", "hf://a/b/c\nd", "hf://a/b/*", "hf://a/b c", "hf://a/" + "b" * 200],
)
def test_what_is_no_url(url):
    with pytest.raises(ConfigError, match="must be like hf://owner/name"):
        parse(url)


def test_a_file_and_a_repository(hub, tmp_path):
    commit = hub.add(REPO, FILES)
    one = fetch(f"hf://{REPO}/weights/net.safetensors")
    assert one.path.read_bytes() == b"weights" and not one.path.is_symlink()
    assert (one.repo, one.revision) == (REPO, commit)
    assert one.files == {"weights/net.safetensors": sha256["weights/net.safetensors"]}
    whole = fetch(f"hf://{REPO}@{commit}", files=("*.json", "*.safetensors"))
    assert whole.files == {name: sha for name, sha in sha256.items() if name != "README.md"}
    assert {it.relative_to(whole.path).as_posix() for it in whole.path.rglob("*") if it.is_file()} == set(whole.files)
    assert whole.path.name == "net.v2" and whole.path.is_relative_to(tmp_path / "sem_jax")


def test_a_newer_commit_is_seen_and_the_older_one_stays(hub):
    old = hub.add(REPO, FILES)
    first = fetch(f"hf://{REPO}", files=("config.json",))
    hub.add(REPO, {"config.json": b"new"})
    assert (fetch(f"hf://{REPO}/config.json").path.read_bytes(), first.revision) == (b"new", old)
    assert (first.path / "config.json").read_bytes() == b"{}"


def test_without_a_network_the_cache_answers(hub, monkeypatch):
    hub.add(REPO, FILES)
    before = fetch(f"hf://{REPO}"), fetch(f"hf://{REPO}/config.json")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.requests)
    assert (fetch(f"hf://{REPO}"), fetch(f"hf://{REPO}/config.json")) == before
    with pytest.raises(RunError, match="hf://a/b is not in the cache"):
        fetch("hf://a/b")
    assert len(hub.requests) == asked
    blob = next(before[0].path.parents[5].rglob("blobs/*"))
    os.chmod(blob, 0o600)
    blob.write_bytes(b"other")
    with pytest.raises(RunError, match="is damaged: digest"):
        fetch(f"hf://{REPO}")


def test_each_file_is_what_the_hub_states(hub):
    hub.add(REPO, FILES)
    for name in ("weights/net.safetensors", "config.json"):  # a large file and a small one
        hub.served[REPO, name] = bytes(len(FILES[name]))
        with pytest.raises(RunError, match=r"is damaged: digest \w+, expected \w+\nDelete it"):
            fetch(f"hf://{REPO}/{name}")


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a\\b", "c:d", "e\nf"])
def test_names_stay_below_the_folder(hub, name):
    hub.add(REPO, {name: b"x"})
    with pytest.raises(RunError, match="whose name cannot be used here"):
        fetch(f"hf://{REPO}")
    assert not any("/resolve/" in it for it in hub.requests)


def test_sizes_are_bounded_before_anything_is_fetched(hub, monkeypatch):
    hub.add(REPO, FILES)
    with pytest.raises(RunError, match="3 files with 17 bytes, at most 10,000 with 10 are fetched"):
        fetch(f"hf://{REPO}", limit=10)
    monkeypatch.setattr("sem_jax.system.hub.MAX_FILES", 2)
    with pytest.raises(RunError, match="3 files"):
        fetch(f"hf://{REPO}")
    assert not any("/resolve/" in it for it in hub.requests)


def refusal(url, **options) -> str:
    with pytest.raises(SemError) as error:
        fetch(url, **options)
    assert len(str(error.value).splitlines()) == 2, str(error.value)
    return str(error.value)


def test_refusals_are_one_line_and_a_remedy(hub, monkeypatch, tmp_path):
    hub.add(REPO, FILES)
    hub.add("a/set", {"train.parquet": b"x"}, "dataset")
    assert "no such repository at http://127.0.0.1" in refusal("hf://no/body")
    assert "no such repository" in refusal("hf://a/set")  # a data set is no model
    assert "has no revision 'v9'" in refusal(f"hf://{REPO}@v9")
    assert "has no file 'confg.json'. Did you mean 'config.json'?" in refusal(f"hf://{REPO}/confg.json")
    assert "has no file *.parquet" in refusal(f"hf://{REPO}", files=("*.parquet",))
    with pytest.raises(DataError, match="hf://datasets/no/set: no such repository"):
        fetch("hf://no/set", kind="dataset")
    hub.private.add(REPO)
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert "no such repository" in refusal(f"hf://{REPO}") and "hf auth login" in refusal(f"hf://{REPO}")
    for status, words in ((403, "no permission"), (500, "answers with status 500")):
        hub.fails = status
        assert words in refusal(f"hf://{REPO}")
    hub.fails = 0
    hub.private.clear()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEM_JAX_CACHE", str(tmp_path / "file"))
    assert "cannot be kept in" in refusal(f"hf://{REPO}")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in refusal(f"hf://{REPO}")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install huggingface_hub" in refusal(f"hf://{REPO}")


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own call of httpx
def test_publish_makes_one_commit_of_small_and_large_files(hub, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the loopback hub has no Xet storage
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    files = {name: tmp_path / name for name in FILES}
    commit = publish(f"hf://{REPO}", files, message="A run", private=True)
    assert hub.files(REPO) == FILES and hub.messages == ["A run"]
    assert fetch(f"hf://{REPO}@{commit}").files == sha256
    (tmp_path / "README.md").write_text("# Other\n")
    assert publish(f"hf://{REPO}", files, message="Again") != commit
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(RunError, match="knows no token of yours"):
        publish(f"hf://{REPO}", files, message="Again")
    with pytest.raises(ConfigError, match="names a file"):
        publish(f"hf://{REPO}/x", files, message="Again")
