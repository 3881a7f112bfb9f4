"""aiohttp, as client and as server."""

from __future__ import annotations

import pytest

from tests.interop import scenarios
from tests.interop.messages import KINDS
from tests.interop.processes import python_peer
from tests.interop.scenarios import WITH_AN_ANSWER_OF_ITS_OWN

CLIENT = python_peer("aiohttp_client")


@pytest.mark.parametrize("kind", KINDS)
async def test_its_client_gets_every_size_back(kind: str) -> None:
    await scenarios.check_echo_to_client(CLIENT, kind)


async def test_its_client_closes_with_code_and_reason() -> None:
    await scenarios.check_close_by_client(CLIENT)


async def test_its_client_is_told_code_and_reason() -> None:
    await scenarios.check_close_to_client(CLIENT, answer=(1000, ""))


@pytest.mark.parametrize("kind", KINDS)
async def test_our_client_gets_every_size_back(kind: str) -> None:
    server = python_peer("aiohttp_server")
    await scenarios.check_echo_from_server(server, kind, WITH_AN_ANSWER_OF_ITS_OWN)


async def test_its_server_is_told_code_and_reason() -> None:
    await scenarios.check_close_to_server(python_peer("aiohttp_server"))


async def test_its_server_closes_with_code_and_reason() -> None:
    await scenarios.check_close_by_server(python_peer("aiohttp_server"))
