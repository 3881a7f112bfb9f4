"""How often an address may connect, and with how many connections at once: 429, at little cost."""

from __future__ import annotations

import logging
import random
import socket
from math import inf
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import HOST, REQUEST, echo, open_server, reset, tcp_pair
from tests.metrics.metrics_helpers import samples_of
from tests.tls_helpers import tls_contexts
from trio_ws import ConnectionRejected, HandshakeError, ListenerOptions, open_websocket_url
from trio_ws._addresses import Address
from trio_ws._server import addresses, door
from trio_ws._server.addresses import Addresses, TooMany
from trio_ws._server.shutdown import Shutdown
from trio_ws._transport.sockets import wrap_stream
from trio_ws.metrics import open_metrics

# ---------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------


def outcome(table: Addresses, address: Address, now: float, *, stays: bool = False) -> int:
    """After how many seconds it may come again; 0 if it got in."""
    try:
        place = table.enter(address, now)
    except TooMany as exc:
        return exc.retry_after
    assert place is not None
    if not stays:
        table.leave(place, now)
    return 0


def test_one_seconds_worth_may_come_at_once_and_then_one_as_each_is_allowed() -> None:
    table = Addresses(5, inf)
    one, other = ("192.0.2.1", 1), ("192.0.2.2", 1)
    assert [outcome(table, one, 0) for _ in range(6)] == [0] * 5 + [1]
    assert outcome(table, other, 0) == 0
    came = [time / 100 for time in range(1, 1001) if not outcome(table, one, time / 100)]
    assert came == pytest.approx([(n + 1) / 5 for n in range(50)])


def test_retry_after_is_when_the_address_may_come_again() -> None:
    table = Addresses(0.1, inf)
    one = ("192.0.2.1", 1)
    assert outcome(table, one, 0) == 0
    assert [outcome(table, one, now) for now in (0, 1, 8.5, 9.99, 10)] == [10, 9, 2, 1, 0]


def test_connections_count_until_they_are_over() -> None:
    table = Addresses(inf, 2)
    places = [table.enter(("192.0.2.1", port), 0) for port in range(2)]
    assert outcome(table, ("192.0.2.1", 3), 0) == addresses.RETRY_AFTER
    assert places[0] is not None
    table.leave(places[0], 1)
    assert outcome(table, ("192.0.2.1", 3), 1) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_an_ipv6_address_stands_for_its_64(one: str, other: str, *, same: bool) -> None:
    table = Addresses(1, inf)
    assert outcome(table, (one, 1), 0) == 0
    assert outcome(table, (other, 2), 0) == same


def test_what_has_no_address_is_not_limited() -> None:
    table = Addresses(1, 1)
    assert [table.enter(address, 0) for address in (None, "/run/socket") * 3] == [None] * 6
    assert len(table) == 0


def test_addresses_that_do_not_come_back_are_forgotten() -> None:
    for rate, keep in ((5.0, 1.0), (0.1, 10.0)):
        table = Addresses(rate, inf)
        for number in range(500):
            outcome(table, (f"192.0.{number // 250}.{number % 250}", 1), 0)
        assert len(table) == 500
        outcome(table, ("198.51.100.1", 1), keep - 0.01)
        assert len(table) == 501
        outcome(table, ("198.51.100.1", 1), keep + 0.01)
        assert len(table) == 1


def test_so_many_are_kept_at_most_and_none_is_forgotten_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(addresses, "MOST_QUIET", 100)
    monkeypatch.setattr(addresses, "SHARED", 8)
    table = Addresses(0.001, inf)
    let_in: dict[int, int] = {}
    for _ in range(5000):
        number = random.randrange(1000)
        if not outcome(table, (f"10.0.{number // 250}.{number % 250}", 1), 0):
            let_in[number] = let_in.get(number, 0) + 1
        assert len(table) <= 108
    # No address got in twice, and all that came late share eight places.
    assert set(let_in.values()) == {1}
    assert len(let_in) <= 108


# ---------------------------------------------------------------------------
# Servers
# ---------------------------------------------------------------------------


async def status_of(server: Any, request: bytes = REQUEST, source: str = HOST) -> bytes:
    """The status line that a client at this address of ours gets; empty where it is hung up on."""
    with socket.socket() as sock:
        sock.bind((source, 0))
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        await stream.socket.connect((HOST, server.port))
        await stream.send_all(request)
        head = b""
        try:
            while b"\r\n\r\n" not in head and (data := await stream.receive_some()):
                head += data
        except trio.BrokenResourceError:
            return b""
        finally:
            await stream.aclose()
        return head


async def test_an_address_that_connects_too_often_gets_429_and_others_do_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_server(echo, max_handshakes_per_second=2, headers={"X-Ours": "1"}) as server:
        heads = [await status_of(server, source="127.0.0.2") for _ in range(20)]
        assert sum(head.startswith(b"HTTP/1.1 101 ") for head in heads) in (2, 3, 4)
        refused = [head for head in heads if head.startswith(b"HTTP/1.1 429 ")]
        assert refused
        assert b"\r\nRetry-After: 1\r\n" in refused[0]
        assert b"\r\nX-Ours: 1\r\n" in refused[0]
        assert (await status_of(server)).startswith(b"HTTP/1.1 101 ")
        assert server.statistics().refused_total >= 16
    lines = [record for record in caplog.records if "429" in record.getMessage()]
    assert [record.levelno for record in lines] == [logging.WARNING]
    assert "refused with 429: max_handshakes_per_second is 2" in lines[0].getMessage()


async def test_an_address_with_too_many_connections_gets_429() -> None:
    async with open_server(echo, max_connections_per_address=1) as server:
        async with open_websocket_url(server.urls[0]) as ws:
            await ws.send("in")
            assert await ws.receive() == "in"
            with pytest.raises(ConnectionRejected) as caught:
                async with open_websocket_url(server.urls[0]):
                    raise AssertionError
            assert caught.value.response.status == 429
            assert caught.value.retry_after == addresses.RETRY_AFTER
        while server.statistics().connections:
            await trio.lowlevel.checkpoint()
        with trio.fail_after(9):
            while not (await status_of(server)).startswith(b"HTTP/1.1 101 "):
                await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({"trusted_proxies": [HOST]}, b"X-Forwarded-For: %s\r\n"),
        ({"trusted_proxies": [HOST], "proxy_header": "Forwarded"}, b"Forwarded: for=%s\r\n"),
        ({"trusted_proxies": [HOST], "proxy_header": "PROXY"}, b"PROXY TCP4 %s 192.0.2.9 1 80"),
    ],
    ids=["X-Forwarded-For", "Forwarded", "PROXY"],
)
async def test_behind_a_proxy_the_address_is_that_of_the_client(
    options: dict[str, Any], header: bytes
) -> None:
    def asks(address: bytes) -> bytes:
        if header.startswith(b"PROXY"):
            return header % address + b"\r\n" + REQUEST
        return REQUEST.replace(b"\r\n\r\n", b"\r\n" + header % address + b"\r\n")

    async with open_server(echo, max_handshakes_per_second=0.001, **options) as server:
        for address in (b"192.0.2.1", b"192.0.2.2"):
            first, second = [await status_of(server, asks(address)) for _ in range(2)]
            assert first.startswith(b"HTTP/1.1 101 ")
            assert second.startswith(b"HTTP/1.1 429 ")
            assert b"\r\nRetry-After: 1000\r\n" in second or b"\r\nRetry-After: 999\r\n" in second
        # A peer that is no proxy is a client.
        assert (await status_of(server, source="127.0.0.3")).startswith(b"HTTP/1.1 101 ")
        assert (await status_of(server, source="127.0.0.3")).startswith(b"HTTP/1.1 429 ")


async def test_a_client_that_has_not_asked_yet_is_answered_all_the_same() -> None:
    async with open_server(echo, max_handshakes_per_second=0.001) as server:
        await status_of(server)
        stream = await trio.open_tcp_stream(HOST, server.port)
        async with stream:
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 429 ")


async def test_of_clients_that_do_not_ask_only_so_many_are_in_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "MOST_IN_HAND", 2)
    async with open_server(echo, max_handshakes_per_second=0.001) as server:
        await status_of(server)
        streams = [await trio.open_tcp_stream(HOST, server.port) for _ in range(5)]
        answers: list[bytes] = []
        for stream in streams:
            async with stream:
                answers.append(await stream.receive_some())
        assert sum(answer.startswith(b"HTTP/1.1 429 ") for answer in answers) == 2
        assert answers.count(b"") == 3


async def test_a_client_that_left_before_it_was_refused_does_no_harm() -> None:
    async with open_server(echo, max_handshakes_per_second=0.001) as server:
        await status_of(server)
        for _ in range(20):
            with socket.create_connection((HOST, server.port)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with trio.fail_after(9):
            while server.statistics().refused_total < 20:
                await trio.sleep(0.01)


async def test_a_refusal_in_hand_does_not_hold_up_a_shutdown() -> None:
    async with open_server(echo, max_handshakes_per_second=0.001, grace_period=60) as server:
        await status_of(server)
        stream = await trio.open_tcp_stream(HOST, server.port)
        async with stream:
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 429 ")
            with trio.fail_after(9):
                await server.aclose()


async def test_lines_in_the_log_are_few_and_count_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = addresses.RefusalLog(logging.getLogger("trio_ws"))
    for tenth in range(250):
        log.note(("192.0.2.1", 7), TooMany("because", 1), tenth / 10)
    assert [record.getMessage() for record in caplog.records] == [
        "192.0.2.1:7 refused with 429: because",
        "192.0.2.1:7 refused with 429: because, and 99 others since the last such line",
        "192.0.2.1:7 refused with 429: because, and 99 others since the last such line",
    ]


async def test_without_limits_there_is_no_door() -> None:
    async with open_server(echo) as server:
        assert server._state.door is None


async def test_over_tls_an_address_that_connects_too_often_is_hung_up_on() -> None:
    ours, client = tls_contexts(HOST)
    async with open_server(echo, max_handshakes_per_second=0.001, ssl_context=ours) as server:
        url = f"wss://{HOST}:{server.port}/"
        async with open_websocket_url(url, ssl_context=client) as ws:
            await ws.send("in")
            assert await ws.receive() == "in"
        with pytest.raises(HandshakeError):
            async with open_websocket_url(url, ssl_context=client):
                raise AssertionError
        assert server.statistics().refused_total == 1


async def test_behind_a_proxy_an_address_is_hung_up_on_before_tls() -> None:
    ours, _ = tls_contexts(HOST)
    header = b"PROXY TCP4 192.0.2.1 192.0.2.9 1 80\r\n"
    async with open_server(
        echo,
        max_handshakes_per_second=0.001,
        ssl_context=ours,
        trusted_proxies=[HOST],
        proxy_header="PROXY",
    ) as server:
        first = await trio.open_tcp_stream(HOST, server.port)
        second = await trio.open_tcp_stream(HOST, server.port)
        async with first, second:
            await first.send_all(header)
            while not server.statistics().handshakes:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked(0.01)
            await second.send_all(header)
            assert await second.receive_some() == b""


async def test_a_client_that_resets_while_it_is_refused_does_no_harm() -> None:
    at_door = door.Door(ListenerOptions(max_connections_per_address=1), Shutdown())
    client, stream = await tcp_pair()
    transport = wrap_stream(stream)
    assert at_door.enter_directly(transport) is not None
    with pytest.raises(door.TurnedAway) as caught:
        at_door.enter_directly(transport)
    begun: list[Any] = []
    at_door.refuse(transport, caught.value.response, lambda *what: begun.append(what))
    ((refuse, *arguments),) = begun
    reset(client)
    await refuse(*arguments)
    assert transport.plain_socket is not None
    assert transport.plain_socket.fileno() == -1


async def test_refusals_at_the_door_are_counted_as_handshakes_with_429() -> None:
    async with open_metrics() as metrics, open_server(echo, max_handshakes_per_second=1) as server:
        for _ in range(9):
            await status_of(server)
        refused = server.statistics().refused_total
        assert refused
        assert (await samples_of(metrics))("handshakes_total", status="429") == refused
