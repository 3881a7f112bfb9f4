"""`negotiation`: the settings of permessage-deflate, and what two sides agree on."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

import trio_ws
from tests.handshake.handshake_helpers import ACCEPTING, scripted_server
from tests.helpers import TEXT, decode, frame, open_pair
from tests.protocol.deflate_helpers import NAME, RSV1
from trio_ws import Deflate, InvalidResponse
from trio_ws._protocol.deflate import Agreement
from trio_ws._protocol.events import Role
from trio_ws._protocol.negotiation import client_check, client_offer, server_choice
from trio_ws._protocol.wire import Wire

pytestmark = pytest.mark.autojump


NEITHER_TAKEOVER = f"{NAME}; server_no_context_takeover; client_no_context_takeover"


# Settings…


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": -1},
        {"level": 10},
        {"mem_level": 0},
        {"mem_level": 10},
        {"server_window_bits": 8},
        {"server_window_bits": 16},
        {"client_window_bits": 8},
        {"threshold": -1},
    ],
)
def test_a_setting_out_of_its_range_is_a_value_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Deflate(**wrong)


async def test_compression_that_is_no_deflate_is_a_type_error() -> None:
    wrong: Any = True
    stream, _ = trio.testing.memory_stream_pair()
    with pytest.raises(TypeError, match=r"Deflate\(\) or None"):
        async with trio_ws.wrap_client_stream(stream, "ws://example.org/", compression=wrong):
            raise AssertionError


# Negotiation…


NO_SERVER, NO_CLIENT = "server_no_context_takeover", "client_no_context_takeover"
SERVER_12, CLIENT_10 = "server_max_window_bits=12", "client_max_window_bits=10"


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        # What browsers say; others that have not heard of windows.
        (f"{NAME}; client_max_window_bits", NAME),
        (NAME, NAME),
        (f"{NAME}; {NO_SERVER}", f"{NAME}; {NO_SERVER}"),
        (f"{NAME}; {NO_CLIENT}", f"{NAME}; {NO_CLIENT}"),
        (f"{NAME}; {NO_CLIENT}; {NO_SERVER}", NEITHER_TAKEOVER),
        # A window that was named is named in turn.
        (f"{NAME}; {CLIENT_10}", f"{NAME}; {CLIENT_10}"),
        (f"{NAME}; client_max_window_bits=8", f"{NAME}; client_max_window_bits=8"),
        (f"{NAME}; client_max_window_bits=15", NAME),
        (f"{NAME}; server_max_window_bits=8", f"{NAME}; server_max_window_bits=8"),
        (f"{NAME}; server_max_window_bits=9", f"{NAME}; server_max_window_bits=9"),
        (f"{NAME};server_max_window_bits=15 ;\tclient_max_window_bits", f"{NAME}; {SERVER_12}"),
        (f"x-other, {NAME}", NAME),
        (f", ,{NAME},", NAME),
        # The first that can be accepted.
        (f"{NAME}; server_max_window_bits=10, {NAME}", f"{NAME}; server_max_window_bits=10"),
        (f"{NAME}; unknown, {NAME}", NAME),
    ],
)  # fmt: skip
def test_an_offer_is_answered_with_no_more_than_was_offered(offer: str, answer: str) -> None:
    agreement = server_choice(offer, Deflate())
    assert agreement is not None
    assert str(agreement) == answer


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        (f"{NAME}; client_max_window_bits", f"{NAME}; client_max_window_bits=11"),
        (f"{NAME}; {CLIENT_10}", f"{NAME}; {CLIENT_10}"),
        (f"{NAME}; server_max_window_bits=15", f"{NAME}; server_max_window_bits=13"),
        # Nobody asked, and some clients fail over an answer to what they have not asked for.
        (NAME, NAME),
    ],
)
def test_a_server_s_windows_are_named_only_where_they_were_offered(offer: str, answer: str) -> None:
    settings = Deflate(server_window_bits=13, client_window_bits=11)
    assert str(server_choice(offer, settings)) == answer


def test_a_bound_on_our_window_is_answered_with_one_even_where_it_bounds_nothing() -> None:
    """RFC 7692 section 7.1.2.1: accepting the offer is done by naming the parameter."""
    largest = Deflate(server_window_bits=15)
    offer = f"{NAME}; server_max_window_bits=15"
    assert str(server_choice(offer, largest)) == offer
    assert str(server_choice(NAME, largest)) == NAME


@pytest.mark.parametrize(
    "parameters",
    [
        "unknown",
        "unknown=1",
        "server_no_context_takeover=1",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover=true",
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=010",
        "server_max_window_bits=+10",
        "server_max_window_bits=1_0",
        "server_max_window_bits=10; server_max_window_bits=10",
        'server_max_window_bits="10"',
        "server_max_window_bits=",
        "client_max_window_bits=",
        "client_max_window_bits=\u0661\u0660",
        "Server_Max_Window_Bits=10",
        "server_max_window_bit=10",
        "=10",
        "; ;",
        "client_max_window_bits=10 10",
    ],
)
def test_an_offer_that_is_wrong_is_declined_and_never_an_error(parameters: str) -> None:
    assert server_choice(f"{NAME}; {parameters}", Deflate()) is None


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x-other",
        f'foo; x="a, {NAME}"',
        f'foo; x="a, {NAME}, b"',
        f'foo; x="\\", {NAME}',
        NAME.upper(),
    ],
)
def test_an_extension_that_is_no_offer_is_not_taken_for_one(header: str) -> None:
    assert server_choice(header, Deflate()) is None


@given(st.text(max_size=60))
def test_any_text_is_an_offer_or_not_and_never_an_error(text: str) -> None:
    server_choice(f"{NAME}; {text}", Deflate())
    server_choice(text, Deflate())


@pytest.mark.parametrize(
    ("settings", "offer"),
    [
        (Deflate(), f"{NAME}; client_max_window_bits"),
        (Deflate(level=9, mem_level=9, threshold=0), f"{NAME}; client_max_window_bits"),
        (Deflate(client_window_bits=15, server_window_bits=15), f"{NAME}; client_max_window_bits"),
        (
            Deflate(client_window_bits=10, server_window_bits=12),
            f"{NAME}; {SERVER_12}; {CLIENT_10}",
        ),
        (
            Deflate(server_context_takeover=False, client_context_takeover=False),
            f"{NEITHER_TAKEOVER}; client_max_window_bits",
        ),
    ],
)
def test_the_offer_says_what_the_settings_say_and_by_default_what_browsers_say(
    settings: Deflate, offer: str
) -> None:
    assert client_offer(settings) == offer
    assert server_choice(offer, settings) is not None


@pytest.mark.parametrize(
    ("answer", "agreement"),
    [
        (NAME, Agreement()),
        (f"{NAME}; {SERVER_12}", Agreement(server_window_bits=12)),
        (f"{NAME}; server_max_window_bits=10; client_max_window_bits=9", Agreement(10, 9)),
        (f"{NAME}; server_max_window_bits=8", Agreement(server_window_bits=8)),
        (f"{NAME}; client_max_window_bits=8", Agreement(client_window_bits=8)),
        (f'{NAME}; client_max_window_bits="15"', Agreement(client_window_bits=15)),
        (f'{NAME}; server_max_window_bits="1\\0"', Agreement(server_window_bits=10)),
        (
            NEITHER_TAKEOVER,
            Agreement(server_context_takeover=False, client_context_takeover=False),
        ),
        (f" ,{NAME} ,", Agreement()),
    ],
)
def test_any_answer_that_the_rfc_allows_is_agreed_to(answer: str, agreement: Agreement) -> None:
    assert client_check(answer) == agreement


@pytest.mark.parametrize(
    "answer",
    [
        "x-other",
        f"{NAME}; {SERVER_12}, x-other",
        f"{NAME}, {NAME}",
        f"{NAME}; client_max_window_bits",
        f"{NAME}; server_max_window_bits",
        f"{NAME}; client_max_window_bits=7",
        f"{NAME}; server_max_window_bits=16",
        f"{NAME}; server_max_window_bits=012",
        f"{NAME}; {SERVER_12}; {SERVER_12}",
        f"{NAME}; {NO_CLIENT}=true",
        f'{NAME}; {NO_CLIENT}=""',
        f"{NAME}; unknown",
        f'{NAME}; server_max_window_bits="12',
        f'{NAME}; server_max_window_bits="1"2',
        f'{NAME}; server_max_window_bits="12\\"',
        NAME.upper(),
    ],
)
def test_an_answer_beyond_the_offer_fails_the_handshake(answer: str) -> None:
    with pytest.raises(ValueError, match="server"):
        client_check(answer)


def test_a_client_that_asks_for_less_takes_what_it_gets() -> None:
    """A smaller window and no takeover save memory where the server grants them."""
    modest = Deflate(server_window_bits=9, server_context_takeover=False)
    receiver = Wire(Role.CLIENT, max_message_size=2**20, deflate=(modest, client_check(NAME)))
    text = random.Random(5).randbytes(20_000).hex()
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    for _ in range(2):
        data = compressor.compress(text.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert decode(receiver, frame(TEXT, data[:-4], rsv=RSV1, mask=False)) == [text]


async def test_without_compression_on_either_side_there_is_none() -> None:
    for client, server in ((None, Deflate()), (Deflate(), None)):
        async with open_pair(client={"compression": client}, server={"compression": server}) as (
            one,
            other,
        ):
            assert "Sec-WebSocket-Extensions" not in one.response.headers
            await one.send("x" * 5000, compress=True)
            assert await other.receive() == "x" * 5000
            assert one.statistics().compression_sent is None


async def test_a_server_that_agrees_to_what_was_not_offered_is_refused() -> None:
    answer = ACCEPTING[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    async with scripted_server(answer) as stream:
        with pytest.raises(InvalidResponse, match="was not offered"):
            async with trio_ws.wrap_client_stream(stream, "ws://example.org/", compression=None):
                raise AssertionError
