"""Servers of ASGI: uvicorn with each of its implementations, and Hypercorn."""

from __future__ import annotations

import pytest

from tests.interop import scenarios
from tests.interop.messages import KINDS
from tests.interop.processes import python_peer
from tests.interop.scenarios import WITH_AN_ANSWER_OF_ITS_OWN

PEER = python_peer("asgi_server")

SERVERS = {
    "uvicorn with websockets": ((*PEER, "uvicorn", "websockets-sansio"), 1000),
    "uvicorn with wsproto": ((*PEER, "uvicorn", "wsproto"), 1000),
    # It tells its application so whatever the client's Close frame says.
    "Hypercorn": ((*PEER, "hypercorn"), 1006),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("server", "code"), SERVERS.values(), ids=SERVERS.keys())
async def test_our_client_gets_every_size_back(
    server: tuple[str, ...], code: int, kind: str
) -> None:
    expected = WITH_AN_ANSWER_OF_ITS_OWN
    await scenarios.check_echo_from_server(server, kind, expected, reported_code=code)
