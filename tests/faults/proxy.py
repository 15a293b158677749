"""Run an HTTP proxy before an S3 server that disturbs a share of the requests, as stores and networks do."""

from __future__ import annotations

import http.client
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from skinbatch.archive.formats import IMAGE_EXTENSIONS, extension
from tests.handler import Quiet

# In this order: 503 SlowDown; 500; closed before an answer; no answer for longer than a client
# waits; a body that ends before its length; a body, and a length, of half a photo; a wrong byte in
# a file that skinbatch wrote; late by up to 0.3 s; an old listing; a PUT done twice; a PUT that
# fails and is done later; a request that is done, but whose answer is lost.
KINDS = (
    "throttle",
    "fail",
    "reset",
    "stall",
    "cut",
    "short",
    "flip",
    "delay",
    "old",
    "again",
    "late",
    "lost",
)
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


def refusal(status: int, code: str) -> _Answer:
    """Return the answer that S3 gives when it refuses a request."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by the test's proxy</Message></Error>"
    return _Answer(status, [("Content-Type", "application/xml")], text.encode())


class Proxy:
    """Disturb requests to a server.

    share: fraction of the requests to disturb, 0 to 1; the kind is drawn from `seed`. stall_s:
    length of a stall. most: largest number of disturbed requests. patience_s: largest time-out of a
    client. happened: number of times each kind happened. upset: number of times the server itself
    failed or was slower than `patience_s`. refuse: given method and path, returns an answer instead
    of the server's.
    """

    def __init__(
        self,
        upstream: str,
        seed: int = 0,
        share: float = 0.05,
        kinds: Sequence[str] = KINDS,
        stall_s: float = 3.0,
        most: float = math.inf,
        patience_s: float = 1.0,
    ) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self.seed, self.share, self.kinds, self.stall_s, self.most = (
            seed,
            share,
            tuple(kinds),
            stall_s,
            most,
        )
        self.patience_s = patience_s
        self.requests = 0
        self.upset = 0
        self.happened: Counter[str] = Counter()
        self.down = False
        self.refuse: Callable[[str, str], _Answer | None] = lambda method, path: None
        self._lock = threading.Lock()
        self._listings: dict[str, _Answer] = {}
        self._late: list[threading.Thread] = []
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def settle(self) -> None:
        """Wait until every late PUT has landed."""
        for thread in self._late:
            thread.join()

    def draw(self, method: str, path: str) -> str | None:
        """Return how to disturb the next request; None for not at all, or if the kind does not apply."""
        with self._lock:
            self.requests += 1
            rng = random.Random(f"{self.seed} {self.requests}")
            if rng.random() >= self.share or self.happened.total() >= self.most:
                return None
            kind = rng.choice(self.kinds)
            if not _applies(kind, method, path) or (kind == "old" and path not in self._listings):
                others = [k for k in ("throttle", "fail", "reset", "delay") if k in self.kinds]
                if not others:
                    return None
                kind = rng.choice(others)
            self.happened[kind] += 1
            return kind

    def spared(self, kind: str) -> None:
        """Count a drawn request whose answer could not do harm."""
        with self._lock:
            self.happened[kind] -= 1

    def ask(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes
    ) -> _Answer:
        """Return the server's answer."""
        began, status = time.monotonic(), 0
        connection = http.client.HTTPConnection(*self._upstream, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            if body or method in ("PUT", "POST"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            found = connection.getresponse()
            status = found.status
            kept = [
                (n, v)
                for n, v in found.getheaders()
                if n.lower() not in _HOP or (method == "HEAD" and n != "Connection")
            ]
            answer = _Answer(found.status, kept, found.read())
        finally:
            connection.close()
            with self._lock:
                self.upset += not 0 < status < 500 or time.monotonic() - began > self.patience_s
        if _is_listing(method, path) and answer.status == 200:
            with self._lock:
                self._listings.setdefault(path, answer)
        return answer

    def old_listing(self, path: str) -> _Answer:
        with self._lock:
            return self._listings[path]

    def later(self, put: Callable[[], object], seconds: float) -> None:
        def land() -> None:
            time.sleep(seconds)
            with suppress(OSError):
                put()

        self._late.append(threading.Thread(target=land))
        self._late[-1].start()

    def wait(self, seconds: float) -> None:
        self._closing.wait(seconds)


def _is_listing(method: str, path: str) -> bool:
    return method == "GET" and "list-type" in parse_qs(urlsplit(path).query)


def _is_photo(path: str) -> bool:
    return extension(urlsplit(path).path) in IMAGE_EXTENSIONS


def _applies(kind: str, method: str, path: str) -> bool:
    if kind == "old":
        return _is_listing(method, path)
    if kind in ("again", "late"):
        return method == "PUT"
    if kind == "short":
        return method == "GET" and _is_photo(path)
    if kind == "flip":
        return method == "GET" and urlsplit(path).path.endswith((".json", ".parquet"))
    if kind == "cut":
        return method == "GET"
    return True


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(Quiet):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = list(self.headers.items())
            if proxy.down:
                self.reset()
                return
            refused = proxy.refuse(self.command, self.path)
            if refused is not None:
                self._send(refused)
                return
            # A late PUT is done when this connection has gone on to other requests.
            method, path = self.command, self.path
            kind = proxy.draw(method, path)

            def ask() -> _Answer:
                return proxy.ask(method, path, headers, body)

            if kind == "throttle":
                self._send(refusal(503, "SlowDown"))
            elif kind == "fail":
                self._send(refusal(500, "InternalError"))
            elif kind == "reset":
                self.reset()
            elif kind == "stall":
                proxy.wait(proxy.stall_s)
                self.reset()
            elif kind == "lost":
                ask()
                self.reset()
            elif kind == "late":
                proxy.later(ask, 1.0)
                self._send(refusal(500, "InternalError"))
            else:
                if kind == "again":
                    ask()
                if kind == "delay":
                    proxy.wait(0.3)
                answer = proxy.old_listing(path) if kind == "old" else ask()
                harmed = _harmed(answer, kind)
                if kind in ("short", "flip") and harmed is answer:
                    proxy.spared(kind)
                self._send(harmed, cut=kind == "cut")

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

        def _send(self, answer: _Answer, cut: bool = False) -> None:
            # a client that has waited long enough closes the connection
            with suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(answer.status)
                for name, value in answer.headers:
                    if name.lower() not in ("server", "date"):
                        self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
                if cut:
                    self.wfile.flush()
                    self.reset()

    return Handler


def _harmed(answer: _Answer, kind: str | None) -> _Answer:
    if answer.status not in (200, 206) or not answer.body:
        return answer
    half = len(answer.body) // 2
    if kind == "short":
        return _Answer(answer.status, answer.headers, answer.body[:half])
    if kind == "flip":
        return _Answer(
            answer.status,
            answer.headers,
            answer.body[:half] + bytes([answer.body[half] ^ 1]) + answer.body[half + 1 :],
        )
    return answer
