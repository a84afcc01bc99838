"""Serves the stand-in for the W&B backend on the loopback: GraphQL, the stream of a run's lines, and stored files."""

import gzip
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from wandb_backend import Backend

KEY = "k" * 40


class Handler(BaseHTTPRequestHandler):
    """Passes requests to the backend."""

    protocol_version = "HTTP/1.1"
    backend: Backend

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""

    def _answer(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        if self.backend.fault == "close":
            self.close_connection = True
            return
        if self.backend.fault == "hang":
            self.backend.mended.wait(60)
        elif self.backend.fault:
            self._reply(int(self.backend.fault), b"{}")
            return
        with self.backend.lock:
            stream = re.fullmatch(r"/files/(?:[^/]+/)?[^/]+/([^/]+)/file_stream", path)
            if path == "/graphql":
                self._reply(200, json.dumps(self.backend.graphql(json.loads(body))).encode())
            elif stream:
                self._reply(200, json.dumps(self.backend.file_stream(stream[1], json.loads(body))).encode())
            elif path.startswith("/storage/"):
                self._store(f"{self.backend.url}{path}", body)
            elif path.startswith("/sdk/otel"):
                self.backend.operations["telemetry"] += 1
                self._reply(200, b"{}")
            else:
                self.backend.unknown.append(f"{self.command} {path}")
                self._reply(404, b"{}")

    do_GET = do_POST = do_PUT = do_HEAD = _answer

    def _store(self, address: str, body: bytes) -> None:
        if self.command == "PUT":
            self.backend.storage[address] = body
            self._reply(200, b"", ETag=f'"{hashlib.md5(body).hexdigest()}"')
        elif address in self.backend.storage:
            self._reply(200, self.backend.storage[address])
        else:
            self._reply(404, b"")

    def _body(self) -> bytes:
        if (self.headers.get("Transfer-Encoding") or "").lower() == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _reply(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def listening() -> Iterator[Backend]:
    """Serve a new backend on a free port of the loopback."""
    backend = Backend()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"backend": backend}))
    server.daemon_threads = True
    backend.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield backend
    finally:
        server.shutdown()
        server.server_close()
