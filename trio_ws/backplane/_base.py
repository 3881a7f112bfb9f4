"""What a backplane is: the seam between `trio_ws.Broadcast` and whatever joins processes.

This module owns the names and the contract. It knows no broker and no queue.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import trio

from .._errors import WebSocketError
from .._protocol.message import Message
from ._position import Position


class BackplaneMessage(NamedTuple):
    """A message that a backplane delivers.

    Attributes:
        topic: where it was published.
        message: the message.
        kept: whether histories are to keep it.
        position: its place in the history of the topic. `None` if it is not kept, or if the
            backplane keeps no positions.
        token: what `Backplane.publish` returned for it. `None` if another process published it.
    """

    topic: str
    message: str | bytes
    kept: bool
    position: Position | None
    token: int | None


#: Called with each message that is delivered. It is a plain function that does not wait and does
#: not raise.
Deliver: TypeAlias = "Callable[[BackplaneMessage], None]"

#: Called with the topic of which messages may be missing, or `None` for all of them. It is a plain
#: function that does not wait and does not raise.
Gap: TypeAlias = "Callable[[str | None], None]"

#: Called with a topic and the position from which on all of it is delivered. It is a plain function
#: that does not wait and does not raise.
Attached: TypeAlias = "Callable[[str, Position], None]"

#: Called with the token of a message of ours that nobody will get. It is a plain function that does
#: not wait and does not raise.
Lost: TypeAlias = "Callable[[int], None]"


def ignore(*_: object) -> None:
    """Stands for a function that nobody gave."""


class BackplaneError(WebSocketError):
    """The broker refused us, or a call needed it while it was away.

    ``__cause__`` keeps the client library's error.
    """

    __module__ = "trio_ws.backplane"


@dataclass(frozen=True, slots=True)
class Past:
    """What the broker has kept of a topic, read at one moment.

    Attributes:
        position: of the newest message at that moment. Its offset is 0 if there was none yet.
        messages: the newest messages, the oldest first. The last one is that at `position`, so that
            the offsets of all the others follow.
    """

    position: Position
    messages: tuple[str | bytes, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BackplaneStatistics:
    """A snapshot of one backplane's counters.

    Attributes:
        connected: whether the broker is there and knows the subscriptions.
        connections: how often the broker was reached: one more than the outages that are over.
        queued_messages, queued_bytes: published, and not yet on their way to the broker.
        published: messages given to `publish`.
        sent: messages that the broker has accepted.
        refused: messages that the broker answered with an error. They are lost.
        dropped: messages that were lost because the queue was full or the backplane ended.
        delivered: messages that were delivered here. Without positions, those of other processes.
        duplicates: messages that came a second time and were not delivered again.
        malformed: what came over the broker and is not a message of a backplane.
        gaps: how often messages may have been missing: `gap` was called, or `attached` again.
    """

    connected: bool
    connections: int
    queued_messages: int
    queued_bytes: int
    published: int
    sent: int
    refused: int
    dropped: int
    delivered: int
    duplicates: int
    malformed: int
    gaps: int


class Backplane(ABC):
    """Carries what is published in one process to the subscribers in others.

    One instance serves one `Broadcast`. Each instance has its own identity, even two in one
    process. Messages of one publisher on one topic are delivered in the order in which they were
    published, each at most once.

    There are two kinds of backplane, and `keeps_positions` says which one this is.

    *Without positions*, a backplane delivers to *other* processes only. What is published here
    comes back to no subscriber here: the `Broadcast` delivers locally by itself, and never waits
    for a broker. Each kind of backplane says whether all messages are delivered; where some may be
    missing, it calls `gap`.

    *With positions*, the broker's order is the only order. It numbers the messages of each topic
    that are to be kept, and keeps the newest. Every message is delivered, our own among them, in
    this order and without a hole, from the position on that `attached` was given. A lost connection
    is no gap: the backplane reads what it missed, and delivers it. Where it cannot, it calls
    `attached` again, with a new position.
    """

    #: Whether this backplane keeps positions. It does not change.
    keeps_positions: bool = False

    # -----------------------------------------------------------------------
    # Running
    # -----------------------------------------------------------------------

    @abstractmethod
    async def run(
        self,
        deliver: Deliver,
        gap: Gap,
        attached: Attached = ignore,
        lost: Lost = ignore,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Join the other processes until cancelled. Start this in a nursery, once.

        It has started when the first attempt to reach the broker is over, whether or not that
        succeeded. A broker that is away, at the start or later, is no error: `publish` fills a
        bounded queue meanwhile, and the broker is tried again and again.

        Cancellation leaves no task and no socket behind, and never waits for the broker. Messages
        that were not sent by then are lost, and counted. Call `flush` first where that matters.

        Args:
            deliver: called with each message. With positions, messages that are not kept come in
                between, in their publisher's order. Nothing of a topic comes before `attached`.
            gap: called where messages of others may be missing. Only without positions.
            attached: called with a topic and the position of its newest message, after which
                everything is delivered: when the topic was newly subscribed to, and again where
                messages were lost on the way to us: the epoch has changed, or the broker has
                trimmed what we had not read. Only with positions.
            lost: called with the token of a message of ours that nobody will get: the queue was
                full, or the broker refused it. It may be called by `publish`.
            task_status: for `trio.Nursery.start`.

        Raises:
            BackplaneError: at the start, the broker answered and refused us.
            RuntimeError: this instance was run before.
        """

    # -----------------------------------------------------------------------
    # Publishing
    # -----------------------------------------------------------------------

    @abstractmethod
    def publish(self, topic: str, message: Message, *, keep: bool = True) -> int:
        """Queue a message for the broker.

        With `keep` false, no history keeps the message, and it has no position.

        This never waits for the broker and never fails because of it, even before and after `run`.
        When the queue is full, the oldest message in it is dropped and counted. Without positions,
        the other processes see a gap. With positions, it has never been there.

        Returns:
            A token by which the message is known when it is delivered here. Tokens grow.

        Raises:
            TypeError: the topic is not a `str`, or the message not a `str` or a buffer.
            ValueError: a `str` with lone surrogates, which UTF-8 cannot express.
        """

    @abstractmethod
    async def publish_wait(self, topic: str, message: Message, *, keep: bool = True) -> int:
        """Wait until the queue has room, then `publish`.

        Any number of tasks may call this. If it is cancelled, the message was not published.
        """

    @abstractmethod
    async def wait_for_room(self, message: Message) -> None:
        """Wait until the queue has room for this message, or `run` has ended.

        The room lasts until the next checkpoint or the next `publish`. This is for callers that
        wait for something else besides before they `publish`.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Wait until the broker has accepted what was published so far, dropped messages aside.

        While the broker is away, this takes as long as the outage: put it under a
        `trio.move_on_after`.

        Raises:
            trio.ClosedResourceError: `run` has ended.
        """

    # -----------------------------------------------------------------------
    # Subscribing
    # -----------------------------------------------------------------------

    @abstractmethod
    def subscribe(self, topic: str) -> None:
        """Have this topic delivered. Subscribing twice has no further effect.

        The broker is told as soon as possible. What others publish before it knows may not come.
        With positions, `attached` says when that is, and this does not call it.

        Raises:
            TypeError: the topic is not a `str`.
            ValueError: the topic has lone surrogates, which UTF-8 cannot express.
        """

    @abstractmethod
    def unsubscribe(self, topic: str) -> None:
        """Stop the delivery of this topic. Nothing is delivered for it from now on."""

    @abstractmethod
    async def wait_subscribed(self) -> None:
        """Wait until the broker knows every subscription.

        What others publish after that is delivered.

        Raises:
            trio.ClosedResourceError: `run` has ended.
        """

    # -----------------------------------------------------------------------
    # Positions
    # -----------------------------------------------------------------------

    async def wait_attached(self, topic: str) -> None:
        """Wait until `attached` was called for a topic, which is subscribed to.

        Raises:
            BackplaneError: the broker is away, or goes away. This never waits for it to come back.
            NotImplementedError: this backplane keeps no positions.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps no positions here")

    async def read(self, topic: str, after: Position | None, count: int) -> Past:
        """Read what the broker has kept of a topic, the messages of this process among it.

        Args:
            topic: which topic. It need not be subscribed to.
            after: only what came after this position. If it is of another epoch, or `None`, this
                makes no difference; `Past.position` says what the epoch is.
            count: at most this many messages, the newest ones.

        Raises:
            BackplaneError: the broker is away, or refuses. This never waits for it to come back.
            NotImplementedError: this backplane keeps no positions.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps no positions here")

    @abstractmethod
    def statistics(self) -> BackplaneStatistics:
        """Counters, and how much is queued."""
