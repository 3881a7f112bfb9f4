"""Clients that follow redirects: where to, with what, and where not."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
import trio.testing

import trio_ws
from tests.client.client_helpers import LOOPBACK, open_and_leave, redirect, tcp_server
from tests.handshake.handshake_helpers import (
    ACCEPTING,
    request_fields,
    scripted_server,
    scripted_tcp_server,
)
from tests.helpers import echo, frame
from trio_ws import (
    ConnectionRejected,
    InvalidResponse,
    InvalidURL,
    TooManyRedirects,
    WebSocketServer,
    open_websocket_url,
    wrap_client_stream,
)


async def test_redirects_are_not_followed_unless_asked_for() -> None:
    async with scripted_tcp_server(lambda head: redirect("/there")) as (port, requests):
        with pytest.raises(ConnectionRejected) as caught:
            await open_and_leave(f"ws://{LOOPBACK}:{port}/")
    assert caught.value.response.status == 302
    assert caught.value.response.headers["Location"] == "/there"
    assert len(requests) == 1


GOODBYE = frame(8, b"\x03\xe8", mask=False)


def path_of(head: bytes) -> str:
    return head.split(b" ")[1].decode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    ["/there", "there", "ws://{}/there", "http://{}/there", "//{}/there", "/there#fragment"],
)
async def test_a_redirect_is_followed_when_asked_for(status: int, location: str) -> None:
    def respond(head: bytes) -> bytes:
        if path_of(head) == "/there":
            return ACCEPTING + GOODBYE
        host = request_fields(head)["Host"]
        return redirect(location.format(host), status)

    async with scripted_tcp_server(respond) as (port, requests):
        url = f"ws://{LOOPBACK}:{port}/here"
        async with open_websocket_url(url, max_redirects=1, close_timeout=0.01) as websocket:
            assert websocket.request.target == "/there"
    assert list(map(path_of, requests)) == ["/here", "/there"]


@pytest.mark.parametrize("status", [200, 300, 304, 403])
async def test_another_status_is_no_redirect_whatever_its_location(status: int) -> None:
    async with scripted_tcp_server(lambda head: redirect("/there", status)) as (port, requests):
        with pytest.raises(ConnectionRejected, match=f"HTTP status {status}"):
            await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=10)
    assert len(requests) == 1


async def test_a_redirect_to_nowhere_is_a_rejection() -> None:
    def respond(head: bytes) -> bytes:
        return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"

    async with scripted_tcp_server(respond) as (port, _):
        with pytest.raises(ConnectionRejected, match="HTTP status 302"):
            await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=10)


@pytest.mark.parametrize("limit", [1, 10])
async def test_a_loop_of_redirects_ends_at_the_limit(limit: int) -> None:
    async with scripted_tcp_server(lambda head: redirect("/")) as (port, requests):
        with pytest.raises(TooManyRedirects, match=f"more than {limit} redirects") as caught:
            await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=limit)
    assert len(requests) == limit + 1
    assert isinstance(caught.value.__cause__, ConnectionRejected)


async def test_the_odd_characters_of_a_location_go_out_encoded() -> None:
    def respond(head: bytes) -> bytes:
        return redirect("/caf\xc3\xa9 {}") if path_of(head) == "/" else ACCEPTING + GOODBYE

    async with scripted_tcp_server(respond) as (port, requests):
        await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=1, close_timeout=0.01)
    assert path_of(requests[1]) == "/caf%C3%A9%20%7B%7D"


@pytest.mark.parametrize("second", ["/there", "/elsewhere"])
async def test_a_redirect_to_two_places_leads_nowhere(second: str) -> None:
    def respond(head: bytes) -> bytes:
        if path_of(head) == "/there":
            return ACCEPTING + GOODBYE
        return redirect(f"/there\r\nLocation: {second}")

    async with scripted_tcp_server(respond) as (port, _):
        url = f"ws://{LOOPBACK}:{port}/"
        with pytest.raises(ConnectionRejected):
            await open_and_leave(url)
        if second == "/there":  # it is one place after all
            await open_and_leave(url, max_redirects=1, close_timeout=0.01)
        else:
            with pytest.raises(InvalidResponse, match="redirects to more than one place"):
                await open_and_leave(url, max_redirects=1)


async def test_a_redirect_that_names_a_user_is_an_invalid_response() -> None:
    async with scripted_tcp_server(lambda head: redirect("http://u:p@h/")) as (port, requests):
        with pytest.raises(InvalidResponse, match="it names a user"):
            await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=1)
    assert len(requests) == 1


@pytest.mark.parametrize("location", ["ftp://h/", "http://[bad/", "/a\\b", "http://h:0/"])
async def test_a_redirect_to_what_is_no_websocket_is_an_invalid_response(location: str) -> None:
    async with scripted_tcp_server(lambda head: redirect(location)) as (port, _):
        with pytest.raises(InvalidResponse, match="the server redirects to") as caught:
            await open_and_leave(f"ws://{LOOPBACK}:{port}/", max_redirects=1)
    assert isinstance(caught.value.__cause__, InvalidURL)


@pytest.mark.parametrize("location", ["ws://{}:{}/", "http://{}:{}/"])
async def test_a_redirect_never_gives_up_tls(
    location: str, server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with scripted_tcp_server(lambda head: ACCEPTING) as (port, requests):
        moved = trio_ws.Response(301, {"Location": location.format(LOOPBACK, port)})
        async with tcp_server(
            ssl_context=server_tls, process_request=lambda asked: moved
        ) as server:
            with pytest.raises(InvalidResponse, match="would give up TLS"):
                await open_and_leave(
                    f"wss://localhost:{server.port}/", ssl_context=trusting, max_redirects=10
                )
    assert not requests


async def test_an_ssl_context_that_would_not_be_used_is_a_mistake(
    trusting: ssl.SSLContext,
) -> None:
    with pytest.raises(ValueError, match="for wss:// URLs"):
        await open_and_leave("ws://localhost:1/", ssl_context=trusting)


async def test_a_redirect_may_take_up_tls(
    server_tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with tcp_server(ssl_context=server_tls) as server:
        target = f"https://localhost:{server.port}/there"
        async with scripted_tcp_server(lambda head: redirect(target)) as (port, _):
            url = f"ws://{LOOPBACK}:{port}/"
            async with open_websocket_url(url, ssl_context=trusting, max_redirects=1) as websocket:
                assert websocket.request.scheme == "wss"
                assert websocket.request.target == "/there"


CREDENTIALS = {"Cookie": "a=1", "X-Other": "y"}


async def test_credentials_stay_within_their_origin() -> None:
    def respond(head: bytes) -> bytes:
        return ACCEPTING + GOODBYE if path_of(head) == "/there" else redirect("/there")

    async with scripted_tcp_server(respond) as (port, requests):
        await open_and_leave(
            f"ws://user:secret@{LOOPBACK}:{port}/",
            max_redirects=1,
            headers=CREDENTIALS,
            close_timeout=0.01,
        )
    for head in requests:
        fields = request_fields(head)
        assert fields["Authorization"] == "Basic dXNlcjpzZWNyZXQ="
        assert fields["Cookie"] == "a=1"
        assert fields["X-Other"] == "y"


@pytest.mark.parametrize("own", [{}, {"Authorization": "Bearer x"}])
async def test_credentials_are_not_sent_to_another_origin_nor_back_from_there(
    own: dict[str, str],
) -> None:
    ports: list[int] = []

    def respond_elsewhere(head: bytes) -> bytes:
        return redirect(f"http://{LOOPBACK}:{ports[0]}/back")

    async with scripted_tcp_server(respond_elsewhere) as (elsewhere, requests_elsewhere):

        def respond(head: bytes) -> bytes:
            if path_of(head) == "/back":
                return ACCEPTING + GOODBYE
            return redirect(f"http://{LOOPBACK}:{elsewhere}/")

        async with scripted_tcp_server(respond) as (port, requests):
            ports.append(port)
            await open_and_leave(
                f"ws://user:secret@{LOOPBACK}:{port}/",
                max_redirects=2,
                headers={**CREDENTIALS, **own},
                subprotocols=["chat", "bearer.secret"],
                close_timeout=0.01,
            )
    assert "Authorization" in request_fields(requests[0])
    assert request_fields(requests[0])["Sec-WebSocket-Protocol"] == "chat, bearer.secret"
    for head in (requests_elsewhere[0], requests[1]):
        fields = request_fields(head)
        assert {"Authorization", "Cookie"}.isdisjoint(fields)
        assert fields["X-Other"] == "y"
        assert fields["Sec-WebSocket-Protocol"] == "chat"


async def test_a_redirect_within_a_unix_socket_stays_there_and_another_leaves_it(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "app.sock")
    unix = trio.socket.socket(trio.socket.AF_UNIX)
    await unix.bind(path)
    unix.listen()
    async with tcp_server() as elsewhere, trio.open_nursery() as nursery:

        def process_request(asked: trio_ws.Request) -> trio_ws.Response:
            there = f"http://{LOOPBACK}:{elsewhere.port}/out"
            return trio_ws.Response(302, {"Location": "/in" if asked.path == "/" else there})

        async def serve(*, task_status: trio.TaskStatus[WebSocketServer]) -> None:
            await trio_ws.serve_listeners(
                echo,
                [trio.SocketListener(unix)],
                task_status=task_status,
                process_request=process_request,
            )

        server = await nursery.start(serve)
        async with open_websocket_url("ws://example.org/", path=path, max_redirects=2) as websocket:
            assert websocket.remote_address == (LOOPBACK, elsewhere.port)
            assert websocket.request.target == "/out"
        await server.aclose()


async def test_a_stream_that_was_given_follows_no_redirects() -> None:
    async with scripted_server(redirect("/there")) as stream:
        with pytest.raises(ConnectionRejected):
            async with wrap_client_stream(stream, "ws://example.org/"):
                pytest.fail("it was opened")
