"""One guarded way to talk to model servers.

A server may be slow, dead, half closed or something else altogether. Every request here has one
deadline for all of it, from the name's look-up to the last byte; the time is checked at every
read, so a server that sends a byte now and then does not get around it. Answers have a largest
size. Redirects are not followed, no proxy is used, nothing is asked twice. Whatever goes wrong is
an :class:`~guidebook.engines.base.EngineError` with one sentence on what came and what to do.

The client libraries of OpenAI and Ollama know none of these limits: theirs start anew with every
byte. :meth:`Http.transport` puts these requests under them, whichever HTTP library they bring.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import json
import math
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from guidebook.engines.base import EngineError
from guidebook.machine import processes
from guidebook.machine._outside import Later

LARGEST_LINE = 1024**2
LARGEST_BODY = 16 * 1024**2
_LARGEST_STREAM = 256 * 1024**2
# Longest a server may stay silent once its answer has begun.
IDLE_SECONDS = 30.0
_LARGEST_REFUSAL = 64 * 1024
_LOOK_UP_SECONDS = 5.0
_LONGEST_QUOTE = 300
_READ_BYTES = 64 * 1024
_HEADERS = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "guidebook"}
_START = {
    1234: "start LM Studio's server with `lms server start`",
    8000: "start it with `vllm serve MODEL` or `python -m llama_cpp.server --model FILE.gguf`",
    8080: "start it with `llama-server -m FILE.gguf`",
    11434: "start Ollama with `ollama serve`",
}
_CONTEXT = re.compile(
    r"context.?(length|window|size)|exceed_context|longer than the (model|maximum)|too many tokens",
    re.IGNORECASE,
)

Json: TypeAlias = Any


class StatusError(EngineError):
    """A server answered with an error of its own.

    Attributes
    ----------
    status
        HTTP status; 200 if the error came inside a stream that had begun well.
    said
        The server's own words, shortened; empty if it gave none.
    """

    def __init__(self, sentence: str, status: int, said: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.said = said

    @property
    def is_about_context(self) -> bool:
        """Whether the server complains that prompt and answer do not fit its context."""
        return self.status in (200, 400, 413, 422, 500) and bool(_CONTEXT.search(self.said))


class BrokenStream(EngineError):
    """A stream ended before its end was announced."""


class Address:
    """Where a server listens.

    Parameters
    ----------
    url
        Such as ``http://127.0.0.1:1234/v1``; without a scheme it is taken as HTTP.
    port
        Port where the address names none; without it, the scheme's usual one.

    Raises
    ------
    ValueError
        It is not an address of a web server, or holds a password.
    """

    def __init__(self, url: str, port: int | None = None) -> None:
        given = url.strip()
        parts = urlsplit(given if "://" in given else f"http://{given}")
        try:
            found = parts.port
        except ValueError:
            raise ValueError(f"{url!r} has no valid port; write http://127.0.0.1:1234.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a server's address; write http://127.0.0.1:1234.")
        if parts.username or parts.password:
            raise ValueError("A server's address must not hold a password: give it as api_key.")
        if any(sign.isspace() or not sign.isprintable() for sign in given):
            raise ValueError(f"{url!r} is not a server's address; write http://127.0.0.1:1234.")
        self.is_https = parts.scheme == "https"
        self.host = parts.hostname
        self.port = found or port or (443 if self.is_https else 80)
        self.path = parts.path.rstrip("/")

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_https else 'http'}://{host}:{self.port}"

    @property
    def is_this_machine(self) -> bool:
        """Whether the host is this machine itself."""
        if self.host == "localhost":
            return True
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        if address.is_loopback:
            return True
        import psutil

        own = (entry.address for entries in psutil.net_if_addrs().values() for entry in entries)
        return str(address) in own


class Http:
    """Requests to one server.

    Parameters
    ----------
    address
        The server; requests name paths below its origin.
    who
        How messages call the server.
    api_key
        Sent as bearer token.
    time_limit
        Seconds for a whole request, its answer included.
    idle_limit
        Seconds a server may be silent once its answer has begun.
    """

    def __init__(
        self,
        address: Address,
        who: str,
        *,
        api_key: str | None = None,
        time_limit: float = 120.0,
        idle_limit: float = IDLE_SECONDS,
    ) -> None:
        for name, seconds in (("time_limit", time_limit), ("idle_limit", idle_limit)):
            if not (math.isfinite(seconds) and seconds > 0):
                raise ValueError(f"{name} is {seconds}: it must be a positive number of seconds.")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("The api_key holds characters that cannot be sent in a header.")
        self.address = address
        self.who = f"{who} at {address.origin}"
        self.time_limit = time_limit
        self.idle_limit = idle_limit
        self._key = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}

    def ask(self, path: str, body: Json = None, *, seconds: float | None = None) -> Json:
        """Return the JSON that a server answers with; with a body, it is posted."""
        data = None if body is None else json.dumps(body).encode()
        headers = {**_HEADERS, **self._key, "Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        method = "GET" if data is None else "POST"
        with closing(self._send(method, path, data, headers, seconds)) as reply:
            return self.parse(b"".join(reply.blocks()))

    def transport(
        self,
        library: Any,  # noqa: ANN401 - httpx or httpx2, which share no base
        add: Mapping[str, Mapping[str, Json]] | None = None,
    ) -> Any:  # noqa: ANN401
        """Return a transport for a client library that sends its requests through here.

        Parameters
        ----------
        library
            The HTTP library that the client is built on: ``httpx`` or ``httpx2``.
        add
            Fields that the client does not know, by the path they are posted to.
        """
        http_ = self

        class Stream(library.SyncByteStream):  # type: ignore[misc]
            def __init__(self, reply: _Reply) -> None:
                self._reply = reply

            def __iter__(self) -> Iterator[bytes]:
                return self._reply.lines()

            def close(self) -> None:
                self._reply.close()

        class Transport(library.BaseTransport):  # type: ignore[misc]
            def handle_request(self, request: Any) -> Any:  # noqa: ANN401
                data = request.read() or None
                path = request.url.raw_path.decode("ascii")
                if data is not None and add and path in add:
                    data = json.dumps({**json.loads(data), **add[path]}).encode()
                own = ("accept", "authorization", "content-type")
                headers = {name: request.headers[name] for name in own if name in request.headers}
                reply = http_._send(request.method, path, data, {**_HEADERS, **headers}, None)
                return library.Response(
                    reply.status, headers={"Content-Type": reply.kind}, stream=Stream(reply)
                )

        return Transport()

    def parse(self, text: bytes | str) -> Json:
        """Read JSON strictly: NaN and infinity are not part of it."""
        if not text.strip():
            raise self.fault("sends an empty answer", "See what the server's log says")
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            shown = text if isinstance(text, str) else text.decode("utf-8", errors="replace")
            if shown.lstrip()[:1] == "<":
                raise self._web_page() from None
            raise self.fault(
                f"sends something that is not valid JSON ({quote(shown, 60)})",
                "See whether a model server listens there, and what its log says",
            ) from None

    def fault(self, what: str, advice: str) -> EngineError:
        """Return an error that names the server."""
        return EngineError(f"{self.who} {what}. {advice}.")

    def refusal(self, status: int, said: str) -> StatusError:
        """Return an error that passes on what the server itself says."""
        words = f": {said.rstrip('.')}." if said else "."
        sentence = f"{self.who} {_status(status)}{words} {_advice(status)}"
        return StatusError(sentence.strip(), status, said)

    def _send(
        self,
        method: str,
        path: str,
        data: bytes | None,
        headers: Mapping[str, str],
        seconds: float | None,
    ) -> _Reply:
        """Send a request and wait for the headers of an answer that may be used."""
        clock = _Clock(self.time_limit if seconds is None else seconds, self.idle_limit)
        with self.sentences(clock):
            sock = self._connect(clock)
            try:
                sock = self._secured(sock, clock)
                connection = http.client.HTTPConnection(self.address.host, self.address.port)
                connection.sock = _GuardedSocket(sock, clock)
                connection.request(method, path, data, headers)
                reply = _Reply(self, clock, sock, connection.getresponse())
                self._check(reply)
            except BaseException:
                sock.close()
                raise
        return reply

    @contextmanager
    def sentences(self, clock: _Clock) -> Iterator[None]:
        """Say what goes wrong below in the words of this module."""
        try:
            yield
        except TimeoutError:
            raise self._late(clock) from None
        except (http.client.IncompleteRead, ConnectionError):
            raise self.broken() from None
        except (http.client.HTTPException, ValueError):
            raise self.fault(
                "does not speak HTTP as it should", "See whether a model server listens there"
            ) from None
        except OSError as error:
            raise self.fault(
                f"cannot be talked to ({error.strerror or error})", "Look at the network"
            ) from None

    def _connect(self, clock: _Clock) -> socket.socket:
        """Connect to the first address of the host that answers."""
        refused = False
        for family, kind, protocol, _, where in self._look_up(clock):
            plain = socket.socket(family, kind, protocol)
            try:
                plain.settimeout(clock.left())
                plain.connect(where)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except BaseException as error:
                plain.close()
                if isinstance(error, ConnectionRefusedError):
                    refused = True
                elif isinstance(error, TimeoutError):
                    raise self._late(clock) from None
                elif not isinstance(error, OSError):
                    raise
            else:
                return plain
        start = _START.get(self.address.port, "start the server, or look at its port")
        if refused:
            raise self.fault(
                "refuses the connection: nothing listens there", start[0].upper() + start[1:]
            )
        raise self.fault("cannot be reached", "Look at the address and the network, and " + start)

    def _look_up(self, clock: _Clock) -> list[Any]:
        host, port = self.address.host, self.address.port

        def ask() -> list[Any]:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)

        # The system's resolver knows no time limit.
        found = Later(ask).result(min(clock.left(), _LOOK_UP_SECONDS))
        if not found:
            raise self.fault(
                f"cannot be found: there is no host named {host!r}",
                "Look for a slip of the pen, or write the host's number",
            )
        return found

    def _secured(self, plain: socket.socket, clock: _Clock) -> socket.socket:
        if not self.address.is_https:
            return plain
        plain.settimeout(clock.left())
        try:
            context = ssl.create_default_context()
            return context.wrap_socket(plain, server_hostname=self.address.host)
        except ssl.SSLError as error:
            raise self.fault(
                f"offers no trusted encryption ({error.reason or 'TLS failed'})",
                "Write http:// if it is a server of your own without a certificate",
            ) from None

    def _check(self, reply: _Reply) -> None:
        """Raise unless an answer is one that a model server gives."""
        if 300 <= reply.status < 400:
            target = quote(reply.header("Location") or "an unnamed place", 200)
            raise self.fault(f"redirects to {target}", "Give that address if you trust it")
        encoding = reply.header("Content-Encoding").lower()
        if encoding not in ("", "identity"):
            raise self.fault(
                f"sends {quote(encoding, 40)}-packed data, which nobody asked for",
                "Ask the model server itself, not a gateway before it",
            )
        if reply.status >= 400:
            raise self.refusal(reply.status, reply.complaint())
        if reply.status != 200:
            raise self.fault(f"answers with status {reply.status}", "It is no model server")
        if reply.kind in ("text/html", "application/xhtml+xml"):
            raise self._web_page()
        if reply.kind.partition("/")[0] in ("image", "audio", "video", "font"):
            raise self.fault(f"sends {quote(reply.kind, 40)}", "It is no model server")
        if (reply.expected or 0) > LARGEST_BODY:
            raise self.too_large()

    def _late(self, clock: _Clock) -> EngineError:
        if not clock.is_over():
            return self.fault(
                f"has been silent for {clock.idle:g} s in the middle of an answer",
                "See its log; give a larger idle_limit if the machine is that slow",
            )
        return self.fault(
            f"did not finish its answer within {clock.seconds:g} s",
            "See whether it is busy or still loading; a larger time_limit waits longer",
        )

    def broken(self) -> BrokenStream:
        """Return the error for an answer without its end."""
        return BrokenStream(
            f"{self.who} closed the connection in the middle of an answer. It may have crashed: "
            "see its log, and start it again."
        )

    def too_large(self) -> EngineError:
        """Return the error for an answer beyond every reasonable size."""
        return self.fault(
            f"wants to send more than {LARGEST_BODY // 1024**2} MiB", "It is no model server"
        )

    def _web_page(self) -> EngineError:
        return self.fault(
            "answers with a web page", "It is another kind of server: look at address and port"
        )


def listed(names: Iterator[str] | tuple[str, ...], most: int = 8) -> str:
    """Return names for a sentence, shortened."""
    shown = [quote(name, 80) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def quote(text: str, longest: int = _LONGEST_QUOTE) -> str:
    """Return foreign text on one line, shortened, without control characters."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def message_of(body: object) -> str:
    """Return what an error's body says in words.

    Servers write ``{"error": {"message": …}}``, ``{"error": …}``, ``{"detail": …}`` or plain text;
    Ollama passes on its runner's JSON as a string inside its own.
    """
    found: Json = body
    for _ in range(4):
        if isinstance(found, str) and found.lstrip()[:1] == "{":
            try:
                found = json.loads(found)
            except (ValueError, RecursionError):
                return ""
        if isinstance(found, list) and found:
            found = found[0]
        if not isinstance(found, Mapping):
            break
        found = next(
            (found[key] for key in ("error", "message", "msg", "detail") if key in found), ""
        )
    if not isinstance(found, str) or found.lstrip()[:1] == "<":
        return ""
    return quote(found)


def memory_at(address: Address) -> processes.MemoryUse:
    """Return what the process takes that listens at an address of this machine."""
    if not address.is_this_machine:
        return processes.MemoryUse(None)
    pid = processes.listening_on(address.port)
    return processes.MemoryUse(None) if pid is None else processes.memory_of(pid)


def whole(value: object) -> int | None:
    """Return a count as a number; ``None`` if it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def seconds(value: object, unit: float = 1.0) -> float | None:
    """Return a time in seconds; ``None`` if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value * unit if math.isfinite(value) and value >= 0 else None


class _Clock:
    """The time that is left of a request."""

    def __init__(self, seconds: float, idle: float) -> None:
        self.seconds = seconds
        self.idle = idle
        # The first byte of an answer may take long: a model is loaded, a prompt is read.
        self.has_begun = False
        self._end = time.monotonic() + seconds

    def is_over(self) -> bool:
        return time.monotonic() >= self._end

    def left(self) -> float:
        """Seconds that the next step may take."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, self.idle) if self.has_begun else left


class _Reply:
    """An answer whose headers have come."""

    def __init__(
        self,
        http_: Http,
        clock: _Clock,
        sock: socket.socket,
        response: http.client.HTTPResponse,
    ) -> None:
        self._http = http_
        self._clock = clock
        self._socket = sock
        self._response = response
        self.status = response.status
        self.kind = self.header("Content-Type").partition(";")[0].strip().lower()
        self.expected = None if response.chunked else response.length

    def header(self, name: str) -> str:
        return self._response.getheader(name) or ""

    def blocks(self, largest: int = LARGEST_BODY) -> Iterator[bytes]:
        """Yield what has come, as soon as it comes; a body that is cut short is an error."""
        got = 0
        while self.expected is None or got < self.expected:
            room = _READ_BYTES if self.expected is None else self.expected - got
            with self._http.sentences(self._clock):
                block = self._response.read1(min(_READ_BYTES, room))
            if not block:
                break
            self._clock.has_begun = True
            got += len(block)
            if got > largest:
                raise self._http.too_large()
            yield block
        if self.expected is not None and got < self.expected:
            raise self._http.broken()

    def lines(self) -> Iterator[bytes]:
        """Yield whole lines as they come, several at a time where they come together."""
        rest = b""
        for block in self.blocks(_LARGEST_STREAM):
            cut = block.rfind(b"\n") + 1
            lines, rest = (rest + block[:cut], block[cut:]) if cut else (b"", rest + block)
            if len(rest) > LARGEST_LINE:
                raise self._http.fault("sends a line that does not end", "It is no model server")
            if lines:
                yield self._checked(lines)
        if rest:
            yield self._checked(rest)

    def _checked(self, lines: bytes) -> bytes:
        try:
            lines.decode("utf-8")
        except UnicodeDecodeError:
            raise self._http.fault(
                "sends bytes that are not UTF-8", "See whether a model server listens there"
            ) from None
        return lines

    def complaint(self) -> str:
        """Return what the server says about an error; nothing if that cannot be read."""
        data = b""
        # The status alone says enough.
        with suppress(EngineError):
            for block in self.blocks(_LARGEST_REFUSAL):
                data += block
        return message_of(data.decode("utf-8", errors="replace"))

    def close(self) -> None:
        self._response.close()
        self._socket.close()


class _GuardedSocket:
    """What ``http.client`` needs of a socket, with the clock in every step."""

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._socket = sock
        self._clock = clock

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(self._clock.left())
        self._socket.sendall(data)

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(_GuardedReader(self._socket, self._clock))

    def close(self) -> None:
        # http.client calls this when headers say "close", and goes on reading.
        pass


class _GuardedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._socket = sock
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the buffer protocol has no type yet
        self._socket.settimeout(self._clock.left())
        return self._socket.recv_into(buffer)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _status(status: int) -> str:
    known = {
        401: "wants a key (401)",
        403: "forbids the request (403)",
        404: "does not know this path or model (404)",
        429: "has too many requests (429)",
        503: "is not ready (503)",
    }
    if status == 200:
        return "reports an error in the middle of its answer"
    kind = "reports an error of its own" if status >= 500 else "refuses the request"
    return known.get(status, f"{kind} ({status})")


def _advice(status: int) -> str:
    known = {
        401: "Give its key as api_key.",
        403: "Give a key that may do this as api_key, or look at the server's settings.",
        404: "Look at the address: an OpenAI-compatible one ends in /v1.",
        429: "Wait, or send fewer at a time.",
        503: "It may still be loading the model: try again in a moment.",
    }
    return known.get(status, "See the server's log." if status >= 500 else "")
