"""Proxies for tests of clients: real ones in processes of their own, and one that can be told how
to misbehave.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import monotonic, sleep

import trio

from tests.client.client_helpers import AUTHORITY, LOOPBACK
from tests.handshake.handshake_helpers import read_head
from tests.helpers import PATIENCE, free_port

#: What every proxy that asks for credentials asks for.
USER, PASSWORD = "pat", "xyzzy-proxy"
CREDENTIALS = f"{USER}:{PASSWORD}"


# ---------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------


@contextmanager
def running(command: list[str], port: int, log: Path) -> Generator[int, None, None]:
    """A program that listens on `port`. It is ended with the block."""
    program = shutil.which(command[0], path=os.environ["PATH"] + ":/usr/local/sbin:/usr/sbin")
    assert program, f"{command[0]} is missing: make test installs it"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        until = monotonic() + PATIENCE
        while not is_listening(port):
            assert process.poll() is None and monotonic() < until, log.read_text()
            sleep(0.01)
        yield port
    finally:
        process.terminate()
        process.wait()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


@contextmanager
def tinyproxy(folder: Path, credentials: str = "") -> Generator[int, None, None]:
    """An HTTP proxy for CONNECT."""
    port = free_port()
    file = folder / f"tinyproxy-{port}.conf"
    login = f"BasicAuth {credentials.replace(':', ' ')}\n" if credentials else ""
    file.write_text(f"Port {port}\nListen {LOOPBACK}\nTimeout 60\nAllow {LOOPBACK}\n{login}")
    with running(["tinyproxy", "-d", "-c", str(file)], port, file.with_suffix(".log")):
        yield port


@contextmanager
def microsocks(folder: Path, credentials: str = "") -> Generator[int, None, None]:
    """A SOCKS 5 proxy."""
    port = free_port()
    user, _, password = credentials.partition(":")
    login = ["-u", user, "-P", password] if credentials else []
    command = ["microsocks", "-i", LOOPBACK, "-p", str(port), *login]
    with running(command, port, folder / f"microsocks-{port}.log"):
        yield port


@contextmanager
def tls_in_front(folder: Path, behind: int) -> Generator[int, None, None]:
    """HAProxy, which ends TLS and passes on what was in it to a port."""
    port = free_port()
    certificate = folder / f"{port}.pem"
    issued = AUTHORITY.issue_cert(LOOPBACK)
    issued.private_key_and_cert_chain_pem.write_to_path(certificate)
    file = folder / f"haproxy-{port}.cfg"
    file.write_text(
        "defaults\n  mode tcp\n  timeout connect 60s\n  timeout client 60s\n  timeout server 60s\n"
        f"listen tls\n  bind {LOOPBACK}:{port} ssl crt {certificate}\n"
        f"  server behind {LOOPBACK}:{behind}\n"
    )
    with running(["haproxy", "-db", "-f", str(file)], port, folder / f"haproxy-{port}.log"):
        yield port


# ---------------------------------------------------------------------------
# In this process
# ---------------------------------------------------------------------------


class Recorder:
    """A relay to a port, which keeps what the client said."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.heard = b""


@asynccontextmanager
async def serving(
    handle: Callable[[trio.abc.Stream], Awaitable[object]],
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncGenerator[int, None]:
    """A TCP server, or one over TLS, on a free port. What a client breaks is none of its errors."""

    async def forgiving(stream: trio.abc.Stream) -> None:
        try:
            await handle(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
        port: int = listeners[0].socket.getsockname()[1]
        served: list[trio.abc.Listener[trio.abc.Stream]] = [
            trio.SSLListener(each, ssl_context) if ssl_context is not None else each
            for each in listeners
        ]
        await nursery.start(trio.serve_listeners, forgiving, served)
        yield port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def recorder(port: int) -> AsyncGenerator[Recorder, None]:
    relay = Recorder(port)

    async def handle(stream: trio.abc.Stream) -> None:
        async with await trio.open_tcp_stream(LOOPBACK, port) as behind:

            def keep(data: bytes) -> None:
                relay.heard += data

            await pass_on_both_ways(stream, behind, keep)

    async with serving(handle) as relay.port:
        yield relay


async def pass_on_both_ways(
    one: trio.abc.Stream, other: trio.abc.Stream, keep: Callable[[bytes], None]
) -> None:
    """Until one of them hangs up."""
    async with trio.open_nursery() as nursery:

        async def pass_on(
            source: trio.abc.Stream, target: trio.abc.Stream, keep: Callable[[bytes], None]
        ) -> None:
            try:
                async for data in source:
                    keep(bytes(data))
                    await target.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(pass_on, one, other, keep)
        nursery.start_soon(pass_on, other, one, lambda _: None)


class TunnelProxy:
    """An HTTP proxy that leads to one port of this machine, whatever it is asked for.

    Attributes:
        port: its own.
        heads: the requests so far.
        heard: what clients said behind their requests.
    """

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[bytes] = []
        self.heard = b""

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


@asynccontextmanager
async def tunnel_proxy(
    to: int,
    ssl_context: ssl.SSLContext | None = None,
    answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
) -> AsyncGenerator[TunnelProxy, None]:
    proxy = TunnelProxy()

    async def handle(stream: trio.abc.Stream) -> None:
        head = await read_head(stream)
        if not head:
            return
        proxy.heads.append(head)
        async with await trio.open_tcp_stream(LOOPBACK, to) as behind:
            await stream.send_all(answer)

            def keep(data: bytes) -> None:
                proxy.heard += data

            await pass_on_both_ways(stream, behind, keep)

    async with serving(handle, ssl_context) as proxy.port:
        yield proxy


@asynccontextmanager
async def scripted_proxy(
    answer: bytes | Callable[[trio.abc.Stream], Awaitable[object]],
) -> AsyncGenerator[str, None]:
    """A proxy that answers every request with these bytes, or as a function does. Gives its URL."""

    async def handle(stream: trio.abc.Stream) -> None:
        if callable(answer):
            await answer(stream)
        else:
            await read_head(stream)
            await stream.send_all(answer)
            async for _ in stream:
                pass

    async with serving(handle) as port:
        yield f"http://{LOOPBACK}:{port}"
