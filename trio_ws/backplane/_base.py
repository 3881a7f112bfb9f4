"""What a backplane is: the seam between `trio_ws.Broadcast` and whatever joins processes.

This module owns the names and the contract. It knows no broker and no queue.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import trio

from .._errors import WebSocketError
from .._protocol.message import Message

#: Called with the topic, the message and its id, for each message of another process. The id is
#: empty if no history is to keep the message. It is a plain function that does not wait and does
#: not raise.
Deliver: TypeAlias = "Callable[[str, str | bytes, str], None]"

#: Called with the topic of which messages may be missing, or `None` for all of them. It is a plain
#: function that does not wait and does not raise.
Gap: TypeAlias = "Callable[[str | None], None]"


class BackplaneError(WebSocketError):
    """The broker refused us, or a call needed it while it was away.

    ``__cause__`` keeps the client library's error.
    """


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A message that the broker has kept.

    Attributes:
        id: what `Backplane.publish` returned where the message was published. Everywhere else,
            `Deliver` was given it together with the message.
        message: the message.
    """

    id: str
    message: str | bytes


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
        delivered: messages of other processes, delivered here.
        duplicates: messages that came a second time and were not delivered again.
        malformed: what came over the broker and is not a message of a backplane.
        gaps: how often `gap` was called.
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

    A backplane delivers to *other* processes only. What is published here comes back to no
    subscriber here: the `Broadcast` delivers locally by itself, and never waits for a broker. One
    instance serves one `Broadcast`. Each instance has its own identity, even two in one process.

    Messages of one publisher on one topic are delivered in the order in which they were published,
    each at most once. Each kind of backplane says whether all of them are delivered; where messages
    may be missing, it calls `gap`.
    """

    # -----------------------------------------------------------------------
    # Running
    # -----------------------------------------------------------------------

    @abstractmethod
    async def run(
        self,
        deliver: Deliver,
        gap: Gap,
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
            deliver: see `Deliver`.
            gap: see `Gap`.
            task_status: for `trio.Nursery.start`.

        Raises:
            BackplaneError: at the start, the broker answered and refused us.
            RuntimeError: this instance was run before.
        """

    # -----------------------------------------------------------------------
    # Publishing
    # -----------------------------------------------------------------------

    @abstractmethod
    def publish(self, topic: str, message: Message, *, keep: bool = True) -> str:
        """Queue a message for the other processes, and return its id.

        With `keep` false, neither their histories nor `history` keep the message, and its id is
        empty.

        This never waits for the broker and never fails because of it, even before and after `run`.
        When the queue is full, the oldest message in it is dropped and counted, and the other
        processes see a gap.

        Raises:
            TypeError: the topic is not a `str`, or the message not a `str` or a buffer.
            ValueError: a `str` with lone surrogates, which UTF-8 cannot express.
        """

    @abstractmethod
    async def publish_wait(self, topic: str, message: Message, *, keep: bool = True) -> str:
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
    # Looking back
    # -----------------------------------------------------------------------

    #: Whether `history` is available.
    keeps_history: bool = False

    async def history(
        self, topic: str, *, count: int | None = None, since: str | None = None
    ) -> list[HistoryEntry]:
        """The last messages of a topic, the oldest first, including those of this process.

        Args:
            topic: which topic. It need not be subscribed to.
            count: at most this many, the newest ones.
            since: the id of a message: only what came after it, in the broker's order.

        Raises:
            BackplaneError: the broker is away, or refuses. This never waits for it to come back.
            LookupError: the message with the id `since` is no longer there, so some of those that
                came after it may be missing.
            NotImplementedError: this backplane keeps no history.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps no history here")

    @abstractmethod
    def statistics(self) -> BackplaneStatistics:
        """Counters, and how much is queued."""
