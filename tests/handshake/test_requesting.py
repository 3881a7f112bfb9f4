"""The client's side of the opening handshake: good and bad responses."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

import trio_ws
from tests.conftest import run_autojumped
from tests.handshake.handshake_helpers import (
    ACCEPT,
    ACCEPTING,
    KEY,
    HookedStream,
    follow_script,
    memory_server,
    read_head,
    request_fields,
    scripted_server,
)
from tests.helpers import frame, least_cpu_seconds
from trio_ws import (
    ConnectionFailed,
    ConnectionLost,
    ConnectionRejected,
    HandshakeError,
    HandshakeTimeout,
    Headers,
    InvalidResponse,
    InvalidURL,
    wrap_client_stream,
)
from trio_ws._handshake.both_sides import accept_value
from trio_ws._http.values import MAX_BODY_BYTES

URL = "ws://example.org/chat?x=1"


async def open_and_leave(stream: trio.abc.Stream, url: str = URL, **options: Any) -> None:
    async with wrap_client_stream(stream, url, **options):
        pass


def without(field: bytes) -> bytes:
    """A good response without one of its fields."""
    lines = ACCEPTING.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(field))


def with_fields(*lines: bytes) -> bytes:
    """A good response with more fields."""
    return ACCEPTING[:-2] + b"\r\n".join([*lines, b"", b""])


# ---------------------------------------------------------------------------
# Requests
# ---------------------------------------------------------------------------


async def sent_by(url: str = URL, **options: Any) -> tuple[str, Headers]:
    """The request line and the fields that a client sends."""
    client, server = trio.testing.memory_stream_pair()
    heads: list[bytes] = []

    async def serve() -> None:
        response = ACCEPTING
        if options.get("subprotocols"):
            response = with_fields(
                b"Sec-WebSocket-Protocol: " + options["subprotocols"][0].encode()
            )
        end = frame(8, b"\x03\xe8", mask=False)
        heads.append(await follow_script(server, [response, end], hang_up=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await open_and_leave(client, url, **options)
    return heads[0].partition(b"\r\n")[0].decode(), request_fields(heads[0])


async def test_a_request_has_what_the_protocol_asks_for_and_no_more() -> None:
    line, headers = await sent_by()
    assert line == "GET /chat?x=1 HTTP/1.1"
    assert list(headers) == [
        "Host",
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Extensions",
        "User-Agent",
    ]
    assert headers["Host"] == "example.org"
    assert headers["Sec-WebSocket-Version"] == "13"
    assert headers["User-Agent"] == f"trio_ws/{trio_ws.__version__}"
    assert len(base64.b64decode(headers["Sec-WebSocket-Key"], validate=True)) == 16


async def test_each_request_has_a_key_of_its_own() -> None:
    keys = {(await sent_by())[1]["Sec-WebSocket-Key"] for _ in range(5)}
    assert len(keys) == 5


async def test_options_become_fields_of_the_request() -> None:
    _, headers = await sent_by(
        "wss://user:secret@example.org:8443/",
        subprotocols=["b", "a"],
        origin="https://example.org",
        user_agent=None,
        headers=[("Cookie", "a=1"), ("cookie", "b=2")],
    )
    assert headers["Host"] == "example.org:8443"
    assert headers["Sec-WebSocket-Protocol"] == "b, a"
    assert headers["Origin"] == "https://example.org"
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"user:secret").decode()
    assert headers.get_all("Cookie") == ("a=1", "b=2")
    assert "User-Agent" not in headers


async def test_fields_of_one_s_own_take_the_place_of_ours() -> None:
    fields = {"Authorization": "Bearer x", "User-Agent": "mine"}
    _, headers = await sent_by("ws://user:secret@example.org/", headers=fields)
    assert headers.get_all("Authorization") == ("Bearer x",)
    assert headers.get_all("User-Agent") == ("mine",)


def test_a_key_is_accepted_as_in_the_example_of_the_rfc() -> None:
    assert accept_value(KEY) == ACCEPT


async def test_the_request_and_the_response_can_be_looked_at() -> None:
    async with (
        memory_server(subprotocols=["chat"]) as server,
        wrap_client_stream(server.connect(), URL, subprotocols=["chat"]) as websocket,
    ):
        assert (websocket.request.method, websocket.request.path) == ("GET", "/chat")
        assert websocket.request.query == "x=1"
        assert websocket.response.status == 101
        key = websocket.request.headers["Sec-WebSocket-Key"]
        assert websocket.response.headers["Sec-WebSocket-Accept"] == accept_value(key)
        assert websocket.subprotocol == "chat"
        assert websocket.remote_address is None


# ---------------------------------------------------------------------------
# Responses that open a connection
# ---------------------------------------------------------------------------

ACCEPTABLE = {
    "the plain one": ACCEPTING,
    "tokens in any case": ACCEPTING.replace(b": websocket", b": WebSocket").replace(
        b": Upgrade", b": UPGRADE"
    ),
    "lists of tokens": ACCEPTING.replace(b": Upgrade", b": keep-alive, Upgrade"),
    "names in any case": ACCEPTING.replace(b"Sec-WebSocket", b"SEC-websocket"),
    "no reason phrase": ACCEPTING.replace(b" Switching Protocols", b""),
    "another reason phrase": ACCEPTING.replace(b"Switching Protocols", b"\xdcbernommen"),
    "bare line feeds": ACCEPTING.replace(b"\r\n", b"\n"),
    "Content-Length: 0": with_fields(b"Content-Length: 0"),
    "an empty list of extensions": with_fields(b"Sec-WebSocket-Extensions: "),
    "a list of nothing": with_fields(b"Sec-WebSocket-Extensions: ,"),
    "an empty subprotocol": with_fields(b"Sec-WebSocket-Protocol:"),
    "two empty subprotocols": with_fields(b"Sec-WebSocket-Protocol:", b"Sec-WebSocket-Protocol: "),
    "a quoted parameter": with_fields(
        b'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits="9"'
    ),
    "cookies": with_fields(b"Set-Cookie: a=\xff", b"Set-Cookie: b=2"),
    "103 before": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ACCEPTING,
    "HTTP/1.2": ACCEPTING.replace(b"HTTP/1.1", b"HTTP/1.2"),
    "100 and 102 before": b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + ACCEPTING,
}


@pytest.mark.parametrize("response", ACCEPTABLE.values(), ids=ACCEPTABLE.keys())
@pytest.mark.parametrize("in_pieces", [False, True], ids=["at once", "byte by byte"])
async def test_a_good_response_opens_the_connection(response: bytes, in_pieces: bool) -> None:
    # The key is not known yet when the response is cut up, so its place is kept in one piece.
    before, place, after = response.partition(b"{accept}")
    pieces = [*_octets(before), place, *_octets(after)] if in_pieces else [response]
    async with scripted_server([*pieces, frame(1, b"hello", mask=False)]) as stream:
        with trio.fail_after(5):
            async with wrap_client_stream(stream, URL, close_timeout=0.01) as websocket:
                assert await websocket.receive() == "hello"
                assert websocket.response.status == 101


def _octets(data: bytes) -> list[bytes]:
    return [data[number : number + 1] for number in range(len(data))]


async def test_frames_in_the_segment_of_the_response_are_received() -> None:
    behind = frame(1, b"one", mask=False) + frame(2, b"two", mask=False)
    end = frame(8, b"\x03\xe8", mask=False)
    async with (
        scripted_server(ACCEPTING + behind + end, hang_up=True) as stream,
        wrap_client_stream(stream, URL) as websocket,
    ):
        assert [message async for message in websocket] == ["one", b"two"]


# ---------------------------------------------------------------------------
# Responses that do not
# ---------------------------------------------------------------------------

INVALID = {
    "no Accept": (without(b"Sec-WebSocket-Accept"), "no valid Sec-WebSocket-Accept"),
    "wrong Accept": (
        ACCEPTING.replace(b"{accept}", ACCEPT.encode()),
        "no valid Sec-WebSocket-Accept",
    ),
    "empty Accept": (ACCEPTING.replace(b"{accept}", b""), "no valid Sec-WebSocket-Accept"),
    "Accept in another case": (
        with_fields(b"X: y").replace(b"{accept}", b"{ACCEPT}"),
        "no valid Sec-WebSocket-Accept",
    ),
    "repeated Accept": (
        with_fields(b"Sec-WebSocket-Accept: {accept}"),
        "no valid Sec-WebSocket-Accept",
    ),
    "no Upgrade": (without(b"Upgrade"), "does not say Upgrade: websocket"),
    "another Upgrade": (ACCEPTING.replace(b": websocket", b": h2c"), "does not say Upgrade"),
    "no Connection": (without(b"Connection"), "does not say Connection: Upgrade"),
    "Connection: close": (
        ACCEPTING.replace(b": Upgrade", b": close"),
        "does not say Connection: Upgrade",
    ),
    "unrequested subprotocol": (
        with_fields(b"Sec-WebSocket-Protocol: other"),
        "chose a subprotocol that was not offered: 'other'",
    ),
    "subprotocol in another case": (
        with_fields(b"Sec-WebSocket-Protocol: CHAT"),
        "chose a subprotocol that was not offered: 'CHAT'",
    ),
    "two subprotocols": (
        with_fields(b"Sec-WebSocket-Protocol: chat", b"Sec-WebSocket-Protocol: chat"),
        "chose a subprotocol that was not offered: 'chat, chat'",
    ),
    "unrequested extension": (
        with_fields(b"Sec-WebSocket-Extensions: permessage-bzip2"),
        "uses extensions that were not offered",
    ),
    "bad window bits": (
        with_fields(b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99"),
        "permessage-deflate cannot be understood",
    ),
    "HTTP/1.0": (ACCEPTING.replace(b"HTTP/1.1", b"HTTP/1.0"), "HTTP/1.0 knows no 101"),
    "HTTP/2.0": (ACCEPTING.replace(b"HTTP/1.1", b"HTTP/2.0"), "HTTP/2.0 knows no 101"),
    "a body": (with_fields(b"Content-Length: 5") + b"hello", "the 101 response has a body"),
    "a body in chunks": (
        with_fields(b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        "the 101 response has a body",
    ),
    "1 MiB in one header": (with_fields(b"X: " + b"y" * 2**20), "larger than 16384 bytes"),
    "1 MiB of headers": (with_fields(*[b"X: y"] * 175_000), "larger than 16384 bytes"),
    "129 fields": (with_fields(*[b"X: y"] * 126), "more than 128 fields"),
    "1 MiB of announcements": (
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 38_000 + ACCEPTING,
        "larger than 16384 bytes",
    ),
    "garbage": (bytes(range(256)), "this is not HTTP"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2p1\r\n", "this is not HTTP"),
    "a TLS alert": (b"\x15\x03\x01\x00\x02\x02\x46", "this is TLS, and not HTTP"),
    "a status that is none": (b"HTTP/1.1 abc OK\r\n\r\n", "illegal status line"),
    "status 99": (b"HTTP/1.1 099 Low\r\n\r\n", "status_code"),
    "a line without a colon": (with_fields(b"hello"), "illegal header line"),
    "a control character": (with_fields(b"X: a\x01"), "it holds a control character"),
}


@pytest.mark.parametrize(("response", "what"), INVALID.values(), ids=INVALID.keys())
async def test_a_bad_response_is_an_error_at_once(response: bytes, what: str) -> None:
    async with scripted_server(response) as stream:
        with trio.fail_after(5), pytest.raises(InvalidResponse, match=what) as caught:
            await open_and_leave(stream, subprotocols=["chat"])
        assert len(str(caught.value)) < 250
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


@pytest.mark.parametrize(
    "line", [b"X: " + b" " * 16000 + b"\0", b"Sec-WebSocket-Extensions: " + b"a;," * 5000]
)
async def test_no_response_takes_50_ms_to_judge(line: bytes) -> None:
    async def ask() -> None:
        async with scripted_server(with_fields(line)) as stream:
            with pytest.raises(InvalidResponse):
                await open_and_leave(stream)

    assert await least_cpu_seconds(ask) < 0.05


# ---------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------

REJECTING = {
    "a body of known length": (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello and more",
        403,
        b"hello",
    ),
    "a body in chunks": (
        b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        401,
        b"hello",
    ),
    "no body": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403, b""),
    "no body by its status": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "200": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi"),
    "HTTP/1.0": (b"HTTP/1.0 503 Busy\r\nContent-Length: 2\r\n\r\nhi", 503, b"hi"),
    "a redirect that is not followed": (
        b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        301,
        b"",
    ),
    "103 before": (
        b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx",
        404,
        b"x",
    ),
    "an endless body": (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2**20, 200, b"x" * MAX_BODY_BYTES),
    "an endless body in chunks": (
        b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000,
        403,
        b"x" * MAX_BODY_BYTES,
    ),
    "a body of 1 TiB": (
        b"HTTP/1.1 403 No\r\nContent-Length: 1099511627776\r\n\r\n" + b"x" * 2**20,
        403,
        b"x" * MAX_BODY_BYTES,
    ),
    "a broken body": (
        b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nnonsense\r\n",
        403,
        b"hi",
    ),
}


@pytest.mark.parametrize(("response", "status", "body"), REJECTING.values(), ids=REJECTING.keys())
async def test_a_refusal_is_raised_at_once_with_up_to_64_kib_of_its_body(
    response: bytes, status: int, body: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with scripted_server(response) as stream:
        with pytest.raises(ConnectionRejected, match=f"HTTP status {status}") as caught:
            await open_and_leave(stream)
    assert trio.current_time() == 0
    assert caught.value.response.status == status
    assert caught.value.response.body == body


async def test_a_body_may_end_with_the_connection() -> None:
    pieces = [b"HTTP/1.1 403 Forbidden\r\nX-A: b\r\n\r\n", b"hel", b"lo"]
    async with scripted_server(pieces, hang_up=True) as stream:
        with pytest.raises(ConnectionRejected) as caught:
            await open_and_leave(stream)
    assert caught.value.response == trio_ws.Response(403, {"X-A": "b"}, b"hello")


@pytest.mark.parametrize("length", [b"", b"Content-Length: 9\r\n"])
async def test_a_body_that_does_not_come_is_waited_for_a_second(
    length: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with scripted_server(b"HTTP/1.1 403 No\r\n" + length + b"\r\nhello") as stream:
        with pytest.raises(ConnectionRejected) as caught:
            await open_and_leave(stream)
    assert trio.current_time() == 1
    assert caught.value.response.body == b"hello"


async def test_a_body_that_breaks_off_is_what_came() -> None:
    def hook(number: int) -> None:
        if number == 3:
            raise trio.BrokenResourceError

    async with scripted_server(b"HTTP/1.1 403 No\r\n\r\nhello") as stream:
        with pytest.raises(ConnectionRejected) as caught:
            await open_and_leave(HookedStream(stream, hook))
    assert caught.value.response.body == b"hello"


# ---------------------------------------------------------------------------
# Time and faults
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("response", [b"", b"H", ACCEPTING[:-1]], ids=["nothing", "a byte", "most"])
async def test_a_silent_server_is_a_timeout_after_10_seconds(
    response: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with scripted_server(response) as stream:
        with pytest.raises(HandshakeTimeout, match="took longer than 10"):
            await open_and_leave(stream)
        assert trio.current_time() == 10
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_the_timeout_is_an_option(autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_server(b"") as stream:
        with pytest.raises(trio.TooSlowError, match="took longer than 3 s"):
            await open_and_leave(stream, open_timeout=3)
    assert trio.current_time() == 3


async def test_a_server_that_drips_for_ever_is_a_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, server = trio.testing.memory_stream_pair()

    async def drip() -> None:
        await read_head(server)
        await server.send_all(b"HTTP/1.1 101 Switching Protocols\r\n")
        for _ in range(100):
            await trio.sleep(1)
            try:
                await server.send_all(b"X: y\r\n")
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with pytest.raises(HandshakeTimeout):
            await open_and_leave(client)
        assert trio.current_time() == 10


@pytest.mark.parametrize("response", [b"", b"HTTP/1.1 101", ACCEPTING[:-2]])
async def test_a_server_that_hangs_up_is_an_error_at_once(response: bytes) -> None:
    async with scripted_server(response, hang_up=True) as stream:
        with pytest.raises(ConnectionFailed, match="the peer hung up in the handshake"):
            await open_and_leave(stream)


@pytest.mark.parametrize("failing", [1, 2])
async def test_a_first_write_or_read_that_fails_is_an_error_with_its_cause(failing: int) -> None:
    def hook(number: int) -> None:
        if number == failing:
            raise trio.BrokenResourceError("pulled out") from OSError("no route")

    async with scripted_server(ACCEPTING) as stream:
        hooked = HookedStream(stream, hook)
        with pytest.raises(ConnectionFailed, match="broke in the handshake: no route") as caught:
            await open_and_leave(hooked)
    assert isinstance(caught.value.__cause__, OSError)
    assert hooked.closed


@pytest.mark.parametrize("failing", [1, 2])
async def test_an_os_error_of_the_stream_is_translated(failing: int) -> None:
    def hook(number: int) -> None:
        if number == failing:
            raise OSError("no route")

    async with scripted_server(ACCEPTING) as stream:
        with pytest.raises(ConnectionFailed, match="no route"):
            await open_and_leave(HookedStream(stream, hook))


async def test_wherever_it_is_cancelled_only_cancelled_comes_out_and_the_stream_is_closed() -> None:
    end = frame(8, b"\x03\xe8", mask=False)
    for moment in itertools.count(1):
        async with scripted_server([ACCEPTING, end], hang_up=True) as client:
            with trio.CancelScope() as scope:

                def hook(
                    number: int, moment: int = moment, scope: trio.CancelScope = scope
                ) -> None:
                    if number == moment:
                        scope.cancel()

                stream = HookedStream(client, hook)
                await open_and_leave(stream)
            assert stream.closed
            if stream.operations < moment:
                assert not scope.cancelled_caught
                break


async def test_a_wrong_url_is_found_before_the_stream_is_touched() -> None:
    client, _ = trio.testing.memory_stream_pair()
    stream = HookedStream(client, pytest.fail)  # type: ignore[arg-type] # it is not to be called
    with pytest.raises(InvalidURL):
        await open_and_leave(stream, "http://example.org/")
    await stream.aclose()


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=60).map(lambda data: b"HTTP/1.1 " + data + b"\r\n\r\n"),
        st.tuples(st.integers(0, len(ACCEPTING)), st.binary(max_size=20), st.integers(0, 20)).map(
            lambda cut: ACCEPTING[: cut[0]] + cut[1] + ACCEPTING[cut[0] + cut[2] :]
        ),
    )
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_response_or_a_documented_error(response: bytes) -> None:
    async def main() -> None:
        async with scripted_server(response, hang_up=True) as stream:
            with trio.fail_after(9):
                try:
                    async with wrap_client_stream(stream, URL) as websocket:
                        await websocket.receive()
                except (HandshakeError, ConnectionLost):
                    pass

    run_autojumped(main)
