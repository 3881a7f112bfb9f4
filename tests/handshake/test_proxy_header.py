"""The PROXY protocol: a header before everything else that a proxy sends."""

from __future__ import annotations

import logging
import socket
import struct
from typing import Any

import pytest
import trio
import trio.testing

from tests.handshake.handshake_helpers import (
    HookedStream,
    memory_server,
    read_all,
    request as upgrade,
    site,
)
from tests.web.web_helpers import HTTPClient, http, open_site
from trio_ws import ConnectionFailed, wrap_server_stream
from trio_ws._transport.proxy_protocol import read_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, data: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(data)) + data


V4 = socket.inet_aton("1.2.3.4") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 567, 80)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db9::1") * 2 + struct.pack("!HH", 567, 80)

GOOD: dict[str, tuple[bytes, Any]] = {
    "1, TCP4": (b"PROXY TCP4 1.2.3.4 10.0.0.1 567 80\r\n", ("1.2.3.4", 567)),
    "1, TCP6": (b"PROXY TCP6 2001:db9::1 ::1 567 80\r\n", ("2001:db9::1", 567)),
    "1, unknown": (b"PROXY UNKNOWN\r\n", None),
    "1, unknown with more": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    "2, TCP4": (v2(0x21, 0x11, V4), ("1.2.3.4", 567)),
    "2, TCP4 with more": (v2(0x21, 0x11, V4 + b"\x04\0\x01x" * 200), ("1.2.3.4", 567)),
    "2, TCP6": (v2(0x21, 0x21, V6), ("2001:db9::1", 567)),
    "2, UDP": (v2(0x21, 0x12, V4), None),
    "2, a Unix socket": (v2(0x21, 0x31, bytes(216)), None),
    "1, TCP6 that is IPv4": (
        b"PROXY TCP6 ::ffff:1.2.3.4 ::ffff:10.0.0.1 567 80\r\n",
        ("1.2.3.4", 567),
    ),
    "2, itself": (v2(0x20, 0x00, b""), None),
    "2, itself with more": (v2(0x20, 0x00, b"\x04\0\x01x" * 200), None),
    "2, itself with addresses": (v2(0x20, 0x11, V4), None),
    "2, too short": (v2(0x21, 0x11, V4[:-1]), None),
}


@pytest.mark.parametrize(("data", "address"), GOOD.values(), ids=GOOD.keys())
async def test_a_proxy_header_is_read_and_not_a_byte_more(data: bytes, address: Any) -> None:
    client, stream = trio.testing.memory_stream_pair()
    await client.send_all(data + b"GET")
    assert await read_proxy_header(stream) == address
    assert await stream.receive_some() == b"GET"


BAD: dict[str, bytes] = {
    "HTTP": upgrade(),
    "nothing": b"",
    "half of it": b"PROXY TCP4 1.2.3.4",
    "half of version 2": v2(0x21, 0x11, V4)[:-3],
    "an endless line": b"PROXY TCP4 " + b"1" * 200,
    "another protocol": b"PROXY UDP4 1.2.3.4 10.0.0.1 567 80\r\n",
    "no address": b"PROXY TCP4 1.2.3 10.0.0.1 567 80\r\n",
    "no port": b"PROXY TCP4 1.2.3.4 10.0.0.1 -1 80\r\n",
    "too high a port": b"PROXY TCP4 1.2.3.4 10.0.0.1 65536 80\r\n",
    "words missing": b"PROXY TCP4 1.2.3.4\r\n",
    "words too many": b"PROXY TCP4 1.2.3.4 10.0.0.1 567 80 9\r\n",
    "half of version 2, itself": v2(0x20, 0x00, b"\x04\0\x01x")[:-1],
    "IPv6 under TCP4": b"PROXY TCP4 2001:db9::1 10.0.0.1 567 80\r\n",
    "IPv6 under TCP4, to": b"PROXY TCP4 1.2.3.4 ::1 567 80\r\n",
    "IPv4 under TCP6": b"PROXY TCP6 1.2.3.4 10.0.0.1 567 80\r\n",
    "too high a port, to": b"PROXY TCP4 1.2.3.4 10.0.0.1 567 65536\r\n",
    "a zero in front": b"PROXY TCP4 1.2.3.4 10.0.0.1 0567 80\r\n",
    "no-break spaces": b"PROXY TCP4\xa01.2.3.4\xa010.0.0.1\xa0567\xa080\r\n",
    "line feeds": b"PROXY TCP4\n1.2.3.4\n10.0.0.1\n567\n80\r\n",
    "tabs": b"PROXY TCP4\t1.2.3.4\t10.0.0.1\t567\t80\r\n",
    "two spaces": b"PROXY TCP4  1.2.3.4 10.0.0.1 567 80\r\n",
    "version 3": v2(0x31, 0x11, V4),
    "a header of 60 KiB": v2(0x21, 0x11, bytes(60_000)),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
async def test_bytes_that_are_no_proxy_header_end_the_connection(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"trusted_proxies": ["unix"], "proxy_header": "PROXY"}
    async with memory_server(site(), **options) as server:
        async with server.connect() as stream:
            if data:
                await stream.send_all(data)
            await stream.send_eof()
            assert await read_all(stream) == b""
        await trio.testing.wait_all_tasks_blocked()
        assert server.server.statistics().refused_total == 1
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_proxy_header_counts_for_every_request_of_its_connection() -> None:
    options: dict[str, Any] = {"trusted_proxies": ["unix"], "proxy_header": "PROXY"}
    async with open_site(site(), **options) as (_, client):
        await client.send(GOOD["1, TCP4"][0])
        for _ in range(2):
            response = await client.ask(http(X_Forwarded_For="6.6.6.6"))
            assert response.body == b'{"address": ["1.2.3.4", 567], "scheme": "http"}'


async def test_a_proxy_header_from_an_untrusted_address_is_a_bad_request() -> None:
    options: dict[str, Any] = {"trusted_proxies": ["10.0.0.1"], "proxy_header": "PROXY"}
    async with memory_server(site(), **options) as server:
        lying = HTTPClient(server.connect())
        honest = HTTPClient(server.connect())
        async with lying.stream, honest.stream:
            assert (await lying.ask(GOOD["1, TCP4"][0] + http())).status == 400
            assert (await honest.ask(http("GET /health"))).status == 200


@pytest.mark.autojump
async def test_a_proxy_header_has_to_come_in_time() -> None:
    options: dict[str, Any] = {"trusted_proxies": ["unix"], "proxy_header": "PROXY"}
    async with memory_server(site(), **options) as server, server.connect() as stream:
        started = trio.current_time()
        await stream.send_all(b"PROXY TCP4")
        assert await read_all(stream) == b""
        assert trio.current_time() - started == 10


async def test_a_stream_of_one_s_own_may_come_from_a_proxy() -> None:
    options: dict[str, Any] = {"trusted_proxies": ["unix"], "proxy_header": "PROXY"}
    client, stream = trio.testing.memory_stream_pair()
    await client.send_all(GOOD["2, TCP6"][0] + upgrade())
    async with wrap_server_stream(stream, **options) as ws:
        assert ws.remote_address == ("2001:db9::1", 567)
        assert ws.request.remote_address == ("2001:db9::1", 567)
        await client.aclose()


async def test_a_stream_that_breaks_is_a_failed_connection() -> None:
    def fail(number: int) -> None:
        raise OSError("injected fault")

    _, stream = trio.testing.memory_stream_pair()
    with pytest.raises(ConnectionFailed, match="injected fault"):
        await read_proxy_header(HookedStream(stream, fail))
