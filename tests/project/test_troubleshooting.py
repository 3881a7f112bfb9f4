"""Messages on the page of troubleshooting are those that users see.

Each is produced here, or stands in the package's code as it stands on the page.
"""

from __future__ import annotations

import ast
import asyncio
import logging
import re
import shutil
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from playwright.sync_api import Browser, sync_playwright

from tests.helpers import (
    HOST,
    PATIENCE,
    echo,
    forever,
    open_client_with_raw_server,
    open_server,
)
from tests.interop.peers.browser import FLAGS
from tests.project.pages import ROOT
from trio_ws import (
    CloseCode,
    ConnectionFailed,
    Request,
    Response,
    Router,
    WebSocket,
    open_websocket_url,
    serve_websocket,
    wrap_client_stream,
)
from trio_ws._command.cli import main

PAGE = ROOT / "docs/troubleshooting.md"

CA = trustme.CA()


def quoted() -> list[str]:
    """The messages on the page: code in the first column of its tables."""
    cells = re.findall(r"^\| ([^|]+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


def matches(message: str, text: str) -> bool:
    """Whether the message, where … stands for anything, is in the text."""
    pattern = ".*".join(re.escape(part) for part in message.split("…"))
    return re.search(pattern, text) is not None


def templates() -> list[str]:
    """The strings in the package's code, with … where something is put in."""
    found: list[str] = []
    for path in (ROOT / "trio_ws").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                ]
                found.append("".join(str(part) for part in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[-+.\d]*[a-z]", "…", node.value))
    return found


def context(name: str) -> ssl.SSLContext:
    """That of a server with a certificate for `name`."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CA.issue_cert(name).configure_cert(made)
    return made


# ---------------------------------------------------------------------------
# What goes wrong
# ---------------------------------------------------------------------------


async def wait_for_message(url: str, **options: Any) -> None:
    async with open_websocket_url(url, **options) as ws:
        await ws.receive()


async def connect(scheme: str = "ws", /, *, client: Any = None, **options: Any) -> None:
    async with open_server(echo, **options) as server:
        try:
            await wait_for_message(f"{scheme}://localhost:{server.port}/", **(client or {}))
        finally:
            while server.statistics().handshakes:  # it has not said yet what it thinks of this
                await trio.sleep(0.01)


async def answered_with(status: int) -> None:
    await connect(process_request=lambda _: Response(status, body="why"))


class Rewriting(trio.abc.SendStream):
    """What a proxy does that changes a request on its way."""

    def __init__(self, stream: trio.abc.SendStream, old: bytes, new: bytes) -> None:
        self._stream = stream
        self._old = old
        self._new = new

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(bytes(data).replace(self._old, self._new))

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def through_a_proxy(old: bytes, new: bytes) -> None:
    async with open_server(echo) as server:
        stream = await trio.open_tcp_stream(HOST, server.port)
        both = trio.StapledStream(Rewriting(stream, old, new), stream)
        async with wrap_client_stream(both, f"ws://{HOST}:{server.port}"):
            pass


async def while_one_is_connected(**options: Any) -> None:
    async with open_server(echo, **options) as server, open_websocket_url(server.urls[0]):
        await wait_for_message(server.urls[0])


async def ignore(ws: WebSocket) -> None:
    async for _ in ws:
        pass


async def with_a_handler_that_fails() -> None:
    async def fail(ws: WebSocket) -> None:
        raise ValueError("boom")

    async with open_server(fail) as server:
        await wait_for_message(server.urls[0])


async def send(message: Any, **options: Any) -> None:
    async with open_server(ignore, **options) as server, open_websocket_url(server.urls[0]) as ws:
        for _ in range(5):
            await ws.send(message)
        await ws.receive()


async def use_after_closing() -> None:
    async with open_server(echo) as server, open_websocket_url(server.urls[0]) as ws:
        await ws.aclose()
        await ws.send("too late")


async def while_the_server_ends() -> None:
    async with open_server(echo) as server, open_websocket_url(server.urls[0]) as ws:
        await server.aclose()
        await ws.receive()


async def serve(handler: Any, port: int = 0, **options: Any) -> None:
    await serve_websocket(handler, HOST, port, **options)


async def on_a_port_in_use() -> None:
    async with open_server(echo) as server:
        await serve(echo, server.port)


async def in_a_thread(function: Callable[[], Any]) -> None:
    await trio.to_thread.run_sync(function)


async def from_a_thread() -> None:
    async with open_server(echo) as server, open_websocket_url(server.urls[0]) as ws:
        await in_a_thread(partial(ws.send_nowait, "x"))


async def with_a_coroutine() -> None:
    coroutine: Any = forever()
    try:
        await in_a_thread(partial(trio.run, coroutine))
    finally:
        coroutine.close()


async def in_a_nursery() -> None:
    async with trio.open_nursery():
        raise ValueError


async def with_a_generator_that_yields_in_a_scope() -> None:
    async def generate() -> AsyncGenerator[None, None]:
        with trio.CancelScope():
            yield

    generator = generate()
    await anext(generator)
    with trio.CancelScope():
        await generator.aclose()


async def connect_to_a_router() -> None:
    async with open_server(Router()) as server:
        await wait_for_message(server.urls[0])


async def with_a_server_that_is_killed() -> None:
    streams = trio.testing.memory_stream_pair()
    async with open_client_with_raw_server(streams=streams) as (ws, peer):
        await peer.stream.aclose()
        await ws.receive()


@asynccontextmanager
async def listening() -> AsyncGenerator[trio.SocketListener, None]:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    async with listener:
        yield listener


async def with_a_silent_server() -> None:
    async with listening() as listener:
        await wait_for_message(f"ws://{HOST}:{listener.socket.getsockname()[1]}", open_timeout=0.1)


async def with_a_server_that_hangs_up() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with listening() as listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, hang_up, [listener])
        try:
            await wait_for_message(f"ws://{HOST}:{listener.socket.getsockname()[1]}")
        except ConnectionFailed as exc:
            sys.stderr.write(str(exc))
        nursery.cancel_scope.cancel()


async def without_async() -> None:
    block: Any = open_websocket_url("ws://localhost")
    with block:
        pass


async def command(*arguments: str) -> None:
    await in_a_thread(partial(main, arguments))


async def old_handler(ws: WebSocket, path: str) -> None:
    """As old versions of another library had them."""


REJECTED = "the handshake with … ended with HTTP status "
TRUSTING = ssl.create_default_context()
CA.configure_trust(TRUSTING)

#: Each message that is made of several parts, or is not ours, and how it comes about.
PRODUCED: dict[str, Callable[[], Awaitable[object]]] = {
    "cannot connect to …: Connection refused": partial(wait_for_message, f"ws://{HOST}:1"),
    "cannot connect to …: Name or service not known": partial(
        wait_for_message, "ws://nosuch.invalid"
    ),
    "the TLS handshake with … failed: [SSL: CERTIFICATE_VERIFY_FAILED] …: unable to get local "
    "issuer certificate; give an ssl_context that trusts its issuer": partial(
        connect, "wss", ssl_context=context("localhost")
    ),
    "the TLS handshake with … failed: [SSL: CERTIFICATE_VERIFY_FAILED] …: Hostname mismatch, "
    "…; if this is the right server, give its name in the certificate as server_hostname": partial(
        connect, "wss", client={"ssl_context": TRUSTING}, ssl_context=context("example.org")
    ),
    "the TLS handshake with … failed: [SSL: WRONG_VERSION_NUMBER] …; the peer may not speak "
    "TLS": partial(connect, "wss"),
    "answered with 400: this is TLS, and there is none here: …": partial(connect, "wss"),
    f"{REJECTED}400: TLS is spoken here: use wss:// instead of ws://, …": partial(
        connect, "ws", ssl_context=context("localhost")
    ),
    "answered with 400: it speaks plain HTTP, not TLS": partial(
        connect, "ws", ssl_context=context("localhost")
    ),
    "the opening handshake took longer than … s: it was still …": with_a_silent_server,
    "the peer hung up in the handshake; if the server speaks TLS, use wss:// instead of ws://": (
        with_a_server_that_hangs_up
    ),
    "write 'async with …(…)', not 'with'": without_async,
    **{f"{REJECTED}{status}: …": partial(answered_with, status) for status in (200, 400, 401, 502)},
    f"{REJECTED}403: pages of … may not connect to …: see the server's option origins=": partial(
        connect, client={"origin": "https://example.org"}
    ),
    f"{REJECTED}404: There is nothing at this path.": partial(connect_to_a_router),
    f"{REJECTED}421: this server does not answer to the host …: see its option hosts=": partial(
        connect, client={"headers": {"Host": "example.org"}}
    ),
    f"{REJECTED}426: the Upgrade header must say websocket": partial(
        through_a_proxy, b"Upgrade: websocket\r\n", b""
    ),
    f"{REJECTED}429: Too many connections from your address, …": partial(
        while_one_is_connected, max_connections_per_address=1
    ),
    f"{REJECTED}503: Too many connections, try again later.": partial(
        while_one_is_connected, max_connections=1
    ),
    f"{REJECTED}505: HTTP/1.1 is spoken here, not HTTP/1.0": partial(
        through_a_proxy, b"HTTP/1.1", b"HTTP/1.0"
    ),
    "1006 (abnormal closure), closed by the peer: the peer hung up without a Close frame": (
        with_a_server_that_is_killed
    ),
    "1011 (internal error), closed by the peer": with_a_handler_that_fails,
    "1009 (message too big), closed by the peer: message over … bytes": partial(
        send, "x" * 100, max_message_size=99
    ),
    "1008 (policy violation), closed by the peer: too fast: max_messages_per_second is …": partial(
        send, "x", max_messages_per_second=1, on_rate_limit="close"
    ),
    "1001 (going away), closed by the peer": while_the_server_ends,
    "a message is str (sent as text) or a buffer such as bytes (sent as binary); send_json() is "
    "for everything else, not …": partial(send, {"a": "dict"}),
    "1000 (normal closure), closed by the peer: idle for too long": partial(
        connect, idle_timeout=0.01
    ),
    "1000 (normal closure), closed by the peer: open for too long": partial(
        connect, max_lifetime=0.01
    ),
    "must be called from async context": partial(in_a_thread, trio.current_time),
    "…() needs trio, and no trio task is running here: start the program with trio.run(main), "
    "not with asyncio.run; …": partial(
        in_a_thread, lambda: asyncio.run(wait_for_message("ws://localhost"))
    ),
    "this connection belongs to the thread in which trio runs it: …": from_a_thread,
    "Trio was expecting an async function, but instead it got a coroutine object …": (
        with_a_coroutine
    ),
    "the handler is an async function of one WebSocket: make … async": partial(
        serve, lambda ws: None
    ),
    "the handler is called with one WebSocket, which does not suit …: missing a required "
    "argument: 'path'": partial(serve, old_handler),
    "…() has no option '…'; did you mean '…'?": partial(serve, echo, ping_intervall=1),
    "cannot listen on port … of …: Address already in use": on_a_port_in_use,
    "Exceptions from Trio nursery (1 sub-exception)": in_a_nursery,
    "Cancel scope stack corrupted: …": with_a_generator_that_yields_in_a_scope,
    "… does not name an application: write module:attribute, as in chat:handler": partial(
        command, "serve", "chat"
    ),
    "there is no module …, neither here nor installed": partial(command, "serve", "nosuch:handler"),
    "… is …, and not a handler, which is an async function of one WebSocket": partial(
        command, "serve", "sys:argv"
    ),
}


@pytest.mark.parametrize("message", PRODUCED)
async def test_what_goes_wrong_gives_the_message_on_the_page(
    message: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    error: BaseException | None = None
    with trio.fail_after(PATIENCE):
        try:
            await PRODUCED[message]()
        except Exception as exc:  # whatever the user would see
            error = exc
    seen = f"{error}\n{caplog.text}\n{capsys.readouterr().err}"
    assert matches(message, seen), seen


def test_every_message_on_the_page_is_produced_or_in_the_code() -> None:
    messages = quoted()
    assert len(messages) > 60
    known = templates()
    for message in messages:
        if message not in PRODUCED and message not in IN_CHROMIUM:
            assert any(matches(message, text) for text in known), message
    assert {*PRODUCED, *IN_CHROMIUM} - {*messages} == set()


def test_every_close_code_is_on_the_page() -> None:
    codes = re.findall(r"^\| (1\d{3}) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [int(code) for code in codes] == sorted(CloseCode)


# ---------------------------------------------------------------------------
# A browser
# ---------------------------------------------------------------------------

FAILED = "WebSocket connection to '…' failed: "

IN_CHROMIUM: dict[str, tuple[str, str]] = {
    f"{FAILED}Error during WebSocket handshake: Unexpected response code: 403": (
        "http",
        f"ws://{HOST}:PLAIN/",
    ),
    f"{FAILED}Error during WebSocket handshake: Unexpected response code: 404": (
        "http",
        "ws://localhost:PLAIN/404",
    ),
    f"{FAILED}Error during WebSocket handshake: Unexpected response code: 400": (
        "http",
        "ws://localhost:TLS/",
    ),
    f"{FAILED}Error in connection establishment: net::ERR_SSL_PROTOCOL_ERROR": (
        "http",
        "wss://localhost:PLAIN/",
    ),
    f"{FAILED}Error in connection establishment: net::ERR_CERT_AUTHORITY_INVALID": (
        "http",
        "wss://localhost:TLS/",
    ),
    f"{FAILED}Error during WebSocket handshake: Sent non-empty 'Sec-WebSocket-Protocol' header "
    "but no response was received": ("http", "ws://localhost:PLAIN/#chat"),
    "Mixed Content: The page at '…' was loaded over HTTPS, but attempted to connect to the "
    "insecure WebSocket endpoint '…'.": ("https", "ws://example.org/"),
    "Failed to construct 'WebSocket': An insecure WebSocket connection may not be initiated from "
    "a page loaded over HTTPS.": ("https", "ws://example.org/"),
}

SCRIPT = """
([url, subprotocols]) => new Promise((resolve) => {
    try {
        new WebSocket(url, subprotocols).onclose = (event) => resolve(`code ${event.code}`);
    } catch (error) {
        resolve(String(error));
    }
})
"""


def visit(plain: int, tls: int) -> dict[str, str]:
    """What Chromium says of each of these, in its console and to the script; by the ports."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        seen = {
            message: try_in(
                browser,
                f"{scheme}://localhost:{tls if scheme == 'https' else plain}",
                url.replace("PLAIN", str(plain)).replace("TLS", str(tls)),
            )
            for message, (scheme, url) in IN_CHROMIUM.items()
        }
        browser.close()
        return seen


def try_in(browser: Browser, site: str, url: str) -> str:
    page = browser.new_page(ignore_https_errors=site.startswith("https"))
    page.goto(f"{site}/page")
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    address, _, subprotocol = url.partition("#")
    told = page.evaluate(SCRIPT, [address, [subprotocol] if subprotocol else []])
    page.close()
    return "\n".join([*said, told])


async def test_chromium_says_what_is_on_the_page() -> None:
    def answer(request: Request) -> Response | None:
        if request.path == "/page":
            return Response(200, {"Content-Type": "text/html"}, "<!doctype html>")
        return Response(404) if request.path == "/404" else None

    options: Any = {"process_request": answer}
    async with (
        open_server(echo, **options) as plain,
        open_server(echo, ssl_context=context("localhost"), **options) as tls,
    ):
        seen = await trio.to_thread.run_sync(visit, plain.port, tls.port)
    for message, text in seen.items():
        assert matches(message, text), text
        assert "code 1006" in text or "SecurityError" in text
