"""`_transport.accepting`: many connections at once, and every error of accept."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from tests.helpers import HOST, fail_accepting
from trio_ws._transport.accepting import LOST_CONNECTION, MOST_ACCEPTED, wrap_listener


def unexpected(exc: OSError) -> None:
    raise AssertionError from exc


async def test_connections_that_are_there_are_accepted_together() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    address = listener.socket.getsockname()
    async with listener:
        acceptor = await wrap_listener(listener, unexpected)
        clients = [socket.create_connection(address) for _ in range(MOST_ACCEPTED + 1)]
        try:
            accepted = await acceptor.accept()
            assert len(accepted) == MOST_ACCEPTED
            accepted += await acceptor.accept()
            assert [each.remote_address for each in accepted] == [
                client.getsockname() for client in clients
            ]
            for each, client in zip(accepted, clients, strict=True):
                assert each.local_address == address
                assert each.plain_socket is not None
                for option in (socket.TCP_NODELAY, socket.TCP_NOTSENT_LOWAT):
                    assert each.plain_socket.getsockopt(socket.IPPROTO_TCP, option)
                client.sendall(b"hello")
                assert await each.receive() == b"hello"
                await each.aclose()
        finally:
            for client in clients:
                client.close()
        with trio.move_on_after(0.01) as scope:
            await acceptor.accept()
        assert scope.cancelled_caught
    with pytest.raises(trio.ClosedResourceError):
        await acceptor.accept()


async def test_a_connection_accepted_before_descriptors_ran_out_is_not_lost() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with listener:
        acceptor = await wrap_listener(listener, unexpected)
        clients = [socket.create_connection(listener.socket.getsockname()) for _ in range(3)]
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 1, limits[1]))
        try:
            accepted = await acceptor.accept()
            assert len(accepted) == 1
            with pytest.raises(OSError, match="Too many open files"):
                await acceptor.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for client in clients:
                client.close()
        accepted += await acceptor.accept()
        assert len(accepted) == 3
        for each in accepted:
            await each.aclose()


@pytest.mark.parametrize("number", sorted(LOST_CONNECTION), ids=errno.errorcode.get)
async def test_an_error_that_accept_names_is_one_lost_connection(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[OSError] = []
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    async with listener:
        errors = fail_accepting(monkeypatch)
        acceptor = await wrap_listener(listener, lost.append)
        expected = [OSError(number, os.strerror(number)) for _ in range(2)]
        errors += expected
        with socket.create_connection(listener.socket.getsockname()):
            (accepted,) = await acceptor.accept()
            await accepted.aclose()
    assert lost == expected


async def test_for_every_error_there_is_ours_does_what_trio_s_listener_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FailingOnce:
        """A socket of trio's, as its listener sees it."""

        def __init__(self, sock: trio.socket.SocketType, error: OSError) -> None:
            self.sock = sock
            self.errors = [error]

        async def accept(self) -> Any:
            if self.errors:
                raise self.errors.pop()
            return await self.sock.accept()

    async def outcome(accept: Callable[[], Awaitable[Any]]) -> str:
        try:
            result = await accept()
        except trio.ClosedResourceError:
            return "closed"
        except OSError:
            return "raised"
        (accepted,) = result if isinstance(result, list) else [result]
        await accepted.aclose()
        return "passed over"

    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    async with listener:
        address = listener.socket.getsockname()
        errors = fail_accepting(monkeypatch)
        acceptor = await wrap_listener(listener, lambda exc: None)
        sock = listener.socket
        theirs: dict[str, str] = {}
        ours: dict[str, str] = {}
        for number, name in errno.errorcode.items():
            if isinstance(OSError(number, name), BlockingIOError):  # it waits then
                continue
            with socket.create_connection(address):
                errors[:] = [OSError(number, name)]
                ours[name] = await outcome(acceptor.accept)
                if ours[name] != "passed over":
                    await outcome(acceptor.accept)
            with socket.create_connection(address):
                listener.socket = cast("Any", FailingOnce(sock, OSError(number, name)))
                theirs[name] = await outcome(listener.accept)
                if theirs[name] != "passed over":
                    await outcome(listener.accept)
                listener.socket = sock
    assert ours == theirs
    assert set(ours.values()) == {"closed", "raised", "passed over"}


async def test_a_listener_that_only_fails_lets_other_tasks_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost: list[OSError] = []
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    async with listener:
        errors = fail_accepting(monkeypatch)
        acceptor = await wrap_listener(listener, lost.append)
        errors += [OSError(errno.EPROTO, "no")] * 1000
        with socket.create_connection(listener.socket.getsockname()):
            assert await acceptor.accept() == []
    assert len(lost) == MOST_ACCEPTED


async def test_a_client_that_another_process_took_is_no_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    async with listener:
        errors = fail_accepting(monkeypatch)
        acceptor = await wrap_listener(listener, unexpected)
        errors.append(BlockingIOError(errno.EAGAIN, "nobody is there"))
        with socket.create_connection(listener.socket.getsockname()) as client:
            assert await acceptor.accept() == []
            (accepted,) = await acceptor.accept()
            assert accepted.remote_address == client.getsockname()
            assert accepted.plain_socket is not None
            assert not accepted.plain_socket.get_inheritable()
            assert accepted.plain_socket.gettimeout() == 0
            await accepted.aclose()


async def test_a_unix_socket_accepts(tmp_path: Path) -> None:
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(os.fspath(tmp_path / "socket"))
    sock.listen()
    async with trio.SocketListener(sock) as listener:
        acceptor = await wrap_listener(listener, unexpected)
        async with await trio.open_unix_socket(os.fspath(tmp_path / "socket")) as near:
            (far,) = await acceptor.accept()
            await near.send_all(b"x")
            assert await far.receive() == b"x"
            await far.aclose()


async def test_a_listener_closed_while_it_is_waited_for_says_so() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    acceptor = await wrap_listener(listener, unexpected)
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await acceptor.accept()

        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()


async def test_a_listener_closed_before_it_is_used_says_so() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    await listener.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await (await wrap_listener(listener, unexpected)).accept()
