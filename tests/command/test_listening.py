"""The sockets of ``trio-ws serve``: every address of every name, and one port."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import trio

from tests.helpers import HOST
from trio_ws._command.exits import CommandFailed
from trio_ws._command.listening import bound_tcp_sockets, listen, port_of

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


async def addresses(*hosts: str) -> list[str]:
    trio.socket.set_custom_hostname_resolver(Names())
    async with bound_tcp_sockets(hosts, 0) as sockets:
        assert {sock.getsockname()[1] for sock in sockets} == {port_of(sockets)}
        return [sock.getsockname()[0] for sock in sockets]


async def test_every_address_gets_a_socket_on_the_same_port() -> None:
    assert await addresses("both") == [HOST, "::1"]
    assert await addresses("both", HOST, "127.0.0.2") == [HOST, "::1", "127.0.0.2"]


async def test_an_address_of_a_name_that_is_not_this_machine_s_is_left_out() -> None:
    assert await addresses("here-and-elsewhere") == [HOST]
    for hosts in (["elsewhere"], [HOST, ELSEWHERE], ["both", "elsewhere"]):
        with pytest.raises(CommandFailed, match=f"cannot listen on port .* of {ELSEWHERE}: "):
            await addresses(*hosts)


async def test_a_port_that_is_taken_on_another_address_is_not_picked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0

    class Unlucky(socket.socket):
        def bind(self, address: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise OSError(errno.EADDRINUSE, "in use")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Unlucky)
    assert await addresses("both") == [HOST, "::1"]
    assert calls == 4


async def test_a_port_that_somebody_took_meanwhile_is_said_to_be_taken() -> None:
    async with (
        bound_tcp_sockets([HOST], 0) as (ours,),
        bound_tcp_sockets([HOST], port_of([ours])) as (theirs,),
    ):
        listen(theirs)
        with pytest.raises(CommandFailed, match="cannot listen on .*: Address already in use"):
            listen(ours)
