"""Catching up: what a subscriber is sent first, and what has to be waited for until it is known.

This module owns the way from a position to the messages behind it. What has to be waited for is
waited for before anything is sent. Then one step without a wait sends what came before and
subscribes to what is new: nothing can come in between, be lost or be doubled.

Meanwhile the topic's window is held: whatever comes while somebody waits is still there when the
wait is over, within bounds. Beyond these, the wait was in vain, and another follows. After a few,
whoever waits is told.

What many wait for at the same moment is asked for once: the backplane for what it has kept, the
application for its state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import trio

from .._arguments import awaitable
from .._errors import CloseCode, WebSocketError
from .._log import LoggerLike
from .._protocol.message import Message, checked_message
from .._protocol.prepared import Prepared
from ..backplane._base import Backplane, BackplaneError, Past
from ..backplane._position import Position
from .encoding import Encoder
from .sharing import Shared
from .topics import Delivery, Topic, Topics

#: Is given a topic, and returns its state.
GetState: TypeAlias = Callable[[str], Awaitable[Message | None]]

#: How often to ask again, where so much came meanwhile that the answer does not fit any more.
ATTEMPTS = 3

#: How long, in seconds, to wait for messages that the broker has and that are on their way here.
PATIENCE = 2.0


class StateUnavailable(WebSocketError):
    """The state of a topic could not be had, so nothing was subscribed to.

    The application's function raised an exception, which was logged, or took so long that too many
    messages came meanwhile. If a handler lets this out, its client comes back and tries again.
    """

    __module__ = "trio_ws"


@dataclass(frozen=True, slots=True)
class State:
    """An answer of the application.

    Attributes:
        position: the position that was taken before.
        message: what goes out; `None` if the topic has no state.
        failed: whether there is no answer.
    """

    position: Position | None
    message: Prepared | None
    failed: bool = False


class _Questions:
    """What is being asked about one topic."""

    __slots__ = ("moved", "past", "state")

    def __init__(self, past: Shared[Past | None], state: Shared[State]) -> None:
        self.past: Shared[Past | None] = past
        self.state: Shared[State] = state
        #: Where tasks wait for messages that are on their way.
        self.moved = trio.lowlevel.ParkingLot()


class CatchUp:
    """Subscribes those for whom something has to be waited for.

    Args:
        topics: the topics.
        backplane: one that keeps positions, or `None`.
        get_state: the application's function, or `None`.
        max_recovered: how many messages to read at most.
        prepare: makes what goes out.
        logger: where exceptions of the application's function go.
    """

    def __init__(
        self,
        topics: Topics,
        *,
        backplane: Backplane | None,
        get_state: GetState | None,
        max_recovered: int,
        prepare: Encoder,
        logger: LoggerLike,
    ) -> None:
        self._topics = topics
        self._backplane = backplane
        self._get_state = get_state
        self._max_recovered = max_recovered
        self._prepare = prepare
        self._logger = logger
        self._nursery: trio.Nursery | None = None
        self._questions: dict[Topic, _Questions] = {}
        self._starting_over: set[Topic] = set()

    def open(self, nursery: trio.Nursery) -> None:
        """Set where to ask. Without this, nothing can be asked, and nothing need be."""
        self._nursery = nursery

    def close(self) -> None:
        """Ask nothing more. The nursery refers to its task, and the task to the broadcast."""
        self._nursery = None
        for questions in self._questions.values():
            questions.moved.unpark_all()
        self._questions.clear()

    @property
    def must_wait(self) -> bool:
        """Whether subscribing has to wait for anything."""
        return self._backplane is not None or self._get_state is not None

    # Subscribing…

    def join_now(self, delivery: Delivery, topic: str, position: Position | None) -> bool:
        """Subscribe, and send what came before.

        Returns:
            Whether that was everything after the position.
        """
        record = self._topics.begin(delivery, topic)
        try:
            return self._admit(delivery, record, position)
        finally:
            self._topics.give_up(delivery, record)

    def _admit(self, delivery: Delivery, record: Topic, position: Position | None) -> bool:
        newer = record.window.after(position)
        if newer is None:
            self._topics.admit(delivery, record, record.window.newest(), recovered=False)
            return False
        return self._topics.admit(delivery, record, newer, recovered=True)

    async def join(self, delivery: Delivery, topic: str, position: Position | None) -> bool:
        """`join_now`, after what has to be waited for. Cancelled, it has not subscribed.

        Raises:
            StateUnavailable: there is no state.
            trio.ClosedResourceError: the broadcast is over.
        """
        record = self._topics.begin(delivery, topic)
        try:
            await self._look_back(record, position)
            if self._get_state is None or record.window.after(position) is not None:
                return self._admit(delivery, record, position)
            await self._join_with_state(delivery, record)
            return False
        finally:
            self._topics.give_up(delivery, record)
            self._stop_asking(record)

    async def _join_with_state(self, delivery: Delivery, record: Topic) -> None:
        messages = await self._state_and_newer(record)
        if messages is None:
            await self._fill(record)
            messages = record.window.newest()
        if not self._topics.admit(delivery, record, messages, recovered=False):
            delivery.overflow()

    # What the broker has kept…

    async def _look_back(self, record: Topic, position: Position | None) -> None:
        """Have what came after the position in the window, or else what a newcomer is sent."""
        if self._backplane is None:
            return
        if record.window.position is None:
            try:
                await self._backplane.wait_attached(record.name)
            except BackplaneError as exc:
                self._logger.debug("nothing is known of what came before on a topic: %s", exc)
            self._topics.check_open()
        if position is not None:
            await self._reach(record, position)
        if self._get_state is None and record.window.after(position) is None:
            await self._fill(record)

    async def _reach(self, record: Topic, position: Position) -> None:
        window = record.window
        for _ in range(ATTEMPTS):
            if position.epoch != window.epoch:
                return
            if position.offset > window.offset:
                await self._wait_for(record, position)
                return
            if not window.lacks(position.offset) or not await self._read(record, position.offset):
                return

    async def _wait_for(self, record: Topic, position: Position) -> None:
        """Wait for messages up to a position that another process has seen, if it is a true one."""
        past = await self._read(record, record.window.offset)
        if past is None or past.position.epoch != position.epoch:
            return
        questions = self._asking(record)
        if past.position.offset >= position.offset:
            with trio.move_on_after(PATIENCE):
                while record.window.offset < position.offset:
                    await questions.moved.park()
                    self._topics.check_open()
            self._topics.check_open()

    async def _fill(self, record: Topic) -> None:
        """Have as many messages in the window as a newcomer is sent."""
        window = record.window
        for _ in range(ATTEMPTS):
            if not window.lacks(window.wanted) or not await self._read(record, window.wanted):
                return

    async def _read(self, record: Topic, offset: int) -> Past | None:
        """Read what is behind an offset; `None` if the broker is away."""
        oldest = record.oldest_wanted
        record.oldest_wanted = offset if oldest is None else min(oldest, offset)
        past = await self._asking(record).past.get()
        self._topics.check_open()
        return past

    async def _read_past(self, record: Topic) -> Past | None:
        """Read what all who wait now want, into the window."""
        assert self._backplane is not None
        window = record.window
        wanted = window.offset if record.oldest_wanted is None else record.oldest_wanted
        record.oldest_wanted = None
        epoch = window.epoch
        count = max(self._max_recovered, window.offset - window.wanted)
        try:
            past = await self._backplane.read(record.name, Position(epoch, wanted), count)
            if past.position.epoch == epoch == window.epoch:
                self._take_in(record, past, wanted)
        except BackplaneError as exc:
            self._logger.debug("what came before on a topic cannot be read: %s", exc)
            return None
        return past

    def _take_in(self, record: Topic, past: Past, wanted: int) -> None:
        window = record.window
        first = past.position.offset - len(past.messages)
        if first > wanted:
            window.floor = max(window.floor, first)
        if past.position.offset < window.first:
            return  # so much came meanwhile that there is a hole in between
        older = past.messages[: max(0, window.first - first)]
        try:
            messages = [
                self._prepare(message, f"{window.epoch}-{offset}", record.name)
                for offset, message in enumerate(older, first + 1)
            ]
        except Exception:
            self._logger.exception("what came before on a topic cannot be sent")
            window.floor = window.first
        else:
            window.prepend(messages)

    # The application's state…

    async def _state_and_newer(self, record: Topic) -> list[Prepared] | None:
        """The state, and what came after its position; `None` if there is no state.

        Raises:
            StateUnavailable: see there.
        """
        questions = self._asking(record)
        for _ in range(ATTEMPTS):
            state = await questions.state.get()
            self._topics.check_open()
            if state is None or state.failed:
                break
            if state.message is None:
                return None
            if state.position == record.window.position:
                return [state.message]
            newer = record.window.after(state.position)
            if newer is not None:
                return [state.message, *newer]
            record.window.trim()  # the next answer has all the room for what comes meanwhile
        raise StateUnavailable(f"there is no state of {record.name!r} now")

    async def _ask_state(self, record: Topic) -> State:
        """Ask the application, for all who wait now. It raises nothing."""
        assert self._get_state is not None
        position = record.window.position
        try:
            message = await awaitable(self._get_state(record.name), self._get_state)
            if message is None:
                return State(position, None)
            text = "" if position is None else str(position)
            return State(position, self._prepare(checked_message(message), text, record.name))
        except Exception:
            self._logger.exception("the state of a topic cannot be had")
            return State(position, None, failed=True)

    # Something was missed…

    def note_moved(self, record: Topic) -> None:
        """Messages came, or a new epoch began."""
        questions = self._questions.get(record)
        if questions is not None:
            questions.moved.unpark_all()

    def start_over(self, record: Topic) -> None:
        """Send the state again to all subscribers of a topic, who have missed something."""
        if self._get_state is None or self._nursery is None or not record.subscribers():
            return
        record.leave_behind()
        if record not in self._starting_over:
            self._starting_over.add(record)
            self._nursery.start_soon(self._start_over, record)

    async def _start_over(self, record: Topic) -> None:
        record.window.hold()
        # That it is closed only means that the broadcast is over, and has yet to end its tasks.
        with suppress(trio.ClosedResourceError):
            await self._send_again(record)
        self._starting_over.remove(record)
        record.catch_up()
        record.window.release()
        self._stop_asking(record)

    async def _send_again(self, record: Topic) -> None:
        try:
            messages = await self._state_and_newer(record)
            if messages is None:
                await self._fill(record)
                messages = record.window.newest()
        except StateUnavailable:
            for delivery in record.behind:
                delivery.sink.disconnect(CloseCode.TRY_AGAIN_LATER, "no state")
        else:
            for delivery in record.behind:
                if not delivery.sink.is_closed and not delivery.replay(messages, record.name):
                    delivery.overflow()

    def _asking(self, record: Topic) -> _Questions:
        questions = self._questions.get(record)
        if questions is None:
            assert self._nursery is not None
            questions = self._questions[record] = _Questions(
                Shared(self._nursery, partial(self._read_past, record)),
                Shared(self._nursery, partial(self._ask_state, record)),
            )
        return questions

    def _stop_asking(self, record: Topic) -> None:
        """Forget what was asked about a topic, if nobody waits for it."""
        if not record.joining and record not in self._starting_over:
            self._questions.pop(record, None)
