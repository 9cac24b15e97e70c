"""Downloads from a real HTTP server on loopback: good file, wrong checksum, cut connection, errors, no network."""

import dataclasses
import hashlib
import http.server
import socket
import threading

import pytest

from sem_jax.data import download
from sem_jax.data.facts import Reading, Remote
from sem_jax.data.prepare import prepare
from sem_jax.data.public import load_public
from sem_jax.errors import DataError
from tests.helpers.data_sets import check_message, cifar10_archive, small_cifar10


@pytest.fixture
def server():
    """Serves `server.content`; `server.mode` is good, cut (half of the announced bytes), missing (404)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            owner.paths.append(self.path)
            if owner.mode == "missing":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(owner.content)))
            self.end_headers()
            self.wfile.write(owner.content[: len(owner.content) // 2] if owner.mode == "cut" else owner.content)

        def log_message(self, *args):
            pass

    owner = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    owner.content, owner.mode, owner.paths = b"x" * 100_000, "good", []
    owner.url = f"http://127.0.0.1:{owner.server_port}"
    thread = threading.Thread(target=owner.serve_forever, daemon=True)
    thread.start()
    yield owner
    owner.shutdown()
    owner.server_close()


def remote(server, name="set.tar.gz"):
    digest = hashlib.sha256(server.content).hexdigest()
    return Remote(f"{server.url}/official/{name}", len(server.content), f"sha256:{digest}")


def test_good(server, tmp_path):
    lines = []
    path = download.fetch(remote(server), tmp_path / "d", say=lines.append)
    assert len(lines) == 1 and server.url in lines[0]
    assert path.read_bytes() == server.content and download.is_official(path, remote(server))
    download.fetch(remote(server), tmp_path / "d")
    assert server.paths == ["/official/set.tar.gz"]  # the second time the file is there
    path.write_bytes(b"damaged")
    assert download.fetch(remote(server), tmp_path / "d").read_bytes() == server.content


def test_mirror(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SEM_JAX_MIRROR", server.url + "/copy/")
    download.fetch(remote(server)._replace(url="http://nowhere.invalid/a/set.tar.gz"), tmp_path)
    assert server.paths == ["/copy/set.tar.gz"]


@pytest.mark.parametrize(
    "fault, word", [("wrong", "checksum"), ("cut", "cut"), ("missing", "404"), ("refused", "refused")]
)
def test_bad(server, tmp_path, fault, word):
    wanted, url = remote(server), ""
    if fault == "wrong":
        server.content = b"y" * 100_000
    elif fault == "refused":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/set.tar.gz"
    else:
        server.mode = fault
    with pytest.raises(DataError) as caught:
        download.fetch(wanted, tmp_path / "d", url=url)
    check_message(caught.value, "set.tar.gz", word)
    assert not list((tmp_path / "d").iterdir())  # nothing half-done is left


def test_load_downloads_and_prepares(server, tmp_path, monkeypatch, own_home, capsys):
    server.content = cifar10_archive(tmp_path).read_bytes()
    spec = dataclasses.replace(small_cifar10(monkeypatch), remotes=(remote(server, "cifar-10-binary.tar.gz"),))

    server.mode = "missing"
    with pytest.raises(DataError) as caught:
        load_public(spec)
    home = str(own_home / "tensorflow_datasets")
    check_message(caught.value, home, "404", "python -m sem_jax prepare cifar10")
    with pytest.raises(DataError) as caught:
        load_public(spec, data_dir=str(tmp_path / "here"), reading=Reading(download=False))
    check_message(caught.value, home, str(tmp_path / "here"), "python -m sem_jax prepare cifar10")

    assert capsys.readouterr() == ("", "")  # the error is all there is to read

    server.mode = "good"
    loaded = load_public(spec)
    assert "downloading" in capsys.readouterr().err
    assert len(loaded.splits["train"].labels) == 40
    count = len(server.paths)
    load_public(spec)
    prepare(spec, force=True)
    assert len(server.paths) == count  # prepared, and the archive kept
    assert (own_home / "tensorflow_datasets/downloads/manual/cifar-10-binary.tar.gz").is_file()
