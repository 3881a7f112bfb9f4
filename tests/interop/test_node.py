"""Node's `ws` library, as client and as server, and the client of undici."""

from __future__ import annotations

import pytest

from tests.interop import scenarios
from tests.interop.messages import KINDS
from tests.interop.processes import node_peer
from tests.interop.scenarios import CODE_ONLY, NAME, OFFER, Compression

kinds = pytest.mark.parametrize("kind", KINDS)

WS_SERVER = (*node_peer("server"), "true")


@kinds
async def test_its_client_gets_every_size_back(kind: str) -> None:
    await scenarios.check_echo_to_client(node_peer("client"), kind)


async def test_its_client_closes_with_code_and_reason() -> None:
    await scenarios.check_close_by_client(node_peer("client"))


async def test_its_client_is_told_code_and_reason() -> None:
    await scenarios.check_close_to_client(node_peer("client"))


@kinds
async def test_our_client_gets_every_size_back(kind: str) -> None:
    await scenarios.check_echo_from_server(WS_SERVER, kind)


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        # It refuses clients that ask for less.
        ('{"serverMaxWindowBits": 15}', f"{NAME}; server_max_window_bits=15"),
        ('{"clientMaxWindowBits": 9}', f"{NAME}; client_max_window_bits=9"),
        ('{"serverNoContextTakeover": true}', f"{NAME}; server_no_context_takeover"),
    ],
)
async def test_our_client_takes_what_its_server_is_set_to(settings: str, answer: str) -> None:
    server = (*node_peer("server"), settings)
    await scenarios.check_echo_from_server(server, "text", Compression(OFFER, answer))


async def test_our_client_sends_as_it_is_what_may_only_look_back_256_bytes() -> None:
    server = (*node_peer("server"), '{"clientMaxWindowBits": 8}')
    answer = f"{NAME}; client_max_window_bits=8"
    expected = Compression(OFFER, answer, used_by_us=False)
    await scenarios.check_echo_from_server(server, "text", expected)


async def test_its_server_closes_with_code_and_reason() -> None:
    await scenarios.check_close_by_server(WS_SERVER)


async def test_its_server_is_told_code_and_reason() -> None:
    await scenarios.check_close_to_server(WS_SERVER)


@kinds
async def test_undici_gets_every_size_back(kind: str) -> None:
    expected = Compression(OFFER, NAME, used_by_peer=False)  # it does not compress what it sends
    await scenarios.check_echo_to_client(node_peer("undici"), kind, expected)


async def test_undici_closes_with_code_and_reason() -> None:
    await scenarios.check_close_by_client(node_peer("undici"))


async def test_undici_is_told_code_and_reason() -> None:
    await scenarios.check_close_to_client(node_peer("undici"), CODE_ONLY)
