"""A server on 127.0.0.1 that misbehaves on purpose, byte by byte."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PATIENCE = 20.0


@dataclass(frozen=True)
class Request:
    """What a client has sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection: a fault writes to it what it likes."""

    def __init__(self, connection: socket.socket, closing: threading.Event) -> None:
        self._connection = connection
        self._closing = closing

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def pause(self, seconds: float = PATIENCE) -> None:
        """Say nothing for a while; the server's end ends the pause."""
        if self._closing.wait(seconds):
            raise ConnectionAbortedError

    def drip(self, data: bytes, every: float = 0.05) -> None:
        """Send one byte at a time."""
        for number in data:
            self.send(bytes([number]))
            self.pause(every)

    def reset(self) -> None:
        """Close with a reset instead of a proper end."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def read_request(self) -> Request | None:
        data = b""
        while b"\r\n\r\n" not in data:
            block = self._connection.recv(65536)
            if not block:
                return None
            data += block
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        while len(body) < int(headers.get("content-length", 0)):
            body += self._connection.recv(65536)
        method, path, _ = first.split(" ")
        return Request(method, path, headers, body)


Answer = Callable[[Wire, Request], None]


class FaultServer:
    """Answers each connection with a function, in a thread of its own."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._closing = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.requests: list[Request] = []
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            if self._closing.is_set():
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # The client gives up in the middle: that is what is tested.
        with connection, contextlib.suppress(OSError):
            connection.settimeout(PATIENCE)
            wire = Wire(connection, self._closing)
            request = wire.read_request()
            if request is not None:
                self.requests.append(request)
                self._answer(wire, request)

    def close(self) -> None:
        self._closing.set()
        # Closing a socket does not wake the thread that accepts on it; a connection does.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            pass
        self._accepting.join(5)
        self._listening.close()
        for thread in self._threads:
            thread.join(5)
        assert not any(thread.is_alive() for thread in self._threads)


def head(
    kind: str, *, status: str = "200 OK", length: int | None = None, chunked: bool = False
) -> bytes:
    """Return a status line and headers."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of a chunked body; empty data ends the body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def whole(body: object, *, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """Return a complete answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(kind, status=status, length=len(data)) + data
