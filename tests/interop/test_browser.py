"""Chromium, with a page that our own server serves."""

from __future__ import annotations

import pytest

from tests.interop import scenarios
from tests.interop.messages import KINDS
from tests.interop.processes import python_peer

BROWSER = python_peer("browser")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_browser_gets_every_size_back(kind: str) -> None:
    await scenarios.check_echo_to_client(BROWSER, kind)


async def test_a_browser_closes_with_code_and_reason() -> None:
    await scenarios.check_close_by_client(BROWSER)


async def test_a_browser_is_told_code_and_reason() -> None:
    await scenarios.check_close_to_client(BROWSER)
