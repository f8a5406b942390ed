"""A hub on 127.0.0.1 that serves a folder as one repository, and another as datasets, with the faults of a test.

It answers the requests of huggingface_hub's file system: `/api/models/{repo}` for the commit of main,
`/api/models/{repo}/revision/{commit}`, `/api/models/{repo}/tree/{commit}/{folder}` for the files and their lengths, and
`/{repo}/resolve/{commit}/{file}` for a file or a range of its bytes. Of a dataset, `datasets/{repo}` is in place of the
repository, and the files may be in folders.
"""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

REPO = "somebody/tiny"
COMMIT = "c0ffee" * 6 + "c0ff"
DATASET = re.compile(
    r"(?:/api)?/datasets/(?P<repo>[^/]+/[^/]+)"
    r"(?:/resolve/[^/]+/(?P<file>.+)|/(?P<kind>revision|tree)/[^/]+(?:/(?P<place>.*))?)?"
)
API = "the API"
"""In place of a file, for faults of the answers about the repository."""


@dataclass
class Request:
    """One request for a file, and how many bytes of a body it got."""

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
    `statuses`: what the next answers are instead.
    """

    folder: Path
    commit: str | None = COMMIT  # of main; requests for any other revision than `COMMIT` are refused
    linked: str | None = None  # the address of a second server, to which safetensors are redirected
    ranges: bool = True
    hung: threading.Event | None = None  # an answer that should break off waits for this instead
    datasets: Path | None = None  # with a folder for each dataset, named owner/name
    gated: str = ""  # a dataset that is refused without the authorization "Bearer let-me-in"
    extra: dict[str, Any] = field(default_factory=dict)  # what follows the bytes asked for
    cuts: dict[str, Any] = field(default_factory=dict)
    statuses: dict[str, Any] = field(default_factory=dict)
    bodies: dict[str, Any] = field(default_factory=dict)  # in place of a file's content
    asked: list[Any] = field(default_factory=list)  # for files
    questions: list[Any] = field(default_factory=list)  # paths asked of the API
    address: str = ""

    def sent(self, *files):
        """Bytes of bodies, of some files or of all."""
        return sum(request.sent for request in self.asked if not files or request.file in files)

    def of(self, file):
        """The requests for one file."""
        return [request for request in self.asked if request.file == file]

    def body(self, file):
        """A file's content."""
        return self.bodies[file] if file in self.bodies else (self.folder / file).read_bytes()

    def files(self):
        """The names of all files."""
        return sorted({path.name for path in self.folder.iterdir() if path.is_file()} | self.bodies.keys() - {API})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body does not wait until its head has been acknowledged
    hub: Hub

    def log_message(self, format, *args):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        path = unquote(urlsplit(self.path).path)
        if self.hub.datasets and (asked := DATASET.fullmatch(path)):
            return self._answer_dataset(**asked.groupdict())
        if about := re.fullmatch(rf"/api/models/{REPO}(?:/(revision|tree)/([^/]+)/?)?", path):
            self.hub.questions.append(path)
            return self._tell(*about.groups())
        if wanted := re.fullmatch(rf"/{REPO}/resolve/([^/]+)/(.+)", path):
            return self._serve(*wanted.groups())
        self.hub.questions.append(path)
        return self._refuse(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

    def _answer_dataset(self, repo, file, kind, place):
        """An answer about a dataset, or a file of it."""
        folder = self.hub.datasets / repo
        below = folder / (file or place or "")
        if repo == self.hub.gated and self.headers.get("Authorization") != "Bearer let-me-in":
            self._refuse(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to {repo} is restricted"})
        elif not folder.is_dir():
            self._refuse(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif not (below.is_file() if file else below.is_dir()):
            self._refuse(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        elif file:
            self.request_for = Request(self.command, file, COMMIT, None, None)
            self._give(file, below.read_bytes())
        else:
            told = {"id": repo, "sha": COMMIT, "private": False, "downloads": 0, "likes": 0, "tags": [], "siblings": []}
            self._send_whole(json.dumps(_listing(folder, below) if kind == "tree" else told).encode())

    def _tell(self, kind, revision):
        """An answer of the API."""
        if self.hub.statuses.get(API):
            return self._refuse(self.hub.statuses[API].pop(0), {})
        if revision not in (None, COMMIT):
            return self._refuse(404, {"X-Error-Code": "RevisionNotFound"})
        told = {"id": REPO, "sha": self.hub.commit}
        if kind == "tree":
            bodies = {file: self.hub.body(file) for file in self.hub.files()}
            told = [
                {"type": "file", "path": file, "size": len(body), "oid": blob_id(body)} for file, body in bodies.items()
            ]
        self._send_whole(self.hub.bodies.get(API, json.dumps(told).encode()))

    def _send_whole(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _serve(self, revision, file):
        token = self.headers.get("Authorization")
        self.request_for = Request(self.command, file, revision, self.headers.get("Range"), token)
        self.hub.asked.append(self.request_for)
        if self.hub.statuses.get(file):
            return self._refuse(self.hub.statuses[file].pop(0), {})
        if file not in self.hub.files() or revision != COMMIT:
            return self._refuse(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        if self.hub.linked and file.endswith(".safetensors"):
            return self._refuse(302, {"Location": self.hub.linked + self.path})
        self._give(file, self.hub.body(file))

    def _refuse(self, status, headers):
        """An answer without a body."""
        self.send_response(status)
        for name, value in (headers | {"Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()

    def _give(self, file, body):
        headers = {"ETag": f'"{blob_id(body)}"', "X-Repo-Commit": COMMIT}
        bounds = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.hub.ranges else None
        if bounds:
            first, last = int(bounds[1]), min(int(bounds[2]), len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            body = body[first : last + 1] + self.hub.extra.get(file, b"")
        self.send_response(206 if bounds else 200)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self._send(file, body)

    def _send(self, file, body):
        cuts = self.hub.cuts.get(file)
        cut = cuts.pop(0) if cuts else -1
        part = body if cut < 0 else body[:cut]
        self.request_for.sent += len(part)
        try:
            self.wfile.write(part)
            self.wfile.flush()
        except OSError:  # whoever asked has gone
            self.request_for.sent -= len(part)
        if cut >= 0:
            self.close_connection = True
            if self.hub.hung:
                self.hub.hung.wait()


class Server(ThreadingHTTPServer):
    daemon_threads = True


def blob_id(content):
    """The hash by which git, and so a hub, names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _listing(folder, below):
    """What a hub says of the files and folders in a folder of a dataset."""
    files = {path: path.read_bytes() if path.is_file() else None for path in sorted(below.iterdir())}
    return [
        {"path": str(path.relative_to(folder)), "oid": blob_id(body or b"")}
        | ({"type": "directory"} if body is None else {"type": "file", "size": len(body)})
        for path, body in files.items()
    ]


@contextmanager
def serving(folder, **how):
    """A hub that serves a folder while the block runs."""
    hub = Hub(folder, **how)
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
