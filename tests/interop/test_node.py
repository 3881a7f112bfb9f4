"""Node's `ws` library, as client and as server."""

from __future__ import annotations

import pytest

from tests.interop import scenarios
from tests.interop.messages import KINDS
from tests.interop.processes import node_peer

kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
async def test_its_client_gets_every_size_back(kind: str) -> None:
    await scenarios.check_echo_to_client(node_peer("client"), kind)


async def test_its_client_closes_with_code_and_reason() -> None:
    await scenarios.check_close_by_client(node_peer("client"))


async def test_its_client_is_told_code_and_reason() -> None:
    await scenarios.check_close_to_client(node_peer("client"))


@kinds
async def test_our_client_gets_every_size_back(kind: str) -> None:
    await scenarios.check_echo_from_server(node_peer("server"), kind)


async def test_its_server_closes_with_code_and_reason() -> None:
    await scenarios.check_close_by_server(node_peer("server"))


async def test_its_server_is_told_code_and_reason() -> None:
    await scenarios.check_close_to_server(node_peer("server"))
