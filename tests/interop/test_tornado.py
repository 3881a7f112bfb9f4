"""Tornado, as client and as server."""

from __future__ import annotations

import pytest

from tests.interop import scenarios
from tests.interop.messages import KINDS
from tests.interop.processes import python_peer
from tests.interop.scenarios import CODE_ONLY, WITH_AN_ANSWER_OF_ITS_OWN

CLIENT = python_peer("tornado_client")
SERVER = python_peer("tornado_server")

kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
async def test_its_client_gets_every_size_back(kind: str) -> None:
    await scenarios.check_echo_to_client(CLIENT, kind)


async def test_its_client_closes_with_code_and_reason() -> None:
    await scenarios.check_close_by_client(CLIENT)


async def test_its_client_is_told_code_and_reason() -> None:
    await scenarios.check_close_to_client(CLIENT, CODE_ONLY)


@kinds
async def test_our_client_gets_every_size_back(kind: str) -> None:
    await scenarios.check_echo_from_server(SERVER, kind, WITH_AN_ANSWER_OF_ITS_OWN)


async def test_its_server_closes_with_code_and_reason() -> None:
    await scenarios.check_close_by_server(SERVER)


async def test_its_server_is_told_code_and_reason() -> None:
    await scenarios.check_close_to_server(SERVER, CODE_ONLY)
