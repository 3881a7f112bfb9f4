"""The one door to coredis: a connection to Redis that says clearly how it ended.

This module is the only one that names anything of coredis or anyio, or handles their errors. It
knows Redis's commands only as words.

It uses coredis's connections, not the `Redis` and `PubSub` on top of them. Those retry by
themselves, and `PubSub` may then end silently, or hang on leaving. A backplane must learn at once
that a connection is lost, and which of its commands were not answered.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Generator
from contextlib import aclosing, contextmanager
from typing import Any, TypeAlias, final

import anyio
import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from coredis.connection import (
    BaseConnection,
    BaseConnectionParams,
    TCPConnection,
    TCPLocation,
    UnixDomainSocketConnection,
    UnixDomainSocketLocation,
)
from coredis.exceptions import (
    ConnectionError as RedisConnectionError,
    InvalidResponse,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    WrongTypeError,
)

from ..._pacing import SECOND_LOOK
from ..._reasons import reason_of, root_of
from .address import Address, BrokerLost, BrokerRefused, KeyRefused, Scheme

Word: TypeAlias = str | bytes | int

#: A broker that has become a read-only replica is as good as lost: by now another one is the
#: primary. One that has lost our scripts gets them with the next connection. What answers with
#: something else than Redis's protocol will not answer properly later.
_LOST = (RedisConnectionError, ReadOnlyError, NoScriptError, InvalidResponse)


@contextmanager
def _translated() -> Generator[None, None, None]:
    """Translate the errors of coredis. This is for calls of coredis, and nothing else."""
    try:
        yield
    except WrongTypeError as exc:
        raise KeyRefused(str(exc)) from exc
    except RedisError as exc:
        if isinstance(exc, _LOST):
            raise BrokerLost(reason_of(exc)) from root_of(exc)
        raise BrokerRefused(str(exc)) from exc
    except Exception as exc:
        # A connection that breaks raises its cause in every task that uses it: errors of the
        # system, of anyio, and of a parser that takes any bytes for numbers and text.
        raise BrokerLost(reason_of(exc)) from root_of(exc)


@final
class Link:
    """One connection to Redis, made by `open_link`. It ends with the nursery that it was opened in.

    Every method raises `BrokerLost` when the connection breaks, and `BrokerRefused` when Redis
    answers with an error.
    """

    def __init__(self, connection: BaseConnection, budget: anyio.CapacityLimiter) -> None:
        self._connection = connection
        self._budget = budget
        self._holding = False

    async def request(self, *words: Word) -> Any:
        """Send a command, and wait for its answer."""
        return await self.answer(self.ask(*words))

    def ask(self, *words: Word) -> Awaitable[Any]:
        """Send a command, and return an argument for `answer`. Redis answers in order."""
        with _translated():
            return self._connection.create_request(_name(words), *words[1:])

    async def answer(self, asked: Awaitable[Any]) -> Any:
        """Wait for the answer to a command that `ask` sent."""
        with _translated():
            return await asked

    def send(self, *words: Word) -> None:
        """Send a command that Redis answers with pushes only."""
        with _translated():
            self._connection.send_command(_name(words), *words[1:])

    async def dispatch(self, handle: Callable[[list[Any]], None]) -> None:
        """Pass each push to `handle`, until the connection breaks.

        coredis reads many pushes at a time into an unbounded buffer, and hands them out one at a
        time. Its reader task needs the budget to go on while it waits for no answer. This method
        holds the budget until the buffer is empty, which makes the reader task wait. That is
        backpressure: TCP makes Redis wait in turn, and Redis drops us if we are too slow for too
        long. Without it, this process would fill with messages that it cannot handle.
        """
        with _translated():
            pushes = self._connection.push_messages
        async with aclosing(pushes):
            while True:
                with _translated():
                    push = await anext(pushes, None)
                if push is None:
                    raise BrokerLost("nothing more will come")
                self._hold_reader()
                handle(push)
                if self._connection.reusable:  # its buffers are empty
                    self._let_reader_go()

    def _hold_reader(self) -> None:
        if not self._holding:
            try:
                self._budget.acquire_on_behalf_of_nowait(self)
            except anyio.WouldBlock:  # the reader task is about to use it; try at the next push
                return
            self._holding = True

    def _let_reader_go(self) -> None:
        if self._holding:
            self._budget.release_on_behalf_of(self)
            self._holding = False

    async def watch(self, interval: float, timeout: float) -> None:
        """Raise `BrokerLost` when nothing came for `interval`, nor for `timeout` after a PING.

        Every byte is a sign of life, because the answer to a PING may queue behind a flood.
        """
        while True:
            seen = self._bytes_received
            await trio.sleep(interval)
            if self._bytes_received == seen:
                with trio.move_on_after(timeout):
                    await self.request(b"PING")
            if self._bytes_received == seen:
                await trio.sleep(SECOND_LOOK)
            if self._bytes_received == seen:
                raise BrokerLost(f"it has been silent for {interval + timeout:g} s")

    @property
    def _bytes_received(self) -> int:
        return self._connection.statistics.bytes_read


def _name(words: tuple[Word, ...]) -> bytes:
    assert isinstance(words[0], bytes)
    return words[0]


async def open_link(
    nursery: trio.Nursery, address: Address, ssl_context: ssl.SSLContext | None
) -> Link:
    """Connect, say hello and log in. The nursery runs the connection until it is cancelled.

    It takes as long as the broker takes: put it under a time limit. Raises as `Link` does.
    """
    budget = anyio.CapacityLimiter(1)
    params: BaseConnectionParams = {
        "username": address.username,
        "password": address.password,
        "db": address.database,
        "ssl_context": ssl_context,
        "processing_budget": budget,
    }
    connection: BaseConnection
    if address.scheme is Scheme.UNIX:
        connection = UnixDomainSocketConnection(UnixDomainSocketLocation(address.path), **params)
    else:
        connection = TCPConnection(TCPLocation(address.host, address.port), **params)
    try:
        with _translated():
            await nursery.start(connection.run)
    except BrokerRefused as exc:
        _close_streams(connection)
        raise BrokerRefused(_without_login(str(exc), address)) from None
    except BaseException:
        _close_streams(connection)
        raise
    return Link(connection, budget)


def _without_login(text: str, address: Address) -> str:
    """Remove the password: a server that does not know HELLO or AUTH quotes its arguments."""
    text = text.partition(", with args")[0]
    return text.replace(address.password, "***") if address.password else text


def _close_streams(connection: BaseConnection) -> None:
    """Close the streams of a connection that could not be made; unclosed, they warn later."""
    for value in vars(connection).values():
        if isinstance(value, (MemoryObjectSendStream, MemoryObjectReceiveStream)):
            value.close()
