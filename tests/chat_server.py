"""An OpenAI-compatible server on 127.0.0.1, with the faults that a test asks for."""

import hashlib
import json
import socket
import struct
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Fake:
    """A server: what it is asked, and what its next answers are instead of one.

    Faults: a status with headers and a body, or "reset" for a connection that breaks off.
    """

    url: str = ""
    faults: list[Any] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    logprobs: list[float] | None = None
    usage: bool = True
    finish: str = "stop"
    meeting: threading.Barrier | None = None  # where requests wait for each other
    under_way: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def completion(self, asked):
        """Decided by the request alone."""
        text = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8] + " " + asked["messages"][-1]["content"]
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": self.finish}
        if asked.get("logprobs") and self.logprobs:
            choice["logprobs"] = {"content": [{"token": "a", "logprob": p, "top_logprobs": []} for p in self.logprobs]}
        found = {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice]}
        return found | (
            {"usage": {"completion_tokens": 7, "prompt_tokens": 1, "total_tokens": 8}} if self.usage else {}
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: Fake

    def log_message(self, format, *args):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fake = self.fake
        with fake.lock:
            fake.requests.append(asked)
            fake.keys.append(self.headers["Authorization"])
            fault = fake.faults.pop(0) if fake.faults else None
            fake.under_way += 1
            fake.most = max(fake.most, fake.under_way)
        if fake.meeting:
            fake.meeting.wait(20)
        with fake.lock:
            fake.under_way -= 1
        assert self.path == "/v1/chat/completions"
        if fault == "reset":
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self._say(*(fault or (200, {}, fake.completion(asked))))

    def _say(self, status, headers, body):
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": len(content)} | headers).items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Nothing is said of a connection that is gone."""
        if not isinstance(sys.exception(), OSError | ValueError | threading.BrokenBarrierError):
            super().handle_error(request, client_address)


@contextmanager
def serving(**how):
    """A fake server while the block runs."""
    fake = Fake(**how)
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"fake": fake}))
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
