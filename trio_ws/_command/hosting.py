"""``trio-ws listen``: a server that prints what clients send, and answers in one of three ways."""

from __future__ import annotations

import enum
import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

from .._broadcast.broadcast import Broadcast
from .._broadcast.opening import open_broadcast
from .._connection.websocket import WebSocket
from .._server.handlers import Handler
from .console import Console
from .exits import FAILED
from .formats import Text
from .serving import Service, Serving, serve_until_signalled
from .systemd import ServiceManager
from .terminal import STDERR, STDOUT
from .visible import visible

_TOPIC = "all"


class Answer(enum.Enum):
    """What is done with a message, once it is printed."""

    ECHO = "echo"
    BROADCAST = "broadcast"
    PRINT = "print"


async def host(service: Service, answer: Answer, console: Console, form: Text) -> int:
    """Serve until a signal asks to stop, or nobody reads what is printed. Returns the exit code."""
    listener = Listener(answer, console, form)
    listener.serving = Serving(service, listener.application)
    async with console.opened():
        status = await serve_until_signalled(listener.serving, ServiceManager())
    return FAILED if listener.is_unread else status


@final
class Listener:
    """The clients, numbered as they come.

    Attributes:
        serving: the service, to stop it.
        is_unread: whether the reader of the output has ended.
    """

    serving: Serving

    def __init__(self, answer: Answer, console: Console, form: Text) -> None:
        self._answer = answer
        self._console = console
        self._format = form
        self._numbers = itertools.count(1)
        self.is_unread = False

    @asynccontextmanager
    async def application(self) -> AsyncGenerator[Handler, None]:
        async with open_broadcast() as broadcast:

            async def handler(websocket: WebSocket) -> None:
                try:
                    await self._attend(websocket, broadcast)
                except BrokenPipeError:
                    self.is_unread = True
                    self.serving.stop()

            yield handler

    async def _attend(self, websocket: WebSocket, broadcast: Broadcast) -> None:
        who = f"{next(self._numbers)} "
        path = visible(websocket.request.path)
        await self._note(f"{who}connected to {path}")
        try:
            with broadcast.subscribe(websocket, _TOPIC):
                async for message in websocket:
                    await self._console.write(STDOUT, self._format.received(message, who))
                    await self._reply(websocket, message, broadcast)
        finally:
            await self._note(f"{who}closed: {websocket.close_reason}")

    async def _reply(
        self, websocket: WebSocket, message: str | bytes, broadcast: Broadcast
    ) -> None:
        if self._answer is Answer.ECHO:
            await websocket.send(message)
        elif self._answer is Answer.BROADCAST:
            await broadcast.publish_wait(message, _TOPIC, exclude=websocket)

    async def _note(self, text: str) -> None:
        await self._console.write(STDERR, f"{self._format.time()}{text}\n")
