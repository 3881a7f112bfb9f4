"""What a handler can be besides a function of a WebSocket: a site, which answers plain HTTP too.

This module owns the interface between a server and such a handler. `Router` is one; the server
knows no other thing about it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .._http.values import Answer, Request, Response

if TYPE_CHECKING:
    from .._connection.websocket import WebSocket


class Source(Protocol):
    """Where the body of a response comes from that is not in memory."""

    def read(self) -> Awaitable[bytes]:
        """The next bytes. Fewer than were promised, at the end, are a file that shrank."""
        ...

    def close(self) -> None:
        """Let go of it. Never waits."""
        ...


@dataclass(frozen=True)
class Streamed:
    """A response whose body is sent as it is read.

    Attributes:
        head: the status and the headers.
        length: how many bytes `source` gives.
        source: it is closed by whoever got this.
    """

    head: Response
    length: int
    source: Source


class Site(ABC):
    """A handler that answers plain HTTP on the same port."""

    @abstractmethod
    def check(self) -> None:
        """Raise `TypeError` where it cannot serve: asked once, before anybody is served."""

    @abstractmethod
    async def __call__(self, websocket: WebSocket) -> object:
        """Serve a WebSocket that was admitted."""

    @abstractmethod
    async def admit(self, request: Request) -> Answer:
        """Decide about a request, WebSocket or plain, before its body is read.

        It is called after `process_request`, with the same meaning of what it returns.
        """

    @abstractmethod
    async def respond(self, request: Request) -> Response | Streamed:
        """Answer a plain request that was admitted, with its body.

        What it raises is answered with 500, except `InvalidRequest`, which says what to answer.
        """
