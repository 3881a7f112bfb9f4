"""The server's side of the opening handshake: answers to bad requests."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

import trio_ws
from tests.handshake.handshake_helpers import (
    FIELDS,
    memory_server,
    parse_response,
    plain_request,
    read_all,
    read_head,
    request,
)
from tests.handshake.requests import REFUSED, assert_refused
from tests.helpers import echo


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_bad_request_is_answered_and_the_server_goes_on(
    data: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    async with memory_server() as server:
        assert_refused(await server.answer(data), status)
        assert await server.serves()
        assert server.server.statistics().refused_total == 1
    [record] = [record for record in caplog.records if "answered with" in record.getMessage()]
    assert record.levelno == logging.INFO
    assert f"answered with {status}" in record.getMessage()
    assert len(record.getMessage()) < 250


async def test_a_refusal_says_what_would_be_right() -> None:
    async with memory_server() as server:
        response = await server.answer(request(Sec_WebSocket_Version="8"))
        assert response.headers["Sec-WebSocket-Version"] == "13"
        assert response.headers["Upgrade"] == "websocket"
        assert response.headers["Connection"] == "close, Upgrade"
        assert (await server.answer(request("POST / HTTP/1.1"))).headers["Allow"] == "GET"
        response = await server.answer(plain_request("DELETE / HTTP/1.1"))
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
        response = await server.answer(request("HEAD / HTTP/1.1"))
        assert (response.status, response.headers["Allow"], response.body) == (405, "GET", b"")


async def test_bad_requests_over_a_real_socket_get_their_whole_answer() -> None:
    async with trio.open_nursery() as nursery:
        server: trio_ws.WebSocketServer = await nursery.start(
            trio_ws.serve_websocket, echo, "127.0.0.1", 0
        )
        for data, status in REFUSED.values():
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with stream:
                try:
                    await stream.send_all(data)
                except trio.BrokenResourceError:
                    pass  # the server has heard enough
                assert_refused(parse_response(await read_all(stream)), status)
        async with trio_ws.open_websocket("127.0.0.1", server.port) as websocket:
            await websocket.send("still there?")
            assert await websocket.receive() == "still there?"
        await server.aclose()


@pytest.mark.parametrize("name", [*FIELDS, "Origin", "Sec-WebSocket-Protocol"])
async def test_no_byte_in_a_header_of_the_handshake_does_harm(name: str) -> None:
    # A line feed is left out: what follows it is another line. All the control characters have
    # their turn in test_heads.
    controls = {*map(chr, range(32)), "\x7f"} - {"\t", "\n"}
    beyond_ascii = {"\x80", "\x85", "\xa0", "\xc3", "\xed", "\xff"}
    async with memory_server() as server:
        for octet in {*controls, *beyond_ascii, *" \t!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~"}:
            async with server.connect() as stream:
                text = f"{FIELDS.get(name, 'a')}{octet}b"
                await stream.send_all(request(**{name.replace("-", "_"): text}))
                response = parse_response(await read_head(stream))
            wanted = {400} if octet in controls | beyond_ascii else {101, 400, 403, 426}
            assert response.status in wanted, octet
        assert await server.serves()


@pytest.mark.parametrize(
    "name", ["Connection", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"]
)
async def test_a_list_of_the_handshake_is_ascii(name: str) -> None:
    fields = {**FIELDS, name: FIELDS.get(name, "a") + ", \xff"}
    async with memory_server() as server:
        response = await server.answer(
            request(**{key.replace("-", "_"): value for key, value in fields.items()})
        )
        assert_refused(response, 400)
        assert response.text == f"the header {name} is not ASCII\n"


@pytest.mark.parametrize(
    "host",
    ["xn--", "xn--.example", "a.xn--", "xn--abc-", "xn--99999999999", "xn--a!", "XN--", "xn--_:80"],
)
async def test_a_host_that_claims_to_be_internationalised_and_is_not_is_refused(host: str) -> None:
    async with memory_server() as server:
        assert_refused(await server.answer(request(Host=host)), 400)
        assert_refused(
            await server.answer(plain_request().replace(b"localhost", host.encode())), 400
        )


async def test_refusals_and_pages_carry_the_headers_of_the_options() -> None:
    def page(request: trio_ws.Request) -> trio_ws.Response | None:
        return trio_ws.Response(200, {"Vary": "Cookie"}, "hi") if request.path == "/page" else None

    headers = {"X-Content-Type-Options": "nosniff", "Vary": "Origin"}
    async with memory_server(headers=headers, process_request=page) as server:
        for data, status, vary in (
            (request(Sec_WebSocket_Version="8"), 426, "Origin"),
            (request(Origin="https://evil.example"), 403, "Origin"),
            (b"no HTTP\r\n\r\n", 400, "Origin"),
            (plain_request(), 426, "Origin"),
            (plain_request().replace(b" / ", b" /page "), 200, "Cookie"),
        ):
            response = await server.answer(data)
            assert response.status == status
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers.get_all("Vary") == (vary,)
