"""Object stores that listen on this machine alone, and a door in front of one that does harm."""

from __future__ import annotations

import http.client
import logging
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

HOST = "127.0.0.1"
BUCKET = "bucket"
#: what tests give as credentials, and look for in what a run leaves
SECRET = "sesame-0f3c"
KEY_ID = "AKIATESTER0F3C"
_NOT_PASSED_ON = {"transfer-encoding", "connection", "content-length", "server", "date"}


class Door(ThreadingHTTPServer):
    """Passes requests on, counts them, and does harm to as many writes as it is told.

    Attributes:
        seen: requests by their kind.
        harms: of each coming write: a status to answer without passing it on, "drop" to pass it on
            and never answer, or None.
        delay_s: to wait with each write.
        is_open: no write gets on while it is not set.
    """

    daemon_threads = True

    def __init__(self, behind: tuple[str, int]) -> None:
        super().__init__((HOST, 0), _Passing)
        self.behind, self.seen = behind, Counter[str]()
        self.harms: Iterator[int | str | None] = iter(())
        self.delay_s = 0.0
        self.is_open = threading.Event()
        self.is_open.set()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class _Passing(BaseHTTPRequestHandler):
    server: Door
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen[self.command] += 1
        harm = None
        if self.command == "PUT":
            harm = next(self.server.harms, None)
            time.sleep(self.server.delay_s)
            self.server.is_open.wait()
        if isinstance(harm, int):
            self._answer(harm, [], b"")
            return
        inner = http.client.HTTPConnection(*self.server.behind)
        inner.request(self.command, self.path, body, dict(self.headers))
        answer = inner.getresponse()
        data = answer.read()
        inner.close()
        if harm == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._answer(answer.status, answer.getheaders(), data)

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        length = str(len(data))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def s3() -> Iterator[Door]:
    """moto behind a door, with an empty bucket, named in the environment."""
    server = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = server.ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    moto.start()
    behind = moto.get_host_and_port()
    request = urllib.request.Request(f"http://{behind[0]}:{behind[1]}/{BUCKET}", method="PUT")
    urllib.request.urlopen(request).close()
    door = Door(behind)
    told = {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{HOST}:{door.server_port}",
        "AWS_ALLOW_HTTP": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        yield door
    door.shutdown()
    door.server_close()
    moto.stop()


@contextmanager
def azure(folder: Path) -> Iterator[None]:
    """Azurite, if there is one (npm install azurite), named in the environment."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no azurite-blob on the PATH; npm install azurite brings one")
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    arguments = ["--blobHost", HOST, "--blobPort", str(port), "--location", str(folder), "--silent"]
    process = subprocess.Popen([program, *arguments, "--skipApiVersionCheck", "--loose"])
    account = "devstoreaccount1"  # Azurite's own, with the key that everybody knows
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    told = {
        "AZURE_STORAGE_ACCOUNT_NAME": account,
        "AZURE_STORAGE_ACCOUNT_KEY": key,
        "AZURE_STORAGE_ENDPOINT": f"http://{HOST}:{port}/{account}",
        "AZURE_ALLOW_HTTP": "true",
    }
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in told.items():
                patch.setenv(name, value)
            _wait(port)
            yield
    finally:
        process.terminate()
        process.wait()


def _wait(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((HOST, port)).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
