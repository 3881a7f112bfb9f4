"""How a published message gets to a channel, from which any task may receive.

This module owns the two ends of a channel: the mailbox, which a queue fills, and the end from which
the application receives. The queue decides how much may wait, and what becomes of more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task

from .._pacing import next_checkpoint
from .._protocol.prepared import Prepared
from .policies import Limits
from .slow_readers import Queue, QueuedMessage
from .tally import Tally


@final
class Mailbox:
    """Where the messages of a channel wait. A task that waits is given its message directly."""

    __slots__ = ("_bytes", "_given", "_is_ended", "_is_unread", "_parcels", "_receivers")

    def __init__(self) -> None:
        #: What waits, the oldest first.
        self._parcels: OrderedDict[QueuedMessage, None] = OrderedDict()
        #: How many bytes the frames of these would have.
        self._bytes = 0
        #: The tasks that wait for a message, in the order in which they came. While there is one,
        #: no message waits.
        self._receivers: OrderedDict[Task, None] = OrderedDict()
        #: The messages of tasks that were woken and have not run yet.
        self._given: dict[Task, str | bytes] = {}
        #: Nothing more will come.
        self._is_ended = False
        #: Nobody will receive any more.
        self._is_unread = False

    # What a queue puts in…

    @property
    def is_closed(self) -> bool:
        return self._is_ended or self._is_unread

    def waiting(self) -> tuple[int, int]:
        return len(self._parcels), self._bytes

    def frame_of(self, message: Prepared) -> bytes:
        """What a message counts as. The message itself is received as it was published."""
        return message.plain

    def post_now(self, frame: bytes, messages: Sequence[Prepared]) -> bool:
        if len(self._receivers) < len(messages):
            return False
        for message in messages:
            task, _ = self._receivers.popitem(last=False)
            # It is this task's from now on. If it waited for any task, the bounds would count it:
            # several messages in a row could be too many for a reader that is not slow.
            self._given[task] = message.data
            trio.lowlevel.reschedule(task)
        return True

    def post(self, parcel: QueuedMessage, frame: bytes) -> None:
        self._parcels[parcel] = None
        self._bytes += len(frame)

    def take_back(self, parcel: QueuedMessage) -> None:
        del self._parcels[parcel]
        self._bytes -= parcel.size

    def exchange(self, parcel: QueuedMessage, frame: bytes) -> bool:
        self._bytes += len(frame) - parcel.size
        return True

    def note_sent(self, message: str | bytes) -> None:
        """Nobody wants to know."""

    def disconnect(self, code: int, reason: str) -> None:
        self.end()

    def end(self) -> None:
        """Nothing more will come; what waits can still be received."""
        self._is_ended = True
        self._wake()

    # What a task takes out…

    async def receive(self) -> str | bytes:
        await next_checkpoint()()
        try:
            return self.receive_nowait()
        except trio.WouldBlock:
            pass
        task = trio.lowlevel.current_task()
        self._receivers[task] = None

        def abort(_: RaiseCancelT) -> Abort:
            del self._receivers[task]
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if task in self._given:
            return self._given.pop(task)
        return self.receive_nowait()  # raises why nothing will come

    def receive_nowait(self) -> str | bytes:
        if self._is_unread:
            raise trio.ClosedResourceError("this channel was closed")
        if self._parcels:
            parcel, _ = self._parcels.popitem(last=False)
            self._bytes -= parcel.size
            parcel.leave(sent=True)
            return parcel.message.data
        if self._is_ended:
            raise trio.EndOfChannel
        raise trio.WouldBlock

    def close(self) -> None:
        """Nobody will receive any more: what waits is thrown away."""
        self._is_unread = True
        while self._parcels:
            parcel, _ = self._parcels.popitem(last=False)
            parcel.leave(sent=False)
        self._bytes = 0
        self._wake()

    def _wake(self) -> None:
        """Wake the tasks that wait, to find out why nothing will come."""
        while self._receivers:
            task, _ = self._receivers.popitem(last=False)
            trio.lowlevel.reschedule(task)

    @property
    def tasks_waiting(self) -> int:
        return len(self._receivers)


@final
class ToChannel(Queue[Mailbox]):
    """What waits for one channel."""

    __slots__ = ("channel", "topic")

    def __init__(self, topic: str, limits: Limits, tally: Tally) -> None:
        super().__init__(Mailbox(), limits, tally)
        self.topic: str = topic
        self.channel: BroadcastChannel = BroadcastChannel(self.sink)


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """A snapshot of a channel.

    Attributes:
        current_buffer_used: how many messages wait to be received.
        current_bytes_used: how many bytes their frames would have, as the bounds count them.
        tasks_waiting_receive: how many tasks wait for a message.
    """

    current_buffer_used: int
    current_bytes_used: int
    tasks_waiting_receive: int


@final
class BroadcastChannel(trio.abc.ReceiveChannel[str | bytes]):
    """The messages of a topic, for any task: what `Broadcast.open_channel` gives.

    Several tasks may receive. Each message goes to exactly one of them, the one that has waited
    longest. ``async for`` ends when there will be no more messages.

    Attributes:
        recovered: whether a position was given, and everything that came after it is here or will
            be; see `Subscription`.
    """

    __slots__ = ("_mailbox", "recovered")

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.recovered: bool = False

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> str | bytes:
        """The next message. Cancelling it loses nothing.

        Raises:
            trio.EndOfChannel: there will be no more: the broadcast is over, or the policy is
                `Disconnect` and too much waited. What waited was received before this.
            trio.ClosedResourceError: the channel was closed, or its block was left.
        """
        return await self._mailbox.receive()

    @trio.lowlevel.enable_ki_protection
    def receive_nowait(self) -> str | bytes:
        """`receive`, where it need not wait.

        Raises:
            trio.WouldBlock: no message waits.
        """
        return self._mailbox.receive_nowait()

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Receive nothing more. What waits is thrown away, and no policy acts on what would come.

        Tasks that wait get a `trio.ClosedResourceError`. Closing again does nothing.
        """
        self._mailbox.close()

    async def aclose(self) -> None:
        """`close`, and a checkpoint. When it is cancelled, the channel is closed."""
        self.close()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> ChannelStatistics:
        """How many messages and tasks wait."""
        messages, size = self._mailbox.waiting()
        return ChannelStatistics(messages, size, self._mailbox.tasks_waiting)

    def __repr__(self) -> str:
        messages, _ = self._mailbox.waiting()
        state = "ended" if self._mailbox.is_closed else "open"
        return f"<BroadcastChannel {state}, {messages} messages waiting>"
