"""Sockets to accept connections on: every address of every name, and one port."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.helpers import HOST
from trio_ws._server.listening import (
    bind_tcp_sockets,
    bound_unix_socket,
    listen,
    open_tcp_listeners,
    port_of,
)
from trio_ws._transport.accepting import wrap_listener

#: For documentation (RFC 5737, RFC 3849): no machine has these.
ELSEWHERE, ELSEWHERE_6 = "192.0.2.1", "2001:db8::1"


NAMES = {
    "both": [HOST, "::1"],
    "here-and-elsewhere": [ELSEWHERE_6, HOST],
    "elsewhere": [ELSEWHERE, ELSEWHERE_6],
}


class Names(trio.abc.HostnameResolver):
    async def getaddrinfo(self, host: Any, port: Any, *how: Any) -> Any:
        return [
            entry
            for address in NAMES[host.decode()]
            for entry in socket.getaddrinfo(address, port, *how)
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


def close_all(sockets: list[socket.socket]) -> list[str]:
    """Which addresses they had, all on one port."""
    assert {sock.getsockname()[1] for sock in sockets} == {port_of(sockets)}
    addresses = [sock.getsockname()[0] for sock in sockets]
    for sock in sockets:
        sock.close()
    return addresses


async def bound(*hosts: str | None) -> list[str]:
    trio.socket.set_custom_hostname_resolver(Names())
    return close_all(await bind_tcp_sockets(hosts, 0))


async def listening(host: str | None) -> list[str]:
    trio.socket.set_custom_hostname_resolver(Names())
    async with AsyncExitStack() as stack:
        listeners = await open_tcp_listeners(host, 0)
        for listener in listeners:
            await stack.enter_async_context(listener)
        assert len({listener.socket.getsockname()[1] for listener in listeners}) == 1
        return [listener.socket.getsockname()[0] for listener in listeners]


async def test_every_address_gets_a_socket_on_the_same_port() -> None:
    assert await bound("both") == await listening("both") == [HOST, "::1"]
    assert await bound("both", HOST, "127.0.0.2") == [HOST, "::1", "127.0.0.2"]


async def test_no_host_is_every_interface() -> None:
    assert await bound(None) == await listening(None) == ["0.0.0.0", "::"]


async def test_an_address_of_a_name_that_is_not_this_machine_s_is_left_out() -> None:
    assert await bound("here-and-elsewhere") == await listening("here-and-elsewhere") == [HOST]
    for hosts in (["elsewhere"], [HOST, ELSEWHERE], ["both", "elsewhere"]):
        with pytest.raises(OSError, match=f"cannot listen on port .* of {ELSEWHERE}: ") as caught:
            await bound(*hosts)
        assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("open_all", [bound, listening])
@pytest.mark.parametrize("step", ["bind", "listen"])
async def test_a_port_that_is_taken_on_another_address_is_not_picked(
    monkeypatch: pytest.MonkeyPatch, open_all: Callable[[str], Awaitable[list[str]]], step: str
) -> None:
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.EADDRINUSE, "in use")

    class Unlucky(socket.socket):
        def bind(self, address: Any) -> None:
            if step == "bind":
                count()
            super().bind(address)

        def listen(self, *backlog: int) -> None:
            if step == "listen":
                count()
            super().listen(*backlog)

    monkeypatch.setattr(socket, "socket", Unlucky)
    assert await open_all("both") == [HOST, "::1"]
    assert calls == (0 if (open_all, step) == (bound, "listen") else 4)


async def test_a_port_that_cannot_be_had_on_every_address_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unlucky(socket.socket):
        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(errno.EADDRINUSE, "in use")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Unlucky)
    with pytest.raises(OSError, match="cannot listen on port .* of ::1: in use"):
        await bound("both")


def test_a_unix_socket_whose_queue_is_full_is_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as busy, ExitStack() as clients:
        busy.bind(path)
        busy.listen(0)
        with suppress(BlockingIOError):
            while True:
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(path)
        with pytest.raises(OSError, match="Address already in use"):
            clients.enter_context(bound_unix_socket(path))


async def test_a_port_that_somebody_took_meanwhile_is_said_to_be_taken() -> None:
    (ours,) = await bind_tcp_sockets([HOST], 0)
    (theirs,) = await bind_tcp_sockets([HOST], port_of([ours]))
    with ours, theirs:
        listen(theirs)
        with pytest.raises(OSError, match="cannot listen on .*: Address already in use"):
            listen(ours)


async def listeners_of_another_s(host: str, port: int) -> list[trio.SocketListener]:
    """On a socket that nobody has prepared, as systemd passes it."""
    return await trio.open_tcp_listeners(port, host=host)


@pytest.mark.parametrize("open_listeners", [open_tcp_listeners, listeners_of_another_s])
async def test_a_client_that_comes_before_the_first_accept_is_sent_things_without_delay(
    open_listeners: Callable[[str, int], Awaitable[list[trio.SocketListener]]],
) -> None:
    (listener,) = await open_listeners(HOST, 0)
    async with listener:
        with socket.create_connection(listener.socket.getsockname()):
            acceptor = await wrap_listener(listener, lambda exc: None)
            (accepted,) = await acceptor.accept()
            assert accepted.plain_socket is not None
            assert accepted.plain_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await accepted.aclose()
