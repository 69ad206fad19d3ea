"""A real HTTP server on the loopback interface, with the habits and faults that downloads meet."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Serves `content` at every path but `/missing`.

    `etag` and `modified` are what it calls the version of `content`; `ranges` is whether it sends parts;
    `cut` how many bytes of each answer it sends before it breaks the connection, in turn, None for all;
    `gate`, when it is there, is waited for in the middle of each answer.
    """

    content: bytes = b""
    etag: str | None = '"1"'
    modified: str | None = None
    ranges: bool = True
    says_length: bool = True
    wrong_part: bool = False
    cut: list[int | None] = field(default_factory=list)
    gate: threading.Event | None = None
    #: What was asked: the value of the Range header of each request.
    asked: list[str | None] = field(default_factory=list)
    #: How many bytes of content were sent, over all requests.
    served: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        """Where the content is."""
        return f"http://127.0.0.1:{self.port}/image.qcow2"

    def start(self) -> ThreadingHTTPServer:
        """Listen on a free port; the caller shuts it down."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": self}))
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server


class _Handler(BaseHTTPRequestHandler):  # the standard library asks for a class
    served: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.served.asked.append(asked)
        self.close_connection = True
        if self.path == "/missing":
            self.send_error(404)
            return
        begin = self._begin(asked)
        if begin is not None and begin >= len(self.served.content):
            self.send_error(416)
            return
        self._send(begin)

    def _begin(self, asked: str | None) -> int | None:
        condition = self.headers.get("If-Range")
        if (
            asked is None
            or not self.served.ranges
            or condition not in (None, self.served.etag, self.served.modified)
        ):
            return None
        match = re.fullmatch(r"bytes=(\d+)-", asked)
        assert match is not None, f"a Range header that no server knows: {asked}"
        return int(match[1])

    def _send(self, begin: int | None) -> None:
        body = self.served.content[begin or 0 :]
        self.send_response(200 if begin is None else 206)
        if begin is not None:
            shown = begin + 1 if self.served.wrong_part else begin
            whole = len(self.served.content)
            self.send_header("Content-Range", f"bytes {shown}-{whole - 1}/{whole}")
        if self.served.says_length:
            self.send_header("Content-Length", str(len(body)))
        for name, value in (("ETag", self.served.etag), ("Last-Modified", self.served.modified)):
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        cut = self.served.cut.pop(0) if self.served.cut else None
        middle = len(body) // 2
        self._write(body[:middle] if cut is None else body[:cut])
        if self.served.gate is not None:
            self.wfile.flush()
            self.served.gate.wait(30)
        if cut is None:
            self._write(body[middle:])

    def _write(self, data: bytes) -> None:
        self.served.served += len(data)
        self.wfile.write(data)
