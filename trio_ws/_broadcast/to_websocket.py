"""How a published message gets to connections: to many at once, and to slow ones one by one.

This module owns which connections get the same bytes. It knows neither publishers nor topics.

The messages of a connection wait in the line to its socket. There they keep their order with what
is sent to it directly, and can be taken back until their turn comes (see `line` in `_connection`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol, final

from .._connection.outlet import Outlet, Outlets
from .._connection.websocket import WebSocket
from .._protocol.prepared import Prepared
from .policies import Limits
from .slow_readers import Around, Queue
from .tally import Tally


class Greeting(Protocol):
    """Gives what goes out before and after what a subscriber is sent first; `None` for nothing.

    It is told the topic, the position that this brings the subscriber to, and whether this is all
    that the subscriber has missed.
    """

    def __call__(self, topic: str, position: str, *, recovered: bool) -> tuple[str, str | None]: ...


@final
class ToWebSocket(Queue[Outlet]):
    """One subscription of a connection. Several of one connection share its room."""

    __slots__ = ("greeting", "plain_below", "websocket")

    def __init__(self, websocket: WebSocket, limits: Limits, tally: Tally) -> None:
        super().__init__(websocket._sender.make_outlet(), limits, tally)
        self.websocket: WebSocket = websocket
        self.plain_below: float = self.sink.plain_below
        #: Makes what goes out around what it is sent first.
        self.greeting: Greeting | None = None

    def around(self, topic: str, position: str, *, recovered: bool) -> Around | None:
        greeting = self.greeting
        if greeting is None:
            return None

        def make(complete: bool) -> tuple[Prepared, Prepared | None]:  # noqa: FBT001 - `Around`
            first, last = greeting(topic, position, recovered=recovered and complete)
            return Prepared(first), None if last is None else Prepared(last)

        return make

    @property
    def _reader(self) -> WebSocket:
        return self.websocket


class Group(NamedTuple):
    """Subscribers that get the same messages uncompressed and unmasked, and their outlets."""

    plain_below: float
    deliveries: list[ToWebSocket]
    outlets: Outlets

    def without(self, excluded: Collection[WebSocket]) -> Group:
        left = [each for each in self.deliveries if each.websocket not in excluded]
        return Group(self.plain_below, left, Outlets(each.sink for each in left))


@final
class Audience:
    """The connections that are subscribed to a topic. It does not change."""

    __slots__ = ("_groups",)

    def __init__(self, deliveries: Iterable[ToWebSocket]) -> None:
        groups: dict[float, list[ToWebSocket]] = {}
        for each in deliveries:
            groups.setdefault(each.plain_below, []).append(each)
        self._groups = tuple(
            Group(plain_below, group, Outlets(each.sink for each in group))
            for plain_below, group in groups.items()
        )

    def deliver(self, message: Prepared, topic: str, excluded: Collection[WebSocket]) -> int:
        """Hand a message to each of them but the excluded; to how many it was handed."""
        count = 0
        for group in self._groups:
            if excluded:
                group = group.without(excluded)  # noqa: PLW2901
            left = group.deliveries
            if message.weight < group.plain_below:
                # Nearly always this is all. What it takes for each decides what a broadcast costs.
                in_vain = group.outlets.post_now(message.plain)
                count += len(left) - len(in_vain)
                left = [left[position] for position in in_vain]
            for each in left:
                count += each.deliver(message, topic)
        return count
