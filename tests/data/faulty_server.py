"""A local HTTP server that serves files with the faults of real ones."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!DOCTYPE html><html><title>Virus scan warning</title><body>Sign in to download</body></html>"


@dataclass
class Served:
    """One file of the server.

    Attributes:
        content: Its bytes.
        status: Answered instead of 200 where it is not 200.
        cut: Share of the whole file after which a connection is closed; each answer cuts anew until `cuts` are spent.
        cuts: How many answers are cut.
        ranges: Whether parts are served, and a validator is sent.
        version: The ETag.
        pause: Seconds after each piece of 64 KiB.
        length: Whether Content-Length is sent.
        kind: Content-Type.
    """

    content: bytes = b""
    status: int = 200
    cut: float = 1.0
    cuts: int = 10**9
    ranges: bool = True
    version: str = '"one"'
    pause: float = 0.0
    length: bool = True
    kind: str = "application/octet-stream"


@dataclass
class Server:
    """Where it listens, what it serves by path, and the (path, Range) of each request."""

    address: str
    files: dict[str, Served]
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


@contextmanager
def serving(files: dict[str, Served]) -> Iterator[Server]:
    """Serve `files` ({path: what}) until the block ends."""
    server = Server("", files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append((self.path, self.headers.get("Range")))
            _answer(self, files.get(self.path.lstrip("/")))

        def log_message(self, *arguments: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server.address = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()


def _answer(handler: BaseHTTPRequestHandler, served: Served | None) -> None:
    if served is None or served.status != 200:
        handler.send_error(404 if served is None else served.status)
        return
    wanted, total = handler.headers.get("Range"), len(served.content)
    partial = served.ranges and wanted is not None and handler.headers.get("If-Range") in (None, served.version)
    start = int(wanted.removeprefix("bytes=").rstrip("-")) if partial and wanted else 0
    handler.send_response(206 if partial else 200)
    handler.send_header("Content-Type", served.kind)
    if partial:
        handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
    if served.ranges:
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("ETag", served.version)
    if served.length:
        handler.send_header("Content-Length", str(total - start))
    handler.end_headers()
    end = total
    if served.cut < 1 and served.cuts > 0:
        served.cuts -= 1
        # The share is of what is left, so that a resumed answer gets further.
        end = start + int((total - start) * served.cut)
    try:
        for place in range(start, end, 65536):
            handler.wfile.write(served.content[place : min(place + 65536, end)])
            time.sleep(served.pause)
    except OSError:
        pass  # The client went away.
    handler.close_connection = True
