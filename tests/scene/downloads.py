"""A local server that is slow, drops the connection, or sends the wrong content, and a scene to fetch from it."""

import hashlib
import http.server
import time
from pathlib import Path

from hsi_se.progress import Silent
from hsi_se.scene.catalogue import KnownFile, KnownScene
from hsi_se.scene.fetch import fetch_scene

CONTENT = {"cube.mat": bytes(range(256)) * 2000, "labels.mat": b"labels" * 300}


class Server(http.server.ThreadingHTTPServer):
    """Serves /FAULT/NAME: the file NAME, damaged as FAULT says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.cuts_left = 0

    def url(self, fault: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{fault}"

    def handle_error(self, request, client_address):
        """Ignores clients that hang up."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requests.append(self.path)
        _, fault, name, *_ = self.path.split("/")
        content = CONTENT.get(name, b"<!DOCTYPE html>")  # pip asks for a page of links
        if fault == "missing":
            self.send_error(404)
            return
        if fault == "page":
            content = b"\n<!DOCTYPE html>\n<html><body>Moved</body></html>"
        if fault == "wrong-byte":
            content = content[:100] + b"?" + content[101:]
        if fault == "endless":
            content *= 3
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "cut" or (fault == "cut-once" and self.server.cuts_left > 0):
            self.server.cuts_left -= 1
            self.wfile.write(content[: len(content) // 2])
            return
        if fault == "silent":
            time.sleep(3)
        for start in range(0, len(content), len(content) // 5 + 1):
            self.wfile.write(content[start : start + len(content) // 5 + 1])
            if fault == "slow":
                time.sleep(0.1)

    def log_message(self, *args):
        """Prints nothing."""


def make_scene(*bases: str) -> KnownScene:
    """Returns a scene of two small files, to be fetched from the bases in this order."""

    def file(name: str) -> KnownFile:
        return KnownFile(
            names=(name,),
            keys=("x",),
            sources=tuple(f"{base}/{name}" for base in bases),
            num_bytes=len(CONTENT[name]),
            sha256=hashlib.sha256(CONTENT[name]).hexdigest(),
        )

    return KnownScene(
        name="test",
        title="test",
        aliases=(),
        cube=file("cube.mat"),
        labels=file("labels.mat"),
        shape=(1, 1, 1),
        class_names={1: "a"},
        sensor="none",
        gsd_m=1,
        wavelengths_nm=(400, 500),
    )


class Recorder(Silent):
    """An observer that records its events."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.count = 0
        self.notes: list[str] = []

    def start(self, task, *, total, unit):
        assert unit == "B"
        self.started.append((task, total))

    def advance(self, count):
        self.count += count

    def note(self, text):
        self.notes.append(text)


def fetch(scene: KnownScene, folder: Path, *, timeout_s: float = 10) -> Recorder:
    recorder = Recorder()
    fetch_scene(scene, folder, progress=recorder, timeout_s=timeout_s)
    return recorder


def assert_complete(folder: Path) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
