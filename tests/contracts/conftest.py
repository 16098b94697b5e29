"""Servers for the tests of the HTTP engines; each ends with its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from dialects import DIALECTS, Dialect
from fault_server import Answer, FaultServer


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], FaultServer]]:
    """Return a function that starts a server with the given way to answer."""
    servers: list[FaultServer] = []

    def start(answer: Answer) -> FaultServer:
        servers.append(FaultServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """One of the two APIs."""
    return request.param
