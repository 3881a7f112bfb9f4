"""Applications and pairs of connections in memory, and what happens to their errors.

This module owns how a test reaches an application without a network.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from ssl import SSLContext
from typing import Any, Protocol, Unpack, final

import trio
import trio.testing

from .._addresses import Address
from .._client.client import wrap_client_stream
from .._connection.websocket import WebSocket
from .._errors import WebSocketError
from .._http.url import parse_url
from .._http.values import Request
from .._keywords import ClientStreamKeywords, ListenerKeywords, ServerStreamKeywords
from .._nursery import leaf_exceptions, open_bare_nursery, protected_context, raise_as_is
from .._options import ClientStreamOptions, ListenerOptions, ProcessRequest, make_options
from .._server.handlers import Handler
from .._server.one_stream import wrap_server_stream
from .._server.server import WebSocketServer, serve_listeners, serve_websocket
from ._memory_client import HOST, MemoryClient, MemoryListener, Params

# ---------------------------------------------------------------------------
# One client
# ---------------------------------------------------------------------------


@protected_context
async def open_test_websocket(
    handler: Handler,
    path: str = "/",
    *,
    server_options: ListenerKeywords | None = None,
    remote_address: Address = None,
    params: Params = (),
    max_redirects: int = 0,
    **options: Unpack[ClientStreamKeywords],
) -> AsyncGenerator[WebSocket, None]:
    """Serve `handler` in memory and connect one client to it::

        async with open_test_websocket(echo, "/ws") as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"

    It is `open_test_app` with one `MemoryClient.websocket`, and has the guarantees of both.

    Args:
        handler: a handler, or a router.
        path: the path to ask for, query included; or a whole ``ws://`` or ``wss://`` URL, if the
            host or the scheme matters.
        server_options: those of `ListenerOptions`, for the server.
        remote_address: where the client seems to come from, as in `MemoryApp.client`.
        params: what to add to the query.
        max_redirects: how many redirects to follow.
        options: those of `ClientStreamOptions`, for the client.

    Raises:
        ConnectionRejected: the application answered with another status than 101.
        Exception: what `handler` or `process_request` raised.
    """
    make_options(ClientStreamOptions, options, open_test_websocket)
    async with (
        open_test_app(handler, **(server_options or {})) as app,
        app.client(remote_address=remote_address).websocket(
            path, params=params, max_redirects=max_redirects, **options
        ) as websocket,
    ):
        yield websocket


# ---------------------------------------------------------------------------
# An application in memory
# ---------------------------------------------------------------------------


@protected_context
async def open_test_app(
    handler: Handler, **options: Unpack[ListenerKeywords]
) -> AsyncGenerator[MemoryApp, None]:
    """Serve `handler` in memory, for as many clients as a test wants::

        async with open_test_app(chat) as app:
            async with app.websocket("/room") as ada, app.websocket("/room") as bob:
                await ada.send("hello")
                assert await bob.receive() == "hello"

    It is `serve_listeners` over a `MemoryListener`: `process_request`, origins, limits and timeouts
    apply as they do in production. Clients have no address, unless `MemoryApp.client` gives them
    one.

    **An error of the application fails the test.** What the handler or `process_request` raises
    cancels the block and comes out of it bare. It replaces the `ConnectionClosed` or other
    `WebSocketError` that the block may have met because of it. If the block also failed for another
    reason, the two come out in a group. To test what a client sees of such an error, give
    `on_handler_error`: it alone decides then, as in production.

    Leaving the block shuts the server down, as cancelling it would: handlers that are still running
    get `grace_period` seconds to finish and are then cancelled. Nothing is left running.
    """
    make_options(ListenerOptions, options, open_test_app)
    listener = MemoryListener()
    async with _serving(partial(serve_listeners, handler, [listener]), options) as server:
        yield MemoryApp(server, listener)


@final
class MemoryApp(MemoryClient):
    """An application that is served in memory, and the way to it: what `open_test_app` gives.

    It is also the first client: it has no address, and it has cookies, like those that `client`
    makes.

    Attributes:
        server: the running server, with its `connections` and `statistics`.
    """

    def __init__(self, server: WebSocketServer, listener: MemoryListener) -> None:
        super().__init__(listener)
        self.server = server

    def client(self, *, remote_address: Address = None) -> MemoryClient:
        """Another client, which shares no cookies with the others.

        Args:
            remote_address: where it seems to come from: ``("192.0.2.1", 50000)``, for example.
        """
        return MemoryClient(self._listener, remote_address)

    def __repr__(self) -> str:
        return f"<MemoryApp with {self.server!r}>"


# ---------------------------------------------------------------------------
# A server on a port
# ---------------------------------------------------------------------------


@protected_context
async def open_test_server(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    ssl_context: SSLContext | None = None,
    **options: Unpack[ListenerKeywords],
) -> AsyncGenerator[WebSocketServer, None]:
    """Serve `handler` on a free port, for clients that need one: a browser, another library::

        async with open_test_server(echo) as server:
            async with open_websocket_url(server.urls[0]) as ws:
                ...

    It is `serve_websocket` with port 0. Errors of the application, and leaving the block, are as in
    `open_test_app`. The network is real, so the clock should be real: an autojumped clock jumps
    while bytes are on their way.

    Args:
        handler: a handler, or a router.
        host: the address to bind; the loopback interface unless told otherwise.
        ssl_context: for TLS, with a certificate loaded.
        options: those of `ListenerOptions`.
    """
    make_options(ListenerOptions, options, open_test_server)
    serve = partial(serve_websocket, handler, host, 0, ssl_context=ssl_context)
    async with _serving(serve, options) as server:
        yield server


# ---------------------------------------------------------------------------
# What happens to the application's errors
# ---------------------------------------------------------------------------


@protected_context
async def _serving(
    serve: Callable[..., Awaitable[None]], options: ListenerKeywords
) -> AsyncGenerator[WebSocketServer, None]:
    async with _open_nursery_behind_block() as nursery:
        settings = _outspoken(options, nursery)
        server: WebSocketServer = await nursery.start(partial(serve, **settings))
        try:
            yield server
        finally:
            with trio.CancelScope(shield=True):
                await server.aclose()


def _outspoken(options: ListenerKeywords, nursery: trio.Nursery) -> ListenerKeywords:
    """The options that let errors of the application come out, unless `options` decide on them."""
    if "on_handler_error" in options:
        return options
    settings: ListenerKeywords = {**options, "on_handler_error": "propagate"}
    process_request = options.get("process_request")
    if callable(process_request):
        settings["process_request"] = _report_errors(process_request, nursery)
    return settings


def _report_errors(process_request: ProcessRequest, nursery: trio.Nursery) -> ProcessRequest:
    async def process_and_report(request: Request) -> Any:  # whatever it answers
        try:
            answer = process_request(request)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as exc:
            nursery.start_soon(_fail, exc)
            raise

    return process_and_report


async def _fail(exc: Exception) -> None:
    try:
        raise exc
    finally:
        del exc  # it would keep this frame, and the frame would keep it


@protected_context
async def _open_nursery_behind_block() -> AsyncGenerator[trio.Nursery, None]:
    """A nursery whose tasks' errors come before those that the block met because of them.

    A block that talks to a failing task sees its connection end, usually before the nursery is
    cancelled. That would hide the cause behind its consequence.
    """
    # The id of the block's exception: a reference to it would make a cycle with this frame.
    consequence = 0
    failures: list[BaseException] = []
    try:
        async with open_bare_nursery() as nursery:
            try:
                yield nursery
            except BaseException as exc:
                if all(isinstance(leaf, _CONSEQUENCES) for leaf in leaf_exceptions(exc)):
                    consequence = id(exc)
                raise
    except BaseExceptionGroup as group:
        failures.append(_cause(group, consequence))
    if failures:
        raise_as_is(failures.pop())


def _cause(group: BaseExceptionGroup[BaseException], consequence: int) -> BaseException:
    """What is to come out of the block: all of it, if the block failed for another reason."""
    causes = [exc for exc in group.exceptions if id(exc) != consequence]
    return causes[0] if len(causes) < len(group.exceptions) else group


#: How a block notices that the other side failed.
_CONSEQUENCES = (WebSocketError, trio.ClosedResourceError, trio.Cancelled)


# ---------------------------------------------------------------------------
# Both ends of one connection
# ---------------------------------------------------------------------------


@protected_context
async def open_pair(
    url: str = f"ws://{HOST}/",
    *,
    client_options: ClientStreamKeywords | None = None,
    server_options: ServerStreamKeywords | None = None,
    streams: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
) -> AsyncGenerator[tuple[WebSocket, WebSocket], None]:
    """Two ends of one connection, open: the client's and the server's::

        async with open_pair() as (client, server):
            await client.send("hello")
            assert await server.receive() == "hello"

    It is for code that takes a connection rather than serves one. Leaving the block closes the
    client's end first.

    Args:
        url: what the client asks for.
        client_options: those of `ClientStreamOptions`.
        server_options: those of `ServerStreamOptions`.
        streams: the client's and the server's end of the stream to use; by default, new memory
            streams. They are closed at the end.

    Raises:
        HandshakeError: the handshake between the two failed.
        TypeError, ValueError: an option or the URL is wrong.
    """
    client_stream, server_stream = streams or trio.testing.memory_stream_pair()
    try:  # so that a mistake comes out alone, without the error that the other side would get
        make_options(ClientStreamOptions, client_options or {}, wrap_client_stream)
        parse_url(url)
    except BaseException:
        for stream in (client_stream, server_stream):
            await trio.aclose_forcefully(stream)
        raise
    ends: list[WebSocket] = []
    opened, left = trio.Event(), trio.Event()

    async def hold_server_end() -> None:
        async with wrap_server_stream(server_stream, **(server_options or {})) as server:
            ends.append(server)
            opened.set()
            await left.wait()

    async with _open_nursery_behind_block() as nursery:
        nursery.start_soon(hold_server_end)
        try:
            async with wrap_client_stream(client_stream, url, **(client_options or {})) as client:
                await opened.wait()
                yield client, ends[0]
        finally:
            left.set()


# ---------------------------------------------------------------------------
# Types of the fixtures
# ---------------------------------------------------------------------------


class OpenWebSocketTo(Protocol):
    """The fixture `open_websocket_to`: `open_test_websocket` until the test ends."""

    async def __call__(
        self,
        handler: Handler,
        path: str = "/",
        *,
        server_options: ListenerKeywords | None = None,
        remote_address: Address = None,
        params: Params = (),
        max_redirects: int = 0,
        **options: Unpack[ClientStreamKeywords],
    ) -> WebSocket: ...


class StartWebSocketApp(Protocol):
    """The fixture `start_websocket_app`: `open_test_app` until the test ends."""

    async def __call__(
        self, handler: Handler, **options: Unpack[ListenerKeywords]
    ) -> MemoryApp: ...


class StartWebSocketServer(Protocol):
    """The fixture `start_websocket_server`: `open_test_server` until the test ends."""

    async def __call__(
        self,
        handler: Handler,
        *,
        host: str = "127.0.0.1",
        ssl_context: SSLContext | None = None,
        **options: Unpack[ListenerKeywords],
    ) -> WebSocketServer: ...
