"""``trio-ws connect``: a conversation with a server, in the terminal or in a pipe.

What is typed goes to the connection. What it receives goes to the standard output, as the format
says, and everything else is told in notes, on the standard error.

Two tasks do this: one for the input, which outlives a connection that is lost, and one for the
connection of the moment. Either ends the conversation.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from math import inf
from typing import Final, Literal, Unpack, final

import trio

from .._client.client import open_websocket_url
from .._client.reconnecting import reconnecting
from .._connection.websocket import WebSocket
from .._errors import ConnectionClosed, ConnectionLost
from .._keywords import ClientKeywords
from .._nursery import open_bare_nursery
from .._redaction import masked
from .console import Console
from .exits import DONE, FAILED, SIGNALLED, UNMET, CommandFailed
from .formats import Format, Text
from .terminal import (
    STDERR,
    STDOUT,
    restored_terminal,
    takes_colour,
    wait_until_nobody_reads,
)
from .typed import Leave, Send, SendPing, Toggle, understand
from .visible import DIM, RESET, visible

#: How many messages are shown at once, if as many wait.
_BATCH: Final = 64


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the user asked for, the options of the connection aside.

    Attributes:
        url: what to connect to.
        commands: whether a line that begins with a slash is a command.
        wait: how long to listen after the end of the input, in seconds.
        expect: end when a text message has this in it.
        count: end after so many messages.
        timeout: how long to wait for what is expected, opening included, in seconds.
        ping: how often to measure the round trip, in seconds.
        reconnect: connect again whenever the connection is lost.
    """

    url: str
    commands: bool
    wait: float
    expect: re.Pattern[str] | None = None
    count: float = inf
    timeout: float = inf
    ping: float = inf
    reconnect: bool = False


async def talk(
    plan: Plan, console: Console, form: Format, **options: Unpack[ClientKeywords]
) -> int:
    """Connect, and talk until either side closes or the plan is fulfilled.

    Returns:
        The exit code.

    Raises:
        HandshakeError: the connection could not be opened.
        CommandFailed: what was expected did not come.
        BrokenPipeError: nobody reads the output any more.
        ValueError: an option is wrong.
    """
    conversation = Conversation(plan, console, form)
    async with _until_sigterm() as asked_to_stop:
        with restored_terminal(), trio.move_on_after(plan.timeout) as limit:
            await conversation.run(options)
    if asked_to_stop.is_set():
        return SIGNALLED + signal.SIGTERM
    return conversation.status(f" in {plan.timeout:g} s" if limit.cancelled_caught else "")


@asynccontextmanager
async def _until_sigterm() -> AsyncGenerator[trio.Event, None]:
    """Cancel the block when SIGTERM comes, and set the event that this gives."""
    asked = trio.Event()

    async def obey(scope: trio.CancelScope) -> None:
        async for _ in signals:
            asked.set()
            scope.cancel()

    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(obey, nursery.cancel_scope)
            try:
                yield asked
            finally:
                nursery.cancel_scope.cancel()


@final
class Conversation:
    """What was said so far, and with whom."""

    _nursery: trio.Nursery
    _last: WebSocket

    def __init__(self, plan: Plan, console: Console, form: Format) -> None:
        self._plan = plan
        self._console = console
        self._format = form
        self._websocket: WebSocket | None = None
        self._connected = trio.Event()
        self._leave: Leave | None = None
        self._leaving = trio.Event()
        self._between = trio.CancelScope()  # the wait for the next connection
        self._end_told = trio.Event()  # set when the end of the last connection was told
        self._end_told.set()
        self._received = 0
        self._matched = False
        self._orderly = False

    async def run(self, options: ClientKeywords) -> None:
        """Talk until it is over. When this is cancelled, the peer is told 1001."""
        async with self._console.opened(), open_bare_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._send_lines)
            nursery.start_soon(self._end_with_the_reader)
            try:
                await self._connect(options)
            finally:
                nursery.cancel_scope.cancel()

    def status(self, when: str) -> int:
        """The exit code.

        Args:
            when: until when it went on, for the error.

        Raises:
            CommandFailed: what was expected did not come.
        """
        plan = self._plan
        if plan.expect is not None and not self._matched:
            raise CommandFailed(f"no message matched {plan.expect.pattern!r}{when}", UNMET)
        if plan.expect is None and self._received < plan.count < inf:
            raise CommandFailed(f"{self._received} of {plan.count} messages came{when}", UNMET)
        return DONE if self._orderly or self._fulfilled else FAILED

    # The connection…

    async def _connect(self, options: ClientKeywords) -> None:
        if self._plan.reconnect:
            await self._connect_again_and_again(options)
        else:
            await self._talk_in(open_websocket_url(self._plan.url, **options))

    async def _connect_again_and_again(self, options: ClientKeywords) -> None:
        links = reconnecting(self._plan.url, retry=self._tell_failure, **options)
        with suppress(ConnectionClosed):  # an end that is final, which was told already
            while not self._leaving.is_set():
                link = None
                with trio.CancelScope() as self._between:
                    link = await anext(links)
                if link is not None:
                    await self._talk_in(link)

    def _tell_failure(self, exc: Exception, is_transient: bool) -> bool:  # noqa: FBT001 - its caller's
        if is_transient:
            why = "The connection closed" if isinstance(exc, ConnectionClosed) else str(exc)
            self._nursery.start_soon(self._note_another_try, why)
        return is_transient

    async def _note_another_try(self, why: str) -> None:
        await self._end_told.wait()
        await self._note(f"{why}; connecting again")

    async def _talk_in(self, opening: AbstractAsyncContextManager[WebSocket, bool | None]) -> None:
        self._end_told = trio.Event()
        async with opening as websocket:
            self._last = websocket
            await self._talk_over(websocket)
        await self._tell_end(self._last)
        self._end_told.set()

    async def _talk_over(self, websocket: WebSocket) -> None:
        with_what = f", {websocket.subprotocol}" if websocket.subprotocol else ""
        await self._note(f"Connected to {masked(self._plan.url)}{with_what}")
        await self._write(self._format.opened(self._plan.url, websocket))
        self._websocket = websocket
        self._connected.set()
        with suppress(ConnectionLost):  # the reason is told at the end
            async with websocket.open_nursery() as nursery:
                nursery.start_soon(self._show_messages, websocket)
                nursery.start_soon(self._ping_regularly, websocket)
                await self._leaving.wait()
                nursery.cancel_scope.cancel()
        self._websocket = None
        self._connected = trio.Event()
        if self._leave is not None:
            await websocket.aclose(self._leave.code, self._leave.reason)

    async def _tell_end(self, websocket: WebSocket) -> None:
        reason = await websocket.wait_closed()
        self._orderly = reason.orderly
        await self._write(self._format.closed(reason))
        await self._note(f"Closed: {reason}")

    async def _show_messages(self, websocket: WebSocket) -> None:
        async for message in websocket:
            messages = [message]
            with suppress(trio.WouldBlock, ConnectionClosed):
                while len(messages) < _BATCH:
                    messages.append(websocket.receive_nowait())
            wanted = self._wanted(messages)
            await self._write("".join(map(self._format.received, wanted)))
            if self._fulfilled:
                self._leaving.set()

    def _wanted(self, messages: list[str | bytes]) -> list[str | bytes]:
        """Those up to the one that fulfils the plan."""
        for index, message in enumerate(messages):
            self._received += 1
            expect = self._plan.expect
            if expect is not None and isinstance(message, str) and expect.search(message):
                self._matched = True
            if self._fulfilled:
                return messages[: index + 1]
        return messages

    @property
    def _fulfilled(self) -> bool:
        return self._matched or self._received >= self._plan.count

    async def _ping_regularly(self, websocket: WebSocket) -> None:
        while True:
            await trio.sleep(self._plan.ping)
            await self._ping(websocket)

    async def _ping(self, websocket: WebSocket, payload: bytes | None = None) -> None:
        try:
            seconds = await websocket.ping(payload)
        except (ConnectionClosed, trio.ClosedResourceError):
            return  # which is told elsewhere
        await self._write(self._format.pong(seconds))
        await self._note(f"Pong after {seconds * 1000:.1f} ms")

    # The input…

    async def _send_lines(self) -> None:
        await self._connected.wait()
        async with trio.open_nursery() as nursery:
            while (line := await self._console.read_line()) is not None:
                await self._obey(line, nursery)
                if self._leave is not None:
                    break
            else:
                await trio.sleep(self._plan.wait)
            self._leaving.set()
            self._between.cancel()
            nursery.cancel_scope.cancel()

    async def _obey(self, line: str, nursery: trio.Nursery) -> None:
        match understand(line) if self._plan.commands else Send(line):
            case Send(message):
                await self._send(message)
            case SendPing(payload):
                if self._websocket is not None:
                    nursery.start_soon(self._ping, self._websocket, payload)
            case Leave() as leave:
                self._leave = leave
            case Toggle(what):
                await self._toggle(what)
            case told:
                await self._note(told.text)

    async def _send(self, message: str | bytes) -> None:
        if not self._plan.commands:  # nobody is there to send it again
            await self._connected.wait()
        websocket = self._websocket
        if websocket is None:
            await self._note(f"Not connected, and so not sent: {_quoted(message)}")
            return
        began = time.time()
        try:
            await websocket.send(message)
        except (ConnectionClosed, trio.ClosedResourceError):
            await self._note(f"The connection closed before this was sent: {_quoted(message)}")
        else:
            await self._write(self._format.sent(message, began))

    async def _toggle(self, what: Literal["json", "times"]) -> None:
        if isinstance(self._format, Text):
            is_on = self._format.toggle(what)
            await self._note(f"{what} is {'on' if is_on else 'off'}")

    # What is shown…

    async def _write(self, text: str) -> None:
        if text:
            await self._console.write(STDOUT, text)

    async def _note(self, text: str) -> None:
        begin = self._format.time() if isinstance(self._format, Text) else ""
        shown = begin + text
        if takes_colour(STDERR):
            shown = f"{DIM}{shown}{RESET}"
        await self._console.write(STDERR, shown + "\n")

    async def _end_with_the_reader(self) -> None:
        await wait_until_nobody_reads(STDOUT)
        raise BrokenPipeError


def _quoted(message: str | bytes) -> str:
    if isinstance(message, bytes):
        return f"{len(message)} bytes"
    return visible(message[:64]) + (" …" if len(message) > 64 else "")
