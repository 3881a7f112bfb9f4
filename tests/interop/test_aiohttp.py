"""aiohttp's client."""

from __future__ import annotations

import pytest

from tests.interop import scenarios
from tests.interop.messages import KINDS
from tests.interop.processes import python_peer

CLIENT = python_peer("aiohttp_client")


@pytest.mark.parametrize("kind", KINDS)
async def test_it_gets_every_size_back(kind: str) -> None:
    await scenarios.check_echo_to_client(CLIENT, kind)


async def test_it_closes_with_code_and_reason() -> None:
    await scenarios.check_close_by_client(CLIENT)


async def test_it_is_told_code_and_reason() -> None:
    await scenarios.check_close_to_client(CLIENT, answer=(1000, ""))
