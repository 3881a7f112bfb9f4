"""What a handler can be besides a function of a WebSocket: a site, which also answers plain HTTP.

This module owns the interface between a server and such a handler. `Router` implements it, and the
server knows nothing else about a `Router`.
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
    """Gives the body of a response that is not in memory."""

    def read(self) -> Awaitable[bytes]:
        """The next bytes; ``b""`` at the end. If these are too few in all, the file has shrunk."""
        ...

    def close(self) -> None:
        """Release what it holds. Never waits."""
        ...


@dataclass(frozen=True)
class Streamed:
    """A response whose body is sent as it is read.

    Attributes:
        head: the status and the headers.
        length: how many bytes `source` gives.
        source: gives the body. The code that receives this object closes it.
    """

    head: Response
    length: int
    source: Source


class Site(ABC):
    """A handler that answers plain HTTP on the same port."""

    @abstractmethod
    def check(self) -> None:
        """Called once, before anybody is served.

        Raises:
            TypeError: it cannot serve.
        """

    @abstractmethod
    async def __call__(self, websocket: WebSocket) -> object:
        """Serve a WebSocket that was admitted."""

    @abstractmethod
    async def admit(self, request: Request) -> Answer:
        """Decide about a request, WebSocket or plain, before its body is read.

        It is called after `process_request`, and may return the same.
        """

    @abstractmethod
    async def respond(self, request: Request) -> Response | Streamed:
        """Answer a plain request that was admitted, with its body.

        An exception is answered with 500, except `InvalidRequest`, which holds its own response.
        """
