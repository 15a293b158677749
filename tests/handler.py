"""Provide a base for servers in tests that misbehave."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from http.server import BaseHTTPRequestHandler


class Quiet(BaseHTTPRequestHandler):
    """Print nothing, and ignore connections that were closed meanwhile."""

    protocol_version = "HTTP/1.1"

    def reset(self) -> None:
        """Close the connection without an answer, as a machine that restarts does."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *_: object) -> None:
        """Print nothing: the tests check what happened."""

    def handle(self) -> None:
        with suppress(OSError, ValueError):  # what follows a reset connection
            super().handle()

    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()
