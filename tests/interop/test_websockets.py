"""The `websockets` library, over asyncio and over trio, as client and as server."""

from __future__ import annotations

import pytest

from tests.interop import scenarios
from tests.interop.messages import KINDS
from tests.interop.processes import python_peer
from tests.interop.scenarios import WITH_AN_ANSWER_OF_ITS_OWN

clients = pytest.mark.parametrize(
    "client",
    [python_peer("websockets_asyncio_client"), python_peer("websockets_trio_client")],
    ids=["asyncio", "trio"],
)
servers = pytest.mark.parametrize(
    "server",
    [python_peer("websockets_asyncio_server"), python_peer("websockets_trio_server")],
    ids=["asyncio", "trio"],
)
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@clients
async def test_its_client_gets_every_size_back(client: tuple[str, ...], kind: str) -> None:
    await scenarios.check_echo_to_client(client, kind)


@clients
async def test_its_client_closes_with_code_and_reason(client: tuple[str, ...]) -> None:
    await scenarios.check_close_by_client(client)


@clients
async def test_its_client_is_told_code_and_reason(client: tuple[str, ...]) -> None:
    await scenarios.check_close_to_client(client)


@kinds
@servers
async def test_our_client_gets_every_size_back(server: tuple[str, ...], kind: str) -> None:
    await scenarios.check_echo_from_server(server, kind, WITH_AN_ANSWER_OF_ITS_OWN)


@servers
async def test_its_server_closes_with_code_and_reason(server: tuple[str, ...]) -> None:
    await scenarios.check_close_by_server(server)


@servers
async def test_its_server_is_told_code_and_reason(server: tuple[str, ...]) -> None:
    await scenarios.check_close_to_server(server)
