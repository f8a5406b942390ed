"""A hub on 127.0.0.1: a folder's files under `/{repo}/resolve/{revision}/{file}`, with the faults a test asks for."""

import hashlib
import re
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

REPO = "somebody/tiny"
COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Asked:
    """One request, and how many bytes of a body it got."""

    method: str
    file: str
    revision: str
    range: str | None
    token: str | None
    sent: int = 0


@dataclass
class Hub:
    """What is served, how, and what was asked for.

    Faults are keyed by file. `cuts`: after how many bytes of a body each next answer breaks off; -1 for never.
    `statuses`: what the next answers are instead. `headers`: what an answer says on top; None for what it leaves out.
    """

    folder: object
    linked: str | None = None  # the address of a second server, to which safetensors are redirected
    ranges: bool = True
    main_alone: bool = False  # commits are named, and not served
    hung: threading.Event | None = None  # an answer that should break off waits for this instead
    extra: dict = field(default_factory=dict)  # what follows the bytes asked for
    cuts: dict = field(default_factory=dict)
    statuses: dict = field(default_factory=dict)
    headers: dict = field(default_factory=dict)
    bodies: dict = field(default_factory=dict)  # in place of a file's content
    asked: list = field(default_factory=list)
    strays: list = field(default_factory=list)  # paths asked for that are no file of the repository
    address: str = ""

    def sent(self, *files):
        """Bytes of bodies, of some files or of all."""
        return sum(asked.sent for asked in self.asked if not files or asked.file in files)

    def of(self, file):
        """The requests for one file."""
        return [asked for asked in self.asked if asked.file == file]

    def body(self, file):
        """What a file says."""
        return self.bodies[file] if file in self.bodies else (self.folder / file).read_bytes()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body does not wait until its head has been acknowledged
    hub: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        found = re.fullmatch(rf"/{REPO}/resolve/([^/]+)/(.+)", self.path)
        if not found:
            self.hub.strays.append(self.path)
            return self._refuse(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        revision, file = found.groups()
        token = self.headers.get("Authorization")
        self.asked = Asked(self.command, file, revision, self.headers.get("Range"), token)
        self.hub.asked.append(self.asked)
        if self.hub.main_alone and revision != "main":
            return self._refuse(404, {})
        if self.hub.statuses.get(file):
            return self._refuse(self.hub.statuses[file].pop(0), {})
        if file not in self.hub.bodies and not (self.hub.folder / file).is_file():
            return self._refuse(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        body = self.hub.body(file)
        if self.hub.linked and file.endswith(".safetensors"):
            linked = {"X-Linked-Etag": f'"{sha256(body)}"', "X-Linked-Size": str(len(body)), "X-Repo-Commit": COMMIT}
            return self._refuse(302, linked | {"Location": self.hub.linked + self.path})
        self._give(file, body)

    def _refuse(self, status, headers):
        """An answer without a body."""
        self.send_response(status)
        for name, value in (headers | {"Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()

    def _give(self, file, body):
        headers = {"ETag": f'"{blob_id(body)}"', "X-Repo-Commit": COMMIT}
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.hub.ranges else None
        if asked:
            first, last = int(asked[1]), min(int(asked[2]), len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            body = body[first : last + 1] + self.hub.extra.get(file, b"")
        headers["Content-Length"] = str(len(body))
        headers |= self.hub.headers.get(file, {})
        self.send_response(206 if asked else 200)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self._send(file, body)

    def _send(self, file, body):
        cuts = self.hub.cuts.get(file)
        cut = cuts.pop(0) if cuts else -1
        part = body if cut < 0 else body[:cut]
        self.asked.sent += len(part)
        try:
            self.wfile.write(part)
            self.wfile.flush()
        except OSError:  # whoever asked has gone
            self.asked.sent -= len(part)
        if cut >= 0:
            self.close_connection = True
            if self.hub.hung:
                self.hub.hung.wait()


class OneAtATime(HTTPServer):
    """Serves a connection until it is closed, and the next one then."""

    def handle_error(self, request, client_address):
        """Nothing is said of a client that has gone: it may close a connection that was kept open."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Server(ThreadingHTTPServer, OneAtATime):
    daemon_threads = True


def blob_id(content):
    """The hash by which git, and so a hub's ETag, names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content):
    """The hash by which a hub's ETag names a large file."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serving(folder, kind=Server, **how):
    """A hub that serves a folder while the block runs."""
    hub = Hub(folder, **how)
    server = kind(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
